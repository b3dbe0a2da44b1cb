//! Typed access to a tree. What is not as wanted goes into the report, and is none.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::report::{Report, Severity};
use super::{Key, Node, Place, Value, duration, joined, nearest, shortened};

/// A place in a tree, and the report for what is wrong there.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    node: &'a Node,
    report: &'a Report,
    path: String,
}

impl<'a> Cursor<'a> {
    /// At the root.
    #[must_use]
    pub fn new(root: &'a Node, report: &'a Report) -> Self {
        Self { node: root, report, path: String::new() }
    }

    /// The value itself.
    #[must_use]
    pub fn node(&self) -> &'a Node {
        self.node
    }

    /// Where it stands.
    #[must_use]
    pub fn place(&self) -> Place {
        self.node.place
    }

    /// Keys that lead here.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Something is wrong with this value.
    pub fn error(&self, message: impl Into<String>) {
        self.report.add(Severity::Error, Some(self.node.place), &self.path, message);
    }

    /// This value is probably not what was meant.
    pub fn warn(&self, message: impl Into<String>) {
        self.report.add(Severity::Warning, Some(self.node.place), &self.path, message);
    }

    /// Something is wrong with the key of this value.
    pub fn key_error(&self, key: &Key, message: impl Into<String>) {
        self.report.add(Severity::Error, Some(key.place), &self.path, message);
    }

    /// The value of one key, if this is a mapping with it and it is not empty. Other keys are not looked at.
    #[must_use]
    pub fn value_of(&self, key: &str) -> Option<Self> {
        let Value::Mapping(entries) = &self.node.value else { return None };
        Table { cursor: self.clone(), entries }.get(key)
    }

    fn wants(&self, what: &str) {
        self.error(format!("{what} is needed, not {}", self.node.value.described()));
    }

    /// A mapping with these keys; others are errors, and so is one of these without a value (`key:`): what was meant
    /// to narrow something would leave it open. Nothing is an empty mapping.
    #[must_use]
    pub fn table(&self, known: &[&str]) -> Option<Table<'a>> {
        let entries = self.mapping()?;
        let unknown = entries.iter().filter(|(key, _)| !known.contains(&key.text.as_str()));
        for (key, _) in unknown.take(Report::MOST) {
            let message = match nearest(&key.text, known.iter().copied()) {
                Some(near) => format!("unknown key; did you mean {near:?}?"),
                None => format!("unknown key; keys are {}", known.join(", ")),
            };
            let path = joined(&self.path, &key.text);
            self.report.add(Severity::Error, Some(key.place), &path, message);
        }
        for (key, node) in entries {
            if node.value == Value::Null && known.contains(&key.text.as_str()) {
                let path = joined(&self.path, &key.text);
                let message = "this key has no value; give it one, or leave the key out";
                self.report.add(Severity::Error, Some(key.place), &path, message);
            }
        }
        Some(Table { cursor: self.clone(), entries })
    }

    /// The entries of a mapping whose keys are names, in the order of the file. Nothing is an empty mapping.
    #[must_use]
    pub fn entries(&self) -> Option<Vec<(&'a Key, Cursor<'a>)>> {
        let entries = self.mapping()?;
        Some(
            entries
                .iter()
                .map(|(key, node)| (key, self.child(node, joined(&self.path, &key.text))))
                .collect(),
        )
    }

    fn mapping(&self) -> Option<&'a [(Key, Node)]> {
        match &self.node.value {
            Value::Mapping(entries) => Some(entries),
            Value::Null => Some(&[]),
            _ => {
                self.wants("a mapping (key: value)");
                None
            }
        }
    }

    /// The members of a list. Nothing is an empty list.
    #[must_use]
    pub fn list(&self) -> Option<Vec<Cursor<'a>>> {
        match &self.node.value {
            Value::List(all) => Some(self.members(all)),
            Value::Null => Some(Vec::new()),
            _ => {
                self.wants("a list");
                None
            }
        }
    }

    /// The members of a list, or the value itself where it is no list. A list without members is an error: it would
    /// say "nothing" where leaving the key out says "anything".
    #[must_use]
    pub fn one_or_many(&self) -> Vec<Cursor<'a>> {
        match &self.node.value {
            Value::List(all) if all.is_empty() => {
                self.error("this list is empty; give it members, or leave the key out");
                Vec::new()
            }
            Value::List(all) => self.members(all),
            _ => vec![self.clone()],
        }
    }

    fn members(&self, all: &'a [Node]) -> Vec<Cursor<'a>> {
        let member = |(index, node)| self.child(node, format!("{}[{index}]", self.path));
        all.iter().enumerate().map(member).collect()
    }

    fn child(&self, node: &'a Node, path: String) -> Self {
        Self { node, report: self.report, path }
    }

    /// A text, word or number, as it stands in the file.
    #[must_use]
    pub fn text(&self) -> Option<&'a str> {
        if let Value::Scalar { text, .. } = &self.node.value {
            return Some(text);
        }
        self.wants("a text");
        None
    }

    /// The word or number as it stands in the file, if it is one that stands without quotes; nothing is reported.
    #[must_use]
    pub fn plain(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Scalar { text, quoted: false } => Some(text),
            _ => None,
        }
    }

    /// A whole number in a range: `80`, `0x50`, `0o120`.
    #[must_use]
    pub fn number<T>(&self, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i128> + PartialOrd + Display,
    {
        let Some(number) = self.plain().and_then(whole) else {
            self.wants("a whole number");
            return None;
        };
        let fits = T::try_from(number).ok().filter(|n| range.contains(n));
        if fits.is_none() {
            self.error(format!("{number} is out of range {}..={}", range.start(), range.end()));
        }
        fits
    }

    /// A number with a fraction in a range.
    #[must_use]
    pub fn fraction(&self, range: RangeInclusive<f64>) -> Option<f64> {
        let number = self.plain().filter(|t| !t.ends_with(|c: char| c.is_alphabetic()));
        let Some(number) = number.and_then(|t| t.parse::<f64>().ok()) else {
            self.wants("a number");
            return None;
        };
        if !range.contains(&number) {
            self.error(format!("{number} is out of range {}..={}", range.start(), range.end()));
            return None;
        }
        Some(number)
    }

    /// `true` or `false`.
    #[must_use]
    pub fn boolean(&self) -> Option<bool> {
        match self.plain() {
            Some("true" | "True" | "TRUE") => Some(true),
            Some("false" | "False" | "FALSE") => Some(false),
            _ => {
                self.wants("true or false");
                None
            }
        }
    }

    /// A duration: see [`duration`].
    #[must_use]
    pub fn duration(&self) -> Option<Duration> {
        let read = match &self.node.value {
            Value::Scalar { text, .. } => duration(text),
            _ => None,
        };
        if read.is_none() {
            self.wants("a duration like 0.1 (seconds), 100ms, 5s or 2m");
        }
        read
    }

    /// One of these words.
    #[must_use]
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, chosen)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*chosen);
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        self.unknown(text, &words, "a choice", &format!("it is one of {}", words.join(", ")));
        None
    }

    /// `text`, which stands here, is not `what`; the nearest of `known` is named, or else `otherwise`.
    pub fn unknown(&self, text: &str, known: &[&str], what: &str, otherwise: &str) {
        if self.report.is_full() {
            // Nobody sees the word; looking for it takes time.
            self.error("");
            return;
        }
        let text_shown = shortened(text);
        match nearest(text, known.iter().copied()) {
            Some(near) => self.error(format!("{text_shown:?} is not {what}; did you mean {near:?}?")),
            None => self.error(format!("{text_shown:?} is not {what}; {otherwise}")),
        }
    }

    /// Anything that can be read from a text; its error is the message.
    #[must_use]
    pub fn parsed<T: FromStr>(&self) -> Option<T>
    where
        T::Err: Display,
    {
        self.text()?.parse().map_err(|error: T::Err| self.error(error.to_string())).ok()
    }
}

fn whole(text: &str) -> Option<i128> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(i128::from);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8).ok().map(i128::from);
    }
    text.parse().ok()
}

/// A mapping with known keys.
#[derive(Clone, Debug)]
pub struct Table<'a> {
    cursor: Cursor<'a>,
    entries: &'a [(Key, Node)],
}

impl<'a> Table<'a> {
    /// The value of a key, if it is there and not empty (`key:`, which [`Cursor::table`] has told).
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Cursor<'a>> {
        let (_, node) = self.entries.iter().find(|(k, _)| k.text == key)?;
        let there = node.value != Value::Null;
        there.then(|| self.cursor.child(node, joined(&self.cursor.path, key)))
    }

    /// The value of a key that must be there.
    #[must_use]
    pub fn need(&self, key: &str) -> Option<Cursor<'a>> {
        let found = self.get(key);
        if found.is_none() && !self.entries.iter().any(|(k, _)| k.text == key) {
            self.cursor.error(format!("the key {key:?} is missing"));
        }
        found
    }

    /// The mapping as a whole.
    #[must_use]
    pub fn cursor(&self) -> &Cursor<'a> {
        &self.cursor
    }
}
