use onvm_lib::wire::build::Packet;
use onvm_lib::wire::{self, MacAddr};

use super::*;
use crate::decode::{self, Begin, decode};

const SECOND: u64 = 1_000_000_000;

/// A fragment of a datagram of bytes, at `offset`.
fn fragment(v6: bool, offset: u32, more: bool, data: &[u8]) -> Vec<u8> {
    let place = wire::Fragment { id: 7, offset, more };
    let base = Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6]));
    let packet = if v6 {
        base.ipv6(1.into(), 2.into())
    } else {
        base.ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
    };
    packet.fragment(place).protocol(253).payload(data).to_vec().unwrap()
}

/// Shows a fragment to the defragmenter: the datagram's payload if it is complete, and the names of events.
fn show(into: &mut Defragmenter, frame: &[u8], now_ns: u64) -> (Option<Vec<u8>>, Vec<&'static str>) {
    let settings = decode::Settings::default();
    let (mut packet, _) = decode(&settings, &frame[14..], Begin::Ip, 0);
    assert!(packet.fragment.is_some());
    let mut whole = Vec::new();
    let complete = into.fragment(&mut packet, now_ns, &mut whole);
    let payload = complete.then(|| {
        let (packet, _) = decode(&settings, &whole, Begin::Ip, 0);
        assert!(packet.fragment.is_none() && !packet.invalid);
        assert_eq!(packet.protocol, Some(253));
        packet.ip_payload.to_vec()
    });
    (payload, packet.events.iter().map(Event::name).filter(|name| name.contains("frag")).collect())
}

#[test]
fn fragments_come_in_any_order() {
    for v6 in [false, true] {
        let mut table = Defragmenter::new(Settings::default());
        let parts = [(16, false, &b"end"[..]), (0, true, b"beginnin"), (8, true, b"g, then ")];
        let mut last = None;
        for (offset, more, data) in parts {
            let (whole, events) = show(&mut table, &fragment(v6, offset, more, data), SECOND);
            assert_eq!(events, [""; 0]);
            last = whole;
        }
        assert_eq!(last.as_deref(), Some(&b"beginning, then end"[..]));
        assert_eq!((table.waiting(), table.counts.reassembled), (0, 1));
    }
}

#[test]
fn overlaps_are_told_and_settled() {
    let parts: [(u32, bool, &[u8]); 3] =
        [(8, true, b"bbbbbbbb"), (0, true, b"aaaaaaaaAAAAAAAA"), (16, false, b"c")];
    for (policy, expected) in [
        (Policy::Bsd, b"aaaaaaaaAAAAAAAAc"),
        (Policy::Linux, b"aaaaaaaaAAAAAAAAc"),
        (Policy::First, b"aaaaaaaabbbbbbbbc"),
        (Policy::Windows, b"aaaaaaaabbbbbbbbc"),
    ] {
        for v6 in [false, true] {
            let mut table = Defragmenter::new(Settings { policy, ..Settings::default() });
            let shown =
                parts.map(|(offset, more, data)| show(&mut table, &fragment(v6, offset, more, data), 0));
            let name = if v6 { "ipv6.frag_overlap" } else { "ipv4.frag_overlap" };
            assert_eq!(shown[1].1, [name]);
            assert_eq!(shown[2].0.as_deref(), Some(&expected[..]), "{policy:?}");
        }
    }
}

#[test]
fn of_two_fragments_at_one_place_linux_takes_the_later() {
    for (policy, expected) in
        [(Policy::Linux, b"bbbbbbbbc"), (Policy::Bsd, b"aaaaaaaac"), (Policy::Solaris, b"aaaaaaaac")]
    {
        let mut table = Defragmenter::new(Settings { policy, ..Settings::default() });
        show(&mut table, &fragment(false, 0, true, b"aaaaaaaa"), 0);
        show(&mut table, &fragment(false, 0, true, b"bbbbbbbb"), 0);
        let (whole, _) = show(&mut table, &fragment(false, 8, false, b"c"), 0);
        assert_eq!(whole.as_deref(), Some(&expected[..]), "{policy:?}");
    }
}

#[test]
fn a_datagram_is_waited_for_as_long_as_fragments_of_it_come() {
    let mut table = Defragmenter::new(Settings::default());
    show(&mut table, &fragment(false, 0, true, &[1; 8]), 0);
    show(&mut table, &fragment(false, 8, true, &[1; 8]), 50 * SECOND);
    // Another, so that the order of silence is looked at.
    show(&mut table, &fragment(true, 0, true, &[1; 8]), 100 * SECOND);
    let (whole, _) = show(&mut table, &fragment(false, 16, false, &[1; 8]), 105 * SECOND);
    assert_eq!((whole.map(|whole| whole.len()), table.counts.timed_out), (Some(24), 0));
    show(&mut table, &fragment(false, 0, true, &[1; 8]), 161 * SECOND);
    assert_eq!((table.waiting(), table.counts.timed_out), (1, 1));
}

#[test]
fn what_does_not_fit_is_told_and_nothing_waits_for_ever() {
    let mut table = Defragmenter::new(Settings { most: 2, ..Settings::default() });
    let (_, events) = show(&mut table, &fragment(false, 65_528, false, &[1; 16]), 0);
    assert_eq!(events, ["ipv4.frag_pkt_too_large"]);
    show(&mut table, &fragment(false, 0, true, &[1; 8]), 0);
    assert_eq!(table.waiting(), 1);
    show(&mut table, &fragment(true, 0, true, &[1; 8]), 61 * SECOND);
    assert_eq!((table.waiting(), table.counts.timed_out), (1, 1));
    for source in 0..10 {
        let mut frame = fragment(false, 0, true, &[1; 8]);
        frame[14 + 15] = source;
        show(&mut table, &frame, 61 * SECOND);
    }
    assert_eq!((table.waiting(), table.counts.evicted), (2, 9));
    // With its header of 20 bytes it would be longer than IPv4 can say.
    let (_, events) = show(&mut table, &fragment(false, 65_520, false, &[1; 8]), 0);
    assert_eq!(events, ["ipv4.frag_pkt_too_large"]);
}

/// A fragment of a datagram that `number` tells from others.
fn numbered(number: u32, offset: u32, more: bool, data: &[u8]) -> Vec<u8> {
    let mut frame = fragment(false, offset, more, data);
    frame[14 + 12..14 + 16].copy_from_slice(&number.to_be_bytes());
    frame
}

#[test]
fn datagrams_that_never_become_whole_end_at_the_memory_for_them() {
    let memory = 1 << 20;
    let mut table = Defragmenter::new(Settings { memory, ..Settings::default() });
    for number in 0..20_000 {
        show(&mut table, &numbered(number, 0, true, &[1; 8]), SECOND);
        if number % 100 == 0 {
            let held: usize = table.datagrams.values().map(Datagram::memory).sum();
            assert_eq!(table.memory, held, "after {number}");
            assert!(held <= memory, "{held} bytes after {number}");
        }
    }
    assert!(table.counts.evicted > 10_000, "{:?}", table.counts);
    show(&mut table, &numbered(0, 0, true, &[1; 8]), 100 * SECOND);
    assert_eq!((table.waiting(), table.memory), (1, table.datagrams.values().map(Datagram::memory).sum()));
}

#[test]
fn whole_datagrams_leave_nothing_behind_one_that_waits() {
    let mut table = Defragmenter::new(Settings::default());
    show(&mut table, &numbered(0, 0, true, &[1; 8]), SECOND);
    for number in 1..5000 {
        show(&mut table, &numbered(number, 0, true, &[1; 8]), SECOND);
        show(&mut table, &numbered(number, 8, false, &[1; 8]), SECOND);
        assert!(table.order.len() <= 2 * table.waiting() + MOST_STALE, "{} entries", table.order.len());
    }
    assert_eq!((table.waiting(), table.counts.reassembled), (1, 4999));
}
