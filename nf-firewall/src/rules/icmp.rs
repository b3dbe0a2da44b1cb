//! Conditions on the type and code of ICMP and ICMPv6 messages.

use std::fmt;

use onvm_lib::document::nearest;

use super::ranges::Ranges;

/// A name: type, and code where the name stands for one.
type Name = (&'static str, u8, Option<u8>);

/// Of ICMP (IANA "ICMP Type Numbers"), as iptables names them.
const NAMES_4: [Name; 22] = [
    ("echo-reply", 0, None),
    ("pong", 0, None),
    ("destination-unreachable", 3, None),
    ("net-unreachable", 3, Some(0)),
    ("network-unreachable", 3, Some(0)),
    ("host-unreachable", 3, Some(1)),
    ("protocol-unreachable", 3, Some(2)),
    ("port-unreachable", 3, Some(3)),
    ("fragmentation-needed", 3, Some(4)),
    ("source-route-failed", 3, Some(5)),
    ("admin-prohibited", 3, Some(13)),
    ("source-quench", 4, None),
    ("redirect", 5, None),
    ("echo-request", 8, None),
    ("ping", 8, None),
    ("router-advertisement", 9, None),
    ("router-solicitation", 10, None),
    ("time-exceeded", 11, None),
    ("ttl-exceeded", 11, None),
    ("parameter-problem", 12, None),
    ("timestamp-request", 13, None),
    ("timestamp-reply", 14, None),
];

/// Of ICMPv6 (IANA "ICMPv6 Parameters").
const NAMES_6: [Name; 20] = [
    ("destination-unreachable", 1, None),
    ("no-route", 1, Some(0)),
    ("admin-prohibited", 1, Some(1)),
    ("address-unreachable", 1, Some(3)),
    ("port-unreachable", 1, Some(4)),
    ("packet-too-big", 2, None),
    ("time-exceeded", 3, None),
    ("ttl-exceeded", 3, None),
    ("parameter-problem", 4, None),
    ("echo-request", 128, None),
    ("ping", 128, None),
    ("echo-reply", 129, None),
    ("pong", 129, None),
    ("mld-query", 130, None),
    ("mld-report", 131, None),
    ("router-solicitation", 133, None),
    ("router-advertisement", 134, None),
    ("neighbour-solicitation", 135, None),
    ("neighbour-advertisement", 136, None),
    ("redirect", 137, None),
];

/// Types and codes of both families, each as type × 256 + code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IcmpMatch {
    pub(crate) v4: Ranges<u16>,
    pub(crate) v6: Ranges<u16>,
}

impl IcmpMatch {
    pub(crate) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    #[inline]
    pub(crate) fn matches(&self, v6: bool, kind: u8, code: u8) -> bool {
        let both = u16::from(kind) << 8 | u16::from(code);
        if v6 { self.v6.contains(both) } else { self.v4.contains(both) }
    }
}

/// Reads `echo-request`, `8`, `3/4` or `3/0-4`: its types and codes.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse(text: &str, v6: bool) -> Result<Ranges<u16>, String> {
    let names: &[Name] = if v6 { &NAMES_6 } else { &NAMES_4 };
    // Both spellings of the neighbour's messages are in use.
    let word = text.to_ascii_lowercase().replace("neighbor", "neighbour");
    if word == "any" {
        return Ok(Ranges::all());
    }
    let of = |kind: u8, code: Option<(u8, u8)>| {
        let (first, last) = code.unwrap_or((0, u8::MAX));
        let base = u16::from(kind) << 8;
        Ranges::of([(base | u16::from(first), base | u16::from(last))])
    };
    if let Some((_, kind, code)) = names.iter().find(|(name, ..)| *name == word) {
        return Ok(of(*kind, code.map(|code| (code, code))));
    }
    let family = if v6 { "ICMPv6" } else { "ICMP" };
    if !word.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(match nearest(&word, names.iter().map(|(name, ..)| *name)) {
            Some(near) => format!("{text:?} is not an {family} type; did you mean {near:?}?"),
            None => format!("{text:?} is not an {family} type, as echo-request, 8 or 3/4"),
        });
    }
    let (kind, code) = word.split_once('/').map_or((word.as_str(), None), |(kind, code)| (kind, Some(code)));
    let number = |digits: &str| {
        let read = digits.trim().parse::<u8>();
        read.map_err(|_| format!("{digits:?} is not a number of 0..=255, as {family} types and codes are"))
    };
    let code = match code {
        None => None,
        Some(code) => {
            let (first, last) = code.split_once('-').unwrap_or((code, code));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("the range {first}-{last} ends before it begins"));
            }
            Some((first, last))
        }
    };
    Ok(of(number(kind)?, code))
}

impl fmt::Display for IcmpMatch {
    /// `type 8, 3/4`, ICMPv6 with a 6 before it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |ranges: &Ranges<u16>| {
            let one = |(first, last): (u16, u16)| match (first >> 8, first & 255, last >> 8, last & 255) {
                (a, 0, b, 255) if a == b => format!("{a}"),
                (a, 0, b, 255) => format!("{a}-{b}"),
                (a, c, b, d) if (a, c) == (b, d) => format!("{a}/{c}"),
                (a, c, b, d) if a == b => format!("{a}/{c}-{d}"),
                (a, c, b, d) => format!("{a}/{c}-{b}/{d}"),
            };
            ranges.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        match (self.v4.is_empty(), self.v6.is_empty()) {
            (true, true) => f.write_str("none"),
            (false, true) => write!(f, "type {}", show(&self.v4)),
            (true, false) => write!(f, "v6 type {}", show(&self.v6)),
            (false, false) => write!(f, "type {}, v6 type {}", show(&self.v4), show(&self.v6)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read() {
        let shown = |text: &str, v6| {
            let ranges = parse(text, v6).unwrap();
            let none = Ranges::none();
            let both =
                if v6 { IcmpMatch { v4: none, v6: ranges } } else { IcmpMatch { v4: ranges, v6: none } };
            both.to_string()
        };
        assert_eq!(shown("echo-request", false), "type 8");
        assert_eq!(shown("echo-request", true), "v6 type 128");
        assert_eq!(shown("fragmentation-needed", false), "type 3/4");
        assert_eq!(shown("neighbor-solicitation", true), "v6 type 135");
        assert_eq!(shown("3/1-5", false), "type 3/1-5");
        assert_eq!(shown("11", false), "type 11");
        let ping = parse("ping", false).unwrap();
        let ping = IcmpMatch { v4: ping, v6: Ranges::none() };
        assert!(ping.matches(false, 8, 0) && ping.matches(false, 8, 9) && !ping.matches(true, 8, 0));
        assert!(!ping.matches(false, 0, 0));
    }

    #[test]
    fn mistakes_are_told() {
        let error = |text: &str| parse(text, false).unwrap_err();
        assert_eq!(
            error("echo-reqest"),
            "\"echo-reqest\" is not an ICMP type; did you mean \"echo-request\"?"
        );
        assert!(error("300").contains("0..=255") && error("3/5-1").contains("before"));
        assert!(error("3/x").contains("\"x\"") && error("").contains("not an ICMP type"));
    }
}
