//! What a soak does to its network.

use std::time::{Duration, Instant};

use onvm_lib::protocol::{Request, Target};
use rustix::process::Signal;

use super::network::JUDGE;
use super::site::{HANG, Instance, SETTLE, Site};
use super::tide::TIDAL;
use crate::Dice;

macro_rules! operations {
    ($($variant:ident = $name:literal, $weight:literal, $text:literal;)*) => {
        /// One of them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Operation {
            $(#[doc = $text] $variant,)*
        }

        impl Operation {
            pub(super) const ALL: &[Self] = &[$(Self::$variant,)*];

            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// How often it comes, in proportion to the others.
            const fn weight(self) -> u64 {
                match self { $(Self::$variant => $weight,)* }
            }
        }
    };
}

operations! {
    Kill = "kill", 10, "SIGKILL to an instance.";
    Hang = "hang", 4, "SIGSTOP to an instance, which the manager must notice.";
    Scale = "scale", 8, "Another number of instances of a service.";
    Restart = "restart", 6, "Instances replaced by the same command.";
    Replace = "replace", 6, "Instances replaced by another command.";
    Drain = "drain", 4, "An instance leaves when nothing of it is inside.";
    Stop = "stop", 3, "An instance leaves at once.";
    Stutter = "stutter", 4, "SIGSTOP to an instance or the manager, and SIGCONT before anybody minds.";
    Pause = "pause and resume", 5, "Instances take no packets for a while.";
    Apply = "apply", 8, "An edited chain file.";
    ChainSet = "chain set", 6, "Another default chain.";
    Visit = "visit", 3, "An NF is started from a shell, and ended.";
    JudgeRestart = "judge replaced", 2, "The judge hands what it saw to a successor.";
    Manager = "manager killed", 2, "SIGKILL to the manager, and the next one.";
    Storm = "storm", 6, "Several of these at once.";
}

impl Operation {
    /// One of them, the likelier the heavier.
    pub(super) fn any(dice: &mut Dice) -> Self {
        let all: u64 = Self::ALL.iter().map(|o| o.weight()).sum();
        let mut left = dice.below(all);
        for operation in Self::ALL {
            if left < operation.weight() {
                return *operation;
            }
            left -= operation.weight();
        }
        Self::Kill
    }
}

impl Site {
    /// A service at random, but the judge.
    fn any_service(&mut self) -> (&'static str, u16) {
        let all: Vec<_> = self.network.services.iter().filter(|s| s.name != JUDGE).collect();
        let service = all[self.dice.index(all.len())];
        (service.name, service.id)
    }

    /// An instance at random that packets go to.
    fn any_instance(&mut self) -> Result<Option<(&'static str, Instance)>, String> {
        let (name, id) = self.any_service();
        // Of a service whose known flows stay where they are, one instance may have none.
        let idle = name == "monitor" && self.network.service(name).instances > 1;
        if idle || !self.network.in_use(name) {
            return Ok(None);
        }
        Ok(self.any_of(id)?.map(|instance| (name, instance)))
    }

    fn target(&mut self, id: u16) -> Result<(Target, Vec<String>), String> {
        let one = if self.dice.below(2) == 0 { self.any_of(id)? } else { None };
        Ok(match one {
            Some(one) => (Target::Instance(one.id), vec!["--instance".into(), one.id.to_string()]),
            None => (Target::Service(id), vec![id.to_string()]),
        })
    }

    /// Does it, and waits until everything is as it should be.
    pub(super) fn perform(&mut self, operation: Operation) -> Result<(), String> {
        let start = Instant::now();
        let said = match operation {
            Operation::Kill => self.kill(),
            Operation::Hang => self.hang(),
            Operation::Scale => self.scale(),
            Operation::Restart | Operation::Replace => self.replace(operation == Operation::Replace),
            Operation::Drain | Operation::Stop => self.dismiss(operation == Operation::Drain),
            Operation::Stutter => self.stutter(),
            Operation::Pause => self.pause(),
            Operation::Apply => self.edit_and_apply(),
            Operation::ChainSet => self.chain_set(),
            Operation::Visit => self.visit(),
            Operation::JudgeRestart => self.client_says("restart", &["nf", "restart", JUDGE]),
            Operation::Manager => self.restart_manager().map(|()| Some("killed and started again".into())),
            Operation::Storm => self.storm(),
        }?;
        let Some(said) = said else { return Ok(()) };
        self.say(&format!("{}: {said}", operation.name()));
        self.settle()?;
        let took = start.elapsed();
        self.times.add(operation.name(), took);
        self.say(&format!("    settled after {:.1} ms", took.as_secs_f64() * 1000.0));
        self.check()
    }

    fn client_says(&mut self, what: &str, arguments: &[&str]) -> Result<Option<String>, String> {
        let end = self.client(arguments);
        if end.code == Some(0) { Ok(Some(arguments.join(" "))) } else { Err(format!("{what}: {end}")) }
    }

    fn kill(&mut self) -> Result<Option<String>, String> {
        let (name, id) = self.any_service();
        let mut all = self.instances()?;
        all.retain(|i| i.service == id);
        if all.is_empty() {
            return Ok(None);
        }
        let victim = all.swap_remove(self.dice.index(all.len()));
        self.victims.insert(victim.pid);
        if self.dice.below(3) == 0 {
            let (body, ok) = self.ask(Request::NfKill { target: Target::Instance(victim.id) })?;
            if !ok {
                return Err(format!("nf kill: {body}"));
            }
        } else {
            victim.signal(Signal::KILL);
        }
        self.wait_for_end(&victim)?;
        Ok(Some(format!("{name}, instance {} (pid {}, {})", victim.id, victim.pid, victim.role)))
    }

    fn hang(&mut self) -> Result<Option<String>, String> {
        let Some((name, victim)) = self.any_instance()? else { return Ok(None) };
        self.victims.insert(victim.pid);
        victim.signal(Signal::STOP);
        let start = Instant::now();
        self.wait_for_end(&victim)?;
        let took = start.elapsed();
        // It may have waited for a processor before it was stopped.
        if took < HANG / 2 {
            return Err(format!("an instance that hung was killed after {took:?} already"));
        }
        Ok(Some(format!("{name}, instance {} (pid {})", victim.id, victim.pid)))
    }

    fn scale(&mut self) -> Result<Option<String>, String> {
        let (name, id) = self.any_service();
        // Of that with the tides the manager alone decides.
        if name == TIDAL {
            return Ok(None);
        }
        let most = u64::from(self.network.service(name).most);
        let instances = 1 + u32::try_from(self.dice.below(most)).unwrap_or(0);
        self.network.service(name).instances = instances;
        let (body, ok) = self.ask(Request::NfScale { service: id, instances })?;
        if ok { Ok(Some(format!("{name} to {instances}"))) } else { Err(format!("scale: {body}")) }
    }

    fn replace(&mut self, by_another: bool) -> Result<Option<String>, String> {
        let (name, id) = self.any_service();
        let (target, arguments) = self.target(id)?;
        if !by_another {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            return self.client_says("restart", &[&["nf", "restart"], &arguments[..]].concat());
        }
        let mut dice = Dice::from_seed(self.dice.any());
        let command = self.network.another_command(name, &mut dice);
        let said = format!("{name}, {target:?}: {}", command.join(" "));
        let directory = self.lab.path("").display().to_string();
        let directory = directory.trim_end_matches('/').to_string();
        let (body, ok) = self.ask(Request::NfReplace { target, command, directory, fresh: false })?;
        if ok { Ok(Some(said)) } else { Err(format!("replace {said}: {body}")) }
    }

    fn dismiss(&mut self, drain: bool) -> Result<Option<String>, String> {
        let Some((name, gone)) = self.any_instance()? else { return Ok(None) };
        let service = self.network.service(name);
        if service.instances < 2 {
            return Ok(None);
        }
        service.instances -= 1;
        let target = Target::Instance(gone.id);
        let (body, ok) =
            self.ask(if drain { Request::NfDrain { target } } else { Request::NfStop { target } })?;
        if !ok {
            return Err(format!("{body}"));
        }
        self.wait_for_end(&gone)?;
        Ok(Some(format!("{name}, instance {} (pid {})", gone.id, gone.pid)))
    }

    fn stutter(&mut self) -> Result<Option<String>, String> {
        let time = Duration::from_millis(20 + self.dice.below(500));
        if self.dice.below(4) == 0 {
            self.manager.signal(Signal::STOP);
            std::thread::sleep(time);
            self.manager.signal(Signal::CONT);
            return Ok(Some(format!("the manager, for {time:?}")));
        }
        let mut all = self.instances()?;
        let one = all.swap_remove(self.dice.index(all.len()));
        one.signal(Signal::STOP);
        std::thread::sleep(time);
        one.signal(Signal::CONT);
        Ok(Some(format!("instance {} (pid {}) of service {}, for {time:?}", one.id, one.pid, one.service)))
    }

    fn pause(&mut self) -> Result<Option<String>, String> {
        let judge = self.dice.below(6) == 0;
        let (name, id) = if judge { (JUDGE, self.network.service(JUDGE).id) } else { self.any_service() };
        let (target, _) = self.target(id)?;
        let (body, ok) = self.ask(Request::NfPause { target })?;
        if !ok {
            return Err(format!("pause: {body}"));
        }
        // One that is paused for longer than an NF may hang does not hang.
        let longest = if self.dice.below(4) == 0 { 1500 } else { 400 };
        let time = Duration::from_millis(20 + self.dice.below(longest));
        std::thread::sleep(time);
        let (body, ok) = self.ask(Request::NfResume { target })?;
        if !ok {
            return Err(format!("resume: {body}"));
        }
        Ok(Some(format!("{name}, {target:?}, for {time:?}")))
    }

    fn edit_and_apply(&mut self) -> Result<Option<String>, String> {
        let mut said = Vec::new();
        for _ in 0..=self.dice.below(3) {
            said.push(self.network.edit(&mut self.dice));
        }
        let (name, _) = self.any_service();
        if self.dice.below(3) == 0 && name != TIDAL {
            let (instances, standby) = (self.dice.below(3), self.dice.below(2));
            let service = self.network.service(name);
            service.instances = (1 + u32::try_from(instances).unwrap_or(0)).min(service.most);
            service.standby = u32::try_from(standby).unwrap_or(0);
            said.push(format!("{name} has {}, and {} by", service.instances, service.standby));
        }
        self.apply()?;
        Ok(Some(said.join("; ")))
    }

    fn chain_set(&mut self) -> Result<Option<String>, String> {
        let chain = self.network.edit_default(&mut self.dice);
        let said = format!("{chain:?}");
        let (body, ok) = self.ask(Request::ChainSet { chain })?;
        if ok { Ok(Some(said)) } else { Err(format!("chain set: {body}")) }
    }

    /// Somebody starts an NF by hand, and ends it again.
    fn visit(&mut self) -> Result<Option<String>, String> {
        let mut visitor = self.lab.nf("nf-forward", &["-r", "1"]);
        let pid = visitor.pid();
        self.wait_until("the visitor has attached", SETTLE, |site| {
            Ok(site.instances()?.iter().any(|i| i.pid == pid && i.state == "running"))
        })?;
        std::thread::sleep(Duration::from_millis(self.dice.below(100)));
        let killed = self.dice.below(2) == 0;
        if killed {
            self.victims.insert(pid);
        }
        visitor.signal(if killed { Signal::KILL } else { Signal::TERM });
        let _ = visitor.wait(SETTLE);
        Ok(Some(format!("pid {pid}, {}", if killed { "killed" } else { "left" })))
    }

    /// Does several things at once, and then has the manager put everything right.
    fn storm(&mut self) -> Result<Option<String>, String> {
        self.storm = true;
        let mut clients = Vec::new();
        let mut said = Vec::new();
        for _ in 0..2 + self.dice.below(4) {
            let (name, id) = self.any_service();
            let what = self.dice.below(7);
            let one = self.any_of(id)?;
            match (what, one) {
                (0, Some(one)) => {
                    self.victims.insert(one.pid);
                    one.signal(Signal::KILL);
                    said.push(format!("kill {name} {}", one.id));
                }
                (1, Some(one)) if self.network.in_use(name) => {
                    self.victims.insert(one.pid);
                    one.signal(Signal::STOP);
                    said.push(format!("stop {name} {}", one.id));
                }
                (2, _) => {
                    clients.push(self.lab.start("onvm-mgr", &["nf", "restart", name]));
                    said.push(format!("restart {name}"));
                }
                (3, Some(one)) if self.network.service(name).instances > 1 => {
                    let _ = self.ask(Request::NfDrain { target: Target::Instance(one.id) })?;
                    said.push(format!("drain {name} {}", one.id));
                }
                (3 | 4, _) if name != TIDAL => {
                    let instances = 1 + u32::try_from(self.dice.below(3)).unwrap_or(0);
                    let _ = self.ask(Request::NfScale { service: id, instances })?;
                    said.push(format!("scale {name} {instances}"));
                }
                (5, _) => {
                    let chain = self.network.edit_default(&mut self.dice);
                    said.push(format!("chain {chain:?}"));
                    let _ = self.ask(Request::ChainSet { chain })?;
                }
                _ => {
                    let _ = self.ask(Request::NfPause { target: Target::Service(id) })?;
                    said.push(format!("pause {name}"));
                }
            }
            std::thread::sleep(Duration::from_millis(self.dice.below(60)));
        }
        self.say(&format!("storm: {}", said.join("; ")));
        for id in self.network.services.iter().map(|s| s.id).collect::<Vec<_>>() {
            let _ = self.ask(Request::NfResume { target: Target::Service(id) })?;
        }
        for mut client in clients {
            let _ = client.wait(2 * SETTLE);
        }
        // Who has no packets since a chain changed does not hang, though it is stopped.
        let patience = Instant::now() + 3 * HANG;
        self.wait_until("who was stopped is gone", SETTLE, |site| {
            let mut stopped = site.instances()?;
            stopped.retain(|i| site.victims.contains(&i.pid));
            if Instant::now() > patience {
                stopped.iter().for_each(|i| i.signal(Signal::KILL));
            }
            Ok(stopped.is_empty())
        })?;
        self.apply()?;
        Ok(Some("over".into()))
    }
}
