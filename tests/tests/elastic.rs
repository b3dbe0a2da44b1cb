//! Flows stay in order, and nothing is lost, while instances come and go and chains change.

use std::time::{Duration, Instant};

use onvm_lib::protocol::{Request, Target};
use onvm_tests::{Dice, LIMIT, Lab, Manager, Process};
use rustix::process::Signal;
use serde_json::Value;

const FLOWS: &str = "500";

/// The port that numbers its packets, as fast as they are taken off it, and a sink.
fn ports() -> [String; 4] {
    let generator = format!("gen:size=64,flows={FLOWS},sequence=1");
    ["--port".into(), generator, "--port".into(), "null:".into()]
}

fn manager<'a>(lab: &'a Lab, more: &[&str]) -> Manager<'a> {
    let ports = ports();
    let mut arguments: Vec<&str> = ports.iter().map(String::as_str).collect();
    arguments.extend(more);
    lab.manager(&arguments)
}

fn order(lab: &Lab, service: &str) -> Process {
    lab.nf("order_nf", &["-r", service, "--flows", FLOWS])
}

/// Ends everything; what the judge of the order says.
fn verdict(manager: Manager<'_>, mut judge: Process) -> (Value, onvm_tests::Ledger) {
    let (audit, balanced) = manager.audit();
    assert!(balanced, "{audit}");
    let ledger = manager.stop(LIMIT);
    let end = judge.wait(LIMIT).good();
    let line = end.out.lines().last().unwrap_or_default().to_string();
    let report: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
    (report["report"].clone(), ledger)
}

fn wait_for(lab: &Lab, service: u16, instances: usize) {
    let start = Instant::now();
    loop {
        let (body, _) = lab.ask(Request::NfList).unwrap();
        let there = body["instances"].as_array().map_or(0, |all| {
            all.iter().filter(|i| i["service"] == service && i["state"] != "draining").count()
        });
        if there == instances {
            return;
        }
        assert!(start.elapsed() < LIMIT, "{there} instances of service {service}: {body}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn flows_stay_in_order_while_instances_come_and_go() {
    let lab = Lab::new();
    let manager = manager(&lab, &["--chain", "1,2,3", "--wait", "1,2,3"]);
    let _first = lab.nf("nf-forward", &["-r", "1"]);
    let mut middle = vec![lab.nf("nf-forward", &["-r", "2"])];
    let judge = order(&lab, "3");
    wait_for(&lab, 3, 1);
    let mut dice = Dice::new("instances");
    for _ in 0..30 {
        match dice.below(3) {
            0 if middle.len() > 1 => {
                let gone = dice.index(middle.len());
                let pid = middle[gone].pid();
                let (body, _) = lab.ask(Request::NfList).unwrap();
                let all = body["instances"].as_array().unwrap();
                let id = all.iter().find(|i| i["pid"] == pid).unwrap()["instance"].as_u64().unwrap();
                let target = Target::Instance(u32::try_from(id).unwrap());
                lab.ask(Request::NfDrain { target }).unwrap();
                let _ = middle.swap_remove(gone).wait(LIMIT).good();
            }
            1 if middle.len() > 1 => {
                let gone = dice.index(middle.len());
                let mut victim = middle.swap_remove(gone);
                victim.signal(Signal::KILL);
                let _ = victim.wait(LIMIT);
            }
            _ if middle.len() < 5 => middle.push(lab.nf("nf-forward", &["-r", "2"])),
            _ => {}
        }
        wait_for(&lab, 2, middle.len());
        std::thread::sleep(Duration::from_millis(dice.below(60)));
    }
    let (report, ledger) = verdict(manager, judge);
    assert_eq!(report["reordered"], 0, "{report}");
    let dropped = ledger.0["drops"].as_object().cloned().unwrap_or_default();
    let reaped = dropped.get("reaped").and_then(Value::as_u64).unwrap_or(0);
    assert!(dropped.keys().all(|reason| reason == "reaped"), "{dropped:?}");
    assert!(report["missing"].as_u64() <= Some(reaped), "{report} {dropped:?}");
}

#[test]
fn chains_change_a_thousand_times_under_load() {
    let lab = Lab::new();
    let manager = manager(&lab, &["--chain", "1,9", "--wait", "1,2,3,4,9"]);
    let _nfs: Vec<Process> = ["1", "2", "3", "4"].map(|id| lab.nf("nf-forward", &["-r", id])).into();
    let judge = order(&lab, "9");
    wait_for(&lab, 9, 1);
    let mut dice = Dice::new("chains");
    let start = Instant::now();
    for _ in 0..1000 {
        let mut hops: Vec<u16> = vec![1, 2, 3, 4];
        // Any of them, in any order, before the judge.
        for i in (1..hops.len()).rev() {
            hops.swap(i, dice.index(i + 1));
        }
        hops.truncate(dice.index(5));
        hops.push(9);
        let (_, ok) = lab.ask(Request::ChainSet { chain: hops }).unwrap();
        assert!(ok);
    }
    let took = start.elapsed();
    let (report, ledger) = verdict(manager, judge);
    println!("1000 changes in {took:?}, {} packets", report["packets"]);
    assert_eq!((&report["reordered"], &report["missing"]), (&0.into(), &0.into()), "{report}");
    assert!(report["packets"].as_u64() > Some(10_000), "{report}");
    assert!(ledger.0["drops"].as_object().is_none_or(serde_json::Map::is_empty), "{}", ledger.0["drops"]);
}
