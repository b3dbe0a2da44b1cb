//! What the program does without packets: check a rule file, explain a decision, look a trace up.

mod check;
mod explain;
mod lookup;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};

use crate::options::Options;

/// Options that make the program one of these tools.
const TOOLS: [&str; 3] = ["--check", "--explain", "--lookup"];

/// The command line that the program has when it runs: what is right for one is right for the other.
#[derive(Parser)]
#[command(args_override_self = true)]
struct Cli {
    #[command(flatten)]
    own: Options,
    #[command(flatten)]
    common: onvm_lib::runtime::Common,
}

/// Does what one of the tools' options asks for; none if there is none.
pub(crate) fn run(arguments: &[OsString]) -> Option<ExitCode> {
    let is_tool = |argument: &OsString| {
        let text = argument.to_string_lossy();
        TOOLS.iter().any(|tool| text == *tool || text.strip_prefix(tool).is_some_and(|r| r.starts_with('=')))
    };
    let options = arguments.iter().skip(1).take_while(|argument| *argument != "--");
    if !options.clone().any(is_tool) || options.clone().any(|a| a == "--help" || a == "-h") {
        return None;
    }
    let mut command = Cli::command().name("nf-firewall").version(env!("CARGO_PKG_VERSION"));
    // A service id is asked for by what runs; a tool takes any, and that of the command line comes after it.
    let program = arguments.first().cloned();
    let id = ["--service-id", "1"].map(OsString::from);
    let words = program.into_iter().chain(id).chain(arguments.iter().skip(1).cloned());
    let cli = match command.try_get_matches_from_mut(words).and_then(|m| Cli::from_arg_matches(&m)) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return Some(if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS });
        }
    };
    if let Some(packet) = &cli.own.explain {
        return Some(explain::run(&cli.own, packet, cli.common.json));
    }
    if let Some(trace) = &cli.own.lookup {
        return Some(lookup::run(&cli.own, trace, cli.common.json));
    }
    Some(check::run(&cli.own, cli.common.json))
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
