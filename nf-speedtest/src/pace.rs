//! When the next packets are due.

use std::time::{Duration, Instant};

/// How late one may be before what is due is given up, so that a pause is not followed by a flood.
const LATEST: Duration = Duration::from_millis(10);

/// Sends at a steady rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    rate: u64,
    /// From when on packets are due, and how many have been sent or given up since.
    start: Option<Instant>,
    done: u64,
    /// Packets given up: not sent because it was too late, or no room was there.
    pub(crate) missed: u64,
}

impl Pace {
    /// So many packets a second.
    pub(crate) fn new(rate: u64) -> Self {
        Self { rate, start: None, done: 0, missed: 0 }
    }

    /// Packets that are due now.
    #[inline]
    pub(crate) fn due(&mut self, now: Instant) -> u64 {
        let start = *self.start.get_or_insert(now);
        let due = self.by(now - start).saturating_sub(self.done);
        let most = self.by(LATEST).max(1);
        if due > most {
            self.missed += due - most;
            self.done += due - most;
            return most;
        }
        due
    }

    /// So many were sent.
    #[inline]
    pub(crate) fn sent(&mut self, n: u64) {
        self.done += n;
    }

    /// How long until the next is due.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        let Some(start) = self.start else { return Duration::ZERO };
        let at_ns = u128::from(self.done + 1) * 1_000_000_000 / u128::from(self.rate);
        let at = start + Duration::from_nanos(u64::try_from(at_ns).unwrap_or(u64::MAX));
        at.saturating_duration_since(now)
    }

    /// Packets of a time.
    fn by(&self, time: Duration) -> u64 {
        u64::try_from(time.as_nanos() * u128::from(self.rate) / 1_000_000_000).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_due_in_time() {
        let start = Instant::now();
        let mut pace = Pace::new(1000);
        assert_eq!(pace.due(start), 0);
        assert_eq!(pace.wait(start), Duration::from_millis(1));
        assert_eq!(pace.due(start + Duration::from_millis(5)), 5);
        pace.sent(3);
        assert_eq!(pace.due(start + Duration::from_millis(5)), 2);
        assert_eq!(pace.wait(start + Duration::from_millis(5)), Duration::ZERO);
        assert_eq!(pace.missed, 0);
    }

    #[test]
    fn a_pause_is_not_followed_by_a_flood() {
        let start = Instant::now();
        let mut pace = Pace::new(1000);
        pace.due(start);
        assert_eq!(pace.due(start + Duration::from_secs(2)), 10);
        assert_eq!(pace.missed, 1990);
        pace.sent(10);
        assert_eq!(pace.due(start + Duration::from_secs(2)), 0);
        let mut slow = Pace::new(1);
        slow.due(start);
        assert_eq!(slow.due(start + Duration::from_secs(1)), 1);
    }
}
