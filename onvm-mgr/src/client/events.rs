//! What happened, a line for each event.

use std::process::ExitCode;

use onvm_lib::protocol::{Error, Line, Request, socket_from};

use super::{Failure, end_well_at_ctrl_c, exchange, hear, print_line, say};
use crate::cli::Events;
use crate::tables;

/// Prints events, and with `--follow` those to come.
///
/// # Errors
/// When there is no manager, or it does not answer.
pub(super) fn show(options: &Events) -> Result<ExitCode, Failure> {
    let socket = socket_from(options.common.socket.as_deref());
    let request = Request::Events { after: options.after, follow: options.follow };
    if !options.follow {
        print_all(&exchange(&socket, &request)?.0, options.common.json);
        return Ok(ExitCode::SUCCESS);
    }
    end_well_at_ctrl_c()?;
    let mut line = Line::connect(&socket)?;
    say(&line, &request, None)?;
    let mut first = true;
    loop {
        match hear(&mut line) {
            Ok((body, _)) if print_all(&body, options.common.json) => first = false,
            Ok(_) => return Ok(ExitCode::SUCCESS),
            // The manager has ended.
            Err(failure) if !first && is_end(&failure) => return Ok(ExitCode::SUCCESS),
            Err(failure) => return Err(failure),
        }
    }
}

fn is_end(failure: &Failure) -> bool {
    matches!(failure.downcast_ref(), Some(Error::Closed))
}

/// False when nobody reads.
fn print_all(body: &serde_json::Value, as_json: bool) -> bool {
    let mut events = body["events"].as_array().into_iter().flatten();
    events.all(|event| print_line(&if as_json { event.to_string() } else { tables::event(event) }))
}
