use std::sync::Arc;

use super::*;
use crate::rules::{RejectWith, Rule, Unreachable};

fn loaded(rules: &str) -> Loaded {
    let choices = Choices {
        chain: "FORWARD".into(),
        interfaces: vec!["eth0=0".parse().unwrap(), "eth1=1".parse().unwrap()],
        strict: false,
    };
    read("f", &format!("*filter\n:FORWARD DROP [0:0]\n:web - [0:0]\n:log - [0:0]\n{rules}COMMIT\n"), &choices)
        .unwrap()
}

fn rules(text: &str) -> Vec<Arc<Rule>> {
    let loaded = loaded(text);
    assert_eq!(loaded.warnings, Vec::<String>::new());
    loaded.set.rules
}

#[test]
fn conditions_are_read() {
    let all = rules(
        "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment \"old friends\" -j ACCEPT\n\
         [12:34] -A FORWARD ! -s 10.0.0.0/8 -d 192.0.2.0/255.255.255.0 -i eth+ -p tcp -m tcp --dport 1:1023 --tcp-flags SYN,ACK SYN -j ACCEPT\n\
         -A FORWARD -p udp -m multiport --dports 53,5353,6000:6010 -m limit --limit 3/min --limit-burst 7 -j ACCEPT\n\
         -A FORWARD -p icmp -m icmp --icmp-type 8 -j REJECT --reject-with icmp-host-prohibited\n\
         -A FORWARD -p tcp -m tcp ! --syn -j LOG --log-prefix \"odd: \" --log-level 6\n\
         -A FORWARD -m mark --mark 0x1/0xff -j MARK --set-xmark 0x2/0xffffffff\n\
         -A FORWARD -p tcp -m multiport --ports 80\n",
    );
    assert_eq!(all.len(), 8);
    assert_eq!((all[0].name.as_str(), all[0].action), ("FORWARD 1 (old friends)", Action::Allow));
    let second = &all[1].matches;
    assert!(
        !second.source.contains("10.1.1.1".parse().unwrap())
            && second.source.contains("11.1.1.1".parse().unwrap())
    );
    assert_eq!(
        (second.destination.to_string(), second.in_ports.to_string()),
        ("192.0.2.0/24".into(), "0-1".into())
    );
    assert_eq!(
        (second.destination_ports.to_string(), second.flags[0].to_string()),
        ("1-1023".into(), "syn,!ack".into())
    );
    let limit = all[2].limit.unwrap();
    assert_eq!((limit.rate.per_second, limit.burst), (0.05, 7.0));
    assert_eq!(all[3].action, Action::Reject(RejectWith::Unreachable(Unreachable::AdminProhibited)));
    assert_eq!(all[4].log.as_ref().unwrap().prefix, "odd: ");
    let odd = |flags| all[4].matches.flags.iter().any(|one| one.matches(flags));
    assert!(odd(0x10) && odd(0x12) && !odd(0x02) && !odd(0x42));
    assert_eq!((all[5].set_mark.unwrap().value, all[5].matches.mark.unwrap().mask), (2, 0xff));
    assert_eq!(
        (all[6].matches.source_ports.to_string(), all[7].matches.destination_ports.to_string()),
        ("80".into(), "80".into())
    );
    assert!(all[0].matches.source.v6.is_empty(), "rules of iptables are for IPv4");
}

#[test]
fn chains_are_entered_and_returned_from() {
    let all = rules(
        "-A FORWARD -p tcp -j web\n\
         -A FORWARD -s 10.0.0.1/32 -g log\n\
         -A FORWARD -j ACCEPT\n\
         -A web -p udp -j DROP\n\
         -A web -s 10.0.0.0/8 -j RETURN\n\
         -A web -p tcp -m tcp --dport 80 -j ACCEPT\n\
         -A log -j LOG\n",
    );
    let told: Vec<String> = all.iter().map(|rule| format!("{}: {}", rule.name, rule.action)).collect();
    assert_eq!(
        told,
        [
            "FORWARD 1 > web 2: go on at rule 3",
            "FORWARD 1 > web 3: allow",
            "FORWARD 2 > log 1: continue",
            "FORWARD 2: go on at rule 6",
            "FORWARD 3: allow",
        ]
    );
    assert_eq!(all[1].matches.protocols.to_string(), "6");
}

#[test]
fn what_cannot_be_expressed_is_named_and_strict_refuses() {
    let text = "-A FORWARD -o eth1 -j ACCEPT\n\
                -A FORWARD -m string --string x --algo bm -j DROP\n\
                -A FORWARD -i wan -j DROP\n\
                -A FORWARD -m limit --limit 1/s -j web\n\
                -A FORWARD -j NFQUEUE --queue-num 1\n\
                -A FORWARD -j ACCEPT\n";
    let loaded = loaded(text);
    assert_eq!((loaded.set.rules.len(), loaded.set.default), (1, Action::Deny));
    let told = loaded.warnings.join("\n");
    for part in [
        "f:5: left out, where a packet goes out (eth1)",
        "f:6: left out, the match string",
        "f:7: left out, no port stands for the interface wan: give --interface wan=PORT",
        "f:8: left out, a limit on the way",
        "f:9: left out, the target NFQUEUE",
    ] {
        assert!(told.contains(part), "{part:?} is not in\n{told}");
    }
    let strict = Choices { chain: "FORWARD".into(), strict: true, ..Choices::default() };
    let whole = format!("*filter\n:FORWARD DROP [0:0]\n:web - [0:0]\n{text}COMMIT\n");
    assert!(read("f", &whole, &strict).unwrap_err().contains("f:4: left out"));
}

#[test]
fn mistakes_are_told() {
    let wrong = |text: &str| {
        let choices = Choices { chain: "FORWARD".into(), ..Choices::default() };
        read("f", text, &choices).unwrap_err()
    };
    let filter =
        |rules: &str| wrong(&format!("*filter\n:FORWARD ACCEPT [0:0]\n:a - [0:0]\n:b - [0:0]\n{rules}"));
    assert!(wrong(":FORWARD ACCEPT\n").contains("f:1:1: a table begins"));
    assert!(wrong("*filter\n:FORWRD ACCEPT\n").contains("did you mean \"FORWRD\""));
    assert!(
        filter("-A FORWARD -s 10.0.0.300 -j DROP\n").contains("f:5:15: \"10.0.0.300\" is not an address")
    );
    assert!(
        filter("-A FORWARD -j nowhere\n").contains("f:5:15: there is no chain and no target \"nowhere\"")
    );
    assert!(filter("-A FORWARD -j a\n-A a -j b\n-A b -j a\n").contains("circle: FORWARD → a → b → a"));
    assert!(filter("-A FORWARD -p tcp --dport\n").contains("the value of --dport is missing"));
    assert!(filter("-X a\n").contains("is not a line of iptables-save"));
}

#[test]
fn six_is_recognised() {
    let text = "# Generated by ip6tables-save v1.8.9\n*filter\n:FORWARD ACCEPT [0:0]\n\
                -A FORWARD -s 2001:db8::/32 -p ipv6-icmp -m icmp6 --icmpv6-type 128 -j DROP\n\
                -A FORWARD -j REJECT --reject-with icmp6-adm-prohibited\nCOMMIT\n";
    let set = read("f", text, &Choices::default()).unwrap().set;
    assert!(set.rules[0].matches.source.v4.is_empty() && set.rules[1].matches.source.v4.is_empty());
    assert!(set.rules[0].matches.icmp.as_ref().unwrap().matches(true, 128, 0));
    assert_eq!(set.default, Action::Allow);
}

#[test]
fn mistakes_have_a_column_and_the_right_word() {
    let wrong = |line: &str| {
        let text =
            format!("*filter\n:FORWARD ACCEPT [0:0]\n:web - [0:0]\n-A FORWARD -o eth0 -j DROP\n{line}\n");
        read("f", &text, &Choices { chain: "FORWARD".into(), ..Choices::default() }).unwrap_err()
    };
    for (line, told) in [
        ("-A FORWARD -p tpc -j DROP", "f:5:15: \"tpc\" is not a protocol; did you mean \"tcp\"?"),
        (
            "-A FORWARD -j ACEPT",
            "f:5:15: there is no chain and no target \"ACEPT\"; did you mean \"ACCEPT\"?",
        ),
        ("-A FORWARD -j wed", "did you mean \"web\"?"),
        ("-A FORWRD -j DROP", "f:5:1: there is no chain \"FORWRD\"; did you mean \"FORWARD\"?"),
        (
            "-A FORWARD -m state --state ESTABLISHD -j DROP",
            "f:5:29: \"ESTABLISHD\" is not a state; did you mean \"ESTABLISHED\"?",
        ),
        (
            "-A FORWARD -p tcp --dprt 80 -j DROP",
            "f:5:19: unknown option \"--dprt\"; did you mean \"--dport\"?",
        ),
        (" -A FORWARD -p tcp --dport", "f:5:27: the value of --dport is missing"),
        ("-A FORWARD -m comment --comment \"x", "f:5:33: a quote is not closed"),
        ("-A FORWARD -m iprange --src-range 10.0.0.9-10.0.0.1 -j DROP", "f:5:35: the range"),
        ("-A FORWARD -m time --timestart 25:00 -j DROP", "f:5:32: \"25:00\" is not a time of the day"),
    ] {
        let all = wrong(line);
        assert!(all.contains(told), "{told:?} is not in {all}");
        assert!(all.contains("f:4: left out, where a packet goes out"), "{all}");
    }
}

#[test]
fn ranges_of_addresses_and_times_are_read() {
    let all = loaded(
        "-A FORWARD -m iprange --src-range 10.0.0.1-10.0.0.9 ! --dst-range 192.0.2.0-192.0.2.255 -j DROP\n\
         -A FORWARD -m time --timestart 08:00:00 --timestop 17:00:00 --weekdays Mon,Tue,Wed --kerneltz -j ACCEPT\n\
         -A FORWARD -m time --datestart 2026-01-01T00:00:00 -j DROP\n",
    );
    let first = &all.set.rules[0].matches;
    let (from, to) = (
        |n: u8| first.source.contains([10, 0, 0, n].into()),
        |a: [u8; 4]| first.destination.contains(a.into()),
    );
    assert!(from(1) && from(9) && !from(0) && !from(10) && !to([192, 0, 2, 7]) && to([192, 0, 3, 0]));
    assert_eq!(all.set.rules[1].matches.time, Some(0));
    assert_eq!(all.set.schedules[0].to_string(), "mon,tue,wed 08:00-17:00:01 local");
    assert!(all.warnings.len() == 1 && all.warnings[0].starts_with("f:7: left out"), "{:?}", all.warnings);
}

#[test]
fn the_family_is_that_of_the_addresses() {
    let read = |text: &str| read("f", text, &Choices { chain: "FORWARD".into(), ..Choices::default() });
    let six = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -s 2001:db8::/32 -j DROP\nCOMMIT\n";
    let set = read(six).unwrap().set;
    assert!(set.rules.len() == 1 && set.rules[0].matches.source.contains("2001:db8::1".parse().unwrap()));
    let four = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m comment --comment \"no ipv6-icmp here\" -j LOG\n\
                -A FORWARD -s 10.0.0.0/8 -j DROP\nCOMMIT\n";
    assert!(read(four).unwrap().set.rules[1].matches.source.contains("10.1.1.1".parse().unwrap()));
    let told = read(&format!("# Generated by iptables-save v1.8.9\n{six}")).unwrap_err();
    assert!(told.contains("f:4:15: 2001:db8:: is of IPv6"), "{told}");
    let mixed = six.replace("COMMIT", "-A FORWARD -d 10.0.0.1/32 -j DROP");
    assert!(read(&mixed).unwrap_err().contains("f:4:15: 10.0.0.1 is of IPv4"));
    let none = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD ! -s 0.0.0.0/0 -j DROP\nCOMMIT\n";
    assert!(read(none).unwrap().warnings[0].contains("f:3: left out, no packet matches it"));
}

#[test]
fn a_jump_asks_for_its_mark_once() {
    let all = rules(
        "-A FORWARD -m mark --mark 0x0/0xff -p tcp -j web\n\
         -A FORWARD -m mark --mark 0x2/0xff -g log\n\
         -A FORWARD -j ACCEPT\n\
         -A web -j MARK --set-xmark 0x2/0xff\n\
         -A web -j DROP\n\
         -A log -j DROP\n",
    );
    let told: Vec<String> = all.iter().map(|rule| format!("{}: {}", rule.name, rule.action)).collect();
    assert_eq!(
        told,
        [
            "FORWARD 1: go on at rule 3",
            "FORWARD 1 (otherwise): go on at rule 5",
            "FORWARD 1 > web 1: continue",
            "FORWARD 1 > web 2: deny",
            "FORWARD 2 > log 1: deny",
            "FORWARD 2: go on at rule 8",
            "FORWARD 3: allow",
        ],
        "a chain that sets no mark is its rules, with what the jump asks for"
    );
    let marks: Vec<bool> = all.iter().map(|rule| rule.matches.mark.is_some()).collect();
    assert_eq!(marks, [true, false, false, false, true, true, false]);
    assert_eq!(all[3].matches.protocols.to_string(), "6", "the rest of the jump is asked for in the chain");
}

#[test]
fn chains_that_multiply_are_refused_before_they_are_entered() {
    let nested = |last: &str| {
        let mut text = String::from("*filter\n:FORWARD DROP [0:0]\n");
        (0..27).for_each(|n| text += &format!(":C{n} - [0:0]\n"));
        text += "-A FORWARD -j C0\n";
        (0..26).for_each(|n| text += &format!("-A C{n} -j C{0}\n-A C{n} -j C{0}\n", n + 1));
        text += last;
        read("f", &text, &Choices { chain: "FORWARD".into(), ..Choices::default() }).unwrap_err()
    };
    for last in ["", "-A C26 -j DROP\n"] {
        assert!(
            nested(last).contains("more than 1000000 rules come of the chain FORWARD"),
            "{}",
            nested(last)
        );
    }
    let mut deep = String::from("*filter\n:FORWARD DROP [0:0]\n");
    (0..40).for_each(|n| deep += &format!(":C{n} - [0:0]\n"));
    deep += "-A FORWARD -j C0\n";
    (0..39).for_each(|n| deep += &format!("-A C{n} -j C{}\n", n + 1));
    let told = read("f", &deep, &Choices { chain: "FORWARD".into(), ..Choices::default() }).unwrap_err();
    assert!(told.contains("the chains are nested deeper than 32"), "{told}");
}
