//! The change of a single rule, as a message says it.

use onvm_lib::document::{Cursor, Report};

use super::super::schedule::Schedule;
use super::super::{Rule, RuleSet};
use super::groups::Groups;
use super::{document, rule};

const KEYS: [&str; 6] = ["insert", "before", "after", "replace", "with", "remove"];

/// Where a rule is put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum At {
    End,
    Before(String),
    After(String),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Insert(At, Rule),
    /// The rule of this name gives its place to another one.
    Replace(String, Rule),
    Remove(String),
}

/// Reads `{"insert": {...}, "before": "web"}`, `{"replace": "web", "with": {...}}` or `{"remove": "web"}`, and the times
/// that the set then has. Names of groups are the file's and not known here.
///
/// # Errors
/// What is wrong with it, a line each.
pub(crate) fn read_change(body: &str, set: &RuleSet) -> Result<(Change, Vec<Schedule>), String> {
    let report = Report::new("rule");
    let mut schedules = set.schedules.clone();
    let change = change(body, &report, &mut schedules);
    match change.filter(|_| !report.has_errors()) {
        Some(change) => Ok((change, schedules)),
        None => Err(report.to_string().trim_end().to_string()),
    }
}

fn change(body: &str, report: &Report, schedules: &mut Vec<Schedule>) -> Option<Change> {
    // JSON is YAML.
    let root = document(body, report)?;
    let cursor = Cursor::new(&root, report);
    let table = cursor.table(&KEYS)?;
    let name = |key: &str| table.get(key).and_then(|cursor| cursor.text()).map(str::to_string);
    let mut read = |cursor: &Cursor<'_>| rule::read(cursor, 0, &mut Groups::of(None), schedules);
    let there: Vec<&str> = KEYS.into_iter().filter(|key| table.get(key).is_some()).collect();
    match there[..] {
        ["insert"] | ["insert", "before" | "after"] => {
            let wanted = table.get("insert")?;
            if wanted.value_of("name").is_none() {
                wanted.error("a rule that is inserted needs a name");
            }
            let at = match (name("before"), name("after")) {
                (Some(before), _) => At::Before(before),
                (_, Some(after)) => At::After(after),
                _ => At::End,
            };
            Some(Change::Insert(at, read(&wanted)?))
        }
        ["replace", "with"] => {
            let (old, with) = (name("replace")?, table.get("with")?);
            let mut rule = read(&with)?;
            if with.value_of("name").is_none() {
                rule.name.clone_from(&old);
            }
            Some(Change::Replace(old, rule))
        }
        ["remove"] => name("remove").map(Change::Remove),
        _ => {
            cursor.error("needed is \"insert\" (with \"before\" or \"after\"), \"replace\" and \"with\", or \"remove\"");
            None
        }
    }
}
