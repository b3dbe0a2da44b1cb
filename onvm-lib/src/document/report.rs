//! What is wrong with a file: all of it.

use std::cell::RefCell;
use std::fmt;

use super::Place;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but probably does not say what was meant.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Where it stands; none for the file as a whole.
    pub place: Option<Place>,
    /// Keys that lead there, as `services.firewall.command[0]`; empty for the file as a whole.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// What is wrong with one file. Prints as one line each, in the order of the file:
/// `FILE:LINE:COLUMN: PATH: MESSAGE`, warnings with `warning: ` before the path.
#[derive(Debug)]
pub struct Report {
    file: String,
    problems: RefCell<Vec<Problem>>,
}

impl Report {
    /// More problems than this are not kept: nobody reads them.
    pub const MOST: usize = 1000;

    /// An empty one.
    #[must_use]
    pub fn new(file: impl Into<String>) -> Self {
        Self { file: file.into(), problems: RefCell::default() }
    }

    /// The file's name, as the user wrote it.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Adds a problem, unless it is known, or there are [`Self::MOST`] already.
    pub fn add(&self, severity: Severity, place: Option<Place>, path: &str, message: impl Into<String>) {
        let mut problems = self.problems.borrow_mut();
        let problem = Problem { severity, place, path: path.into(), message: message.into() };
        if problems.len() < Self::MOST && !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    /// Whether it takes no more.
    pub(super) fn is_full(&self) -> bool {
        self.problems.borrow().len() >= Self::MOST
    }

    /// All problems, in the order of the file.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut all = self.problems.borrow().clone();
        all.sort_by_key(|p| p.place);
        all
    }

    /// Whether the file cannot be used.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// Problems that are so bad.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.problems.borrow().iter().filter(|p| p.severity == severity).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Problem { severity, place, path, message } in self.problems() {
            write!(f, "{}", self.file)?;
            if let Some(Place { line, column }) = place {
                write!(f, ":{line}:{column}")?;
            }
            f.write_str(if severity == Severity::Warning { ": warning: " } else { ": " })?;
            if !path.is_empty() {
                write!(f, "{path}: ")?;
            }
            writeln!(f, "{message}")?;
        }
        Ok(())
    }
}
