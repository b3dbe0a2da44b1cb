//! Corners of the rule language that captures seldom show: what Suricata's manual and sources say of them, on packets
//! made for it.

use std::sync::Arc;

use nf_ids::detect::{Alert, Detector, Sink, Tables, Watch};
use nf_ids::engine::{Engine, Inspection, Mode, Settings};
use nf_ids::rules::{Context, RuleSet};
use onvm_lib::wire::MacAddr;
use onvm_lib::wire::build::Packet;
use onvm_lib::wire::tcp::Flags;

const CLIENT: ([u8; 4], u16) = ([10, 0, 0, 1], 40_000);
const SERVER: ([u8; 4], u16) = ([10, 0, 0, 2], 80);
const SECOND: u64 = 1_000_000_000;
const SYN: u8 = 2;
const ACK: u8 = 16;

#[derive(Debug, Default)]
struct Sids(Vec<u32>);

impl Sink for Sids {
    fn alert(&mut self, alert: &Alert, _: &Inspection<'_>) {
        self.0.push(alert.rule.sid);
    }
}

/// The rules that alert on these frames, one for each alert, in the order of their numbers. None is refused.
fn alerts(rules: &str, frames: &[Vec<u8>], mode: Mode) -> Vec<u32> {
    let mut set = RuleSet::new(Context::default());
    set.add_text(rules);
    assert!(set.refusals.is_empty(), "{}", set.refusals[0]);
    let (tables, refused) = Tables::new(set.rules);
    assert!(refused.is_empty(), "{}", refused[0]);
    let watch = Watch::new(Detector::new(Arc::new(tables)), Sids::default());
    let mut settings = Settings::of(mode);
    settings.ignore_checksums = true;
    let mut engine = Engine::new(settings, watch);
    for (n, frame) in frames.iter().enumerate() {
        engine.packet(frame, SECOND * (n as u64 + 1));
    }
    engine.finish();
    let mut sids = engine.detection.sink.0;
    sids.sort_unstable();
    sids
}

/// A rule for TCP with these options, and its number.
fn tcp(sid: u32, options: &str) -> String {
    format!("alert tcp any any -> any any ({options} sid:{sid};)\n")
}

/// How often a rule for TCP with these options alerts, in both modes the same.
fn count(options: &str, frames: &[Vec<u8>]) -> usize {
    let rule = tcp(1, options);
    let looking_on = alerts(&rule, frames, Mode::Ids).len();
    assert_eq!(alerts(&rule, frames, Mode::Inline).len(), looking_on, "{options}: in line otherwise");
    looking_on
}

/// A segment; sequence numbers count from each side's SYN.
fn segment(client: bool, flags: u8, seq: u32, ack: u32, data: &[u8]) -> Vec<u8> {
    let (from, to, isn, other) =
        if client { (CLIENT, SERVER, 1000, 7000) } else { (SERVER, CLIENT, 7000, 1000) };
    let ack = if flags & ACK == 0 { 0 } else { ack + other };
    Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6]))
        .ipv4(from.0.into(), to.0.into())
        .tcp(from.1, to.1)
        .seq(seq + isn)
        .ack(ack)
        .flags(Flags(u16::from(flags)))
        .payload(data)
        .to_vec()
        .unwrap()
}

fn handshake() -> Vec<Vec<u8>> {
    vec![segment(true, SYN, 0, 0, b""), segment(false, SYN | ACK, 0, 1, b""), segment(true, ACK, 1, 1, b"")]
}

/// A session in which the client says this, and the server acknowledges it.
fn said(data: &[u8]) -> Vec<Vec<u8>> {
    let length = u32::try_from(data.len()).unwrap();
    let mut frames = handshake();
    frames.push(segment(true, ACK | 8, 1, 1, data));
    frames.push(segment(false, ACK, 1, 1 + length, b""));
    frames
}

/// Whether a rule with these options alerts when the client says this.
fn matches(options: &str, data: &[u8]) -> bool {
    let rule = tcp(1, options);
    let [looking_on, in_line] =
        [Mode::Ids, Mode::Inline].map(|mode| !alerts(&rule, &said(data), mode).is_empty());
    assert_eq!(looking_on, in_line, "{options}");
    looking_on
}

#[test]
fn flags_that_are_named_have_their_kind_of_segment() {
    let frames = said(b"x");
    for (flags, expected) in
        [("S", 1), ("+S", 2), ("A", 2), ("!S", 0), ("*SF", 2), ("!A", 1), ("SA", 1), ("*AU", 0)]
    {
        assert_eq!(count(&format!("flags:{flags};"), &frames), expected, "{flags}");
    }
    assert_eq!(count("flags:S,A;", &frames), 2);
}

#[test]
fn sizes_that_are_not_small_are_of_payloads() {
    let frames = said(b"abc");
    for (size, expected) in [("!9", 1), ("!3", 0), (">=0", 1), ("<9", 5), ("3", 1), ("2<>4", 1), ("2<>3", 0)]
    {
        let rule = tcp(1, &format!("dsize:{size};"));
        if size == "2<>3" {
            let mut set = RuleSet::new(Context::default());
            set.add_text(&rule);
            assert_eq!(set.refusals.len(), 1, "{rule}");
            continue;
        }
        assert_eq!(count(&format!("dsize:{size};"), &frames), expected, "{size}");
    }
}

#[test]
fn packets_and_bytes_of_a_flow_are_of_either_or_of_both_directions() {
    let frames = handshake();
    // After each packet: 1 and 0, 1 and 1, 2 and 1.
    for (options, expected) in [
        ("flow.pkts:toserver,1;", 2),
        ("flow.pkts:toclient,1;", 2),
        ("flow.pkts:either,1;", 3),
        ("flow.pkts:both,1;", 1),
        ("flow.pkts:either,3;", 0),
        ("flow.pkts_toserver:2;", 1),
        ("flow.bytes:both,>0;", 2),
        ("flow.bytes:either,>0;", 3),
    ] {
        assert_eq!(count(options, &frames), expected, "{options}");
    }
}

#[test]
fn what_flow_says_needs_a_flow_but_for_the_direction() {
    // An error of ICMP that quotes nothing that could be looked for.
    let quoted = [0u8; 8];
    let error = Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6]))
        .ipv4(CLIENT.0.into(), SERVER.0.into())
        .icmp(11, 0, 0)
        .payload(&quoted)
        .to_vec()
        .unwrap();
    for (flow, expected) in [
        ("", true),
        ("flow:to_server;", true),
        ("flow:to_client;", false),
        ("flow:stateless;", false),
        ("flow:not_established;", false),
        ("flow:established;", false),
        ("flow:no_stream;", true),
        ("flow:no_frag;", false),
    ] {
        let rule = format!("alert icmp any any -> any any (itype:11; {flow} sid:1;)");
        let found = alerts(&rule, std::slice::from_ref(&error), Mode::Ids);
        assert_eq!(!found.is_empty(), expected, "{flow}");
    }
}

#[test]
fn contents_are_looked_for_as_the_manual_says() {
    for (options, expected) in [
        // Relative to a match that is not: from the start.
        ("content:\"user\"; content:!\"pass\"; distance:0; within:4;", true),
        ("content:\"user\"; content:!\"name\"; distance:1; within:4;", false),
        ("content:\"name\"; endswith;", true),
        ("content:!\"user\"; endswith;", true),
        ("content:!\"name\"; endswith;", false),
        ("content:\"USER\"; nocase; startswith; content:\"name\"; endswith; distance:1;", true),
        ("content:\"user\"; isdataat:5,relative;", true),
        ("content:\"user\"; isdataat:6,relative;", false),
        ("content:\"user\"; isdataat:!6,relative;", true),
        ("isdataat:8;", true),
        ("isdataat:9;", false),
        ("content:\"user\"; offset:0; depth:4; content:\"name\"; distance:-5; within:5;", false),
        ("content:\"user\"; content:\"user\"; distance:-4; within:4;", true),
    ] {
        assert_eq!(matches(options, b"user name"), expected, "{options}");
    }
}

/// A session of HTTP in which the client sends this and the server answers that.
fn talk(request: &[u8], response: &[u8]) -> Vec<Vec<u8>> {
    let (asked, answered) = (u32::try_from(request.len()).unwrap(), u32::try_from(response.len()).unwrap());
    let mut frames = said(request);
    frames.push(segment(false, ACK | 8, 1, 1 + asked, response));
    frames.push(segment(true, ACK, 1 + asked, 1 + answered, b""));
    frames.push(segment(true, ACK | 1, 1 + asked, 1 + answered, b""));
    frames.push(segment(false, ACK | 1, 1 + answered, 2 + asked, b""));
    frames.push(segment(true, ACK, 2 + asked, 2 + answered, b""));
    frames
}

const REQUEST: &[u8] = b"GET /a.txt HTTP/1.1\r\nHost: example.org\r\nUser-Agent: curl\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

fn http(sid: u32, options: &str) -> String {
    format!("alert http any any -> any any ({options} sid:{sid};)\n")
}

#[test]
fn values_are_remembered_in_sets() {
    let once = talk(REQUEST, RESPONSE);
    for mode in [Mode::Ids, Mode::Inline] {
        let rules = [
            http(1, "http.user_agent; dataset:set,seen,type string;"),
            http(2, "http.user_agent; dataset:isset,seen; http.uri; content:\"a.txt\"; priority:4;"),
            http(3, "http.host; dataset:isnotset,hosts,type string;"),
            http(4, "http.host; to_md5; dataset:isset,md5s,type md5;"),
            http(5, "http.host; dataset:unset,hosts;"),
        ];
        assert_eq!(alerts(&rules.concat(), &once, mode), [1, 2, 3], "{mode:?}");
        // What is not of the rule's header does not change the set.
        let rule = "alert http any any -> any 81 (http.user_agent; dataset:set,seen,type string; sid:1;)\n";
        let rules = rule.to_string() + &http(2, "http.user_agent; dataset:isset,seen;");
        assert_eq!(alerts(&rules, &once, mode), [0; 0], "{mode:?}");
    }
    let addresses = "alert tcp any any -> any any (flags:S; ip.src; dataset:set,a,type ip; sid:1;)\n\
                     alert tcp any any -> any any (flags:SA; ip.dst; dataset:isset,a; sid:2;)\n";
    assert_eq!(alerts(addresses, &[handshake(), handshake()].concat(), Mode::Ids), [1, 2, 2]);
}

#[test]
fn files_are_known_by_size_and_hash() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    file("good", "5d41402abc4b2a76b9719d911017c592  hello\n");
    file("bad", "# none\n5d41402abc4b2a76b9719d911017c593\n");
    file("sha1", "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d");
    file("sha256", "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824\n");
    file("reputed", "aGVsbG8=,200\n");
    let options = [
        "filemd5:good;",
        "filemd5:bad;",
        "filemd5:!bad;",
        "filesha1:sha1;",
        "filesha256:sha256;",
        "filesize:5;",
        "filesize:>4;",
        "filesize:<5;",
        "fileext:\"txt\"; filestore;",
        "file.data; datarep:r,>,100,load reputed,type string;",
        "file.data; datarep:r,>,200;",
    ];
    let rules: String = (1..).zip(options).map(|(sid, options)| http(sid, options)).collect();
    file("test.rules", &rules);
    let mut set = RuleSet::new(Context::default());
    set.add_file(&folder.path().join("test.rules")).unwrap();
    assert!(set.refusals.is_empty(), "{}", set.refusals[0]);
    assert!(set.notes.iter().any(|note| note.fault.field == "filestore"));
    for mode in [Mode::Ids, Mode::Inline] {
        let (tables, _) = Tables::new(set.rules.clone());
        let watch = Watch::new(Detector::new(Arc::new(tables)), Sids::default());
        let mut engine = Engine::new(Settings { ignore_checksums: true, ..Settings::of(mode) }, watch);
        for (n, frame) in talk(REQUEST, RESPONSE).iter().enumerate() {
            engine.packet(frame, SECOND * (n as u64 + 1));
        }
        engine.finish();
        let mut sids = engine.detection.sink.0;
        sids.sort_unstable();
        assert_eq!(sids, [1, 3, 4, 5, 6, 7, 9, 10], "{mode:?}");
    }
}

#[test]
fn what_is_bypassed_is_not_inspected_any_more() {
    let rules = tcp(1, "content:\"one\"; bypass;") + &tcp(2, "content:\"two\";");
    let mut frames = said(b"one");
    frames.push(segment(true, ACK | 8, 4, 1, b"two"));
    frames.push(segment(false, ACK, 1, 7, b""));
    assert_eq!(alerts(&rules, &frames, Mode::Inline), [1]);
}

#[test]
fn older_keywords_are_understood() {
    let call = b"\0\0\0\x01\0\0\0\0\0\0\0\x02\0\x01\x86\xa0\0\0\0\x02\0\0\0\x03";
    let datagram = Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6]))
        .ipv4(CLIENT.0.into(), SERVER.0.into())
        .udp(700, 111)
        .payload(call)
        .to_vec()
        .unwrap();
    for (value, expected) in [
        ("100000", true),
        ("100000,2,3", true),
        ("100000,*,3", true),
        ("100000,3", false),
        ("100001,*,*", false),
    ] {
        let rule = format!("alert udp any any -> any any (rpc:{value}; sid:1;)");
        let found = alerts(&rule, std::slice::from_ref(&datagram), Mode::Ids);
        assert_eq!(!found.is_empty(), expected, "{value}");
    }
    assert!(matches("content:\"x\"; asn1:oversize_length 1000, relative_offset 1;", b"xy\x04\x82\x10\0abc"));
    assert!(!matches("content:\"x\"; asn1:oversize_length 5000, relative_offset 1;", b"xy\x04\x82\x10\0abc"));
}

#[test]
fn hashes_and_serials_are_written_as_their_buffers_are() {
    for (options, expected) in [
        ("ja3.hash; content:\"ABCDEF\";", &b"abcdef"[..]),
        ("tls.cert_fingerprint; content:\"4A:A3\";", b"4a:a3"),
        ("tls.cert_serial; content:\"5c:19\";", b"5C:19"),
        ("tls.sni; content:\"Example\";", b"Example"),
    ] {
        let mut set = RuleSet::new(Context::default());
        set.add_text(&format!("alert tls any any -> any any ({options} sid:1;)"));
        let nf_ids::rules::Test::Content(content) = &set.rules[0].sections[0].tests[0] else { panic!() };
        assert_eq!(content.pattern, expected, "{options}");
    }
}

#[test]
fn what_an_expression_keeps_can_be_asked_for() {
    let frames = talk(REQUEST, RESPONSE);
    for mode in [Mode::Ids, Mode::Inline] {
        let rules = [
            http(1, "http.host; pcre:\"/^(\\w+)\\.(\\w+)$/, flow:name, pkt:tld\"; flowbits:noalert;"),
            http(2, "flow:to_client; http.stat_code; content:\"200\"; flowvar:name,\"exam\";"),
            http(3, "flow:to_client; http.stat_code; content:\"200\"; flowvar:name,\"org\";"),
            http(4, "flow:to_client; http.stat_code; content:\"200\"; pktvar:tld,\"org\";"),
            http(5, "http.uri; content:\"a.txt\"; pktvar:tld,\"org\";"),
            http(6, "http.uri; pcre:\"/(?P<flow_ext>txt)/\"; flowvar:name,\"example\";"),
            http(7, "http.method; content:\"GET\"; flowvar:ext,\"txt\";"),
        ];
        assert_eq!(alerts(&rules.concat(), &frames, mode), [2, 5, 6, 7], "{mode:?}");
    }
}

#[test]
fn ethernet_headers_are_bytes_too() {
    assert_eq!(count("flags:S; ether.hdr; content:\"|02 02 02 02 02 02 08 00|\"; endswith;", &said(b"x")), 1);
}
