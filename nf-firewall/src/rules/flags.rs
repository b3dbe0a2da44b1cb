//! Conditions on TCP flags: `syn,!ack` or, as iptables writes it, `fin,syn,rst,ack/syn`.

use std::fmt;
use std::str::FromStr;

use onvm_lib::document::nearest;
use onvm_lib::wire::tcp::Flags;

const NAMES: [(&str, Flags); 9] = [
    ("fin", Flags::FIN),
    ("syn", Flags::SYN),
    ("rst", Flags::RST),
    ("psh", Flags::PSH),
    ("ack", Flags::ACK),
    ("urg", Flags::URG),
    ("ece", Flags::ECE),
    ("cwr", Flags::CWR),
    ("ae", Flags::AE),
];
/// The six that iptables calls ALL.
const ALL: u16 = 0x3f;

/// Flags under a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FlagMatch {
    pub(crate) mask: u16,
    pub(crate) value: u16,
}

impl FlagMatch {
    #[inline]
    pub(crate) fn matches(self, flags: u16) -> bool {
        flags & self.mask == self.value
    }

    /// What matches all flags but these: one of the bits is another.
    pub(crate) fn negated(self) -> Vec<Self> {
        let bits = (0..16).map(|bit| 1u16 << bit).filter(|bit| self.mask & bit != 0);
        bits.map(|bit| Self { mask: bit, value: !self.value & bit }).collect()
    }

    /// What matches the flags that both match; none if there are none.
    pub(crate) fn and(self, other: Self) -> Option<Self> {
        let shared = self.mask & other.mask;
        let fits = self.value & shared == other.value & shared;
        fits.then_some(Self { mask: self.mask | other.mask, value: self.value | other.value })
    }
}

impl FromStr for FlagMatch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((mask, value)) = text.split_once('/') {
            let (mask, value) = (several(mask)?, several(value)?);
            if value & !mask != 0 {
                return Err(format!("{text:?} asks for flags that its mask leaves out"));
            }
            return Ok(Self { mask, value });
        }
        let (mut mask, mut value) = (0, 0);
        for word in text.split(',').map(str::trim) {
            let (name, wanted) = word.strip_prefix('!').map_or((word, true), |name| (name.trim(), false));
            let flag = one(name)?;
            if mask & flag != 0 {
                return Err(format!("{name:?} stands twice in {text:?}"));
            }
            mask |= flag;
            value |= if wanted { flag } else { 0 };
        }
        Ok(Self { mask, value })
    }
}

/// `SYN,ACK`, `ALL` or `NONE`.
fn several(text: &str) -> Result<u16, String> {
    text.split(',').map(str::trim).try_fold(0, |all, word| {
        Ok(all
            | match word.to_ascii_lowercase().as_str() {
                "all" => ALL,
                "none" => 0,
                name => one(name)?,
            })
    })
}

fn one(name: &str) -> Result<u16, String> {
    let name = name.to_ascii_lowercase();
    if let Some((_, flag)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(flag.0);
    }
    let known = NAMES.iter().map(|(name, _)| *name);
    Err(match nearest(&name, known) {
        Some(near) => format!("{name:?} is not a TCP flag; did you mean {near:?}?"),
        None => format!("{name:?} is not a TCP flag; these are fin, syn, rst, psh, ack, urg, ece, cwr, ae"),
    })
}

impl fmt::Display for FlagMatch {
    /// `syn,!ack`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = NAMES
            .iter()
            .filter(|(_, flag)| self.mask & flag.0 != 0)
            .map(|(name, flag)| if self.value & flag.0 == 0 { format!("!{name}") } else { (*name).into() })
            .collect();
        f.write_str(&words.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let short: FlagMatch = "syn,!ack".parse().unwrap();
        assert!(short.matches(0x02) && short.matches(0x0a) && !short.matches(0x12) && !short.matches(0x10));
        assert_eq!("SYN,ACK/SYN".parse::<FlagMatch>().unwrap(), short);
        assert_eq!(short.to_string(), "syn,!ack");
        assert_eq!("ALL/NONE".parse::<FlagMatch>().unwrap(), FlagMatch { mask: 0x3f, value: 0 });
        let negated = short.negated();
        let any = |flags| negated.iter().any(|one| one.matches(flags));
        assert!((0..64).all(|flags| any(flags) != short.matches(flags)));
        let both = short.and("fin".parse().unwrap()).unwrap();
        assert!(both.matches(0x03) && !both.matches(0x02) && short.and("ack".parse().unwrap()).is_none());
    }

    #[test]
    fn mistakes_are_told() {
        let error = |text: &str| text.parse::<FlagMatch>().unwrap_err();
        assert_eq!(error("sin"), "\"sin\" is not a TCP flag; did you mean \"fin\"?");
        assert!(error("syn,syn").contains("twice"));
        assert!(error("syn/ack").contains("leaves out"));
        assert!(error("").contains("not a TCP flag"));
    }
}
