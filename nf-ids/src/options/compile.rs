//! From files to rules in force.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;

use super::Options;
use crate::detect::{Limits, Tables};
use crate::rules::{Context, Refusal, RuleSet, Variables};
use crate::sets::Sets;

/// Refusals that are written to the log one by one.
const MOST_TOLD: usize = 20;

/// Rules in force.
#[derive(Debug)]
pub struct Rules {
    /// Compiled.
    pub tables: Arc<Tables>,
    /// Rules that could not be used.
    pub refused: usize,
}

/// Reads all rule files.
///
/// # Errors
/// Files that cannot be read, wrong variables.
pub fn read_rules(options: &Options, sets: &Sets) -> Result<RuleSet, String> {
    let mut variables = Variables::default();
    if let Some(path) = &options.vars {
        super::variables::take(path, &mut variables)?;
    }
    for text in &options.set {
        variables.define(text).map_err(|fault| format!("-S {text}: {fault}"))?;
    }
    if let Some(folder) = options.data.as_ref().filter(|folder| !folder.is_dir()) {
        return Err(format!("--data {}: is not a folder", folder.display()));
    }
    sets.refresh();
    let (sets, data) = (sets.clone(), options.data.clone());
    let mut set = RuleSet::new(Context { variables, sets, data, ..Context::default() });
    if let Some(path) = &options.classification {
        set.add_classes(path).map_err(|refusal| refusal.to_string())?;
    }
    for path in &options.rules {
        set.add_file(path).map_err(|refusal| refusal.to_string())?;
    }
    Ok(set)
}

/// Reads and compiles all rule files; the refusals with them, and what is worth knowing.
fn read_and_compile(options: &Options, sets: &Sets) -> Result<(Tables, Vec<Refusal>, Vec<Refusal>), String> {
    let set = read_rules(options, sets)?;
    let (mut tables, more) = Tables::new(set.rules);
    let (mut refusals, mut notes) = (set.refusals, set.notes);
    refusals.extend(more);
    if let Some(path) = &options.threshold_file {
        let mut limits = Limits::default();
        limits.add_file(path, &set.context.variables)?;
        notes.extend(tables.set_limits(&limits));
        refusals.append(&mut limits.refusals);
    }
    if options.strict && !refusals.is_empty() {
        let all: Vec<String> = refusals.iter().map(ToString::to_string).collect();
        return Err(all.join("\n"));
    }
    Ok((tables, refusals, notes))
}

/// Makes rules of files. What cannot be used is named in the log. Sets that rules fill go on with what is in them.
///
/// # Errors
/// Files that cannot be read, wrong variables; with `--strict`, every rule that cannot be used; no rule at all.
pub fn compile(options: &Options, sets: &Sets) -> Result<Rules, String> {
    let (tables, refusals, notes) = read_and_compile(options, sets)?;
    for note in notes.iter().take(MOST_TOLD) {
        log::info!("{note}");
    }
    for refusal in refusals.iter().take(MOST_TOLD) {
        log::warn!("{refusal}");
    }
    if refusals.len() > MOST_TOLD {
        log::warn!("{} further rules cannot be used; --check names them", refusals.len() - MOST_TOLD);
    }
    if tables.size().rules == 0 && !refusals.is_empty() {
        return Err(format!("none of {} rules can be used; the first: {}", refusals.len(), refusals[0]));
    }
    Ok(Rules { tables: Arc::new(tables), refused: refusals.len() })
}

/// The command line of `--check`, which needs no manager and no capture.
#[derive(Parser)]
#[command(name = "nf-ids")]
struct Check {
    #[command(flatten)]
    options: Options,
}

/// Does what `--check` asks, if it stands on the command line: every rule that cannot be used, and how many can. Exit code 1
/// if there is one of them.
#[must_use]
pub fn check(arguments: &[OsString]) -> Option<ExitCode> {
    if !arguments.iter().any(|argument| argument == "--check") {
        return None;
    }
    let options = match Check::try_parse_from(arguments) {
        Ok(check) => check.options,
        Err(error) => error.exit(),
    };
    let (tables, refusals, notes) =
        match read_and_compile(&Options { strict: false, ..options }, &Sets::default()) {
            Ok(read) => read,
            Err(error) => {
                eprintln!("nf-ids: {error}");
                return Some(ExitCode::FAILURE);
            }
        };
    for note in &notes {
        println!("note: {note}");
    }
    for refusal in &refusals {
        println!("{refusal}");
    }
    let size = tables.size();
    println!("{} rules can be used, in {} groups; {} cannot", size.rules, size.groups, refusals.len());
    Some(if refusals.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
