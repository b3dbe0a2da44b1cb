use super::*;
use onvm_lib::wire::build::Packet;
use onvm_lib::wire::tcp::Flags;
use onvm_lib::wire::tcp_option::TcpOption;
use onvm_lib::wire::{MacAddr, describe};

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_700_000_000 * SECOND;

fn connections(most: usize, pick_up: bool) -> Connections {
    Connections::new(most, pick_up, Timeouts::new(432_000))
}

/// A packet from host 1 to 2 or back.
fn side<'a>(reply: bool) -> Packet<'a> {
    let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let (source, destination) = if reply { (b, a) } else { (a, b) };
    Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6])).ipv4(source.into(), destination.into())
}

fn tcp<'a>(reply: bool, flags: u16, seq: u32, ack: u32) -> Packet<'a> {
    let (sport, dport) = if reply { (80, 1000) } else { (1000, 80) };
    side(reply).tcp(sport, dport).flags(Flags(flags)).seq(seq).ack(ack).window(1000)
}

fn looked(connections: &mut Connections, packet: &Packet<'_>, now_ns: u64) -> Looked {
    let frame = packet.to_vec().unwrap();
    let seen = crate::packet::Seen::of(&frame, 0, false);
    assert_eq!(seen.kind, crate::packet::Kind::Ip, "{}", describe(&frame));
    let key = Key::of(&seen.facts.header, &seen.headers, &frame);
    connections.fetch(&[key]);
    connections.look(0, key, &seen.facts.header, &seen.headers, &frame, now_ns)
}

/// Shows a packet and allows it unless it is invalid; its state.
fn show(connections: &mut Connections, packet: Packet<'_>, now_ns: u64) -> State {
    let looked = looked(connections, &packet, now_ns);
    if looked.state != State::Invalid {
        assert!(connections.allowed(looked.ticket, None, now_ns));
    }
    looked.state
}

fn phases(connections: &Connections) -> Vec<&'static str> {
    connections.table.iter().filter_map(|(_, c)| c.tcp.map(|tcp| census::phase_name(tcp.phase))).collect()
}

const SYN: u16 = 0x02;
const SYN_ACK: u16 = 0x12;
const ACK: u16 = 0x10;
const FIN_ACK: u16 = 0x11;
const RST: u16 = 0x04;
const RST_ACK: u16 = 0x14;

/// Opens a connection: numbers 101 and 501 are next.
fn open(c: &mut Connections) {
    assert_eq!(show(c, tcp(false, SYN, 100, 0), START), State::New);
    assert_eq!(show(c, tcp(true, SYN_ACK, 500, 101), START), State::Established);
    assert_eq!(show(c, tcp(false, ACK, 101, 501), START), State::Established);
    assert_eq!(phases(c), ["established"]);
}

#[test]
fn a_connection_opens_talks_and_closes() {
    let mut c = connections(16, false);
    open(&mut c);
    assert_eq!(show(&mut c, tcp(false, ACK, 101, 501).payload(&[1; 200]), START), State::Established);
    assert_eq!(show(&mut c, tcp(true, ACK, 501, 301).payload(&[1; 900]), START), State::Established);
    assert_eq!(show(&mut c, tcp(false, FIN_ACK, 301, 1401), START), State::Established);
    assert_eq!(phases(&c), ["fin-wait"]);
    assert_eq!(show(&mut c, tcp(true, ACK, 1401, 302), START), State::Established);
    assert_eq!(phases(&c), ["close-wait"]);
    assert_eq!(show(&mut c, tcp(true, FIN_ACK, 1401, 302), START), State::Established);
    assert_eq!(phases(&c), ["last-ack"]);
    assert_eq!(show(&mut c, tcp(false, ACK, 302, 1402), START), State::Established);
    assert_eq!(phases(&c), ["time-wait"]);
    // Between the same ports again: another connection.
    assert_eq!(show(&mut c, tcp(false, SYN, 90_000, 0), START + SECOND), State::New);
    assert_eq!((phases(&c), c.counts.begun), (vec!["syn-sent"], 2));
}

#[test]
fn what_does_not_fit_is_invalid_and_changes_nothing() {
    let mut c = connections(16, false);
    assert_eq!(show(&mut c, tcp(true, SYN_ACK, 500, 101), START), State::Invalid, "an answer to nothing");
    assert_eq!(show(&mut c, tcp(false, ACK, 101, 501), START), State::Invalid, "no pick-up");
    open(&mut c);
    for (what, packet) in [
        ("beyond the window", tcp(false, ACK, 101 + 2500, 501).payload(&[1; 10])),
        ("an acknowledgment without data beyond it", tcp(false, ACK, 101 + 2500, 501)),
        ("acknowledges what was never sent", tcp(false, ACK, 101, 900)),
        ("a reset out of the window", tcp(true, RST, 501 + 5000, 0)),
        ("a reset from before what is acknowledged", tcp(true, RST, 400, 0)),
        ("flags of a port scan", tcp(false, 0x29, 101, 501)),
        ("no flags", tcp(false, 0, 101, 501)),
        ("a SYN of the server", tcp(true, SYN, 501, 0)),
    ] {
        assert_eq!(show(&mut c, packet, START), State::Invalid, "{what}");
        assert_eq!(phases(&c), ["established"], "{what}");
    }
    assert_eq!(show(&mut c, tcp(false, ACK, 101, 501).payload(&[1; 1000]), START), State::Established);
    assert_eq!(show(&mut c, tcp(true, RST_ACK, 501, 1101), START), State::Established);
    assert_eq!((phases(&c), c.counts.invalid), (vec!["closed"], 10));
}

#[test]
fn what_is_late_goes_through_and_changes_nothing() {
    let mut c = connections(16, false);
    open(&mut c);
    for (what, packet) in [
        ("long past", tcp(false, ACK, 101u32.wrapping_sub(5000), 501).payload(&[1; 10])),
        ("a very old acknowledgment", tcp(false, ACK, 101, 501u32.wrapping_sub(70_000))),
        ("a little beyond the window", tcp(true, ACK, 501 + 1200, 101).payload(&[1; 10])),
        ("a reset within the window, but not the next number", tcp(false, RST, 101 + 500, 0)),
    ] {
        assert_eq!(show(&mut c, packet, START), State::Established, "{what}");
        assert_eq!(phases(&c), ["established"], "{what}");
    }
    // What went beyond the window may be acknowledged.
    assert_eq!(show(&mut c, tcp(false, ACK, 101, 1711), START), State::Established);
    assert_eq!(show(&mut c, tcp(false, ACK, 101, 1712), START), State::Invalid);
}

#[test]
fn sequence_numbers_wrap_and_windows_scale() {
    let mut c = connections(16, false);
    let options = [TcpOption::WindowScale(4), TcpOption::SackPermitted];
    let near = u32::MAX - 50;
    show(&mut c, tcp(false, SYN, near, 0).tcp_options(&options), START);
    show(&mut c, tcp(true, SYN_ACK, near, near + 1).tcp_options(&options), START);
    show(&mut c, tcp(false, ACK, near + 1, near + 1), START);
    // 16 × 1,000 bytes may be sent, in pieces of 1,400, over the end of the numbers.
    let mut seq = near + 1;
    for _ in 0..11 {
        let data = tcp(true, ACK, seq, near + 1).payload(&[0; 1400]);
        assert_eq!(show(&mut c, data, START), State::Established);
        seq = seq.wrapping_add(1400);
    }
    let beyond = tcp(true, ACK, seq.wrapping_add(20_000), near + 1).payload(&[0; 10]);
    assert_eq!(show(&mut c, beyond, START), State::Invalid);
    // The first piece is missing; what came after it is told by SACK. Then it moves on.
    let got = near.wrapping_add(1401);
    let blocks = [got.to_be_bytes(), seq.to_be_bytes()].concat();
    let sack = [TcpOption::Other { kind: 5, data: &blocks }];
    assert_eq!(
        show(&mut c, tcp(false, ACK, near + 1, near + 1).tcp_options(&sack), START),
        State::Established
    );
    assert_eq!(
        show(&mut c, tcp(true, ACK, near + 1, near + 1).payload(&[0; 1400]), START),
        State::Established
    );
    assert_eq!(show(&mut c, tcp(false, ACK, near + 1, seq), START), State::Established);
    assert_eq!(show(&mut c, tcp(false, ACK, near + 1, seq.wrapping_add(1)), START), State::Invalid);
}

#[test]
fn without_scaling_on_both_sides_nothing_is_scaled() {
    let mut c = connections(16, false);
    show(&mut c, tcp(false, SYN, 100, 0).tcp_options(&[TcpOption::WindowScale(7)]), START);
    show(&mut c, tcp(true, SYN_ACK, 500, 101), START);
    show(&mut c, tcp(false, ACK, 101, 501), START);
    assert_eq!(show(&mut c, tcp(true, ACK, 501 + 2500, 101).payload(&[0; 9]), START), State::Invalid);
}

#[test]
fn a_running_connection_is_picked_up_when_asked() {
    let mut c = connections(16, true);
    assert_eq!(show(&mut c, tcp(true, ACK, 5000, 9000).payload(&[0; 100]), START), State::New);
    assert_eq!(show(&mut c, tcp(false, ACK, 9000, 5100), START), State::Established);
    // Its window scale is not known: nothing is out of the window.
    assert_eq!(show(&mut c, tcp(true, ACK, 65_000, 9000).payload(&[0; 100]), START), State::Established);
    assert_eq!(show(&mut c, tcp(false, FIN_ACK, 9000, 5100), START), State::Established);
}

#[test]
fn a_firewall_out_of_step_is_set_right_by_the_answer() {
    let mut c = connections(16, false);
    open(&mut c);
    // The client has crashed, and begins anew with the same port; we believe in the old connection.
    assert_eq!(show(&mut c, tcp(false, SYN, 77_000, 0), START), State::Established);
    assert_eq!(phases(&c), ["established"]);
    // The server has no such connection either, and answers.
    assert_eq!(show(&mut c, tcp(true, SYN_ACK, 33_000, 77_001), START), State::Established);
    assert_eq!(show(&mut c, tcp(false, ACK, 77_001, 33_001).payload(&[0; 10]), START), State::Established);
    assert_eq!(phases(&c), ["established"]);
    // Or the server still has the old one: it acknowledges that, and the client resets it.
    let mut c = connections(16, false);
    open(&mut c);
    show(&mut c, tcp(false, SYN, 77_000, 0), START);
    assert_eq!(show(&mut c, tcp(true, ACK, 501, 101), START), State::Established);
    assert_eq!(show(&mut c, tcp(false, RST, 101, 0), START), State::Established);
    assert_eq!(phases(&c), ["closed"]);
}

#[test]
fn simultaneous_opens_and_refused_ones() {
    let mut c = connections(16, false);
    show(&mut c, tcp(false, SYN, 100, 0), START);
    assert_eq!(show(&mut c, tcp(true, SYN, 500, 0), START), State::Established);
    assert_eq!(show(&mut c, tcp(false, SYN_ACK, 100, 501), START), State::Established);
    assert_eq!(show(&mut c, tcp(true, SYN_ACK, 500, 101), START), State::Established);
    assert_eq!(show(&mut c, tcp(false, ACK, 101, 501), START), State::Established);
    assert_eq!(phases(&c), ["established"]);
    let mut c = connections(16, false);
    show(&mut c, tcp(false, SYN, 100, 0), START);
    assert_eq!(show(&mut c, tcp(true, RST_ACK, 0, 101), START), State::Established);
    assert_eq!(c.len(), 0, "it was none");
    assert_eq!(show(&mut c, tcp(false, SYN, 200, 0), START), State::New, "the port is tried again");
    // Who began gives up before any answer.
    assert_eq!(show(&mut c, tcp(false, RST, 201, 0), START), State::New);
    assert_eq!(c.len(), 0);
}

#[test]
fn connections_end_when_nothing_comes() {
    let mut c = connections(16, false);
    open(&mut c);
    let days = 5 * 86_400 * SECOND;
    assert_eq!(show(&mut c, tcp(false, ACK, 101, 501), START + days - SECOND), State::Established);
    assert_eq!(show(&mut c, tcp(false, ACK, 101, 501), START + 2 * days), State::Invalid);
    c.sweep(START + 2 * days);
    assert_eq!((c.len(), c.counts.expired), (0, 1));
    let udp = |reply| if reply { side(true).udp(53, 999) } else { side(false).udp(999, 53) };
    assert_eq!(show(&mut c, udp(false), START), State::New);
    assert_eq!(show(&mut c, udp(false), START), State::New, "nobody has answered");
    assert_eq!(show(&mut c, udp(true), START), State::Established);
    assert_eq!(show(&mut c, udp(false), START + 29 * SECOND), State::Established);
    // By now it is a stream.
    assert_eq!(show(&mut c, udp(true), START + 140 * SECOND), State::Established);
    assert_eq!(show(&mut c, udp(true), START + 300 * SECOND), State::New);
}

#[test]
fn pings_and_errors_belong_to_what_they_are_about() {
    let mut c = connections(16, false);
    assert_eq!(show(&mut c, side(true).echo_reply(7, 1), START), State::Invalid);
    assert_eq!(show(&mut c, side(false).echo_request(7, 1), START), State::New);
    assert_eq!(show(&mut c, side(true).echo_reply(7, 1), START), State::Established);
    assert_eq!(show(&mut c, side(true).echo_reply(8, 1), START), State::Invalid);
    assert_eq!(show(&mut c, side(true).echo_request(7, 1), START), State::New, "a question of its own");
    assert_eq!(show(&mut c, side(false).icmp(40, 0, 0), START), State::Invalid);
    let question = side(false).udp(999, 53).payload(&[0; 30]);
    assert_eq!(show(&mut c, question, START), State::New);
    let quote = question.to_vec().unwrap()[14..42].to_vec();
    let router = Packet::ethernet(MacAddr([4; 6]), MacAddr([2; 6])).ipv4([9; 4].into(), [10, 0, 0, 1].into());
    assert_eq!(show(&mut c, router.icmp(3, 3, 0).payload(&quote), START), State::Related);
    let mut other = quote.clone();
    other[23] ^= 1;
    assert_eq!(show(&mut c, router.icmp(3, 3, 0).payload(&other), START), State::Invalid);
    assert_eq!((c.counts.related, c.counts.invalid), (1, 4));
    let six = Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6])).ipv6(1.into(), 2.into());
    assert_eq!(show(&mut c, six.icmp(135, 0, 0).payload(&[0; 16]), START), State::Untracked);
    assert_eq!(show(&mut c, six.echo_request(1, 1), START), State::New);
}

/// A SYN from the n-th of many addresses.
fn flood<'a>(n: u32) -> Packet<'a> {
    let from = std::net::Ipv4Addr::from_bits(0x2000_0000 + n);
    Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6]))
        .ipv4(from, [10, 0, 0, 2].into())
        .tcp(1000, 80)
        .flags(Flags::SYN)
        .seq(n)
}

#[test]
fn a_flood_of_syns_takes_no_established_connection() {
    const MOST: usize = 1024;
    let mut c = connections(MOST, false);
    open(&mut c);
    for n in 0..20_000 {
        assert_eq!(show(&mut c, flood(n), START + u64::from(n) * 1000), State::New);
    }
    assert!(c.len() <= MOST && c.counts.evicted >= 19_000 - 1024, "{:?}", c.counts);
    assert_eq!(c.counts.refused, 0);
    assert_eq!(show(&mut c, tcp(false, ACK, 101, 501).payload(&[0; 10]), START + SECOND), State::Established);
    assert!(phases(&c).contains(&"established"));
}

#[test]
fn a_table_of_established_connections_refuses() {
    let mut c = connections(1, false);
    open(&mut c);
    let looked = looked(&mut c, &flood(1), START);
    assert_eq!(looked.state, State::New);
    assert!(!c.allowed(looked.ticket, None, START));
    assert_eq!((c.counts.refused, c.len()), (1, 1));
}

#[test]
fn what_is_denied_leaves_nothing_behind() {
    let mut c = connections(16, false);
    assert_eq!(looked(&mut c, &tcp(false, SYN, 100, 0), START).state, State::New);
    assert_eq!(c.len(), 0);
}

#[test]
fn marks_stay_with_the_connection() {
    let mut c = connections(16, false);
    let first = looked(&mut c, &tcp(false, SYN, 100, 0), START);
    assert!(c.allowed(first.ticket, Some(7), START));
    assert_eq!(looked(&mut c, &tcp(true, SYN_ACK, 500, 101), START).mark, 7);
}

#[test]
fn a_successor_goes_on_with_the_connections() {
    let mut c = connections(64, false);
    open(&mut c);
    for n in 0..30 {
        assert_eq!(show(&mut c, flood(n), START), State::New);
    }
    let saved: Saved = postcard::from_bytes(&postcard::to_allocvec(&Saved::of(&c)).unwrap()).unwrap();
    let mut next = connections(64, false);
    saved.clone().restore(&mut next).unwrap();
    assert_eq!((next.len(), next.counts), (c.len(), c.counts));
    assert_eq!(
        show(&mut next, tcp(false, ACK, 101, 501).payload(&[0; 10]), START + SECOND),
        State::Established
    );
    assert!(saved.clone().restore(&mut next).unwrap_err().contains("here already"));
    let mut small = connections(4, false);
    saved.restore(&mut small).unwrap();
    assert_eq!(small.len(), 4);
}

#[test]
fn an_entry_is_small_enough_for_a_million() {
    // 89 bytes a flow are the table's own.
    assert!(size_of::<Connection>() + 89 < 190, "{}", size_of::<Connection>());
}

#[test]
fn rounds_of_the_search_count_connections_by_what_they_are() {
    let mut connections = connections(100_000, true);
    let server = [192, 0, 2, 1].into();
    let base = || Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6]));
    for n in 0..1500u32 {
        let client = (0x0a00_0000 + n).into();
        let packet = base().ipv4(client, server);
        if n % 3 == 0 {
            show(&mut connections, packet.udp(1000, 53), START);
        } else {
            show(&mut connections, packet.tcp(1000, 80).flags(Flags(SYN)), START);
        }
    }
    let exact = connections.by_state(true);
    let expected = [("tcp syn-sent".to_string(), 1000), ("udp one way".to_string(), 500)];
    assert_eq!(exact, expected.into());
    assert_eq!(connections.by_state(false), exact, "before the first round all are looked at");
    connections.tick_live(START + 1);
    let mut steps = 0;
    while connections.to_look_at > 0 && steps < 20 {
        connections.step(START + 2);
        steps += 1;
    }
    assert_eq!(connections.by_state(false), exact);
    // A burst looks at few, and when all are over the next rounds say so.
    let over = START + 500_000_000_000;
    let before = connections.len();
    connections.tick_live(over);
    connections.step(over);
    assert!(before - connections.len() <= 2 * PART, "{before} {}", connections.len());
    for _ in 0..20 {
        connections.step(over);
    }
    assert_eq!((connections.len(), connections.by_state(true)), (0, BTreeMap::new()));
    connections.tick_live(over);
    assert_eq!(connections.by_state(false), BTreeMap::new());
}
