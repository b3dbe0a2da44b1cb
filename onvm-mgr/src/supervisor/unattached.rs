//! Processes that have not attached: those that take too long for it, and those that nobody waits for any more.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{Process, Supervisor};

impl Process {
    /// It has not attached, and should.
    fn is_expected(&self) -> bool {
        let ended = self.how.is_some() || self.let_go || self.killed_for.is_some();
        self.child.is_some() && self.instance.is_none() && !self.successor && !ended
    }
}

impl Supervisor {
    /// Kills those that have not attached within `limit`, with what they have started; successors have a limit of their own.
    pub(crate) fn kill_unattached(&mut self, limit: Duration, now: Instant) {
        for process in self.processes.iter_mut().filter(|p| p.is_expected() && p.started + limit <= now) {
            let why = format!("it did not attach within {limit:?} (--setup-timeout)");
            log::error!("service {}: pid {} is killed: {why}", process.service, process.pid);
            process.killed_for = Some(why);
            // It leads a group of its own; it may have ended by itself.
            let group = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
            let _ = group.map(|group| kill_process_group(group, Signal::KILL));
        }
    }

    /// When the first of them has had its time.
    pub(crate) fn next_unattached(&self, limit: Duration) -> Option<Instant> {
        self.processes.iter().filter(|p| p.is_expected()).map(|p| p.started + limit).min()
    }

    /// Ends processes that have not attached: one by its token, or all.
    pub(crate) fn end_unattached(&mut self, token: Option<&str>) {
        let meant = |p: &&mut Process| p.instance.is_none() && token.is_none_or(|token| p.token == token);
        for process in self.processes.iter_mut().filter(meant) {
            process.let_go = true;
            if let Some(child) = &mut process.child {
                // It may have ended by itself.
                let _ = child.kill();
            }
        }
    }
}
