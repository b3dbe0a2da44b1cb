//! Against a linear search: rules that overlap in all ways, both families, changes between lookups, and conditions.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use onvm_classifier::{Classifier, Header, NONE, Ports, Rule5};
use proptest::prelude::*;

/// Addresses of few bits that differ, so that prefixes overlap.
fn address_v4() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        4 => (0u32..4, 0u32..8, 0u32..16).prop_map(|(a, b, c)| (a << 30 | b << 20 | c << 4 | c).into()),
        1 => any::<u32>().prop_map(Ipv4Addr::from),
    ]
}

fn address_v6() -> impl Strategy<Value = Ipv6Addr> {
    let spread = |(a, b, c): (u128, u128, u128)| (a << 125 | b << 92 | b << 70 | c << 58 | c << 2).into();
    prop_oneof![
        4 => (0u128..4, 0u128..8, 0u128..16).prop_map(spread),
        1 => any::<u128>().prop_map(Ipv6Addr::from),
    ]
}

fn ports() -> impl Strategy<Value = Ports> {
    let few = prop::sample::select(vec![0u16, 1, 53, 80, 1023, 1024, 8080, 65535]);
    prop_oneof![
        3 => Just(Ports::ANY),
        2 => few.prop_map(Ports::one),
        1 => Just(Ports::range(1024, 65535)),
        1 => Just(Ports::range(0, 1023)),
        // Some of these hold nothing.
        1 => (any::<u16>(), any::<u16>()).prop_map(|(first, last)| Ports::range(first, last)),
    ]
}

fn net_v4() -> impl Strategy<Value = Option<IpNet>> {
    let length = prop_oneof![0u8..=32, Just(32u8), Just(24u8), Just(0u8)];
    prop::option::weighted(
        0.9,
        (address_v4(), length).prop_map(|(address, length)| Ipv4Net::new(address, length).unwrap().into()),
    )
}

fn net_v6() -> impl Strategy<Value = Option<IpNet>> {
    let length = prop_oneof![0u8..=128, Just(128u8), Just(64u8), Just(0u8)];
    prop::option::weighted(
        0.9,
        (address_v6(), length).prop_map(|(address, length)| Ipv6Net::new(address, length).unwrap().into()),
    )
}

fn rule() -> impl Strategy<Value = Rule5> {
    let nets = prop_oneof![
        8 => (net_v4(), net_v4()),
        5 => (net_v6(), net_v6()),
        // Of both families: matches nothing.
        1 => (net_v4(), net_v6()),
    ];
    let protocol = prop::sample::select(vec![(0u8, 0u8), (6, 0xFF), (17, 0xFF), (1, 0xFF), (4, 0x0F)]);
    (nets, ports(), ports(), protocol).prop_map(|(nets, source_ports, destination_ports, protocol)| Rule5 {
        source: nets.0,
        destination: nets.1,
        source_ports,
        destination_ports,
        protocol: protocol.0,
        protocol_mask: protocol.1,
    })
}

fn header() -> impl Strategy<Value = Header> {
    let port =
        || prop_oneof![prop::sample::select(vec![0u16, 1, 53, 80, 1023, 1024, 8080, 65535]), any::<u16>()];
    let protocol = || prop_oneof![prop::sample::select(vec![6u8, 17, 1, 4, 20]), any::<u8>()];
    prop_oneof![
        (address_v4(), address_v4(), port(), port(), protocol())
            .prop_map(|(s, d, sp, dp, p)| Header::v4(s, d, sp, dp, p)),
        (address_v6(), address_v6(), port(), port(), protocol())
            .prop_map(|(s, d, sp, dp, p)| Header::v6(s, d, sp, dp, p)),
    ]
}

#[derive(Clone, Debug)]
enum Change {
    Insert(prop::sample::Index, Rule5),
    Remove(prop::sample::Index),
    Replace(prop::sample::Index, Rule5),
}

fn change() -> impl Strategy<Value = Change> {
    let place = any::<prop::sample::Index>;
    prop_oneof![
        3 => (place(), rule()).prop_map(|(place, rule)| Change::Insert(place, rule)),
        2 => place().prop_map(Change::Remove),
        2 => (place(), rule()).prop_map(|(place, rule)| Change::Replace(place, rule)),
    ]
}

/// Makes a change to both, and compares what they return.
fn make(change: &Change, classifier: &mut Classifier, rules: &mut Vec<Rule5>) {
    match change {
        Change::Insert(place, rule) => {
            let index = place.index(rules.len() + 1);
            rules.insert(index, *rule);
            classifier.insert(index, *rule);
        }
        Change::Remove(place) if !rules.is_empty() => {
            let index = place.index(rules.len());
            assert_eq!(classifier.remove(index), rules.remove(index));
        }
        Change::Replace(place, rule) if !rules.is_empty() => {
            let index = place.index(rules.len());
            assert_eq!(classifier.replace(index, *rule), std::mem::replace(&mut rules[index], *rule));
        }
        _ => {}
    }
}

/// All ways of asking, for all headers.
fn compare(classifier: &Classifier, rules: &[Rule5], headers: &[Header]) {
    assert_eq!(classifier.len(), rules.len());
    assert!(classifier.rules().eq(rules), "the rules are not in order");
    let plain = classifier.clone().without_simd();
    let linear = |header: &Header, accept: &dyn Fn(u32) -> bool| {
        (0u32..).zip(rules).find(|(i, rule)| rule.matches(header) && accept(*i)).map(|(i, _)| i)
    };
    let expected: Vec<u32> = headers.iter().map(|header| linear(header, &|_| true).unwrap_or(NONE)).collect();
    for asked in [classifier, &plain] {
        let mut found = vec![77; headers.len()];
        asked.classify_burst(headers, &mut found);
        assert_eq!(found, expected);
        for (header, expected) in headers.iter().zip(&expected) {
            assert_eq!(asked.classify(header).unwrap_or(NONE), *expected, "{header:?}");
            for accept in [|i: u32| i % 3 == 1, |i: u32| i % 7 == 5, |_: u32| false] {
                assert_eq!(asked.classify_if(header, accept), linear(header, &accept), "{header:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_first_matching_rule_is_found(
        rules in prop::collection::vec(rule(), 0..300),
        headers in prop::collection::vec(header(), 0..80),
        changes in prop::collection::vec(prop::collection::vec(change(), 1..24), 0..4),
    ) {
        let mut rules = rules;
        let mut classifier = Classifier::build(&rules);
        compare(&classifier, &rules, &headers);
        for some in &changes {
            some.iter().for_each(|change| make(change, &mut classifier, &mut rules));
            compare(&classifier, &rules, &headers);
        }
        let anew = Classifier::build(&rules);
        compare(&anew, &rules, &headers);
        prop_assert_eq!(anew.changes(), 0);
    }
}

/// A rule of IPv4 for one port of all hosts in a network.
fn for_port(network: u32, length: u8, port: u16) -> Rule5 {
    let net = Ipv4Net::new(network.into(), length).unwrap();
    Rule5 { destination: Some(net.into()), destination_ports: Ports::one(port), ..Rule5::ANY }
}

#[test]
fn a_rule_that_lies_in_very_many_leaves_can_be_inserted_and_removed() {
    let host = |i: u32| 0x0A00_0000 | i.wrapping_mul(2_654_435_761) >> 9;
    let mut rules: Vec<Rule5> = (0..16_000).map(|i| for_port(host(i), 32, 80)).collect();
    let mut classifier = Classifier::build(&rules);
    let headers: Vec<Header> = (0..16_000)
        .step_by(37)
        .flat_map(|i| {
            let to = Ipv4Addr::from(host(i));
            [80, 443].map(|port| Header::v4([1, 2, 3, 4].into(), to, 1000, port, 6))
        })
        .collect();
    let expect = |classifier: &Classifier, rules: &[Rule5]| {
        let mut found = vec![0; headers.len()];
        classifier.classify_burst(&headers, &mut found);
        for (header, found) in headers.iter().zip(found) {
            let expected =
                (0u32..).zip(rules).find(|(_, rule)| rule.matches(header)).map_or(NONE, |(i, _)| i);
            assert_eq!(found, expected, "{header:?}");
        }
    };
    // Wide ones in front, in the middle and at the end, for both ports; then the first ones go again.
    for (index, port) in [(0, 443), (8_000, 80), (16_002, 443), (0, 80), (5, 80)] {
        rules.insert(index, for_port(0x0A00_0000, 9, port));
        classifier.insert(index, for_port(0x0A00_0000, 9, port));
        expect(&classifier, &rules);
    }
    for index in [0, 4, 0] {
        assert_eq!(classifier.remove(index), rules.remove(index));
        expect(&classifier, &rules);
    }
}

#[test]
fn rules_that_cannot_be_told_apart_do_not_use_up_memory() {
    // Wide in both addresses and of ranges that all overlap: no bit tells them apart.
    let rule = |i: u16| Rule5 {
        source_ports: Ports::range(i, u16::MAX - i),
        destination_ports: Ports::range(i / 2, u16::MAX - i / 3),
        ..Rule5::ANY
    };
    let rules: Vec<Rule5> = (0..4000).rev().map(rule).collect();
    let classifier = Classifier::build(&rules);
    assert!(classifier.bytes() < 4000 * 2000, "{} bytes", classifier.bytes());
    let header = Header::v4([1, 2, 3, 4].into(), [1, 2, 3, 4].into(), 100, 30000, 6);
    let expected = (0u32..).zip(&rules).find(|(_, rule)| rule.matches(&header)).map(|(i, _)| i);
    assert_eq!(classifier.classify(&header), expected);
    assert!(expected.is_some());
}

#[test]
#[should_panic(expected = "there is no place 3 among 2 rules")]
fn a_place_behind_the_end_is_refused() {
    Classifier::build(&[Rule5::ANY, Rule5::ANY]).insert(3, Rule5::ANY);
}

#[test]
fn without_rules_nothing_is_found() {
    let classifier = Classifier::build(&[]);
    let header = Header::v4([1, 2, 3, 4].into(), [1, 2, 3, 4].into(), 1, 2, 6);
    let mut out = [0];
    classifier.classify_burst(&[header], &mut out);
    assert_eq!((out, classifier.classify(&header)), ([NONE], None));
}
