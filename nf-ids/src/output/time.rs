//! Times in the forms that Suricata writes, in the host's time zone.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

fn zoned(time_ns: u64) -> Zoned {
    let time = Timestamp::from_nanosecond(i128::from(time_ns)).unwrap_or(Timestamp::UNIX_EPOCH);
    time.to_zoned(zone())
}

/// The host's zone, read once.
fn zone() -> TimeZone {
    static ZONE: std::sync::OnceLock<TimeZone> = std::sync::OnceLock::new();
    ZONE.get_or_init(TimeZone::system).clone()
}

/// `2026-11-21T20:54:00.123456+0100`.
pub fn eve_time(time_ns: u64) -> String {
    zoned(time_ns).strftime("%Y-%m-%dT%H:%M:%S.%6f%z").to_string()
}

/// `11/21/2026-20:54:00.123456`.
pub fn fast_time(time_ns: u64) -> String {
    zoned(time_ns).strftime("%m/%d/%Y-%H:%M:%S.%6f").to_string()
}
