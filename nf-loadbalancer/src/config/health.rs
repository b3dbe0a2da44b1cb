//! How a service's backends are watched.

use std::ops::RangeInclusive;
use std::time::Duration;

use onvm_lib::document::Cursor;

use super::positive;

/// What is asked of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A TCP connection.
    Tcp,
    /// `GET` over HTTP/1.1.
    Http {
        /// What is asked for.
        path: String,
        /// The `Host` header; none: the backend's address.
        host: Option<String>,
        /// Status codes that are good.
        status: Vec<RangeInclusive<u16>>,
        /// What the answer's first 64 KiB must contain.
        body: Option<String>,
    },
    /// An ICMP echo.
    Icmp,
}

/// Active checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What is asked.
    pub probe: Probe,
    /// Port that is asked; none: the backend's.
    pub port: Option<u16>,
    /// From one question to the next.
    pub interval: Duration,
    /// An answer must be complete by then.
    pub timeout: Duration,
    /// Good answers in a row that bring a backend up.
    pub rise: u32,
    /// Bad ones that bring it down.
    pub fall: u32,
}

/// Checks that ask nothing: what is seen of connections to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passive {
    /// Connections refused (reset before they were established) in a row; 0: they do not count.
    pub resets: u32,
    /// Connections asked for more than once and not answered, in a row; 0: they do not count.
    pub silence: u32,
    /// After this long without traffic a backend is tried again.
    pub retry: Duration,
}

/// Reads `health:`.
pub(super) fn read(cursor: &Cursor<'_>) -> Option<Health> {
    let always = ["type", "port", "interval", "timeout", "rise", "fall"];
    let for_http = ["type", "port", "interval", "timeout", "rise", "fall", "path", "host", "status", "body"];
    let kinds = [("tcp", 0), ("http", 1), ("icmp", 2)];
    let kind = cursor.value_of("type").and_then(|c| c.choice(&kinds));
    let http = kind == Some(1) || cursor.value_of("type").is_none();
    let table = cursor.table(if http { &for_http } else { &always })?;
    table.need("type")?;
    let port = table.get("port").and_then(|c| {
        if kind == Some(2) {
            c.error("an ICMP echo has no port");
        }
        c.number(1..=u16::MAX)
    });
    let duration = |key, otherwise| table.get(key).and_then(|c| positive(&c)).unwrap_or(otherwise);
    let (interval, timeout) =
        (duration("interval", Duration::from_secs(2)), duration("timeout", Duration::from_secs(1)));
    if timeout > interval {
        let (timeout, interval) = (timeout.as_secs_f64(), interval.as_secs_f64());
        cursor.error(format!("timeout, {timeout} s, is more than interval, {interval} s"));
    }
    let times = |key, otherwise| table.get(key).and_then(|c| c.number(1..=100u32)).unwrap_or(otherwise);
    let text = |key: &str| table.get(key).and_then(|c| c.text()).map(str::to_string);
    let probe = match kind? {
        0 => Probe::Tcp,
        1 => Probe::Http {
            path: path(&table.get("path"))?,
            host: text("host").filter(|host| header(host, &table.get("host"))),
            status: status(table.get("status"))?,
            body: text("body"),
        },
        _ => Probe::Icmp,
    };
    Some(Health { probe, port, interval, timeout, rise: times("rise", 2), fall: times("fall", 3) })
}

fn path(cursor: &Option<Cursor<'_>>) -> Option<String> {
    let Some(cursor) = cursor else { return Some("/".into()) };
    let path = cursor.text()?;
    if !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        cursor.error(format!("{path:?} is no path: it begins with / and has no spaces"));
        return None;
    }
    Some(path.to_string())
}

fn header(text: &str, cursor: &Option<Cursor<'_>>) -> bool {
    let bad = text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control());
    if let Some(cursor) = cursor.as_ref().filter(|_| bad) {
        cursor.error("a host is not empty and has no spaces");
    }
    !bad
}

fn status(cursor: Option<Cursor<'_>>) -> Option<Vec<RangeInclusive<u16>>> {
    let Some(cursor) = cursor else { return Some(vec![200..=399]) };
    let mut all = Vec::new();
    for one in cursor.one_or_many() {
        let text = one.text()?;
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let code = |text: &str| text.trim().parse::<u16>().ok().filter(|code| (100..=599).contains(code));
        match (code(first), code(last)) {
            (Some(first), Some(last)) if first <= last => all.push(first..=last),
            _ => one.error(format!("{text:?} is no status like 200 or 200-299, 100 to 599")),
        }
    }
    if all.is_empty() {
        cursor.error("at least one status is needed");
        return None;
    }
    Some(all)
}

/// Reads `passive:`.
pub(super) fn read_passive(cursor: &Cursor<'_>) -> Option<Passive> {
    let table = cursor.table(&["resets", "silence", "retry"])?;
    let count = |key| table.get(key).map_or(Some(5), |c| c.number(0..=1_000_000u32));
    let (resets, silence) = (count("resets")?, count("silence")?);
    if (resets, silence) == (0, 0) {
        cursor.error("resets and silence are both 0: nothing is watched");
    }
    let retry = table.get("retry").map_or(Some(Duration::from_secs(30)), |c| positive(&c))?;
    Some(Passive { resets, silence, retry })
}
