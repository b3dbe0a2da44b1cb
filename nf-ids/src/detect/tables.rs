//! A rule set, compiled: what all workers share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::buffers::BufferTables;
use super::compile::Compiled;
use super::groups::Groups;
use super::rates::Limits;
use crate::rules::{self, Action, BitCommand, Fault, Kind, Refusal, Rule, StateTest};

/// Numbers of rule sets, so that what a flow remembers of one is not taken for another's.
static GENERATION: AtomicU64 = AtomicU64::new(1);

/// A rule set, compiled.
#[derive(Debug)]
pub struct Tables {
    /// In the order in which they are asked and reported.
    pub(crate) rules: Vec<Compiled>,
    pub(crate) groups: Groups,
    pub(crate) buffers: BufferTables,
    /// Rules of addresses alone.
    pub(crate) addresses: Vec<u32>,
    /// Rules of the flow's protocol alone.
    pub(crate) protocols: Vec<u32>,
    pub(crate) generation: u64,
    /// Whether any rule is about the stream.
    pub(crate) raw: bool,
}

/// How large a compiled rule set is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Rules.
    pub rules: usize,
    /// Groups of rules by protocol, direction and port.
    pub groups: usize,
    /// Bytes of the prefilters.
    pub prefilter_bytes: usize,
}

impl Tables {
    /// Compiles rules, with those that cannot be compiled.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> (Self, Vec<Refusal>) {
        let mut refused = Vec::new();
        let mut compiled = Vec::with_capacity(rules.len());
        for rule in in_order(rules) {
            let (file, line, sid) = (rule.file.clone(), rule.line, rule.sid);
            match Compiled::new(rule) {
                Ok(rule) => compiled.push(rule),
                Err(reason) => {
                    let fault = Fault { field: "pcre".into(), reason, nearest: None };
                    refused.push(Refusal { file, line, column: 1, sid: Some(sid), fault });
                }
            }
        }
        let of = |kind: Kind| {
            let all = compiled.iter().enumerate().filter(|(_, r)| r.rule.kind == kind);
            all.map(|(at, _)| u32::try_from(at).unwrap_or(u32::MAX)).collect()
        };
        let tables = Tables {
            groups: Groups::new(&compiled),
            buffers: BufferTables::new(&compiled),
            addresses: of(Kind::IpOnly),
            protocols: of(Kind::ProtocolOnly),
            generation: GENERATION.fetch_add(1, Ordering::Relaxed),
            raw: compiled.iter().any(|r| r.payload && (r.rule.of_stream || r.is_of_transactions())),
            rules: compiled,
        };
        (tables, refused)
    }

    /// Puts threshold files in force. What is said of lines that are about no rule is returned.
    #[must_use]
    pub fn set_limits(&mut self, limits: &Limits) -> Vec<Refusal> {
        let mut used = vec![false; limits.len()];
        for rule in &mut self.rules {
            rule.limits = limits.apply(&rule.rule, &mut used);
        }
        limits.unused(&used)
    }

    /// How large it is.
    #[must_use]
    pub fn size(&self) -> Size {
        let (groups, bytes) = self.groups.size();
        Size { rules: self.rules.len(), groups, prefilter_bytes: bytes + self.buffers.memory() }
    }

    /// The rules, in the order of the counters of hits.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().map(|r| &*r.rule)
    }
}

/// The order of evaluation: by action, then rules that set bits before those that ask for them, then by
/// priority, then as they stood.
fn in_order(mut rules: Vec<Rule>) -> Vec<Rule> {
    let setters = setters(&rules);
    rules.sort_by_cached_key(|rule| {
        let action = match rule.action {
            Action::Pass => 0,
            Action::Drop => 1,
            Action::Reject(_) => 2,
            Action::Alert => 3,
        };
        (action, depth(rule, &setters), rule.priority)
    });
    rules
}

/// Names of bits, and how many steps of setting and asking lie before each.
fn setters(rules: &[Rule]) -> HashMap<String, u32> {
    let mut depths: HashMap<String, u32> = HashMap::new();
    // Bits may depend on bits; a few rounds are as deep as rule sets go, and end for rules in a circle, too.
    for _ in 0..4 {
        let mut next = depths.clone();
        for rule in rules {
            let own = depth(rule, &depths);
            for test in &rule.state {
                if let StateTest::Bit(_, BitCommand::Set | BitCommand::Toggle | BitCommand::Unset, names, _) =
                    test
                {
                    for name in names {
                        let entry = next.entry(name.to_string()).or_insert(0);
                        *entry = (*entry).max(own + 1).min(16);
                    }
                }
            }
            for name in kept(rule) {
                let entry = next.entry(name).or_insert(0);
                *entry = (*entry).max(own + 1).min(16);
            }
        }
        if next == depths {
            break;
        }
        depths = next;
    }
    depths
}

/// Names of variables that a rule's expressions keep something in.
fn kept(rule: &Rule) -> impl Iterator<Item = String> + '_ {
    let tests = rule.sections.iter().flat_map(|section| &section.tests);
    let captures = tests.filter_map(|test| match test {
        rules::Test::Pcre(pcre) => Some(&pcre.captures),
        _ => None,
    });
    captures.flatten().map(|capture| capture.name.to_string())
}

fn depth(rule: &Rule, depths: &HashMap<String, u32>) -> u32 {
    let asked = rule.state.iter().filter_map(|test| match test {
        StateTest::Bit(_, BitCommand::IsSet | BitCommand::IsNotSet, names, _) => {
            names.iter().filter_map(|n| depths.get(&**n)).max().copied()
        }
        StateTest::Counter(_, command) => {
            use rules::CounterCommand as C;
            Some(u32::from(!matches!(command, C::Set(_) | C::Add(_) | C::Subtract(_))))
        }
        StateTest::Variable { name, .. } => depths.get(&**name).copied(),
        StateTest::Bit(..) => None,
    });
    asked.max().unwrap_or(0)
}
