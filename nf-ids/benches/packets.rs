//! What the IDS needs for a packet: without rules, with 1,000 rules for raw content, with all of a real rule set.
//! `cargo bench -p nf-ids`; only measurements whose name has a word in it: `cargo bench -p nf-ids --bench packets -- raw`.
//!
//! The packets are those of real captures, in memory, one after the other and again and again; each round has other
//! addresses, so that flows are new. Captures and rules are looked for where the tests look for them; without them a
//! small capture of our own is used, and only the engine is measured.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use nf_ids::detect::{Alert, Detector, Sink, Tables, Watch};
use nf_ids::engine::{Detection, Engine, Inspection, Judgement, Mode, Settings};
use nf_ids::rules::{Context, RuleSet};
use onvm_lib::capture::{LinkType, Reader};

/// Bytes of captures that are kept in memory.
const MOST_BYTES: usize = 64 << 20;
/// Seconds of each measurement.
const SECONDS: f64 = 2.0;

/// Asks nothing.
#[derive(Debug, Default)]
struct Nothing;

impl Detection for Nothing {
    type FlowState = ();

    fn wants_raw(&self) -> bool {
        false
    }

    fn inspect(&mut self, seen: &Inspection<'_>, _: Option<&mut ()>) -> Judgement {
        black_box(seen.packet.payload.len());
        Judgement::default()
    }
}

/// Counts alerts.
#[derive(Debug, Default)]
struct Count(u64);

impl Sink for Count {
    fn alert(&mut self, alert: &Alert, _: &Inspection<'_>) {
        self.0 += u64::from(black_box(alert.rule.sid) > 0);
    }
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// Seconds that this thread has had of a processor: what else runs on the machine does not count. The wall clock's where
/// the kernel does not tell.
fn spent_s(wall: Instant) -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let own = text.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok());
    own.map_or_else(|| wall.elapsed().as_secs_f64(), |ns| ns / 1e9)
}

/// Reads and compiles a rule file, and says what that took.
fn compiled(path: &Path) -> Option<Arc<Tables>> {
    let (wall, before) = (Instant::now(), resident());
    let start = spent_s(wall);
    let mut set = RuleSet::new(Context::default());
    set.add_file(path).ok()?;
    let refused = set.refusals.len();
    let (tables, more) = Tables::new(set.rules);
    println!(
        "{}: {} rules, {} refused, loaded in {:.2} s, {} MB",
        path.file_name().unwrap_or_default().to_string_lossy(),
        tables.size().rules,
        refused + more.len(),
        spent_s(wall) - start,
        resident().saturating_sub(before) / 1_000_000
    );
    Some(Arc::new(tables))
}

fn data() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("ONVM_TEST_DATA").map_or(beside, PathBuf::from);
    folder.is_dir().then_some(folder)
}

fn files(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = entries
        .flat_map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { vec![entry.path()] })
        .collect();
    all.sort();
    all
}

/// Frames and their times, from all captures.
fn mix() -> Vec<(Vec<u8>, u64)> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/sample.pcap");
    let paths = match data() {
        Some(folder) => {
            let mut all = files(&folder.join("pcaps"));
            all.extend(files(&folder.join("ids")).into_iter().filter(|path| path.ends_with("input.pcap")));
            all
        }
        None => vec![own],
    };
    let (mut frames, mut bytes) = (Vec::new(), 0);
    for path in paths {
        let Ok(mut reader) = Reader::open(&path) else { continue };
        while let Ok(Some(frame)) = reader.next_frame() {
            if frame.link_type != LinkType::Ethernet || bytes > MOST_BYTES {
                break;
            }
            bytes += frame.data.len();
            frames.push((frame.data.to_vec(), frame.timestamp_ns));
        }
    }
    frames
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
        let begun = spent_s(start);
        for (frame, time_ns) in frames {
            black_box(engine.packet(frame, *time_ns));
            bytes += frame.len() as u64;
        }
        engine.finish();
        spent += spent_s(start) - begun;
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
    let frames = mix();
    let bytes: usize = frames.iter().map(|(frame, _)| frame.len()).sum();
    println!("{} packets, {} bytes each on average", frames.len(), bytes / frames.len().max(1));
    for (mode, name) in [(Mode::Ids, "looking on"), (Mode::Inline, "in line")] {
        measure(&format!("no rules, {name}"), mode, &frames, || Nothing);
    }
    let Some(folder) = data().map(|folder| folder.join("ids")) else {
        println!("no rule sets are here: set ONVM_TEST_DATA");
        return;
    };
    for (file, name) in [
        ("etopen_1000_raw.rules.gz", "1,000 raw"),
        ("etopen_1000.rules.gz", "1,000 mixed"),
        ("etopen_2019_active.rules.gz", "all"),
    ] {
        let Some(tables) = compiled(&folder.join(file)) else { continue };
        for (mode, how) in [(Mode::Ids, "looking on"), (Mode::Inline, "in line")] {
            let watch = || Watch::new(Detector::new(tables.clone()), Count::default());
            measure(&format!("{name} rules, {how}"), mode, &frames, watch);
        }
    }
}
