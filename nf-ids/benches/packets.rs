//! What the IDS needs for a packet: without rules, with 1,000 rules for raw content, with all of a real rule set.
//! `cargo bench -p nf-ids`; only measurements whose name has a word in it: `cargo bench -p nf-ids --bench packets -- raw`.
//!
//! The packets are those of real captures, in memory, one after the other and again and again; each round has other
//! addresses, so that flows are new. Captures and rules are looked for where the tests look for them; without them a
//! small capture of our own is used, and only the engine is measured.

#[path = "../../bench/src/rows/ids/mix.rs"]
mod mix;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use mix::{Compiled, Deaf, Nothing, processor_time};
use nf_ids::detect::{Detector, Tables, Watch};
use nf_ids::engine::{Detection, Engine, Mode, Settings};

/// Seconds of each measurement.
const SECONDS: f64 = 2.0;

/// Reads and compiles a rule file, and says what that took.
fn compiled(file: &str) -> Option<Arc<Tables>> {
    let Compiled { tables, refused, seconds, megabytes } =
        Compiled::read(file).inspect_err(|error| println!("{error}")).ok()?;
    let rules = tables.size().rules;
    println!("{file}: {rules} rules, {refused} refused, loaded in {seconds:.2} s, {megabytes:.0} MB");
    Some(tables)
}

/// Runs the mix through an engine, and prints the rates.
fn measure<D: Detection>(name: &str, mode: Mode, frames: &[(Vec<u8>, u64)], detection: impl Fn() -> D) {
    if let Some(word) = std::env::args().skip(1).find(|word| !word.starts_with('-'))
        && !name.contains(&word)
    {
        return;
    }
    let (mut packets, mut bytes) = (0u64, 0u64);
    let mut settings = Settings::of(mode);
    settings.ignore_checksums = true;
    let start = Instant::now();
    let mut spent = 0.0;
    while spent < SECONDS {
        let mut engine = Engine::new(settings.clone(), detection());
        let begun = processor_time();
        for (frame, time_ns) in frames {
            black_box(engine.packet(frame, *time_ns));
            bytes += frame.len() as u64;
        }
        engine.finish();
        spent += (processor_time() - begun).as_secs_f64();
        packets += frames.len() as u64;
        if start.elapsed().as_secs_f64() > SECONDS * 10.0 {
            break;
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "exact at this size")]
    let (packets, bytes) = (packets as f64, bytes as f64);
    println!(
        "{name:32} {:8.3} Mpps {:8.2} Gbps {:8.0} ns a packet",
        packets / spent / 1e6,
        bytes * 8.0 / spent / 1e9,
        spent * 1e9 / packets
    );
}

fn main() {
    let frames = mix::frames().unwrap_or_else(|error| panic!("{error}"));
    let bytes: usize = frames.iter().map(|(frame, _)| frame.len()).sum();
    println!("{} packets, {} bytes each on average", frames.len(), bytes / frames.len().max(1));
    for (mode, name) in [(Mode::Ids, "looking on"), (Mode::Inline, "in line")] {
        measure(&format!("no rules, {name}"), mode, &frames, || Nothing);
    }
    for (file, name) in [
        ("etopen_1000_raw.rules.gz", "1,000 raw"),
        ("etopen_1000.rules.gz", "1,000 mixed"),
        ("etopen_2019_active.rules.gz", "all"),
    ] {
        let Some(tables) = compiled(file) else { continue };
        for (mode, how) in [(Mode::Ids, "looking on"), (Mode::Inline, "in line")] {
            let watch = || Watch::new(Detector::new(tables.clone()), Deaf);
            measure(&format!("{name} rules, {how}"), mode, &frames, watch);
        }
    }
}
