//! How rules compare numbers: `5`, `!5`, `<5`, `>=5`, `1<>5`, `!1-5`, `&0x0f=3`.

use super::refusal::Fault;

/// A comparison with constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The same.
    Equal(u64),
    /// Another.
    NotEqual(u64),
    /// Less.
    Less(u64),
    /// Less or the same.
    AtMost(u64),
    /// More.
    Greater(u64),
    /// More or the same.
    AtLeast(u64),
    /// Between, both ends left out.
    Between(u64, u64),
    /// One of the ends, or outside.
    NotBetween(u64, u64),
    /// Under this mask, this value (`true`) or another.
    Masked(u64, u64, bool),
}

impl Compare {
    /// Whether `value` is as asked.
    #[inline]
    #[must_use]
    pub fn holds(self, value: u64) -> bool {
        match self {
            Compare::Equal(n) => value == n,
            Compare::NotEqual(n) => value != n,
            Compare::Less(n) => value < n,
            Compare::AtMost(n) => value <= n,
            Compare::Greater(n) => value > n,
            Compare::AtLeast(n) => value >= n,
            Compare::Between(low, high) => low < value && value < high,
            Compare::NotBetween(low, high) => value <= low || high <= value,
            Compare::Masked(mask, n, same) => (value & mask == n) == same,
        }
    }

    /// The one value that can hold, if there is only one.
    #[must_use]
    pub fn only(self) -> Option<u64> {
        match self {
            Compare::Equal(n) => Some(n),
            _ => None,
        }
    }

    /// Reads a comparison whose numbers are at most `most`.
    pub(crate) fn parse(field: &str, text: &str, most: u64) -> Result<Self, Fault> {
        let text = text.trim();
        let one = |digits: &str| {
            let value = number(digits);
            value.filter(|v| *v <= most).ok_or_else(|| {
                Fault::new(field, format!("`{}` is not a number in 0..={most}", digits.trim()))
            })
        };
        let pair = |text: &str| -> Option<(String, String)> {
            let (low, high) = text.split_once("<>").or_else(|| text.split_once('-'))?;
            (!low.trim().is_empty()).then(|| (low.to_string(), high.to_string()))
        };
        if let Some(rest) = text.strip_prefix('&') {
            let (mask, value, same) = match (rest.split_once("!="), rest.split_once('=')) {
                (Some((m, v)), _) => (one(m)?, one(v)?, false),
                (None, Some((m, v))) => (one(m)?, one(v)?, true),
                (None, None) => (one(rest)?, 0, false),
            };
            if value & !mask != 0 {
                let why = format!("`{text}` asks for bits that its mask takes away");
                return Err(Fault::new(field, why));
            }
            return Ok(Compare::Masked(mask, value, same));
        }
        let bounds = |(low, high): (String, String)| {
            let (low, high) = (one(&low)?, one(&high)?);
            if low >= high || high - low < 2 {
                return Err(Fault::new(field, format!("`{text}` leaves no number between its ends")));
            }
            Ok((low, high))
        };
        for (sign, make) in [
            ("<=", Compare::AtMost as fn(u64) -> Compare),
            (">=", Compare::AtLeast),
            ("!=", Compare::NotEqual),
            ("==", Compare::Equal),
            ("=", Compare::Equal),
        ] {
            if let Some(rest) = text.strip_prefix(sign) {
                return one(rest).map(make);
            }
        }
        if let Some(rest) = text.strip_prefix('!') {
            return match pair(rest) {
                Some(ends) => bounds(ends).map(|(low, high)| Compare::NotBetween(low, high)),
                None => one(rest).map(Compare::NotEqual),
            };
        }
        if let Some(ends) = pair(text) {
            return bounds(ends).map(|(low, high)| Compare::Between(low, high));
        }
        match (text.strip_prefix('<'), text.strip_prefix('>')) {
            (Some(rest), _) => match one(rest)? {
                0 => Err(Fault::new(field, "nothing is less than 0")),
                n => Ok(Compare::Less(n)),
            },
            (_, Some(rest)) => one(rest).map(Compare::Greater),
            _ => one(text).map(Compare::Equal),
        }
    }
}

/// A number, decimal or hexadecimal with `0x`, with a unit of bytes (`kb`, `kib`, `mb`, `mib`, `gb`, `gib`) if it has one.
pub(crate) fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok().filter(|_| !hex.starts_with('+'));
    }
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit: u64 = match text[end..].trim().to_ascii_lowercase().as_str() {
        "" => 1,
        "kb" | "kib" => 1 << 10,
        "mb" | "mib" => 1 << 20,
        "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    text[..end].parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_holds_where_it_says() {
        let of = |text: &str| Compare::parse("x", text, 1000).unwrap();
        assert_eq!(of(" 5 "), Compare::Equal(5));
        assert_eq!(of("!5"), Compare::NotEqual(5));
        assert_eq!(of("< 5"), Compare::Less(5));
        assert_eq!(of(">=0x10"), Compare::AtLeast(16));
        assert_eq!(of("1<>5"), Compare::Between(1, 5));
        assert_eq!(of("!1-5"), Compare::NotBetween(1, 5));
        assert_eq!(of("&0x0f=3"), Compare::Masked(15, 3, true));
        assert!(!of("1<>5").holds(5) && of("1<>5").holds(2) && of("!1-5").holds(5));
        assert!(of("&0x0f=3").holds(0x13));
    }

    #[test]
    fn what_is_no_comparison_is_refused() {
        for text in ["", "x", "1001", "<", "5<>4", "5<>6", "-5", "1<>", "<0", "&", "0x", "1.5", "&0xc0=2"] {
            assert!(Compare::parse("x", text, 1000).is_err(), "{text}");
        }
    }
}
