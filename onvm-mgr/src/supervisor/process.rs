//! One process of a service: how it is started, and how it ended.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use onvm_lib::protocol::{START_TOKEN, ServiceId};

use crate::plan::Service;

/// What a process is started with, beside its service.
pub(super) struct Start<'a> {
    pub(super) service: ServiceId,
    pub(super) token: &'a str,
    pub(super) socket: &'a Path,
    pub(super) log: &'a Path,
}

/// Starts a process of a service: its command with the options by which it finds its manager and its place.
///
/// # Errors
/// What was tried, in words for the user.
pub(super) fn start(plan: &Service, start: &Start<'_>) -> Result<Child, String> {
    let Some((program, arguments)) = plan.command.split_first() else {
        return Err(format!("service {} has no command", start.service));
    };
    let path = find(program, &plan.directory)?;
    let log = open_log(start.log).map_err(|e| format!("cannot open {}: {e}", start.log.display()))?;
    let second = log.try_clone().map_err(|e| e.to_string())?;
    let mut command = Command::new(&path);
    command.args(arguments).arg("-r").arg(start.service.to_string());
    if let Some(destination) = plan.destination {
        command.arg("-d").arg(destination.to_string());
    }
    if let Some(core) = plan.core {
        command.arg("-m").arg(core.to_string());
    }
    if plan.shared_core {
        command.arg("-s");
    }
    command.arg("--socket").arg(start.socket);
    command.envs(&plan.environment).env(START_TOKEN, start.token).env("ONVM_SOCKET", start.socket);
    if !plan.directory.is_empty() {
        command.current_dir(&plan.directory);
    }
    // In a group of its own: Ctrl-C at the terminal is for the manager, which lets its NFs leave in order.
    command.stdin(Stdio::null()).stdout(log).stderr(second).process_group(0);
    command.spawn().map_err(|e| format!("cannot start {}: {e}", path.display()))
}

/// Finds a program: a path as it stands, seen from the plan's directory; a bare name beside the manager, else in PATH.
fn find(program: &str, directory: &str) -> Result<PathBuf, String> {
    let runs = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        let path = Path::new(directory).join(program);
        return if runs(&path) { Ok(path) } else { Err(format!("{} is no program", path.display())) };
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(program)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|directory| directory.join(program));
    let mut all = beside.clone().into_iter().chain(in_path);
    all.find(|path| runs(path)).ok_or_else(|| {
        let beside = beside.map_or_else(String::new, |path| format!(" as {}", path.display()));
        format!("there is no program {program}{beside} nor in PATH")
    })
}

/// Opens a log to be appended to, so that it can be cut short while it is in use.
fn open_log(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// How a process ended, in words.
pub(super) fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "it ended with exit code 0".into(),
        (Some(101), _) => "it ended with exit code 101 (panic)".into(),
        (Some(code), _) => format!("it ended with exit code {code}"),
        (None, Some(signal)) => {
            let name =
                signal_hook::low_level::signal_name(signal).map_or(String::new(), |n| format!(" ({n})"));
            let core = if status.core_dumped() { ", core dumped" } else { "" };
            format!("it was killed by signal {signal}{name}{core}")
        }
        (None, None) => "it ended".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(command: &[&str]) -> Service {
        Service { command: command.iter().map(|s| (*s).to_string()).collect(), ..Service::default() }
    }

    fn run(plan: &Service) -> (ExitStatus, String) {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let start_with = Start { service: 7, token: "7.1", socket: Path::new("/run/none.sock"), log: &log };
        let status = start(plan, &start_with).unwrap().wait().unwrap();
        (status, std::fs::read_to_string(log).unwrap())
    }

    #[test]
    fn a_process_gets_its_options_and_its_output_goes_to_its_log() {
        let mut p = plan(&["sh", "-c", "echo $0 $* $ONVM_START_TOKEN; echo oops >&2; exit 3", "nf"]);
        p.destination = Some(9);
        p.shared_core = true;
        let (status, log) = run(&p);
        assert_eq!(log, "nf -r 7 -d 9 -s --socket /run/none.sock 7.1\noops\n");
        assert_eq!(words(status), "it ended with exit code 3");
        let (status, _) = run(&plan(&["sh", "-c", "kill -SEGV $$"]));
        assert!(words(status).starts_with("it was killed by signal 11 (SIGSEGV)"), "{}", words(status));
    }

    #[test]
    fn what_cannot_be_started_is_named() {
        let at = |command: &[&str]| {
            let log = Path::new("/dev/null");
            let with = Start { service: 7, token: "7.1", socket: Path::new("/s"), log };
            start(&plan(command), &with).unwrap_err()
        };
        assert!(at(&["no-such-nf"]).contains("no program no-such-nf"));
        assert!(at(&["./no/nf"]).contains("./no/nf is no program"));
        assert_eq!(at(&[]), "service 7 has no command");
    }
}
