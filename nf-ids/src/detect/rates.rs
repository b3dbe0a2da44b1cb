//! Limits from a threshold file: thresholds of rules that say nothing of it themselves, suppressed hosts, and actions that
//! change with the rate of matches.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::rules::{Action, Addresses, Fault, RejectTo, Threshold, ThresholdKind, Track, Variables};

/// `suppress`: for whom a rule says nothing.
#[derive(Clone, Debug)]
pub struct Suppress {
    /// By source, by destination, by either; `None`: always.
    track: Option<Track>,
    list: Addresses,
}

impl Suppress {
    /// Whether a packet with these ends is suppressed.
    #[must_use]
    pub fn covers(&self, source: IpAddr, destination: IpAddr) -> bool {
        match self.track {
            None => true,
            Some(Track::Source) => self.list.contains(source),
            Some(Track::Destination) => self.list.contains(destination),
            Some(_) => self.list.contains(source) || self.list.contains(destination),
        }
    }
}

/// `rate_filter`: beyond `count` within `seconds`, the action is another for `timeout` seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateFilter {
    pub(crate) track: Track,
    pub(crate) count: u32,
    pub(crate) seconds: u32,
    pub(crate) action: Action,
    pub(crate) timeout: u32,
}

/// One line of a threshold file.
#[derive(Clone, Debug)]
pub(crate) enum Rate {
    Threshold(Threshold),
    Suppress(Suppress),
    Filter(RateFilter),
}

/// The lines of a threshold file.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    lines: Vec<(u64, Rate)>,
}

const KNOWN: [&str; 4] = ["suppress", "threshold", "event_filter", "rate_filter"];

impl Limits {
    /// Takes a line.
    ///
    /// # Errors
    ///
    /// A line of another form; the fault names what is wrong in it.
    pub fn take(&mut self, line: &str, variables: &Variables) -> Result<(), Fault> {
        let (word, rest) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
        let fields = Fields::of(word, rest)?;
        let id = u64::from(fields.number("gen_id", 1)?) << 32 | u64::from(fields.number("sig_id", 0)?);
        let rate = match word {
            "suppress" => {
                let track = fields.get("track").map(|t| track(word, t)).transpose()?;
                let list = match (track, fields.get("ip")) {
                    (Some(_), Some(list)) => Addresses::parse(list, variables)?,
                    (None, None) => Addresses::any(),
                    _ => return Err(fault(word, "`track` and `ip` go together".into())),
                };
                Rate::Suppress(Suppress { track, list })
            }
            "threshold" | "event_filter" => {
                let kind = match fields.needed("type")? {
                    "limit" => ThresholdKind::Limit,
                    "threshold" => ThresholdKind::Threshold,
                    "both" => ThresholdKind::Both,
                    other => {
                        return Err(fault(
                            word,
                            format!("`type {other}` is not `limit`, `threshold` or `both`"),
                        ));
                    }
                };
                let track = track(word, fields.needed("track")?)?;
                let (count, seconds) = (fields.number("count", 1)?, fields.number("seconds", 1)?);
                Rate::Threshold(Threshold { kind, track, count, seconds, multiplier: 1 })
            }
            "rate_filter" => Rate::Filter(RateFilter {
                track: track(word, fields.needed("track")?)?,
                count: fields.number("count", 1)?,
                seconds: fields.number("seconds", 1)?,
                action: action(fields.needed("new_action")?)?,
                timeout: fields.number("timeout", 0)?,
            }),
            other => {
                let mut fault = fault(other, "is not known".into());
                fault.nearest = onvm_lib::document::nearest(other, KNOWN).map(str::to_string);
                return Err(fault);
            }
        };
        self.lines.push((id, rate));
        Ok(())
    }

    /// By the number of the rule.
    pub(crate) fn by_rule(&self) -> HashMap<u64, Vec<Rate>> {
        let mut all: HashMap<u64, Vec<Rate>> = HashMap::new();
        for (id, rate) in &self.lines {
            all.entry(*id).or_default().push(rate.clone());
        }
        all
    }
}

fn fault(field: &str, reason: String) -> Fault {
    Fault { field: field.to_string(), reason, nearest: None }
}

fn track(word: &str, text: &str) -> Result<Track, Fault> {
    match text {
        "by_src" => Ok(Track::Source),
        "by_dst" => Ok(Track::Destination),
        "by_both" | "by_either" => Ok(Track::Both),
        "by_rule" => Ok(Track::Rule),
        "by_flow" => Ok(Track::Flow),
        other => Err(fault(word, format!("`track {other}` is not known"))),
    }
}

fn action(text: &str) -> Result<Action, Fault> {
    match text {
        "alert" => Ok(Action::Alert),
        "drop" => Ok(Action::Drop),
        "pass" => Ok(Action::Pass),
        "reject" => Ok(Action::Reject(RejectTo::Source)),
        other => Err(fault("new_action", format!("`{other}` is not `alert`, `drop`, `pass` or `reject`"))),
    }
}

/// Names and values of a line, parted by commas outside of brackets.
struct Fields<'a> {
    word: &'a str,
    all: Vec<(&'a str, &'a str)>,
}

impl<'a> Fields<'a> {
    fn of(word: &'a str, text: &'a str) -> Result<Self, Fault> {
        let (mut depth, mut from, mut all) = (0usize, 0, Vec::new());
        let mut parts = Vec::new();
        for (at, byte) in text.bytes().enumerate() {
            match byte {
                b'[' => depth += 1,
                b']' => depth = depth.saturating_sub(1),
                b',' if depth == 0 => {
                    parts.push(&text[from..at]);
                    from = at + 1;
                }
                _ => {}
            }
        }
        parts.push(&text[from..]);
        for part in parts.into_iter().map(str::trim).filter(|p| !p.is_empty()) {
            let missing = || fault(word, format!("`{part}` has no value"));
            let (name, value) = part.split_once(char::is_whitespace).ok_or_else(missing)?;
            all.push((name, value.trim()));
        }
        Ok(Fields { word, all })
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.all.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
    }

    fn needed(&self, name: &str) -> Result<&'a str, Fault> {
        self.get(name).ok_or_else(|| fault(self.word, format!("has no `{name}`")))
    }

    fn number(&self, name: &str, least: u32) -> Result<u32, Fault> {
        let text = self.needed(name)?;
        let wrong = || fault(self.word, format!("`{name} {text}` is not in {least}..=4294967295"));
        text.parse().ok().filter(|n| *n >= least).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_each_kind_are_read_and_others_refused() {
        let mut limits = Limits::default();
        let variables = Variables::default();
        for line in [
            "suppress gen_id 1, sig_id 2009557, track by_src, ip [10.0.0.0/8,1.2.3.4]",
            "suppress gen_id 1, sig_id 5",
            "threshold gen_id 1, sig_id 5, type limit, track by_src, count 1, seconds 60",
            "rate_filter gen_id 1, sig_id 1000, track by_rule, count 100, seconds 60, new_action alert, timeout 30",
        ] {
            limits.take(line, &variables).unwrap();
        }
        assert_eq!(limits.by_rule().len(), 3);
        for line in
            ["supress gen_id 1, sig_id 1", "suppress gen_id 1", "rate_filter gen_id 1, sig_id 1, track x"]
        {
            assert!(limits.take(line, &variables).is_err(), "{line}");
        }
    }
}
