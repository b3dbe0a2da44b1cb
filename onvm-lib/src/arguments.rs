//! Values on command lines that several programs have.

use std::time::Duration;

/// A time of more than 0 seconds, fractions allowed: `0.5`.
///
/// # Errors
/// What is wrong with it, for the user.
pub fn seconds(text: &str) -> Result<Duration, String> {
    seconds_or_none(text).and_then(|time| {
        (!time.is_zero())
            .then_some(time)
            .ok_or_else(|| format!("{text} seconds is out of range: more than 0 is needed"))
    })
}

/// A time of 0 seconds or more, fractions allowed; 0 stands for none.
///
/// # Errors
/// What is wrong with it, for the user.
pub fn seconds_or_none(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    // What is more than the clock can add to is as good as for ever, and no more than an overflow.
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|time| time.as_secs() <= LONGEST)
        .ok_or_else(|| format!("{text} seconds is out of range: 0 to {LONGEST} are possible"))
}

/// Longest time that can be given, in seconds: about 31 years.
const LONGEST: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(seconds("0"), Err("0 seconds is out of range: more than 0 is needed".into()));
        assert_eq!(seconds_or_none("0"), Ok(Duration::ZERO));
        assert_eq!(seconds("x"), Err("\"x\" is not a number of seconds".into()));
        for wrong in ["-1", "nan", "inf", "1e30", "1e10"] {
            assert!(seconds(wrong).unwrap_err().contains("out of range"), "{wrong}");
        }
    }
}
