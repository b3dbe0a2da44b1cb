//! What `iptables-save` and `ip6tables-save` print, as rules.
//!
//! One built-in chain of the table `filter` becomes the list of rules. A jump into a chain is the chain's rules, each
//! with the jump's conditions added; RETURN goes on after them ([`Action::Skip`]), so that order
//! and meaning are those of the chains. What has no counterpart is named, with its line, and left out.

mod flatten;
mod line;
mod words;

use std::collections::HashMap;
use std::str::FromStr;

use super::load::Loaded;
use super::{Action, Format, RuleSet};
use line::{Family, Line, Target};

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
    fn error(&mut self, line: usize, what: impl std::fmt::Display) {
        self.errors.push(format!("{}:{line}: {what}", self.file));
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
    let family = family(text);
    let chains = chains(text, family, choices, &mut findings);
    let wanted = if choices.chain.is_empty() { "FORWARD" } else { &choices.chain };
    let mut set = RuleSet::new(Format::Iptables);
    match chains.get(wanted) {
        None if findings.errors.is_empty() => {
            let known: Vec<&str> = chains.keys().map(String::as_str).collect();
            let near = onvm_lib::document::nearest(wanted, known);
            let near = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
            findings.errors.push(format!("{file}: the table filter has no chain {wanted:?}{near}"));
        }
        None => {}
        Some(chain) => {
            // A chain of the user's returns to nobody: what it does not decide is denied.
            set.default = chain.policy.unwrap_or(Action::Deny);
            set.rules = flatten::flatten(&chains, wanted, family, &mut findings);
        }
    }
    if choices.strict {
        findings.errors.append(&mut findings.left_out);
    }
    if findings.errors.is_empty() {
        Ok(Loaded { set, warnings: findings.left_out })
    } else {
        Err(findings.errors.join("\n"))
    }
}

/// Which of the two programs wrote the file: the comment says so, or its addresses and protocols do.
fn family(text: &str) -> Family {
    let six = text.lines().any(|line| {
        let line = line.trim_start();
        line.starts_with('#') && line.contains("ip6tables-save")
            || line.starts_with("-A") && (line.contains("ipv6-icmp") || line.contains("icmp6-"))
    });
    if six { Family::V6 } else { Family::V4 }
}

fn chains(
    text: &str,
    family: Family,
    choices: &Choices,
    findings: &mut Findings<'_>,
) -> HashMap<String, Chain> {
    let mut chains: HashMap<String, Chain> = HashMap::new();
    let mut table = String::new();
    let mut others = 0;
    for (index, line) in text.lines().enumerate() {
        let (number, line) = (index + 1, line.trim());
        if line.is_empty() || line.starts_with('#') || line == "COMMIT" {
            continue;
        }
        if let Some(name) = line.strip_prefix('*') {
            table = name.trim().to_string();
            continue;
        }
        if table.is_empty() {
            findings.error(number, "a table begins with a line like *filter");
            return chains;
        }
        if table != "filter" {
            // Only what does something is missed.
            if line.starts_with("-A") || line.starts_with('[') {
                others += 1;
                findings.leave_out(number, format!("the table {table} is not read: {line}"));
            }
            continue;
        }
        if let Some(rest) = line.strip_prefix(':') {
            let mut words = rest.split_whitespace();
            let (name, policy) = (words.next().unwrap_or_default(), words.next().unwrap_or("-"));
            let policy = match policy {
                "ACCEPT" => Some(Action::Allow),
                "DROP" => Some(Action::Deny),
                "-" => None,
                other => {
                    findings.error(number, format!("{other:?} is not a policy: ACCEPT, DROP or -"));
                    None
                }
            };
            chains.insert(name.into(), Chain { policy, rules: Vec::new() });
            continue;
        }
        match line::parse(line, number, family, &choices.interfaces) {
            Ok(parsed) => {
                if let Some(why) = &parsed.inexpressible {
                    findings.leave_out(number, format!("left out, {why}: {line}"));
                } else if let Some(chain) = chains.get_mut(&parsed.chain) {
                    chain.rules.push(parsed);
                } else {
                    findings.error(number, format!("there is no chain {:?}", parsed.chain));
                }
            }
            Err(what) => findings.error(number, what),
        }
    }
    log::debug!("{others} rules of other tables are not read");
    for chain in chains.values() {
        for rule in &chain.rules {
            if let Target::Jump(to) | Target::Goto(to) = &rule.target
                && !chains.contains_key(to)
            {
                findings.error(rule.number, format!("there is no chain and no target {to:?}"));
            }
        }
    }
    chains
}

#[cfg(test)]
mod tests;
