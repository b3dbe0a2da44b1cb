//! Configuration files in YAML, whose mistakes are told all at once and with their places.
//!
//! [`read`] makes a tree of which every key and value knows its line and column. A [`Cursor`] walks it with typed
//! accessors; what is wrong goes into a [`Report`], and reading goes on with what is right:
//!
//! ```
//! use onvm_lib::document::{Cursor, Report, read};
//!
//! let report = Report::new("limits.yaml");
//! let root = read("depth: 9\nwidht: 4\n", &report).unwrap();
//! let table = Cursor::new(&root, &report).table(&["depth", "width"]).unwrap();
//! assert_eq!(table.get("depth").and_then(|c| c.number(0..=5u32)), None);
//! assert_eq!(
//!     report.to_string(),
//!     "limits.yaml:1:8: depth: 9 is out of range 0..=5\n\
//!      limits.yaml:2:1: widht: unknown key; did you mean \"width\"?\n"
//! );
//! ```
//!
//! Files are YAML 1.2 with anchors and aliases, without tags, merge keys and second documents. A file that would take
//! more than [`MAX_BYTES`], [`MAX_DEPTH`] or [`MAX_NODES`] is refused, so that none can fill the memory or the stack;
//! [`read_within`] takes other bounds. A key without a value and a list without members are mistakes where keys are known.

mod cursor;
mod duration;
mod nearest;
mod parse;
mod report;

#[cfg(test)]
mod tests;

pub use cursor::{Cursor, Table};
pub use duration::{LONGEST_DURATION, duration};
pub use nearest::nearest;
pub use parse::{Bounds, MAX_BYTES, MAX_DEPTH, MAX_NODES, read, read_within};
pub use report::{Problem, Report, Severity};

/// Where something stands in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it begins; for what an alias stands for, where the alias stands.
    pub place: Place,
    /// The value.
    pub value: Value,
}

/// A value as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A word, number or text; its text as it stands in the file, without quotes.
    Scalar {
        /// The text.
        text: String,
        /// It stood in quotes or in a block, and so is no number and no `true`.
        quoted: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A mapping in the order of the file; no key stands in it twice.
    Mapping(Vec<(Key, Node)>),
}

/// A key of a mapping and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Where it begins.
    pub place: Place,
    /// Its text.
    pub text: String,
}

impl Value {
    /// What it is, for messages: `a list`, `the text "x"`.
    fn described(&self) -> String {
        match self {
            Self::Null => "nothing".into(),
            Self::Scalar { text, quoted: true } => format!("the text {:?}", shortened(text)),
            Self::Scalar { text, quoted: false } => shortened(text),
            Self::List(_) => "a list".into(),
            Self::Mapping(_) => "a mapping".into(),
        }
    }
}

/// A text that may be long, for messages.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// The path of a key within what `path` leads to.
fn joined(path: &str, key: &str) -> String {
    let key = shortened(key);
    if path.is_empty() { key } else { format!("{path}.{key}") }
}
