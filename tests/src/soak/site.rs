//! The place where a soak happens: a manager with its NFs, and what is known of them.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use onvm_lib::protocol::{Line, Request};
use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::books::Books;
use super::lateness::Lateness;
use super::memory::{self, Memory};
use super::network::{JUDGE, Network, Service};
use super::report::Times;
use super::tide::Tides;
use crate::{Dice, Lab, Ledger, Process};

/// How long the manager may take until everything is as it should be.
pub(super) const SETTLE: Duration = Duration::from_secs(60);
/// Two tides, and some time for a machine that has other things to do.
const TIDES: Duration = Duration::from_secs(90);
/// How long an instance may hang.
pub(super) const HANG: Duration = Duration::from_secs(1);
/// A machine that lets a process wait for so long is too busy to tell who hangs.
const BUSY: Duration = Duration::from_millis(200);
/// Longest time without a numbered packet, but for that between two managers.
const LONGEST_GAP: Duration = Duration::from_secs(15);

/// An instance, as `nf list` shows it.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    pub(super) service: u16,
    pub(super) id: u32,
    pub(super) pid: u32,
    pub(super) state: String,
    pub(super) role: String,
}

impl Instance {
    fn read(value: &Value) -> Option<Self> {
        let number = |name: &str| value[name].as_u64().and_then(|n| u32::try_from(n).ok());
        Some(Self {
            service: u16::try_from(number("service")?).ok()?,
            id: number("instance")?,
            pid: number("pid")?,
            state: value["state"].as_str()?.into(),
            role: value["role"].as_str()?.into(),
        })
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

pub(super) struct Site {
    pub(super) lab: Lab,
    pub(super) manager: Process,
    pub(super) network: Network,
    /// The network of the beginning.
    home: Network,
    pub(super) dice: Dice,
    pub(super) began: Instant,
    seconds: u64,
    judged: PathBuf,
    events: u64,
    /// Processes that were killed or stopped on purpose.
    pub(super) victims: BTreeSet<u32>,
    /// Successors may die with those that they were to replace.
    pub(super) storm: bool,
    /// Packets that a change of routes did not wait for, since the last look.
    left: u64,
    /// Reordered packets that changes of routes had not waited for.
    pub(super) excused: u64,
    pub(super) lateness: Lateness,
    /// Instances that were taken for hung while the machine let nobody run.
    pub(super) starved: u64,
    pub(super) books: Books,
    pub(super) memory: Memory,
    pub(super) managers: Vec<(memory::Sample, memory::Sample)>,
    log: std::fs::File,
    event_log: std::fs::File,
    pub(super) tides: Tides,
    pub(super) times: Times,
    /// What goes to the log is printed, too.
    pub(super) verbose: bool,
}

impl Site {
    pub(super) fn new(
        lab: Lab,
        dice: Dice,
        captures: &[PathBuf],
        rate: u64,
        seconds: u64,
    ) -> Result<Self, String> {
        let _ = crate::program("order_nf");
        let judged = lab.path("judge.json");
        let home = Network::home(&judged, captures, rate);
        let create = |name: &str| std::fs::File::create(lab.path(name)).map_err(|e| e.to_string());
        let (log, event_log) = (create("operations.log")?, create("events.jsonl")?);
        let mut network = home.clone();
        let manager = start(&lab, &mut network, seconds)?;
        Ok(Self {
            lab,
            manager,
            network,
            home,
            dice,
            began: Instant::now(),
            seconds,
            judged,
            events: 0,
            victims: BTreeSet::new(),
            storm: false,
            left: 0,
            excused: 0,
            lateness: Lateness::watch(),
            starved: 0,
            books: Books::new(),
            memory: Memory::default(),
            managers: Vec::new(),
            log,
            event_log,
            tides: Tides::default(),
            times: Times::default(),
            verbose: false,
        })
    }

    /// Writes into the log of the run.
    pub(super) fn say(&mut self, what: &str) {
        let line = format!("[{:9.3}] {what}", self.began.elapsed().as_secs_f64());
        if self.verbose {
            eprintln!("{line}");
        }
        let _ = writeln!(self.log, "{line}");
    }

    pub(super) fn ask(&self, request: Request) -> Result<(Value, bool), String> {
        let said = format!("{request:?}");
        self.lab.ask(request).map_err(|e| format!("{said}: {e}"))
    }

    pub(super) fn instances(&self) -> Result<Vec<Instance>, String> {
        let (body, _) = self.ask(Request::NfList)?;
        let all = body["instances"].as_array().ok_or_else(|| format!("no list of instances: {body}"))?;
        Ok(all.iter().filter_map(Instance::read).collect())
    }

    /// One instance of a service that has packets to work on.
    pub(super) fn any_of(&mut self, service: u16) -> Result<Option<Instance>, String> {
        let mut all = self.instances()?;
        all.retain(|i| i.service == service && i.role == "share" && i.state == "running");
        Ok((!all.is_empty()).then(|| all.swap_remove(self.dice.index(all.len()))))
    }

    /// Waits until something is so.
    pub(super) fn wait_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut so: impl FnMut(&mut Self) -> Result<bool, String>,
    ) -> Result<(), String> {
        let until = Instant::now() + limit;
        while !so(self)? {
            if Instant::now() > until {
                let instances: Vec<String> = self.instances()?.iter().map(|i| format!("{i:?}")).collect();
                return Err(format!("not within {limit:?}: {what}; there are\n  {}", instances.join("\n  ")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Waits for the end of an instance.
    pub(super) fn wait_for_end(&mut self, gone: &Instance) -> Result<(), String> {
        let what = format!("instance {} (pid {}) is gone", gone.id, gone.pid);
        let id = gone.id;
        self.wait_until(&what, SETTLE, |site| Ok(site.instances()?.iter().all(|i| i.id != id)))
    }

    /// What is not as it should be; none if all is.
    fn amiss(&self) -> Result<Option<String>, String> {
        let instances = self.instances()?;
        for service in &self.network.services {
            let of: Vec<&Instance> = instances.iter().filter(|i| i.service == service.id).collect();
            let count = |role: &str, state: &str| {
                let n = of.iter().filter(|i| i.role == role && i.state == state).count();
                u32::try_from(n).unwrap_or(u32::MAX)
            };
            let (shares, standby) = (count("share", "running"), count("standby", "ready"));
            let all = u32::try_from(of.len()).unwrap_or(u32::MAX);
            let wanted = service.shares();
            if !wanted.contains(&shares) || standby != service.standby || all != shares + standby {
                return Ok(Some(format!(
                    "{} has {wanted:?} instances that share and {} that stand by",
                    service.name, service.standby
                )));
            }
        }
        Ok(None)
    }

    /// Waits until everything is as it should be, and packets flow.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        let until = Instant::now() + SETTLE;
        while let Some(amiss) = self.amiss()? {
            if Instant::now() > until {
                return self.wait_until(&amiss, Duration::ZERO, |_| Ok(false));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let before = self.fresh_judge()?["packets"].as_u64();
        self.wait_until("numbered packets reach the judge", SETTLE, |site| {
            Ok(site.fresh_judge()?["packets"].as_u64() > before)
        })
    }

    /// What the judge says now.
    pub(super) fn fresh_judge(&self) -> Result<Value, String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let until = Instant::now() + SETTLE;
        loop {
            let text = std::fs::read_to_string(&self.judged).unwrap_or_default();
            if let Ok(facts) = serde_json::from_str::<Value>(&text)
                && facts["written_us"].as_u64() > Some(now)
                && facts["managers_lost"].as_u64() == Some(u64::from(self.books.managers) - 1)
            {
                return Ok(facts);
            }
            if Instant::now() > until {
                return Err(format!("the judge of order says nothing new; the last was {text}"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Looks at events since the last look.
    fn read_events(&mut self) -> Result<(), String> {
        let (body, _) = self.ask(Request::Events { after: self.events, follow: false })?;
        let judge = self.network.service(JUDGE).id;
        let late = self.lateness.take();
        if late > BUSY {
            self.say(&format!("the machine did not let this program run for {late:?}"));
        }
        for event in body["events"].as_array().into_iter().flatten() {
            let _ = writeln!(self.event_log, "{event}");
            self.events = event["number"].as_u64().unwrap_or(self.events);
            self.tides.note(event);
            let why = event["why"].as_str().unwrap_or_default();
            match event["event"].as_str().unwrap_or_default() {
                "route-change" => self.left += left(why),
                "gave-up" | "port-failed" | "recovered" => return Err(format!("event: {event}")),
                "crashed" | "killed" | "hung" => {
                    let pid = event["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
                    let excused = self.storm && why.contains("could not take the place");
                    let hung = event["event"] == "hung" && event["service"] != judge;
                    if hung && late > BUSY && !self.victims.contains(&pid) {
                        self.starved += 1;
                    } else if event["service"] == judge || !self.victims.contains(&pid) && !excused {
                        return Err(format!("nobody killed it: {event}"));
                    }
                }
                "replace-failed" if !self.storm => return Err(format!("event: {event}")),
                _ => {}
            }
        }
        Ok(())
    }

    /// Everything that must be so at any time: both sums balance, nothing is missing, nothing is reordered.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let (audit, balanced) = self.ask(Request::Audit)?;
        if !balanced {
            return Err(format!("the audit does not balance: {audit}"));
        }
        let judge = self.fresh_judge()?;
        let stats = Ledger(self.ask(Request::Stats)?.0);
        let reordered = self.books.note(&judge, &stats)?;
        self.read_events()?;
        let left = std::mem::take(&mut self.left);
        if reordered > 0 && left == 0 {
            return Err(format!("{reordered} packets came after later ones of their flow: {judge}"));
        }
        if reordered > 0 {
            self.say(&format!("    {reordered} reordered; a change of routes did not wait for {left}"));
        }
        self.excused += reordered;
        if u128::from(self.books.longest_gap_us) > LONGEST_GAP.as_micros() {
            return Err(format!("no numbered packet came for {} ms", self.books.longest_gap_us / 1000));
        }
        if !self.manager.is_running() {
            return Err("the manager has ended".into());
        }
        Ok(())
    }

    /// Has the manager follow the network as it is written down here.
    pub(super) fn apply(&mut self) -> Result<(), String> {
        self.write_file()?;
        let end = self.client(&["apply", &self.lab.file("chain.yaml")]);
        if end.code == Some(0) { Ok(()) } else { Err(format!("apply: {end}")) }
    }

    fn write_file(&self) -> Result<(), String> {
        std::fs::write(self.lab.path("chain.yaml"), self.network.yaml()).map_err(|e| e.to_string())
    }

    /// Runs a client command to its end.
    pub(super) fn client(&self, arguments: &[&str]) -> crate::End {
        self.lab.start("onvm-mgr", arguments).wait(2 * SETTLE)
    }

    /// Goes back to the network of the beginning, where it is seen what memory processes take.
    pub(super) fn go_home(&mut self) -> Result<(), String> {
        self.network = self.home.clone();
        self.apply()?;
        self.settle()?;
        self.check()?;
        let sum = |of: fn(&Service) -> u32| -> u32 { self.network.services.iter().map(of).sum() };
        let expected = sum(|s| s.shares().start() + s.standby)..=sum(|s| s.shares().end() + s.standby);
        let socket = self.lab.socket().to_path_buf();
        self.wait_until("no process is left over", SETTLE, |_| {
            let nfs = memory::processes(&socket).iter().filter(|(_, program)| program != "onvm-mgr").count();
            Ok(expected.contains(&u32::try_from(nfs).unwrap_or(u32::MAX)))
        })?;
        for (pid, program) in memory::processes(&socket) {
            if program == "onvm-mgr" {
                self.say(&format!("at home: {:?}", memory::Sample::of(pid)));
            }
            self.memory.look(&program, pid)?;
        }
        Ok(())
    }

    /// Waits until the manager has scaled by load, up and down; the tides go on.
    pub(super) fn wait_for_tides(&mut self) -> Result<(), String> {
        let what = "the service with tides grows and shrinks";
        self.wait_until(what, TIDES, |site| {
            site.read_events()?;
            Ok(site.tides.turned())
        })?;
        self.settle()
    }

    /// Kills the manager and starts the next one at the same socket; the NFs come back to it by themselves.
    pub(super) fn restart_manager(&mut self) -> Result<(), String> {
        self.check()?;
        self.manager.signal(Signal::KILL);
        let _ = self.manager.wait(SETTLE);
        self.manager_gone();
        self.books.close();
        self.books.managers += 1;
        self.events = 0;
        self.manager = start(&self.lab, &mut self.network, self.seconds)?;
        Ok(())
    }

    fn manager_gone(&mut self) {
        self.managers.extend(self.memory.of(self.manager.pid()));
        self.memory.forget(self.manager.pid());
    }

    /// Ends the manager in order, and looks at its last ledger.
    pub(super) fn end(&mut self) -> Result<(), String> {
        self.check()?;
        let end = self.client(&["down"]);
        if end.code != Some(0) {
            return Err(format!("down: {end}"));
        }
        let end = self.manager.wait(SETTLE);
        self.manager_gone();
        if end.code != Some(0) {
            return Err(format!("the manager: {end}"));
        }
        let ledger = Ledger(end.json());
        let judge = std::fs::read_to_string(&self.judged).map_err(|e| e.to_string())?;
        let judge = serde_json::from_str(&judge).map_err(|e| e.to_string())?;
        let reordered = self.books.note(&judge, &ledger)?;
        if reordered > 0 {
            return Err(format!("{reordered} packets came after later ones at the end: {judge}"));
        }
        let audit = &ledger.0["audit"];
        // A capture that is replayed at its own pace has the next packet ready, which has not come in yet.
        let pool = |name: &str| audit["pool"][name].as_u64().unwrap_or(0);
        let waits = pool("with_worker").min(1);
        let empty = audit["packets"]["inside"] == 0 && pool("free") + waits == pool("buffers");
        if !empty {
            return Err(format!("not all buffers are free at the end: {audit}"));
        }
        let socket = self.lab.socket().to_path_buf();
        let until = Instant::now() + SETTLE;
        while let Some((pid, program)) = memory::processes(&socket).first() {
            if Instant::now() > until {
                return Err(format!("{program} (pid {pid}) is left over"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.look_for_panics()
    }

    /// No program may have panicked.
    pub(super) fn look_for_panics(&self) -> Result<(), String> {
        let mut directories = vec![self.lab.path("")];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
                let path = entry.path();
                if path.is_dir() {
                    directories.push(path);
                } else if let Ok(bytes) = std::fs::read(&path)
                    && String::from_utf8_lossy(&bytes).contains("panicked at")
                {
                    return Err(format!("a program panicked: {}", path.display()));
                }
            }
        }
        Ok(())
    }

    /// Writes down what the manager and its NFs do at this moment.
    pub(super) fn dump(&self) {
        let _ = std::fs::write(self.lab.path("stats.json"), format!("{:?}", self.ask(Request::Stats)));
        let mut text = String::new();
        for (pid, program) in memory::processes(self.lab.socket()) {
            text += &format!("{program} {pid}\n");
            for name in ["wchan", "syscall", "schedstat", "status"] {
                let said = std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
                text += &format!("{name}: {said}\n");
            }
        }
        let _ = std::fs::write(self.lab.path("processes.txt"), text);
    }

    /// Kills whatever is still there.
    pub(super) fn clear(&mut self) {
        self.manager.signal(Signal::KILL);
        for (pid, _) in memory::processes(self.lab.socket()) {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// Packets that a change of routes did not wait for, as its event says.
fn left(why: &str) -> u64 {
    let words: Vec<&str> = why.split_whitespace().collect();
    let at = words.windows(3).find(|w| w[1] == "were" && w[2] == "left");
    at.and_then(|w| w[0].parse().ok()).unwrap_or(0)
}

/// Starts a manager with the network's chain file.
fn start(lab: &Lab, network: &mut Network, seconds: u64) -> Result<Process, String> {
    let path = lab.file("chain.yaml");
    std::fs::write(&path, network.yaml()).map_err(|e| e.to_string())?;
    let (hang, limit) = (HANG.as_secs().to_string(), (seconds + 300).to_string());
    let options = ["--json", "--no-pin", "--no-huge", "--hang-timeout", &hang, "-t", &limit];
    let arguments = [&["up", path.as_str()], &options[..]].concat();
    let mut manager = lab.start_in("onvm-mgr", &arguments, &[("RUST_LOG", "debug")]);
    let until = Instant::now() + SETTLE;
    while Line::connect(lab.socket()).is_err() {
        if Instant::now() > until || !manager.is_running() {
            return Err(format!("the manager makes no socket: {}", manager.errors()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(manager)
}

#[cfg(test)]
mod tests {
    #[test]
    fn events_tell_what_a_change_left() {
        assert_eq!(super::left("in 510042 µs, 12 packets waited, 3 were left"), 3);
        assert_eq!(super::left("something else"), 0);
    }
}
