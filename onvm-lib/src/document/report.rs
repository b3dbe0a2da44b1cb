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
///
/// Of each severity [`Report::MOST`] are kept; the others are counted only, so that warnings never stand in the way of
/// an error.
#[derive(Debug)]
pub struct Report {
    file: String,
    found: RefCell<Found>,
}

/// Problems by severity: those that are kept, and the number of all.
#[derive(Debug, Default)]
struct Found {
    errors: (Vec<Problem>, usize),
    warnings: (Vec<Problem>, usize),
}

impl Found {
    fn of(&mut self, severity: Severity) -> &mut (Vec<Problem>, usize) {
        match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        }
    }
}

impl Report {
    /// More problems of a severity than this are counted and not kept: nobody reads them.
    pub const MOST: usize = 1000;

    /// An empty one.
    #[must_use]
    pub fn new(file: impl Into<String>) -> Self {
        Self { file: file.into(), found: RefCell::default() }
    }

    /// The file's name, as the user wrote it.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Adds a problem, unless it is known; if there are [`Self::MOST`] of its severity already, it is counted only.
    pub fn add(&self, severity: Severity, place: Option<Place>, path: &str, message: impl Into<String>) {
        let mut found = self.found.borrow_mut();
        let (kept, number) = found.of(severity);
        if kept.len() >= Self::MOST {
            *number += 1;
            return;
        }
        let problem = Problem { severity, place, path: path.into(), message: message.into() };
        if !kept.contains(&problem) {
            *number += 1;
            kept.push(problem);
        }
    }

    /// Whether further errors are counted only.
    pub(super) fn is_full(&self) -> bool {
        self.found.borrow().errors.0.len() >= Self::MOST
    }

    /// All problems that are kept, in the order of the file.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let found = self.found.borrow();
        let mut all: Vec<Problem> = found.errors.0.iter().chain(&found.warnings.0).cloned().collect();
        all.sort_by_key(|p| p.place);
        all
    }

    /// Whether the file cannot be used.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// Problems that are so bad, with those that are not kept.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.found.borrow_mut().of(severity).1
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
