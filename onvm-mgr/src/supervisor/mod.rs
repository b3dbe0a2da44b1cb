//! Processes that the manager starts and keeps running.
//!
//! It knows how many of each service are wanted, starts what is missing, and after a death starts the next one (`backoff`).
//! What a process is there for is the server's business. A process is known by its *start token* (`3.17`: service 3, the
//! seventeenth start), which it tells when it attaches. NFs that come back to a manager that was itself started again bring
//! their old tokens along and are taken in as if it had started them.

mod backoff;
mod logs;
mod process;
mod unattached;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use onvm_lib::protocol::{InstanceId, ServiceId};

use crate::plan::Service;
use backoff::{Backoff, Decision};

/// How long NFs of a manager that died may take to come back before new ones are started in their place.
const GRACE: Duration = Duration::from_millis(500);
/// How long processes whose NFs have left may go on when the manager ends.
const END_TIME: Duration = Duration::from_secs(2);
/// Size at which a log is turned over.
const LOG_LIMIT: u64 = 16 << 20;
/// Logs of processes that have ended and are remembered.
const MAX_ENDED: usize = 64;
/// How often sizes of logs are looked at.
const LOG_CHECK: Duration = Duration::from_secs(10);

/// A process.
#[derive(Debug)]
struct Process {
    token: String,
    service: ServiceId,
    pid: u32,
    /// None for one that another manager started.
    child: Option<Child>,
    instance: Option<InstanceId>,
    started: Instant,
    /// When it had set itself up: from then on it lives.
    ready: Option<Instant>,
    log: PathBuf,
    /// It is to replace another, and does not count until it has.
    successor: bool,
    /// It was told to leave: its end is no death.
    let_go: bool,
    /// Why it was killed before it attached.
    killed_for: Option<String>,
    how: Option<String>,
}

impl Process {
    fn log(&self, ended: bool) -> Log {
        let (service, instance) = (self.service, self.instance);
        Log { service, instance, token: self.token.clone(), path: self.log.clone(), ended }
    }
}

/// A process that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) token: String,
    pub(crate) service: ServiceId,
    pub(crate) pid: u32,
    pub(crate) instance: Option<InstanceId>,
    /// How, in words.
    pub(crate) how: String,
    /// Nobody had told it to leave, and it will not be started again.
    pub(crate) gave_up: bool,
}

/// A process that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Started {
    pub(crate) token: String,
    pub(crate) pid: u32,
}

/// Where the output of a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) service: ServiceId,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) token: String,
    pub(crate) path: PathBuf,
    /// The process is gone.
    pub(crate) ended: bool,
}

#[derive(Debug, Default)]
struct Rows {
    backoff: Backoff,
    start_at: Option<Instant>,
    gave_up: bool,
}

/// All processes.
#[derive(Debug)]
pub(crate) struct Supervisor {
    socket: PathBuf,
    log_directory: PathBuf,
    processes: Vec<Process>,
    /// Logs of those that have ended, the latest last.
    ended_logs: VecDeque<Log>,
    rows: BTreeMap<ServiceId, Rows>,
    starts: u32,
    nothing_before: Option<Instant>,
    next_log_check: Instant,
}

impl Supervisor {
    /// With `after_a_death` of another manager at the same socket, its NFs are waited for before any are started.
    pub(crate) fn new(socket: &Path, log_directory: Option<&Path>, after_a_death: bool) -> Self {
        let now = Instant::now();
        let directory = log_directory.map_or_else(|| socket.with_extension("logs"), Path::to_path_buf);
        Self {
            socket: socket.to_path_buf(),
            processes: Vec::new(),
            ended_logs: VecDeque::new(),
            rows: BTreeMap::new(),
            // NFs of a manager that was here before may still write to their logs.
            starts: logs::last_number(&directory),
            log_directory: directory,
            nothing_before: after_a_death.then_some(now + GRACE),
            next_log_check: now + LOG_CHECK,
        }
    }

    /// Directory of the logs.
    pub(crate) fn log_directory(&self) -> &Path {
        &self.log_directory
    }

    /// Whether NFs of a manager that died before may still come, with what they know.
    pub(crate) fn waits_for_old_ones(&self, now: Instant) -> bool {
        self.nothing_before.is_some_and(|at| now < at)
    }

    /// Services of which a process is to be started now.
    pub(crate) fn due(&self, services: &BTreeMap<ServiceId, Service>, now: Instant) -> Vec<ServiceId> {
        if self.waits_for_old_ones(now) {
            return Vec::new();
        }
        let due = |id: &ServiceId| {
            self.rows.get(id).is_none_or(|rows| !rows.gave_up && rows.start_at.is_none_or(|at| at <= now))
        };
        let missing = |id: &ServiceId, s: &Service| self.running(*id) < wanted(s) && due(id);
        services.iter().filter(|(id, s)| missing(id, s)).map(|(id, _)| *id).collect()
    }

    /// When the next process is to be started, or a log to be looked at.
    pub(crate) fn next_deadline(&self, services: &BTreeMap<ServiceId, Service>) -> Option<Instant> {
        let missing = services.iter().filter(|(id, s)| self.running(**id) < wanted(s));
        let start = missing.filter_map(|(id, _)| match self.rows.get(id) {
            Some(rows) if rows.gave_up => None,
            Some(rows) => rows.start_at.max(self.nothing_before),
            None => self.nothing_before,
        });
        let logs = (!self.processes.is_empty()).then_some(self.next_log_check);
        start.chain(logs).min()
    }

    /// Processes of a service that count.
    pub(crate) fn running(&self, service: ServiceId) -> u32 {
        let counts = |p: &&Process| p.service == service && !p.successor && !p.let_go && p.how.is_none();
        u32::try_from(self.processes.iter().filter(counts).count()).unwrap_or(u32::MAX)
    }

    /// Starts a process of a service; as a `successor` it does not count until [`Supervisor::substitute`].
    ///
    /// # Errors
    /// Why it could not be started, in words for the user.
    pub(crate) fn start(
        &mut self,
        id: ServiceId,
        service: &Service,
        successor: bool,
    ) -> Result<Started, String> {
        self.starts += 1;
        // Tokens of this manager must differ from those of a former one whose NFs may come back.
        let number = self.starts;
        let token = format!("{id}.{}.{number}", std::process::id());
        let started = self.new_log(id, service, number).and_then(|log| {
            let start = process::Start { service: id, token: &token, socket: &self.socket, log: &log };
            process::start(service, &start).map(|child| (child, log))
        });
        let (child, log) = match started {
            Ok(started) => started,
            Err(error) => {
                self.count_death(id, service, Duration::ZERO);
                return Err(error);
            }
        };
        let pid = child.id();
        self.processes.push(Process {
            token: token.clone(),
            service: id,
            pid,
            child: Some(child),
            instance: None,
            started: Instant::now(),
            ready: None,
            log,
            successor,
            let_go: false,
            killed_for: None,
            how: None,
        });
        Ok(Started { token, pid })
    }

    /// Counts a death of a service's command; true if it is given up.
    fn count_death(&mut self, id: ServiceId, service: &Service, lived: Duration) -> bool {
        let rows = self.rows.entry(id).or_default();
        // Those of one service that are killed together are no row of deaths.
        match rows.backoff.died(&service.restart, wanted(service), Instant::now(), lived) {
            Decision::StartAt(at) => rows.start_at = Some(at),
            Decision::GiveUp => rows.gave_up = true,
        }
        rows.gave_up
    }

    /// An operator wants a service again that was given up.
    pub(crate) fn try_again(&mut self, service: ServiceId) {
        self.rows.remove(&service);
    }

    /// Whether a process that attaches is not wanted: fewer are wanted by now, or it comes back from another manager to a
    /// service that has as many as are wanted without it.
    pub(crate) fn is_surplus(
        &self,
        services: &BTreeMap<ServiceId, Service>,
        token: &str,
        service: ServiceId,
    ) -> bool {
        match self.processes.iter().find(|p| p.token == token) {
            Some(ours) if ours.successor || ours.service != service => false,
            Some(_) => self.running(service) > services.get(&service).map_or(0, wanted),
            None => {
                let plan = services.get(&service).filter(|s| !s.command.is_empty());
                plan.is_some() && is_of(token, service) && self.has_enough(plan, service)
            }
        }
    }

    /// Whether a service has all processes that are wanted, successors that have not taken a place apart.
    pub(crate) fn has_enough(&self, plan: Option<&Service>, service: ServiceId) -> bool {
        self.running(service) >= plan.map_or(0, wanted)
    }

    /// A process has attached. One that another manager had started is taken in.
    pub(crate) fn attached(&mut self, token: &str, service: ServiceId, pid: u32, instance: InstanceId) {
        if let Some(process) = self.processes.iter_mut().find(|p| p.token == token) {
            process.instance = Some(instance);
            return;
        }
        if is_of(token, service) {
            let number = token.rsplit('.').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            self.processes.push(Process {
                token: token.to_string(),
                service,
                pid,
                child: None,
                instance: Some(instance),
                started: Instant::now(),
                ready: None,
                log: self.find_log(service, number).unwrap_or_default(),
                successor: false,
                let_go: false,
                killed_for: None,
                how: None,
            });
        }
    }

    /// An instance has set itself up.
    pub(crate) fn is_ready(&mut self, instance: InstanceId) {
        let now = Instant::now();
        self.processes.iter_mut().filter(|p| p.instance == Some(instance)).for_each(|p| p.ready = Some(now));
    }

    /// Looks for processes that have ended.
    pub(crate) fn reap(&mut self, services: &BTreeMap<ServiceId, Service>) -> Vec<Ended> {
        for process in &mut self.processes {
            if let Some(child) = &mut process.child
                && process.how.is_none()
                && let Ok(Some(status)) = child.try_wait()
            {
                process.how = Some(process.killed_for.take().unwrap_or_else(|| process::words(status)));
            }
        }
        let gone = |p: &Process| p.how.is_some();
        let (ended, running) = std::mem::take(&mut self.processes).into_iter().partition(gone);
        self.processes = running;
        let ended: Vec<Process> = ended;
        ended.into_iter().map(|process| self.ended(services, process)).collect()
    }

    fn ended(&mut self, services: &BTreeMap<ServiceId, Service>, process: Process) -> Ended {
        // Who was never ready has failed to start, however long that took.
        let lived = process.ready.map_or(Duration::ZERO, |ready| ready.elapsed());
        let gave_up = match services.get(&process.service) {
            Some(service) if !process.let_go && !process.successor => {
                self.count_death(process.service, service, lived)
            }
            _ => false,
        };
        if self.ended_logs.len() >= MAX_ENDED {
            self.ended_logs.pop_front();
        }
        self.ended_logs.push_back(process.log(true));
        Ended {
            token: process.token,
            service: process.service,
            pid: process.pid,
            instance: process.instance,
            how: process.how.unwrap_or_default(),
            gave_up,
        }
    }

    /// The process of an instance is gone: for those that are not our children.
    pub(crate) fn instance_gone(&mut self, instance: InstanceId) {
        for process in &mut self.processes {
            if process.instance == Some(instance) && process.child.is_none() {
                process.how = Some("it ended".into());
            }
        }
    }

    /// An instance is to leave, and none is to be started in its place.
    pub(crate) fn let_go(&mut self, instance: InstanceId) {
        self.processes.iter_mut().filter(|p| p.instance == Some(instance)).for_each(|p| p.let_go = true);
    }

    /// A successor has taken the place of an instance that is gone.
    pub(crate) fn substitute(&mut self, token: &str) {
        self.processes.iter_mut().filter(|p| p.token == token).for_each(|p| p.successor = false);
    }

    /// Waits for those that have been told to end, and kills those that take too long: an NF may have left while the script
    /// that started it goes on.
    pub(crate) fn wait_for_let_go(&mut self) {
        let until = Instant::now() + END_TIME;
        for process in self.processes.iter_mut().filter(|p| p.let_go) {
            let Some(child) = &mut process.child else { continue };
            while matches!(child.try_wait(), Ok(None)) {
                if Instant::now() >= until {
                    log::warn!(
                        "process {} of service {} does not end: it is killed",
                        process.pid,
                        process.service
                    );
                    let _ = child.kill();
                    let _ = child.wait();
                    break;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    /// Services and instances of processes that run.
    pub(crate) fn instances(&self) -> impl Iterator<Item = (ServiceId, InstanceId)> {
        self.processes.iter().filter_map(|p| Some((p.service, p.instance?)))
    }

    /// Logs of processes, those that run first, then those that have ended, the latest first.
    pub(crate) fn logs(&self) -> impl Iterator<Item = Log> {
        self.processes.iter().map(|p| p.log(false)).chain(self.ended_logs.iter().rev().cloned())
    }

    /// Turns over logs that have grown too long: what was in them is kept once.
    pub(crate) fn check_logs(&mut self, now: Instant) {
        if now < self.next_log_check {
            return;
        }
        self.next_log_check = now + LOG_CHECK;
        for process in &self.processes {
            let long = std::fs::metadata(&process.log).is_ok_and(|m| m.len() > LOG_LIMIT);
            if long {
                logs::turn_over(process.log.clone());
            }
        }
    }
}

/// Whether a start token is one of a service.
fn is_of(token: &str, service: ServiceId) -> bool {
    token.split('.').next().and_then(|id| id.parse().ok()) == Some(service)
}

/// Processes of a service that the plan wants.
fn wanted(service: &Service) -> u32 {
    if service.command.is_empty() { 0 } else { service.instances + service.standby }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(command: &[&str], instances: u32) -> BTreeMap<ServiceId, Service> {
        let command = command.iter().map(|s| (*s).to_string()).collect();
        [(3, Service { name: "nf".into(), command, instances, ..Service::default() })].into()
    }

    fn wait_for_end(s: &mut Supervisor, services: &BTreeMap<ServiceId, Service>) -> Vec<Ended> {
        for _ in 0..6000 {
            let ended = s.reap(services);
            if !ended.is_empty() {
                return ended;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("nothing ended");
    }

    #[test]
    fn what_dies_is_started_again_until_it_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let mut s = Supervisor::new(&directory.path().join("s.sock"), None, false);
        let mut plan = services(&["sh", "-c", "exit 9"], 1);
        plan.get_mut(&3).unwrap().restart.give_up = 2;
        plan.get_mut(&3).unwrap().restart.delay = Duration::from_millis(1);
        for round in 0..3 {
            std::thread::sleep(Duration::from_millis(5));
            assert_eq!(s.due(&plan, Instant::now()), [3], "round {round}");
            s.start(3, &plan[&3], false).unwrap();
            assert!(s.due(&plan, Instant::now()).is_empty());
            let ended = wait_for_end(&mut s, &plan);
            assert_eq!((ended[0].how.as_str(), ended[0].gave_up), ("it ended with exit code 9", round == 2));
        }
        assert!(s.due(&plan, Instant::now()).is_empty());
        assert_eq!(s.next_deadline(&plan), None);
        s.try_again(3);
        assert_eq!(s.due(&plan, Instant::now()), [3]);
        assert!(directory.path().join("s.logs/nf-3.1.log").exists());
    }

    #[test]
    fn nfs_of_a_manager_that_died_are_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let mut s = Supervisor::new(&directory.path().join("s.sock"), None, true);
        let plan = services(&["sh", "-c", "true"], 1);
        let now = Instant::now();
        assert!(s.due(&plan, now).is_empty());
        assert!(s.next_deadline(&plan).is_some());
        s.attached("3.9999.4", 3, 4711, 2);
        assert!(s.due(&plan, now + GRACE).is_empty(), "it has come back");
        s.instance_gone(2);
        assert_eq!(s.reap(&plan).len(), 1);
        assert_eq!(s.due(&plan, now + GRACE), [3]);
    }

    #[test]
    fn a_successor_counts_when_it_has_taken_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let mut s = Supervisor::new(&directory.path().join("s.sock"), None, false);
        let plan = services(&["sleep", "100"], 1);
        let mut sleeper = plan[&3].clone();
        sleeper.command = ["sh", "-c", "sleep 100"].map(String::from).into();
        let old = s.start(3, &sleeper, false).unwrap();
        s.attached(&old.token, 3, old.pid, 1);
        let new = s.start(3, &sleeper, true).unwrap();
        s.attached(&new.token, 3, new.pid, 2);
        s.let_go(1);
        assert_eq!(s.due(&plan, Instant::now()), [3], "the successor does not count yet");
        s.substitute(&new.token);
        assert!(s.due(&plan, Instant::now()).is_empty());
        for process in &mut s.processes {
            process.child.as_mut().unwrap().kill().unwrap();
        }
        assert!(wait_for_end(&mut s, &plan).iter().all(|e| e.how.contains("SIGKILL")));
    }
}
