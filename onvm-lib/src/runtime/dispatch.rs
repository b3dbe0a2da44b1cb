//! The outgoing edges of an NF: push, publish, wake, and wait for room.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::idle::Idle;
use crate::node::{Counter, NodePage};
use crate::packet::DropReason;
use crate::protocol::EdgeId;
use crate::ring::bell::Barriers;
use crate::ring::{Descriptor, Destination, Op, Producer};

use super::route::RELAY;

/// How long an NF waits for room on a direct edge before it drops: this breaks cycles in which all wait for all.
const PATIENCE: Duration = Duration::from_secs(1);

/// Packets ahead of another NF from which on a shared processor is given to it; half a ring where that is less. A change
/// of process costs microseconds, so with 512 it was half of a chain's time; with 4,096 it is a nanosecond a packet, and
/// their first lines still fit the second-level cache.
const CROWD: u32 = 4096;

/// How the consumer at the other end is woken.
#[derive(Debug)]
pub(super) enum Wake {
    /// It is the manager's worker, which waits in epoll.
    Worker(OwnedFd),
    /// It is another NF, which waits on the ring's own word.
    Node,
    /// It is this NF itself.
    Nobody,
}

/// One outgoing edge.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) edge: EdgeId,
    pub(super) producer: Producer,
    pub(super) wake: Wake,
    /// It was full for longer than [`PATIENCE`]: until it takes a packet again, nobody waits for it.
    pub(super) stuck: bool,
}

/// All outgoing edges; the first leads to the worker.
#[derive(Debug)]
pub(super) struct Outputs {
    all: Vec<Output>,
    barriers: Barriers,
    /// The manager is gone: what does not fit is lost with everything else, and nobody waits.
    pub(super) orphaned: bool,
}

impl Outputs {
    pub(super) fn new(relay: Output, barriers: Barriers) -> Self {
        Self { all: vec![relay], barriers, orphaned: false }
    }

    pub(super) fn add(&mut self, output: Output) {
        self.all.push(output);
    }

    /// Forgets the direct edges that are not in `keep`. Call it between turns only.
    pub(super) fn retain(&mut self, keep: impl Fn(EdgeId) -> bool) {
        let mut first = true;
        self.all.retain(|output| std::mem::take(&mut first) || keep(output.edge));
    }

    pub(super) fn index_of(&self, edge: EdgeId) -> Option<u16> {
        self.all.iter().position(|o| o.edge == edge).and_then(|i| u16::try_from(i).ok())
    }

    /// Pushes to an output; waits for room when it is full.
    #[inline(always)]
    pub(super) fn send(&mut self, turn: u32, output: usize, descriptor: Descriptor, waiter: &mut Waiter<'_>) {
        if let Err(back) = self.all[output].producer.push(turn, descriptor) {
            self.send_slowly(turn, output, back, waiter);
        }
    }

    /// Pushes a burst to an output, with the same destination for all; waits for room when it is full.
    #[inline(always)]
    pub(super) fn send_all(
        &mut self,
        turn: u32,
        output: usize,
        descriptors: &[Descriptor],
        destination: Destination,
        waiter: &mut Waiter<'_>,
    ) {
        let mut all = descriptors.iter().map(|d| d.with_destination(destination));
        self.all[output].producer.push_all(turn, all.by_ref());
        for descriptor in all {
            self.send(turn, output, descriptor, waiter);
        }
    }

    #[cold]
    #[inline(never)]
    fn send_slowly(&mut self, turn: u32, output: usize, descriptor: Descriptor, waiter: &mut Waiter<'_>) {
        waiter.page.add(Counter::Waits, 1);
        let start = Instant::now();
        // Room in a ring to ourselves comes only when this turn is over, so there is nothing to wait for.
        let hopeless = matches!(self.all[output].wake, Wake::Nobody);
        for round in 0.. {
            // Those ahead can make room only for what they see.
            self.publish();
            if self.all[output].producer.push(turn, descriptor).is_ok() {
                self.all[output].stuck = false;
                return;
            }
            if self.orphaned {
                return;
            }
            if hopeless || self.all[output].stuck {
                break;
            }
            waiter.idle.wait_for_room(round);
            if round % 64 == 63 {
                self.orphaned |= waiter.manager_gone.load(Ordering::Relaxed);
                self.all[output].stuck = output != RELAY && start.elapsed() > PATIENCE;
            }
        }
        let dropped = Destination::new(Op::Drop, DropReason::Backpressure as u16);
        waiter.page.add_drop(DropReason::Backpressure);
        self.send(turn, RELAY, descriptor.with_destination(dropped), waiter);
    }

    /// How much lies ahead of the NF that has most to do, if that is much. On a shared processor that one should run
    /// now, while the packets are in the cache.
    #[inline]
    pub(super) fn crowd(&mut self) -> Option<u32> {
        let others = self.all.iter_mut().skip(RELAY + 1).filter(|o| matches!(o.wake, Wake::Node));
        let crowds = others.filter_map(|output| {
            let producer = &mut output.producer;
            let capacity = producer.ring_capacity();
            let crowd = CROWD.min(capacity / 2).max(1);
            if producer.in_flight() < crowd {
                return None;
            }
            Some(capacity - producer.room(capacity - crowd + 1)).filter(|ahead| *ahead >= crowd)
        });
        crowds.max()
    }

    /// Wakes the worker if it sleeps, for something that stands in no ring of ours.
    pub(super) fn ring_worker(&mut self) {
        if self.all[RELAY].producer.rings(self.barriers) {
            wake(&self.all[RELAY]);
        }
    }

    /// Makes everything pushed visible and wakes who sleeps.
    #[inline(always)]
    pub(super) fn publish(&mut self) {
        for output in &mut self.all {
            if output.producer.publish()
                && !matches!(output.wake, Wake::Nobody)
                && output.producer.rings(self.barriers)
            {
                wake(output);
            }
        }
    }
}

#[cold]
#[inline(never)]
fn wake(output: &Output) {
    match &output.wake {
        Wake::Worker(doorbell) => {
            // It can only fail when the counter is full, and then the worker has been woken many times over.
            let _ = rustix::io::write(doorbell, &1u64.to_ne_bytes());
        }
        Wake::Node => output.producer.wake_sleeper(),
        Wake::Nobody => {}
    }
}

/// What a waiting output needs to know.
pub(super) struct Waiter<'a> {
    pub(super) idle: &'a Idle,
    pub(super) page: &'a NodePage,
    pub(super) manager_gone: &'a AtomicBool,
}
