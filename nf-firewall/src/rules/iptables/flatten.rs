//! Chains as one list.
//!
//! A rule of a chain that is jumped into asks for what the jump asks for, too. That says the same as asking once, at the
//! jump, as long as nothing on the way changes what is asked for; only marks change. So a jump that asks for a
//! mark, into a chain that may set one, stays a rule by itself, and those that it does not match skip the chain.

use std::collections::{HashMap, HashSet};

use super::super::rate::{Limit, Rate};
use super::super::{Action, LogAs, MOST_RULES, Match, Rule};
use super::family::Family;
use super::line::{Line, Target};
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
    if size(chains, chain) > MOST_RULES {
        findings.errors.push(format!(
            "{}: more than {MOST_RULES} rules come of the chain {chain}: chains jump into each other too often, or in a \
             circle",
            findings.file
        ));
        return Vec::new();
    }
    let marking = marking(chains);
    let mut list = List { chains, marking, findings, rules: Vec::new(), open: Vec::new() };
    let all = Match { source: family.all(), destination: family.all(), ..Match::any() };
    list.chain(chain, &all, "");
    list.rules
}

/// Chains that a line may jump into.
fn next(line: &Line) -> Option<&str> {
    match &line.target {
        Target::Jump(to) | Target::Goto(to) => Some(to),
        _ => None,
    }
}

/// So many rules and entries of chains come of a chain at most; without entering it, as that may take for ever.
fn size(chains: &HashMap<String, Chain>, chain: &str) -> usize {
    /// Rules that a jump itself becomes.
    const JUMP: usize = 3;
    let mut sizes: HashMap<&str, usize> = HashMap::new();
    // Each round looks one jump deeper.
    for _ in 0..=DEEPEST {
        let of = |line: &Line| {
            let inside = next(line).map_or(1, |to| sizes.get(to).copied().unwrap_or(0).saturating_add(JUMP));
            inside.saturating_mul(line.matches.len())
        };
        let all = |chain: &Chain| chain.rules.iter().map(of).fold(1, usize::saturating_add);
        let round = chains.iter().map(|(name, chain)| (name.as_str(), all(chain))).collect();
        if round == sizes {
            break;
        }
        sizes = round;
    }
    sizes.get(chain).copied().unwrap_or(0)
}

/// Chains in which a mark may be set, by themselves or by those that they jump into.
fn marking(chains: &HashMap<String, Chain>) -> HashSet<String> {
    let mut marking: HashSet<String> = HashSet::new();
    for _ in 0..=DEEPEST {
        let marks = |line: &Line| {
            matches!(line.target, Target::Mark(_)) || next(line).is_some_and(|to| marking.contains(to))
        };
        let all = chains.iter().filter(|(_, chain)| chain.rules.iter().any(marks));
        let more: HashSet<String> = all.map(|(name, _)| name.clone()).collect();
        // It only grows.
        if more.len() == marking.len() {
            break;
        }
        marking = more;
    }
    marking
}

struct List<'a, 'b, 'c> {
    chains: &'a HashMap<String, Chain>,
    /// Chains in which a mark may be set.
    marking: HashSet<String>,
    findings: &'b mut Findings<'c>,
    rules: Vec<Rule>,
    /// Names of the chains that are being entered.
    open: Vec<String>,
}

impl List<'_, '_, '_> {
    /// Appends the rules of a chain for the packets that match `within`.
    fn chain(&mut self, name: &str, within: &Match, path: &str) {
        let Some(chain) = self.chains.get(name) else { return };
        let circle = self.open.iter().any(|open| open == name);
        if circle || self.open.len() >= DEEPEST {
            let what =
                if circle { "jump in a circle".into() } else { format!("are nested deeper than {DEEPEST}") };
            let way = self.open.join(" → ");
            self.findings.errors.push(format!("{}: the chains {what}: {way} → {name}", self.findings.file));
            return;
        }
        self.open.push(name.into());
        // Rules that leave the chain; where to is known when its end is.
        let mut leaving = Vec::new();
        for (index, line) in chain.rules.iter().enumerate() {
            for (part, matches) in line.matches.iter().enumerate() {
                if matches.time.is_some() && within.time.is_some() && matches.time != within.time {
                    let text = "left out, it holds at some hours, and the jump that leads here at others";
                    self.findings.leave_out(line.number, text);
                    continue;
                }
                let Some(matches) = within.and(matches) else { continue };
                let letter = if part > 0 { "b" } else { "" };
                let place = format!("{path}{name} {}{letter}", index + 1);
                self.line(line, matches, &place, &mut leaving);
            }
        }
        self.open.pop();
        for index in leaving {
            self.skip_to_end(index);
        }
    }

    /// The rule at `index` goes on after all those that there are.
    fn skip_to_end(&mut self, index: usize) {
        let end = u32::try_from(self.rules.len()).unwrap_or(u32::MAX);
        if let Some(rule) = self.rules.get_mut(index) {
            rule.action = Action::Skip(end);
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
                self.jump(line, to, Rule { matches, ..rule }, place, leaving);
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

    /// The rules of a chain that a line jumps into; `rule` has what the line asks for.
    fn jump(&mut self, line: &Line, to: &str, mut rule: Rule, place: &str, leaving: &mut Vec<usize>) {
        let mut over = None;
        if rule.matches.mark.is_some() && self.marking.contains(to) {
            let first = u32::try_from(self.rules.len() + 2).unwrap_or(u32::MAX);
            let name = format!("{} (otherwise)", rule.name);
            self.rules.push(Rule { action: Action::Skip(first), ..rule.clone() });
            over = Some(self.rules.len());
            self.rules.push(Rule::new(name, line.number, Action::Continue));
            rule.matches.mark = None;
        }
        self.chain(to, &rule.matches, &format!("{place} > "));
        if matches!(line.target, Target::Goto(_)) {
            // Who went does not come back: the chain that it went from is over.
            leaving.push(self.rules.len());
            self.rules.push(rule);
        }
        if let Some(index) = over {
            self.skip_to_end(index);
        }
    }
}

/// A rule with a limit of its own logs what that lets through; the others are kept from filling the disk.
fn log_limit(line: &Line) -> Limit {
    let per_second = if line.limit.is_some() { 100_000.0 } else { 100.0 };
    Limit::of(Rate { unit: super::super::rate::Unit::Packets, per_second })
}
