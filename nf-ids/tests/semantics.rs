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
