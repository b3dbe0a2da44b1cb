//! Times of the day and week at which a rule holds.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use onvm_lib::document::nearest;

/// Seconds of a day.
pub(crate) const DAY: u32 = 24 * 60 * 60;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// From one second of the day up to another, which is not part of it. One that ends before it begins goes on past
/// midnight, and belongs to the day on which it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Hours {
    pub(crate) from: u32,
    pub(crate) to: u32,
}

/// When a rule holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Schedule {
    /// A bit for each day, Monday the lowest.
    pub(crate) days: u8,
    /// At least one.
    pub(crate) hours: Vec<Hours>,
    pub(crate) zone: TimeZone,
    /// The zone as the file has it.
    pub(crate) zone_name: String,
}

impl Schedule {
    /// Whether it holds at this time, in nanoseconds since 1970-01-01 UTC.
    pub(crate) fn holds(&self, now_ns: u64) -> bool {
        let Ok(at) = Timestamp::from_nanosecond(i128::from(now_ns)) else { return false };
        let local = at.to_zoned(self.zone.clone());
        let today = local.weekday().to_monday_zero_offset().unsigned_abs() % 7;
        let part = |number: i8| u32::from(number.unsigned_abs());
        let second = part(local.hour()) * 3600 + part(local.minute()) * 60 + part(local.second());
        let on = |day: u8| self.days >> (day % 7) & 1 == 1;
        self.hours.iter().any(|hours| {
            if hours.from < hours.to {
                on(today) && (hours.from..hours.to).contains(&second)
            } else {
                on(today) && second >= hours.from || on(today + 6) && second < hours.to
            }
        })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days: Vec<&str> =
            DAYS.iter().enumerate().filter(|(n, _)| self.days >> n & 1 == 1).map(|(_, d)| *d).collect();
        let hours: Vec<String> = self.hours.iter().map(ToString::to_string).collect();
        write!(f, "{} {} {}", days.join(","), hours.join(","), self.zone_name)
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = |second: u32| {
            let minutes = format!("{:02}:{:02}", second / 3600, second / 60 % 60);
            if second.is_multiple_of(60) { minutes } else { format!("{minutes}:{:02}", second % 60) }
        };
        write!(f, "{}-{}", clock(self.from), clock(self.to))
    }
}

/// Reads `mon-fri`, `sat`, `all`: a bit for each day.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn days(text: &str) -> Result<u8, String> {
    let text = text.trim().to_ascii_lowercase();
    if matches!(text.as_str(), "all" | "daily") {
        return Ok(0x7f);
    }
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    let day = |word: &str| {
        let word = word.trim();
        let found = DAYS.iter().position(|day| word.len() >= 3 && word.starts_with(day));
        found.ok_or_else(|| match nearest(word, DAYS) {
            Some(near) => format!("{word:?} is not a day; did you mean {near:?}?"),
            None => format!("{word:?} is not a day: these are mon, tue, wed, thu, fri, sat, sun"),
        })
    };
    let (first, last) = (day(first)?, day(last)?);
    // `fri-mon` goes over the end of the week.
    let length = (last + 7 - first) % 7;
    Ok((0..=length).fold(0, |days, n| days | 1 << ((first + n) % 7)))
}

/// Reads `08:00-18:00`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn hours(text: &str) -> Result<Hours, String> {
    let wrong = || format!("{text:?} is not a time like 08:00-18:00");
    let (from, to) = text.split_once('-').ok_or_else(wrong)?;
    let minute = |text: &str| {
        let (hour, minute) = text.trim().split_once(':')?;
        let (hour, minute) = (hour.parse::<u16>().ok()?, minute.parse::<u16>().ok()?);
        let second = u32::from(hour) * 3600 + u32::from(minute) * 60;
        Some(second).filter(|all| *all <= DAY && hour <= 24 && minute < 60)
    };
    let (from, to) = (minute(from).ok_or_else(wrong)?, minute(to).ok_or_else(wrong)?);
    if from == to || from == DAY {
        return Err(format!("{text:?} holds no minute; the whole day is 00:00-24:00"));
    }
    Ok(Hours { from, to })
}

/// Most different schedules of a set: each is a bit in what a packet is compared with.
pub(crate) const MOST: usize = 64;

/// The index of a schedule in the set; the same schedule stands there once. None when there are [`MOST`] others.
pub(crate) fn add(schedule: Schedule, schedules: &mut Vec<Schedule>) -> Option<u16> {
    let at = schedules.iter().position(|known| *known == schedule);
    let at = at.or_else(|| {
        (schedules.len() < MOST).then(|| {
            schedules.push(schedule);
            schedules.len() - 1
        })
    });
    u16::try_from(at?).ok()
}

/// The whole day.
pub(crate) const WHOLE_DAY: Hours = Hours { from: 0, to: DAY };

/// Reads `utc`, `local` or a name such as `Europe/Berlin`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn zone(text: &str) -> Result<TimeZone, String> {
    match text {
        "utc" | "UTC" => Ok(TimeZone::UTC),
        "local" => Ok(TimeZone::system()),
        name => TimeZone::get(name).map_err(|_| {
            format!("{name:?} is not a time zone: write utc, local or a name like Europe/Berlin")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(days_text: &str, hours_text: &str, zone_text: &str) -> Schedule {
        Schedule {
            days: days(days_text).unwrap(),
            hours: vec![hours(hours_text).unwrap()],
            zone: zone(zone_text).unwrap(),
            zone_name: zone_text.into(),
        }
    }

    fn at(text: &str) -> u64 {
        u64::try_from(text.parse::<Timestamp>().unwrap().as_nanosecond()).unwrap()
    }

    #[test]
    fn days_and_hours_bound_it() {
        let office = schedule("mon-fri", "08:00-18:00", "utc");
        // 2026-11-20 is a Friday.
        for (time, holds) in [
            ("2026-11-20T07:59:59Z", false),
            ("2026-11-20T08:00:00Z", true),
            ("2026-11-20T17:59:59Z", true),
            ("2026-11-20T18:00:00Z", false),
            ("2026-11-21T12:00:00Z", false),
            ("2026-11-23T12:00:00Z", true),
        ] {
            assert_eq!(office.holds(at(time)), holds, "{time}");
        }
        assert_eq!(office.to_string(), "mon,tue,wed,thu,fri 08:00-18:00 utc");
    }

    #[test]
    fn past_midnight_belongs_to_the_day_it_began() {
        let night = schedule("fri", "22:00-06:00", "utc");
        for (time, holds) in [
            ("2026-11-20T21:59:00Z", false),
            ("2026-11-20T22:00:00Z", true),
            ("2026-11-21T05:59:00Z", true),
            ("2026-11-21T06:00:00Z", false),
            ("2026-11-21T22:00:00Z", false),
            ("2026-11-20T05:00:00Z", false),
        ] {
            assert_eq!(night.holds(at(time)), holds, "{time}");
        }
    }

    #[test]
    fn zones_and_mistakes() {
        if let Ok(zone) = zone("Europe/Berlin") {
            let berlin = Schedule { zone, ..schedule("all", "08:00-09:00", "utc") };
            assert!(berlin.holds(at("2026-07-01T06:30:00Z")) && berlin.holds(at("2026-12-01T07:30:00Z")));
        }
        assert_eq!(days("fri-mon").unwrap(), 0b111_0001);
        assert_eq!(days("wen").unwrap_err(), "\"wen\" is not a day; did you mean \"wed\"?");
        assert!(hours("8-18").unwrap_err().contains("08:00-18:00"));
        assert!(
            hours("08:00-08:00").is_err() && hours("25:00-26:00").is_err() && hours("00:00-24:00").is_ok()
        );
        assert!(zone("Mars/Base").unwrap_err().contains("Mars/Base"));
    }
}
