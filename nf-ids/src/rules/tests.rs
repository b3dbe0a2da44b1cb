use std::path::PathBuf;

use super::*;

fn set(text: &str) -> RuleSet {
    let mut set = RuleSet::new(Context::default());
    set.add_text(text);
    set
}

fn one(options: &str) -> Rule {
    let set = set(&format!("alert tcp any any -> any any ({options} sid:1;)"));
    assert!(set.refusals.is_empty(), "{}", set.refusals[0]);
    set.rules[0].clone()
}

fn refused(text: &str) -> Refusal {
    let set = set(text);
    assert_eq!(set.refusals.len(), 1, "{text}: not refused");
    set.refusals[0].clone()
}

fn data() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("ONVM_TEST_DATA").map_or(root, PathBuf::from);
    folder.join("ids").is_dir().then_some(folder)
}

#[test]
fn a_fault_is_named_with_its_place_and_the_nearest_word() {
    let fault = refused("\nalert tcp any any -> any any (msg:\"x\"; \\\n  nocsae; sid:7;)");
    assert_eq!((fault.line, fault.column, fault.sid), (3, 3, Some(7)));
    assert_eq!(fault.fault.nearest.as_deref(), Some("nocase"));
    assert_eq!(
        fault.to_string(),
        "line 3, column 3: sid 7: nocsae: is not a keyword that is supported; did you mean `nocase`?"
    );
    let fault = refused("alret tcp any any -> any any (sid:1;)");
    assert_eq!((fault.column, fault.fault.nearest.as_deref()), (1, Some("alert")));
    let fault = refused("alert tcp any any -> $HOME_NETT any (sid:1;)");
    assert_eq!((fault.column, fault.fault.nearest.as_deref()), (22, Some("HOME_NET")));
}

#[test]
fn modifiers_are_of_the_content_before_them() {
    let rule =
        one("content:\"AbC\"; nocase; content:\"d\"; distance:1; within:5; content:!\"e\"; http_header;");
    assert_eq!(rule.sections.len(), 2);
    let Test::Content(first) = &rule.sections[0].tests[0] else { panic!() };
    assert_eq!((first.pattern.as_slice(), first.nocase), (&b"abc"[..], true));
    let Test::Content(second) = &rule.sections[0].tests[1] else { panic!() };
    assert_eq!((second.distance, second.within), (Some(Value::Is(1)), Some(Value::Is(5))));
    let Place::App(buffer) = rule.sections[1].place else { panic!() };
    assert_eq!((buffer, rule.kind), (crate::app::Buffer::HttpHeader, Kind::Transaction));
}

#[test]
fn sticky_buffers_hold_until_the_next() {
    let rule = one(
        "http.uri; content:\"a\"; content:\"b\"; file.data; content:\"c\"; http.uri; content:\"d\"; flow:to_server;",
    );
    let counts: Vec<usize> = rule.sections.iter().map(|s| s.tests.len()).collect();
    assert_eq!(counts, [3, 1]);
    let rule = one("http.user_agent; content:\"a\"; to_uppercase; content:\"B\";");
    assert_eq!(rule.sections.len(), 2);
    assert_eq!(rule.sections[1].transforms, [Transform::ToUppercase]);
}

#[test]
fn rules_that_cannot_match_are_refused() {
    for options in [
        "content:\"abc\"; depth:2;",
        "content:\"abc\"; content:\"abc\"; within:2;",
        "content:\"a\"; offset:1; distance:1;",
        "content:\"a\"; startswith; offset:1;",
        "nocase;",
        "content:\"a\"; fast_pattern:0,2;",
        "content:\"a\"; depth:1; fast_pattern:only;",
        "http.uri; content:\"abc\"; bsize:2;",
        "dsize:2; content:\"abc\";",
        "http.uri; content:\"a\"; http.stat_code; content:\"2\";",
        "flow:to_client; http.uri; content:\"a\";",
        "flow:established,not_established;",
        "base64_data; content:\"a\";",
        "byte_test:1,=,x,0;",
        "byte_jump:9,0;",
        "flowbits:isset,a; flowbits:isnotset,a;",
        "threshold:type limit, track by_src, count 1;",
        "content:\"a\"; pcre:\"/a/Z1\";",
        "xor:\"0d\"; content:\"a\";",
        "content:a;",
        "ttl:256;",
        "flags:X;",
    ] {
        refused(&format!("alert tcp any any -> any any ({options} sid:1;)"));
    }
    refused("alert tcp any any -> any any (msg:\"no number\";)");
    refused("alert ssh any any -> any any (http.uri; content:\"a\"; sid:1;)");
}

#[test]
fn of_two_rules_with_one_number_the_higher_revision_stays() {
    let set = set("alert ip any any -> any any (sid:1; rev:1; msg:\"a\";)\n\
        alert ip any any -> any any (sid:1; rev:2; msg:\"b\";)\n\
        alert ip any any -> any any (sid:1; rev:1; msg:\"c\";)");
    assert_eq!((set.rules.len(), set.rules[0].msg.as_str(), set.replaced.len()), (1, "b", 2));
    assert!(set.replaced[0].to_string().contains("revision 1 gives way to revision 2 of line 2"));
}

#[test]
fn a_negation_is_of_its_own_kind_of_address() {
    let has = |list: &str, address: &str| {
        Addresses::parse(list, &Variables::default()).unwrap().contains(address.parse().unwrap())
    };
    assert!(has("!10.0.0.0/8", "1.1.1.1") && !has("!10.0.0.0/8", "10.1.1.1"));
    assert!(!has("!10.0.0.0/8", "2001::1") && !has("$EXTERNAL_NET", "2001::1"));
    assert!(has("[!10.0.0.0/8,!fe80::/10]", "2001::1") && !has("![10.0.0.0/8,fe80::/10]", "fe80::1"));
    assert!(has("[10.0.0.0/8,!2001::2]", "2001::1") && !has("[10.0.0.0/8,!10.1.0.0/16]", "2001::1"));
    assert!(has("any", "2001::1") && has("[any,!10.0.0.0/8]", "2001::1"));
    assert!(Addresses::parse("!any", &Variables::default()).is_err());
    let port = |list: &str, port| Ports::parse(list, &Variables::default()).unwrap().contains(port);
    assert!(port("[!80,!81]", 79) && !port("[!80,!81]", 81) && port("[1:80,![2,4]]", 3));
}

#[test]
fn kinds_follow_from_what_is_asked() {
    let kind = |protocol: &str, source: &str, options: &str| {
        let set = set(&format!("alert {protocol} {source} any -> any any ({options} sid:1;)"));
        assert!(set.refusals.is_empty(), "{}", set.refusals[0]);
        (set.rules[0].kind, set.rules[0].of_packet, set.rules[0].of_stream)
    };
    assert_eq!(kind("ip", "1.1.1.1", "").0, Kind::IpOnly);
    assert_eq!(kind("tcp", "!1.1.1.1", "").0, Kind::LikeIpOnly);
    assert_eq!(kind("tcp", "1.1.1.1", "flow:established;").0, Kind::Packet);
    assert_eq!(kind("tcp", "any", "app-layer-protocol:tls;").0, Kind::ProtocolOnly);
    assert_eq!(kind("http", "any", "").0, Kind::App);
    assert_eq!(kind("tcp", "any", "content:\"a\";"), (Kind::Stream, false, true));
    assert_eq!(kind("tcp", "any", "content:\"a\"; depth:1;"), (Kind::PacketAndStream, true, true));
    assert_eq!(kind("tcp", "any", "content:\"a\"; flags:S;"), (Kind::Packet, true, false));
    assert_eq!(kind("tcp-pkt", "any", "content:\"a\";"), (Kind::Packet, true, false));
    assert_eq!(kind("udp", "any", "content:\"a\";"), (Kind::Packet, false, false));
    assert_eq!(kind("pkthdr", "any", "decode-event:ipv4.pkt_too_small;").0, Kind::Decoder);
}

#[test]
fn most_of_a_public_rule_set_loads() {
    let Some(data) = data() else {
        eprintln!("skipped: no ../shared/data and no ONVM_TEST_DATA");
        return;
    };
    let mut set = RuleSet::new(Context::default());
    set.add_file(&data.join("ids/etopen_2019_active.rules.gz")).unwrap();
    let mut reasons = std::collections::BTreeMap::new();
    for refusal in &set.refusals {
        *reasons.entry(refusal.fault.to_string()).or_insert(0) += 1;
    }
    let all = set.rules.len() + set.refusals.len();
    println!("{} of {all} rules load; refused: {reasons:#?}", set.rules.len());
    assert!(all > 18_000 && set.rules.len() * 100 >= all * 95);
}

#[test]
fn the_rules_of_all_cases_are_read() {
    let Some(data) = data() else {
        eprintln!("skipped: no ../shared/data and no ONVM_TEST_DATA");
        return;
    };
    for rung in std::fs::read_dir(data.join("ids")).unwrap().flatten().filter(|e| e.path().is_dir()) {
        for case in std::fs::read_dir(rung.path()).unwrap().flatten() {
            let mut set = RuleSet::new(Context::default());
            set.add_file(&case.path().join("test.rules")).unwrap();
            for refusal in &set.refusals {
                println!("{refusal}");
            }
        }
    }
}

/// Numbers that look random and are the same in each run.
fn random(seed: &mut u64, below: usize) -> usize {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    usize::try_from(*seed % below as u64).unwrap_or(0)
}

#[test]
fn broken_rules_are_refused_and_never_panic() {
    let own = [
        "alert tcp [1.1.1.1,!$HOME_NET] any -> any [80,!81,90:] (msg:\"a\\;b\"; content:\"|0d 0a|x\"; depth:9; sid:1;)",
        "drop http any any => any any (http.uri; content:\"a\"; pcre:\"/a(b+)$/UER\"; http.stat_code; bsize:3; sid:2;)",
        "alert udp any any <> any 53 (byte_test:2,!&,0x80,2,relative,string,hex; byte_math:bytes 1, offset 0, oper +, \
         rvalue 2, result x; byte_jump:1,x,from_end,post_offset -1; isdataat:!x,relative; sid:3;)",
        "pass ip any any -> any any (flowbits:isset,a|b; flowint:c,>=,d; xbits:set,e,track ip_pair,expire 9; \
         threshold:type both, track by_src, count 2, seconds 9; ttl:1<>9; ipopts:rr; flags:SA,12; sid:4;)",
        "alert tls any any -> any any (ssl_state:!client_hello|unknown; tls_cert_notafter:>2015-01; file.data; \
         xor:offset 1, extract 2 0; subslice:-3,2,truncate; from_base64:mode strict; entropy:value 1-2; sid:5;)",
    ];
    let mut corpus: Vec<Vec<u8>> = own.iter().map(|rule| rule.as_bytes().to_vec()).collect();
    if let Some(data) = data() {
        let text = text::read(&data.join("ids/etopen_1000.rules.gz")).unwrap();
        corpus.extend(text.lines().take(200).map(|line| line.as_bytes().to_vec()));
    }
    let seed = &mut 0x5eed_u64;
    for round in 0..2000 {
        let mut rule = corpus[round % corpus.len()].clone();
        for _ in 0..1 + random(seed, 4) {
            let at = random(seed, rule.len());
            match random(seed, 5) {
                0 => drop(rule.remove(at)),
                1 => rule.insert(at, b"\";:,|\\!$[]()<>-=&^/x9\0\xff\n"[random(seed, 24)]),
                2 => rule.truncate(at + 1),
                3 => rule[at] ^= 1 << random(seed, 8),
                _ => {
                    let end = at + random(seed, 20).min(rule.len() - at);
                    let part = rule[at..end].to_vec();
                    rule.splice(at..at, part);
                }
            }
            if rule.is_empty() {
                break;
            }
        }
        let mut set = RuleSet::new(Context::default());
        set.add_text(&String::from_utf8_lossy(&rule));
        let _ = crate::detect::Tables::new(set.rules);
    }
}

#[test]
fn every_keyword_is_taken_by_its_room() {
    for word in parse::keywords() {
        let set = set(&format!("alert tcp any any -> any any ({word}:x; sid:1;)"));
        let unknown = set.refusals.iter().any(|r| r.fault.reason == "is not a keyword that is supported");
        assert!(!unknown, "{word} is listed and not known");
    }
}
