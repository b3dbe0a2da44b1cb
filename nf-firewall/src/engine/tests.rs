use super::*;
use crate::rules::load::{Reading, read};
use crate::rules::{State, UNTAGGED};
use onvm_classifier::Header;
use proptest::prelude::*;

fn engine(text: &str, cache: usize) -> Engine {
    let loaded = read("f", text, &Reading::default()).unwrap();
    Engine::new(Compiled::new(loaded.set), Cache::new(cache))
}

pub(super) fn facts(source: [u8; 4], destination: [u8; 4], sport: u16, dport: u16, protocol: u8) -> Facts {
    let header = Header::v4(source.into(), destination.into(), sport, dport, protocol);
    Facts {
        header,
        flags: 0x10,
        icmp: 0,
        vlan: UNTAGGED,
        inner_vlan: UNTAGGED,
        in_port: 0,
        state: State::New,
        mark: 0,
    }
}

/// Names of the rules that a packet matches, the deciding one last.
fn path(engine: &mut Engine, facts: Facts, now_ns: u64) -> Vec<String> {
    engine.foresee(std::iter::empty());
    path_at(engine, 0, facts, now_ns)
}

/// The same of a packet at a place of the burst that was foreseen.
fn path_at(engine: &mut Engine, place: usize, mut facts: Facts, now_ns: u64) -> Vec<String> {
    let mut names = Vec::new();
    engine.at(now_ns);
    let index = engine.decide(place, &mut facts, 100, now_ns, |_, rule, facts| {
        names.push(rule.name.clone());
        if let Some(mark) = rule.set_mark {
            facts.mark = facts.mark & !mark.mask | mark.value & mark.mask;
        }
    });
    if index == DEFAULT {
        names.push("default".into());
    }
    names
}

const RULES: &str = "\
rules:
  - {name: watch, protocol: udp, set-mark: 7, action: continue}
  - {name: marked, mark: 7, to-port: 99, action: deny}
  - {name: answers, state: established, action: allow}
  - {name: few, protocol: tcp, to-port: 80, limit: {rate: 1/s, burst: 2, over: next}, action: allow}
  - {name: vlan, vlan: 10, action: allow}
  - {name: syn, flags: 'syn,!ack', action: reject}
  - {name: hours, to-port: 22, time: {days: fri, hours: 08:00-09:00, zone: utc}, action: allow}
  - {name: others, protocol: tcp, action: deny}
";

#[test]
fn the_first_rule_that_matches_decides() {
    // 2026-11-20, a Friday, 08:30 UTC.
    const MORNING: u64 = 1_795_163_400_000_000_000;
    for cache in [0, 1024] {
        let mut e = engine(RULES, cache);
        let tcp = |port| facts([10, 0, 0, 1], [10, 0, 0, 2], 1000, port, 6);
        let udp = |port| facts([10, 0, 0, 1], [10, 0, 0, 2], 1000, port, 17);
        for _ in 0..2 {
            assert_eq!(path(&mut e, tcp(1), MORNING), ["others"]);
            assert_eq!(path(&mut e, tcp(1), MORNING), ["others"]);
            assert_eq!(path(&mut e, udp(1), MORNING), ["watch", "default"]);
            assert_eq!(path(&mut e, udp(99), MORNING), ["watch", "marked"]);
            assert_eq!(path(&mut e, Facts { state: State::Established, ..tcp(1) }, MORNING), ["answers"]);
            assert_eq!(path(&mut e, Facts { vlan: 10, ..tcp(1) }, MORNING), ["vlan"]);
            assert_eq!(path(&mut e, Facts { flags: 0x02, ..tcp(1) }, MORNING), ["syn"]);
            assert_eq!(path(&mut e, tcp(22), MORNING), ["hours"]);
            assert_eq!(path(&mut e, tcp(22), MORNING + 3_600_000_000_000), ["others"]);
        }
        let paths: Vec<_> = (0..4).map(|_| path(&mut e, tcp(80), MORNING).concat()).collect();
        assert_eq!(paths, ["few", "few", "others", "others"]);
        assert_eq!(path(&mut e, tcp(80), MORNING + 1_000_000_000), ["few"]);
        assert_eq!(e.cache.hits > 0, cache > 0);
    }
}

#[test]
fn a_new_set_empties_the_cache() {
    let mut e = engine("rules: [{name: a, action: allow}]", 64);
    let packet = facts([1; 4], [2; 4], 1, 2, 6);
    assert_eq!(path(&mut e, packet, 1), ["a"]);
    assert_eq!((path(&mut e, packet, 1), e.cache.hits), (vec!["a".to_string()], 1));
    let fresh = read("f", "rules: [{name: b, action: deny}]", &Reading::default()).unwrap();
    e.replace(Compiled::new(fresh.set));
    assert_eq!(path(&mut e, packet, 1), ["b"]);
}

/// A rule of a few fields, in words of the language.
fn rule() -> impl Strategy<Value = String> {
    let from = prop::sample::select(vec!["any", "10.0.0.0/30", "10.0.0.2", "not 10.0.0.1", "ipv6"]);
    let port = prop::sample::select(vec!["0-65535", "1-2", "2", "not 2", "1, 3"]);
    let more = prop::sample::select(vec![
        "",
        ", vlan: 10",
        ", state: new",
        ", flags: syn",
        ", in-port: 1",
        ", vlan: untagged",
        ", icmp: 3",
    ]);
    let protocol = prop::sample::select(vec!["any", "6", "17", "not 6", "1"]);
    let action = prop::sample::select(vec!["allow", "deny", "continue"]);
    (from, port, protocol, more, action).prop_map(|(from, port, protocol, more, action)| {
        format!("{{from: [{from}], to-port: [{port}], protocol: [{protocol}]{more}, action: {action}}}")
    })
}

fn packet() -> impl Strategy<Value = Facts> {
    let protocol = prop::sample::select(vec![6u8, 17, 1]);
    let vlan = prop::sample::select(vec![10u16, UNTAGGED]);
    (0u8..5, 0u16..5, protocol, vlan, 0u8..2, prop::bool::ANY, prop::bool::ANY).prop_map(
        |(host, port, protocol, vlan, in_port, new, syn)| {
            let port = if protocol == 1 { 0 } else { port };
            Facts {
                vlan,
                in_port,
                state: if new { State::New } else { State::Established },
                flags: if protocol == 6 && syn { 2 } else { 0 },
                icmp: if protocol == 1 { u16::from(syn) * 0x300 } else { 0 },
                ..facts([10, 0, 0, host], [10, 9, 9, 9], 5, port, protocol)
            }
        },
    )
}

proptest! {
    /// The plain meaning of the language: rule by rule, all conditions, in order.
    #[test]
    fn cache_and_classifier_say_what_a_plain_search_says(
        rules in prop::collection::vec(rule(), 1..8),
        packets in prop::collection::vec(packet(), 1..60),
    ) {
        // Contradictions (ports of ICMP, say) are errors of the file; the others make a set.
        let right = |text: &&String| read("f", &format!("rules:\n  - {text}\n"), &Reading::default()).is_ok();
        let rules: Vec<&String> = rules.iter().filter(right).collect();
        let text = format!("rules: [{}]", rules.iter().map(|r| r.as_str()).collect::<Vec<_>>().join(", "));
        let set = read("f", &text, &Reading::default()).unwrap().set;
        let mut e = engine(&text, 16);
        let mut bursts = engine(&text, 16);
        for (number, packet) in packets.iter().copied().enumerate() {
            if number % 8 == 0 {
                // Some are not asked about, and nobody knows the states yet.
                let unsure = |(n, packet): (usize, &Facts)| {
                    (n % 5 != 4).then_some(Facts { state: State::Untracked, ..*packet })
                };
                let burst = &packets[number..packets.len().min(number + 8)];
                bursts.foresee(burst.iter().enumerate().map(unsure));
            }
            let mut expected = Vec::new();
            let mut decided = false;
            for rule in &set.rules {
                if Checks::ALL.iter().all(|check| check.holds(&rule.matches, &packet, 0)) {
                    expected.push(rule.name.clone());
                    if rule.action.is_final() {
                        decided = true;
                        break;
                    }
                }
            }
            if !decided {
                expected.push("default".into());
            }
            prop_assert_eq!(&path(&mut e, packet, 1), &expected, "{}", text);
            prop_assert_eq!(path_at(&mut bursts, number % 8, packet, 1), expected, "{}", text);
        }
    }
}

/// The kernel drops all packets of this set: the mark is asked for at the jump, not in the chain.
#[test]
fn a_mark_set_in_a_chain_does_not_lead_out_of_it() {
    let text = "*filter\n:FORWARD ACCEPT [0:0]\n:C - [0:0]\n-A FORWARD -m mark --mark 0x0/0xff -j C\n\
                -A C -j MARK --set-xmark 0x2/0xff\n-A C -j DROP\nCOMMIT\n";
    let choices = crate::rules::iptables::Choices { chain: "FORWARD".into(), ..Default::default() };
    let loaded = read("f", text, &Reading { iptables: choices, ..Reading::default() }).unwrap();
    let mut engine = Engine::new(Compiled::new(loaded.set), Cache::new(16));
    let packet = facts([10, 0, 0, 1], [10, 0, 0, 2], 1, 2, 17);
    assert_eq!(path(&mut engine, packet, 1), ["FORWARD 1", "FORWARD 1 > C 1", "FORWARD 1 > C 2"]);
    let marked = Facts { mark: 2, ..packet };
    assert_eq!(path(&mut engine, marked, 1), ["FORWARD 1 (otherwise)", "default"]);
}
