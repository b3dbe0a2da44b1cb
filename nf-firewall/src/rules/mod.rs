//! What rules say: the language's model, whatever file it was read from.
//!
//! | room | what is in it |
//! |---|---|
//! | `ranges`, `addresses` | sets of numbers and of addresses, with exact arithmetic |
//! | `icmp`, `flags`, `schedule`, `rate` | the conditions that have words of their own |
//! | `yaml` | the language of our own |
//! | `classbench`, `iptables` | files of others |
//! | `load` | which of them a file is, and the set that comes of it |
//! | `shadow` | rules that can decide nothing |

pub(crate) mod addresses;
pub(crate) mod classbench;
pub(crate) mod flags;
pub(crate) mod icmp;
pub(crate) mod iptables;
pub(crate) mod load;
pub(crate) mod ranges;
pub(crate) mod rate;
pub(crate) mod schedule;
pub(crate) mod shadow;
pub(crate) mod yaml;

use std::fmt;
use std::sync::Arc;

pub(crate) use yaml::{At, Change, parse_masked, read_change};

use addresses::Addresses;
use flags::FlagMatch;
use icmp::IcmpMatch;
use ranges::Ranges;
use rate::Limit;
use schedule::Schedule;

/// IP protocols whose header begins with source and destination port: TCP, UDP, DCCP, SCTP, UDP-Lite.
pub(crate) const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];
/// VLAN id of a packet without a tag, in the sets of ids; real ones have 12 bits.
pub(crate) const UNTAGGED: u16 = 0xffff;
/// Most rules in a set; indices have room for more, but nobody has memory for it.
pub(crate) const MOST_RULES: usize = 1_000_000;

/// What connection tracking says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum State {
    /// It would begin a connection.
    New = 0,
    /// It belongs to one.
    Established = 1,
    /// It is an ICMP error about one, or begins one that another has led to.
    Related = 2,
    /// It fits no connection and begins none.
    Invalid = 3,
    /// Nobody looked: connections are not tracked.
    Untracked = 4,
}

impl State {
    pub(crate) const NAMES: [(&'static str, State); 5] = [
        ("new", State::New),
        ("established", State::Established),
        ("related", State::Related),
        ("invalid", State::Invalid),
        ("untracked", State::Untracked),
    ];

    pub(crate) fn bit(self) -> u8 {
        1 << (self as u8)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES[usize::from(*self as u8)].0)
    }
}

/// States, a bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct States(pub(crate) u8);

impl States {
    pub(crate) const ALL: Self = Self(0b1_1111);

    pub(crate) fn has(self, state: State) -> bool {
        self.0 & state.bit() != 0
    }
}

impl fmt::Display for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> =
            State::NAMES.iter().filter(|(_, s)| self.has(*s)).map(|(n, _)| n.to_string()).collect();
        f.write_str(&names.join(", "))
    }
}

/// A number under a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Masked {
    pub(crate) value: u32,
    pub(crate) mask: u32,
}

impl Masked {
    pub(crate) fn matches(self, number: u32) -> bool {
        number & self.mask == self.value & self.mask
    }
}

/// What a packet must be for a rule to decide it. All conditions must hold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Match {
    pub(crate) source: Addresses,
    pub(crate) destination: Addresses,
    pub(crate) source_ports: Ranges<u16>,
    pub(crate) destination_ports: Ranges<u16>,
    pub(crate) protocols: Ranges<u8>,
    /// None: any type and code.
    pub(crate) icmp: Option<IcmpMatch>,
    /// One of these; empty: any flags.
    pub(crate) flags: Vec<FlagMatch>,
    /// Outermost tag, [`UNTAGGED`] for none.
    pub(crate) vlan: Ranges<u16>,
    /// Second tag.
    pub(crate) inner_vlan: Ranges<u16>,
    /// Port by which it came in; 255 where it came by none.
    pub(crate) in_ports: Ranges<u8>,
    pub(crate) states: States,
    /// Index into [`RuleSet::schedules`].
    pub(crate) time: Option<u16>,
    pub(crate) mark: Option<Masked>,
}

impl Match {
    /// What every packet matches.
    pub(crate) fn any() -> Self {
        Self {
            source: Addresses::all(),
            destination: Addresses::all(),
            source_ports: Ranges::all(),
            destination_ports: Ranges::all(),
            protocols: Ranges::all(),
            icmp: None,
            flags: Vec::new(),
            vlan: Ranges::all(),
            inner_vlan: Ranges::all(),
            in_ports: Ranges::all(),
            states: States::ALL,
            time: None,
            mark: None,
        }
    }

    /// What matches the packets that both match; none if there are none, or they cannot be told so.
    pub(crate) fn and(&self, other: &Self) -> Option<Self> {
        let flags = match (self.flags.is_empty(), other.flags.is_empty()) {
            (_, true) => self.flags.clone(),
            (true, false) => other.flags.clone(),
            (false, false) => {
                let pairs = self.flags.iter().flat_map(|a| other.flags.iter().filter_map(|b| a.and(*b)));
                let all: Vec<FlagMatch> = pairs.collect();
                if all.is_empty() {
                    return None;
                }
                all
            }
        };
        let icmp = match (&self.icmp, &other.icmp) {
            (Some(a), Some(b)) => {
                Some(IcmpMatch { v4: a.v4.intersection(&b.v4), v6: a.v6.intersection(&b.v6) })
            }
            (a, b) => a.clone().or_else(|| b.clone()),
        };
        let mark = match (self.mark, other.mark) {
            (Some(a), Some(b)) if (a.value ^ b.value) & a.mask & b.mask != 0 => return None,
            (Some(a), Some(b)) => {
                Some(Masked { value: a.value & a.mask | b.value & b.mask, mask: a.mask | b.mask })
            }
            (a, b) => a.or(b),
        };
        let both = Self {
            source: self.source.intersection(&other.source),
            destination: self.destination.intersection(&other.destination),
            source_ports: self.source_ports.intersection(&other.source_ports),
            destination_ports: self.destination_ports.intersection(&other.destination_ports),
            protocols: self.protocols.intersection(&other.protocols),
            icmp,
            flags,
            vlan: self.vlan.intersection(&other.vlan),
            inner_vlan: self.inner_vlan.intersection(&other.inner_vlan),
            in_ports: self.in_ports.intersection(&other.in_ports),
            states: States(self.states.0 & other.states.0),
            time: self.time.or(other.time),
            mark,
        };
        (!both.is_impossible()).then_some(both)
    }

    /// Whether no packet can match.
    pub(crate) fn is_impossible(&self) -> bool {
        let v4 = !self.source.v4.is_empty() && !self.destination.v4.is_empty();
        let v6 = !self.source.v6.is_empty() && !self.destination.v6.is_empty();
        !(v4 || v6)
            || self.source_ports.is_empty()
            || self.destination_ports.is_empty()
            || self.protocols.is_empty()
            || self.vlan.is_empty()
            || self.inner_vlan.is_empty()
            || self.in_ports.is_empty()
            || self.states.0 & States::ALL.0 == 0
            || self.icmp.as_ref().is_some_and(IcmpMatch::is_empty)
    }
}

/// How a packet is refused so that its sender knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RejectWith {
    /// A reset for TCP, else "port unreachable".
    Fitting,
    /// A reset; for what is not TCP nothing.
    TcpReset,
    /// An ICMP "unreachable" of this kind.
    Unreachable(Unreachable),
}

/// The kinds of "unreachable" that both families have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Unreachable {
    Net,
    Host,
    Port,
    Protocol,
    AdminProhibited,
}

impl RejectWith {
    pub(crate) const NAMES: [(&'static str, RejectWith); 7] = [
        ("fitting", RejectWith::Fitting),
        ("tcp-reset", RejectWith::TcpReset),
        ("net-unreachable", RejectWith::Unreachable(Unreachable::Net)),
        ("host-unreachable", RejectWith::Unreachable(Unreachable::Host)),
        ("port-unreachable", RejectWith::Unreachable(Unreachable::Port)),
        ("protocol-unreachable", RejectWith::Unreachable(Unreachable::Protocol)),
        ("admin-prohibited", RejectWith::Unreachable(Unreachable::AdminProhibited)),
    ];
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Nothing yet: later rules decide.
    Continue,
    Allow,
    Deny,
    Reject(RejectWith),
    /// On to a service, by its id.
    Service(u16),
    /// Nothing yet, and rules before this index have nothing to say: how a chain of iptables returns.
    Skip(u32),
}

impl Action {
    pub(crate) fn is_final(self) -> bool {
        !matches!(self, Self::Continue | Self::Skip(_))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Continue => f.write_str("continue"),
            Self::Allow => f.write_str("allow"),
            Self::Deny => f.write_str("deny"),
            Self::Reject(RejectWith::Fitting) => f.write_str("reject"),
            Self::Reject(with) => {
                let name = RejectWith::NAMES.iter().find(|(_, w)| w == with).map_or("", |(name, _)| name);
                write!(f, "reject with {name}")
            }
            Self::Service(id) => write!(f, "service {id}"),
            Self::Skip(to) => write!(f, "go on at rule {}", to + 1),
        }
    }
}

/// That a rule logs what it matches.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogAs {
    /// Stands in front of each line.
    pub(crate) prefix: String,
    pub(crate) limit: Limit,
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    pub(crate) name: String,
    /// Line of the file, from 1.
    pub(crate) line: usize,
    pub(crate) matches: Match,
    pub(crate) limit: Option<Limit>,
    /// Mark that the packet and its connection get.
    pub(crate) set_mark: Option<Masked>,
    pub(crate) log: Option<LogAs>,
    pub(crate) action: Action,
}

impl Rule {
    /// Whether it decides, but a limit of its may drop what it decides on.
    pub(crate) fn may_drop(&self) -> bool {
        self.action.is_final() && self.limit.is_some_and(|limit| limit.over == rate::Over::Deny)
    }

    /// One that does this with every packet.
    pub(crate) fn new(name: String, line: usize, action: Action) -> Self {
        Self { name, line, matches: Match::any(), limit: None, set_mark: None, log: None, action }
    }
}

/// Kinds of files that rules are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// The language of our own
    Yaml,
    /// Filter sets of the ClassBench generator
    Classbench,
    /// What iptables-save or ip6tables-save prints
    Iptables,
}

/// A set of rules, in order: the first that matches decides.
#[derive(Clone, Debug)]
pub(crate) struct RuleSet {
    pub(crate) format: Format,
    /// Apart from each other, so that one is put between others without moving them.
    pub(crate) rules: Vec<Arc<Rule>>,
    /// What becomes of packets that no rule decides.
    pub(crate) default: Action,
    /// What becomes of frames that carry no IP.
    pub(crate) non_ip: Action,
    /// What becomes of packets whose headers contradict themselves.
    pub(crate) malformed: Action,
    /// What becomes of fragments whose first has not been seen.
    pub(crate) stray_fragments: Action,
    pub(crate) schedules: Vec<Schedule>,
}

impl RuleSet {
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            rules: Vec::new(),
            default: Action::Deny,
            non_ip: Action::Allow,
            malformed: Action::Deny,
            stray_fragments: Action::Deny,
            schedules: Vec::new(),
        }
    }

    /// An action in words: after the last rule there is only the default.
    pub(crate) fn told(&self, action: Action) -> String {
        match action {
            Action::Skip(to) if to as usize >= self.rules.len() => {
                format!("go on with the default, {}", self.default)
            }
            action => action.to_string(),
        }
    }

    /// Whether a rule asks for the state of connections.
    pub(crate) fn asks_for_states(&self) -> bool {
        self.rules.iter().any(|rule| self.asks_of(&rule.matches))
    }

    /// Whether these conditions are about the state of connections.
    pub(crate) fn asks_of(&self, matches: &Match) -> bool {
        matches.states != States::ALL || self.marks_connections() && matches.mark.is_some()
    }

    /// Whether a packet's mark becomes its connection's. The kernel's MARK is of the packet only.
    pub(crate) fn marks_connections(&self) -> bool {
        self.format != Format::Iptables
    }
}
