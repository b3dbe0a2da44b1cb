//! Client commands: ask a running manager, print what it says.

mod events;
mod logs;
mod names;
mod plan;
mod up;

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use onvm_lib::protocol::{Answer, Error, Line, PROTOCOL_VERSION, Request, Say, socket_from};
use serde_json::Value;

use crate::cli::{Command, PlanCommand, WatchCommand};
use crate::tables;

pub(crate) use plan::load;

/// What keeps a command from being done, in words for the user.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// How long a manager may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to answer when it has processes to start first, that attach within 10 s and set themselves up within
/// 60, and states to hand over, within twice 10 s.
const LONG_PATIENCE: Duration = Duration::from_secs(100);

fn patience(request: &Request) -> Duration {
    match request {
        Request::NfRestart { .. } | Request::NfReplace { .. } | Request::PlanApply { .. } => LONG_PATIENCE,
        _ => PATIENCE,
    }
}

/// Does a command about what a manager shall run. `arguments` is the whole command line.
///
/// # Errors
/// What keeps it from being done.
pub(crate) fn plan(command: &PlanCommand, arguments: &[OsString]) -> Result<ExitCode, Failure> {
    match command {
        PlanCommand::Up(up) => up::up(up, arguments),
        PlanCommand::Down(common) => up::down(common),
        PlanCommand::Validate { files, json } => Ok(plan::validate(files, *json)),
        PlanCommand::Diff(of) => Ok(plan::diff(of)),
        PlanCommand::Apply(of) => plan::apply(of),
    }
}

/// Does a command that reads on.
///
/// # Errors
/// What keeps it from being done.
pub(crate) fn watch(command: &WatchCommand) -> Result<ExitCode, Failure> {
    match command {
        WatchCommand::Events(events) => events::show(events),
        WatchCommand::Logs(logs) => logs::show(logs),
    }
}

/// Asks and prints. The exit code is 1 when the manager says no, or when an audit does not balance.
///
/// # Errors
/// When there is no manager, or it does not answer.
pub(crate) fn ask(command: &Command) -> Result<ExitCode, Failure> {
    let common = command.common();
    let socket = socket_from(common.socket.as_deref());
    let request = command.request(&|service| names::id_of(&socket, service))?;
    let (body, ok) = exchange(&socket, &request)?;
    print(if common.json { body.to_string() } else { tables::told(&request, &body) });
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Asks, and returns what the manager says and whether the request succeeded.
///
/// # Errors
/// When there is no manager, it does not answer, or says that it cannot.
fn exchange(socket: &Path, request: &Request) -> Result<(Value, bool), Failure> {
    exchange_with(socket, request, None)
}

/// The same with a file that belongs to the request.
fn exchange_with(socket: &Path, request: &Request, file: Option<&File>) -> Result<(Value, bool), Failure> {
    let mut line = Line::connect(socket)?;
    let patience = patience(request);
    rustix::net::sockopt::set_socket_timeout(&line, rustix::net::sockopt::Timeout::Recv, Some(patience))?;
    say(&line, request, file)?;
    hear(&mut line).map_err(|failure| match failure.downcast_ref() {
        Some(Error::WouldBlock) => {
            format!("the manager does not answer within {} seconds", patience.as_secs()).into()
        }
        _ => failure,
    })
}

fn say(line: &Line, request: &Request, file: Option<&File>) -> Result<(), Error> {
    let files: Vec<_> = file.iter().map(|file| file.as_fd()).collect();
    line.send(&Say::Ask { version: PROTOCOL_VERSION, request: request.clone() }, &files, true)
}

/// Waits for an answer. An error of the connection is an [`Error`].
fn hear(line: &mut Line) -> Result<(Value, bool), Failure> {
    let (answer, files) = line.receive::<Answer>(true)?;
    let (body, ok) = match answer {
        Answer::Told { body, ok } => match files.into_iter().next() {
            None => (body, ok),
            Some(file) => (serde_json::from_reader(std::io::BufReader::new(File::from(file)))?, ok),
        },
        Answer::Refused { reason } => return Err(reason.into()),
        other => return Err(format!("the manager answered out of turn: {other:?}").into()),
    };
    if let Some(error) = body.get("error").and_then(serde_json::Value::as_str) {
        return Err(error.to_string().into());
    }
    Ok((body, ok))
}

/// Lets Ctrl-C end this process in order: whoever watches has seen enough, and nothing is wrong.
fn end_well_at_ctrl_c() -> std::io::Result<()> {
    let always = Arc::new(AtomicBool::new(true));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 0, Arc::clone(&always))?;
    }
    Ok(())
}

/// Prints a line at once; false when the reader has gone away (`| head`), which is no mistake.
fn print_line(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
}

fn print(text: String) {
    // The reader may have gone away (`| head`): nothing is wrong then.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
