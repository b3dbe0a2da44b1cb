//! Packets and bits per second: over the last second or so, and over all.

use serde::{Deserialize, Serialize};

use crate::protocols::Count;

/// The shortest time over which the current rate is taken.
const INTERVAL_NS: u64 = 1_000_000_000;

/// Packets and bits a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rate {
    /// The time that it is the mean of.
    pub(crate) seconds: f64,
    pub(crate) packets_per_second: f64,
    pub(crate) bits_per_second: f64,
}

impl Rate {
    fn of(count: Count, ns: u64) -> Self {
        if ns == 0 {
            return Self::default();
        }
        #[allow(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
        let (packets, bits, ns) = (count.packets as f64, count.bytes as f64 * 8.0, ns as f64);
        let seconds = ns / 1e9;
        Self { seconds, packets_per_second: packets / seconds, bits_per_second: bits / seconds }
    }
}

/// What rates are made of.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Rates {
    all: Count,
    /// Times of the earliest and the latest packet; 0 before there is one.
    first_ns: u64,
    last_ns: u64,
    /// Where the current interval began.
    mark_ns: u64,
    at_mark: Count,
    current: Rate,
}

impl Rates {
    #[inline]
    pub(crate) fn count(&mut self, bytes: u64, now_ns: u64) {
        if self.all.packets == 0 {
            (self.first_ns, self.mark_ns) = (now_ns, now_ns);
        }
        self.all.add(bytes);
        // Captures of several interfaces are not always in order.
        self.first_ns = self.first_ns.min(now_ns);
        self.last_ns = self.last_ns.max(now_ns);
    }

    pub(crate) fn tick(&mut self, now_ns: u64) {
        let passed = now_ns.saturating_sub(self.mark_ns);
        if passed < INTERVAL_NS || self.mark_ns == 0 {
            return;
        }
        let since = Count {
            packets: self.all.packets - self.at_mark.packets,
            bytes: self.all.bytes - self.at_mark.bytes,
        };
        self.current = Rate::of(since, passed);
        (self.mark_ns, self.at_mark) = (now_ns, self.all);
    }

    /// Whether these are the rates of so many packets, and none of an interval that is still to come.
    pub(crate) fn is_sound(&self, all: Count) -> bool {
        let (mark, all_at) = (self.at_mark, self.all);
        all_at == all && mark.packets <= all.packets && mark.bytes <= all.bytes
    }

    /// Over the last interval.
    pub(crate) fn current(&self) -> Rate {
        self.current
    }

    /// From the first packet to the last.
    pub(crate) fn overall(&self) -> Rate {
        Rate::of(self.all, self.last_ns.saturating_sub(self.first_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_rate_is_of_its_interval() {
        let mut rates = Rates::default();
        rates.tick(5 * SECOND);
        for n in 0..=20 {
            rates.count(125, 10 * SECOND + n * SECOND / 10);
            rates.tick(10 * SECOND + n * SECOND / 10);
        }
        let current = rates.current();
        assert_eq!((current.seconds, current.packets_per_second, current.bits_per_second), (1.0, 10.0, 10e3));
        assert_eq!(rates.overall().seconds, 2.0);
        assert_eq!(rates.overall().packets_per_second, 10.5);
        rates.tick(14 * SECOND);
        assert_eq!(rates.current().packets_per_second, 0.0);
    }

    #[test]
    fn one_packet_has_no_rate() {
        let mut rates = Rates::default();
        rates.count(60, SECOND);
        assert_eq!(rates.overall(), Rate::default());
    }
}
