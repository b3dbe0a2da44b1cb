//! The packets under way: made, sent, received again, counted.

use std::time::{Duration, Instant};

use onvm_lib::prelude::*;
use serde_json::json;

use crate::census::Census;
use crate::frames::Frames;
use crate::latency::Latency;
use crate::meter::{Meter, Rate};
use crate::pace::Pace;
use crate::stamp::Stamps;

/// When to look again for empty buffers, if there were too few.
const AGAIN: Duration = Duration::from_micros(50);
/// Ticks after which a packet that is not back is lost, with `--rate`.
const TICKS_TO_LOSS: usize = 2;

/// All that is known of the packets under way.
#[derive(Debug)]
pub(crate) struct Circle {
    frames: Frames,
    /// Packets that are to be under way at a time.
    wanted: u32,
    made: u64,
    back: Meter,
    latency: Option<Latency>,
    probe_hash: Option<u32>,
    stamps: Option<Stamps>,
    /// With `--rate`; without, packets go round and round.
    pace: Option<Pace>,
    census: Census,
    /// With `--rate`: packets made by each of the last ticks, the oldest first, and those lost.
    made_by: [u64; TICKS_TO_LOSS],
    lost: u64,
    /// Packets of others that ended here.
    foreign: u64,
}

impl Circle {
    pub(crate) fn new(frames: Frames, wanted: u32, rate: Option<u64>) -> Self {
        let (probe_hash, stamps) = (frames.probe_hash(), frames.stamps());
        Self {
            wanted,
            made: 0,
            back: Meter::default(),
            latency: probe_hash.and_then(|_| Latency::new()),
            probe_hash,
            stamps,
            pace: rate.map(Pace::new),
            census: Census::new(wanted),
            made_by: [0; TICKS_TO_LOSS],
            lost: 0,
            foreign: 0,
            frames,
        }
    }

    /// Packets came back.
    #[inline]
    pub(crate) fn returned(&mut self, burst: &mut Burst<'_, ReadWrite>) {
        let mut bytes = 0;
        let mut probes = 0;
        let probe_hash = self.probe_hash;
        for mut packet in burst.packets() {
            packet.restart_hops();
            bytes += packet.bytes().len() as u64;
            probes += u64::from(Some(packet.hash()) == probe_hash);
        }
        let all = burst.len() as u64;
        if probes > 0 {
            self.measure(burst);
        }
        let foreign = if self.pace.is_some() {
            let foreign = self.look_into(burst);
            burst.set_all(Verdict::Drop(DropReason::Consumed));
            foreign
        } else if self.census.is_under_way() {
            self.look_into(burst)
        } else {
            0
        };
        self.foreign += foreign;
        self.back.count(all - foreign, bytes);
    }

    /// Reads the times in probes, and sends them off again with the present one.
    fn measure(&mut self, burst: &mut Burst<'_, ReadWrite>) {
        let (Some(latency), Some(stamps)) = (&mut self.latency, self.stamps) else { return };
        let now_ns = latency.now_ns();
        for mut packet in burst.packets().filter(|p| Some(p.hash()) == self.probe_hash) {
            if let Some((_, left_ns)) = stamps.read(packet.bytes()) {
                latency.record(left_ns, now_ns);
                Stamps::set_time(packet.bytes_mut(), now_ns);
            }
        }
    }

    /// Looks whose packets these are: ours go into the census, others end here. The number of others.
    #[cold]
    #[inline(never)]
    fn look_into(&mut self, burst: &mut Burst<'_, ReadWrite>) -> u64 {
        let Some(stamps) = self.stamps else { return 0 };
        let mut foreign = 0;
        for mut packet in burst.packets() {
            match stamps.read(packet.bytes()) {
                Some((number, _)) => self.census.mark(number),
                None => {
                    packet.set_verdict(Verdict::Drop(DropReason::Consumed));
                    foreign += 1;
                }
            }
        }
        foreign
    }

    /// Makes packets, as many as are to be under way and, with `--rate`, as are due.
    pub(crate) fn produce(&mut self, burst: &mut Burst<'_, ReadWrite>) -> Option<Duration> {
        let room = u64::from(self.wanted).saturating_sub(self.outstanding());
        match &mut self.pace {
            None => {
                self.make(burst, room);
                if self.made < u64::from(self.wanted) {
                    return Some(AGAIN);
                }
                // Packets of a capture have no numbers to count them by.
                if self.stamps.is_some() {
                    self.census.begin();
                }
                None
            }
            Some(pace) => {
                let now = Instant::now();
                let due = pace.due(now);
                let made = if due > 0 { self.make(burst, due.min(room)) } else { 0 };
                let pace = self.pace.as_mut()?;
                pace.sent(made);
                Some(if made < due { AGAIN } else { pace.wait(now) })
            }
        }
    }

    /// Makes up to `n` packets; as many as there are empty buffers for.
    fn make(&mut self, burst: &mut Burst<'_, ReadWrite>, n: u64) -> u64 {
        let now_ns = self.latency.as_ref().map_or(0, Latency::now_ns);
        let before = self.made;
        while self.made - before < n {
            let number = self.made;
            let Some(mut packet) = burst.make(self.frames.length(number)) else { break };
            // Numbers begin anew with --rate, where no census needs them.
            let short = u32::try_from(number % u64::from(self.wanted)).unwrap_or(0);
            let hash = self.frames.write(number, (short, now_ns), packet.bytes_mut());
            packet.set_hash(hash);
            self.made += 1;
        }
        self.made - before
    }

    /// All packets under way are gone. With `--rate` they count as lost; those that go round are made anew.
    pub(crate) fn all_lost(&mut self) {
        if self.pace.is_some() {
            self.lost = self.made.saturating_sub(self.back.packets);
            self.made_by = [self.made; TICKS_TO_LOSS];
        } else {
            self.made = 0;
            self.census = Census::new(self.wanted);
        }
    }

    /// Packets made that neither ended here nor are known to be lost.
    fn outstanding(&self) -> u64 {
        match self.pace {
            Some(_) => self.made.saturating_sub(self.back.packets + self.lost),
            None => self.made,
        }
    }

    /// A second has passed.
    pub(crate) fn tick(&mut self, now: Instant) {
        let came = self.back.tick(now);
        if self.pace.is_some() {
            let due = self.made_by[0];
            self.lost = self.lost.max(due.saturating_sub(self.back.packets));
            self.made_by.rotate_left(1);
            self.made_by[TICKS_TO_LOSS - 1] = self.made;
        } else if came == Some(0) {
            self.census.nobody();
        } else if self.stamps.is_some() && self.made == u64::from(self.wanted) {
            self.census.begin();
        }
    }

    /// Packets under way and lost, as far as known.
    fn under_way(&self) -> Option<(u64, u64)> {
        match self.pace {
            Some(_) => Some((self.outstanding(), self.lost)),
            None => self.census.result().map(|found| (found, self.made.saturating_sub(found))),
        }
    }

    pub(crate) fn report(&self) -> Report {
        let (now, overall) = (self.back.now(), self.back.overall(Instant::now()));
        let under_way = self.under_way();
        let latency = self.latency.as_ref().and_then(Latency::percentiles);
        let missed = self.pace.map(|pace| pace.missed);
        let mut lines = vec![
            format!("now      {}", rate_text(now)),
            format!(
                "overall  {}, {} packets in {:.2} s",
                rate_text(overall),
                self.back.packets,
                overall.seconds
            ),
            match under_way {
                Some((flying, lost)) => {
                    format!("{} packets made, {flying} in flight, {lost} lost", self.made)
                }
                None => format!("{} packets made, those in flight not counted", self.made),
            },
        ];
        if let Some(missed) = missed.filter(|n| *n > 0) {
            lines.push(format!(
                "{missed} packets not sent in time: the rate is too high, or the processor was taken"
            ));
        }
        if self.foreign > 0 {
            lines.push(format!("{} packets of others ended here", self.foreign));
        }
        if let Some(l) = latency {
            lines.push(format!(
                "latency  p50 {} ns, p99 {} ns, p99.9 {} ns, max {} ns, min {} ns; {} samples",
                l.p50_ns, l.p99_ns, l.p999_ns, l.max_ns, l.min_ns, l.samples
            ));
        }
        let facts = json!({
            "wanted": self.wanted,
            "made": self.made,
            "returned": self.back.packets,
            "returned_bytes": self.back.bytes,
            "in_flight": under_way.map(|u| u.0),
            "lost": under_way.map(|u| u.1),
            "missed": missed,
            "foreign": self.foreign,
            "rate": now,
            "rate_overall": overall,
            "latency": latency,
        });
        Report::new(lines.join("\n"), &facts)
    }
}

fn rate_text(rate: Rate) -> String {
    format!("{:.3} Mpps, {:.1} MB/s", rate.packets_per_second / 1e6, rate.bytes_per_second / 1e6)
}
