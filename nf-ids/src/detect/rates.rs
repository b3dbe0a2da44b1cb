//! Limits from a threshold file: thresholds in place of those of rules, suppressed hosts, and actions that change with the
//! rate of matches.
//!
//! A line is about one rule, or with `sig_id 0` about all of its `gen_id` (0: all). One rule's threshold takes the place of
//! the rule's own; one for all is for rules that have none. Suppression and rate filters stand beside what the rule says.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::rules::{
    Action, Addresses, Fault, Filter, Refusal, RejectTo, Rule, Threshold, ThresholdKind, Track, Variables,
    logical_lines, read_text,
};

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

/// One line, whom it is about (0: all), and where it stands.
#[derive(Clone, Debug)]
struct Line {
    gid: u32,
    sid: u32,
    rate: Rate,
    file: Option<Arc<PathBuf>>,
    line: usize,
}

impl Line {
    fn is_about(&self, rule: &Rule) -> bool {
        (self.gid == 0 || self.gid == rule.gid) && (self.sid == 0 || self.sid == rule.sid)
    }
}

/// The lines of threshold files.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    lines: Vec<Line>,
    /// Lines that were not taken.
    pub refusals: Vec<Refusal>,
}

/// How often a rule may say that it matched, from itself and from threshold files.
#[derive(Clone, Debug, Default)]
pub(crate) struct RuleLimits {
    pub(crate) threshold: Option<Threshold>,
    pub(crate) filter: Option<Filter>,
    pub(crate) suppress: Vec<Suppress>,
    pub(crate) rates: Vec<RateFilter>,
}

impl RuleLimits {
    /// What the rule itself says.
    pub(crate) fn of(rule: &Rule) -> Self {
        RuleLimits { threshold: rule.threshold, filter: rule.detection_filter, ..RuleLimits::default() }
    }

    /// Whether it never says less than it matches.
    pub(crate) fn is_empty(&self) -> bool {
        self.threshold.is_none() && self.filter.is_none() && self.suppress.is_empty() && self.rates.is_empty()
    }
}

const KNOWN: [&str; 4] = ["suppress", "threshold", "event_filter", "rate_filter"];

impl Limits {
    /// Adds the lines of a file, plain or gzip. Faults of single lines are kept in `refusals`.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn add_file(&mut self, path: &Path, variables: &Variables) -> Result<(), String> {
        let text = read_text(path).map_err(|e| format!("{}: cannot be read: {e}", path.display()))?;
        let file = Arc::new(path.to_path_buf());
        for (number, line) in logical_lines(&text) {
            let before = self.lines.len();
            if let Err(fault) = self.take(&line, variables) {
                let file = Some(file.clone());
                self.refusals.push(Refusal { file, line: number, column: 1, sid: None, fault });
            }
            if let Some(taken) = self.lines.get_mut(before) {
                (taken.file, taken.line) = (Some(file.clone()), number);
            }
        }
        Ok(())
    }

    /// Takes a line.
    ///
    /// # Errors
    ///
    /// A line of another form; the fault names what is wrong in it.
    pub fn take(&mut self, line: &str, variables: &Variables) -> Result<(), Fault> {
        let (word, rest) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
        if !KNOWN.contains(&word) {
            let nearest = onvm_lib::document::nearest(word, KNOWN).map(str::to_string);
            return Err(Fault { nearest, ..fault(word, "is not known".into()) });
        }
        let fields = Fields::of(word, rest)?;
        let (gid, sid) = (fields.number("gen_id", 0)?, fields.number("sig_id", 0)?);
        if gid == 0 && sid != 0 {
            return Err(fault(word, format!("`gen_id 0` is all rules, and cannot go with `sig_id {sid}`")));
        }
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
            _ => Rate::Filter(RateFilter {
                track: track(word, fields.needed("track")?)?,
                count: fields.number("count", 1)?,
                seconds: fields.number("seconds", 1)?,
                action: action(fields.needed("new_action")?)?,
                timeout: fields.number("timeout", 0)?,
            }),
        };
        self.lines.push(Line { gid, sid, rate, file: None, line: 0 });
        Ok(())
    }

    /// What the lines make of a rule's own limits. `used` notes which of them are about it.
    pub(crate) fn apply(&self, rule: &Rule, used: &mut [bool]) -> RuleLimits {
        let mut limits = RuleLimits::of(rule);
        let own = limits.threshold.is_some() || limits.filter.is_some();
        for (line, used) in self.lines.iter().zip(used).filter(|(line, _)| line.is_about(rule)) {
            *used = true;
            match &line.rate {
                Rate::Suppress(suppress) => limits.suppress.push(suppress.clone()),
                Rate::Filter(filter) => limits.rates.push(*filter),
                Rate::Threshold(threshold) if line.sid != 0 || !own => {
                    (limits.threshold, limits.filter) = (Some(*threshold), None);
                }
                Rate::Threshold(_) => {}
            }
        }
        limits
    }

    /// What is said of lines that are about no rule.
    pub(crate) fn unused(&self, used: &[bool]) -> Vec<Refusal> {
        let idle = self.lines.iter().zip(used).filter(|(_, used)| !**used);
        idle.map(|(line, _)| {
            let why = format!("no rule has gid {} and sid {}", line.gid, line.sid);
            let fault = fault("sig_id", why);
            Refusal { file: line.file.clone(), line: line.line, column: 1, sid: Some(line.sid), fault }
        })
        .collect()
    }

    /// How many lines there are.
    pub(crate) fn len(&self) -> usize {
        self.lines.len()
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
    use crate::rules::{Context, RuleSet};

    #[test]
    fn lines_of_each_kind_are_read_and_others_refused() {
        let mut limits = Limits::default();
        let variables = Variables::default();
        for line in [
            "suppress gen_id 1, sig_id 2009557, track by_src, ip [10.0.0.0/8,1.2.3.4]",
            "suppress gen_id 1, sig_id 5",
            "event_filter gen_id 1, sig_id 5, type limit, track by_src, count 1, seconds 60",
            "rate_filter gen_id 1, sig_id 1000, track by_rule, count 100, seconds 60, new_action alert, timeout 30",
            "suppress gen_id 0, sig_id 0, track by_either, ip $HOME_NET",
        ] {
            limits.take(line, &variables).unwrap();
        }
        for line in [
            "supress gen_id 1, sig_id 1",
            "suppress gen_id 1",
            "suppress gen_id 0, sig_id 1",
            "rate_filter gen_id 1, sig_id 1, track x",
        ] {
            assert!(limits.take(line, &variables).is_err(), "{line}");
        }
        assert_eq!(limits.take("supress x", &variables).unwrap_err().nearest.as_deref(), Some("suppress"));
    }

    #[test]
    fn a_line_for_one_rule_comes_before_its_own_limit_and_one_for_all_behind() {
        let mut set = RuleSet::new(Context::default());
        set.add_text(
            "alert tcp any any -> any any (detection_filter:track by_src, count 2, seconds 9; sid:1;)\n\
             alert tcp any any -> any any (sid:2;)",
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "# no\nthreshold gen_id 1, sig_id 0, type limit, track by_src, \\\n count 7, seconds 60\n\
                    suppress gen_id 1, sig_id 9\nsuppress x\n";
        std::fs::write(file.path(), text).unwrap();
        let mut limits = Limits::default();
        limits.add_file(file.path(), &Variables::default()).unwrap();
        assert_eq!((limits.refusals.len(), limits.refusals[0].line), (1, 5));
        let mut used = vec![false; limits.len()];
        assert!(limits.apply(&set.rules[0], &mut used).filter.is_some());
        assert_eq!(limits.apply(&set.rules[1], &mut used).threshold.map(|t| t.count), Some(7));
        assert_eq!(limits.unused(&used).iter().map(|r| r.line).collect::<Vec<_>>(), [4]);
        let line = "threshold gen_id 1, sig_id 1, type limit, track by_src, count 8, seconds 60";
        limits.take(line, &Variables::default()).unwrap();
        let first = limits.apply(&set.rules[0], &mut [false; 3]);
        assert_eq!((first.filter, first.threshold.map(|t| t.count)), (None, Some(8)));
    }
}
