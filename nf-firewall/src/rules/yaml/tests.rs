use super::*;
use crate::rules::{State, Unreachable};

fn good(text: &str) -> RuleSet {
    let report = Report::new("f");
    let set = read(text, &report);
    assert!(!report.has_errors(), "{report}");
    set.unwrap()
}

fn wrong(text: &str) -> String {
    let report = Report::new("f");
    let _ = read(text, &report);
    assert!(report.has_errors(), "nothing is wrong with {text}");
    report.to_string()
}

#[test]
fn what_is_left_empty_does_not_mean_anything() {
    for empty in [
        "from:",
        "to: ~",
        "state: []",
        "icmp: []",
        "flags: []",
        "to-port: []",
        "time: {hours: [], zone: utc}",
    ] {
        let told = wrong(&format!("rules:\n  - action: allow\n    {empty}\n"));
        assert!(told.contains("f:3:") && told.lines().count() == 1, "{empty}: {told}");
        assert!(told.contains("leave the key out"), "{empty}: {told}");
    }
}

#[test]
fn groups_in_groups_have_a_bound() {
    let mut text = String::from("groups:\n  addresses:\n");
    for n in 0..5000 {
        text += &format!("    g{n:04}: [g{:04}, 10.0.0.1]\n", n + 1);
    }
    text += "    g5000: 10.0.0.2\nrules:\n  - {from: g0000, action: allow}\n";
    let told = wrong(&text);
    assert!(told.contains("groups.addresses.g0064: groups and lists are nested deeper than 64"), "{told}");
}

#[test]
fn what_leaves_nothing_is_named() {
    let told = |rule: &str| wrong(&format!("rules:\n  - {{{rule}, action: allow}}\n"));
    assert!(told("state: [new, not new]").contains("state: nothing is left"));
    assert!(told("icmp: [ping, not ping]").contains("the ICMP types: nothing is left"));
    assert!(told("log: yes").contains("write true or false"));
}

#[test]
fn a_file_with_everything_is_read() {
    let set = good(
        "default: reject with admin-prohibited\n\
         non-ip: deny\n\
         groups:\n\
         \x20 addresses:\n\
         \x20   office: [10.1.0.0/16, 2001:db8:1::/48, not printers]\n\
         \x20   printers: 10.1.9.0/24\n\
         \x20   all-of-us: [office, 192.0.2.1-192.0.2.9]\n\
         \x20 ports:\n\
         \x20   web: [http, https, 8000-8080]\n\
         \x20 times:\n\
         \x20   work: {days: mon-fri, hours: 08:00-18:00, zone: utc}\n\
         rules:\n\
         \x20 - {name: answers, state: [established, related], action: allow}\n\
         \x20 - name: web\n\
         \x20   protocol: tcp\n\
         \x20   from: all-of-us\n\
         \x20   to-port: [web, not 8001]\n\
         \x20   flags: syn,!ack\n\
         \x20   vlan: [10, 20-29, untagged]\n\
         \x20   in-port: 0\n\
         \x20   time: work\n\
         \x20   limit: {rate: 100/s, burst: 7, per: source, over: next}\n\
         \x20   log: {prefix: 'web ', rate: 3/s}\n\
         \x20   set-mark: 0x10/0xf0\n\
         \x20   action: service 5\n\
         \x20 - {icmp: [echo-request, 3/4], icmpv6: not redirect, action: reject with host-unreachable}\n",
    );
    assert_eq!((set.rules.len(), set.schedules.len()), (3, 1));
    assert_eq!(
        set.default,
        Action::Reject(crate::rules::RejectWith::Unreachable(Unreachable::AdminProhibited))
    );
    assert_eq!((set.non_ip, set.malformed), (Action::Deny, Action::Deny));
    assert!(set.rules[0].matches.states.has(State::Related) && !set.rules[0].matches.states.has(State::New));
    let web = &set.rules[1];
    assert_eq!((web.line, web.action, web.matches.time), (14, Action::Service(5), Some(0)));
    let has = |text: &str| web.matches.source.contains(text.parse().unwrap());
    assert!(has("10.1.8.255") && !has("10.1.9.1") && has("192.0.2.9") && has("2001:db8:1::7") && !has("::1"));
    assert_eq!(web.matches.destination_ports.to_string(), "80, 443, 8000, 8002-8080");
    assert_eq!(web.matches.vlan.to_string(), "10, 20-29, 65535");
    let limit = web.limit.unwrap();
    assert_eq!((limit.rate.per_second, limit.burst), (100.0, 7.0));
    assert_eq!(web.log.as_ref().unwrap().prefix, "web ");
    let icmp = &set.rules[2];
    assert_eq!(icmp.name, "rule 3");
    assert_eq!(icmp.matches.protocols.to_string(), "1, 58");
    let types = icmp.matches.icmp.as_ref().unwrap();
    assert!(types.matches(false, 8, 0) && types.matches(false, 3, 4) && !types.matches(false, 3, 3));
    assert!(types.matches(true, 128, 0) && !types.matches(true, 137, 0));
}

#[test]
fn mistakes_are_told_with_place_field_and_the_nearest_word() {
    let text = "defalt: deny\n\
                groups:\n\
                \x20 addresses:\n\
                \x20   a: [b]\n\
                \x20   b: [c, 10.0.0.1]\n\
                \x20   c: a\n\
                \x20   9x: 10.0.0.1\n\
                \x20 ports: {web: [80, 99999]}\n\
                \x20 times: {w: {days: mon-fry, hours: 8-18}}\n\
                rules:\n\
                \x20 - {name: one, from: offise, action: alow}\n\
                \x20 - {name: one, protocol: tpc, to-port: 80-20, action: allow}\n\
                \x20 - {from: 10.0.0.0/33, flags: sin, state: knew, action: service 0}\n";
    let told = wrong(text);
    for part in [
        "f:1:1: defalt: unknown key; did you mean \"default\"?",
        "the group holds itself: a → b → c → a",
        "a group's name begins with a letter",
        "99999 is out of range 0..=65535",
        "\"fry\" is not a day; did you mean \"fri\"?",
        "\"8-18\" is not a time like 08:00-18:00",
        "rules[0].from: \"offise\" is not an address, prefix or range, nor a group",
        "rules[0].action: \"alow\" is not a choice; did you mean \"allow\"?",
        "rules[1].protocol: \"tpc\" is not a protocol (did you mean \"tcp\"?)",
        "the range 80-20 ends before it begins",
        "the prefix length of 10.0.0.0/33 is not in 0..=32",
        "\"sin\" is not a TCP flag; did you mean \"fin\"?",
        "\"knew\" is not a connection state; did you mean \"new\"?",
        "names no service id of 1..=4095",
    ] {
        assert!(told.contains(part), "{part:?} is not in\n{told}");
    }
}

#[test]
fn contradictions_are_told() {
    let told = |rule: &str| wrong(&format!("rules:\n  - {rule}\n"));
    assert!(told("{protocol: udp, flags: syn, action: allow}").contains("no protocol has all"));
    assert!(told("{protocol: icmp, to-port: 80, action: allow}").contains("no protocol has all"));
    assert!(told("{from: 10.0.0.1, to: '::1', action: allow}").contains("different families"));
    assert!(told("{from: [10.0.0.1, not 10.0.0.0/8], action: allow}").contains("nothing is left"));
    assert!(told("{from: 10.0.0.1}").contains("the key \"action\" is missing"));
    assert!(told("{time: {hours: 08:00-09:00}, action: allow}").contains("the key \"zone\" is missing"));
    assert!(wrong("default: maybe\nrules: []\n").ends_with("it is one of allow, deny, reject\n"));
    assert!(wrong("default: continue\nrules: []\n").contains("nothing to continue with"));
    let limited = "default: deny\nrules:\n  - {log: x, limit: 5/s, action: continue}\n";
    assert!(
        wrong(limited).contains(":3:21: rules[0].limit: a rule that continues decides nothing"),
        "{}",
        wrong(limited)
    );
    assert!(wrong("default: deny\n").contains("the key \"rules\" is missing"));
    assert!(wrong("rules:\n- {name: a, action: allow}\n- {name: a, action: deny}\n").contains("line 2"));
}

#[test]
fn ports_without_a_protocol_are_those_of_all_that_have_ports() {
    let set = good("rules: [{to-port: 53, action: allow}, {protocol: not tcp, to-port: 53, action: deny}]\n");
    assert_eq!(set.rules[0].matches.protocols.to_string(), "6, 17, 33, 132, 136");
    assert_eq!(set.rules[1].matches.protocols.to_string(), "17, 33, 132, 136");
}
