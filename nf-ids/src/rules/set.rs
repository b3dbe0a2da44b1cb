//! All rules of some files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::classes::Classes;
use super::parse::{self, Context};
use super::refusal::{Fault, Refusal};
use super::rule::Rule;
use super::text;

/// Refusals that are kept word by word.
const MOST_REFUSALS: usize = 100_000;

/// Rules, and what was not taken.
#[derive(Debug, Default)]
pub struct RuleSet {
    /// What rules are read with.
    pub context: Context,
    /// The rules, each `gid` and `sid` once.
    pub rules: Vec<Rule>,
    /// What was refused.
    pub refusals: Vec<Refusal>,
    /// What is worth knowing and no fault: rules that gave way to another of the same number, rules that are for another
    /// version (`requires`), classes that are not known.
    pub notes: Vec<Refusal>,
    by_number: HashMap<(u32, u32), usize>,
}

impl RuleSet {
    /// An empty set with these variables and classes.
    #[must_use]
    pub fn new(context: Context) -> Self {
        RuleSet { context, ..RuleSet::default() }
    }

    /// Adds the rules of a file, plain or gzip. Faults of single rules are kept in `refusals`.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn add_file(&mut self, path: &Path) -> Result<(), Refusal> {
        let file = Arc::new(path.to_path_buf());
        let text = read(path, &file)?;
        self.add(&text, Some(file));
        Ok(())
    }

    /// Adds the rules of a text.
    pub fn add_text(&mut self, text: &str) {
        self.add(text, None);
    }

    fn add(&mut self, text: &str, file: Option<Arc<PathBuf>>) {
        self.context.folder = file.as_ref().and_then(|file| file.parent()).map(Path::to_path_buf);
        for line in text::lines(text) {
            let said = |at: usize, sid: Option<u32>, fault: Fault| {
                let (line, column) = line.place(at);
                Refusal { file: file.clone(), line, column, sid, fault }
            };
            match parse::rule(&line.text, &self.context) {
                Ok((mut rule, notes)) => {
                    rule.file.clone_from(&file);
                    rule.line = line.place(0).0;
                    for (at, fault) in notes {
                        keep(&mut self.notes, said(at, Some(rule.sid), fault));
                    }
                    self.insert(rule);
                }
                Err(failure) => {
                    let list = if failure.left_out { &mut self.notes } else { &mut self.refusals };
                    keep(list, said(failure.at, failure.sid, failure.fault));
                }
            }
        }
    }

    /// Of two rules of one number, the one of the higher revision stays; of the same revision, the first.
    fn insert(&mut self, rule: Rule) {
        let Some(index) = self.by_number.get(&(rule.gid, rule.sid)).copied() else {
            self.by_number.insert((rule.gid, rule.sid), self.rules.len());
            self.rules.push(rule);
            return;
        };
        let (kept, gone) = if rule.rev > self.rules[index].rev {
            (rule, None)
        } else {
            (self.rules[index].clone(), Some(rule))
        };
        let gone = gone.unwrap_or_else(|| self.rules[index].clone());
        let why = format!("revision {} gives way to revision {} of line {}", gone.rev, kept.rev, kept.line);
        let fault = Fault::new("sid", why);
        let refusal =
            Refusal { file: gone.file.clone(), line: gone.line, column: 1, sid: Some(gone.sid), fault };
        keep(&mut self.notes, refusal);
        self.rules[index] = kept;
    }

    /// Reads `classification.config`, before the rules that refer to it.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or a line is of another form.
    pub fn add_classes(&mut self, path: &Path) -> Result<(), Refusal> {
        let file = Arc::new(path.to_path_buf());
        let text = read(path, &file)?;
        let mut classes = Classes::default();
        for line in text::lines(&text) {
            classes.take(&line.text).map_err(|fault| {
                let (line, column) = line.place(0);
                Refusal { file: Some(file.clone()), line, column, sid: None, fault }
            })?;
        }
        self.context.classes = classes;
        Ok(())
    }
}

fn keep(list: &mut Vec<Refusal>, refusal: Refusal) {
    if list.len() < MOST_REFUSALS {
        list.push(refusal);
    }
}

fn read(path: &Path, file: &Arc<PathBuf>) -> Result<String, Refusal> {
    text::read(path).map_err(|e| Refusal {
        file: Some(file.clone()),
        line: 0,
        column: 0,
        sid: None,
        fault: Fault::new("file", format!("cannot be read: {e}")),
    })
}
