//! Values on command lines that several programs have.

use std::time::Duration;

/// A time of more than 0: seconds, fractions allowed, or with a unit: `0.5`, `100ms`, `2m`.
///
/// # Errors
/// What is wrong with it, for the user.
pub fn seconds(text: &str) -> Result<Duration, String> {
    seconds_or_none(text).and_then(|time| {
        (!time.is_zero())
            .then_some(time)
            .ok_or_else(|| format!("{text} is out of range: more than 0 is needed"))
    })
}

/// The same, or 0, which stands for none.
///
/// # Errors
/// What is wrong with it, for the user.
pub fn seconds_or_none(text: &str) -> Result<Duration, String> {
    let time = crate::document::duration(text)
        .ok_or_else(|| format!("{text:?} is no time like 0.1 (seconds), 100ms, 5s or 2m"))?;
    // What is more than the clock can add to is as good as for ever, and no more than an overflow.
    Some(time)
        .filter(|time| time.as_secs() <= LONGEST)
        .ok_or_else(|| format!("{text} is out of range: 0 to {LONGEST} seconds are possible"))
}

/// Longest time that can be given, in seconds: about 31 years.
const LONGEST: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(seconds("0"), Err("0 is out of range: more than 0 is needed".into()));
        assert_eq!(seconds_or_none("0"), Ok(Duration::ZERO));
        assert_eq!(seconds("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["x", "-1", "nan", "inf"] {
            assert!(seconds(wrong).unwrap_err().contains("is no time like"), "{wrong}");
        }
        for wrong in ["1e30", "1e10"] {
            assert!(seconds_or_none(wrong).is_err(), "{wrong}");
        }
    }
}
