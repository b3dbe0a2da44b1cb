//! Client commands: ask a running manager, print what it says.

mod plan;
mod up;

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use onvm_lib::protocol::{Answer, Error, Line, PROTOCOL_VERSION, Request, Say, socket_from};
use serde_json::Value;

use crate::cli::{Common, PlanCommand};
use crate::tables;

pub(crate) use plan::load;

/// What keeps a command from being done, in words for the user.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// How long a manager may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

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

/// Asks and prints. The exit code is 1 when the manager says no, or when an audit does not balance.
///
/// # Errors
/// When there is no manager, or it does not answer.
pub(crate) fn ask(common: &Common, request: &Request) -> Result<ExitCode, Failure> {
    let (body, ok) = exchange(&socket_from(common.socket.as_deref()), request)?;
    print(if common.json { body.to_string() } else { tables::told(request, &body) });
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
    rustix::net::sockopt::set_socket_timeout(&line, rustix::net::sockopt::Timeout::Recv, Some(PATIENCE))?;
    let files: Vec<_> = file.iter().map(|file| file.as_fd()).collect();
    line.send(&Say::Ask { version: PROTOCOL_VERSION, request: request.clone() }, &files, true)?;
    let (answer, files) = line.receive::<Answer>(true).map_err(|error| match error {
        Error::WouldBlock => {
            format!("the manager does not answer within {} seconds", PATIENCE.as_secs()).into()
        }
        error => Failure::from(error),
    })?;
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

fn print(text: String) {
    // The reader may have gone away (`| head`): nothing is wrong then.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
