//! What a soak says at its end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::books::Sums;
use super::memory::Sample;
use super::tide::Tides;

/// How long operations took until everything was as it should be.
#[derive(Debug, Default)]
pub(super) struct Times(BTreeMap<&'static str, Vec<Duration>>);

impl Times {
    pub(super) fn add(&mut self, operation: &'static str, took: Duration) {
        self.0.entry(operation).or_default().push(took);
    }

    /// Name, count, median and worst in ms.
    fn rows(&self) -> Vec<(&'static str, usize, f64, f64)> {
        let row = |(name, times): (&&'static str, &Vec<Duration>)| {
            let mut times: Vec<f64> = times.iter().map(|t| t.as_secs_f64() * 1000.0).collect();
            times.sort_by(f64::total_cmp);
            let worst = times.last().copied().unwrap_or(0.0);
            (*name, times.len(), times[times.len() / 2], worst)
        };
        self.0.iter().filter(|(_, times)| !times.is_empty()).map(row).collect()
    }
}

/// What must not be, and was.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Violation {
    /// What.
    pub what: String,
    /// In or after which operation.
    pub operation: String,
    /// Seconds after the beginning.
    pub at_s: f64,
    /// Where logs and events are.
    pub directory: String,
}

/// The report.
#[derive(Debug)]
pub struct Report {
    pub(super) seed: u64,
    pub(super) seconds: f64,
    /// How the service that is scaled by its load grew and shrank.
    pub(super) tides: Tides,
    pub(super) times: Times,
    pub(super) sums: Sums,
    pub(super) excused: u64,
    /// Instances that were taken for hung while the machine let nobody run.
    pub(super) starved: u64,
    /// Longest time that the machine did not let the soak itself run.
    pub(super) late: Duration,
    pub(super) longest_gap_us: u64,
    /// Of each manager, the first and the last look at home.
    pub(super) managers: Vec<(Sample, Sample)>,
    /// Largest growth of an NF: open files, mappings, KiB.
    pub(super) nf_growth: (u64, u64, u64),
    /// None when all was well.
    pub violation: Option<Violation>,
}

impl Report {
    /// For machines.
    #[must_use]
    pub fn json(&self) -> Value {
        let operations: serde_json::Map<String, Value> = self
            .times
            .rows()
            .into_iter()
            .map(|(name, count, median, worst)| {
                (name.into(), json!({"count": count, "median_ms": median, "worst_ms": worst}))
            })
            .collect();
        let managers: Vec<Value> =
            self.managers.iter().map(|(first, last)| json!({"first": first, "last": last})).collect();
        let (fds, maps, private_kb) = self.nf_growth;
        json!({
            "seed": self.seed,
            "seconds": self.seconds,
            "operations": operations,
            "packets": self.sums,
            "reordered_behind_held_packets": self.excused,
        "taken_for_hung_on_a_busy_machine": self.starved,
            "machine_late_ms": self.late.as_secs_f64() * 1000.0,
            "longest_gap_ms": self.longest_gap_us / 1000,
            "managers": managers,
            "nf_growth": {"fds": fds, "maps": maps, "private_kb": private_kb},
            "scaled_by_load": self.tides,
            "violation": self.violation,
        })
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |line: String| {
            let _ = writeln!(text, "{line}");
        };
        line(format!("{:<18} {:>6} {:>12} {:>12}", "operation", "count", "median ms", "worst ms"));
        for (name, count, median, worst) in self.times.rows() {
            line(format!("{name:<18} {count:>6} {median:>12.1} {worst:>12.1}"));
        }
        let sums = &self.sums;
        line(format!(
            "packets: {} received, {} copied, {} sent, {} numbered ones judged",
            sums.received, sums.copied, sums.sent, sums.judged
        ));
        let drops: Vec<String> = sums.drops.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
        line(format!("dropped: {}", if drops.is_empty() { "none".into() } else { drops.join(", ") }));
        line(format!(
            "numbered packets missing: {}, reordered: {} ({} of them behind packets that were held back too long)",
            sums.missing, sums.reordered, self.excused
        ));
        line(format!("scaled by load: {} times up, {} times down", self.tides.up, self.tides.down));
        line(format!("longest time without a numbered packet: {} ms", self.longest_gap_us / 1000));
        line(format!(
            "longest time that the machine did not let this program run: {:.0} ms; instances taken for hung then: {}",
            self.late.as_secs_f64() * 1000.0,
            self.starved
        ));
        for (number, (first, last)) in self.managers.iter().enumerate() {
            line(format!(
                "manager {}: {} files then {}, {} mappings then {}, {} KiB of its own then {}, {} KiB in all then {}",
                number + 1,
                first.fds,
                last.fds,
                first.maps,
                last.maps,
                first.private_kb,
                last.private_kb,
                first.rss_kb,
                last.rss_kb
            ));
        }
        let (fds, maps, kb) = self.nf_growth;
        line(format!("largest growth of an NF: {fds} files, {maps} mappings, {kb} KiB of its own"));
        match &self.violation {
            None => line(format!("all is well after {:.0} s (seed {})", self.seconds, self.seed)),
            Some(v) => {
                line(format!("VIOLATION after {:.1} s, {}: {}", v.at_s, v.operation, v.what));
                line(format!("logs and events: {}", v.directory));
                line(format!("the same choices again: scripts/soak.sh --seed {}", self.seed));
            }
        }
        text
    }
}
