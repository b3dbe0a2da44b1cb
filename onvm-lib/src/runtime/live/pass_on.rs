//! What becomes of a burst when the NF has given its verdicts.

use super::Live;
use crate::node::{Counter, NodePage};
use crate::packet::DropReason;
use crate::ring::{Descriptor, Destination, Op};
use crate::runtime::NetworkFunction;
use crate::runtime::dispatch::Waiter;

impl<N: NetworkFunction> Live<'_, N> {
    #[inline(always)]
    pub(super) fn pass_on(&mut self, burst: &mut [Descriptor]) {
        if !self.hands.mirrors.is_empty() {
            self.mirror(burst);
        }
        if !self.pass_on_together(burst) {
            self.pass_on_singly(burst);
        }
        if !self.hands.emitter.made.is_empty() {
            self.pass_on_made();
        }
        self.outputs.publish();
        self.hands.held.end_turn();
        if N::EMITS {
            self.release_empties();
        }
    }

    /// Passes on a burst whose packets all got the same verdict and go the same way, as most do; false if they do not.
    #[inline(always)]
    fn pass_on_together(&mut self, burst: &[Descriptor]) -> bool {
        let Some(first) = burst.first().copied() else { return true };
        let verdict = first.destination();
        if verdict.op() == Op::Drop || verdict.op() == Op::Invalid {
            return false;
        }
        // No branch for each: nearly always all are looked at anyway.
        if Descriptor::difference(burst).destination().bits() != 0 {
            return false;
        }
        let Some((output, destination)) = self.routing.choose_for_all(first) else { return false };
        let mut waiter = Waiter { idle: &self.idle, page: &self.page, manager_gone: &self.ears.manager_gone };
        self.outputs.send_all(self.turn, output, burst, destination, &mut waiter);
        self.count(verdict, burst.len() as u64);
        true
    }

    #[inline(never)]
    fn pass_on_singly(&mut self, burst: &[Descriptor]) {
        let mut waiter = Waiter { idle: &self.idle, page: &self.page, manager_gone: &self.ears.manager_gone };
        let mut count = [0u64; 4];
        for d in burst {
            let destination = d.destination();
            if destination == Destination::HELD || destination == Destination::SENT {
                continue;
            }
            count[(destination.op() as usize).min(3)] += 1;
            if destination.op() == Op::Drop {
                note_drop(&self.page, destination);
            }
            let (output, destination) = self.routing.choose(*d);
            self.outputs.send(self.turn, output, d.with_destination(destination), &mut waiter);
        }
        for (counter, n) in
            [Counter::Next, Counter::ToService, Counter::Out, Counter::Dropped].into_iter().zip(count)
        {
            if n > 0 {
                self.page.add(counter, n);
            }
        }
    }

    fn pass_on_made(&mut self) {
        let made = std::mem::take(&mut self.hands.emitter.made);
        let mut waiter = Waiter { idle: &self.idle, page: &self.page, manager_gone: &self.ears.manager_gone };
        for d in &made {
            if d.destination().op() == Op::Drop {
                note_drop(&self.page, d.destination());
            }
            let (output, destination) = self.routing.choose(*d);
            self.outputs.send(self.turn, output, d.with_destination(destination), &mut waiter);
        }
        self.page.add(Counter::Made, self.hands.emitter.used as u64);
        self.hands.emitter.made = made;
        self.hands.emitter.made.clear();
    }

    /// Sends packets of which copies are wanted by the manager, each after the order for its copies.
    #[cold]
    #[inline(never)]
    fn mirror(&mut self, burst: &mut [Descriptor]) {
        let mirrors = std::mem::take(&mut self.hands.mirrors);
        self.page.add(Counter::Mirrored, mirrors.len() as u64);
        for (index, d) in burst.iter_mut().enumerate() {
            let mut wanted = mirrors.iter().filter(|(i, _)| *i == index).peekable();
            if wanted.peek().is_none() || d.destination() == Destination::HELD {
                continue;
            }
            for (_, to) in wanted {
                let order = Destination::new(Op::Mirror, 0);
                self.relay(Descriptor::without_buffer(order, u32::from(to.bits())));
            }
            self.count(d.destination(), 1);
            let relayed = self.routing.choose_relay(*d);
            self.relay(d.with_destination(relayed));
            *d = d.with_destination(Destination::SENT);
        }
        self.hands.mirrors = mirrors;
        self.hands.mirrors.clear();
    }

    /// Counts packets with a verdict.
    fn count(&self, verdict: Destination, n: u64) {
        let counters = [Counter::Next, Counter::ToService, Counter::Out, Counter::Dropped];
        self.page.add(counters[(verdict.op() as usize).min(3)], n);
    }
}

#[cold]
fn note_drop(page: &NodePage, destination: Destination) {
    page.add_drop(DropReason::from_number(destination.argument()).unwrap_or(DropReason::BadVerdict));
}
