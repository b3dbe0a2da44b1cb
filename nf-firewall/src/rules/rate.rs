//! Rates: `100/s`, `10/minute`, `20 Mbit/s`.

use std::fmt;
use std::str::FromStr;

use onvm_lib::document::nearest;

const SECOND_NS: f64 = 1e9;

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Unit {
    Packets,
    /// Bits of frames, from the Ethernet header on.
    Bits,
}

/// So many in a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    pub(crate) unit: Unit,
    /// Above 0.
    pub(crate) per_second: f64,
}

impl Rate {
    /// What comes back to a bucket in this time.
    #[inline]
    #[allow(clippy::cast_precision_loss, reason = "times between packets are far below 2^53 ns")]
    pub(crate) fn in_ns(self, ns: u64) -> f64 {
        self.per_second * (ns as f64) / SECOND_NS
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a rate like 100/s, 10/minute or 20 Mbit/s");
        let (amount, period) = text.split_once('/').ok_or_else(wrong)?;
        let amount = amount.trim();
        let digits = amount.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(amount.len());
        let number: f64 = amount[..digits].parse().map_err(|_| wrong())?;
        const UNITS: [(&str, Unit, f64); 11] = [
            ("", Unit::Packets, 1.0),
            ("packets", Unit::Packets, 1.0),
            ("kpackets", Unit::Packets, 1e3),
            ("bit", Unit::Bits, 1.0),
            ("kbit", Unit::Bits, 1e3),
            ("mbit", Unit::Bits, 1e6),
            ("gbit", Unit::Bits, 1e9),
            ("b", Unit::Bits, 8.0),
            ("kb", Unit::Bits, 8e3),
            ("mb", Unit::Bits, 8e6),
            ("gb", Unit::Bits, 8e9),
        ];
        let word = amount[digits..].trim().to_ascii_lowercase();
        let (_, unit, factor) = UNITS.iter().find(|(name, ..)| *name == word).ok_or_else(|| {
            format!(
                "{word:?} is not a unit of rates: these are packets, bit, kbit, Mbit, Gbit, B, kB, MB, GB"
            )
        })?;
        const PERIODS: [(&str, f64); 12] = [
            ("s", 1.0),
            ("sec", 1.0),
            ("second", 1.0),
            ("m", 60.0),
            ("min", 60.0),
            ("minute", 60.0),
            ("h", 3600.0),
            ("hour", 3600.0),
            ("d", 86400.0),
            ("day", 86400.0),
            ("ms", 0.001),
            ("msec", 0.001),
        ];
        let period = period.trim().to_ascii_lowercase();
        let (_, seconds) = PERIODS.iter().find(|(name, _)| *name == period).ok_or_else(|| {
            match nearest(&period, PERIODS.iter().map(|(name, _)| *name)) {
                Some(near) => format!("{period:?} is not a time; did you mean {near:?}?"),
                None => format!("{period:?} is not a time: these are s, minute, hour, day"),
            }
        })?;
        let per_second = number * factor / seconds;
        if !(per_second > 0.0 && per_second < 1e13) {
            return Err(format!("{text:?} is not above 0, or beyond all that a port can do"));
        }
        Ok(Self { unit: *unit, per_second })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = self.per_second;
        match self.unit {
            Unit::Bits => write!(f, "{per_second} bit/s"),
            Unit::Packets if per_second < 1.0 / 60.0 => write!(f, "{:.3}/hour", per_second * 3600.0),
            Unit::Packets if per_second < 1.0 => write!(f, "{:.3}/minute", per_second * 60.0),
            Unit::Packets => write!(f, "{per_second}/s"),
        }
    }
}

/// Whom a limit counts apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Per {
    /// All packets of the rule together.
    Rule,
    Source,
    Destination,
}

/// What becomes of packets beyond a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Over {
    /// They are dropped.
    Deny,
    /// The rule does not match them: the next ones decide.
    Next,
}

/// A token bucket's measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limit {
    pub(crate) rate: Rate,
    /// What a full bucket holds, in the rate's unit.
    pub(crate) burst: f64,
    pub(crate) per: Per,
    pub(crate) over: Over,
}

impl Limit {
    /// A limit whose burst follows from its rate: what comes in a second, at least five packets or 64 KiB.
    pub(crate) fn of(rate: Rate) -> Self {
        let least = if rate.unit == Unit::Packets { 5.0 } else { 64.0 * 1024.0 * 8.0 };
        Self { rate, burst: rate.per_second.max(least), per: Per::Rule, over: Over::Deny }
    }

    /// What a packet of so many bytes takes.
    #[inline]
    #[allow(clippy::cast_precision_loss, reason = "frames are far below 2^53 bytes")]
    pub(crate) fn cost(&self, bytes: usize) -> f64 {
        match self.rate.unit {
            Unit::Packets => 1.0,
            Unit::Bits => bytes as f64 * 8.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        let rate = |text: &str| text.parse::<Rate>().map(|r| (r.unit, r.per_second)).unwrap();
        assert_eq!(rate("100/s"), (Unit::Packets, 100.0));
        assert_eq!(rate("30/minute"), (Unit::Packets, 0.5));
        assert_eq!(rate("20 Mbit/s"), (Unit::Bits, 20e6));
        assert_eq!(rate("1.5MB/s"), (Unit::Bits, 12e6));
        let error = |text: &str| text.parse::<Rate>().unwrap_err();
        assert!(error("100").contains("100/s") && error("0/s").contains("above 0"));
        assert_eq!(error("3/secnd"), "\"secnd\" is not a time; did you mean \"second\"?");
        assert!(error("3 cats/s").contains("cats"));
    }
}
