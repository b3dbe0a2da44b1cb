//! What the IDS is measured with: the packets of real captures, real rule sets, and what asks for nothing and hears nothing.
//! The bench of `nf-ids` includes this room, too, so that both measure the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nf_ids::detect::{Alert, Sink, Tables};
use nf_ids::engine::{Detection, Inspection, Judgement};
use nf_ids::rules::{Context, RuleSet};
use onvm_lib::capture::{LinkType, Reader};
use rustix::time::{ClockId, clock_gettime};

/// Bytes of captures that are kept in memory.
const MOST_BYTES: usize = 64 << 20;

/// Asks nothing.
#[derive(Debug, Default)]
pub(crate) struct Nothing;

impl Detection for Nothing {
    type FlowState = ();

    fn wants_raw(&self) -> bool {
        false
    }

    fn inspect(&mut self, seen: &Inspection<'_>, _: Option<&mut ()>) -> Judgement {
        std::hint::black_box(seen.packet.payload.len());
        Judgement::default()
    }
}

/// Hears of alerts, and does nothing.
#[derive(Debug, Default)]
pub(crate) struct Deaf;

impl Sink for Deaf {
    fn alert(&mut self, alert: &Alert, _: &Inspection<'_>) {
        std::hint::black_box(alert.rule.sid);
    }
}

/// Packets and their times: of all captures of the data folder that are of Ethernet, in the order of their paths; without it,
/// of the small one of the tests.
///
/// # Errors
/// There are none.
pub(crate) fn frames() -> Result<Vec<(Vec<u8>, u64)>, String> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/sample.pcap");
    let mut paths = captures(&folder().join("pcaps"));
    paths.extend(captures(&folder().join("ids")));
    if paths.is_empty() {
        paths.push(own);
    }
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
    if frames.is_empty() { Err("no captures".into()) } else { Ok(frames) }
}

pub(crate) fn folder() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    std::env::var_os("ONVM_TEST_DATA").map_or_else(beside, PathBuf::from)
}

fn captures(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut all: Vec<PathBuf> =
        entries.flat_map(|path| if path.is_dir() { captures(&path) } else { vec![path] }).collect();
    all.retain(|path| path.extension().is_some_and(|end| end == "pcap" || end == "pcapng"));
    all.sort();
    all
}

/// What this thread has used.
pub(crate) fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Resident memory of this process, in megabytes.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(0.0) * 4096.0 / 1e6
}

/// Rules, compiled, and what that took in seconds and megabytes.
pub(crate) struct Compiled {
    pub(crate) tables: Arc<Tables>,
    /// Rules that cannot be used.
    #[allow(dead_code, reason = "only the bench of nf-ids tells it")]
    pub(crate) refused: usize,
    pub(crate) seconds: f64,
    pub(crate) megabytes: f64,
}

impl Compiled {
    /// Reads a rule set of the data folder.
    ///
    /// # Errors
    /// It is not there, or is none.
    pub(crate) fn read(file: &str) -> Result<Self, String> {
        let path = folder().join("ids").join(file);
        let (before, start) = (resident(), processor_time());
        let mut set = RuleSet::new(Context::default());
        set.add_file(&path)
            .map_err(|error| format!("{error}; set ONVM_TEST_DATA to the folder with rule sets"))?;
        let refused = set.refusals.len();
        let (tables, more) = Tables::new(set.rules);
        let (tables, refused) = (Arc::new(tables), refused + more.len());
        let seconds = (processor_time() - start).as_secs_f64();
        Ok(Self { tables, refused, seconds, megabytes: (resident() - before).max(0.0) })
    }
}
