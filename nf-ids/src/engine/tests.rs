use onvm_lib::wire::MacAddr;
use onvm_lib::wire::build::Packet;
use onvm_lib::wire::tcp::Flags;

use super::*;
use crate::flow::Direction;

mod in_line;

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
    for_flow: bool,
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
        Judgement { verdict: self.verdict, for_flow: self.for_flow, ..Judgement::default() }
    }

    fn flow_ended(&mut self, _flow: &Flow<Kept<()>>) {
        self.ended += 1;
    }
}

/// What decodes as IPv4 with this protocol and payload, in fragments of this many bytes.
fn in_fragments(frame: &[u8], size: usize) -> Vec<Vec<u8>> {
    let (head, payload) = frame.split_at(14 + 20);
    let count = payload.chunks(size).count();
    let fragment = |(n, piece): (usize, &[u8])| {
        let mut made = [head, piece].concat();
        let length = u16::try_from(20 + piece.len()).unwrap();
        made[16..18].copy_from_slice(&length.to_be_bytes());
        let place = u16::try_from(n * size / 8).unwrap() | if n + 1 < count { 0x2000 } else { 0 };
        made[20..22].copy_from_slice(&place.to_be_bytes());
        made
    };
    payload.chunks(size).enumerate().map(fragment).collect()
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
fn what_a_tunnel_carries_is_inspected_once() {
    let mut engine = engine(Mode::Ids);
    let inner = Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6]))
        .ipv4([1; 4].into(), [2; 4].into())
        .udp(5, 6)
        .payload(b"inside")
        .to_vec()
        .unwrap();
    let outer = |payload: &[u8]| {
        let mut all = vec![8, 0, 0, 0, 0, 0, 7, 0];
        all.extend(payload);
        Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6]))
            .ipv4([3; 4].into(), [4; 4].into())
            .udp(9, 4789)
            .payload(&all)
            .to_vec()
            .unwrap()
    };
    show(&mut engine, &[outer(&inner)]);
    assert_eq!(engine.detection.payloads, ["inside"]);
    // What cannot be read as a packet is a payload like any other.
    show(&mut engine, &[outer(&inner[..12])]);
    assert_eq!(engine.detection.payloads.len(), 2);
}

#[test]
fn a_segment_in_fragments_is_in_its_stream() {
    for mode in [Mode::Ids, Mode::Inline] {
        let mut engine = engine(mode);
        let mut frames = handshake();
        frames.extend(in_fragments(&segment(true, 0x18, 1, 1, "hello in pieces "), 16));
        frames.push(segment(true, 0x18, 17, 1, "and whole"));
        frames.push(segment(false, 0x10, 1, 26, ""));
        show(&mut engine, &frames);
        engine.finish();
        assert_eq!(told(&engine, Direction::ToServer), "hello in pieces and whole", "{mode:?}");
        assert_eq!(engine.flows_made().0, 1);
    }
}

#[test]
fn fragments_of_fragments_end() {
    // Each datagram holds a fragment that completes the one around it: IPv6 in IPv6's fragments, deeper than is read.
    let mut engine = engine(Mode::Ids);
    let mut datagram = vec![17, 0, 0, 0, 0, 0, 0, 0];
    for id in 0..200u32 {
        let mut first = vec![44, 0, 0, 1];
        first.extend(id.to_be_bytes());
        first.extend([44, 0, 0, 0, 0, 0, 0, 9]);
        let mut last = vec![44, 0, 0, 8];
        last.extend(id.to_be_bytes());
        last.extend(&datagram);
        let base =
            || Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6])).ipv6(1.into(), 2.into()).protocol(44);
        engine.packet(&base().payload(&first).to_vec().unwrap(), SECOND);
        datagram = last;
    }
    let frame = Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6])).ipv6(1.into(), 2.into()).protocol(44);
    engine.packet(&frame.payload(&datagram).to_vec().unwrap(), SECOND);
    assert!(engine.counts.packets < 250, "{}", engine.counts.packets);
}

#[test]
fn data_that_was_acknowledged_before_it_came_is_read() {
    let mut engine = engine(Mode::Ids);
    let mut frames = handshake();
    // Two captures were put together: the acknowledgement stands before what it acknowledges.
    frames.push(segment(false, 0x10, 1, 12, ""));
    frames.push(segment(true, 0x18, 1, 1, "hello "));
    frames.push(segment(true, 0x18, 7, 1, "world"));
    frames.push(segment(false, 0x10, 1, 12, ""));
    show(&mut engine, &frames);
    engine.finish();
    assert_eq!(told(&engine, Direction::ToServer), "hello world");
    assert_eq!(engine.detection.events, ["pkt_spurious_retransmission"; 2]);
    assert_eq!(engine.counts.refused, 0);
}

#[test]
fn the_step_that_is_missing_in_a_handshake_is_missed() {
    // The client's acknowledgement was not seen, and what the server says shows that it was sent; with data and without.
    for data in ["", "banner"] {
        let mut engine = engine(Mode::Ids);
        let mut frames = handshake();
        frames.truncate(2);
        frames.push(segment(false, 0x10, 1, 1, data));
        frames.push(segment(true, 0x18, 1, 1, "answer"));
        frames.push(segment(false, 0x10, u32::try_from(1 + data.len()).unwrap(), 7, ""));
        show(&mut engine, &frames);
        engine.finish();
        assert_eq!(told(&engine, Direction::ToServer), "answer");
        assert_eq!(engine.detection.events, [""; 0]);
    }
    // In line it cannot have been missed.
    let mut engine = engine(Mode::Inline);
    let mut frames = handshake();
    frames.truncate(2);
    frames.push(segment(false, 0x10, 1, 1, "banner"));
    frames.push(segment(false, 0x10, 1, 1, ""));
    show(&mut engine, &frames);
    assert_eq!(engine.detection.events, ["3whs_ack_data_inject", "3whs_ack_in_wrong_dir"]);
    assert_eq!((engine.counts.refused, engine.counts.dropped), (2, 1), "only what carries data is dropped");
}

#[test]
fn data_with_the_last_step_is_of_an_established_session() {
    let mut engine = engine(Mode::Inline);
    let mut frames = handshake();
    frames.truncate(2);
    frames.push(segment(true, 0x18, 1, 1, "at once"));
    show(&mut engine, &frames);
    assert_eq!((told(&engine, Direction::ToServer).as_str(), engine.detection.established), ("at once", 1));
    assert_eq!(engine.detection.payloads, [""; 0]);
}

#[test]
fn in_line_what_came_first_counts_and_what_says_otherwise_goes_no_further() {
    let mut settings = Settings::of(Mode::Inline);
    settings.stream.policy = crate::stream::Policy::Last;
    let mut engine = Engine::new(settings, Notes::default());
    let mut frames = handshake();
    frames.push(segment(true, 0x18, 1, 1, "good"));
    show(&mut engine, &frames);
    assert_eq!(engine.packet(&segment(true, 0x18, 1, 1, "evil"), 9 * SECOND), Verdict::Drop);
    assert_eq!(engine.packet(&segment(true, 0x18, 1, 1, "good"), 9 * SECOND), Verdict::Pass);
    assert_eq!(engine.detection.events, ["reassembly_overlap_different_data"]);
    engine.finish();
    assert!(!told(&engine, Direction::ToServer).contains("evil"));
}

#[test]
fn what_is_urgent_is_not_in_the_stream() {
    let mut engine = engine(Mode::Ids);
    let mut frames = handshake();
    let mut urgent = segment(true, 0x38, 1, 1, "attXX");
    urgent[14 + 20 + 18..14 + 20 + 20].copy_from_slice(&5u16.to_be_bytes());
    frames.push(urgent.clone());
    frames.push(urgent);
    frames.push(segment(true, 0x18, 6, 1, "ack"));
    frames.push(segment(false, 0x10, 1, 9, ""));
    engine.settings.ignore_checksums = true;
    show(&mut engine, &frames);
    engine.finish();
    assert_eq!(told(&engine, Direction::ToServer), "attXack");
    assert_eq!(engine.detection.events, [""; 0]);
}

#[test]
fn a_reset_that_may_be_anothers_is_told_when_its_sender_goes_on() {
    let signed = |mut frame: Vec<u8>| {
        frame[14 + 20 + 12] = 0x60;
        frame.extend([29, 4, 0, 0]);
        let length = u16::try_from(frame.len() - 14).unwrap();
        frame[16..18].copy_from_slice(&length.to_be_bytes());
        frame
    };
    for (sign, expected) in [(true, &["suspected_rst_inject"][..]), (false, &[])] {
        let mut engine = engine(Mode::Ids);
        engine.settings.ignore_checksums = true;
        let mut frames = handshake();
        let reset = segment(true, 0x14, 1, 1, "");
        frames.push(if sign { signed(reset) } else { reset });
        frames.push(segment(true, 0x18, 1, 1, "more"));
        show(&mut engine, &frames);
        engine.finish();
        assert_eq!(engine.detection.events, expected);
        assert_eq!(told(&engine, Direction::ToServer), if sign { "more" } else { "" });
    }
}

/// The same with a timestamp, and the one it echoes.
fn stamped(client: bool, flags: u8, seq: u32, ack: u32, data: &str, stamps: (u32, u32)) -> Vec<u8> {
    let mut frame = segment(client, flags, seq, ack, "");
    frame[14 + 20 + 12] = 0x80;
    frame.extend([1, 1, 8, 10]);
    frame.extend(stamps.0.to_be_bytes());
    frame.extend(stamps.1.to_be_bytes());
    frame.extend(data.as_bytes());
    let length = u16::try_from(frame.len() - 14).unwrap();
    frame[16..18].copy_from_slice(&length.to_be_bytes());
    frame
}

#[test]
fn a_refused_segment_does_not_set_the_clock() {
    let mut engine = engine(Mode::Ids);
    engine.settings.ignore_checksums = true;
    show(
        &mut engine,
        &[
            stamped(true, 2, 0, 0, "", (100, 0)),
            stamped(false, 0x12, 0, 1, "", (500, 0)),
            stamped(true, 0x10, 1, 1, "", (101, 0)),
            // Someone guesses the sequence number but not the acknowledgement, and sets the clock far ahead.
            stamped(true, 0x18, 1, 99_999_999, "x", (1_000_000, 0)),
            stamped(true, 0x18, 1, 1, "real", (102, 0)),
            stamped(false, 0x10, 1, 5, "", (501, 0)),
        ],
    );
    engine.finish();
    assert_eq!(told(&engine, Direction::ToServer), "real");
    assert_eq!(engine.detection.events, ["est_invalid_ack", "pkt_invalid_ack"]);
}

#[test]
fn errors_are_of_the_flow_they_are_about_or_of_none() {
    let mut engine = engine(Mode::Ids);
    let datagram = Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6]))
        .ipv4([1; 4].into(), [2; 4].into())
        .udp(5, 6)
        .payload(b"x")
        .to_vec()
        .unwrap();
    let error = Packet::ethernet(MacAddr([4; 6]), MacAddr([2; 6]))
        .ipv4([2; 4].into(), [1; 4].into())
        .icmp(3, 3, 0)
        .payload(&datagram[14..])
        .to_vec()
        .unwrap();
    show(&mut engine, std::slice::from_ref(&error));
    assert_eq!(engine.flows(), 0);
    show(&mut engine, &[datagram, error]);
    engine.finish();
    assert_eq!((engine.flows_made().0, engine.detection.ended), (1, 1));
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
