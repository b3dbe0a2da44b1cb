//! When the ports open, and how the manager ends.

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use super::Server;
use crate::events::{Event, Kind};
use crate::worker::{Command, News};

/// How long packets that are inside may take to come out when the manager is told to stop.
const DRAIN_TIME: Duration = Duration::from_secs(3);
/// How long it waits after that for NFs that do not leave, killing them on the way.
const STOP_TIME: Duration = Duration::from_secs(6);

/// The phases of the manager; see the module documentation of `server`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Waiting,
    Running,
    Draining { until: Instant },
    Stopping { until: Instant },
    Ended,
}

impl Phase {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Draining { .. } => "draining",
            Self::Stopping { .. } => "stopping",
            Self::Ended => "ended",
        }
    }
}

impl Server {
    /// Opens the ports when every service that is waited for has an instance.
    pub(super) fn start_when_ready(&mut self) {
        if self.phase != Phase::Waiting {
            return;
        }
        let missing: Vec<String> =
            self.options.wait.iter().filter(|s| !self.services.contains_key(s)).map(u16::to_string).collect();
        if missing.is_empty() {
            self.phase = Phase::Running;
            self.worker.give(Command::StartReceiving);
            log::info!("ports are open");
        } else if !self.options.json {
            eprintln!("onvm-mgr: waiting for service {}", missing.join(", "));
        }
    }

    pub(super) fn hear_worker(&mut self) {
        while let Ok(news) = self.news.try_recv() {
            match news {
                News::Drained => {
                    log::info!("drained");
                    self.stop_nfs();
                }
                News::PortFailed { error } => {
                    eprintln!("onvm-mgr: {error}");
                    self.events.record(Event::new(Kind::PortFailed).why(error));
                    self.failed = true;
                }
                News::Violation { instance } => {
                    self.kill(instance, "it wrote nonsense where its ring's positions stand".into());
                }
                News::Died { instance } => self.stopped_working(instance, None, SystemTime::now()),
                News::Succeeded { instance, successor, at } => {
                    self.stopped_working(instance, Some(successor), at);
                }
                News::Remains(remains) => drop(remains),
                News::Reaped { instance, in_hand, passed_to_others } => {
                    log::info!(
                        "instance {instance} cleared up: {in_hand} packets were in its hands, \
                         {passed_to_others} that waited go on"
                    );
                }
                News::Waiting { service } => {
                    self.events.record(Event::new(Kind::NoInstance).service(service).why("packets wait"));
                    log::warn!(
                        "packets wait for service {service}: it has no instance (start one with -r {service})"
                    );
                }
                News::GaveUp { service, packets } => {
                    let why = format!("{packets} packets dropped");
                    self.events.record(Event::new(Kind::NoInstance).service(service).why(why));
                    log::warn!(
                        "{packets} packets dropped: service {service} has no instance (start one with -r {service})"
                    );
                }
                News::GateQuiet { left } => self.gate_quiet(left),
                News::GateOpen { waited } => self.gate_open(waited),
                News::Quarantined { instance, frame, note } => self.quarantine(instance, &frame, note),
                News::PortClosed { number, closed } => self.port_closed(number, closed),
                News::Recovered { buffers } => {
                    self.events.record(Event::new(Kind::Recovered).why(format!("{buffers} buffers")));
                    log::warn!("{buffers} buffers recovered that an NF had taken and never passed on");
                }
            }
        }
        self.answer_pending();
    }

    /// Receives no more, and lets come out what is inside.
    pub(super) fn drain(&mut self) {
        if matches!(self.phase, Phase::Waiting | Phase::Running) {
            self.phase = Phase::Draining { until: Instant::now() + DRAIN_TIME };
            self.events.record(Event::new(Kind::ManagerStopping));
            self.worker.give(Command::StopReceiving);
            let ids: Vec<u32> = self.instances.keys().copied().collect();
            for id in ids {
                self.works_off(id, "manager", "the manager stops");
            }
        }
    }

    /// Tells all NFs to leave. What still waits for an instance is dropped.
    pub(super) fn stop_nfs(&mut self) {
        if matches!(self.phase, Phase::Stopping { .. } | Phase::Ended) {
            return;
        }
        self.phase = Phase::Stopping { until: Instant::now() + STOP_TIME };
        self.worker.give(Command::StopReceiving);
        self.worker.give(Command::GiveUpWaiting);
        self.supervisor.end_unattached(None);
        let ids: Vec<u32> = self.instances.keys().copied().collect();
        for id in ids {
            self.ask_to_leave(id);
        }
        self.end_if_alone();
    }

    fn end_if_alone(&mut self) {
        if matches!(self.phase, Phase::Stopping { .. }) && self.instances.is_empty() && self.dying.is_empty()
        {
            self.phase = Phase::Ended;
        }
    }

    /// What depends on time alone.
    pub(super) fn on_time(&mut self) {
        let now = Instant::now();
        if let Some(limit) = self.options.time_limit
            && now - self.started >= limit
        {
            self.drain();
        }
        match self.phase {
            Phase::Draining { until } if now >= until => {
                log::warn!("not everything came out in time");
                self.stop_nfs();
            }
            Phase::Stopping { until } if now >= until => self.phase = Phase::Ended,
            _ => {}
        }
        self.bury_the_dead(now);
        self.kill_the_late();
        self.feel_pulses(now);
        self.measure_loads(now);
        self.check_replacements(now);
        self.start_missing(now);
        self.tell_followers();
        self.open_when_confirmed();
        let unread: Vec<u32> =
            self.instances.iter().filter(|(_, i)| !i.unread.is_empty()).map(|(id, _)| *id).collect();
        for id in unread {
            self.flush_unread(id);
        }
        if let (Some(at), Some(interval)) = (self.next_print, self.options.interval)
            && now >= at
        {
            self.next_print = Some(at.max(now - interval) + interval);
            self.order_print();
        }
        self.end_if_alone();
    }

    /// How long the event loop may sleep.
    pub(super) fn next_deadline(&self) -> rustix::time::Timespec {
        let now = Instant::now();
        let busy = self.instances.values().any(|i| i.kill_at.is_some() || !i.unread.is_empty());
        let mut wait = if busy { super::TICK } else { Duration::from_secs(60) };
        let limit = self.options.time_limit.map(|limit| self.started + limit);
        let phase = match self.phase {
            Phase::Draining { until } | Phase::Stopping { until } => Some(until),
            _ => None,
        };
        let limit = limit.filter(|_| matches!(self.phase, Phase::Waiting | Phase::Running));
        // Who ends now is not started again.
        let starts = matches!(self.phase, Phase::Waiting | Phase::Running);
        let processes = self.supervisor.next_deadline(&self.plan.services).filter(|_| starts);
        let due = [
            self.next_burial(),
            self.next_pulse(),
            self.next_measurement(),
            self.changes.deadline(),
            self.replacement_deadline(),
            processes,
        ];
        for at in [self.next_print, limit, phase].into_iter().chain(due).flatten() {
            wait = wait.min(at.saturating_duration_since(now));
        }
        rustix::time::Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(1),
            tv_nsec: i64::from(wait.subsec_nanos()),
        }
    }

    /// Closes everything and prints the ledger.
    pub(super) fn end(mut self) -> ExitCode {
        for id in self.instances.keys().chain(self.dying.keys()) {
            log::error!("instance {id} is still there: its packets are not accounted for");
        }
        // No new connections, and no socket left behind, from here on.
        self.listener = None;
        let balanced = self.print_ledger();
        self.worker.end();
        self.hear_worker();
        self.supervisor.wait_for_let_go();
        if let Err(error) = self.quarantine.finish() {
            log::error!("{error}");
        }
        if balanced && !self.failed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
