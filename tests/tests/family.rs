//! NFs that start children of their own service, and what they tell each other.

use std::path::Path;
use std::time::{Duration, Instant};

use onvm_lib::protocol::Request;
use onvm_tests::{LIMIT, Lab, sample};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Process ids of the children, as the manager lists them.
fn children(lab: &Lab) -> Vec<u64> {
    let (list, _) = lab.ask(Request::NfList).unwrap();
    let all = list["instances"].as_array().unwrap().iter();
    all.filter(|i| i["name"] == "child").filter_map(|i| i["pid"].as_u64()).collect()
}

fn exists(pid: u64) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn wait_until(what: &str, come: impl Fn() -> bool) {
    let until = Instant::now() + LIMIT;
    while !come() {
        assert!(Instant::now() < until, "never came: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn children_come_talk_and_leave_with_their_parent() {
    let lab = Lab::new();
    let manager = lab.manager(&["--port", "gen:rate=10k", "--chain", "1"]);
    let mut parent = lab.nf("family_nf", &["-r", "1", "-n", "5", "--children", "2", "--brief"]);
    let end = parent.wait(LIMIT).good();
    // The children write to the same file.
    let line = end.out.lines().find(|line| line.contains("\"nf\":\"family_nf\"")).unwrap_or_default();
    let report = &serde_json::from_str::<Value>(line).unwrap()["report"];
    assert_eq!(report["failures"].as_array().map(Vec::len), Some(0), "{end}");
    let here = report["here"].as_array().unwrap();
    let parents: Vec<&Value> = here.iter().map(|h| &h["parent"]).collect();
    assert_eq!(here.len(), 3, "the parent itself is among them: {end}");
    assert_eq!(parents.iter().filter(|p| p.is_null()).count(), 1, "{end}");
    assert_eq!(parents.iter().filter(|p| **p == 5).count(), 2, "{end}");
    let pids: Vec<u64> = report["born"].as_object().unwrap().values().filter_map(Value::as_u64).collect();
    let started: Vec<u64> = report["started"].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
    assert!(pids.iter().all(|pid| started.contains(pid)), "{end}");
    manager.wait_for_instances(0);
    wait_until("the end of the children", || !pids.iter().any(|pid| exists(*pid)));
    let ledger = manager.stats();
    assert!(ledger.instances().iter().all(|i| i.state() == "left"), "{}", ledger.0);
    manager.stop(LIMIT).assert_clean();
}

#[test]
fn a_dead_child_is_no_zombie_and_a_dead_parent_leaves_its_children_alive() {
    let lab = Lab::new();
    let manager = lab.manager(&["--port", "gen:rate=10k", "--chain", "1"]);
    let mut parent = lab.nf("family_nf", &["-r", "1", "-s", "--children", "3"]);
    manager.wait_for_instances(4);
    let all = children(&lab);
    let victim = all[0];
    kill_process(Pid::from_raw(i32::try_from(victim).unwrap()).unwrap(), Signal::KILL).unwrap();
    wait_until("the end of the child", || !exists(victim));
    manager.wait_for_instances(3);
    parent.signal(Signal::KILL);
    let _ = parent.wait(LIMIT);
    manager.wait_for_instances(2);
    let before = manager.stats().packets("sent");
    manager.wait_until("traffic through the children", |l| l.packets("sent") > before + 1000);
    assert_eq!(children(&lab).len(), 2);
    manager.stop(LIMIT).assert_balanced();
    wait_until("the end of the children", || !all.iter().any(|pid| exists(*pid)));
}

#[test]
fn in_a_replay_there_is_nobody() {
    let lab = Lab::new();
    let capture = sample().display().to_string();
    let end = lab.bare("family_nf", &["--json", "--replay", &capture, "--children", "1"]).wait(LIMIT).good();
    let report = &end.json()["report"];
    assert_eq!(report["failures"][0], "there is no manager in a replay, and nobody else", "{end}");
}
