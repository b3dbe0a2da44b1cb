//! A rule, ready to be asked.

use std::sync::Arc;

use super::bits::{Action, Condition};
use super::chain::Chain;
use super::rates::RuleLimits;
use super::transform;
use crate::app::Protocol as Application;
use crate::rules::{Arrow, Content, Kind, Place, Protocol, Rule, Section, Test, Way};

/// A section, ready to be asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) place: Place,
    pub(crate) transforms: Vec<transform::Step>,
    pub(crate) chain: Chain,
    pub(crate) way: Option<Way>,
}

/// A rule, ready to be asked.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    pub(crate) rule: Arc<Rule>,
    /// `gid` and `sid` in one.
    pub(crate) id: u64,
    /// Protocols that the flow must have; empty: any.
    pub(crate) applications: &'static [Application],
    pub(crate) sections: Vec<Asked>,
    /// Sections of `base64_data`.
    pub(crate) base64: Vec<Chain>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) actions: Vec<Action>,
    pub(crate) limits: RuleLimits,
    /// Whether any section is of the payload.
    pub(crate) payload: bool,
    /// Whether all of it is asked anew each time: what one part has found is asked for by another, or is kept.
    pub(crate) anew: bool,
    /// Whether it changes sets of values when it is asked.
    pub(crate) fills: bool,
}

/// What the prefilter looks for, for one rule.
#[derive(Clone, Debug)]
pub(crate) struct FastPattern {
    /// Section of the rule.
    pub(crate) section: usize,
    pub(crate) bytes: Vec<u8>,
    pub(crate) nocase: bool,
}

impl Compiled {
    /// Compiles; the reason if an expression is not one that PCRE2 takes.
    pub(crate) fn new(rule: Rule) -> Result<Self, String> {
        let (mut sections, mut base64) = (Vec::new(), Vec::new());
        for section in &rule.sections {
            let chain = Chain::new(section)?;
            if section.place == Place::Base64 {
                base64.push(chain);
                continue;
            }
            let transforms: Result<Vec<_>, String> =
                section.transforms.iter().map(transform::Step::new).collect();
            sections.push(Asked { place: section.place, transforms: transforms?, chain, way: section.way });
        }
        let applications = match rule.protocol {
            Protocol::App(name) => Application::by_rule_name(name),
            _ => &[],
        };
        let payload = sections.iter().any(|s| s.place == Place::Payload);
        Ok(Compiled {
            id: u64::from(rule.gid) << 32 | u64::from(rule.sid),
            applications,
            sections,
            base64,
            conditions: rule.state.iter().filter_map(Condition::of).collect(),
            actions: rule.state.iter().filter_map(Action::of).collect(),
            payload,
            anew: rule.variables > 0
                || rule.any_test(|test| matches!(test, Test::Pcre(pcre) if !pcre.captures.is_empty())),
            fills: rule.any_test(|test| matches!(test, Test::Set(asked) if asked.changes())),
            limits: RuleLimits::of(&rule),
            rule: Arc::new(rule),
        })
    }

    /// Whether it is evaluated with transactions.
    pub(crate) fn is_of_transactions(&self) -> bool {
        self.rule.kind == Kind::Transaction
    }

    /// Whether it is about request and response together.
    pub(crate) fn is_of_both_ways(&self) -> bool {
        self.rule.arrow == Arrow::Transaction
    }
}

/// How good a content is for the prefilter: long ones of unusual bytes.
fn strength(content: &Content) -> u32 {
    let mut seen = [false; 256];
    let mut sum = 0;
    for byte in &content.pattern {
        let byte = byte.to_ascii_lowercase();
        let known = std::mem::replace(&mut seen[usize::from(byte)], true);
        sum += match byte {
            _ if known => 1,
            0 | 0xff | b' ' => 2,
            b'a'..=b'z' | b'0'..=b'9' => 3,
            b'!'..=b'~' | b'\r' | b'\n' | 1 => 4,
            _ => 6,
        };
    }
    sum
}

/// The content that the prefilter looks for: the one that the rule names, else the strongest; buffers of transactions come
/// before the payload, as what is searched there is shorter and surer.
pub(crate) fn choose(rule: &Rule) -> Option<FastPattern> {
    let transaction = rule.kind == Kind::Transaction;
    let usable = |section: &Section| match section.place {
        Place::App(_) => true,
        Place::Payload => !transaction,
        _ => false,
    };
    let mut best: Option<(u32, FastPattern)> = None;
    for (index, section) in rule.sections.iter().enumerate().filter(|(_, s)| usable(s)) {
        for (at, test) in section.tests.iter().enumerate() {
            let Test::Content(content) = test else { continue };
            if content.negated || section.tests.iter().any(|t| matches!(t, Test::Absent(_))) {
                continue;
            }
            let named = section.fast.filter(|f| f.test == at);
            let (from, length) = named.map_or((0, content.pattern.len()), |f| (f.from, f.length));
            let score = if named.is_some() { u32::MAX } else { strength(content) };
            if best.as_ref().is_none_or(|(before, _)| score > *before) {
                let bytes = content.pattern.get(from..from + length).unwrap_or(&content.pattern).to_vec();
                best = Some((score, FastPattern { section: index, bytes, nocase: content.nocase }));
            }
        }
    }
    best.map(|(_, pattern)| pattern)
}
