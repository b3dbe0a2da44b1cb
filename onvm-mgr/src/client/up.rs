//! Starting a manager with a chain file, here or in the background, and ending one.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use onvm_lib::protocol::{Line, Request, socket_from};
use rustix::event::{PollFd, PollFlags};
use serde_json::json;

use super::{Failure, exchange, plan, print};
use crate::cli::{self, Common, IN_BACKGROUND, Up};
use crate::server;

/// How long a manager in the background may take to answer for the first time.
const START: Duration = Duration::from_secs(30);
/// How long a manager may take to end: it lets the packets inside come out, and waits for its NFs.
const END: Duration = Duration::from_secs(120);
/// How often is looked whether a manager answers, or one that cannot be watched has ended.
const LOOK: Duration = Duration::from_millis(5);

/// Starts a manager with a chain file. `arguments` is the whole command line.
///
/// # Errors
/// When the file cannot be used, a manager runs already, or it cannot be started.
pub(crate) fn up(up: &Up, arguments: &[OsString]) -> Result<ExitCode, Failure> {
    if up.in_background {
        // Away from the terminal and its signals. It fails for a process that leads a session already.
        let _ = rustix::process::setsid();
    }
    let file = plan::load(&up.file)?;
    let (start, plan) = match cli::with_file(file, arguments) {
        Ok(both) => both,
        Err(error) => error.exit(),
    };
    let socket = socket_from(start.common.socket.as_deref());
    if Line::connect(&socket).is_ok() {
        let (socket, file) = (socket.display(), up.file.display());
        return Err(format!(
            "a manager is running at {socket} already: change it with `onvm-mgr apply {file}`, or end it with \
             `onvm-mgr down`"
        )
        .into());
    }
    if up.detach && !up.in_background {
        return detach(&socket, arguments, start.common.json);
    }
    server::run(&start, plan)
}

/// Starts this program again in the background, and waits until it answers.
fn detach(socket: &Path, arguments: &[OsString], as_json: bool) -> Result<ExitCode, Failure> {
    let path = log_beside(socket);
    let mut log = File::options()
        .create(true)
        .append(true)
        .read(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let begin = log.seek(SeekFrom::End(0))?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(arguments.get(1..2).unwrap_or_default())
        .arg(IN_BACKGROUND)
        .args(arguments.get(2..).unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        .spawn()?;
    if let Err(why) = wait_for_answer(socket, &mut child) {
        let mut told = String::new();
        log.seek(SeekFrom::Start(begin))?;
        // What is no text is no reason to hide the failure.
        let _ = log.read_to_string(&mut told);
        eprint!("{told}");
        return Err(format!("the manager {why}; its output is in {}", path.display()).into());
    }
    let (pid, socket, log) = (child.id(), socket.display(), path.display());
    print(if as_json {
        json!({ "pid": pid, "socket": socket.to_string(), "log": log.to_string() }).to_string()
    } else {
        format!("process {pid}, control socket {socket}, output in {log}")
    });
    Ok(ExitCode::SUCCESS)
}

/// `onvm.log` beside `onvm.sock`.
fn log_beside(socket: &Path) -> PathBuf {
    socket.with_extension("log")
}

/// Waits until the manager answers, or tells why it will not.
fn wait_for_answer(socket: &Path, child: &mut Child) -> Result<(), String> {
    let until = Instant::now() + START;
    loop {
        if exchange(socket, &Request::Status).is_ok() {
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            // A short run over a capture may be done before anybody asks.
            return if status.success() { Ok(()) } else { Err(format!("has ended: {status}")) };
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("does not answer within {} seconds and was killed", START.as_secs()));
        }
        std::thread::sleep(LOOK);
    }
}

/// Stops a running manager and waits until its process has ended.
///
/// # Errors
/// When there is none, or it does not end within two minutes.
pub(crate) fn down(common: &Common) -> Result<ExitCode, Failure> {
    let socket = socket_from(common.socket.as_deref());
    let peer = Line::connect(&socket)?.peer()?;
    // Opened before the manager is asked, so that the process is the one that answers. None in another name space.
    let process =
        peer.pid.and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok());
    let (body, ok) = exchange(&socket, &Request::Shutdown)?;
    let until = Instant::now() + END;
    let ended = match &process {
        Some(process) => {
            let mut watched = [PollFd::new(process, PollFlags::IN)];
            loop {
                let left = until.saturating_duration_since(Instant::now());
                let left = rustix::event::Timespec::try_from(left)?;
                match rustix::event::poll(&mut watched, Some(&left)) {
                    Err(rustix::io::Errno::INTR) => {}
                    other => break other? > 0,
                }
            }
        }
        None => loop {
            let gone = Line::connect(&socket).is_err();
            if gone || Instant::now() > until {
                break gone;
            }
            std::thread::sleep(LOOK);
        },
    };
    if !ended {
        return Err(format!("the manager has not ended within {} seconds", END.as_secs()).into());
    }
    print(if common.json { body.to_string() } else { "stopped".into() });
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
