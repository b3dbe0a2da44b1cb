//! How long probes took to come back.

use std::time::Instant;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest time that is told from longer ones.
const LONGEST_NS: u64 = 60_000_000_000;

/// Times of probes, with three significant digits.
#[derive(Debug)]
pub(crate) struct Latency {
    /// What times are counted from.
    base: Instant,
    times: Histogram<u64>,
}

/// The times that a part of all probes were back within, in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) samples: u64,
    pub(crate) min_ns: u64,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) p999_ns: u64,
    pub(crate) max_ns: u64,
}

impl Latency {
    /// Nothing measured; none for bounds that a histogram cannot have, which these are not.
    pub(crate) fn new() -> Option<Self> {
        let times = Histogram::new_with_bounds(1, LONGEST_NS, 3).ok()?;
        Some(Self { base: Instant::now(), times })
    }

    /// Nanoseconds since the start of the program.
    #[inline]
    pub(crate) fn now_ns(&self) -> u64 {
        self.at(Instant::now())
    }

    /// A time in nanoseconds since the start of the program.
    #[inline]
    pub(crate) fn at(&self, time: Instant) -> u64 {
        u64::try_from((time - self.base).as_nanos()).unwrap_or(u64::MAX)
    }

    /// A probe came back.
    #[inline]
    pub(crate) fn record(&mut self, left_ns: u64, back_ns: u64) {
        self.times.saturating_record(back_ns.saturating_sub(left_ns));
    }

    /// What was measured, if anything was.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let within = |part: f64| self.times.value_at_quantile(part);
        (!self.times.is_empty()).then(|| Percentiles {
            samples: self.times.len(),
            min_ns: self.times.min(),
            p50_ns: within(0.5),
            p99_ns: within(0.99),
            p999_ns: within(0.999),
            max_ns: self.times.max(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_recorded() {
        let mut latency = Latency::new().unwrap();
        assert!(latency.percentiles().is_none());
        (1..=1000).for_each(|n| latency.record(5, 5 + n));
        latency.record(10, 5);
        let p = latency.percentiles().unwrap();
        assert_eq!((p.samples, p.min_ns, p.p50_ns, p.p99_ns, p.max_ns), (1001, 0, 500, 990, 1000));
        latency.record(0, u64::MAX);
        assert!(latency.percentiles().unwrap().max_ns >= LONGEST_NS);
    }
}
