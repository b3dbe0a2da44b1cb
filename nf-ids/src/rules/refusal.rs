//! What is wrong with a rule, and where.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// A rule (or a line of a configuration file) that was not taken, with its place and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The file that it stands in; `None` for text that was given directly.
    pub file: Option<Arc<PathBuf>>,
    /// From 1. A continued rule's fault is named at the physical line that it stands in.
    pub line: usize,
    /// From 1, in bytes of that line.
    pub column: usize,
    /// The `sid`, where one could be read.
    pub sid: Option<u32>,
    /// What was wrong.
    pub fault: Fault,
}

/// What was wrong: the field, the reason and the word that was probably meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The option's keyword, or the name of the header's part.
    pub field: String,
    /// In lower case, with the value.
    pub reason: String,
    /// The nearest known word, where one is near.
    pub nearest: Option<String>,
}

impl Fault {
    /// A fault of `field`.
    pub(crate) fn new(field: &str, reason: impl Into<String>) -> Self {
        Fault { field: field.to_string(), reason: reason.into(), nearest: None }
    }

    /// The same with the nearest of `known` to `word`.
    pub(crate) fn or_nearest<'a>(mut self, word: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        self.nearest = onvm_lib::document::nearest(word, known).map(str::to_string);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)?;
        self.nearest.as_ref().map_or(Ok(()), |word| write!(f, "; did you mean `{word}`?"))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}:{}:{}: ", file.display(), self.line, self.column)?,
            None => write!(f, "line {}, column {}: ", self.line, self.column)?,
        }
        if let Some(sid) = self.sid {
            write!(f, "sid {sid}: ")?;
        }
        self.fault.fmt(f)
    }
}

impl std::error::Error for Refusal {}
