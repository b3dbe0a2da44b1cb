//! What managers counted and judges saw, over all managers of a run.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::Ledger;

/// Reasons for which packets may be dropped when NFs die, hang and are missing; `denied` are the copies.
const ALLOWED: [&str; 9] = [
    "reaped",
    "no-instance",
    "backpressure",
    "no-buffer",
    "denied",
    "quarantined",
    "table-full",
    "too-long",
    "shutdown",
];

/// Sums.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Sums {
    /// Packets that came in from ports.
    pub received: u64,
    /// Copies that were made.
    pub copied: u64,
    /// Packets that went out to ports.
    pub sent: u64,
    /// Dropped packets by reason.
    pub drops: BTreeMap<String, u64>,
    /// Numbered packets that the judge saw.
    pub judged: u64,
    /// Those of them that came after a later one of their flow.
    pub reordered: u64,
    /// Numbered packets that never came.
    pub missing: u64,
}

impl Sums {
    fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.copied += other.copied;
        self.sent += other.sent;
        self.judged += other.judged;
        self.reordered += other.reordered;
        self.missing += other.missing;
        for (reason, n) in &other.drops {
            *self.drops.entry(reason.clone()).or_default() += n;
        }
    }
}

/// Sums of the managers that are gone, and of the one that is there.
#[derive(Debug, Default)]
pub(super) struct Books {
    past: Sums,
    now: Sums,
    pub(super) longest_gap_us: u64,
    pub(super) managers: u32,
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

impl Books {
    pub(super) fn new() -> Self {
        Self { managers: 1, ..Self::default() }
    }

    /// Writes down what the judge says, and what the manager said after that; returns packets that were reordered since.
    pub(super) fn note(&mut self, judge: &Value, stats: &Ledger) -> Result<u64, String> {
        let drops = stats.0["drops"].as_object().into_iter().flatten();
        let now = Sums {
            received: stats.packets("received"),
            copied: stats.packets("copied"),
            sent: stats.packets("sent"),
            drops: drops.map(|(reason, n)| (reason.clone(), number(n))).collect(),
            judged: number(&judge["packets"]),
            reordered: number(&judge["reordered"]),
            missing: number(&judge["missing"]),
        };
        let before = std::mem::replace(&mut self.now, now);
        let now = &self.now;
        self.longest_gap_us = self.longest_gap_us.max(number(&judge["longest_gap_us"]));
        if let Some((reason, n)) = now.drops.iter().find(|(reason, _)| !ALLOWED.contains(&reason.as_str())) {
            return Err(format!("{n} packets were dropped: {reason}"));
        }
        if stats.bad_descriptors() > 0 {
            return Err(format!("{} bad descriptors", stats.bad_descriptors()));
        }
        if now.judged < before.judged {
            return Err(format!(
                "the judge forgot what it saw: {} packets, then {}",
                before.judged, now.judged
            ));
        }
        let dropped: u64 = now.drops.iter().filter(|(r, _)| *r != "denied").map(|(_, n)| n).sum();
        // The judge misses what a younger one overtakes, and counts it as reordered when it comes.
        if now.missing.saturating_sub(now.reordered) > dropped {
            return Err(format!(
                "{} packets are missing, and only {dropped} were dropped: {:?}",
                now.missing, now.drops
            ));
        }
        Ok(now.reordered.saturating_sub(before.reordered))
    }

    /// The manager ends, and the next one counts from nothing.
    pub(super) fn close(&mut self) {
        self.past.add(&std::mem::take(&mut self.now));
    }

    /// All sums.
    pub(super) fn sums(&self) -> Sums {
        let mut all = self.past.clone();
        all.add(&self.now);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stats(drops: Value) -> Ledger {
        Ledger(json!({
            "packets": {"received": 10, "copied": 0, "sent": 5}, "drops": drops, "bad_descriptors": 0,
        }))
    }

    #[test]
    fn what_is_missing_must_have_been_dropped_for_a_reason() {
        let judge = |n, missing, reordered| json!({"packets": n, "missing": missing, "reordered": reordered});
        let mut books = Books::default();
        assert_eq!(books.note(&judge(5, 2, 0), &stats(json!({"reaped": 2}))), Ok(0));
        assert_eq!(books.note(&judge(6, 2, 3), &stats(json!({"reaped": 2}))), Ok(3));
        assert!(books.note(&judge(7, 6, 3), &stats(json!({"reaped": 2, "denied": 5}))).is_err());
        assert!(books.note(&judge(7, 0, 3), &stats(json!({"lost": 1}))).is_err());
        assert!(books.note(&judge(1, 0, 3), &stats(json!({}))).is_err());
        books.close();
        assert_eq!(books.note(&judge(4, 0, 1), &stats(json!({"reaped": 1}))), Ok(1));
        let sums = books.sums();
        assert_eq!((sums.judged, sums.reordered, sums.sent), (5, 4, 10));
    }
}
