//! The conditions of a rule beside the five fields, and their check against a packet.

use onvm_classifier::Header;

use crate::rules::{Match, State, States};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const TCP: u8 = 6;

/// What of a packet rules ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) header: Header,
    /// TCP control bits; 0 for what is not TCP.
    pub(crate) flags: u16,
    /// Type × 256 + code; 0 for what is not ICMP.
    pub(crate) icmp: u16,
    /// Id of the outermost tag, or [`UNTAGGED`](crate::rules::UNTAGGED).
    pub(crate) vlan: u16,
    pub(crate) inner_vlan: u16,
    /// 255 for none.
    pub(crate) in_port: u8,
    pub(crate) state: State,
    pub(crate) mark: u32,
}

/// Conditions that have to be looked at one by one; a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checks(u16);

impl Checks {
    pub(crate) const SOURCE: Self = Self(1);
    pub(crate) const DESTINATION: Self = Self(1 << 1);
    pub(crate) const SOURCE_PORT: Self = Self(1 << 2);
    pub(crate) const DESTINATION_PORT: Self = Self(1 << 3);
    pub(crate) const PROTOCOL: Self = Self(1 << 4);
    pub(crate) const ICMP: Self = Self(1 << 5);
    pub(crate) const FLAGS: Self = Self(1 << 6);
    pub(crate) const VLAN: Self = Self(1 << 7);
    pub(crate) const INNER_VLAN: Self = Self(1 << 8);
    pub(crate) const IN_PORT: Self = Self(1 << 9);
    pub(crate) const STATE: Self = Self(1 << 10);
    pub(crate) const TIME: Self = Self(1 << 11);
    pub(crate) const MARK: Self = Self(1 << 12);
    /// A limit beyond which the rule does not match.
    pub(crate) const LIMIT: Self = Self(1 << 13);

    /// All, in the order in which they are told.
    pub(crate) const ALL: [Self; 13] = [
        Self::PROTOCOL,
        Self::SOURCE,
        Self::DESTINATION,
        Self::SOURCE_PORT,
        Self::DESTINATION_PORT,
        Self::ICMP,
        Self::FLAGS,
        Self::VLAN,
        Self::INNER_VLAN,
        Self::IN_PORT,
        Self::STATE,
        Self::TIME,
        Self::MARK,
    ];

    /// Those that the five fields do not hold.
    pub(crate) fn of(rule: &Match) -> Self {
        let mut checks = Self::default();
        for (asked, check) in [
            (rule.icmp.is_some(), Self::ICMP),
            (!rule.flags.is_empty(), Self::FLAGS),
            (!rule.vlan.is_all(), Self::VLAN),
            (!rule.inner_vlan.is_all(), Self::INNER_VLAN),
            (!rule.in_ports.is_all(), Self::IN_PORT),
            (rule.states != States::ALL, Self::STATE),
            (rule.time.is_some(), Self::TIME),
            (rule.mark.is_some(), Self::MARK),
        ] {
            if asked {
                checks.add(check);
            }
        }
        checks
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(crate) fn set(&mut self, other: Self, there: bool) {
        self.0 = if there { self.0 | other.0 } else { self.0 & !other.0 };
    }

    #[inline]
    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of these conditions hold. `times` has a bit for each schedule that holds now.
    #[inline]
    pub(crate) fn hold(self, rule: &Match, facts: &Facts, times: u64) -> bool {
        Self::ALL.iter().all(|check| !self.has(*check) || check.holds(rule, facts, times))
    }

    /// Whether one condition holds.
    #[inline]
    pub(crate) fn holds(self, rule: &Match, facts: &Facts, times: u64) -> bool {
        let header = &facts.header;
        match self {
            Self::SOURCE => rule.source.contains(header.source()),
            Self::DESTINATION => rule.destination.contains(header.destination()),
            Self::SOURCE_PORT => rule.source_ports.contains(header.source_port()),
            Self::DESTINATION_PORT => rule.destination_ports.contains(header.destination_port()),
            Self::PROTOCOL => rule.protocols.contains(header.protocol()),
            Self::ICMP => rule.icmp.as_ref().is_none_or(|icmp| {
                let [kind, code] = facts.icmp.to_be_bytes();
                let fits = header.protocol() == if header.is_v6() { ICMPV6 } else { ICMP };
                fits && icmp.matches(header.is_v6(), kind, code)
            }),
            Self::FLAGS => {
                let any = rule.flags.is_empty() || rule.flags.iter().any(|flags| flags.matches(facts.flags));
                rule.flags.is_empty() || header.protocol() == TCP && any
            }
            Self::VLAN => rule.vlan.contains(facts.vlan),
            Self::INNER_VLAN => rule.inner_vlan.contains(facts.inner_vlan),
            Self::IN_PORT => rule.in_ports.contains(facts.in_port),
            Self::STATE => rule.states.has(facts.state),
            Self::TIME => rule.time.is_none_or(|index| times >> index & 1 == 1),
            Self::MARK => rule.mark.is_none_or(|mark| mark.matches(facts.mark)),
            _ => true,
        }
    }
}
