//! fast.log: one line an alert, for people.
//!
//! ```text
//! 11/21/2026-20:54:00.123456  [Drop] [**] [1:2100498:7] message [**] [Classification: text] [Priority: 2] {TCP} 1.2.3.4:80 -> 5.6.7.8:1234
//! ```

use super::{Done, Record, fast_time, known_protocol};
use std::fmt::Write;

/// The line of an alert, without its end; none of another kind.
pub fn line(record: &Record<'_>) -> Option<String> {
    let matched = record.matched.as_ref()?;
    let mark = match matched.done {
        Done::Allowed => "",
        Done::Blocked => "[Drop] ",
        Done::WouldBlock => "[wDrop] ",
    };
    let category = if matched.category.is_empty() { "(null)" } else { matched.category };
    let (from, to) = match record.icmp {
        Some((kind, code)) => (u16::from(kind), u16::from(code)),
        None => (record.source_port.unwrap_or(0), record.destination_port.unwrap_or(0)),
    };
    let protocol = known_protocol(record.protocol)
        .map_or_else(|| format!("PROTO:{:03}", record.protocol), str::to_string);
    let mut line = String::with_capacity(160);
    let _ = write!(
        line,
        "{}  {mark}[**] [{}:{}:{}] {} [**] [Classification: {category}] [Priority: {}] {{{protocol}}} {}:{from} -> {}:{to}",
        fast_time(record.time_ns),
        matched.gid,
        matched.sid,
        matched.rev,
        matched.message,
        matched.severity,
        record.source,
        record.destination,
    );
    Some(line)
}
