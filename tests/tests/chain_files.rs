//! Chain files: the ones that ship, what is said of wrong ones, and managers that are started with one.

use std::path::{Path, PathBuf};

use onvm_lib::protocol::Request;
use onvm_tests::{LIMIT, Lab, program, read_capture, sample};
use serde_json::{Value, json};

fn shipped() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../chains");
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    files.sort();
    files
}

#[test]
fn shipped_chain_files_are_valid_and_their_programs_are_there() {
    let lab = Lab::new();
    let files = shipped();
    assert!(files.len() >= 4, "{files:?}");
    for file in &files {
        let end = lab.bare("onvm-mgr", &["validate", &file.display().to_string()]).wait(LIMIT).good();
        assert!(end.out.ends_with(": valid\n") && end.out.lines().count() == 1, "{end}");
    }
}

#[test]
fn the_chain_file_of_the_readme_is_valid() {
    let lab = Lab::new();
    let readme = include_str!("../../README.md").split("## Chain files").nth(1).unwrap();
    let inside = readme.lines().skip_while(|l| !l.starts_with("    ")).take_while(|l| l.starts_with("    "));
    let text: Vec<&str> = inside.map(|line| &line[4..]).collect();
    let end = lab.bare("onvm-mgr", &["validate", &file(&lab, "r.yaml", &text.join("\n"))]).wait(LIMIT).good();
    assert!(end.out.ends_with(": 2 services, 2 chains, 1 rule: valid\n"), "{end}");
}

#[test]
fn the_shell_way_does_the_same() {
    let lab = Lab::new();
    let out = lab.path("out.pcap");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/chain-by-shell.sh");
    let end = std::process::Command::new(script)
        .env("BIN", program("onvm-mgr").parent().unwrap())
        .args([sample(), out.clone()])
        .output()
        .unwrap();
    assert!(end.status.success(), "{end:?}");
    assert_eq!(read_capture(&out), read_capture(&sample()));
}

/// A file in the lab.
fn file(lab: &Lab, name: &str, text: &str) -> String {
    std::fs::write(lab.path(name), text).unwrap();
    lab.file(name)
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let lab = Lab::new();
    let wrong = file(
        &lab,
        "wrong.yaml",
        "manager: {mtuu: 9000}\nservices:\n  firewall: {id: 1, instnces: 2}\nchains:\n  web: [fierwall]\n",
    );
    let end = lab.bare("onvm-mgr", &["validate", &wrong]).wait(LIMIT).with_code(1);
    let told = end.out.replace(&wrong, "F");
    assert_eq!(
        told,
        "F:1:11: manager.mtuu: unknown key; did you mean \"mtu\"?\n\
         F:3:13: warning: services.firewall: this service stands in no chain and is no destination: no packet comes to it\n\
         F:3:21: services.firewall.instnces: unknown key; did you mean \"instances\"?\n\
         F:5:9: chains.web[0]: \"fierwall\" is not a service; did you mean \"firewall\"?\n\
         F: 3 errors, 1 warning: not valid\n"
    );
    let json = lab.bare("onvm-mgr", &["validate", "--json", &wrong]).wait(LIMIT).with_code(1).json();
    assert_eq!((&json["valid"], json["problems"].as_array().map(Vec::len)), (&json!(false), Some(4)));
    assert_eq!((&json["problems"][0]["line"], &json["problems"][0]["column"]), (&json!(1), &json!(11)));
    for command in ["up", "apply"] {
        let end = lab.start("onvm-mgr", &[command, &wrong]).wait(LIMIT).with_code(1);
        assert!(end.err.contains("did you mean \"firewall\"?"), "{end}");
    }
    let end = lab.start("onvm-mgr", &["diff", &wrong]).wait(LIMIT).with_code(2);
    assert!(end.err.ends_with("cannot be used: 3 errors, 1 warning\n"), "{end}");
}

const STRAIGHT: &str = "manager: {no-pin: true, no-huge: true, buffers: 2048, time-limit: 150}\n\
    ports: [\"gen:rate=10k\", \"null:\"]\nchains: {straight: []}\n";

#[test]
fn a_manager_goes_up_in_the_background_and_down() {
    let lab = Lab::new();
    let chain = file(&lab, "straight.yaml", STRAIGHT);
    let up = lab.start("onvm-mgr", &["up", &chain, "--detach", "--json", "--wait", "1"]).wait(LIMIT).good();
    let pid = up.json()["pid"].as_u64().unwrap();
    assert_eq!(up.json()["log"], lab.file("onvm.log"));
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    assert_eq!(after_name[3], pid.to_string(), "it leads a session of its own: {stat}");
    let plan = lab.ask(Request::PlanShow).unwrap().0;
    assert_eq!((&plan["default_chain"], &plan["chains"]), (&json!("straight"), &json!({ "straight": [] })));
    let again = lab.start("onvm-mgr", &["up", &chain]).wait(LIMIT).with_code(1);
    assert!(again.err.contains(&format!("onvm-mgr apply {chain}")), "{again}");

    assert_eq!(lab.client(&["diff", &chain]).good().out, "");
    let other = file(&lab, "other.yaml", &STRAIGHT.replace("straight", "direct"));
    let diff = lab.client(&["diff", &other]).with_code(1);
    assert_eq!(
        diff.out,
        "chain straight: removed\nchain direct: added: straight from port to port\ndefault chain: straight -> direct\n"
    );
    let diff: Value = lab.client(&["diff", "--json", &other]).with_code(1).json();
    assert_eq!(diff["changes"][0], json!({ "change": "chain-removed", "chain": "straight" }));

    assert_eq!(lab.client(&["down"]).good().out, "stopped\n");
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "it is still there: {state}");
    let _ = lab.client(&["down"]).with_code(1);
    let _ = lab.client(&["diff", &chain]).with_code(2);
}

#[test]
fn what_keeps_a_manager_in_the_background_from_starting_is_told() {
    let lab = Lab::new();
    let chain = file(&lab, "c.yaml", "ports: [\"pcap:in=nowhere.pcap\"]\nchains: {straight: []}\n");
    let end = lab.start("onvm-mgr", &["up", &chain, "-D"]).wait(LIMIT).with_code(1);
    assert!(end.err.contains("nowhere.pcap") && end.err.contains(&lab.file("onvm.log")), "{end}");
}

#[test]
fn options_come_from_a_file_and_the_command_line_wins() {
    let lab = Lab::new();
    let chain = file(&lab, "straight.yaml", STRAIGHT);
    let port = "gen:rate=10k,count=500";
    let arguments = ["--config", &chain, "--port", port, "--chain", "none", "--json", "--buffers", "4096"];
    let end = lab.start("onvm-mgr", &arguments).wait(LIMIT).good();
    let ledger = end.json();
    assert_eq!(
        (&ledger["packets"]["received"], &ledger["pool"]["buffers"]),
        (&json!(500), &json!(4096)),
        "{end}"
    );
}
