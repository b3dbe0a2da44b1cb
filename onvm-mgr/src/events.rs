//! What happened, when and why: a bounded log that operators can read and follow.

use std::collections::VecDeque;
use std::time::SystemTime;

use onvm_lib::protocol::{InstanceId, ServiceId};
use serde_json::{Value, json};

use crate::life::{Change, State};

/// Events that are kept.
const MOST: usize = 10_000;

macro_rules! kinds {
    ($($variant:ident = $name:literal, $text:literal;)*) => {
        /// What kind of event it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind {
            $(#[doc = $text] $variant,)*
        }

        impl Kind {
            /// Its name in tables and JSON.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

kinds! {
    ManagerStarted = "manager-started", "The manager is there.";
    ManagerStopping = "manager-stopping", "The manager drains and ends.";
    Start = "start", "A process was started.";
    StartFailed = "start-failed", "A process could not be started, or was not ready in time.";
    GaveUp = "gave-up", "A service's command died too often and is not started again.";
    State = "state", "An instance changed its state.";
    Left = "left", "An instance left in order.";
    Crashed = "crashed", "An instance's process ended without a word.";
    Killed = "killed", "The operator killed an instance.";
    Hung = "hung", "An instance made no progress and was killed.";
    Replaced = "replaced", "An instance took the place of another.";
    ReplaceFailed = "replace-failed", "An instance could not be replaced and goes on.";
    Scaled = "scaled", "A service has another number of instances.";
    RouteChange = "route-change", "Flows moved from one path to another.";
    PlanApplied = "plan-applied", "Another plan is in force.";
    Quarantined = "quarantined", "A packet that killed two instances was set aside.";
    NoInstance = "no-instance", "Packets wait, or were dropped, because a service has no instance.";
    PortFailed = "port-failed", "A port had an error.";
    PortAdded = "port-added", "A port was opened while the manager runs.";
    PortRemoved = "port-removed", "A port was closed while the manager runs.";
    Recovered = "recovered", "Buffers were found that an instance took and never passed on.";
}

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    number: u64,
    time: SystemTime,
    kind: Kind,
    service: Option<ServiceId>,
    instance: Option<InstanceId>,
    pid: Option<i32>,
    port: Option<u8>,
    change: Option<(State, State)>,
    /// Who brought it about: operator, manager, plan, kernel.
    by: &'static str,
    why: String,
}

impl Event {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            number: 0,
            time: SystemTime::now(),
            kind,
            service: None,
            instance: None,
            pid: None,
            port: None,
            change: None,
            by: "manager",
            why: String::new(),
        }
    }

    /// The same, of something that was seen before it could be told.
    pub(crate) fn seen(kind: Kind, time: SystemTime) -> Self {
        Self { time, ..Self::new(kind) }
    }

    pub(crate) fn service(self, service: ServiceId) -> Self {
        Self { service: Some(service).filter(|id| *id > 0), ..self }
    }

    pub(crate) fn instance(self, id: InstanceId, service: ServiceId, pid: Option<i32>) -> Self {
        Self { instance: Some(id), pid, ..self.service(service) }
    }

    pub(crate) fn port(self, number: u8) -> Self {
        Self { port: Some(number), ..self }
    }

    pub(crate) fn pid(self, pid: u32) -> Self {
        Self { pid: i32::try_from(pid).ok(), ..self }
    }

    pub(crate) fn change(self, change: Change) -> Self {
        Self { change: Some((change.from, change.to)), ..self }
    }

    pub(crate) fn by(self, by: &'static str) -> Self {
        Self { by, ..self }
    }

    pub(crate) fn why(self, why: impl Into<String>) -> Self {
        Self { why: why.into(), ..self }
    }

    /// As JSON; `time` is UTC, RFC 3339, in microseconds, `time_ns` the same in nanoseconds since 1970.
    pub(crate) fn to_json(&self) -> Value {
        let mut object = json!({
            "number": self.number,
            "time": rfc3339(self.time),
            "time_ns": nanoseconds(self.time),
            "event": self.kind.name(),
            "by": self.by,
        });
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                object[name] = value;
            }
        };
        set("service", self.service.map(Value::from));
        set("instance", self.instance.map(Value::from));
        set("port", self.port.map(Value::from));
        set("pid", self.pid.map(Value::from));
        set("from", self.change.map(|(from, _)| from.name().into()));
        set("to", self.change.map(|(_, to)| to.name().into()));
        set("why", Some(self.why.as_str()).filter(|why| !why.is_empty()).map(Value::from));
        object
    }
}

/// The log.
#[derive(Debug, Default)]
pub(crate) struct EventLog {
    events: VecDeque<Event>,
    last: u64,
}

impl EventLog {
    /// Adds an event; the oldest is forgotten when there are too many.
    pub(crate) fn record(&mut self, event: Event) {
        self.last += 1;
        if self.events.len() >= MOST {
            self.events.pop_front();
        }
        self.events.push_back(Event { number: self.last, ..event });
    }

    /// Number of the latest event.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Events with numbers above `number` that are still known, oldest first.
    pub(crate) fn after(&self, number: u64) -> impl Iterator<Item = &Event> {
        let first = self.events.front().map_or(0, |event| event.number);
        let skip = usize::try_from(number.saturating_add(1).saturating_sub(first)).unwrap_or(usize::MAX);
        self.events.iter().skip(skip)
    }
}

/// Since 1970-01-01 UTC.
fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// UTC, with microseconds. After "chrono-Compatible Low-Level Date Algorithms", H. Hinnant.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (seconds, micros) = (since.as_secs(), since.subsec_micros());
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Days counted from 0000-03-01, so that the leap day is a year's last.
    let from_march = days + 719_468;
    let (era, day_of_era) = (from_march / 146_097, from_march % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_log_is_bounded_and_read_from_any_number() {
        let mut log = EventLog::default();
        for _ in 0..MOST + 5 {
            log.record(Event::new(Kind::Start));
        }
        assert_eq!(log.after(0).count(), MOST);
        assert_eq!(log.after(0).next().map(|e| e.number), Some(6));
        assert_eq!(log.after(log.last() - 2).count(), 2);
        assert_eq!(log.after(log.last()).count() + log.after(u64::MAX - 1).count(), 0);
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        let at = |s| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(s));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000Z");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59.000000Z");
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let mut life = crate::life::Life::new();
        let change = life.go(State::Ready).unwrap();
        let body = Event::new(Kind::State).instance(3, 1, None).change(change).why("it attached").to_json();
        assert_eq!((body["from"].as_str(), body["to"].as_str()), (Some("starting"), Some("ready")));
        assert!(body.get("pid").is_none() && body["instance"] == 3);
    }
}
