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

fn rules(text: &str) -> Vec<Rule> {
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
    assert!(wrong(":FORWARD ACCEPT\n").contains("f:1: a table begins"));
    assert!(wrong("*filter\n:FORWRD ACCEPT\n").contains("did you mean \"FORWRD\""));
    assert!(filter("-A FORWARD -s 10.0.0.300 -j DROP\n").contains("f:5: \"10.0.0.300\" is not an address"));
    assert!(filter("-A FORWARD -j nowhere\n").contains("f:5: there is no chain and no target \"nowhere\""));
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
