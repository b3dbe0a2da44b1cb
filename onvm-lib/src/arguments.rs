//! Values on command lines that several programs have.

use std::time::Duration;

use crate::document::duration;

/// A time of more than 0: `0.5` (seconds), `100ms`, `5s`, `2m`.
///
/// # Errors
/// What is wrong with it, for the user.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let time = seconds_or_zero(text)?;
    if time.is_zero() { Err(format!("{text} is out of range: more than 0 is needed")) } else { Ok(time) }
}

/// The same, or 0, which stands for none.
///
/// # Errors
/// What is wrong with it, for the user.
pub fn seconds_or_zero(text: &str) -> Result<Duration, String> {
    let read = duration(text);
    let time =
        read.ok_or_else(|| format!("{text:?} is not a duration like 0.1 (seconds), 100ms, 5s or 2m"))?;
    // So that a clock can be set to it.
    if time.as_secs() > LONGEST {
        return Err(format!("{text} is out of range: at most {LONGEST} seconds are possible"));
    }
    Ok(time)
}

/// Longest time that can be given, in seconds: about 31 years.
const LONGEST: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(seconds("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(seconds("0"), Err("0 is out of range: more than 0 is needed".into()));
        assert_eq!(seconds_or_zero("0"), Ok(Duration::ZERO));
        assert_eq!(
            seconds_or_zero("1e10"),
            Err("1e10 is out of range: at most 1000000000 seconds are possible".into())
        );
        for wrong in ["-1", "nan", "inf", "x", "1e30"] {
            assert!(seconds(wrong).unwrap_err().contains("is not a duration"), "{wrong}");
        }
    }
}
