//! What `iptables-save` and `ip6tables-save` print, as rules.
//!
//! One built-in chain of the table `filter` becomes the list of rules. A jump into a chain is the chain's rules, each
//! with the jump's conditions added; RETURN goes on after them ([`Action::Skip`]), so that order
//! and meaning are those of the chains. What has no counterpart is named, with its line, and left out.

mod family;
mod flatten;
mod line;
mod names;
mod time;
mod words;

use std::collections::HashMap;
use std::str::FromStr;

use super::load::Loaded;
use super::schedule::{self, Schedule};
use super::{Action, Format, RuleSet};
use family::Family;
use line::{Line, Target};
use names::TARGETS;

/// An interface and the input port that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) port: u8,
}

impl FromStr for Interface {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, port) = text.split_once('=').ok_or_else(|| format!("{text:?} is not like eth0=0"))?;
        let port = port.parse().ok().filter(|port: &u8| *port <= 126);
        let port = port.ok_or_else(|| format!("the port of {text:?} is not a number of 0..=126"))?;
        if name.is_empty() {
            return Err(format!("{text:?} names no interface"));
        }
        Ok(Self { name: name.into(), port })
    }
}

/// What the command line says of such a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choices {
    pub(crate) chain: String,
    pub(crate) interfaces: Vec<Interface>,
    /// What cannot be expressed is an error.
    pub(crate) strict: bool,
}

/// A chain as it stands in the file.
#[derive(Debug, Default)]
struct Chain {
    /// None for those that users made.
    policy: Option<Action>,
    rules: Vec<Line>,
}

/// What is found while reading.
#[derive(Debug)]
struct Findings<'a> {
    file: &'a str,
    errors: Vec<String>,
    /// What cannot be expressed.
    left_out: Vec<String>,
}

impl Findings<'_> {
    fn error(&mut self, line: usize, column: usize, what: impl std::fmt::Display) {
        self.errors.push(format!("{}:{line}:{column}: {what}", self.file));
    }

    fn leave_out(&mut self, line: usize, what: impl std::fmt::Display) {
        self.left_out.push(format!("{}:{line}: {what}", self.file));
    }
}

/// Reads a file.
///
/// # Errors
/// All that is wrong with it; with `strict` also what cannot be expressed.
pub(crate) fn read(file: &str, text: &str, choices: &Choices) -> Result<Loaded, String> {
    let mut findings = Findings { file, errors: Vec::new(), left_out: Vec::new() };
    let family = family::of(text);
    let mut schedules = Vec::new();
    let chains = chains(text, family, choices, &mut schedules, &mut findings);
    let wanted = if choices.chain.is_empty() { "FORWARD" } else { &choices.chain };
    let mut set = RuleSet::new(Format::Iptables);
    match chains.get(wanted) {
        None if findings.errors.is_empty() => {
            let near = near(wanted, chains.keys().map(String::as_str));
            findings.errors.push(format!("{file}: the table filter has no chain {wanted:?}{near}"));
        }
        None => {}
        Some(chain) => {
            // A chain of the user's returns to nobody: what it does not decide is denied.
            set.default = chain.policy.unwrap_or(Action::Deny);
            let rules = flatten::flatten(&chains, wanted, family, &mut findings);
            set.rules = rules.into_iter().map(std::sync::Arc::new).collect();
            set.schedules = schedules;
        }
    }
    if choices.strict {
        findings.errors.append(&mut findings.left_out);
    }
    if findings.errors.is_empty() {
        Ok(Loaded { set, warnings: findings.left_out })
    } else {
        // What is left out is as important to who puts the mistakes right.
        findings.errors.append(&mut findings.left_out);
        Err(findings.errors.join("\n"))
    }
}

fn chains(
    text: &str,
    family: Family,
    choices: &Choices,
    schedules: &mut Vec<Schedule>,
    findings: &mut Findings<'_>,
) -> HashMap<String, Chain> {
    let mut chains: HashMap<String, Chain> = HashMap::new();
    let mut table = String::new();
    for (index, line) in text.lines().enumerate() {
        let (number, whole, line) = (index + 1, line, line.trim());
        if line.is_empty() || line.starts_with('#') || line == "COMMIT" {
            continue;
        }
        if let Some(name) = line.strip_prefix('*') {
            table = name.trim().to_string();
            continue;
        }
        if table.is_empty() {
            findings.error(number, 1, "a table begins with a line like *filter");
            return chains;
        }
        if table != "filter" {
            // Only what does something is missed.
            if line.starts_with("-A") || line.starts_with('[') {
                findings.leave_out(number, format!("the table {table} is not read: {line}"));
            }
            continue;
        }
        if let Some(rest) = line.strip_prefix(':') {
            declare(rest, number, &mut chains, findings);
            continue;
        }
        match line::parse(whole, number, family, &choices.interfaces) {
            Ok(parsed) => {
                if let Some(why) = &parsed.inexpressible {
                    findings.leave_out(number, format!("left out, {why}: {line}"));
                } else if parsed.matches.is_empty() {
                    findings.leave_out(number, format!("left out, no packet matches it: {line}"));
                } else if let Some(chain) = chains.get_mut(&parsed.chain) {
                    match timed(parsed, schedules) {
                        Some(timed) => chain.rules.push(timed),
                        None => {
                            findings.leave_out(number, format!("left out, there are too many times: {line}"));
                        }
                    }
                } else {
                    let near = near(&parsed.chain, chains.keys().map(String::as_str));
                    findings.error(number, 1, format!("there is no chain {:?}{near}", parsed.chain));
                }
            }
            Err((column, what)) => findings.error(number, column, what),
        }
    }
    let mut rules: Vec<&Line> = chains.values().flat_map(|chain| &chain.rules).collect();
    rules.sort_unstable_by_key(|rule| rule.number);
    for rule in rules {
        if let Target::Jump(to) | Target::Goto(to) = &rule.target
            && !chains.contains_key(to)
        {
            let near = near(to, chains.keys().map(String::as_str).chain(TARGETS));
            let message = format!("there is no chain and no target {to:?}{near}");
            findings.error(rule.number, rule.column, message);
        }
    }
    chains
}

/// A line like `:FORWARD DROP [0:0]`, without the colon.
fn declare(rest: &str, number: usize, chains: &mut HashMap<String, Chain>, findings: &mut Findings<'_>) {
    let mut words = rest.split_whitespace();
    let (name, policy) = (words.next().unwrap_or_default(), words.next().unwrap_or("-"));
    let policy = match policy {
        "ACCEPT" => Some(Action::Allow),
        "DROP" => Some(Action::Deny),
        "-" => None,
        other => {
            let near = near(other, ["ACCEPT", "DROP"]);
            findings.error(number, 1, format!("{other:?} is not a policy: ACCEPT, DROP or -{near}"));
            None
        }
    };
    chains.insert(name.into(), Chain { policy, rules: Vec::new() });
}

/// The line with its time among those of the set; none if there are too many.
fn timed(mut line: Line, schedules: &mut Vec<Schedule>) -> Option<Line> {
    if let Some(schedule) = line.time.take() {
        let index = schedule::add(schedule, schedules)?;
        line.matches.iter_mut().for_each(|one| one.time = Some(index));
    }
    Some(line)
}

/// `; did you mean "ACCEPT"?`, or nothing.
fn near<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    onvm_lib::document::nearest(word, known).map_or(String::new(), |near| format!("; did you mean {near:?}?"))
}

#[cfg(test)]
mod tests;
