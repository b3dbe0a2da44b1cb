//! Further instances of its service that an NF starts itself.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, PidfdFlags, Signal};

use crate::cpu::Allowed;
use crate::protocol::{InstanceId, PARENT, START_TOKEN};

/// The running program, also when its file has been replaced.
const PROGRAM: &str = "/proc/self/exe";

/// The children that live.
#[derive(Debug)]
pub(super) struct Children {
    /// What they are started with; the first is the program's name.
    arguments: Vec<OsString>,
    /// The processors that they may run on.
    allowed: Option<Allowed>,
    living: Arc<Mutex<Vec<Child>>>,
}

#[derive(Debug)]
struct Child {
    pid: u32,
    /// Names the process for as long as it is held, whatever becomes of the number.
    handle: OwnedFd,
}

impl Children {
    pub(super) fn new(arguments: Vec<OsString>, allowed: Option<Allowed>) -> Self {
        Self { arguments, allowed, living: Arc::default() }
    }

    /// Starts a child; its process id. A thread of its own starts it, away from the processor that this NF was
    /// given, and waits for its end.
    pub(super) fn start(&self, extra: &[OsString], parent: InstanceId) -> std::io::Result<u32> {
        let mut command = Command::new(PROGRAM);
        if let Some((name, arguments)) = self.arguments.split_first() {
            command.arg0(name).args(arguments);
        }
        command.args(extra).env(PARENT, parent.to_string()).env_remove(START_TOKEN).stdin(Stdio::null());
        let (living, allowed) = (Arc::clone(&self.living), self.allowed.clone());
        let (tell, told) = sync_channel(1);
        std::thread::Builder::new().name("child".into()).spawn(move || {
            if let Some(allowed) = allowed {
                let _ = allowed.restore();
            }
            match command.spawn() {
                Ok(child) => {
                    register(&living, child.id());
                    let _ = tell.send(Ok(child.id()));
                    see_out(child, &living);
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        })?;
        told.recv().unwrap_or_else(|_| Err(std::io::ErrorKind::Interrupted.into()))
    }

    /// Tells all to leave.
    pub(super) fn dismiss(&self) {
        for child in living(&self.living).drain(..) {
            // It may be gone by now.
            let _ = rustix::process::pidfd_send_signal(&child.handle, Signal::TERM);
        }
    }
}

/// Takes a child that was just started, and so is not reaped, into the list.
fn register(all: &Mutex<Vec<Child>>, pid: u32) {
    let handle = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(rustix::io::Errno::SRCH)
        .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()));
    match handle {
        Ok(handle) => living(all).push(Child { pid, handle }),
        Err(error) => log::warn!("child {pid} will not be told when its parent leaves: {error}"),
    }
    log::info!("started child {pid}");
}

/// Waits for a child's end.
fn see_out(mut child: std::process::Child, all: &Mutex<Vec<Child>>) {
    let pid = child.id();
    let end = child.wait();
    living(all).retain(|child| child.pid != pid);
    match end {
        Ok(status) if status.success() => log::info!("child {pid} has left"),
        Ok(status) => log::warn!("child {pid} ended with {status}"),
        Err(error) => log::warn!("child {pid} cannot be waited for: {error}"),
    }
}

fn living(all: &Mutex<Vec<Child>>) -> MutexGuard<'_, Vec<Child>> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The arguments of a command line without these options, which take a value each.
pub(super) fn without(command: &clap::Command, arguments: &[OsString], options: &[&str]) -> Vec<OsString> {
    let is_one = |long: Option<&str>| long.is_some_and(|long| options.contains(&long));
    let mut kept = Vec::with_capacity(arguments.len());
    let mut rest = arguments.iter();
    kept.extend(rest.next().cloned());
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy();
        if text == "--" {
            kept.push(argument.clone());
            kept.extend(rest.cloned());
            break;
        }
        if let Some(long) = text.strip_prefix("--") {
            let (name, value) = long.split_once('=').map_or((long, None), |(n, v)| (n, Some(v)));
            let known = command.get_arguments().find(|a| a.get_long() == Some(name));
            let separate = known.is_some_and(|a| a.get_action().takes_values()) && value.is_none();
            let value = if separate { rest.next() } else { None };
            if !is_one(known.and_then(clap::Arg::get_long)) {
                kept.push(argument.clone());
                kept.extend(value.cloned());
            }
        } else if let Some(group) = text.strip_prefix('-').filter(|group| !group.is_empty()) {
            let takes = |letter: char| {
                command
                    .get_arguments()
                    .find(|a| a.get_short() == Some(letter) && a.get_action().takes_values())
            };
            // Flags may stand before the one letter that takes a value: `-sm3`.
            let valued = group.char_indices().find_map(|(at, letter)| Some((at, letter, takes(letter)?)));
            let separate = valued.is_some_and(|(at, letter, _)| at + letter.len_utf8() == group.len());
            let value = if separate { rest.next() } else { None };
            match valued {
                Some((at, _, option)) if is_one(option.get_long()) => {
                    kept.extend((at > 0).then(|| format!("-{}", &group[..at]).into()));
                }
                _ => {
                    kept.push(argument.clone());
                    kept.extend(value.cloned());
                }
            }
        } else {
            kept.push(argument.clone());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, ArgAction, Command};

    #[test]
    fn options_are_taken_out_in_all_their_forms() {
        let command = Command::new("nf")
            .arg(Arg::new("core").short('m').long("core"))
            .arg(Arg::new("instance-id").short('n').long("instance-id"))
            .arg(Arg::new("service-id").short('r').long("service-id"))
            .arg(Arg::new("shared").short('s').action(ArgAction::SetTrue));
        let without = |line: &str| {
            let arguments: Vec<OsString> = line.split(' ').map(Into::into).collect();
            let kept = super::without(&command, &arguments, &["core", "instance-id"]);
            kept.into_iter().map(|a| a.into_string().unwrap()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(without("nf -r 1 -m 3 -s"), "nf -r 1 -s");
        assert_eq!(without("nf -m3 -r1 -n=7 --core=2 --core 2 file"), "nf -r1 file");
        assert_eq!(without("nf -sm 3 -sn7 -sr 1 --instance-id 5"), "nf -s -s -sr 1");
        assert_eq!(without("nf --service-id -1 -r -m -m 2"), "nf --service-id -1 -r -m");
        assert_eq!(without("nf -m 1 -- -m 1"), "nf -- -m 1");
        assert_eq!(without("nf -m"), "nf");
    }
}
