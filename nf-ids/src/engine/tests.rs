use onvm_lib::wire::MacAddr;
use onvm_lib::wire::build::Packet;
use onvm_lib::wire::tcp::Flags;

use super::*;
use crate::flow::Direction;

/// Notes what the engine shows.
#[derive(Debug, Default)]
struct Notes {
    /// Windows by direction, with where they begin to be new.
    windows: Vec<(Direction, String)>,
    /// Payloads of packets that count by themselves.
    payloads: Vec<String>,
    events: Vec<&'static str>,
    ended: u32,
    established: u32,
    verdict: Verdict,
}

impl Detection for Notes {
    type FlowState = ();

    fn wants_raw(&self) -> bool {
        true
    }

    fn inspect(&mut self, seen: &Inspection<'_>, flow: Option<&mut ()>) -> Judgement {
        assert_eq!(seen.flow.is_some(), flow.is_some());
        self.events.extend(seen.stream_events.iter().map(stream::Event::name));
        if let (Some(window), Some(flow)) = (seen.window, seen.flow) {
            let text = String::from_utf8_lossy(&window.bytes[window.old..]).into_owned();
            self.windows.push((flow.direction, text));
        }
        if seen.payload_counts() && !seen.packet.payload.is_empty() {
            self.payloads.push(String::from_utf8_lossy(seen.packet.payload).into_owned());
        }
        self.established += u32::from(seen.flow.is_some_and(|flow| flow.established));
        Judgement { verdict: self.verdict, ..Judgement::default() }
    }

    fn flow_ended(&mut self, _flow: &Flow<Kept<()>>) {
        self.ended += 1;
    }
}

const CLIENT: ([u8; 4], u16) = ([10, 0, 0, 1], 40_000);
const SERVER: ([u8; 4], u16) = ([10, 0, 0, 2], 9999);
const SECOND: u64 = 1_000_000_000;

fn engine(mode: Mode) -> Engine<Notes> {
    Engine::new(Settings::of(mode), Notes::default())
}

/// A segment of the client or of the server; sequence numbers count from each side's SYN.
fn segment(client: bool, flags: u8, seq: u32, ack: u32, data: &str) -> Vec<u8> {
    let (from, to, isn, other) =
        if client { (CLIENT, SERVER, u32::MAX - 5, 7000) } else { (SERVER, CLIENT, 7000, u32::MAX - 5) };
    let ack = if flags & 0x10 == 0 { 0 } else { ack.wrapping_add(other) };
    Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6]))
        .ipv4(from.0.into(), to.0.into())
        .tcp(from.1, to.1)
        .seq(seq.wrapping_add(isn))
        .ack(ack)
        .flags(Flags(u16::from(flags)))
        .payload(data.as_bytes())
        .to_vec()
        .unwrap()
}

fn show(engine: &mut Engine<Notes>, frames: &[Vec<u8>]) {
    for (n, frame) in frames.iter().enumerate() {
        engine.packet(frame, SECOND * (n as u64 + 1));
    }
}

fn handshake() -> Vec<Vec<u8>> {
    vec![segment(true, 2, 0, 0, ""), segment(false, 0x12, 0, 1, ""), segment(true, 0x10, 1, 1, "")]
}

fn told(engine: &Engine<Notes>, direction: Direction) -> String {
    let windows = engine.detection.windows.iter().filter(|(d, _)| *d == direction);
    windows.map(|(_, text)| text.as_str()).collect()
}

#[test]
fn a_match_across_segments_is_in_one_window_when_acknowledged() {
    let mut engine = engine(Mode::Ids);
    let mut frames = handshake();
    // Out of order, across the wrap of sequence numbers, once more with another content.
    frames.push(segment(true, 0x18, 7, 1, "world"));
    frames.push(segment(true, 0x18, 1, 1, "hello "));
    frames.push(segment(true, 0x18, 1, 1, "HELLO "));
    show(&mut engine, &frames);
    assert!(engine.detection.windows.is_empty(), "nothing was acknowledged");
    show(&mut engine, &[segment(false, 0x10, 1, 12, "")]);
    engine.finish();
    assert_eq!(told(&engine, Direction::ToServer), "hello world");
    assert_eq!(engine.detection.events, ["reassembly_overlap_different_data"]);
    assert!(engine.detection.payloads.is_empty(), "{:?}", engine.detection.payloads);
    assert_eq!((engine.detection.ended, engine.flows(), engine.stream_memory()), (1, 0, 0));
}

#[test]
fn in_line_data_is_shown_as_it_arrives() {
    let mut engine = engine(Mode::Inline);
    let mut frames = handshake();
    frames.push(segment(true, 0x18, 1, 1, "hello "));
    show(&mut engine, &frames);
    assert_eq!(told(&engine, Direction::ToServer), "hello ");
    show(&mut engine, &[segment(true, 0x18, 7, 1, "world")]);
    assert_eq!(told(&engine, Direction::ToServer), "hello world");
}

#[test]
fn what_no_receiver_takes_is_told_and_is_in_no_stream() {
    let mut engine = engine(Mode::Ids);
    let mut frames = handshake();
    frames.push(segment(true, 0x18, 900_000, 1, "far away"));
    frames.push(segment(true, 0x18, 1, 99_999_999, "wrong ack"));
    frames.push(segment(false, 0x02, 0, 0, ""));
    frames.push(segment(true, 0x14, 5, 1, ""));
    show(&mut engine, &frames);
    let names = ["est_packet_out_of_window", "est_invalid_ack", "pkt_invalid_ack", "est_syn_toclient"];
    assert_eq!(engine.detection.events, names);
    assert_eq!(engine.detection.payloads, ["far away", "wrong ack"]);
    assert_eq!(engine.counts.refused, 4, "the last is a reset that no one would heed");
}

#[test]
fn a_wrong_checksum_keeps_a_segment_out_unless_told_otherwise() {
    for ignore in [false, true] {
        let mut settings = Settings::of(Mode::Inline);
        settings.ignore_checksums = ignore;
        let mut engine = Engine::new(settings, Notes::default());
        let mut frames = handshake();
        let mut wrong = segment(true, 0x18, 1, 1, "attack");
        wrong[14 + 20 + 16] ^= 1;
        frames.push(wrong);
        show(&mut engine, &frames);
        assert_eq!(told(&engine, Direction::ToServer), if ignore { "attack" } else { "" });
        assert_eq!(engine.counts.bad_checksums, u64::from(!ignore));
    }
}

#[test]
fn sessions_in_their_midst_are_followed_when_asked_for() {
    for midstream in [false, true] {
        let mut settings = Settings::of(Mode::Ids);
        settings.stream.midstream = midstream;
        let mut engine = Engine::new(settings, Notes::default());
        show(&mut engine, &[segment(true, 0x18, 1, 1, "abc"), segment(false, 0x10, 1, 4, "")]);
        engine.finish();
        assert_eq!(told(&engine, Direction::ToServer), if midstream { "abc" } else { "" });
        assert_eq!(engine.detection.payloads, if midstream { vec![] } else { vec!["abc".to_string()] });
    }
}

#[test]
fn a_gap_is_told_and_what_is_behind_it_is_read() {
    let mut engine = engine(Mode::Ids);
    let mut frames = handshake();
    frames.push(segment(true, 0x18, 1, 1, "before"));
    frames.push(segment(true, 0x18, 17, 1, "behind"));
    frames.push(segment(false, 0x10, 1, 23, ""));
    show(&mut engine, &frames);
    engine.finish();
    assert_eq!(told(&engine, Direction::ToServer), "beforebehind");
    assert_eq!(engine.detection.windows.len(), 2, "not as if they stood side by side");
    assert_eq!(engine.detection.events, ["reassembly_seq_gap"]);
}

#[test]
fn a_session_ends_and_another_begins_between_the_same_ports() {
    let mut engine = engine(Mode::Ids);
    let mut frames = handshake();
    frames.push(segment(true, 0x18, 1, 1, "one"));
    frames.push(segment(false, 0x11, 1, 4, ""));
    frames.push(segment(true, 0x11, 4, 2, ""));
    frames.push(segment(false, 0x10, 2, 5, ""));
    show(&mut engine, &frames);
    let again: Vec<Vec<u8>> = handshake();
    let mut other = again.clone();
    // Another initial sequence number: bytes 4 to 8 of the header.
    other[0][14 + 20 + 4..14 + 20 + 8].copy_from_slice(&77u32.to_be_bytes());
    engine.settings.ignore_checksums = true;
    show(&mut engine, &other[..1]);
    assert_eq!((engine.detection.ended, engine.flows()), (1, 1));
    assert_eq!(told(&engine, Direction::ToServer), "one");
    assert_eq!(engine.detection.events, [""; 0]);
}

#[test]
fn tunnels_are_looked_into_and_the_strictest_verdict_counts() {
    let mut engine = engine(Mode::Ids);
    let inner = Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6]))
        .ipv4([1; 4].into(), [2; 4].into())
        .udp(5, 6)
        .payload(b"inside")
        .to_vec()
        .unwrap();
    let outer = Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6]))
        .ipv4([3; 4].into(), [4; 4].into())
        .protocol(4)
        .payload(&inner[14..])
        .to_vec()
        .unwrap();
    engine.detection.verdict = Verdict::Drop;
    assert_eq!(engine.packet(&outer, SECOND), Verdict::Drop);
    assert_eq!(engine.counts.packets, 2);
    assert_eq!(engine.detection.payloads[0], "inside");
}

#[test]
fn flows_end_by_time_and_the_table_is_bounded() {
    let mut settings = Settings::of(Mode::Ids);
    settings.bounds.flows = 10;
    let mut engine = Engine::new(settings, Notes::default());
    for port in 0..100 {
        let frame = Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6]))
            .ipv4([1; 4].into(), [2; 4].into())
            .udp(port, 99)
            .payload(b"x")
            .to_vec()
            .unwrap();
        engine.packet(&frame, SECOND);
    }
    assert_eq!((engine.flows(), engine.flows_made()), (10, (100, 90)));
    engine.tick(40 * SECOND);
    assert_eq!((engine.flows(), engine.detection.ended), (0, 100));
}
