//! When a command that died is started again.
//!
//! The first start comes at once; each further one in a row waits twice as long as the one before. A process that lived long
//! enough ends the row. After too many in a row the command is given up.

use std::time::{Duration, Instant};

use crate::plan::Restart;

/// What follows a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    StartAt(Instant),
    GiveUp,
}

/// The deaths of one service's processes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    in_a_row: u32,
}

impl Backoff {
    /// A process died that had lived so long, one of `wanted` of its service.
    pub(super) fn died(&mut self, rules: &Restart, wanted: u32, now: Instant, lived: Duration) -> Decision {
        let wanted = wanted.max(1);
        self.in_a_row = if lived >= rules.healthy { 1 } else { self.in_a_row.saturating_add(1) };
        let row = self.in_a_row.div_ceil(wanted);
        if row > rules.give_up {
            return Decision::GiveUp;
        }
        let wait = match row {
            0 | 1 => Duration::ZERO,
            n => rules.delay.saturating_mul(2u32.saturating_pow(n - 2)).min(rules.longest_delay),
        };
        Decision::StartAt(now + wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(rules: &Restart, lives: &[u64]) -> Vec<Option<u64>> {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        let wait = |decision| match decision {
            Decision::StartAt(at) => Some(u64::try_from((at - now).as_millis()).unwrap()),
            Decision::GiveUp => None,
        };
        lives.iter().map(|s| wait(backoff.died(rules, 1, now, Duration::from_secs(*s)))).collect()
    }

    #[test]
    fn waits_double_up_to_a_bound_and_then_it_is_given_up() {
        let rules = Restart { give_up: 6, longest_delay: Duration::from_millis(500), ..Restart::default() };
        let expected = [Some(0), Some(100), Some(200), Some(400), Some(500), Some(500), None];
        assert_eq!(waits(&rules, &[0; 7]), expected);
    }

    #[test]
    fn many_that_die_together_are_no_row() {
        let (rules, now) = (Restart { give_up: 1, ..Restart::default() }, Instant::now());
        let mut backoff = Backoff::default();
        let all = std::iter::repeat_with(|| backoff.died(&rules, 3, now, Duration::ZERO));
        let all: Vec<Decision> = all.take(4).collect();
        assert_eq!(all[..3], [Decision::StartAt(now); 3]);
        assert_eq!(all[3], Decision::GiveUp);
    }

    #[test]
    fn a_healthy_life_starts_a_new_row() {
        let rules = Restart { give_up: 2, ..Restart::default() };
        assert_eq!(waits(&rules, &[0, 0, 11, 0, 0]), [Some(0), Some(100), Some(0), Some(100), None]);
        assert_eq!(waits(&Restart { give_up: 0, ..rules }, &[60]), [None], "never");
    }
}
