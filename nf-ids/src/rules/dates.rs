//! Dates as `tls_cert_notbefore` and `tls_cert_notafter` compare them: `>2015`, `<2025-12-31T23:59:59`, `2014<>2016-06`.

use super::compare::Compare;
use super::refusal::Fault;

/// A comparison of dates, as seconds since 1970.
pub(crate) fn compare(word: &str, text: &str) -> Result<Compare, Fault> {
    let text = text.trim().trim_matches('"');
    let one = |t: &str| {
        let wrong =
            || Fault::new(word, format!("`{}` is not YYYY[-MM[-DD[THH[:MM[:SS]]]]] from 1970 on", t.trim()));
        seconds(t.trim()).ok_or_else(wrong)
    };
    if let Some((from, to)) = text.split_once("<>") {
        let (from, to) = (one(from)?, one(to)?);
        let backwards = || Fault::new(word, format!("`{text}` is not from an earlier to a later date"));
        return (from < to).then_some(Compare::Between(from, to)).ok_or_else(backwards);
    }
    match (text.strip_prefix('<'), text.strip_prefix('>')) {
        (Some(rest), _) => one(rest).map(Compare::Less),
        (_, Some(rest)) => one(rest).map(Compare::Greater),
        _ => one(text.trim_start_matches('=')).map(Compare::Equal),
    }
}

/// Seconds since 1970 of a date in UTC.
fn seconds(text: &str) -> Option<u64> {
    let mut numbers = [0u64, 1, 1, 0, 0, 0];
    let parts: Vec<&str> = text.split(['-', 'T', ' ', ':']).collect();
    if parts.len() > numbers.len() {
        return None;
    }
    for (place, digits) in numbers.iter_mut().zip(&parts) {
        *place = digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))?;
    }
    let [year, month, day, hour, minute, second] = numbers;
    let right = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !right || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Days from the civil calendar, years counted from March.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_seconds_since_1970() {
        assert_eq!(seconds("1970"), Some(0));
        assert_eq!(seconds("2000-02-29T12:00:01"), Some(951_825_601));
        assert_eq!(seconds("2015-13"), None);
        assert!(matches!(compare("x", ">2015"), Ok(Compare::Greater(1_420_070_400))));
        assert!(compare("x", "2016<>2015").is_err());
    }
}
