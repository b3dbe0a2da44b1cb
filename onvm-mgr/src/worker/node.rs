//! The worker's side of an NF instance, and of the direct edges between NFs.

use std::os::fd::OwnedFd;
use std::time::Instant;

use onvm_lib::node::NodePage;
use onvm_lib::pool::{Holder, Pool};
use onvm_lib::protocol::{EdgeId, InstanceId, ServiceId};
use onvm_lib::ring::bell::Barriers;
use onvm_lib::ring::{Consumer, Destination, Producer, Ring};

/// What the control thread hands over when an instance is taken in.
pub(crate) struct NodeInit {
    pub(crate) instance: InstanceId,
    pub(crate) service: ServiceId,
    pub(crate) reads_only: bool,
    pub(crate) inbound: Ring,
    pub(crate) outbound: Ring,
    pub(crate) empties: Option<Ring>,
    /// The instance writes it to wake the worker.
    pub(crate) doorbell: OwnedFd,
    pub(crate) page: NodePage,
    /// The pool of an NF that is kept from the others' packets.
    pub(crate) own_pool: Option<Pool>,
}

/// What passed between the worker and an instance.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct NodeTotals {
    /// Packets given to it by the worker.
    pub(crate) given: u64,
    /// Packets that it gave to the worker.
    pub(crate) taken: u64,
    /// Descriptors that made no sense.
    pub(crate) bad_descriptors: u64,
    /// Looks at a ring whose positions made no sense.
    pub(crate) violations: u64,
}

pub(super) struct Node {
    pub(super) instance: InstanceId,
    pub(super) service: ServiceId,
    pub(super) reads_only: bool,
    pub(super) holder: Holder,
    pub(super) inbound: Producer,
    pub(super) outbound: Consumer,
    pub(super) empties: Option<Producer>,
    pub(super) page: NodePage,
    pub(super) own_pool: Option<Pool>,
    pub(super) doorbell: OwnedFd,
    /// Edges for which a marker is to go to this instance as soon as there is room.
    pub(super) markers: Vec<EdgeId>,
    /// Edges whose marker came from this instance before the command that makes the edge known: the control thread
    /// tells both at the same time, and the instance may be quicker.
    pub(super) early_markers: Vec<EdgeId>,
    /// Copies wanted of the next packet.
    pub(super) mirrors: Vec<Destination>,
    /// Rings that this instance's dead neighbours left: to be emptied before `outbound` is looked at again.
    pub(super) heirs: Vec<EdgeId>,
    /// Since when the oldest packet in `outbound` waits for room ahead.
    pub(super) blocked_since: Option<Instant>,
    /// A service that took nothing for so long that patience ran out: what is for it is shed at once until it takes
    /// something, so that it holds up nothing else.
    pub(super) stuck_for: Option<ServiceId>,
    pub(super) totals: NodeTotals,
}

/// The rings of an instance that is gone, for somebody to drop who has time: to unmap them takes longer than packets can
/// wait.
pub(crate) struct Remains(#[expect(dead_code, reason = "it is only dropped")] Box<Node>);

impl Remains {
    pub(super) fn of(node: Node) -> Self {
        Self(Box::new(node))
    }
}

impl std::fmt::Debug for Remains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Remains")
    }
}

impl Node {
    /// `place` is where the worker keeps it, and tells it from all others that are there.
    pub(super) fn new(init: NodeInit, place: usize) -> Self {
        let holder = match init.own_pool {
            Some(_) => Holder::isolated(u16::try_from(place).unwrap_or(u16::MAX)),
            None => Holder::SHARED,
        };
        Self {
            instance: init.instance,
            service: init.service,
            reads_only: init.reads_only,
            holder,
            inbound: init.inbound.producer(),
            outbound: init.outbound.consumer(),
            empties: init.empties.map(|ring| ring.producer()),
            page: init.page,
            own_pool: init.own_pool,
            doorbell: init.doorbell,
            markers: Vec::new(),
            early_markers: Vec::new(),
            mirrors: Vec::new(),
            heirs: Vec::new(),
            blocked_since: None,
            stuck_for: None,
            totals: NodeTotals::default(),
        }
    }

    /// Makes what was pushed visible and wakes the NF if it sleeps.
    #[inline(always)]
    pub(super) fn publish(&mut self, barriers: Barriers) {
        if self.inbound.publish() && self.inbound.rings(barriers) {
            self.inbound.wake_sleeper();
        }
    }
}

/// A ring from one NF to another, as the worker sees it.
pub(super) struct DirectEdge {
    pub(super) from: InstanceId,
    pub(super) to: InstanceId,
    pub(super) ring: Ring,
    /// The marker that opens it has gone to the consumer.
    pub(super) opened: bool,
    /// The consumer is dead and the worker reads in its place.
    pub(super) heir: Option<Consumer>,
    /// The service and chain that the heir delivers to.
    pub(super) service: ServiceId,
    /// Nobody writes to it any more.
    pub(super) producer_done: bool,
}
