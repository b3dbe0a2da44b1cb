//! Pacing: how many packets are due by now.

use std::time::{Duration, Instant};

/// Sends at a steady rate. After a delay it catches up at most a hundredth of a second's worth, so that a pause
/// is not followed by a flood.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: f64,
    origin: Instant,
    sent: f64,
}

impl Pace {
    /// `per_second` packets, more than 0.
    pub(super) fn new(per_second: u64) -> Self {
        #[allow(clippy::cast_precision_loss)] // rates over 2^53 are not to be had
        Self { per_second: per_second as f64, origin: Instant::now(), sent: 0.0 }
    }

    /// Time begins now.
    pub(super) fn start(&mut self) {
        self.origin = Instant::now();
        self.sent = 0.0;
    }

    /// Packets that may be sent now; if none, when the next one may.
    pub(super) fn due(&mut self) -> Result<u64, Instant> {
        let elapsed = self.origin.elapsed().as_secs_f64();
        let mut owed = elapsed * self.per_second - self.sent;
        let most = (self.per_second / 100.0).max(64.0);
        if owed > most {
            self.sent += owed - most;
            owed = most;
        }
        if owed < 1.0 {
            let wait = (1.0 - owed) / self.per_second;
            return Err(Instant::now() + Duration::from_secs_f64(wait));
        }
        // Between 1 and `most`: in range.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Ok(owed as u64)
    }

    /// So many were sent.
    pub(super) fn sent(&mut self, packets: usize) {
        #[allow(clippy::cast_precision_loss)]
        let packets = packets as f64;
        self.sent += packets;
    }
}

/// Nanoseconds since 1970-01-01 UTC.
pub(super) fn now_ns() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_due_at_once_and_a_pause_is_no_flood() {
        let mut pace = Pace::new(1000);
        assert!(pace.due().is_err());
        pace.origin -= Duration::from_millis(30);
        let due = pace.due().unwrap();
        assert!((30..60).contains(&due), "{due}");
        pace.sent(usize::try_from(due).unwrap());
        pace.origin -= Duration::from_secs(60);
        assert_eq!(pace.due(), Ok(64));
    }
}
