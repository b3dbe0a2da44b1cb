//! The rule language of our own. `README.md` is its reference.

mod change;
mod groups;
mod members;
mod rule;
mod times;

use onvm_lib::document::{Bounds, Cursor, Node, Report, Table, read_within};

use super::{Action, Format, MOST_RULES, RuleSet};
use groups::Groups;

pub(crate) use change::{At, Change, read_change};
pub(crate) use members::protocol_number;
pub(crate) use rule::parse_masked;

/// Enough for 300,000 rules with some conditions each; in memory that is half a gigabyte for a while.
const BOUNDS: Bounds = Bounds { bytes: 64 << 20, nodes: 4_000_000 };

const KEYS: [&str; 6] = ["default", "non-ip", "malformed", "stray-fragments", "groups", "rules"];

/// Reads a rule file. What is wrong goes into the report; none if nothing could be read.
pub(crate) fn read(text: &str, report: &Report) -> Option<RuleSet> {
    let root = document(text, report)?;
    let cursor = Cursor::new(&root, report);
    let table = cursor.table(&KEYS)?;
    let mut set = RuleSet::new(Format::Yaml);
    policies(&table, &mut set);
    let mut groups = Groups::of(table.get("groups").as_ref());
    groups.resolve_all(&mut set.schedules);
    let Some(rules) = table.need("rules") else { return Some(set) };
    let rules = rules.list()?;
    if rules.len() > MOST_RULES {
        cursor.error(format!("{} rules are more than {MOST_RULES}", rules.len()));
        return None;
    }
    set.rules.reserve_exact(rules.len());
    let mut names = std::collections::HashMap::new();
    for (index, cursor) in rules.iter().enumerate() {
        let Some(rule) = rule::read(cursor, index, &mut groups, &mut set.schedules) else { continue };
        if let Some(before) = names.insert(rule.name.clone(), rule.line) {
            cursor.error(format!("the rule of line {before} is called {:?}, too", rule.name));
        }
        set.rules.push(std::sync::Arc::new(rule));
    }
    Some(set)
}

/// The tree of a rule file.
pub(super) fn document(text: &str, report: &Report) -> Option<Node> {
    read_within(BOUNDS, text, report)
}

fn policies(table: &Table<'_>, set: &mut RuleSet) {
    if let Some(cursor) = table.get("default")
        && let Some(action) = rule::last_action(&cursor)
    {
        set.default = action;
    }
    let choices = [("allow", Action::Allow), ("deny", Action::Deny)];
    for (key, policy) in [
        ("non-ip", &mut set.non_ip),
        ("malformed", &mut set.malformed),
        ("stray-fragments", &mut set.stray_fragments),
    ] {
        if let Some(action) = table.get(key).and_then(|cursor| cursor.choice(&choices)) {
            *policy = action;
        }
    }
}

#[cfg(test)]
mod tests;
