//! The worker's sleep: one epoll over the doorbells of all NFs and of the control thread.
//!
//! Edge-triggered, and no doorbell is ever read, so no peer can make the worker block on one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use onvm_lib::protocol::InstanceId;
use rustix::event::epoll;
use rustix::event::{EventfdFlags, eventfd};

use super::Worker;

/// How long the worker sleeps at most: ports flush and waiting packets expire meanwhile.
const LONGEST: Duration = Duration::from_secs(1);
/// The same while something waits that no doorbell announces: room in a ring, an audit, a flush.
const SHORT: Duration = Duration::from_millis(1);

pub(super) struct Sleeper {
    epoll: OwnedFd,
    command_bell: OwnedFd,
}

impl Sleeper {
    pub(super) fn new() -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let command_bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let sleeper = Self { epoll, command_bell };
        sleeper.add(sleeper.command_bell.as_fd());
        Ok(sleeper)
    }

    pub(super) fn command_bell(&self) -> std::io::Result<OwnedFd> {
        self.command_bell.try_clone()
    }

    pub(super) fn add(&self, bell: BorrowedFd<'_>) {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        if let Err(error) = epoll::add(&self.epoll, bell, epoll::EventData::new_u64(0), flags)
            && error != rustix::io::Errno::EXIST
        {
            // Without its bell an instance is served when something else wakes the worker, a second later at most.
            log::error!("cannot listen to a doorbell: {error}");
        }
    }

    pub(super) fn remove(&self, bell: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.epoll, bell);
    }

    fn sleep(&self, limit: Duration) {
        let mut events = Vec::with_capacity(16);
        let limit = rustix::time::Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(1),
            tv_nsec: i64::from(limit.subsec_nanos()),
        };
        // An interrupted sleep is a short one.
        let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&limit));
    }
}

impl Worker {
    /// Sleeps until an NF or the control thread rings, or until the next thing is due.
    #[inline(never)]
    pub(super) fn rest(&mut self) {
        let now = Instant::now();
        let mut limit = LONGEST;
        let polled =
            |p: &super::PortState| !p.finished && p.not_before.is_none() && p.port.readiness().is_none();
        let sources_wait = self.receiving && self.ports.iter().any(polled);
        if sources_wait || self.something_waits() {
            limit = SHORT;
        }
        for when in self.ports.iter().filter_map(|p| p.not_before.filter(|_| !p.finished && self.receiving)) {
            limit = limit.min(when.saturating_duration_since(now));
        }
        for when in self.ports.iter().filter_map(|p| p.port.due(self.receiving && !p.finished)) {
            limit = limit.min(when.saturating_duration_since(now));
        }
        if limit.is_zero() {
            self.idle.worked();
            return;
        }
        for node in self.nodes.iter_mut().flatten() {
            node.outbound.arm();
        }
        if let Some(cap) = self.barriers.before_sleep() {
            limit = limit.min(cap);
        }
        // An interface that went and came again has a new descriptor.
        self.ports.iter().filter_map(|p| p.port.readiness()).for_each(|fd| self.sleeper.add(fd));
        let packets_are_there = |ports: &[super::PortState]| ports.iter().any(|p| p.port.is_ready());
        let quiet = !(self.receiving && packets_are_there(&self.ports))
            && self.nodes.iter_mut().flatten().all(|n| !matches!(n.outbound.available(1), Ok(1..)));
        if quiet && !self.called.load(std::sync::atomic::Ordering::Acquire) {
            self.sleeper.sleep(limit);
        }
        // Woken by the clock alone it goes back to sleep at once.
        if self.receiving && packets_are_there(&self.ports)
            || self.nodes.iter_mut().flatten().any(|n| matches!(n.outbound.available(1), Ok(1..)))
        {
            self.idle.worked();
        }
        for node in self.nodes.iter_mut().flatten() {
            node.outbound.disarm();
        }
    }

    /// Whether packets stand in rings to an instance.
    fn has_packets(&self, instance: InstanceId) -> bool {
        let node = self.by_instance.get(&instance).and_then(|index| self.nodes[*index].as_ref());
        node.is_some_and(|node| node.inbound.ring().occupancy() > 0)
            || self.edges.values().any(|edge| edge.to == instance && edge.ring.occupancy() > 0)
    }

    fn something_waits(&self) -> bool {
        let blocked = self
            .nodes
            .iter()
            .flatten()
            .any(|n| n.blocked_since.is_some() || !n.markers.is_empty() || !n.heirs.is_empty());
        let parked = !self.services.with_line().is_empty() || self.gate.is_some();
        blocked
            || parked
            || self.hushed_until.is_some()
            || self.successions.must_be_looked_at(|id| self.has_packets(id))
            || self.ports_leave()
            || !self.audits.is_empty()
            || self.edges.values().any(|e| e.heir.is_some())
    }
}
