//! What an NF hears between two turns, and how it follows a new route snapshot.

use std::os::fd::OwnedFd;

use super::{Input, Live, LiveError, manner};
use crate::protocol::{Route, Say};
use crate::ring::{Descriptor, Destination, Op};
use crate::runtime::NetworkFunction;
use crate::runtime::attach::{AttachError, open_ring};
use crate::runtime::control::Event;
use crate::runtime::dispatch::{Output, Wake};
use crate::runtime::route::Routing;

impl<N: NetworkFunction> Live<'_, N> {
    /// Reads the news.
    #[cold]
    pub(super) fn hear(&mut self) -> Result<(), LiveError> {
        self.ears.attention.heed();
        while let Ok(event) = self.ears.events.try_recv() {
            match event {
                Event::Route(route, fds) => self.follow(&route, fds),
                Event::Message(message) => self.nf.message(&message),
                Event::Pause => {
                    log::info!("the manager says pause");
                    self.paused = true;
                }
                Event::Resume => {
                    log::info!("the manager says go on");
                    self.paused = false;
                }
                Event::HandOver => self.hand_over(),
                Event::TakeOver(file) => self.take_over(file),
                Event::Refused(reason) => {
                    self.leaving = true;
                    return Err(AttachError::Refused(reason).into());
                }
                Event::Stop => {
                    log::info!("the manager says stop");
                    self.leaving = true;
                }
                Event::Signal(number) => {
                    log::info!("signal {number}: leaving");
                    self.leaving = true;
                }
                Event::ManagerGone(error) => {
                    self.outputs.orphaned = true;
                    if !self.leaving {
                        return Err(LiveError::ManagerGone(error));
                    }
                }
            }
        }
        Ok(())
    }

    /// Follows a new route snapshot.
    fn follow(&mut self, route: &Route, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        for edge in &route.consume {
            let Some(fd) = fds.next() else { break };
            let id = edge.ring.edge;
            let gated = !self.early_markers.contains(&id);
            self.early_markers.retain(|early| *early != id);
            match open_ring(edge.ring, fd) {
                Ok(ring) => {
                    let consumer = ring.consumer();
                    self.inputs.push(Input { edge: id, consumer, gated, finishing: false });
                }
                Err(error) => log::error!("edge {} cannot be used: {error}", edge.ring.edge),
            }
        }
        self.begin_turn();
        for edge in &route.produce {
            let Some(fd) = fds.next() else { break };
            let wake = if edge.peer == self.instance { Wake::Nobody } else { Wake::Node };
            match open_ring(edge.ring, fd) {
                Ok(ring) => {
                    self.outputs.add(Output {
                        edge: edge.ring.edge,
                        producer: ring.producer(),
                        wake,
                        stuck: false,
                    });
                    let marker = Destination::new(Op::Marker, 0);
                    self.relay(Descriptor::without_buffer(marker, edge.ring.edge));
                }
                Err(error) => log::error!("edge {} cannot be used: {error}", edge.ring.edge),
            }
        }
        self.outputs.publish();
        for edge in &route.finish {
            for input in self.inputs.iter_mut().filter(|input| input.edge == *edge) {
                input.finishing = true;
            }
        }
        self.inputs.retain_mut(|i| !(i.finishing && !i.gated && i.consumer.available(1) == Ok(0)));
        let used = |edge| route.services.iter().any(|s| s.ways.contains(&Some(edge)));
        self.outputs.retain(used);
        self.routing = Routing::compile(route, self.common.destination, |edge| self.outputs.index_of(edge));
        self.idle.set_manner(manner(self.common, route.shared_core));
        if let Err(error) = self.line.send(&Say::Routed { version: route.version }, &[], true) {
            log::debug!("cannot confirm the route: {error}");
        }
    }
}
