//! The match `time`: hours of the day and days of the week.

use jiff::tz::TimeZone;

use super::super::schedule::{self, DAY, Hours, Schedule};

/// What a line says of times.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Time {
    /// Seconds of the day.
    start: Option<u32>,
    /// The last second.
    stop: Option<u32>,
    /// A bit for each day, Monday the lowest.
    days: Option<u8>,
    /// The kernel's own zone instead of UTC.
    local: bool,
    /// Hours past midnight belong to the day on which they began.
    contiguous: bool,
}

impl Time {
    /// Takes an option without a value: `--kerneltz`, `--localtz`, `--utc` or `--contiguous`.
    pub(super) fn word(&mut self, option: &str) {
        match option {
            "--contiguous" => self.contiguous = true,
            zone => self.local = zone != "--utc",
        }
    }

    /// Takes `--timestart`, `--timestop` or `--weekdays`.
    ///
    /// # Errors
    /// What is wrong with the value.
    pub(super) fn value(&mut self, option: &str, text: &str, not: bool) -> Result<(), String> {
        match option {
            "--timestart" => self.start = Some(clock(text)?),
            "--timestop" => self.stop = Some(clock(text)?),
            _ => {
                let days = text.split(',').try_fold(0, |all, word| Ok::<u8, String>(all | day(word)?))?;
                self.days = Some(if not { 0x7f & !days } else { days });
            }
        }
        Ok(())
    }

    /// As a schedule.
    pub(super) fn schedule(self) -> Schedule {
        let (start, end) = (self.start.unwrap_or(0), self.stop.map_or(DAY, |stop| (stop + 1).min(DAY)));
        let hours = if start < end || self.contiguous {
            vec![Hours { from: start, to: end }]
        } else {
            vec![Hours { from: start, to: DAY }, Hours { from: 0, to: end }]
        };
        let (zone, zone_name) =
            if self.local { (TimeZone::system(), "local") } else { (TimeZone::UTC, "utc") };
        Schedule { days: self.days.unwrap_or(0x7f), hours, zone, zone_name: zone_name.into() }
    }
}

/// `08:00` or `08:00:30`.
fn clock(text: &str) -> Result<u32, String> {
    let parts: Option<Vec<u32>> = text.split(':').map(|part| part.parse().ok()).collect();
    match parts.as_deref() {
        Some([hour @ 0..24, minute @ 0..60]) => Ok(hour * 3600 + minute * 60),
        Some([hour @ 0..24, minute @ 0..60, second @ 0..60]) => Ok(hour * 3600 + minute * 60 + second),
        _ => Err(format!("{text:?} is not a time of the day like 08:00:00")),
    }
}

/// `Mon`, or `1` for it.
fn day(text: &str) -> Result<u8, String> {
    match text.parse::<u8>() {
        Ok(number @ 1..=7) => Ok(1 << (number - 1)),
        Ok(number) => Err(format!("{number} is not a day of 1..=7")),
        Err(_) => schedule::days(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_end_with_their_last_second() {
        let mut time = Time::default();
        for (option, text) in
            [("--timestart", "22:00:30"), ("--timestop", "05:59:59"), ("--weekdays", "Mon,2")]
        {
            time.value(option, text, false).unwrap();
        }
        assert_eq!(time.schedule().to_string(), "mon,tue 22:00:30-24:00,00:00-06:00 utc");
        time.word("--contiguous");
        assert_eq!(time.schedule().to_string(), "mon,tue 22:00:30-06:00 utc");
        time.value("--weekdays", "Sat,Sun", true).unwrap();
        assert_eq!(time.schedule().days, 0b1_1111);
        assert!(clock("24:00").is_err() && clock("8").is_err() && day("8").is_err() && day("Mun").is_err());
    }
}
