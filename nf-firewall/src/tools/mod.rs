//! What the program does without packets: check a rule file, explain a decision, look a trace up.

mod check;
mod explain;
mod lookup;

use std::process::ExitCode;

use crate::options::Options;

/// Names of the options that make the program one of these tools.
pub(crate) const TOOLS: &[&str] = &["check", "explain", "lookup"];

/// Does what one of the tools' options asks for; none if there is none.
pub(crate) fn run(options: &Options, json: bool) -> Option<ExitCode> {
    match (&options.explain, &options.lookup) {
        (Some(packet), _) => Some(explain::run(options, packet, json)),
        (None, Some(trace)) => Some(lookup::run(options, trace, json)),
        (None, None) => options.check.then(|| check::run(options, json)),
    }
}

/// Says why a tool could not do its work: on standard error, or for machines, which read the output.
fn failed(reason: &str, json: bool) -> ExitCode {
    if json {
        let errors: Vec<&str> = reason.lines().collect();
        let _ = print(&format!("{}\n", serde_json::json!({ "ok": false, "errors": errors })));
        return ExitCode::FAILURE;
    }
    for line in reason.lines() {
        eprintln!("nf-firewall: {line}");
    }
    ExitCode::FAILURE
}

/// Prints what a tool found; who reads only the beginning of it is no failure.
fn print(text: &str) -> ExitCode {
    use std::io::Write;
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            failed(&format!("standard output: {error}"), false)
        }
        _ => ExitCode::SUCCESS,
    }
}
