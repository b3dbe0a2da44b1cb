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
//!
//! Where processors are shared, the successor would be on the dead one's, and there the kernel lets nobody in before all memory
//! of the dead process is unmapped (0.2 µs a page, 300 to 500 µs in all). So it sleeps on the worker's processor as long as it
//! stands by, is let in there by the worker, and goes where it belongs when the control thread is woken.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use onvm_lib::cpu::Allowed;
use onvm_lib::node::{NodePage, Vital, vital};
use onvm_lib::protocol::InstanceId;
use rustix::process::Pid;

use super::Worker;
use super::command::News;
use super::node::Node;

/// How long the control thread is left asleep then: it, and what it starts, would take a processor from the successor.
const HUSH: Duration = Duration::from_millis(2);

/// Who takes over from whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Successor {
    /// An instance that has flows.
    pub(crate) of: InstanceId,
    /// Who is to have them when it dies.
    pub(crate) instance: InstanceId,
    /// The successor's process, if it is to run on the worker's processor at first.
    pub(crate) moves: Option<Pid>,
}

/// An instance that has flows, and who is to have them when it dies.
struct Named {
    successor: Successor,
    page: NodePage,
}

/// A successor that was brought to the worker's processor: before it has anything to do, and for a while then.
struct Guest {
    instance: InstanceId,
    process: Pid,
    core: u32,
    home: Allowed,
}

/// Those who are to take over, and those who have.
#[derive(Default)]
pub(super) struct Successions {
    named: Vec<Named>,
    /// Who died and who took over, which the control thread does not know yet.
    succeeded: Vec<(InstanceId, InstanceId)>,
    guests: Vec<Guest>,
    /// One of them has just taken over.
    works_here: bool,
}

impl Successions {
    /// Who is meant by an owner of slots.
    pub(super) fn in_place_of(&self, owner: InstanceId) -> InstanceId {
        self.succeeded.iter().find(|(dead, _)| *dead == owner).map_or(owner, |(_, successor)| *successor)
    }

    /// The control thread knows of a death: its snapshot says what follows.
    pub(super) fn settle(&mut self, dead: InstanceId) {
        self.named.retain(|n| n.successor.of != dead && n.successor.instance != dead);
        // Its number may soon be another process's.
        self.guests.retain(|guest| guest.instance != dead);
        self.succeeded.retain(|(instance, successor)| *instance != dead && *successor != dead);
    }

    /// Whether one of those who have a successor has packets and may be dead: a death wakes nobody.
    pub(super) fn must_be_looked_at(&self, waits_for: impl Fn(InstanceId) -> bool) -> bool {
        self.named.iter().any(|n| waits_for(n.successor.of))
    }

    #[inline(always)]
    fn is_due(&self) -> bool {
        self.named.iter().any(|n| vital(n.page.life().load(Ordering::Acquire)) == Vital::Died)
    }

    fn next_due(&mut self) -> Option<Successor> {
        let died = |n: &Named| vital(n.page.life().load(Ordering::Acquire)) == Vital::Died;
        let Named { successor, .. } = self.named.swap_remove(self.named.iter().position(died)?);
        // It has its hands full now; others are named anew.
        self.named.retain(|n| n.successor.instance != successor.instance);
        Some(successor)
    }

    /// Has a successor run on the worker's processor, if it is to; says whether it does.
    fn bring(&mut self, successor: &Successor) -> bool {
        let Successor { instance, moves: Some(process), .. } = *successor else { return false };
        let here = onvm_lib::cpu::current();
        let guest = self.guests.iter_mut().find(|guest| guest.process == process);
        if guest.as_ref().is_some_and(|guest| guest.core == here) {
            return true;
        }
        match (onvm_lib::cpu::bring(process, here), guest) {
            (Ok(_), Some(guest)) => guest.core = here,
            (Ok(home), None) => self.guests.push(Guest { instance, process, core: here, home }),
            (Err(error), _) => {
                log::debug!("cannot bring process {} here: {error}", process.as_raw_nonzero());
                return false;
            }
        }
        true
    }

    /// Lets all run where they are at home but those who are named.
    fn send_home(&mut self) {
        let named = |process| self.named.iter().any(|n| n.successor.moves == Some(process));
        for Guest { process, home, .. } in self.guests.extract_if(.., |guest| !named(guest.process)) {
            // It may be gone.
            let _ = home.restore_to(process);
        }
    }
}

impl Drop for Successions {
    fn drop(&mut self) {
        self.named.clear();
        self.send_home();
    }
}

impl Worker {
    /// Follows what the control thread says of who takes over from whom.
    pub(super) fn name_successors(&mut self, successors: Vec<Successor>) {
        let named = successors.into_iter().filter_map(|successor| {
            let page = self.node_of(successor.of)?.page.clone();
            self.node_of(successor.instance).map(|_| Named { successor, page })
        });
        self.successions.named = named.collect();
        for successor in self.successions.named.iter().map(|n| n.successor.clone()).collect::<Vec<_>>() {
            let _ = self.successions.bring(&successor);
        }
        if self.hushed_until.is_none() {
            self.successions.send_home();
        }
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
            && let Some(successor) = self.successions.next_due()
        {
            let Successor { of, instance, .. } = successor;
            let lives = |node: &&Node| vital(node.page.life().load(Ordering::Acquire)) != Vital::Died;
            if self.gate.is_some() || self.node_of(instance).filter(lives).is_none() {
                self.tell(News::Died { instance: of });
                continue;
            }
            let is_here = self.successions.bring(&successor);
            self.successions.works_here |= is_here;
            if !is_here && let Some(heir) = self.node_of(instance) {
                // It takes a while to wake up: it does while this is done.
                heir.inbound.wake_sleeper();
            }
            self.hushed_until = Some(Instant::now() + HUSH);
            self.tell(News::Succeeded { instance: of, successor: instance, at: SystemTime::now() });
            self.successions.succeeded.push((of, instance));
            self.pass_flows(of, instance);
            self.reap(of, true, true);
        }
    }

    /// Wakes the control thread for what it was not woken for.
    pub(super) fn speak_up(&mut self) {
        if self.hushed_until.is_some_and(|until| until <= self.now) {
            self.hushed_until = None;
            self.successions.works_here = false;
            self.successions.send_home();
            (self.news_bell)();
        }
    }

    /// Gives the processor to a successor that has taken over here, until it is time to speak up: with much to do it keeps the
    /// processor for a slice each time, so rounds are no measure of that.
    #[cold]
    pub(super) fn let_successor_in(&mut self) {
        if self.successions.works_here {
            std::thread::yield_now();
            if self.hushed_until.is_some_and(|until| until <= Instant::now()) {
                self.look_around();
            }
        }
    }
}
