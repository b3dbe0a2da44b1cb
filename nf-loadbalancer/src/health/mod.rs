//! Active checks: a thread that asks backends, over the kernel's own sockets, whether they are there.
//!
//! ```text
//! targets ─▶ due? ─▶ probe: connect │ connect, GET, read │ echo ─▶ good or bad ─▶ judge: rise, fall ─▶ news ─▶ packets
//! ```
//! One thread asks all of them; it waits in `poll` for whoever answers first. Only changes are news. A backend that was
//! never asked before is down at its first bad answer, so that a service does not begin with one that is not there.
//!
//! The checks go the way that the kernel's routes say, not through the balancer's ports: whoever checks must have an
//! address from which the backends can be reached.

mod probe;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::config::{Config, Health, Probe};
use probe::{Asked, Progress};

/// Longest wait before new targets are looked for.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// Someone to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The backend's slot.
    pub slot: u32,
    /// The backend's number, which no other has.
    pub id: u64,
    /// Where to ask.
    pub address: IpAddr,
    /// Where to ask.
    pub port: u16,
    /// How to ask.
    pub health: Health,
}

/// Someone's health has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The backend's slot.
    pub slot: u32,
    /// The backend's number.
    pub id: u64,
    /// Whether it is well.
    pub good: bool,
    /// The last answer, in words.
    pub what: String,
}

/// The thread that checks.
#[derive(Debug)]
pub struct Checker {
    targets: Sender<Vec<Target>>,
    news: Receiver<News>,
}

impl Checker {
    /// Starts it.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start() -> std::io::Result<Self> {
        let (to, targets) = channel();
        let (news, from) = channel();
        std::thread::Builder::new().name("health".into()).spawn(move || {
            onvm_lib::cpu::leave_pinned();
            Watch { all: Vec::new(), news }.run(&targets);
        })?;
        Ok(Self { targets: to, news: from })
    }

    /// These are to be checked from now on, and no others. Those that were checked before in the same way go on as
    /// they were.
    pub fn check(&self, targets: Vec<Target>) {
        // The thread ends with this sender only.
        let _ = self.targets.send(targets);
    }

    /// The next change.
    pub fn news(&self) -> Option<News> {
        self.news.try_recv().ok()
    }
}

/// Whether this process may ask what its configuration wants to be asked: ICMP echoes are a privilege.
///
/// # Errors
/// What to do about it.
pub fn permitted(config: &Config) -> Result<(), String> {
    for service in &config.services {
        if service.health.as_ref().is_none_or(|health| health.probe != Probe::Icmp) {
            continue;
        }
        for backend in &service.backends {
            if let Err(error) = probe::ping_socket(backend.address) {
                return Err(format!(
                    "services.{}.health: ICMP echoes are not permitted here ({error}): widen net.ipv4.ping_group_range \
                     to this group, give CAP_NET_RAW, or check with tcp or http",
                    service.name
                ));
            }
        }
    }
    Ok(())
}

/// A target and how it has answered.
#[derive(Debug)]
struct Watched {
    target: Target,
    due: Instant,
    asked: Option<Asked>,
    judge: Judge,
}

/// Counts answers.
#[derive(Clone, Copy, Debug, Default)]
struct Judge {
    /// What was last said; none: nothing yet.
    said: Option<bool>,
    good: u32,
    bad: u32,
}

impl Judge {
    /// Takes an answer; whether it changes what is to be said.
    fn take(&mut self, good: bool, rise: u32, fall: u32) -> bool {
        if good {
            (self.good, self.bad) = (self.good.saturating_add(1), 0);
        } else {
            (self.good, self.bad) = (0, self.bad.saturating_add(1));
        }
        let verdict = match self.said {
            None => true,
            Some(true) => self.bad >= fall,
            Some(false) => self.good >= rise,
        };
        let changed = verdict && self.said != Some(good);
        if changed {
            self.said = Some(good);
        }
        changed
    }
}

struct Watch {
    all: Vec<Watched>,
    news: Sender<News>,
}

impl Watch {
    fn run(&mut self, targets: &Receiver<Vec<Target>>) {
        loop {
            let new = if self.all.is_empty() {
                match targets.recv() {
                    Ok(new) => Some(new),
                    Err(_) => return,
                }
            } else {
                match targets.try_recv() {
                    Ok(new) => Some(new),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Disconnected) => return,
                }
            };
            if let Some(new) = new {
                self.replace(new);
            }
            self.ask_those_due();
            self.wait();
            self.hear();
        }
    }

    fn replace(&mut self, targets: Vec<Target>) {
        let now = Instant::now();
        let count = u32::try_from(targets.len()).unwrap_or(u32::MAX).max(1);
        let old = std::mem::take(&mut self.all).into_iter();
        let mut old: HashMap<u64, Watched> = old.map(|watched| (watched.target.id, watched)).collect();
        for (number, target) in (0..).zip(targets) {
            let judge = match old.remove(&target.id) {
                Some(watched) if watched.target == target => {
                    self.all.push(watched);
                    continue;
                }
                before => before.map(|watched| watched.judge).unwrap_or_default(),
            };
            // Spread over the interval, so that they are not all asked at once.
            let first = (target.health.interval / count * number).min(Duration::from_secs(1));
            self.all.push(Watched { target, due: now + first, asked: None, judge });
        }
    }

    fn ask_those_due(&mut self) {
        let now = Instant::now();
        for number in 0..self.all.len() {
            let watched = &mut self.all[number];
            if watched.asked.is_some() || watched.due > now {
                continue;
            }
            watched.due = now + watched.target.health.interval;
            match Asked::new(&watched.target, now) {
                Ok(asked) => watched.asked = Some(asked),
                Err(what) => self.answer(number, Err(what)),
            }
        }
    }

    /// Waits until someone answers, a time is over, or someone is due.
    fn wait(&self) {
        let now = Instant::now();
        let next = self.all.iter().map(|w| w.asked.as_ref().map_or(w.due, |asked| asked.deadline));
        let wait = next.min().map_or(LONGEST_WAIT, |at| at.saturating_duration_since(now)).min(LONGEST_WAIT);
        let asked = self.all.iter().filter_map(|w| w.asked.as_ref());
        let mut fds: Vec<PollFd<'_>> = asked
            .map(|asked| {
                let flags = if asked.is_writing() { PollFlags::OUT } else { PollFlags::IN };
                PollFd::new(&asked.socket, flags)
            })
            .collect();
        let timeout = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(0),
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        // An interrupted wait is a short one.
        let _ = poll(&mut fds, Some(&timeout));
    }

    fn hear(&mut self) {
        let now = Instant::now();
        for number in 0..self.all.len() {
            let watched = &mut self.all[number];
            let Some(asked) = &mut watched.asked else { continue };
            let outcome = match asked.go_on(&watched.target.health.probe) {
                Progress::Done(outcome) => outcome,
                Progress::Waiting if now >= asked.deadline => {
                    Err(format!("no answer within {} s", watched.target.health.timeout.as_secs_f64()))
                }
                Progress::Waiting => continue,
            };
            watched.asked = None;
            self.answer(number, outcome);
        }
    }

    fn answer(&mut self, number: usize, outcome: Result<String, String>) {
        let watched = &mut self.all[number];
        let (target, good) = (&watched.target, outcome.is_ok());
        if watched.judge.take(good, target.health.rise, target.health.fall) {
            let what = outcome.unwrap_or_else(|what| what);
            let _ = self.news.send(News { slot: target.slot, id: target.id, good, what });
        }
    }
}

#[cfg(test)]
mod tests;
