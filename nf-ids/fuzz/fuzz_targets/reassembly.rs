//! Segments and fragments of a few flows in any order, with all that rules can ask of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nf_ids::detect::{Alert, Detector, Sink, Tables, Watch};
use nf_ids::engine::{Engine, Inspection, Mode, Settings};
use nf_ids::rules::{Context, RuleSet};
use std::sync::{Arc, LazyLock};

#[derive(Debug)]
struct Nobody;

impl Sink for Nobody {
    fn alert(&mut self, _: &Alert, _: &Inspection<'_>) {}
}

static TABLES: LazyLock<Arc<Tables>> = LazyLock::new(|| {
    let mut set = RuleSet::new(Context::default());
    set.add_text("alert tcp any any -> any any (content:\"ab\"; content:\"cd\"; distance:1; within:9; sid:1;)\nalert ip any any -> any any (pcre:\"/x+y/\"; sid:2;)\n");
    Arc::new(Tables::new(set.rules).0)
});

/// A segment: its way, sequence number, flags, time and payload. Bits of the way: of the server, of the second client, in two
/// fragments, these in the other order, and overlapping.
type Piece<'a> = (u8, u16, u8, u8, &'a [u8]);

fn frames((way, sequence, flags, _, payload): Piece<'_>) -> Vec<Vec<u8>> {
    use onvm_lib::wire::build::Packet;
    use onvm_lib::wire::tcp::Flags;
    let (client, server) = ([10, 0, 0, 1 + (way >> 1 & 1)], [10, 0, 0, 9]);
    let base = Packet::raw();
    let packet = if way & 1 == 0 {
        base.ipv4(client.into(), server.into()).tcp(1000, 80)
    } else {
        base.ipv4(server.into(), client.into()).tcp(80, 1000)
    };
    let packet = packet.seq(u32::from(sequence)).ack(1).flags(Flags(u16::from(flags)));
    let Ok(whole) = packet.payload(&payload[..payload.len().min(1400)]).to_vec() else { return Vec::new() };
    if way & 4 == 0 || whole.len() < 48 {
        return vec![whole];
    }
    let cut = (whole.len() - 20) / 16 * 8;
    let from = if way & 16 != 0 { cut - 8 } else { cut };
    let mut pieces = vec![fragment(&whole, 0, cut, true), fragment(&whole, from, whole.len() - 20, false)];
    if way & 8 != 0 {
        pieces.reverse();
    }
    pieces
}

/// Bytes `from..to` of what an IPv4 packet with a header of 20 bytes carries, as a packet of their own.
fn fragment(whole: &[u8], from: usize, to: usize, more: bool) -> Vec<u8> {
    let mut made = whole[..20].to_vec();
    made.extend_from_slice(&whole[20 + from..20 + to]);
    let length = u16::try_from(made.len()).unwrap_or(u16::MAX);
    let place = u16::try_from(from / 8).unwrap_or(0) | if more { 0x2000 } else { 0 };
    made[2..4].copy_from_slice(&length.to_be_bytes());
    made[6..8].copy_from_slice(&place.to_be_bytes());
    made
}

fuzz_target!(|input: (bool, Vec<Piece<'_>>)| {
    let mut settings = Settings::of(if input.0 { Mode::Inline } else { Mode::Ids });
    settings.ignore_checksums = true;
    settings.stream.midstream = true;
    settings.bounds.stream_memory = 1 << 20;
    settings.defrag.memory = 1 << 16;
    let mut engine = Engine::new(settings, Watch::new(Detector::new(Arc::clone(&TABLES)), Nobody));
    let mut now_ns = 1_000_000_000;
    for piece in input.1 {
        now_ns += u64::from(piece.3) * 100_000_000;
        for frame in frames(piece) {
            engine.frame(&frame, onvm_lib::wire::LinkType::RawIp, now_ns);
        }
        assert!(engine.stream_memory() <= 2 << 20);
    }
    engine.finish();
    assert_eq!((engine.flows(), engine.stream_memory()), (0, 0));
});
