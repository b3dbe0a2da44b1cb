use super::*;
use crate::rules::load::{Reading, read};

const RULES: &str = "\
rules:
  - {name: answers, state: [established, related], action: allow}
  - {name: watch, protocol: tcp, to-port: 443, set-mark: 1, action: continue}
  - {name: vlan, protocol: tcp, to: 1.2.3.0/24, vlan: 7, action: deny}
  - {name: web, protocol: tcp, from: 10.0.0.0/8, to-port: [80, 443], mark: 1, action: allow}
  - {name: dns, protocol: udp, to-port: 53, action: allow}
";

fn asked(packet: &str) -> String {
    let compiled = Compiled::new(read("f", RULES, &Reading::default()).unwrap().set);
    let mut facts = question::read(packet).unwrap().facts;
    let explanation = explain(&compiled, &mut facts, 0);
    told(&compiled, &facts, &explanation)
}

#[test]
fn the_deciding_rule_and_those_that_nearly_did_are_told() {
    assert_eq!(
        asked("tcp 10.0.0.1:1234 > 1.2.3.4:443"),
        "tcp 10.0.0.1:1234 > 1.2.3.4:443 flags syn mark 0x1 state new\n\
         \x20 matches rule 2 \"watch\" (line 3): continue\n\
         allow: rule 4 \"web\" (line 5)\n\
         \x20 protocol tcp is in tcp\n\
         \x20 from 10.0.0.1 is in 10.0.0.0/8\n\
         \x20 to-port 443 is in 80, 443\n\
         \x20 mark 0x1 is in 0x1/0xffffffff\n\
         earlier rules that nearly matched:\n\
         \x20 rule 1 \"answers\" (line 2): state new is not in established, related\n\
         \x20 rule 3 \"vlan\" (line 4): vlan untagged is not in 7\n"
    );
    let none = asked("udp [::1]:53 > [::2]:54");
    assert!(none.contains("deny: no rule matches, so the default decides"), "{none}");
    assert!(none.contains("rule 5 \"dns\" (line 6): to-port 54 is not in 53"), "{none}");
    assert!(asked("icmp 1.2.3.4 > 1.2.3.5 type 3/1 state related").contains("allow: rule 1"));
    assert!(asked("tcp 1.1.1.1:1 > 1.2.3.4:9 flags ack vlan 7").contains("deny: rule 3 \"vlan\""));
}

#[test]
fn mistakes_of_the_question_are_told() {
    let wrong = |packet: &str| question::read(packet).unwrap_err();
    assert!(wrong("tpc 1.1.1.1:1 > 2.2.2.2:2").contains("\"tpc\" is not a protocol; did you mean \"tcp\"?"));
    assert!(wrong("tcp 1.1.1.1:70000 > 2.2.2.2:2").contains("out of range 0..=65535"));
    assert!(wrong("tcp 1.1.1.1 > 2.2.2.2:2").contains("\"1.1.1.1\" is not an address with a port"));
    assert!(wrong("tcp 1.1.1.1:1 2.2.2.2:2").contains("stands a >"));
    assert!(wrong("tcp 1.1.1.1:1 > [::1]:2").contains("different families"));
    assert!(wrong("tcp 1.1.1.1:1 > 2.2.2.2:2 stat new").contains("did you mean \"state\""));
    assert!(wrong("tcp 1.1.1.1:1 > 2.2.2.2:2 state").contains("missing"));
    assert!(wrong("udp 1.1.1.1:1 > 2.2.2.2:2 vlan 5000").contains("0..=4095"));
    assert!(wrong("").contains("written like"));
}
