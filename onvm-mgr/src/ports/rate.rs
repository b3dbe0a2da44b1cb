//! Rates: what `rate=` and `pps=` say, and how many packets may pass by now.
//!
//! `rate=100k` is packets a second, `rate=50Mbit` bits a second, `rate=100k;50Mbit` both: whichever is used up first. It holds for
//! what comes in; with `tx:` in front, as in `rate=tx:1Gbit`, for what is sent. Bits are those of the frames as they are in
//! buffers, from the destination address to the end of the payload. A pause is caught up with for at most a hundredth of a
//! second's worth, or what `burst:20ms` says, so that it is not followed by a flood.

use std::time::{Duration, Instant};

use onvm_lib::document::duration;

use super::spec::scaled;
use super::{Spec, SpecError};

/// What may be caught up with when nothing is said.
const BURST: Duration = Duration::from_millis(10);
/// Longest that may be said.
const LONGEST_BURST: Duration = Duration::from_secs(10);
/// Packets that may always be caught up with.
const LEAST_PACKETS: f64 = 64.0;
/// Bits that may always be caught up with: as many packets of 1,500 bytes.
const LEAST_BITS: f64 = LEAST_PACKETS * 12_000.0;
/// Bytes that a packet is taken to have before any has been seen.
const TYPICAL: f64 = 512.0;

/// What may pass in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Limit {
    /// Packets a second, more than 0.
    packets: Option<f64>,
    /// Bits a second, more than 0.
    bits: Option<f64>,
    burst: Option<Duration>,
}

/// What a `rate=` says of both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate {
    pub(super) rx: Limit,
    pub(super) tx: Limit,
}

impl Rate {
    /// The rate of a port's `rate=`; no limit at all without one.
    ///
    /// # Errors
    /// What is wrong with the value.
    pub(super) fn of(spec: &Spec) -> Result<Self, SpecError> {
        let mut rate = Self::default();
        let mut burst = None;
        for item in spec.get("rate").unwrap_or_default().split(';').filter(|item| !item.is_empty()) {
            let (limit, value) = match item.split_once(':') {
                None => (&mut rate.rx, item),
                Some(("rx", value)) => (&mut rate.rx, value),
                Some(("tx", value)) => (&mut rate.tx, value),
                Some(("burst", time)) => {
                    let read = duration(time).filter(|time| !time.is_zero() && *time <= LONGEST_BURST);
                    let want = format!("{item:?}: a time up to 10 s is needed, as in burst:20ms");
                    burst = Some(read.ok_or_else(|| spec.bad("rate", want))?);
                    continue;
                }
                Some((word, _)) => {
                    return Err(spec.bad("rate", format!("unknown word {word:?}, words are rx, tx, burst")));
                }
            };
            limit.add(value).map_err(|want| spec.bad("rate", want))?;
        }
        (rate.rx.burst, rate.tx.burst) = (burst, burst);
        let limits = spec.get("rate").is_none() || rate.rx.is_set() || rate.tx.is_set();
        if limits { Ok(rate) } else { Err(spec.bad("rate", "packets or bits a second are needed")) }
    }
}

impl Limit {
    /// So many packets a second, more than 0.
    pub(super) fn of_packets(per_second: u64) -> Self {
        #[allow(clippy::cast_precision_loss)] // rates over 2^53 are not to be had
        Self { packets: Some(per_second as f64), ..Self::default() }
    }

    /// Whether anything is limited.
    pub(super) fn is_set(&self) -> bool {
        self.packets.is_some() || self.bits.is_some()
    }

    fn add(&mut self, value: &str) -> Result<(), String> {
        let (number, place) = match value.strip_suffix("bit") {
            Some(number) => (number, &mut self.bits),
            None => (value.strip_suffix("pps").unwrap_or(value), &mut self.packets),
        };
        let read = scaled(number).filter(|number| (1.0..=1e15).contains(number));
        *place = Some(read.ok_or_else(|| {
            format!("{value:?}: packets or bits a second are needed, at least 1, as in 100k or 50Mbit")
        })?);
        Ok(())
    }
}

/// What fills at a steady rate up to a brim.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    brim: f64,
    level: f64,
}

impl Bucket {
    fn new(per_second: f64, burst: Option<Duration>, least: f64) -> Self {
        // What was asked for counts as it is, as long as one packet fits.
        let brim = match burst {
            Some(burst) => (per_second * burst.as_secs_f64()).max(least / LEAST_PACKETS),
            None => (per_second * BURST.as_secs_f64()).max(least),
        };
        Self { per_second, brim, level: 0.0 }
    }

    fn fill(&mut self, elapsed: f64) {
        self.level = (self.level + elapsed * self.per_second).min(self.brim);
    }

    /// How long until it is this full.
    fn until(&self, level: f64) -> Duration {
        let wait = (level - self.level).max(0.0) / self.per_second;
        Duration::try_from_secs_f64(wait).unwrap_or(Duration::from_secs(1))
    }
}

/// Lets packets pass at a steady rate.
///
/// A bucket of bits may go below its bottom by what a burst was longer than expected; what passes later makes up for it.
#[derive(Debug)]
pub(super) struct Pace {
    packets: Option<Bucket>,
    bits: Option<Bucket>,
    last: Instant,
    /// Bytes that packets had of late, on average.
    typical: f64,
}

impl Pace {
    /// Nothing may pass at once.
    pub(super) fn new(limit: Limit) -> Self {
        let bucket = |rate: Option<f64>, least| rate.map(|rate| Bucket::new(rate, limit.burst, least));
        let (packets, bits) = (bucket(limit.packets, LEAST_PACKETS), bucket(limit.bits, LEAST_BITS));
        Self { packets, bits, last: Instant::now(), typical: TYPICAL }
    }

    /// As much may pass at once as after a long pause.
    pub(super) fn full(limit: Limit) -> Self {
        let mut pace = Self::new(limit);
        pace.buckets().for_each(|bucket| bucket.level = bucket.brim);
        pace
    }

    fn buckets(&mut self) -> impl Iterator<Item = &mut Bucket> {
        self.packets.iter_mut().chain(&mut self.bits)
    }

    /// Time begins now.
    pub(super) fn start(&mut self) {
        self.last = Instant::now();
        self.buckets().for_each(|bucket| bucket.level = 0.0);
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.last).as_secs_f64();
        self.last = self.last.max(now);
        self.buckets().for_each(|bucket| bucket.fill(elapsed));
    }

    /// Packets that may be sent now; if none, when the next one may.
    pub(super) fn due(&mut self, now: Instant) -> Result<u64, Instant> {
        self.fill(now);
        let mut due = f64::MAX;
        let mut wait = Duration::ZERO;
        if let Some(packets) = &self.packets {
            due = packets.level;
            wait = packets.until(1.0);
        }
        if let Some(bits) = &self.bits {
            // One that begins above the bottom may be longer than what is there.
            due = due.min(if bits.level > 0.0 { (bits.level / (self.typical * 8.0)).max(1.0) } else { 0.0 });
            wait = wait.max(bits.until(1.0));
        }
        if due < 1.0 {
            return Err(now + wait.max(Duration::from_nanos(1)));
        }
        // At least 1; a float beyond the type becomes its end.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Ok(due as u64)
    }

    /// So many were sent, with so many bytes in all.
    pub(super) fn sent(&mut self, packets: usize, bytes: u64) {
        if packets == 0 {
            return;
        }
        #[allow(clippy::cast_precision_loss)] // of a burst
        let (packets, bytes) = (packets as f64, bytes as f64);
        if let Some(bucket) = &mut self.packets {
            bucket.level -= packets;
        }
        if let Some(bucket) = &mut self.bits {
            bucket.level -= bytes * 8.0;
            self.typical += (bytes / packets - self.typical) / 4.0;
        }
    }

    /// Whether a packet of so many bytes may pass now; it is counted if it may.
    pub(super) fn admits(&mut self, now: Instant, bytes: u32) -> bool {
        self.fill(now);
        let packets = self.packets.as_ref().is_none_or(|bucket| bucket.level >= 1.0);
        let admitted = packets && self.bits.as_ref().is_none_or(|bucket| bucket.level > 0.0);
        if admitted {
            self.sent(1, bytes.into());
        }
        admitted
    }
}

/// A clock that ticks every millisecond: packets of one tick have the same time, so that it need not be written anew for
/// every buffer that is used again.
#[derive(Debug)]
pub(super) struct Tick {
    ticked: Instant,
    now_ns: u64,
}

impl Tick {
    const LENGTH: Duration = Duration::from_millis(1);

    pub(super) fn new() -> Self {
        Self { ticked: Instant::now(), now_ns: now_ns() }
    }

    /// Nanoseconds since 1970-01-01 UTC, at most one tick ago.
    pub(super) fn now_ns(&mut self) -> u64 {
        let now = Instant::now();
        if now.duration_since(self.ticked) >= Self::LENGTH {
            (self.ticked, self.now_ns) = (now, now_ns());
        }
        self.now_ns
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

    fn rate(text: &str) -> Result<Rate, String> {
        let spec: Spec = format!("null:rate={text}").parse().unwrap();
        Rate::of(&spec).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_due_at_once_and_a_pause_is_no_flood() {
        let mut pace = Pace::new(Limit::of_packets(1000));
        let start = pace.last;
        let when = pace.due(start).unwrap_err();
        assert_eq!(when - start, Duration::from_millis(1));
        assert_eq!(pace.due(start + Duration::from_millis(30)), Ok(30));
        pace.sent(30, 30 * 64);
        assert_eq!(pace.due(start + Duration::from_secs(60)), Ok(64));
    }

    #[test]
    fn bits_are_paid_back() {
        let limit = rate("8Mbit;burst:1ms").unwrap().rx;
        let mut pace = Pace::full(limit);
        let start = pace.last;
        // A bucket of 1,500 bytes: one passes, and then nothing until it is paid.
        assert!(pace.admits(start, 1500) && !pace.admits(start, 64));
        assert!(pace.admits(start + Duration::from_micros(300), 1500), "on credit");
        assert!(!pace.admits(start + Duration::from_micros(1400), 64), "100 bytes are not paid yet");
        let mut passed = 0;
        for step in 1..=10_000 {
            passed += u32::from(pace.admits(start + Duration::from_micros(1500 + step * 100), 1000));
        }
        // A second at a million bytes a second.
        assert!((998..=1001).contains(&passed), "{passed}");
    }

    #[test]
    fn a_source_that_is_asked_for_bursts_keeps_to_bits() {
        let mut pace = Pace::new(rate("80Mbit").unwrap().rx);
        let (start, mut bytes) = (pace.last, 0);
        for step in 1..=1000 {
            if let Ok(due) = pace.due(start + Duration::from_millis(step)) {
                pace.sent(usize::try_from(due).unwrap(), due * 1000);
                bytes += due * 1000;
            }
        }
        assert!((9_900_000..=10_100_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn rates_are_read_for_both_directions() {
        let read = rate("100k;tx:1.5Mbit;tx:5pps;burst:20ms").unwrap();
        let burst = Some(Duration::from_millis(20));
        assert_eq!(read.rx, Limit { packets: Some(1e5), bits: None, burst });
        assert_eq!(read.tx, Limit { packets: Some(5.0), bits: Some(1.5e6), burst });
        assert!(!Rate::of(&"null:".parse().unwrap()).unwrap().rx.is_set());
        for (text, why) in [
            ("0", "\"0\": packets or bits"),
            ("fast", "\"fast\""),
            ("bit", "\"bit\""),
            ("1Tbit", "\"1Tbit\""),
            ("-5", "\"-5\""),
            ("both:5", "unknown word \"both\", words are rx, tx, burst"),
            ("5;burst:never", "burst:20ms"),
            ("burst:5ms", "packets or bits a second are needed"),
        ] {
            let told = rate(text).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
    }
}
