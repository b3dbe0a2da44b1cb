//! One `-A` line: its conditions and its target.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::addresses::Addresses;
use super::super::flags::FlagMatch;
use super::super::icmp::{self, IcmpMatch};
use super::super::ranges::Ranges;
use super::super::rate::{Limit, Over};
use super::super::yaml::protocol_number;
use super::super::{Masked, Match, RejectWith, State, States, Unreachable, parse_masked};
use super::Interface;
use super::words;

/// Which of the two programs a line is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// All addresses of the family.
    pub(super) fn all(self) -> Addresses {
        if self == Self::V4 { Addresses::all_v4() } else { Addresses::all_v6() }
    }
}

/// What follows `-j` or `-g`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// None: the rule only counts.
    Count,
    Accept,
    Drop,
    Reject(RejectWith),
    Return,
    Log(String),
    Mark(Masked),
    Jump(String),
    Goto(String),
}

/// A line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) chain: String,
    pub(super) number: usize,
    /// One, or several of which one must match (`--ports`).
    pub(super) matches: Vec<Match>,
    pub(super) limit: Option<Limit>,
    pub(super) comment: Option<String>,
    pub(super) target: Target,
    /// Why it has no counterpart here.
    pub(super) inexpressible: Option<String>,
}

/// Matches whose options are read; `-m` names them.
const MODULES: [&str; 14] = [
    "tcp",
    "udp",
    "sctp",
    "dccp",
    "udplite",
    "icmp",
    "icmp6",
    "icmpv6",
    "multiport",
    "state",
    "conntrack",
    "comment",
    "limit",
    "mark",
];

/// Reads a line.
///
/// # Errors
/// What is wrong with it; what is right and has no counterpart is no error.
pub(super) fn parse(
    text: &str,
    number: usize,
    family: Family,
    interfaces: &[Interface],
) -> Result<Line, String> {
    let words = words::split(text)?;
    // `iptables-save -c` puts counters in front.
    let skip = usize::from(words.first().is_some_and(|word| word.starts_with('[')));
    let mut reader = Reader {
        words: &words[skip.min(words.len())..],
        at: 0,
        family,
        interfaces,
        either_ports: None,
        line: Line {
            chain: String::new(),
            number,
            matches: Vec::new(),
            limit: None,
            comment: None,
            target: Target::Count,
            inexpressible: None,
        },
        m: Match { source: family.all(), destination: family.all(), ..Match::any() },
    };
    if !matches!(reader.word().as_deref(), Some("-A" | "--append")) {
        return Err(format!("{text:?} is not a line of iptables-save"));
    }
    reader.line.chain = reader.value("-A")?;
    while let Some(word) = reader.word() {
        if word == "!" {
            let option = reader.value("!")?;
            reader.option(&option, true)?;
        } else {
            reader.option(&word, false)?;
        }
    }
    Ok(reader.finish())
}

struct Reader<'a> {
    words: &'a [String],
    at: usize,
    family: Family,
    interfaces: &'a [Interface],
    /// `--ports`: the source port or the destination port.
    either_ports: Option<(Ranges<u16>, bool)>,
    line: Line,
    m: Match,
}

impl Reader<'_> {
    fn word(&mut self) -> Option<String> {
        let word = self.words.get(self.at).cloned();
        self.at += 1;
        word
    }

    fn value(&mut self, option: &str) -> Result<String, String> {
        self.word().ok_or_else(|| format!("the value of {option} is missing"))
    }

    fn cannot(&mut self, what: impl Into<String>) {
        self.line.inexpressible.get_or_insert(what.into());
    }

    /// The values of an option that is not known, up to the next one.
    fn pass_over(&mut self) {
        while self.words.get(self.at).is_some_and(|word| !word.starts_with('-') && word != "!") {
            self.at += 1;
        }
    }

    fn option(&mut self, option: &str, not: bool) -> Result<(), String> {
        match option {
            "-s" | "--source" | "--src" => {
                let set = self.addresses(option, not)?;
                self.m.source = self.m.source.intersection(&set);
            }
            "-d" | "--destination" | "--dst" => {
                let set = self.addresses(option, not)?;
                self.m.destination = self.m.destination.intersection(&set);
            }
            "-p" | "--protocol" => {
                let name = self.value(option)?;
                let set = protocol(&name).ok_or_else(|| format!("{name:?} is not a protocol"))?;
                let set = if not { set.complement() } else { set };
                self.m.protocols = self.m.protocols.intersection(&set);
            }
            "-i" | "--in-interface" => self.in_interface(option, not)?,
            "-o" | "--out-interface" => {
                let name = self.value(option)?;
                self.cannot(format!(
                    "where a packet goes out ({name}) is not known yet when it is decided on"
                ));
            }
            "-f" | "--fragment" => self.cannot("fragments follow their first and are not asked for apart"),
            "-m" | "--match" => {
                let name = self.value(option)?;
                if !MODULES.contains(&name.as_str()) {
                    self.cannot(format!("the match {name} is not known"));
                }
            }
            "-j" | "--jump" => self.target()?,
            "-g" | "--goto" => self.line.target = Target::Goto(self.value(option)?),
            "-c" | "--set-counters" => self.at += 2,
            "--sport" | "--source-port" | "--sports" | "--source-ports" => {
                let set = self.ports(option, not)?;
                self.m.source_ports = self.m.source_ports.intersection(&set);
            }
            "--dport" | "--destination-port" | "--dports" | "--destination-ports" => {
                let set = self.ports(option, not)?;
                self.m.destination_ports = self.m.destination_ports.intersection(&set);
            }
            "--ports" | "--port" => self.either_ports = Some((self.ports(option, false)?, not)),
            "--syn" => self.flags(FlagMatch { mask: 0x17, value: 0x02 }, not),
            "--tcp-flags" => {
                let (mask, value) = (self.value(option)?, self.value(option)?);
                self.flags(format!("{mask}/{value}").parse()?, not);
            }
            "--icmp-type" | "--icmpv6-type" => self.icmp(option, not)?,
            "--state" | "--ctstate" => self.states(option, not)?,
            "--limit" => {
                let rate = self.value(option)?.parse()?;
                let burst = self.line.limit.map_or(5.0, |limit| limit.burst);
                self.line.limit = Some(Limit { burst, over: Over::Next, ..Limit::of(rate) });
            }
            "--limit-burst" => {
                let burst = self.value(option)?;
                let burst: u32 = burst.parse().map_err(|_| format!("{burst:?} is not a number"))?;
                let limit = self.line.limit.map_or_else(|| "3/hour".parse().map(Limit::of), Ok)?;
                self.line.limit = Some(Limit { burst: f64::from(burst.max(1)), over: Over::Next, ..limit });
            }
            "--mark" => {
                let text = self.value(option)?;
                let mark = parse_masked(&text).ok_or_else(|| format!("{text:?} is not a mark"))?;
                if not {
                    self.cannot("a mark that must not be there");
                }
                self.m.mark = Some(mark);
            }
            "--comment" => self.line.comment = Some(self.value(option)?),
            other => {
                self.pass_over();
                self.cannot(format!("the option {other} is not known"));
            }
        }
        Ok(())
    }

    fn addresses(&mut self, option: &str, not: bool) -> Result<Addresses, String> {
        let text = self.value(option)?;
        let mut set = Addresses::none();
        for word in text.split(',') {
            let wrong = || format!("{word:?} is not an address");
            let net = match word.split_once('/') {
                None => IpNet::from(word.parse::<IpAddr>().map_err(|_| wrong())?),
                Some((address, mask)) => {
                    let address: IpAddr = address.parse().map_err(|_| wrong())?;
                    match (mask.parse::<u8>(), mask.parse::<IpAddr>()) {
                        (Ok(length), _) => IpNet::new(address, length).map_err(|_| wrong())?,
                        (_, Ok(mask)) => match IpNet::with_netmask(address, mask) {
                            Ok(net) => net,
                            Err(_) => {
                                self.cannot(format!(
                                    "the mask {mask} has ones that do not stand at the front"
                                ));
                                continue;
                            }
                        },
                        _ => return Err(wrong()),
                    }
                }
            };
            set = set.union(&Addresses::prefix(net));
        }
        Ok(if not { self.family.all().without(&set) } else { set })
    }

    fn in_interface(&mut self, option: &str, not: bool) -> Result<(), String> {
        let name = self.value(option)?;
        let is_it = |known: &str| match name.strip_suffix('+') {
            Some(start) => known.starts_with(start),
            None => known == name,
        };
        let ports: Vec<(u8, u8)> =
            self.interfaces.iter().filter(|i| is_it(&i.name)).map(|i| (i.port, i.port)).collect();
        if ports.is_empty() {
            self.cannot(format!("no port stands for the interface {name}: give --interface {name}=PORT"));
            return Ok(());
        }
        let set = Ranges::of(ports);
        let set = if not { set.complement() } else { set };
        self.m.in_ports = self.m.in_ports.intersection(&set);
        Ok(())
    }

    fn ports(&mut self, option: &str, not: bool) -> Result<Ranges<u16>, String> {
        let text = self.value(option)?;
        let mut set = Ranges::none();
        for word in text.split(',') {
            let (first, last) = word.split_once(':').unwrap_or((word, word));
            let number = |text: &str, open: u16| {
                if text.is_empty() {
                    Ok(open)
                } else {
                    text.parse().map_err(|_| format!("{text:?} is not a port"))
                }
            };
            let (first, last) = (number(first, 0)?, number(last, u16::MAX)?);
            if first > last {
                return Err(format!("the range {word} ends before it begins"));
            }
            set = set.union(&Ranges::of([(first, last)]));
        }
        Ok(if not { set.complement() } else { set })
    }

    fn flags(&mut self, flags: FlagMatch, not: bool) {
        let wanted = if not { flags.negated() } else { vec![flags] };
        let asks = Match { flags: wanted, ..Match::any() };
        match self.m.and(&asks) {
            Some(both) => self.m = both,
            None => self.cannot("its flags exclude each other"),
        }
    }

    fn icmp(&mut self, option: &str, not: bool) -> Result<(), String> {
        let text = self.value(option)?;
        let v6 = self.family == Family::V6;
        let text = if text == "255" && !v6 { "any" } else { &text };
        let set = icmp::parse(text, v6)?;
        let set = if not { set.complement() } else { set };
        self.m.icmp = Some(match v6 {
            true => IcmpMatch { v4: Ranges::none(), v6: set },
            false => IcmpMatch { v4: set, v6: Ranges::none() },
        });
        Ok(())
    }

    fn states(&mut self, option: &str, not: bool) -> Result<(), String> {
        let text = self.value(option)?;
        let mut all = 0;
        for word in text.split(',') {
            let name = word.to_ascii_lowercase();
            match State::NAMES.iter().find(|(known, _)| *known == name) {
                Some((_, state)) => all |= state.bit(),
                None if matches!(word, "SNAT" | "DNAT") => self.cannot(format!("the state {word}")),
                None => return Err(format!("{word:?} is not a state")),
            }
        }
        let all = if not { States::ALL.0 & !all } else { all };
        self.m.states = States(self.m.states.0 & all);
        Ok(())
    }

    fn target(&mut self) -> Result<(), String> {
        let name = self.value("-j")?;
        self.line.target = match name.as_str() {
            "ACCEPT" => Target::Accept,
            "DROP" => Target::Drop,
            "RETURN" => Target::Return,
            "REJECT" => Target::Reject(self.reject_with()?),
            "LOG" | "NFLOG" => Target::Log(self.log_prefix()?),
            "MARK" => Target::Mark(self.set_mark()?),
            "QUEUE" | "NFQUEUE" | "TCPMSS" | "CT" | "NOTRACK" | "TRACE" | "SET" | "CONNMARK" | "CLASSIFY"
            | "TTL" | "DSCP" | "TOS" | "ULOG" | "AUDIT" | "SECMARK" | "CONNSECMARK" | "DNAT" | "SNAT"
            | "MASQUERADE" | "REDIRECT" | "TEE" | "HL" => {
                self.at = self.words.len();
                self.cannot(format!("the target {name} is not known"));
                Target::Count
            }
            _ => Target::Jump(name),
        };
        Ok(())
    }

    fn reject_with(&mut self) -> Result<RejectWith, String> {
        if self.words.get(self.at).is_none_or(|word| word != "--reject-with") {
            return Ok(RejectWith::Unreachable(Unreachable::Port));
        }
        self.at += 1;
        let with = self.value("--reject-with")?;
        let kind = match with.as_str() {
            "tcp-reset" | "tcp-rst" => return Ok(RejectWith::TcpReset),
            "icmp-net-unreachable" | "net-unreach" | "icmp6-no-route" | "no-route" => Unreachable::Net,
            "icmp-host-unreachable" | "host-unreach" | "icmp6-addr-unreachable" | "addr-unreach" => {
                Unreachable::Host
            }
            "icmp-proto-unreachable" | "proto-unreach" => Unreachable::Protocol,
            "icmp-port-unreachable" | "port-unreach" | "icmp6-port-unreachable" => Unreachable::Port,
            "icmp-net-prohibited"
            | "icmp-host-prohibited"
            | "icmp-admin-prohibited"
            | "admin-prohib"
            | "icmp6-adm-prohibited"
            | "adm-prohibited" => Unreachable::AdminProhibited,
            other => {
                self.cannot(format!("--reject-with {other} is not known"));
                Unreachable::Port
            }
        };
        Ok(RejectWith::Unreachable(kind))
    }

    fn log_prefix(&mut self) -> Result<String, String> {
        let mut prefix = String::new();
        while let Some(option) = self.word() {
            match option.as_str() {
                "--log-prefix" | "--nflog-prefix" => prefix = self.value(&option)?,
                // How much the kernel writes, and where; the line here says the same to all.
                _ => self.pass_over(),
            }
        }
        Ok(prefix)
    }

    fn set_mark(&mut self) -> Result<Masked, String> {
        let option = self.value("MARK")?;
        let text = self.value(&option)?;
        let mark = parse_masked(&text).ok_or_else(|| format!("{text:?} is not a mark"))?;
        match option.as_str() {
            "--set-mark" => Ok(Masked { mask: mark.mask | mark.value, ..mark }),
            // It flips what the mask leaves; the same where the value lies in the mask.
            "--set-xmark" if mark.value & !mark.mask == 0 => Ok(mark),
            other => {
                self.cannot(format!("MARK {other} is not known"));
                Ok(mark)
            }
        }
    }

    fn finish(mut self) -> Line {
        let with_ports = !(self.m.source_ports.is_all() && self.m.destination_ports.is_all());
        if with_ports || self.either_ports.is_some() {
            let known = Ranges::of(super::super::WITH_PORTS.map(|number| (number, number)));
            self.m.protocols = self.m.protocols.intersection(&known);
        }
        self.line.matches = match self.either_ports {
            None => vec![self.m],
            Some((set, true)) => {
                let set = set.complement();
                let (source_ports, destination_ports) =
                    (self.m.source_ports.intersection(&set), self.m.destination_ports.intersection(&set));
                vec![Match { source_ports, destination_ports, ..self.m }]
            }
            Some((set, false)) => {
                let mut other = self.m.clone();
                self.m.source_ports = self.m.source_ports.intersection(&set);
                other.destination_ports = other.destination_ports.intersection(&set);
                // A packet with both is the first one's.
                other.source_ports = other.source_ports.without(&set);
                vec![self.m, other]
            }
        };
        self.line.matches.retain(|one| !one.is_impossible());
        self.line
    }
}

/// A protocol by name or number.
fn protocol(name: &str) -> Option<Ranges<u8>> {
    match name {
        "all" | "0" => Some(Ranges::all()),
        "mh" | "ipv6-mh" => Some(Ranges::one(135)),
        _ => name.parse().ok().or_else(|| protocol_number(name)).map(Ranges::one),
    }
}
