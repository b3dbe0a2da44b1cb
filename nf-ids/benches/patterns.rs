//! The prefilter against automata of `aho-corasick`: the contents of rules in payloads of captures, each in one pass.
//!
//! Prints nanoseconds a byte and the ratio to the prefilter's. Uses the rule set and captures of `ONVM_TEST_DATA` (or
//! `../shared/data`) and says so when they are not there.

use std::hint::black_box;
use std::path::{Path, PathBuf};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use nf_ids::detect::{Found, MatcherBuilder};
use nf_ids::rules::{Context, Place, RuleSet, Test};
use onvm_lib::capture::Reader;

/// The longest content of each rule, as the prefilter would take it.
fn patterns(rules: &Path) -> Vec<(Vec<u8>, bool)> {
    let mut set = RuleSet::new(Context::default());
    set.add_file(rules).unwrap();
    let longest = |rule: &nf_ids::rules::Rule| {
        let payload = rule.sections.iter().filter(|s| s.place == Place::Payload);
        let contents = payload.flat_map(|s| &s.tests).filter_map(|test| match test {
            Test::Content(content) if !content.negated => Some((content.pattern.clone(), content.nocase)),
            _ => None,
        });
        contents.max_by_key(|(bytes, _)| bytes.len())
    };
    set.rules.iter().filter_map(longest).collect()
}

/// What frames carry behind 54 bytes of headers.
fn payloads(folder: &Path) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let Ok(mut reader) = Reader::open(&path) else { continue };
            while let Ok(Some(frame)) = reader.next_frame() {
                all.extend(frame.data.get(54..).filter(|p| !p.is_empty()).map(<[u8]>::to_vec));
                if all.len() > 50_000 {
                    return all;
                }
            }
        }
    }
    all
}

/// Processor time of this thread, in seconds: other programs on the machine do not count.
fn thread_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Nanoseconds a byte of the fastest of some rounds.
fn measure(payloads: &[Vec<u8>], mut search: impl FnMut(&[u8]) -> usize) -> (f64, usize) {
    let bytes: usize = payloads.iter().map(Vec::len).sum();
    let (mut best, mut hits) = (f64::MAX, 0);
    for _ in 0..5 {
        let start = thread_time();
        hits = payloads.iter().map(|p| search(black_box(p))).sum();
        best = best.min((thread_time() - start) * 1e9 / bytes as f64);
    }
    (best, hits)
}

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let data = std::env::var_os("ONVM_TEST_DATA").map_or(root, PathBuf::from);
    if !data.join("ids").is_dir() {
        println!("skipped: no ../shared/data and no ONVM_TEST_DATA");
        return;
    }
    let payloads = payloads(&data.join("pcaps"));
    for file in ["etopen_1000_raw.rules.gz", "etopen_2019_active.rules.gz"] {
        let patterns = patterns(&data.join("ids").join(file));
        let mut builder = MatcherBuilder::default();
        for (bytes, nocase) in &patterns {
            builder.add(bytes, *nocase);
        }
        let matcher = builder.build();
        let mut found = Found::default();
        let (own, hits) = measure(&payloads, |p| {
            matcher.search(p, &mut found);
            found.patterns.len()
        });
        println!("{file}: {} patterns", patterns.len());
        println!(
            "  prefilter       {own:6.3} ns/byte   1.00   {:8} KiB  {hits} hits",
            matcher.memory() >> 10
        );
        for (name, kind) in
            [("contiguous NFA", AhoCorasickKind::ContiguousNFA), ("DFA", AhoCorasickKind::DFA)]
        {
            let automaton = AhoCorasick::builder()
                .kind(Some(kind))
                .match_kind(MatchKind::Standard)
                .ascii_case_insensitive(true)
                .build(patterns.iter().map(|(bytes, _)| bytes))
                .unwrap();
            let (time, hits) = measure(&payloads, |p| automaton.find_overlapping_iter(p).count());
            let memory = automaton.memory_usage() >> 10;
            println!("  {name:15} {time:6.3} ns/byte  {:5.2}   {memory:8} KiB  {hits} hits", time / own);
        }
    }
}
