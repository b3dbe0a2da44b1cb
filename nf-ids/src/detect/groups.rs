//! Which rules a packet can match, by its protocol, direction and port, and by what is in it.
//!
//! The rules of a group are those that a packet of this protocol, direction and server port could match at all. A rule for one
//! port is in the group of that port only, a rule for any port in every group; so that a packet's cost does not depend on
//! the rules for other ports. What is left is divided by the prefilter.

use std::collections::HashMap;

use super::compile::{Compiled, choose};
use super::pattern::{Found, Matcher, MatcherBuilder, best_part};
use crate::decode::Decoded;
use crate::flow::Direction;
use crate::rules::{Kind, Ports, Protocol};

/// Ports that a rule may name one by one to be in their groups only.
const FEW: u128 = 64;

/// Bytes of a pattern that are looked for. As many before what is new in a stream are searched again with it, so that
/// a long pattern would cost each packet more than it spares.
const MOST_PATTERN: usize = 32;

/// Patterns, and the rules that each leads to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prefilter {
    matcher: Matcher,
    /// Of each pattern, where its rules are in `rules`.
    starts: Vec<u32>,
    rules: Vec<u32>,
    /// Bytes of the longest pattern.
    pub(crate) longest: usize,
}

impl Prefilter {
    /// Of rules and their patterns.
    pub(crate) fn new<'a>(patterns: impl Iterator<Item = (u32, &'a [u8], bool)>) -> Self {
        let mut builder = MatcherBuilder::default();
        let mut by_pattern: Vec<Vec<u32>> = Vec::new();
        let mut longest = 0;
        for (rule, bytes, nocase) in patterns {
            let bytes = best_part(bytes, MOST_PATTERN);
            longest = longest.max(bytes.len());
            let number = builder.add(bytes, nocase) as usize;
            if by_pattern.len() <= number {
                by_pattern.resize(number + 1, Vec::new());
            }
            by_pattern[number].push(rule);
        }
        let (mut starts, mut rules) = (vec![0], Vec::new());
        for of in by_pattern {
            rules.extend(of);
            starts.push(u32::try_from(rules.len()).unwrap_or(u32::MAX));
        }
        Prefilter { matcher: builder.build(), starts, rules, longest }
    }

    /// Adds the rules of which a pattern is in `bytes`.
    pub(crate) fn search(&self, bytes: &[u8], found: &mut Found, into: &mut Vec<u32>) {
        if self.matcher.is_empty() || bytes.is_empty() {
            return;
        }
        self.matcher.search(bytes, found);
        for pattern in &found.patterns {
            let at = *pattern as usize;
            into.extend_from_slice(&self.rules[self.starts[at] as usize..self.starts[at + 1] as usize]);
        }
    }

    pub(crate) fn memory(&self) -> usize {
        self.matcher.memory() + (self.starts.len() + self.rules.len()) * 4
    }
}

/// The rules of packets of one protocol, direction and port.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    /// Those that nothing in the payload rules out.
    pub(crate) always: Vec<u32>,
    /// Those for payloads of packets.
    pub(crate) packet: Prefilter,
    /// Those for the stream.
    pub(crate) stream: Prefilter,
    /// Both, for a packet that is in its stream's window as it is, so that one search does. None where all that are for
    /// packets are for the stream, too.
    pub(crate) both: Option<Prefilter>,
}

/// Groups of one protocol and direction.
#[derive(Debug, Default)]
struct ByPort {
    /// Index of the group of a port, where it is not the general one; sorted by port.
    ports: Vec<(u16, u32)>,
    groups: Vec<Group>,
}

impl ByPort {
    fn get(&self, port: u16) -> &Group {
        let at = self.ports.binary_search_by_key(&port, |(p, _)| *p).map_or(0, |at| self.ports[at].1);
        &self.groups[at as usize]
    }
}

/// All groups.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    tcp: [ByPort; 2],
    udp: [ByPort; 2],
    /// By the number of the protocol, for the others; the last is for packets without IP.
    others: Vec<[Group; 2]>,
    by_number: Vec<u16>,
}

/// Numbers of TCP and UDP.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Whether packets of this protocol (`None`: not IP) can match a rule.
fn fits(rule: &Compiled, protocol: Option<u8>) -> bool {
    let of_any_application = |number| protocol == Some(number);
    match rule.rule.protocol {
        Protocol::PacketHeader => true,
        Protocol::Arp => protocol.is_none(),
        Protocol::Ip | Protocol::Ipv4 | Protocol::Ipv6 => protocol.is_some(),
        Protocol::Tcp | Protocol::TcpPacket | Protocol::TcpStream => protocol == Some(TCP),
        Protocol::Udp => protocol == Some(UDP),
        Protocol::Icmp => matches!(protocol, Some(1 | 58)),
        Protocol::Icmpv4 => protocol == Some(1),
        Protocol::Icmpv6 => protocol == Some(58),
        Protocol::Sctp => protocol == Some(132),
        Protocol::Number(number) => protocol == Some(number),
        Protocol::App(_) => of_any_application(TCP) || of_any_application(UDP),
    }
}

/// Whether a rule is looked up for each packet.
fn is_of_packets(rule: &Compiled) -> bool {
    !matches!(rule.rule.kind, Kind::IpOnly | Kind::ProtocolOnly | Kind::Transaction)
}

/// Whether a rule can match in a direction.
fn is_in(rule: &Compiled, direction: Direction) -> bool {
    match direction {
        Direction::ToServer => rule.rule.ways.to_server,
        Direction::ToClient => rule.rule.ways.to_client,
    }
}

/// The ports that decide on the group of a rule: the server's.
fn server_ports(rule: &Compiled, direction: Direction) -> &Ports {
    match direction {
        Direction::ToServer => &rule.rule.destination_ports,
        Direction::ToClient => &rule.rule.source_ports,
    }
}

impl Groups {
    /// Divides rules.
    pub(crate) fn new(rules: &[Compiled]) -> Self {
        let fast: Vec<Option<(Vec<u8>, bool)>> =
            rules.iter().map(|r| choose(&r.rule).map(|f| (f.bytes, f.nocase))).collect();
        let both = [Direction::ToServer, Direction::ToClient];
        let by_port = |number| both.map(|direction| divide(rules, &fast, number, direction));
        let mut groups = Groups { tcp: by_port(TCP), udp: by_port(UDP), ..Groups::default() };
        let mut known: HashMap<[Vec<u32>; 2], u16> = HashMap::new();
        let numbers = (0..=255u8).map(Some).chain([None]);
        for number in numbers {
            let lists = both.map(|direction| {
                let takes = |r: &Compiled| {
                    let portless = r.rule.source_ports.is_any() && r.rule.destination_ports.is_any();
                    is_of_packets(r)
                        && fits(r, number)
                        && is_in(r, direction)
                        && (portless || number == Some(132))
                };
                indices(rules, takes)
            });
            let next = u16::try_from(groups.others.len()).unwrap_or(u16::MAX);
            let at = *known.entry(lists.clone()).or_insert_with(|| {
                groups.others.push(lists.map(|list| group(&list, rules, &fast)));
                next
            });
            groups.by_number.push(at);
        }
        groups
    }

    /// The group of a packet.
    pub(crate) fn of(&self, packet: &Decoded<'_>, direction: Direction) -> &Group {
        let port = match direction {
            Direction::ToServer => packet.destination_port,
            Direction::ToClient => packet.source_port,
        };
        match packet.protocol {
            Some(TCP) => self.tcp[direction.index()].get(port),
            Some(UDP) => self.udp[direction.index()].get(port),
            other => {
                let number = other.map_or(256, usize::from);
                &self.others[usize::from(self.by_number[number])][direction.index()]
            }
        }
    }

    /// Number of groups and bytes that they hold.
    pub(crate) fn size(&self) -> (usize, usize) {
        let ported = self.tcp.iter().chain(&self.udp).flat_map(|p| &p.groups);
        let all = ported.chain(self.others.iter().flatten());
        all.fold((0, 0), |(count, bytes), g| {
            let both = g.both.as_ref().map_or(0, Prefilter::memory);
            (count + 1, bytes + g.always.len() * 4 + g.packet.memory() + g.stream.memory() + both)
        })
    }
}

fn indices(rules: &[Compiled], takes: impl Fn(&Compiled) -> bool) -> Vec<u32> {
    let all = rules.iter().enumerate().filter(|(_, r)| takes(r));
    all.map(|(at, _)| u32::try_from(at).unwrap_or(u32::MAX)).collect()
}

type Fast = [Option<(Vec<u8>, bool)>];

fn divide(rules: &[Compiled], fast: &Fast, number: u8, direction: Direction) -> ByPort {
    let takes = |r: &Compiled| is_of_packets(r) && fits(r, Some(number)) && is_in(r, direction);
    let all = indices(rules, takes);
    // A rule that may be read in either order of its ends is looked up whatever the port.
    let few = |r: &Compiled| {
        let either = r.rule.arrow != crate::rules::Arrow::Right;
        if either { None } else { server_ports(r, direction).few(FEW) }
    };
    let mut special: HashMap<u16, Vec<u32>> = HashMap::new();
    let mut general = Vec::new();
    for index in all {
        match few(&rules[index as usize]) {
            Some(ports) => ports.into_iter().for_each(|port| special.entry(port).or_default().push(index)),
            None => general.push(index),
        }
    }
    let mut by_port = ByPort { ports: Vec::new(), groups: vec![group(&general, rules, fast)] };
    let mut known: HashMap<Vec<u32>, u32> = HashMap::new();
    let mut ports: Vec<(u16, Vec<u32>)> = special.into_iter().collect();
    ports.sort_unstable();
    for (port, mut list) in ports {
        list.extend(general.iter().filter(|i| {
            server_ports(&rules[**i as usize], direction).contains(port)
                || rules[**i as usize].rule.arrow != crate::rules::Arrow::Right
        }));
        list.sort_unstable();
        let next = u32::try_from(by_port.groups.len()).unwrap_or(u32::MAX);
        let at = *known.entry(list).or_insert_with_key(|list| {
            by_port.groups.push(group(list, rules, fast));
            next
        });
        by_port.ports.push((port, at));
    }
    by_port
}

fn group(list: &[u32], rules: &[Compiled], fast: &Fast) -> Group {
    let pattern = |index: &u32| {
        let of = fast[*index as usize].as_ref()?;
        Some((*index, of.0.as_slice(), of.1))
    };
    let rule = |index: &u32| &rules[*index as usize].rule;
    let always = list.iter().filter(|i| fast[**i as usize].is_none()).copied().collect();
    let packet = list.iter().filter(|i| rule(i).of_packet || !rule(i).of_stream).filter_map(pattern);
    let stream = list.iter().filter(|i| rule(i).of_stream).filter_map(pattern);
    let in_stream = list.iter().any(|i| rule(i).of_stream && pattern(i).is_some());
    let beside = in_stream && list.iter().any(|i| !rule(i).of_stream && pattern(i).is_some());
    let both = beside.then(|| Prefilter::new(list.iter().filter_map(pattern)));
    Group { always, packet: Prefilter::new(packet), stream: Prefilter::new(stream), both }
}
