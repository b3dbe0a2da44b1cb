//! How much came back, and how fast: since the last tick and over all.

use std::time::{Duration, Instant};

use serde::Serialize;

/// Packets and bytes a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Rate {
    pub(crate) seconds: f64,
    pub(crate) packets_per_second: f64,
    pub(crate) bytes_per_second: f64,
}

impl Rate {
    fn of(packets: u64, bytes: u64, time: Duration) -> Self {
        let seconds = time.as_secs_f64();
        if seconds <= 0.0 {
            return Self::default();
        }
        #[allow(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
        let (packets, bytes) = (packets as f64, bytes as f64);
        Self { seconds, packets_per_second: packets / seconds, bytes_per_second: bytes / seconds }
    }
}

/// Counts what comes back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// When the first packets came back; the clock is read once for it.
    first: Option<Instant>,
    /// The last tick, and what had come back by then.
    mark: Option<(Instant, u64, u64)>,
    now: Rate,
}

impl Meter {
    #[inline]
    pub(crate) fn count(&mut self, packets: u64, bytes: u64) {
        if self.first.is_none() {
            self.begin();
        }
        self.packets += packets;
        self.bytes += bytes;
    }

    #[cold]
    fn begin(&mut self) {
        let now = Instant::now();
        self.first = Some(now);
        self.mark = Some((now, 0, 0));
    }

    /// Closes an interval; the packets that came back in it, if it was one.
    pub(crate) fn tick(&mut self, now: Instant) -> Option<u64> {
        let (since, packets, bytes) = self.mark?;
        let (packets, bytes) = (self.packets - packets, self.bytes - bytes);
        self.now = Rate::of(packets, bytes, now.saturating_duration_since(since));
        self.mark = Some((now, self.packets, self.bytes));
        Some(packets)
    }

    /// Over the last interval.
    pub(crate) fn now(&self) -> Rate {
        self.now
    }

    /// Since the first packets came back.
    pub(crate) fn overall(&self, now: Instant) -> Rate {
        self.first.map_or_else(Rate::default, |first| {
            Rate::of(self.packets, self.bytes, now.saturating_duration_since(first))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_its_interval() {
        let mut meter = Meter::default();
        assert_eq!(meter.tick(Instant::now()), None);
        meter.count(10, 640);
        let start = meter.first.unwrap();
        assert_eq!(meter.tick(start + Duration::from_secs(1)), Some(10));
        meter.count(20, 1280);
        assert_eq!(meter.tick(start + Duration::from_secs(3)), Some(20));
        assert_eq!((meter.now().packets_per_second, meter.now().bytes_per_second), (10.0, 640.0));
        assert_eq!(meter.overall(start + Duration::from_secs(3)).packets_per_second, 10.0);
    }
}
