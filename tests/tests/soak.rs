//! Twenty seconds of the soak; `scripts/soak.sh` runs it for as long as one likes.

use std::process::Command;

use onvm_tests::Dice;
use serde_json::Value;

#[test]
fn twenty_seconds_of_the_soak_leave_nothing_lost_or_reordered() {
    let seed = Dice::new("soak").any() % 1_000_000;
    let out = Command::new(env!("CARGO_BIN_EXE_soak"))
        .args(["--json", "--seconds", "20", "--rate", "10000", "--seed", &seed.to_string()])
        .output()
        .unwrap();
    let (text, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}{errors}"));
    assert!(out.status.success() && report["violation"].is_null(), "{report:#}\n{errors}");
    assert!(report["packets"]["judged"].as_u64() > Some(10_000), "{report:#}");
    let scaled = &report["scaled_by_load"];
    assert!(scaled["up"].as_u64() > Some(0) && scaled["down"].as_u64() > Some(0), "{report:#}");
    let operations = report["operations"].as_object().unwrap();
    assert!(operations.len() >= 10, "{report:#}");
}
