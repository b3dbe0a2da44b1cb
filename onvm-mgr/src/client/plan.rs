//! Commands that take a chain file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use onvm_lib::document::{Report, Severity};
use onvm_lib::protocol::{MAX_MESSAGE, Request, socket_from};
use serde_json::{Value, json};

use super::{Failure, exchange, exchange_with, print};
use crate::cli::{OfFile, socket};
use crate::plan::Plan;
use crate::plan::difference::{Change, difference};
use crate::plan::file::{self, ChainFile};
use crate::plan::received::in_a_file;

/// A plan that is longer as JSON goes in a file beside the message; some room is left for what stands around it.
const LONGEST_IN_MESSAGE: usize = MAX_MESSAGE - 1024;

/// Reads a chain file, and tells on standard error what is wrong with it.
///
/// # Errors
/// When it cannot be used.
pub(crate) fn load(path: &Path) -> Result<ChainFile, Failure> {
    let file = file::load(path);
    eprint!("{}", file.report);
    if file.report.has_errors() {
        return Err(format!("{} cannot be used: {}", path.display(), count(&file.report)).into());
    }
    Ok(file)
}

/// Prints all that is wrong with chain files, and a line for each file.
pub(crate) fn validate(files: &[PathBuf], as_json: bool) -> ExitCode {
    let mut all_good = true;
    for path in files {
        let file = file::load(path);
        all_good &= !file.report.has_errors();
        print(if as_json { validated_json(&file).to_string() } else { validated(&file) });
    }
    if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn validated(file: &ChainFile) -> String {
    let (report, plan) = (&file.report, &file.plan);
    let summary = if report.has_errors() {
        format!("{}: not valid", count(report))
    } else {
        let all =
            [(plan.services.len(), "service"), (plan.chains.len(), "chain"), (plan.rules.len(), "rule")];
        let warnings = report.count(Severity::Warning);
        let valid =
            if warnings == 0 { "valid".into() } else { format!("valid, {}", number(warnings, "warning")) };
        format!("{}: {valid}", all.map(|(n, what)| number(n, what)).join(", "))
    };
    format!("{report}{}: {summary}", report.file())
}

fn validated_json(file: &ChainFile) -> Value {
    let (report, plan) = (&file.report, &file.plan);
    let problem = |p: onvm_lib::document::Problem| {
        let severity = if p.severity == Severity::Error { "error" } else { "warning" };
        let (line, column) = p.place.map(|at| (at.line, at.column)).unzip();
        json!({ "severity": severity, "line": line, "column": column, "path": p.path, "message": p.message })
    };
    json!({
        "file": report.file(),
        "valid": !report.has_errors(),
        "services": plan.services.len(),
        "chains": plan.chains.len(),
        "rules": plan.rules.len(),
        "problems": report.problems().into_iter().map(problem).collect::<Vec<_>>(),
    })
}

fn count(report: &Report) -> String {
    let errors = number(report.count(Severity::Error), "error");
    match report.count(Severity::Warning) {
        0 => errors,
        n => format!("{errors}, {}", number(n, "warning")),
    }
}

fn number(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Prints what is different between the plan of a running manager and a chain file. The exit code is 0 when nothing is, 1 when
/// something is, and 2 when it cannot be told, as of diff(1).
pub(crate) fn diff(of: &OfFile) -> ExitCode {
    let differences = || -> Result<Vec<Change>, Failure> {
        let file = load(&of.file)?;
        let (running, _) = exchange(&socket_from(socket(&of.common, &file)), &Request::PlanShow)?;
        Ok(difference(&serde_json::from_value::<Plan>(running)?, &file.plan))
    };
    match differences() {
        Ok(changes) => {
            print_changes(&changes, of.common.json, "");
            if changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            eprintln!("onvm-mgr: {error}");
            ExitCode::from(2)
        }
    }
}

/// Sends the plan of a chain file to a running manager, and prints what that changed.
///
/// # Errors
/// When the file cannot be used, there is no manager, or it says no.
pub(crate) fn apply(of: &OfFile) -> Result<ExitCode, Failure> {
    let file = load(&of.file)?;
    let plan = serde_json::to_value(&file.plan)?;
    let socket = socket_from(socket(&of.common, &file));
    let (body, ok) = if plan.to_string().len() > LONGEST_IN_MESSAGE {
        exchange_with(&socket, &Request::PlanApply { plan: Value::Null }, Some(&in_a_file(&plan)?))?
    } else {
        exchange(&socket, &Request::PlanApply { plan })?
    };
    match serde_json::from_value::<Vec<Change>>(body["changes"].clone()) {
        Ok(changes) if !of.common.json => print_changes(&changes, false, "nothing to change"),
        _ => print(body.to_string()),
    }
    for failed in body["failed"].as_array().into_iter().flatten() {
        let why = failed["why"].as_str().unwrap_or("for no reason");
        let what = match failed["port"].as_u64() {
            Some(port) => format!("port {port} cannot be opened, and its number is empty"),
            None => format!("instance {} goes on as before", failed["instance"]),
        };
        eprintln!("onvm-mgr: the plan is in force, but {what}: {why}");
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_changes(changes: &[Change], as_json: bool, none: &str) {
    let words: Vec<String> = changes.iter().map(ToString::to_string).collect();
    if as_json {
        print(json!({ "changes": changes }).to_string());
    } else if !words.is_empty() {
        print(words.join("\n"));
    } else if !none.is_empty() {
        print(none.to_string());
    }
}
