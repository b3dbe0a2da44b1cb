//! Durations as people write them.

use std::time::Duration;

/// Longest duration, about 31 years: it can be added to a clock without overflow.
pub const LONGEST_DURATION: Duration = Duration::from_secs(1_000_000_000);

/// Reads `0.1` (seconds), `100ms`, `250us`, `5s`, `2m`, `1h`; none for anything else, for less than nothing, and beyond
/// [`LONGEST_DURATION`].
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    /// Longer endings first where one ends in another.
    const UNITS: [(&str, f64); 6] =
        [("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let unit = UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (digits, factor) = unit.unwrap_or((text, 1.0));
    let digits = digits.trim_end();
    // Numbers only: `f64` would read `inf` and `NaN`, too.
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let read = Duration::try_from_secs_f64(digits.parse::<f64>().ok()? * factor).ok()?;
    (read <= LONGEST_DURATION).then_some(read)
}
