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
        "tos:x100;",
        "app-layer-protocol:htpp;",
        "app-layer-protocol:!unknown;",
        "app-layer-protocol:http,exact;",
        "app-layer-protocol:http; app-layer-protocol:tls;",
        "app-layer-protocol:http,final,original;",
        "http.uri; absent: error_or; content:\"a\";",
        "http.uri; from_base64; absent: must_error; content:\"a\";",
        "hostbits:set,a,src,x;",
        "ssh.protoversion:two;",
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
    assert_eq!((set.rules.len(), set.rules[0].msg.as_str(), set.notes.len()), (1, "b", 2));
    assert!(set.notes[0].to_string().contains("revision 1 gives way to revision 2 of line 2"));
}

#[test]
fn protocols_are_lists_with_a_side() {
    use crate::app::Protocol as P;
    let test = |value: &str| match &one(&format!("app-layer-protocol:{value};")).headers[0] {
        HeaderTest::AppProtocol(of, negated, side) => (of.clone(), *negated, *side),
        other => panic!("{other:?}"),
    };
    assert_eq!(test("tls|ssh"), (vec![P::Tls, P::Ssh], false, ProtocolSide::Packet));
    assert_eq!(test("!http2,exact,final"), (vec![P::Http2], true, ProtocolSide::Final));
    assert_eq!(test("unknown|failed,either"), (vec![P::Unknown, P::Failed], false, ProtocolSide::Either));
    assert!(test("http").0.contains(&P::Http1) && test("http").0.contains(&P::Http2));
    one("app-layer-protocol:!tls; app-layer-protocol:!ssh; app-layer-protocol:failed,original;");
}

#[test]
fn other_ways_of_writing_mean_the_same() {
    for (one_way, another) in [
        ("tos:x10;", "tos:16;"),
        ("tos:! X10;", "tos:!16;"),
        ("ip_proto:ospf;", "ip_proto:89;"),
        ("byte_test:2,=,1,0,string,HEX;", "byte_test:2,=,1,0,string hex;"),
        ("byte_extract:2,0,x,align;", "byte_extract:2,0,x,align 4;"),
        ("hostbits:set,a;", "hostbits:set,a,src,300;"),
    ] {
        let parts = |r: Rule| (r.headers, r.sections, r.state);
        assert_eq!(parts(one(one_way)), parts(one(another)), "{one_way}");
    }
    assert_ne!(one("byte_extract:2,0,x,align 2;").sections, one("byte_extract:2,0,x,align 4;").sections);
    one("ssh.protoversion:2_compat;");
    one("http.uri; from_base64; absent: error_or; content:\"a\";");
    refused(
        "alert icmp any any -> any any (detection_filter:track by_src, count 1, seconds 1, unique_on dst_port; sid:1;)",
    );
    refused("alert http any any -> any any (app-layer-protocol:http; sid:1;)");
}

#[test]
fn what_is_no_fault_is_noted_and_the_rule_taken_or_left_out() {
    let set = set("Alert tcp any any -> any any (MSG:\"x\"; classtype:misc-activty; sid:1;)\n\
        alert newproto any any -> any any (newword; requires: version >= 99; sid:2;)\n\
        alert tcp any any -> any any (classtype:misc-activity; classtype:misc-attack; priority:9; priority:4; sid:3;)");
    assert!(set.refusals.is_empty(), "{}", set.refusals[0]);
    let first = &set.rules[0];
    assert_eq!((first.priority, first.category.as_str()), (3, "Unknown Classtype"));
    assert_eq!(set.notes[0].fault.nearest.as_deref(), Some("misc-activity"));
    assert_eq!((set.notes[1].sid, set.rules.len()), (Some(2), 2));
    assert_eq!((set.rules[1].priority, set.rules[1].classtype.as_deref()), (4, Some("misc-attack")));
}

#[test]
fn a_pattern_is_of_the_bytes_of_its_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let rule =
        b"\xef\xbb\xbfalert tcp any any -> any any (content:\"caf\xe9\"; pcre:\"/\xe9$/\"; sid:1;)\r\n";
    std::fs::write(file.path(), rule).unwrap();
    let mut set = RuleSet::new(Context::default());
    set.add_file(file.path()).unwrap();
    let tests = &set.rules[0].sections[0].tests;
    let Test::Content(content) = &tests[0] else { panic!() };
    let Test::Pcre(pcre) = &tests[1] else { panic!() };
    assert_eq!((content.pattern.as_slice(), pcre.expression.as_str()), (&b"caf\xe9"[..], "\\xe9$"));
}

#[test]
fn a_rule_does_not_fill_the_stack() {
    let many = "content:\"a\"; distance:0; ".repeat(300);
    assert!(refused(&format!("alert tcp any any -> any any ({many}sid:1;)")).fault.reason.contains("256"));
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
    assert!(port("5800:5938,!5900", 5801) && !port("5800:5938,!5900", 5900) && !port("!80,!81", 80));
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
