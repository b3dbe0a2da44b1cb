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

/// A segment: which flow and side, sequence number, flags, time, payload; the last flag makes it two fragments.
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
    packet.payload(&payload[..payload.len().min(1400)]).to_vec().into_iter().collect()
}

fuzz_target!(|input: (bool, Vec<Piece<'_>>)| {
    let mut settings = Settings::of(if input.0 { Mode::Inline } else { Mode::Ids });
    settings.ignore_checksums = true;
    settings.stream.midstream = true;
    settings.bounds.stream_memory = 1 << 20;
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
