//! Schedules as they stand in a rule file.

use onvm_lib::document::Cursor;

use super::super::schedule::{self, Schedule, WHOLE_DAY};

/// Reads `{days: mon-fri, hours: 08:00-18:00, zone: local}`.
pub(super) fn read(cursor: &Cursor<'_>) -> Option<Schedule> {
    let table = cursor.table(&["days", "hours", "zone"])?;
    let mut right = true;
    let mut told = |cursor: &Cursor<'_>, reason: String| {
        cursor.error(reason);
        right = false;
    };
    let mut days = 0;
    for member in table.get("days").map(|cursor| cursor.one_or_many()).unwrap_or_default() {
        for word in member.text()?.split(',') {
            match schedule::days(word) {
                Ok(some) => days |= some,
                Err(reason) => told(&member, reason),
            }
        }
    }
    let mut hours = Vec::new();
    for member in table.get("hours").map(|cursor| cursor.one_or_many()).unwrap_or_default() {
        for word in member.text()?.split(',') {
            match schedule::hours(word) {
                Ok(some) => hours.push(some),
                Err(reason) => told(&member, reason),
            }
        }
    }
    // Which clock is meant must be said: a rule that opens an hour off is a hole.
    let named = table.need("zone")?;
    let zone_name = named.text()?;
    let zone = match schedule::zone(zone_name) {
        Ok(zone) => Some(zone),
        Err(reason) => {
            told(&named, reason);
            None
        }
    };
    if hours.is_empty() {
        hours.push(WHOLE_DAY);
    }
    let days = if days == 0 { 0x7f } else { days };
    zone.filter(|_| right).map(|zone| Schedule { days, hours, zone, zone_name: zone_name.into() })
}

/// The index of a schedule in the set; none when there are too many.
pub(super) fn add(schedule: Schedule, schedules: &mut Vec<Schedule>, cursor: &Cursor<'_>) -> Option<u16> {
    let index = schedule::add(schedule, schedules);
    if index.is_none() {
        cursor.error(format!("there are more than {} different times in this file", schedule::MOST));
    }
    index
}
