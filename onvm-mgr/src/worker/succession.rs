//! Who takes over from an instance that dies while another stands by: known beforehand, and done here.
//!
//! The way through the watchman and the control thread wakes three threads one after the other, and each of these wake-ups
//! takes longer than all the work. The worker is awake while packets come. So it looks every round at the futex word of each
//! instance that has a successor (`onvm_lib::node::vital`), and when the kernel has written a death there, the
//! successor has the slots, and what waited, before the round is over. The control thread is told, and makes it lasting:
//!
//! ```text
//! named ──its word says that it died──▶ succeeded ──`Reap` of either──▶ (as the new snapshot says)
//! ```
//! Until then snapshots that still name the dead one mean its successor. The control thread is woken a little later: what it
//! does, and the process that it starts, would take a processor from the successor just then. For the same reason the
//! watchman does not watch over those who have a successor. While flows move (`gate`), and when the successor is dead, too, the
//! worker only tells of the death.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use onvm_lib::node::{NodePage, Vital, vital};
use onvm_lib::protocol::InstanceId;

use super::Worker;
use super::command::News;
use super::node::Node;

/// How long the control thread is left asleep then: it, and what it starts, would take a processor from the successor.
const HUSH: Duration = Duration::from_millis(2);

/// An instance that has flows, and who is to have them when it dies.
struct Named {
    instance: InstanceId,
    page: NodePage,
    successor: InstanceId,
}

/// Those who are to take over, and those who have.
#[derive(Default)]
pub(super) struct Successions {
    named: Vec<Named>,
    /// Who died and who took over, which the control thread does not know yet.
    succeeded: Vec<(InstanceId, InstanceId)>,
}

impl Successions {
    /// Who is meant by an owner of slots.
    pub(super) fn in_place_of(&self, owner: InstanceId) -> InstanceId {
        self.succeeded.iter().find(|(dead, _)| *dead == owner).map_or(owner, |(_, successor)| *successor)
    }

    /// The control thread knows of a death: its snapshot says what follows.
    pub(super) fn settle(&mut self, dead: InstanceId) {
        self.named.retain(|n| n.instance != dead && n.successor != dead);
        self.succeeded.retain(|(instance, successor)| *instance != dead && *successor != dead);
    }

    /// Whether one of those who have a successor has packets and may be dead: a death wakes nobody.
    pub(super) fn must_be_looked_at(&self, waits_for: impl Fn(InstanceId) -> bool) -> bool {
        self.named.iter().any(|n| waits_for(n.instance))
    }

    #[inline(always)]
    fn is_due(&self) -> bool {
        self.named.iter().any(|n| vital(n.page.life().load(Ordering::Acquire)) == Vital::Died)
    }

    fn next_due(&mut self) -> Option<(InstanceId, InstanceId)> {
        let died = |n: &Named| vital(n.page.life().load(Ordering::Acquire)) == Vital::Died;
        let Named { instance, successor, .. } = self.named.swap_remove(self.named.iter().position(died)?);
        // It has its hands full now; others are named anew.
        self.named.retain(|n| n.successor != successor);
        Some((instance, successor))
    }
}

impl Worker {
    /// Follows what the control thread says of who takes over from whom.
    pub(super) fn name_successors(&mut self, successors: &[(InstanceId, InstanceId)]) {
        let named = successors.iter().filter_map(|(instance, successor)| {
            let page = self.node_of(*instance)?.page.clone();
            self.node_of(*successor).map(|_| Named { instance: *instance, page, successor: *successor })
        });
        self.successions.named = named.collect();
    }

    fn node_of(&self, instance: InstanceId) -> Option<&Node> {
        self.by_instance.get(&instance).and_then(|index| self.nodes[*index].as_ref())
    }

    /// Lets successors step in for those who have died.
    #[inline(always)]
    pub(super) fn watch_lives(&mut self) {
        if self.successions.is_due() {
            self.let_succeed();
        }
    }

    #[cold]
    fn let_succeed(&mut self) {
        // A command that is on its way may say otherwise: that the operator has killed it, say.
        while !self.called.load(Ordering::Acquire)
            && let Some((instance, successor)) = self.successions.next_due()
        {
            let lives = |node: &&Node| vital(node.page.life().load(Ordering::Acquire)) != Vital::Died;
            let heir = self.node_of(successor).filter(lives).filter(|_| self.gate.is_none());
            let Some(heir) = heir else {
                self.tell(News::Died { instance });
                continue;
            };
            // It takes a while to wake up: it does while this is done.
            heir.inbound.wake_sleeper();
            self.hushed_until = Some(Instant::now() + HUSH);
            self.tell(News::Succeeded { instance, successor, at: SystemTime::now() });
            self.successions.succeeded.push((instance, successor));
            self.pass_pins(&[(instance, successor)]);
            let table = std::mem::take(&mut self.table);
            self.follow(table);
            self.reap(instance, true, true);
        }
    }

    /// Wakes the control thread for what it was not woken for.
    pub(super) fn speak_up(&mut self) {
        if self.hushed_until.is_some_and(|until| until <= self.now) {
            self.hushed_until = None;
            (self.news_bell)();
        }
    }
}
