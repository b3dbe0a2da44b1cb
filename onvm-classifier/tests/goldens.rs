//! The sets of ClassBench, all lines of all traces, against the answers of somebody else's linear search.
//!
//! They are not in this tree: `ONVM_TEST_DATA`, else `../shared/data` from the workspace.

use std::path::{Path, PathBuf};
use std::process::Command;

use onvm_classifier::{Classifier, Rule5, classbench};

fn folder() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let data = std::env::var_os("ONVM_TEST_DATA").map_or_else(beside, PathBuf::from);
    let folder = data.join("classbench");
    if !folder.is_dir() {
        eprintln!("SKIPPED: no filter sets in {}; set ONVM_TEST_DATA to read them", folder.display());
        return None;
    }
    Some(folder)
}

/// The text of a compressed file.
fn text(file: &Path) -> String {
    let output = Command::new("gzip").arg("-dc").arg(file).output().expect("gzip can be run");
    assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn every_line_of_every_trace_finds_its_first_rule() {
    let Some(folder) = folder() else { return };
    let mut sets = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("a readable folder") {
        let name = entry.expect("a readable folder").file_name().to_string_lossy().into_owned();
        sets.extend(name.strip_suffix("_trace.gz").map(str::to_string));
    }
    sets.sort();
    assert!(!sets.is_empty(), "no traces in {}", folder.display());
    for set in sets {
        let read = |suffix: &str| text(&folder.join(format!("{set}{suffix}.gz")));
        let filters = classbench::filters(&set, &read("")).expect("a filter set");
        let rules: Vec<Rule5> = filters.iter().map(|filter| filter.rule).collect();
        let trace = classbench::trace(&set, &read("_trace")).expect("a trace");
        let golden = read("_golden");
        let golden: Vec<u32> =
            golden.lines().map(|line| line.trim().parse::<u32>().expect("a number") - 1).collect();
        assert_eq!(trace.len(), golden.len(), "{set}");

        let classifier = Classifier::build(&rules);
        let mut found = vec![0; trace.len()];
        classifier.classify_burst(&trace, &mut found);
        assert_eq!(first_difference(&found, &golden), None, "{set}");
        // The way of other processors is slow without optimisation; a part of the trace will do.
        let some = trace.len().min(5000);
        classifier.without_simd().classify_burst(&trace[..some], &mut found[..some]);
        assert_eq!(first_difference(&found[..some], &golden[..some]), None, "{set}, without SIMD");
    }
}

/// The first line on which two lists differ, counted from 1, with both answers.
fn first_difference(found: &[u32], golden: &[u32]) -> Option<(usize, u32, u32)> {
    let (at, pair) = found.iter().zip(golden).enumerate().find(|(_, (found, golden))| found != golden)?;
    Some((at + 1, *pair.0, *pair.1))
}
