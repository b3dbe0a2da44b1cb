//! Chains as one list.

use std::collections::HashMap;

use super::super::rate::{Limit, Rate};
use super::super::{Action, LogAs, MOST_RULES, Match, Rule};
use super::line::{Family, Line, Target};
use super::{Chain, Findings};

/// Chains that are entered one in another; iptables itself has bounds of this kind.
const DEEPEST: usize = 32;

/// All rules that a packet in this chain may meet, in order.
pub(super) fn flatten(
    chains: &HashMap<String, Chain>,
    chain: &str,
    family: Family,
    findings: &mut Findings<'_>,
) -> Vec<Rule> {
    let mut list = List { chains, findings, rules: Vec::new(), open: Vec::new() };
    let all = Match { source: family.all(), destination: family.all(), ..Match::any() };
    list.chain(chain, &all, "");
    let List { mut rules, findings, .. } = list;
    if rules.len() > MOST_RULES {
        findings.errors.push(format!("{}: more than {MOST_RULES} rules come of the chains", findings.file));
        rules.clear();
    }
    rules
}

struct List<'a, 'b, 'c> {
    chains: &'a HashMap<String, Chain>,
    findings: &'b mut Findings<'c>,
    rules: Vec<Rule>,
    /// Names of the chains that are being entered.
    open: Vec<String>,
}

impl List<'_, '_, '_> {
    /// Appends the rules of a chain for the packets that match `within`.
    fn chain(&mut self, name: &str, within: &Match, path: &str) {
        let Some(chain) = self.chains.get(name) else { return };
        if self.open.iter().any(|open| open == name) || self.open.len() >= DEEPEST {
            self.findings.errors.push(format!(
                "{}: the chains jump in a circle: {} → {name}",
                self.findings.file,
                self.open.join(" → ")
            ));
            return;
        }
        if self.rules.len() > MOST_RULES {
            return;
        }
        self.open.push(name.into());
        // Rules that leave the chain; where to is known when its end is.
        let mut leaving = Vec::new();
        for (index, line) in chain.rules.iter().enumerate() {
            for (part, matches) in line.matches.iter().enumerate() {
                let Some(matches) = within.and(matches) else { continue };
                let letter = if part > 0 { "b" } else { "" };
                let place = format!("{path}{name} {}{letter}", index + 1);
                self.line(line, matches, &place, &mut leaving);
            }
        }
        self.open.pop();
        let end = u32::try_from(self.rules.len()).unwrap_or(u32::MAX);
        for index in leaving {
            if let Some(rule) = self.rules.get_mut(index) {
                rule.action = Action::Skip(end);
            }
        }
    }

    fn line(&mut self, line: &Line, matches: Match, place: &str, leaving: &mut Vec<usize>) {
        let name = match &line.comment {
            Some(comment) => format!("{place} ({comment})"),
            None => place.to_string(),
        };
        let mut rule = Rule::new(name, line.number, Action::Continue);
        match &line.target {
            Target::Jump(to) | Target::Goto(to) => {
                if line.limit.is_some() {
                    let text = format!("left out, a limit on the way into the chain {to}");
                    self.findings.leave_out(line.number, text);
                    return;
                }
                self.chain(to, &matches, &format!("{place} > "));
                if matches!(line.target, Target::Goto(_)) {
                    // Who went does not come back: the chain that it went from is over.
                    leaving.push(self.rules.len());
                    self.rules.push(Rule { matches, ..rule });
                }
                return;
            }
            Target::Count => {}
            Target::Accept => rule.action = Action::Allow,
            Target::Drop => rule.action = Action::Deny,
            Target::Reject(with) => rule.action = Action::Reject(*with),
            Target::Return => leaving.push(self.rules.len()),
            Target::Mark(mark) => rule.set_mark = Some(*mark),
            Target::Log(prefix) => rule.log = Some(LogAs { prefix: prefix.clone(), limit: log_limit(line) }),
        }
        self.rules.push(Rule { matches, limit: line.limit, ..rule });
    }
}

/// A rule with a limit of its own logs what that lets through; the others are kept from filling the disk.
fn log_limit(line: &Line) -> Limit {
    let per_second = if line.limit.is_some() { 100_000.0 } else { 100.0 };
    Limit::of(Rate { unit: super::super::rate::Unit::Packets, per_second })
}
