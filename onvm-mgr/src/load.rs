//! How busy an instance is: measured once a second from the counters in its page.

use std::time::Duration;

/// From one measurement to the next.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// What has been counted of an instance so far, and what waits for it now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    /// Packets that it took in.
    pub(crate) received: u64,
    /// Nanoseconds and packets of the turns of which the time was taken.
    pub(crate) sampled_ns: u64,
    pub(crate) sampled_packets: u64,
    /// Processor time of its packet thread.
    pub(crate) cpu_ns: Option<u64>,
    /// Packets that wait in its rings, and how many one ring has room for.
    pub(crate) waiting: u32,
    pub(crate) ring: u32,
    /// Its part of the packets that were turned away at the entry, since the last reading, because its service has too
    /// much to do.
    pub(crate) turned_away: u64,
}

/// How busy an instance is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Load {
    /// Packets a second that come for it, those that were turned away among them.
    pub(crate) rate_pps: f64,
    /// Processor time of a packet.
    pub(crate) cost_ns: f64,
    /// Part of a processor that all that comes takes; more than 1 when it is too much for one.
    pub(crate) busy: f64,
    /// Packets that wait for it, as part of a ring.
    pub(crate) queue: f64,
}

/// Measures one instance.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    last: Option<Reading>,
    pub(crate) load: Load,
}

impl Meter {
    /// A reading, taken `passed` after the one before.
    #[allow(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
    pub(crate) fn look(&mut self, now: Reading, passed: Duration) {
        self.load.queue = f64::from(now.waiting) / f64::from(now.ring.max(1));
        let Some(last) = self.last.replace(now) else { return };
        let seconds = passed.as_secs_f64().max(1e-3);
        // The instance writes its counters itself: what goes backwards counts as nothing.
        let more = |now: u64, last: u64| {
            let more = now.wrapping_sub(last);
            if more > u64::MAX / 2 { 0.0 } else { more as f64 }
        };
        let received = more(now.received, last.received);
        let queued = f64::from(now.waiting) - f64::from(last.waiting);
        let came = received + queued + now.turned_away as f64;
        self.load.rate_pps = came.max(0.0) / seconds;
        let sampled = more(now.sampled_packets, last.sampled_packets);
        let by_samples = (sampled > 0.0).then(|| more(now.sampled_ns, last.sampled_ns) / sampled);
        // A sample has in it what others did on the same processor meanwhile; the processor time has in it what was spent
        // without packets. The truth is below both.
        let by_time = now.cpu_ns.zip(last.cpu_ns).filter(|_| received > 0.0);
        let by_time = by_time.map(|(now, last)| more(now, last) / received);
        let fresh = match (by_samples, by_time) {
            (Some(a), Some(b)) => Some(a.min(b)),
            // Few packets cost little, whatever the time says.
            (None, Some(b)) => Some(if self.load.cost_ns > 0.0 { b.min(self.load.cost_ns) } else { b }),
            (a, None) => a,
        };
        if let Some(fresh) = fresh {
            let old = self.load.cost_ns;
            self.load.cost_ns = if old > 0.0 { f64::midpoint(old, fresh) } else { fresh };
        }
        self.load.busy = self.load.rate_pps * self.load.cost_ns / 1e9;
    }
}

/// Processor time of a process's first thread, which is the one that an NF works in.
pub(crate) fn cpu_ns(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    text.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn rate_times_cost_is_how_busy_it_is() {
        let mut meter = Meter::default();
        let start = Reading { ring: 1000, ..Reading::default() };
        meter.look(start, SECOND);
        assert_eq!(meter.load, Load::default(), "one reading says nothing yet");
        let next = Reading {
            received: 100_000,
            sampled_ns: 2_000_000,
            sampled_packets: 1000,
            waiting: 250,
            turned_away: 50_000,
            ..start
        };
        meter.look(next, SECOND);
        assert_eq!(meter.load.rate_pps, 150_250.0);
        assert_eq!((meter.load.cost_ns, meter.load.queue), (2000.0, 0.25));
        assert!((meter.load.busy - 0.3005).abs() < 1e-9);
        meter.look(Reading { turned_away: 0, ..next }, SECOND);
        assert_eq!((meter.load.rate_pps, meter.load.busy, meter.load.cost_ns), (0.0, 0.0, 2000.0));
    }

    #[test]
    fn what_others_did_on_the_processor_is_no_cost() {
        let mut meter = Meter::default();
        meter.look(Reading { cpu_ns: Some(0), ..Reading::default() }, SECOND);
        let next = Reading {
            received: 1000,
            sampled_ns: 900_000,
            sampled_packets: 10,
            cpu_ns: Some(500_000),
            ..Reading::default()
        };
        meter.look(next, SECOND);
        assert_eq!(meter.load.cost_ns, 500.0);
    }

    #[test]
    fn counters_that_go_backwards_count_as_nothing() {
        let mut meter = Meter::default();
        meter.look(Reading { received: 1000, ..Reading::default() }, SECOND);
        meter.look(Reading::default(), SECOND);
        assert_eq!(meter.load.rate_pps, 0.0);
    }

    #[test]
    fn a_process_has_used_some_time() {
        assert!(cpu_ns(std::process::id().cast_signed()).is_none_or(|ns| ns > 0));
    }
}
