//! Memory stays bounded whatever comes: sessions that nobody answers, fragments without an end, segments before a gap.
//!
//! One test: what the process holds is measured, and others beside it would be measured with it.

use nf_ids::detect::{Alert, Detector, Sink, Tables, Watch};
use nf_ids::engine::{Engine, Inspection, Mode, Settings};
use nf_ids::rules::{Context, RuleSet};
use onvm_lib::wire::LinkType;
use onvm_lib::wire::build::Packet;
use onvm_lib::wire::tcp::Flags;
use std::sync::Arc;

#[derive(Debug)]
struct Nobody;

impl Sink for Nobody {
    fn alert(&mut self, _: &Alert, _: &Inspection<'_>) {}
}

type Ids = Engine<Watch<Nobody>>;

fn engine(settings: Settings) -> Ids {
    let mut set = RuleSet::new(Context::default());
    set.add_text("alert tcp any any -> any any (content:\"never seen\"; sid:1;)\n");
    let tables = Arc::new(Tables::new(set.rules).0);
    Engine::new(settings, Watch::new(Detector::new(tables), Nobody))
}

/// Megabytes that this process holds.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096 / 1_000_000
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap()
}

fn segment(client: usize, flags: u16, seq: u32, payload: &[u8]) -> Vec<u8> {
    let source = (0x0a00_0000 + number(client)).to_be_bytes();
    let packet = Packet::raw().ipv4(source.into(), [192, 0, 2, 1].into()).tcp(1000, 80);
    packet.seq(seq).ack(1).flags(Flags(flags)).payload(payload).to_vec().unwrap()
}

/// An answer that says only that bytes up to `ack` have come.
fn answer(client: usize, ack: u32) -> Vec<u8> {
    let destination = (0x0a00_0000 + number(client)).to_be_bytes();
    let packet = Packet::raw().ipv4([192, 0, 2, 1].into(), destination.into()).tcp(80, 1000);
    packet.seq(1).ack(ack).flags(Flags(0x10)).to_vec().unwrap()
}

/// Requests that the server does not answer: all of them are acknowledged, so that little waits in streams; what they asked
/// is kept.
fn unanswered_requests(client: usize) -> impl Iterator<Item = Vec<u8>> {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let said = (0..16).flat_map(move |n| {
        let at = 1 + n * number(request.len());
        [segment(client, 0x18, at, request), answer(client, at + number(request.len()))]
    });
    [segment(client, 0x10, 1, b""), answer(client, 1)].into_iter().chain(said)
}

/// A fragment in the middle of a datagram of its own.
fn fragment(id: usize) -> Vec<u8> {
    let source = (0x0a00_0000 + number(id >> 16)).to_be_bytes();
    let packet = Packet::raw().ipv4(source.into(), [192, 0, 2, 1].into()).udp(1, 2);
    let mut made = packet.payload(&[b'x'; 1400]).to_vec().unwrap();
    made[4..6].copy_from_slice(&number(id & 0xffff).to_be_bytes()[2..]);
    made[6..8].copy_from_slice(&[0x20, 0x10]);
    made
}

/// Gives an engine packets, a microsecond apart; says by how many megabytes the process has grown.
fn flood(ids: &mut Ids, packets: impl Iterator<Item = Vec<u8>>) -> usize {
    let before = resident();
    let mut most = before;
    for (at, packet) in packets.enumerate() {
        ids.frame(&packet, LinkType::RawIp, 1_000_000_000 + at as u64 * 1000);
        if at % 1024 == 0 {
            most = most.max(resident());
        }
    }
    most - before
}

/// Floods of as many as `most` sessions and `bytes` bytes hold, and more; says how the process has grown with each.
fn floods(most: usize, bytes: usize) -> [usize; 4] {
    let mut settings = Settings::of(Mode::Ids);
    settings.ignore_checksums = true;
    settings.bounds.flows = most;
    settings.bounds.stream_memory = bytes;
    settings.defrag.memory = bytes;
    settings.stream.midstream = true;

    let mut ids = engine(settings.clone());
    let half_open = flood(&mut ids, (0..most * 2).map(|n| segment(n, 2, 7, b"")));
    assert_eq!((ids.flows(), ids.stream_memory()), (most, 0));
    drop(ids);

    let mut ids = engine(settings.clone());
    let fragments = flood(&mut ids, (0..bytes / 500).map(fragment));
    assert!(ids.fragments().evicted > 0 && ids.fragments().reassembled == 0);
    drop(ids);

    // What stands before the gap never comes; and each is of another of a few thousand sessions.
    let sessions = most.min(5000);
    let mut ids = engine(settings.clone());
    let unanswered = flood(&mut ids, (0..bytes / 4000).flat_map(unanswered_requests));
    assert!(ids.stream_memory() <= bytes, "{} bytes", ids.stream_memory());
    assert!(ids.stream_memory() > bytes / 2, "{} bytes", ids.stream_memory());
    assert!(ids.counts.blinded > 100, "{:?}", ids.counts);
    ids.finish();
    assert_eq!((ids.flows(), ids.stream_memory()), (0, 0));
    drop(ids);

    let mut ids = engine(settings);
    let place = |n: usize| number(n / sessions) * 2000;
    let ahead = (0..bytes / 500).map(|n| {
        if n < sessions {
            segment(n, 0x10, 1, b"")
        } else {
            segment(n % sessions, 0x18, place(n) + 1000, &[b'y'; 1400])
        }
    });
    let ahead = flood(&mut ids, ahead);
    assert!(ids.stream_memory() <= bytes + (1 << 20), "{} bytes", ids.stream_memory());
    assert!(ids.stream_memory() > bytes / 2, "{} bytes", ids.stream_memory());
    ids.finish();
    assert_eq!((ids.flows(), ids.stream_memory()), (0, 0));
    [half_open, fragments, unanswered, ahead]
}

#[test]
fn floods_end_at_their_bounds() {
    let [half_open, fragments, unanswered, ahead] = floods(20_000, 16 << 20);
    println!("half-open {half_open} MB, fragments {fragments} MB");
    println!("requests {unanswered} MB, segments ahead {ahead} MB");
    assert!(half_open < 60, "20,000 sessions take {half_open} MB");
    assert!(fragments < 60, "16 MiB of fragments take {fragments} MB");
    assert!(unanswered < 80, "16 MiB of requests take {unanswered} MB");
    assert!(ahead < 80, "16 MiB of segments take {ahead} MB");
}
