//! A successor goes on where its predecessor ended: flow bits, decisions, thresholds, sessions.

use nf_ids::detect::{Alert, Detector, FlowState, Memory, Sink, Tables, Watch};
use nf_ids::engine::{Carried, Engine, Inspection, Mode, Settings, Verdict};
use nf_ids::rules::{Context, RuleSet};
use onvm_lib::wire::LinkType;
use onvm_lib::wire::build::Packet;
use onvm_lib::wire::tcp::Flags;
use std::sync::Arc;

#[derive(Debug, Default)]
struct Said(Vec<u32>);

impl Sink for Said {
    fn alert(&mut self, alert: &Alert, _: &Inspection<'_>) {
        self.0.push(alert.rule.sid);
    }
}

struct Ids(Engine<Watch<Said>>, u64);

impl Ids {
    fn new(mode: Mode, rules: &str) -> Self {
        let mut set = RuleSet::new(Context::default());
        set.add_text(rules);
        assert!(set.refusals.is_empty());
        let mut settings = Settings::of(mode);
        settings.ignore_checksums = true;
        let watch = Watch::new(Detector::new(Arc::new(Tables::new(set.rules).0)), Said::default());
        Self(Engine::new(settings, watch), 1_000_000_000)
    }

    /// What the successor is given goes the way that it goes between programs.
    fn succeeded_by(&self, mode: Mode, rules: &str) -> Self {
        let state = (self.0.carried(), self.0.detection.detector.memory());
        let bytes = postcard::to_allocvec(&state).unwrap();
        let (flows, memory): (Vec<Carried<FlowState>>, Memory) = postcard::from_bytes(&bytes).unwrap();
        let mut ids = Self::new(mode, rules);
        ids.1 = self.1;
        assert_eq!(ids.0.adopt(flows), 0);
        ids.0.detection.detector.remember(memory);
        assert_eq!(ids.0.flows(), self.0.flows());
        ids
    }

    fn takes(&mut self, frame: &[u8]) -> Verdict {
        self.1 += 1_000_000;
        self.0.frame(frame, LinkType::RawIp, self.1)
    }

    fn said(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.0.detection.sink.0)
    }
}

fn segment(client: bool, flags: u16, seq: u32, ack: u32, data: &str) -> Vec<u8> {
    let (one, other) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let packet = if client {
        Packet::raw().ipv4(one, other).tcp(40_000, 4000)
    } else {
        Packet::raw().ipv4(other, one).tcp(4000, 40_000)
    };
    packet.seq(seq).ack(ack).flags(Flags(flags)).payload(data.as_bytes()).to_vec().unwrap()
}

fn datagram(port: u16, data: &str) -> Vec<u8> {
    let packet = Packet::raw().ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).udp(port, 4000);
    packet.payload(data.as_bytes()).to_vec().unwrap()
}

const SYN: u16 = 2;
const ACK: u16 = 16;
const PUSH: u16 = 24;

#[test]
fn sessions_go_on_in_their_midst_and_in_their_handshake() {
    let rules = "alert tcp any any -> any any (flow:established,to_server; content:\"evil\"; sid:1;)\n\
                 alert tcp any any -> any any (flow:established,to_client; content:\"evil\"; sid:2;)\n\
                 alert tcp any any -> any any (stream-event:pkt_invalid_ack; sid:3;)\n";
    for seen in 0..=5 {
        let frames = [
            segment(true, SYN, 100, 0, ""),
            segment(false, SYN | ACK, 500, 101, ""),
            segment(true, ACK, 101, 501, ""),
            segment(true, PUSH, 101, 501, "some words"),
            segment(false, PUSH, 501, 111, "an answer"),
            segment(true, PUSH, 111, 510, "an evil word"),
            segment(false, PUSH, 510, 123, "evil, too"),
            segment(true, ACK, 123, 519, ""),
        ];
        let mut ids = Ids::new(Mode::Ids, rules);
        for frame in &frames[..seen] {
            ids.takes(frame);
        }
        let mut next = ids.succeeded_by(Mode::Ids, rules);
        assert!(ids.said().is_empty(), "after {seen}");
        for frame in &frames[seen..] {
            next.takes(frame);
        }
        next.0.finish();
        let mut said = next.said();
        said.sort_unstable();

        assert_eq!(said, [1, 2], "after {seen}");
    }
}

#[test]
fn what_flows_and_hosts_remember_is_not_forgotten() {
    let rules = "alert udp any any -> any any (content:\"first\"; flowbits:set,a; noalert; sid:1;)\n\
                 alert udp any any -> any any (content:\"second\"; flowbits:isset,a; sid:2;)\n\
                 alert udp any any -> any any (content:\"third\"; threshold:type limit,track by_src,count 1,seconds 600; sid:3;)\n\
                 alert udp any any -> any any (content:\"first\"; xbits:set,b,track ip_src,expire 600; noalert; sid:4;)\n\
                 alert udp any any -> any any (content:\"fourth\"; xbits:isset,b,track ip_src; sid:5;)\n";
    let mut ids = Ids::new(Mode::Ids, rules);
    ids.takes(&datagram(1000, "first"));
    ids.takes(&datagram(1001, "third"));
    assert_eq!(ids.said(), [3]);
    // The rules may be others: what is remembered is remembered by name.
    let more = format!("alert udp any any -> any any (content:\"zero\"; sid:9;)\n{rules}");
    let mut next = ids.succeeded_by(Mode::Ids, &more);
    next.takes(&datagram(1000, "second"));
    next.takes(&datagram(1001, "second"));
    next.takes(&datagram(1001, "third"));
    next.takes(&datagram(1002, "fourth"));
    assert_eq!(next.said(), [2, 5]);
}

#[test]
fn what_was_dropped_stays_dropped_and_what_passes_passes() {
    let rules = "drop tcp any any -> any any (content:\"evil\"; sid:1;)\n\
                 pass udp any any -> any any (content:\"known\"; flow:to_server; sid:2;)\n\
                 drop udp any any -> any any (content:\"odd\"; sid:3;)\n";
    let mut ids = Ids::new(Mode::Inline, rules);
    ids.takes(&segment(true, SYN, 100, 0, ""));
    ids.takes(&segment(false, SYN | ACK, 500, 101, ""));
    ids.takes(&segment(true, ACK, 101, 501, ""));
    assert_eq!(ids.takes(&segment(true, PUSH, 101, 501, "evil")), Verdict::Drop);
    let other = |data| datagram(7, data);
    assert_eq!(ids.takes(&other("odd")), Verdict::Drop);
    let mut next = ids.succeeded_by(Mode::Inline, rules);
    assert_eq!(next.takes(&segment(true, PUSH, 101, 501, "other")), Verdict::Drop);
    assert_eq!(next.takes(&segment(false, PUSH, 501, 101, "other")), Verdict::Drop);
    assert_eq!(next.takes(&datagram(8, "fine")), Verdict::Pass);
}

#[test]
fn flows_without_room_are_counted() {
    let rules = "alert udp any any -> any any (content:\"x\"; sid:1;)\n";
    let mut ids = Ids::new(Mode::Ids, rules);
    for port in 1..=10 {
        ids.takes(&datagram(port, "x"));
    }
    let mut settings = Settings::of(Mode::Ids);
    settings.bounds.flows = 4;
    let watch = Watch::new(Detector::new(Arc::new(Tables::new(Vec::new()).0)), Said::default());
    let mut small = Engine::new(settings, watch);
    assert_eq!((small.adopt(ids.0.carried()), small.flows()), (6, 4));
    assert_eq!((small.adopt(ids.0.carried()), small.flows()), (10, 4), "no flow twice");
}
