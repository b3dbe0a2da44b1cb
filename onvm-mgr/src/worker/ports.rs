//! Ports that come and go while packets run.
//!
//! ```text
//! empty ──`AddPort`──▶ open ──`RemovePort`──▶ leaving ──nothing left that may go out of it, or too long──▶ empty
//! ```
//! A port that leaves receives nothing more, and sends on: a packet that was inside when it was told to leave still goes out
//! of it. When none of those is inside any more it is closed, and gives back every buffer; the control thread ends its threads
//! and descriptors, which may take its time. Packets that an NF holds back, or that wait for an instance, would keep it for
//! ever: it is closed after [`LONGEST`] all the same. What goes to an empty number is dropped as `no-such-port`.

use std::time::{Duration, Instant};

use onvm_lib::packet::DropReason;

use super::gate::identity;
use super::{News, PortState, Worker};
use crate::ports::{self, Port};

/// How long a port waits for packets that may go out of it.
const LONGEST: Duration = Duration::from_secs(1);

/// What a port that leaves waits for.
pub(super) struct Leaving {
    /// What was inside when it was told to: buffer and generation.
    inside: Vec<(u32, u16)>,
    since: Instant,
}

/// A port that has been closed; it ends when it is dropped.
pub(crate) struct ClosedPort {
    pub(crate) port: Box<dyn Port>,
    /// What it could not write, in words for the user.
    pub(crate) error: Option<String>,
}

impl std::fmt::Debug for ClosedPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClosedPort").field("port", &self.port.name()).finish_non_exhaustive()
    }
}

impl Worker {
    /// Opens a number, which is empty, for a port.
    pub(super) fn add_port(&mut self, number: u8, port: Box<dyn Port>) {
        let index = usize::from(number);
        while self.ports.len() <= index {
            self.ports.push(PortState::new(ports::absent()));
        }
        let mut state = PortState::new(port);
        if self.receiving {
            state.port.start();
        }
        if !self.ports[index].port.is_absent() {
            self.close_port(index);
        }
        self.ports[index] = state;
        self.captures = self.ports.iter().any(|state| state.captures);
        if self.captures {
            self.name_hops();
        }
        // Whoever changes the ports says when it is over.
        self.stay = true;
    }

    /// Has a port leave; [`News::PortClosed`] follows.
    pub(super) fn remove_port(&mut self, number: u8) {
        self.stay = true;
        let out = self.books.out().filter(|(_, _, packet)| *packet);
        let mut inside: Vec<(u32, u16)> = out.map(|(buffer, generation, _)| (buffer, generation)).collect();
        inside.extend(self.services.packets_in_line());
        inside.extend(self.gate.iter().flat_map(|gate| &gate.queue).map(identity));
        let since = Instant::now();
        if let Some(state) = self.ports.get_mut(usize::from(number)) {
            state.finished = true;
            state.leaving = Some(Leaving { inside, since });
        }
        self.watch_leaving();
    }

    /// Forgets empty numbers at the end.
    pub(super) fn shorten_ports(&mut self, count: usize) {
        while self.ports.len() > count && self.ports.last().is_some_and(|state| state.port.is_absent()) {
            self.ports.pop();
        }
    }

    /// Whether a port is on its way out.
    pub(super) fn ports_leave(&self) -> bool {
        self.ports.iter().any(|state| state.leaving.is_some())
    }

    /// Closes the ports that nothing more goes out of.
    pub(super) fn watch_leaving(&mut self) {
        if !self.ports_leave() {
            return;
        }
        let now = Instant::now();
        let mut waiting = self.services.packets_in_line();
        waiting.extend(self.gate.iter().flat_map(|gate| &gate.queue).map(identity));
        for index in 0..self.ports.len() {
            let (books, state) = (&self.books, &mut self.ports[index]);
            let nothing_to_send = state.on_the_way_out() == 0;
            let Some(leaving) = &mut state.leaving else { continue };
            leaving.inside.retain(|packet| {
                books.generation_out(packet.0) == Some(packet.1) || waiting.contains(packet)
            });
            let done = leaving.inside.is_empty() && nothing_to_send;
            if done || now.duration_since(leaving.since) > LONGEST {
                self.close_port(index);
            }
        }
    }

    fn close_port(&mut self, index: usize) {
        let mut state = std::mem::replace(&mut self.ports[index], PortState::new(ports::absent()));
        for packet in state.outgoing.drain(..) {
            self.drop_packet(packet, DropReason::NoSuchPort);
        }
        let error = state.port.close(&mut self.books).err().map(|error| error.to_string());
        if state.settles {
            self.tally.settle(&state.port.settle());
        }
        self.captures = self.ports.iter().any(|state| state.captures);
        let number = u8::try_from(index).unwrap_or(u8::MAX);
        self.tell(News::PortClosed { number, closed: ClosedPort { port: state.port, error } });
    }
}
