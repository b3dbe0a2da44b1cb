//! Whether an instance still works: the search for those that hang.
//!
//! An NF that hangs (an endless loop, a lock, SIGSTOP) has packets in its rings and does no turn. It is looked at from time to
//! time; when it has made no progress for `--hang-timeout` while packets waited for it, it is killed, and what it had goes
//! the way of all dead instances' packets. One that is paused, or has nothing to do, does not hang.

use std::time::{Duration, Instant};

use onvm_lib::protocol::InstanceId;

use super::Server;
use crate::life::State;

/// Looks per `--hang-timeout`.
const LOOKS: u32 = 4;

/// What was seen of an instance's progress.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    turn: u32,
    /// Since when packets wait and no turn has been done.
    still_since: Option<Instant>,
    hung: bool,
}

impl Pulse {
    pub(super) fn is_hung(&self) -> bool {
        self.hung
    }

    /// A look: whether it has stood still for `limit` with packets waiting.
    fn feel(&mut self, turn: u32, waiting: bool, now: Instant, limit: Duration) -> bool {
        if turn != self.turn || !waiting {
            self.turn = turn;
            self.still_since = None;
            return false;
        }
        let since = *self.still_since.get_or_insert(now);
        self.hung |= now.duration_since(since) >= limit;
        self.hung
    }
}

impl Server {
    /// Looks for instances that hang, and kills them.
    pub(super) fn feel_pulses(&mut self, now: Instant) {
        let Some(limit) = self.options.hang_timeout else { return };
        if now < self.next_pulse {
            return;
        }
        self.next_pulse = now + limit / LOOKS;
        let mut hung: Vec<(InstanceId, u32)> = Vec::new();
        for (id, instance) in &mut self.instances {
            let packets = instance.inbound.occupancy() + self.edges.waiting_for(*id);
            let expected = packets > 0 && !matches!(instance.life.state(), State::Paused);
            if !instance.pulse.is_hung() && instance.pulse.feel(instance.page.turn(), expected, now, limit) {
                hung.push((*id, packets));
            }
        }
        for (id, packets) in hung {
            let why = format!("it hangs: {packets} packets wait and it has done no turn for {limit:?}");
            self.kill(id, why);
        }
    }

    /// When the next look is due.
    pub(super) fn next_pulse(&self) -> Option<Instant> {
        (self.options.hang_timeout.is_some() && !self.instances.is_empty()).then_some(self.next_pulse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_stands_still_with_work_to_do_hangs() {
        let (start, limit) = (Instant::now(), Duration::from_secs(2));
        let at = |s| start + Duration::from_secs(s);
        let mut idle = Pulse::default();
        assert!((0..9).all(|s| !idle.feel(7, false, at(s), limit)));
        let mut busy = Pulse::default();
        assert!((0..9).all(|s| !busy.feel(u32::try_from(s).unwrap(), true, at(s), limit)));
        let mut still = Pulse::default();
        assert!(!still.feel(7, true, at(0), limit));
        assert!(!still.feel(7, true, at(1), limit));
        assert!(!still.feel(7, true, at(2), limit));
        assert!(still.feel(7, true, at(3), limit) && still.is_hung());
    }
}
