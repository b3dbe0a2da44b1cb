//! Client commands: ask a running manager, print what it says.

use std::fs::File;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use onvm_lib::protocol::{Answer, Error, Line, PROTOCOL_VERSION, Request, Say, socket_from};

use crate::cli::Common;
use crate::tables;

/// How long a manager may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks and prints. The exit code is 1 when the manager says no, or when an audit does not balance.
///
/// # Errors
/// When there is no manager, or it does not answer.
pub(crate) fn ask(common: &Common, request: &Request) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut line = Line::connect(&socket_from(common.socket.as_deref()))?;
    rustix::net::sockopt::set_socket_timeout(&line, rustix::net::sockopt::Timeout::Recv, Some(PATIENCE))?;
    line.send(&Say::Ask { version: PROTOCOL_VERSION, request: request.clone() }, &[], true)?;
    let (answer, files) = line.receive::<Answer>(true).map_err(|error| match error {
        Error::WouldBlock => {
            format!("the manager does not answer within {} seconds", PATIENCE.as_secs()).into()
        }
        error => Box::<dyn std::error::Error>::from(error),
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
    let text = if common.json { body.to_string() } else { tables::told(request, &body) };
    // The reader may have gone away (`| head`): nothing is wrong then.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
