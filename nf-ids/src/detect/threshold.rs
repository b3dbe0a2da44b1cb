//! How often a rule may say that it matched.

use std::collections::HashMap;
use std::net::IpAddr;

use super::rates::RateFilter;
use crate::rules::{Action, Filter, Threshold, ThresholdKind, Track, UniqueOn};

/// Entries that are kept of hosts and pairs of hosts.
const MOST: usize = 1 << 16;
/// Different values that `unique_on` remembers.
const MOST_UNIQUE: usize = 1024;

/// What was counted.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Entry {
    count: u32,
    since_ns: u64,
    /// At which count `backoff` says it next; for the others 1 once it has begun.
    next: u32,
    unique: Vec<u64>,
}

/// Whose count it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
enum Key {
    Host(u64, IpAddr),
    Pair(u64, IpAddr, IpAddr),
    Rule(u64),
}

/// The counts of hosts and rules; those of flows are with the flow.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Thresholds {
    entries: HashMap<Key, Entry>,
}

/// The packet that is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) now_ns: u64,
}

/// What a threshold says of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// It is said.
    Alert,
    /// It is not said, but its action is done.
    Silent,
    /// It counts as no match.
    Nothing,
}

impl Thresholds {
    fn entry<'a>(
        &'a mut self,
        rule: u64,
        track: Track,
        of: &Counted,
        flow: Option<&'a mut Vec<(u64, Entry)>>,
    ) -> Option<&'a mut Entry> {
        let key = match track {
            Track::Source => Key::Host(rule, of.source),
            Track::Destination => Key::Host(!rule, of.destination),
            Track::Both => Key::Pair(rule, of.source.min(of.destination), of.source.max(of.destination)),
            Track::Rule => Key::Rule(rule),
            Track::Flow => {
                let all = flow?;
                let at = match all.iter().position(|(r, _)| *r == rule) {
                    Some(at) => at,
                    None => {
                        all.push((rule, Entry::default()));
                        all.len() - 1
                    }
                };
                return Some(&mut all[at].1);
            }
        };
        if self.entries.len() >= MOST && !self.entries.contains_key(&key) {
            self.expire(of.now_ns);
        }
        Some(self.entries.entry(key).or_default())
    }

    /// Makes room: what has not been counted for an hour goes, or else everything.
    fn expire(&mut self, now_ns: u64) {
        const HOUR: u64 = 3_600_000_000_000;
        self.entries.retain(|_, e| now_ns.saturating_sub(e.since_ns) < HOUR);
        if self.entries.len() >= MOST {
            self.entries.clear();
        }
    }

    /// Counts a match of a rule with `threshold`.
    pub(crate) fn threshold(
        &mut self,
        rule: u64,
        t: &Threshold,
        of: &Counted,
        flow: Option<&mut Vec<(u64, Entry)>>,
    ) -> Said {
        let Some(entry) = self.entry(rule, t.track, of, flow) else { return Said::Alert };
        let window = u64::from(t.seconds) * 1_000_000_000;
        if t.kind == ThresholdKind::Backoff {
            entry.count = entry.count.saturating_add(1);
            if entry.next == 0 {
                entry.next = t.count;
            }
            if entry.count == entry.next {
                entry.next = entry.next.saturating_mul(t.multiplier).max(entry.count.saturating_add(1));
                return Said::Alert;
            }
            return if entry.count < t.count { Said::Nothing } else { Said::Silent };
        }
        // The time runs on when a threshold is reached: it is that of the first match, not of the alert.
        if entry.next == 0 || of.now_ns.saturating_sub(entry.since_ns) > window {
            *entry = Entry { since_ns: of.now_ns, next: 1, ..Entry::default() };
        }
        entry.count = entry.count.saturating_add(1);
        // Below its count, a rule has not matched: what it does is not done either.
        match t.kind {
            ThresholdKind::Limit if entry.count <= t.count => Said::Alert,
            ThresholdKind::Both if entry.count == t.count => Said::Alert,
            ThresholdKind::Both if entry.count < t.count => Said::Nothing,
            ThresholdKind::Threshold if entry.count < t.count => Said::Nothing,
            ThresholdKind::Threshold => {
                entry.count = 0;
                Said::Alert
            }
            _ => Said::Silent,
        }
    }

    /// Counts a match of a rule with `detection_filter`.
    pub(crate) fn filter(
        &mut self,
        rule: u64,
        f: &Filter,
        of: &Counted,
        flow: Option<&mut Vec<(u64, Entry)>>,
    ) -> Said {
        let Some(entry) = self.entry(rule, f.track, of, flow) else { return Said::Alert };
        let window = u64::from(f.seconds) * 1_000_000_000;
        if entry.count == 0 && entry.unique.is_empty() || of.now_ns.saturating_sub(entry.since_ns) > window {
            entry.since_ns = of.now_ns;
            entry.count = 0;
            entry.unique.clear();
        }
        if let Some(unique) = f.unique {
            let value = unique_value(unique, of);
            if !entry.unique.contains(&value) && entry.unique.len() < MOST_UNIQUE {
                entry.unique.push(value);
                entry.count = entry.count.saturating_add(1);
            }
        } else {
            entry.count = entry.count.saturating_add(1);
        }
        if entry.count > f.count { Said::Alert } else { Said::Nothing }
    }

    /// Counts a match of a rule with `rate_filter`: the action that it changes to, when it does.
    pub(crate) fn rate(
        &mut self,
        rule: u64,
        f: &RateFilter,
        of: &Counted,
        flow: Option<&mut Vec<(u64, Entry)>>,
    ) -> Option<Action> {
        // The count is another than that of a threshold of the same rule.
        let entry = self.entry(rule ^ 1 << 63, f.track, of, flow)?;
        let window = |seconds: u32| u64::from(seconds) * 1_000_000_000;
        if entry.next > 0 {
            if of.now_ns.saturating_sub(entry.since_ns) <= window(f.timeout) {
                return Some(f.action);
            }
            // The match that finds the time over is the last that is not counted.
            *entry = Entry::default();
            return None;
        }
        if entry.count == 0 || of.now_ns.saturating_sub(entry.since_ns) > window(f.seconds) {
            entry.since_ns = of.now_ns;
            entry.count = 0;
        }
        entry.count = entry.count.saturating_add(1);
        if entry.count > f.count {
            entry.next = 1;
            entry.since_ns = of.now_ns;
            return Some(f.action);
        }
        None
    }
}

fn unique_value(unique: UniqueOn, of: &Counted) -> u64 {
    let address = |a: IpAddr| super::names::hash(&a.to_string());
    match unique {
        UniqueOn::SourcePort => u64::from(of.source_port),
        UniqueOn::DestinationPort => u64::from(of.destination_port),
        UniqueOn::Source => address(of.source),
        UniqueOn::Destination => address(of.destination),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Counted {
        Counted {
            source: [1, 1, 1, 1].into(),
            destination: [2, 2, 2, 2].into(),
            source_port: 1,
            destination_port: 2,
            now_ns: seconds * 1_000_000_000,
        }
    }

    fn count(kind: ThresholdKind, count: u32, times: &[u64]) -> usize {
        let mut all = Thresholds::default();
        let t = Threshold { kind, track: Track::Source, count, seconds: 10, multiplier: 1 };
        times.iter().filter(|s| all.threshold(1, &t, &at(**s), None) == Said::Alert).count()
    }

    #[test]
    fn each_kind_counts_in_its_way() {
        let times = [0, 1, 2, 3, 4, 5, 20, 21];
        assert_eq!(count(ThresholdKind::Limit, 2, &times), 4);
        assert_eq!(count(ThresholdKind::Threshold, 2, &times), 4);
        assert_eq!(count(ThresholdKind::Both, 2, &times), 2);
        assert_eq!(count(ThresholdKind::Threshold, 2, &[0, 1, 9, 11]), 1);
    }

    #[test]
    fn below_its_count_a_rule_has_not_matched() {
        let said = |kind| {
            let mut all = Thresholds::default();
            let t = Threshold { kind, track: Track::Source, count: 2, seconds: 10, multiplier: 1 };
            (0..4).map(|s| all.threshold(1, &t, &at(s), None)).collect::<Vec<_>>()
        };
        assert_eq!(said(ThresholdKind::Threshold), [Said::Nothing, Said::Alert, Said::Nothing, Said::Alert]);
        assert_eq!(said(ThresholdKind::Both), [Said::Nothing, Said::Alert, Said::Silent, Said::Silent]);
        assert_eq!(said(ThresholdKind::Limit), [Said::Alert, Said::Alert, Said::Silent, Said::Silent]);
    }

    #[test]
    fn backoff_says_it_less_and_less_often() {
        let mut flow = Vec::new();
        let mut all = Thresholds::default();
        let t = Threshold {
            kind: ThresholdKind::Backoff,
            track: Track::Flow,
            count: 1,
            seconds: 0,
            multiplier: 10,
        };
        let said: Vec<u32> =
            (1..=1000).filter(|_| all.threshold(1, &t, &at(0), Some(&mut flow)) == Said::Alert).collect();
        assert_eq!(said, [1, 10, 100, 1000]);
    }

    #[test]
    fn a_filter_lets_the_first_by_and_counts_what_differs() {
        let mut all = Thresholds::default();
        let mut f = Filter { track: Track::Source, count: 2, seconds: 10, unique: None };
        let said: Vec<bool> = (0..4).map(|s| all.filter(1, &f, &at(s), None) == Said::Alert).collect();
        assert_eq!(said, [false, false, true, true]);
        f.unique = Some(UniqueOn::DestinationPort);
        assert!((0..9).all(|s| all.filter(2, &f, &at(s), None) == Said::Nothing));
    }
}
