//! What network functions write, read from the files in which the manager lets it go.

mod tail;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use onvm_lib::protocol::{Error, InstanceId, Request, socket_from};
use serde::Deserialize;
use serde_json::json;

use super::names::id_of;
use super::{Failure, end_well_at_ctrl_c, exchange, print_line};
use crate::cli::Logs;
use tail::Tail;

/// How often files are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often the manager is asked for instances that are new.
const ASK: Duration = Duration::from_secs(1);

/// A log, as the manager tells of it.
#[derive(Debug, Deserialize)]
struct Told {
    instance: Option<InstanceId>,
    token: String,
    path: PathBuf,
    /// Its process is gone.
    #[serde(default)]
    ended: bool,
}

/// A log that is being read.
#[derive(Debug)]
struct Source {
    told: Told,
    tail: Tail,
}

/// Prints the last lines of logs, and with `--follow` those to come.
///
/// # Errors
/// When there is no manager, or nothing that it has started.
pub(super) fn show(options: &Logs) -> Result<ExitCode, Failure> {
    let socket = socket_from(options.those.common.socket.as_deref());
    let target = options.those.which.target(&|service| id_of(&socket, service))?;
    let request = Request::Logs { target };
    let mut reader = Reader { as_json: options.those.common.json, sources: Vec::new(), marked: false };
    reader.add(logs(&socket, &request)?, options.lines)?;
    if options.follow {
        end_well_at_ctrl_c()?;
        let one = matches!(target, onvm_lib::protocol::Target::Instance(_));
        reader.follow(&socket, &request, one);
    } else {
        let _ = reader.print_new() && reader.print_rest();
    }
    Ok(ExitCode::SUCCESS)
}

fn logs(socket: &Path, request: &Request) -> Result<Vec<Told>, Failure> {
    let (body, _) = exchange(socket, request)?;
    Ok(serde_json::from_value(body["logs"].clone())?)
}

struct Reader {
    as_json: bool,
    sources: Vec<Source>,
    /// Lines say whose they are: there is, or was, more than one.
    marked: bool,
}

impl Reader {
    /// Adds the logs that are not known yet, each from its last `lines` lines on.
    fn add(&mut self, all: Vec<Told>, lines: usize) -> Result<(), Failure> {
        for told in all {
            if let Some(known) = self.sources.iter_mut().find(|s| s.told.token == told.token) {
                known.told = told;
                continue;
            }
            let tail = Tail::open(&told.path, lines)
                .map_err(|error| format!("cannot read {}: {error}", told.path.display()))?;
            self.sources.push(Source { told, tail });
        }
        self.marked |= self.sources.len() > 1;
        Ok(())
    }

    /// Prints what is new until there will be no more, or nobody reads.
    fn follow(&mut self, socket: &Path, request: &Request, one: bool) {
        let mut next_ask = Instant::now() + ASK;
        loop {
            let now = Instant::now();
            let mut last = false;
            if now >= next_ask {
                next_ask = now + ASK;
                last = self.ask_again(socket, request);
            }
            last |= one && self.sources.iter().all(|source| source.told.ended);
            if !self.print_new() || last {
                let _ = last && self.print_rest();
                return;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Asks for logs that are new; true if the manager has ended.
    fn ask_again(&mut self, socket: &Path, request: &Request) -> bool {
        match logs(socket, request) {
            Ok(all) => {
                self.forget_all_but(&all);
                // One that cannot be read is asked for again.
                if let Err(error) = self.add(all, usize::MAX) {
                    log::warn!("{error}");
                }
                false
            }
            Err(failure) => match failure.downcast_ref() {
                Some(Error::NobodyThere { .. } | Error::Closed) => true,
                // It has none of them now; that may change.
                _ => {
                    self.forget_all_but(&[]);
                    false
                }
            },
        }
    }

    /// Reads logs to their end that the manager does not tell of any more.
    fn forget_all_but(&mut self, all: &[Told]) {
        let known = |source: &Source| all.iter().any(|told| told.token == source.told.token);
        let (kept, gone) = std::mem::take(&mut self.sources).into_iter().partition(known);
        self.sources = gone;
        let _ = self.print_new() && self.print_rest();
        self.sources = kept;
    }

    /// Prints whole lines that have come; false when nobody reads.
    fn print_new(&mut self) -> bool {
        self.print(Tail::lines)
    }

    /// Prints what is left, a line without an end.
    fn print_rest(&mut self) -> bool {
        self.print(|tail| tail.rest().into_iter().collect())
    }

    fn print(&mut self, take: impl Fn(&mut Tail) -> Vec<String>) -> bool {
        for index in 0..self.sources.len() {
            for line in take(&mut self.sources[index].tail) {
                if !print_line(&self.words(&self.sources[index].told, &line)) {
                    return false;
                }
            }
        }
        true
    }

    fn words(&self, from: &Told, line: &str) -> String {
        if self.as_json {
            return json!({ "instance": from.instance, "token": from.token, "line": line }).to_string();
        }
        match (self.marked, from.instance) {
            (false, _) => line.to_string(),
            (true, Some(instance)) => format!("[{instance}] {line}"),
            // It has not attached, or never will.
            (true, None) => format!("[start {}] {line}", from.token),
        }
    }
}
