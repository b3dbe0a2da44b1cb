//! Named groups, which may name each other.

use std::collections::HashMap;

use onvm_lib::document::{Cursor, Key, Value};

use super::super::addresses::Addresses;
use super::super::ranges::{Number, Ranges};
use super::super::schedule::Schedule;
use super::{members, times};

/// What a list of members adds up to.
pub(super) trait Set: Clone {
    fn nothing() -> Self;
    fn everything() -> Self;
    fn with(&self, other: &Self) -> Self;
    fn minus(&self, other: &Self) -> Self;
    fn holds_nothing(&self) -> bool;
}

impl Set for Addresses {
    fn nothing() -> Self {
        Self::none()
    }
    fn everything() -> Self {
        Self::all()
    }
    fn with(&self, other: &Self) -> Self {
        self.union(other)
    }
    fn minus(&self, other: &Self) -> Self {
        self.without(other)
    }
    fn holds_nothing(&self) -> bool {
        self.is_empty()
    }
}

impl<T: Number> Set for Ranges<T> {
    fn nothing() -> Self {
        Self::none()
    }
    fn everything() -> Self {
        Self::all()
    }
    fn with(&self, other: &Self) -> Self {
        self.union(other)
    }
    fn minus(&self, other: &Self) -> Self {
        self.without(other)
    }
    fn holds_nothing(&self) -> bool {
        self.is_empty()
    }
}

/// Groups and lists within each other, at most: each takes room on the stack.
const DEEPEST: usize = 64;

/// Reads one member that is no group; warns through the cursor.
pub(super) type Parse<S> = fn(&str, &Cursor<'_>) -> Result<S, String>;

/// Groups of one kind.
pub(super) struct Named<'a, S> {
    parse: Parse<S>,
    entries: HashMap<&'a str, Cursor<'a>>,
    /// None for those with mistakes, which are told already.
    done: HashMap<&'a str, Option<S>>,
    /// Those being resolved, the outermost first.
    open: Vec<&'a str>,
    /// Groups and lists that are being read.
    depth: usize,
}

impl<'a, S: Set> Named<'a, S> {
    fn of(table: Option<Cursor<'a>>, parse: Parse<S>) -> Self {
        let mut entries = HashMap::new();
        let all = table.and_then(|cursor| cursor.entries()).unwrap_or_default();
        for (key, cursor) in all {
            if is_name(key) {
                entries.insert(key.text.as_str(), cursor);
            } else {
                cursor.key_error(key, "a group's name begins with a letter; letters, digits, _ . - follow");
            }
        }
        Self { parse, entries, done: HashMap::new(), open: Vec::new(), depth: 0 }
    }

    fn resolve_all(&mut self) {
        let mut names: Vec<&'a str> = self.entries.keys().copied().collect();
        names.sort_unstable();
        for name in names {
            self.group(name);
        }
    }

    /// What a group holds, if it is right.
    fn group(&mut self, name: &'a str) -> Option<S> {
        if let Some(done) = self.done.get(name) {
            return done.clone();
        }
        let cursor = self.entries.get(name)?.clone();
        if let Some(from) = self.open.iter().position(|open| *open == name) {
            let mut circle = self.open[from..].to_vec();
            circle.push(name);
            cursor.error(format!("the group holds itself: {}", circle.join(" → ")));
            return None;
        }
        self.open.push(name);
        let set = self.set(&cursor);
        self.open.pop();
        self.done.insert(name, set.clone());
        set
    }

    /// What a value or a list of values holds: all that it names, or everything if it only names exceptions, without
    /// the exceptions. None if something is wrong with it.
    pub(super) fn set(&mut self, cursor: &Cursor<'a>) -> Option<S> {
        if self.depth == DEEPEST {
            cursor.error(format!("groups and lists are nested deeper than {DEEPEST}"));
            return None;
        }
        self.depth += 1;
        let set = self.members(cursor);
        self.depth -= 1;
        set
    }

    fn members(&mut self, cursor: &Cursor<'a>) -> Option<S> {
        let (mut with, mut without) = (None::<S>, None::<S>);
        let mut right = true;
        for member in cursor.one_or_many() {
            if matches!(member.node().value, Value::List(_)) {
                // An alias of a list stands for its members.
                match self.set(&member) {
                    Some(set) => with = Some(with.map_or(set.clone(), |all| all.with(&set))),
                    None => right = false,
                }
                continue;
            }
            let Some(text) = member.text() else {
                right = false;
                continue;
            };
            for word in text.split(',').map(str::trim) {
                let (word, negated) = match word.strip_prefix("not ").or_else(|| word.strip_prefix('!')) {
                    Some(word) => (word.trim(), true),
                    None => (word, false),
                };
                let Some(set) = self.word(word, &member) else {
                    right = false;
                    continue;
                };
                let all = if negated { &mut without } else { &mut with };
                *all = Some(all.as_ref().map_or(set.clone(), |all| all.with(&set)));
            }
        }
        if !right {
            return None;
        }
        let with = match (with, &without) {
            (Some(with), _) => with,
            (None, Some(_)) => S::everything(),
            (None, None) => S::nothing(),
        };
        let set = without.map_or_else(|| with.clone(), |without| with.minus(&without));
        if set.holds_nothing() {
            if matches!(&cursor.node().value, Value::List(all) if all.is_empty()) {
                // That the list is empty has been told.
                return None;
            }
            cursor.error("nothing is left of this");
            return None;
        }
        Some(set)
    }

    fn word(&mut self, word: &'a str, member: &Cursor<'a>) -> Option<S> {
        if word == "any" {
            return Some(S::everything());
        }
        if self.entries.contains_key(word) {
            return self.group(word);
        }
        match (self.parse)(word, member) {
            Ok(set) => Some(set),
            Err(reason) => {
                let known: Vec<&str> = self.entries.keys().copied().collect();
                let near = if is_word(word) { onvm_lib::document::nearest(word, known) } else { None };
                member.error(match near {
                    Some(near) => format!("{reason}, nor a group; did you mean {near:?}?"),
                    None if is_word(word) => format!("{reason}, nor a group"),
                    None => reason,
                });
                None
            }
        }
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic())
}

fn is_name(key: &Key) -> bool {
    let rest = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-');
    is_word(&key.text)
        && key.text.chars().all(rest)
        && !matches!(key.text.as_str(), "any" | "not" | "ipv4" | "ipv6")
}

/// All named groups of a file.
pub(super) struct Groups<'a> {
    pub(super) addresses: Named<'a, Addresses>,
    pub(super) ports: Named<'a, Ranges<u16>>,
    pub(super) protocols: Named<'a, Ranges<u8>>,
    pub(super) vlans: Named<'a, Ranges<u16>>,
    pub(super) in_ports: Named<'a, Ranges<u8>>,
    /// Cursor and, once read, index of the schedule.
    pub(super) times: HashMap<&'a str, (Cursor<'a>, Option<u16>)>,
}

impl<'a> Groups<'a> {
    pub(super) fn of(cursor: Option<&Cursor<'a>>) -> Self {
        let table =
            cursor.and_then(|c| c.table(&["addresses", "ports", "protocols", "vlans", "in-ports", "times"]));
        let kind = |name: &str| table.as_ref().and_then(|table| table.get(name));
        let times = kind("times").and_then(|cursor| cursor.entries()).unwrap_or_default();
        Self {
            addresses: Named::of(kind("addresses"), members::address),
            ports: Named::of(kind("ports"), members::port),
            protocols: Named::of(kind("protocols"), members::protocol),
            vlans: Named::of(kind("vlans"), members::vlan),
            in_ports: Named::of(kind("in-ports"), members::in_port),
            times: times.into_iter().map(|(key, cursor)| (key.text.as_str(), (cursor, None))).collect(),
        }
    }

    /// Looks at all groups, also at those that no rule names, so that their mistakes are told.
    pub(super) fn resolve_all(&mut self, schedules: &mut Vec<Schedule>) {
        self.addresses.resolve_all();
        self.ports.resolve_all();
        self.protocols.resolve_all();
        self.vlans.resolve_all();
        self.in_ports.resolve_all();
        let mut names: Vec<&'a str> = self.times.keys().copied().collect();
        names.sort_unstable();
        for name in names {
            if let Some((cursor, index)) = self.times.get_mut(name) {
                *index = times::read(cursor).and_then(|schedule| times::add(schedule, schedules, cursor));
            }
        }
    }
}
