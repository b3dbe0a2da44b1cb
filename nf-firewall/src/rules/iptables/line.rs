//! One `-A` line: its conditions and its target.

use onvm_lib::document::nearest;

use super::super::addresses::Addresses;
use super::super::flags::FlagMatch;
use super::super::icmp::{self, IcmpMatch};
use super::super::ranges::Ranges;
use super::super::rate::{Limit, Over};
use super::super::schedule::Schedule;
use super::super::{Masked, Match, RejectWith, States, Unreachable, parse_masked};
use super::Interface;
use super::family::Family;
use super::names::{MODULES, OPTIONS, UNREAD, protocol, state};
use super::time::Time;
use super::words::{self, Word};

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
    /// Where the target stands, from 1.
    pub(super) column: usize,
    /// When it holds.
    pub(super) time: Option<Schedule>,
    /// Why it has no counterpart here.
    pub(super) inexpressible: Option<String>,
}

/// Reads a line.
///
/// # Errors
/// The column and what is wrong there; what is right and has no counterpart is no error.
pub(super) fn parse(
    text: &str,
    number: usize,
    family: Family,
    interfaces: &[Interface],
) -> Result<Line, (usize, String)> {
    let words = words::split(text).map_err(|column| (column, "a quote is not closed".to_string()))?;
    // `iptables-save -c` puts counters in front.
    let skip = usize::from(words.first().is_some_and(|word| word.text.starts_with('[')));
    let mut reader = Reader {
        words: &words[skip.min(words.len())..],
        at: 0,
        family,
        interfaces,
        either_ports: None,
        time: None,
        foreign: false,
        line: Line {
            chain: String::new(),
            number,
            matches: Vec::new(),
            limit: None,
            comment: None,
            target: Target::Count,
            column: 1,
            time: None,
            inexpressible: None,
        },
        m: Match { source: family.all(), destination: family.all(), ..Match::any() },
    };
    match reader.read() {
        Ok(()) => Ok(reader.finish()),
        // What was read last is what is wrong; what is missing would stand at the end.
        Err(reason) => {
            let last = reader.at.checked_sub(1).and_then(|at| reader.words.get(at));
            Err((last.map_or(text.chars().count() + 1, |word| word.column), reason))
        }
    }
}

struct Reader<'a> {
    words: &'a [Word],
    at: usize,
    family: Family,
    interfaces: &'a [Interface],
    /// `--ports`: the source port or the destination port.
    either_ports: Option<(Ranges<u16>, bool)>,
    time: Option<Time>,
    /// A match or target has been named whose options are not known.
    foreign: bool,
    line: Line,
    m: Match,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), String> {
        if !matches!(self.word().as_deref(), Some("-A" | "--append")) {
            return Err("this is not a line of iptables-save: it begins with -A".into());
        }
        self.line.chain = self.value("-A")?;
        while let Some(word) = self.word() {
            if word == "!" {
                let option = self.value("!")?;
                self.option(&option, true)?;
            } else {
                self.option(&word, false)?;
            }
        }
        Ok(())
    }

    fn word(&mut self) -> Option<String> {
        let word = self.words.get(self.at).map(|word| word.text.clone());
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
        while self.words.get(self.at).is_some_and(|word| !word.text.starts_with('-') && word.text != "!") {
            self.at += 1;
        }
    }

    fn option(&mut self, option: &str, not: bool) -> Result<(), String> {
        match option {
            "-s" | "--source" | "--src" | "--src-range" => {
                let set = self.addresses(option, not)?;
                self.m.source = self.m.source.intersection(&set);
            }
            "-d" | "--destination" | "--dst" | "--dst-range" => {
                let set = self.addresses(option, not)?;
                self.m.destination = self.m.destination.intersection(&set);
            }
            "-p" | "--protocol" => {
                let name = self.value(option)?;
                let set = protocol(&name)?;
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
                    self.foreign = true;
                    self.cannot(format!("the match {name} is not known"));
                }
            }
            "-j" | "--jump" => self.target()?,
            "-g" | "--goto" => {
                self.line.target = Target::Goto(self.value(option)?);
                self.line.column = self.column();
            }
            "--timestart" | "--timestop" | "--weekdays" => {
                let text = self.value(option)?;
                self.time.get_or_insert_default().value(option, &text, not)?;
            }
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
            other => self.module_option(other, not)?,
        }
        Ok(())
    }

    /// Options that have less to do with headers.
    fn module_option(&mut self, option: &str, not: bool) -> Result<(), String> {
        match option {
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
            "--kerneltz" | "--localtz" | "--utc" | "--contiguous" => {
                self.time.get_or_insert_default().word(option);
            }
            other if self.foreign || UNREAD.contains(&other) => {
                self.pass_over();
                self.cannot(format!("the option {other} is not known"));
            }
            other => {
                return Err(match nearest(other, OPTIONS) {
                    Some(near) => format!("unknown option {other:?}; did you mean {near:?}?"),
                    None => format!("unknown option {other:?}"),
                });
            }
        }
        Ok(())
    }

    /// Where the word stands that was read last.
    fn column(&self) -> usize {
        self.at.checked_sub(1).and_then(|at| self.words.get(at)).map_or(1, |word| word.column)
    }

    fn addresses(&mut self, option: &str, not: bool) -> Result<Addresses, String> {
        let text = self.value(option)?;
        let mut set = Addresses::none();
        let range = matches!(option, "--src-range" | "--dst-range");
        for word in text.split(',') {
            if range {
                set = set.union(&self.family.range(word)?);
                continue;
            }
            match self.family.net(word)? {
                Ok(net) => set = set.union(&Addresses::prefix(net)),
                Err(reason) => self.cannot(reason),
            }
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
            match word {
                "SNAT" | "DNAT" => self.cannot(format!("the state {word}")),
                word => all |= state(word)?.bit(),
            }
        }
        let all = if not { States::ALL.0 & !all } else { all };
        self.m.states = States(self.m.states.0 & all);
        Ok(())
    }

    fn target(&mut self) -> Result<(), String> {
        let name = self.value("-j")?;
        self.line.column = self.column();
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
                self.foreign = true;
                self.cannot(format!("the target {name} is not known"));
                Target::Count
            }
            _ => Target::Jump(name),
        };
        Ok(())
    }

    fn reject_with(&mut self) -> Result<RejectWith, String> {
        if self.words.get(self.at).is_none_or(|word| word.text != "--reject-with") {
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
        self.line.time = self.time.map(Time::schedule);
        self.line
    }
}
