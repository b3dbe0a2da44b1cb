//! Flow rules as the packet path has them: which packet takes which chain.
//!
//! The rules stand in the order in which they decide, and are looked through one after the other. In front of them is a
//! cache: one entry for each of [`CACHE_ENTRIES`] slots, found by the flow's hash and direction, believed when flow key
//! and input port are the same to the bit. A change of the rules makes a new set with an empty cache.
//!
//! A packet that is not IP, or cannot be read as such, matches only rules without addresses, protocol and ports. A
//! fragment is known by its addresses alone (the later ones have no ports, and all must go the same way), so it matches
//! only rules without protocol and ports.

use std::net::IpAddr;

use ipnet::IpNet;
use onvm_lib::wire::{FlowKey, LinkType};

use super::{Rule, has_ports};

/// Flows that are remembered, a power of two. 4 MiB, of which a flow touches one line.
const CACHE_ENTRIES: usize = 1 << 16;

/// No chain: no rule matches. [`FlowRules::compile`] refuses chains with this index.
const NONE: u16 = u16::MAX;

/// A remembered answer, in a cache line of its own.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Remembered {
    key: FlowKey,
    input_port: u8,
    chain: u16,
}

const _: () = assert!(size_of::<Option<Remembered>>() == 64, "one line a flow");

/// A set of rules, ready for packets.
#[derive(Default)]
pub(crate) struct FlowRules {
    rules: Vec<Compiled>,
    /// Empty as long as there is no rule.
    cache: Vec<Option<Remembered>>,
}

/// A rule without names and with the numbers that matching needs.
struct Compiled {
    source: Prefixes,
    destination: Prefixes,
    source_port: Vec<(u16, u16)>,
    destination_port: Vec<(u16, u16)>,
    protocol: Option<u8>,
    input_port: Option<u8>,
    both_directions: bool,
    chain: u16,
}

/// Prefixes as network and mask; an empty pair of lists matches every packet.
struct Prefixes {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl FlowRules {
    /// Makes a set; `chain` tells the index of a chain by name. A rule whose chain has none, or [`u16::MAX`], is left
    /// out.
    pub(crate) fn compile(rules: &[Rule], chain: impl Fn(&str) -> Option<u16>) -> Self {
        let mut in_order: Vec<&Rule> = rules.iter().collect();
        // Stable: among equal priorities the first stays the first.
        in_order.sort_by_key(|rule| std::cmp::Reverse(rule.priority));
        let one = |rule: &Rule| Some(Compiled::new(rule, chain(&rule.chain).filter(|c| *c != NONE)?));
        let rules: Vec<Compiled> = in_order.into_iter().filter_map(one).collect();
        let cache = if rules.is_empty() { Vec::new() } else { vec![None; CACHE_ENTRIES] };
        Self { rules, cache }
    }

    /// Whether there is no rule, and so nothing to ask.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The index of the chain that a frame takes; none if no rule matches it.
    #[inline]
    pub(crate) fn classify(&mut self, frame: &[u8], input_port: u8) -> Option<u16> {
        if self.is_empty() {
            return None;
        }
        self.classify_key(LinkType::Ethernet.flow_key(frame), input_port)
    }

    /// The same for a frame whose flow key is known.
    #[inline]
    pub(crate) fn classify_key(&mut self, key: FlowKey, input_port: u8) -> Option<u16> {
        let slot = slot(&key);
        let place = self.cache.get_mut(slot)?;
        let chain = match place {
            Some(known) if known.key == key && known.input_port == input_port => known.chain,
            place => {
                let chain = decide(&self.rules, &key, input_port);
                *place = Some(Remembered { key, input_port, chain });
                chain
            }
        };
        (chain != NONE).then_some(chain)
    }
}

/// The place of a flow in the cache. The hash is the same for both directions, which must not turn each other out.
#[inline]
fn slot(key: &FlowKey) -> usize {
    let direction = u32::from(key.symmetric() != *key);
    (key.hash32() ^ direction) as usize & (CACHE_ENTRIES - 1)
}

/// What the first rule that matches says.
#[cold]
#[inline(never)]
fn decide(rules: &[Compiled], key: &FlowKey, input_port: u8) -> u16 {
    let other = key.reversed();
    rules.iter().find(|rule| rule.matches(key, &other, input_port)).map_or(NONE, |rule| rule.chain)
}

impl Compiled {
    fn new(rule: &Rule, chain: u16) -> Self {
        Self {
            source: Prefixes::new(&rule.source),
            destination: Prefixes::new(&rule.destination),
            source_port: rule.source_port.clone(),
            destination_port: rule.destination_port.clone(),
            protocol: rule.protocol,
            input_port: rule.input_port,
            both_directions: rule.both_directions,
            chain,
        }
    }

    fn matches(&self, key: &FlowKey, other: &FlowKey, input_port: u8) -> bool {
        let comes_in = |port: u8| self.input_port.is_none_or(|wanted| wanted == port);
        (comes_in(input_port) && self.matches_one_way(key))
            // What goes back comes in by the same port, or by the one that packets of this one go out of.
            || (self.both_directions
                && (comes_in(input_port) || comes_in(input_port ^ 1))
                && self.matches_one_way(other))
    }

    fn matches_one_way(&self, key: &FlowKey) -> bool {
        self.protocol.is_none_or(|wanted| key.protocol() == Some(wanted))
            && self.ports_match(key)
            && self.source.contain(key.src())
            && self.destination.contain(key.dst())
    }

    fn ports_match(&self, key: &FlowKey) -> bool {
        if self.source_port.is_empty() && self.destination_port.is_empty() {
            return true;
        }
        let within = |all: &[(u16, u16)], port| {
            all.is_empty() || all.iter().any(|(from, to)| (*from..=*to).contains(&port))
        };
        // Keys of ICMP queries have their identifier where others have ports.
        key.protocol().is_some_and(has_ports)
            && within(&self.source_port, key.src_port())
            && within(&self.destination_port, key.dst_port())
    }
}

impl Prefixes {
    fn new(all: &[IpNet]) -> Self {
        let mut prefixes = Self { v4: Vec::new(), v6: Vec::new() };
        for net in all {
            match net.trunc() {
                IpNet::V4(net) => prefixes.v4.push((net.network().to_bits(), net.netmask().to_bits())),
                IpNet::V6(net) => prefixes.v6.push((net.network().to_bits(), net.netmask().to_bits())),
            }
        }
        prefixes
    }

    fn contain(&self, address: Option<IpAddr>) -> bool {
        if self.v4.is_empty() && self.v6.is_empty() {
            return true;
        }
        match address {
            Some(IpAddr::V4(a)) => self.v4.iter().any(|(net, mask)| a.to_bits() & mask == *net),
            Some(IpAddr::V6(a)) => self.v6.iter().any(|(net, mask)| a.to_bits() & mask == *net),
            None => false,
        }
    }
}

impl std::fmt::Debug for FlowRules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let remembered = self.cache.iter().flatten().count();
        write!(f, "FlowRules {{ {} rules, {remembered} flows remembered }}", self.rules.len())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use onvm_lib::wire::build::Packet;
    use onvm_lib::wire::{EtherType, Fragment, MacAddr};
    use proptest::prelude::*;

    use super::*;

    const MACS: (MacAddr, MacAddr) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));

    fn index(name: &str) -> Option<u16> {
        name.parse().ok()
    }

    fn base<'a>() -> Packet<'a> {
        Packet::ethernet(MACS.0, MACS.1).ipv4([10, 0, 0, 1].into(), [192, 168, 0, 2].into())
    }

    /// What the rules say, asked twice: the second time the cache answers.
    fn ask(rules: &mut FlowRules, packet: Packet<'_>, input_port: u8) -> Option<u16> {
        let frame = packet.to_vec().unwrap();
        let first = rules.classify(&frame, input_port);
        assert_eq!(rules.classify(&frame, input_port), first);
        first
    }

    #[test]
    fn no_rules_match_nothing() {
        let mut none = FlowRules::compile(&[], index);
        assert!(none.is_empty() && none.cache.is_empty());
        assert_eq!(none.classify(&[0; 60], 0), None);
        assert_eq!(none.classify_key(FlowKey::link(MACS.0, MACS.1, 0), 0), None);
        let nameless = Rule { chain: "nowhere".into(), ..Rule::default() };
        assert!(FlowRules::compile(&[nameless], index).is_empty());
    }

    #[test]
    fn the_highest_priority_decides_and_then_the_first() {
        let rule = |priority, chain: &str| Rule { priority, chain: chain.into(), ..Rule::default() };
        let mut rules = FlowRules::compile(&[rule(-1, "0"), rule(5, "1"), rule(5, "2")], index);
        assert_eq!(ask(&mut rules, base().tcp(1, 2), 0), Some(1));
    }

    #[test]
    fn what_has_no_ports_or_addresses_matches_no_rule_with_them() {
        let any = Rule { chain: "9".into(), priority: -1, ..Rule::default() };
        let ports = Rule { destination_port: vec![(0, 65535)], chain: "1".into(), ..Rule::default() };
        let tcp = Rule { protocol: Some(6), chain: "2".into(), ..Rule::default() };
        let addresses =
            Rule { source: vec!["0.0.0.0/0".parse().unwrap()], chain: "3".into(), ..Rule::default() };
        let mut rules = FlowRules::compile(&[any, ports, tcp, addresses], index);
        assert_eq!(ask(&mut rules, base().udp(1, 2), 0), Some(1));
        assert_eq!(ask(&mut rules, base().echo_request(7, 1), 0), Some(3));
        let fragment = Fragment { id: 1, offset: 0, more: true };
        assert_eq!(ask(&mut rules, base().fragment(fragment).tcp(1, 2), 0), Some(3));
        assert_eq!(ask(&mut rules, base().ethertype(EtherType::ARP), 0), Some(9));
        let six = Packet::ethernet(MACS.0, MACS.1).ipv6(1.into(), 2.into());
        assert_eq!(ask(&mut rules, six.echo_request(7, 1), 0), Some(9));
        assert_eq!(rules.classify(&[], 0), Some(9));
    }

    #[test]
    fn both_directions_come_in_by_paired_ports() {
        let web = Rule {
            source: vec!["10.0.0.0/8".parse().unwrap()],
            destination_port: vec![(80, 80), (8000, 8999)],
            input_port: Some(2),
            both_directions: true,
            chain: "1".into(),
            ..Rule::default()
        };
        let mut rules = FlowRules::compile(std::slice::from_ref(&web), index);
        let back = Packet::ethernet(MACS.1, MACS.0).ipv4([192, 168, 0, 2].into(), [10, 0, 0, 1].into());
        let asked = |rules: &mut FlowRules, port| {
            (ask(rules, base().tcp(5, 8500), port), ask(rules, back.tcp(8500, 5), port))
        };
        assert_eq!(asked(&mut rules, 2), (Some(1), Some(1)));
        assert_eq!(asked(&mut rules, 3), (None, Some(1)));
        assert_eq!(asked(&mut rules, 0), (None, None));
        let mut rules = FlowRules::compile(&[Rule { both_directions: false, ..web }], index);
        assert_eq!(asked(&mut rules, 2), (Some(1), None));
    }

    /// The same in the plainest words.
    fn naive(rules: &[Rule], key: &FlowKey, input_port: u8) -> Option<u16> {
        let one_way = |r: &Rule, key: &FlowKey| {
            let nets = |all: &[IpNet], a: Option<IpAddr>| {
                all.is_empty() || a.is_some_and(|a| all.iter().any(|n| n.contains(&a)))
            };
            let ports = |all: &[(u16, u16)], p: u16| {
                all.is_empty()
                    || (key.protocol().is_some_and(has_ports) && all.iter().any(|(a, b)| *a <= p && p <= *b))
            };
            nets(&r.source, key.src())
                && nets(&r.destination, key.dst())
                && ports(&r.source_port, key.src_port())
                && ports(&r.destination_port, key.dst_port())
                && (r.protocol.is_none() || r.protocol == key.protocol())
        };
        let mut best: Option<&Rule> = None;
        for r in rules {
            let there = r.input_port.is_none() || r.input_port == Some(input_port);
            let paired = there || r.input_port == Some(input_port ^ 1);
            let hit =
                (there && one_way(r, key)) || (r.both_directions && paired && one_way(r, &key.reversed()));
            if hit && best.is_none_or(|b| r.priority > b.priority) {
                best = Some(r);
            }
        }
        best.and_then(|r| index(&r.chain))
    }

    fn nets() -> impl Strategy<Value = Vec<IpNet>> {
        let four =
            (0u32..8, 29u8..=32).prop_map(|(a, n)| IpNet::new(Ipv4Addr::from_bits(a).into(), n).unwrap());
        let six =
            (0u128..8, 125u8..=128).prop_map(|(a, n)| IpNet::new(Ipv6Addr::from_bits(a).into(), n).unwrap());
        proptest::collection::vec(prop_oneof![four, six, Just("0.0.0.0/0".parse().unwrap())], 0..3)
    }

    prop_compose! {
        fn rule()(
            priority in -1i32..2, chain in 0u16..5, source in nets(), destination in nets(),
            source_port in proptest::collection::vec((0u16..4, 2u16..6), 0..2),
            destination_port in proptest::collection::vec((0u16..4, 2u16..6), 0..2),
            protocol in proptest::option::of(prop_oneof![Just(6u8), Just(17), Just(1)]),
            input_port in proptest::option::of(0u8..3), both_directions: bool,
        ) -> Rule {
            let chain = chain.to_string();
            Rule { priority, chain, source, destination, source_port, destination_port, protocol, input_port, both_directions }
        }
    }

    fn key() -> impl Strategy<Value = FlowKey> {
        let protocol = prop_oneof![Just(6u8), Just(17), Just(1), Just(132)];
        let parts = (0u8..8, 0u8..8, 0u16..6, 0u16..6, protocol);
        parts.prop_flat_map(|(a, b, p, q, protocol)| {
            let (v4, v6) = (|a: u8| Ipv4Addr::from_bits(a.into()), |a: u8| Ipv6Addr::from_bits(a.into()));
            prop_oneof![
                4 => Just(FlowKey::v4(v4(a), v4(b), p, q, protocol)),
                2 => Just(FlowKey::v6(v6(a), v6(b), p, q, protocol)),
                1 => Just(FlowKey::link(MACS.0, MACS.1, p)),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_compiled_rules_say_what_the_naive_ones_say(
            rules in proptest::collection::vec(rule(), 0..8),
            packets in proptest::collection::vec((key(), 0u8..4), 1..200),
        ) {
            let mut compiled = FlowRules::compile(&rules, index);
            for (key, port) in packets.iter().chain(&packets) {
                prop_assert_eq!(compiled.classify_key(*key, *port), naive(&rules, key, *port));
                let back = key.reversed();
                prop_assert_eq!(compiled.classify_key(back, *port), naive(&rules, &back, *port));
            }
        }
    }
}
