//! NFs that crash, hang, or are killed by a packet: what happens to the packets, and what the events say.

use std::time::{Duration, Instant};

use onvm_lib::capture::Reader;
use onvm_lib::protocol::{Request, Target};
use onvm_tests::{LIMIT, Lab, Manager, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn signal(instance: &Value, signal: Signal) {
    let pid = i32::try_from(instance["pid"].as_i64().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// A chain file with one service before a judge of the order.
fn chain_file(service: &str, rate: &str) -> String {
    format!(
        "ports:\n  - gen:size=64,flows=50,rate={rate},sequence=1\n  - \"null:\"\n\
         services:\n  middle: {{id: 1, {service}}}\n  judge: {{id: 2, command: [order_nf, --flows, \"50\", --json]}}\n\
         chains:\n  main: [middle, judge]\ndefault-chain: main\n"
    )
}

/// Last event's number now.
fn now(lab: &Lab) -> u64 {
    lab.events(0).last().map_or(0, |e| e["number"].as_u64().unwrap())
}

fn wait_for_running(lab: &Lab, service: u16, instances: usize) {
    let until = Instant::now() + LIMIT;
    while lab.instances(service).iter().filter(|i| i["state"] == "running").count() != instances {
        let (all, events) = (lab.instances(service), || lab.events(0));
        assert!(Instant::now() < until, "never {instances} of service {service}: {all:?} {:?}", events());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The judge's last words, and the ledger.
fn verdict(lab: &Lab, manager: Manager<'_>) -> (Value, onvm_tests::Ledger) {
    let (audit, balanced) = manager.audit();
    assert!(balanced, "{audit}");
    let (logs, _) = lab.ask(Request::Logs { target: Target::Service(2) }).unwrap();
    let path = logs["logs"][0]["path"].as_str().unwrap().to_string();
    let ledger = manager.stop(LIMIT);
    let log = std::fs::read_to_string(&path).unwrap();
    let line = log.lines().rfind(|l| l.starts_with('{')).unwrap_or_else(|| panic!("{path}: {log}"));
    let report: Value = serde_json::from_str(line).unwrap();
    (report["report"].clone(), ledger)
}

fn drops(ledger: &onvm_tests::Ledger, reason: &str) -> u64 {
    ledger.0["drops"].get(reason).and_then(Value::as_u64).unwrap_or(0)
}

/// No flow was reordered, and no more is missing than was dropped for these reasons: backpressure is the source's, which has a
/// rate, when the machine is late.
fn in_order_but_for(report: &Value, ledger: &onvm_tests::Ledger, reasons: &[&str]) {
    assert_eq!(report["reordered"], 0, "{report}");
    let dropped: u64 = reasons.iter().map(|reason| drops(ledger, reason)).sum();
    assert!(report["missing"].as_u64().unwrap() <= dropped, "{report} {}", ledger.0["drops"]);
}

#[test]
fn one_that_crashes_is_started_again_and_its_packets_wait() {
    let lab = Lab::new();
    let manager = lab.up(&chain_file("command: nf-forward, restart: {delay: 0.01}", "20k"), &[]);
    wait_for_running(&lab, 2, 1);
    for round in 0..5 {
        wait_for_running(&lab, 1, 1);
        let before = now(&lab);
        signal(&lab.instances(1)[0], Signal::KILL);
        let event = lab.wait_for_event("crashed", before);
        assert_eq!(event["why"], "it was killed by signal 9 (SIGKILL)", "round {round}");
        assert_eq!(event["by"], "kernel");
    }
    wait_for_running(&lab, 1, 1);
    let (report, ledger) = verdict(&lab, manager);
    in_order_but_for(&report, &ledger, &["reaped", "backpressure"]);
}

#[test]
fn one_that_stands_by_takes_over() {
    for rate in ["100", "100k"] {
        let by = takes_over_at(rate);
        // While packets come the worker is awake, sees the death first, and does not wait for the control thread.
        assert!(rate == "100" || by.contains(&"worker".into()), "{by:?}");
    }
}

/// Kills instances while packets come at a rate; returns on whose word others took over.
fn takes_over_at(rate: &str) -> Vec<String> {
    let lab = Lab::new();
    let manager = lab.up(&chain_file("command: nf-forward, instances: 2, standby: 1", rate), &[]);
    let mut by = Vec::new();
    // Of five deaths the worker sees most first; on a machine with other work it may have to wait for a processor.
    let enough =
        |by: &[String]| by.len() >= if rate == "100" || by.iter().any(|b| b == "worker") { 5 } else { 20 };
    while !enough(&by) {
        wait_for_running(&lab, 1, 2);
        let standby = |i: &&Value| i["role"] == "standby" && i["state"] == "ready";
        wait_until("one that stands by", || lab.instances(1).iter().any(|i| standby(&i)));
        let all = lab.instances(1);
        let heir = all.iter().find(standby).unwrap()["instance"].clone();
        let before = now(&lab);
        signal(all.iter().find(|i| i["role"] == "share").unwrap(), Signal::KILL);
        let _ = lab.wait_for_event("crashed", before);
        let took = || lab.events(before).into_iter().find(|e| e["instance"] == heir && e["to"] == "running");
        wait_until("its heir", || took().is_some());
        let took = took().unwrap();
        assert_eq!(took["why"], "it stood by", "{:?}", lab.events(before));
        by.push(took["by"].as_str().unwrap().to_string());
    }
    let (report, ledger) = verdict(&lab, manager);
    in_order_but_for(&report, &ledger, &["reaped", "backpressure"]);
    by
}

#[test]
fn who_stands_by_on_the_workers_processor_goes_home_after_it_has_taken_over() {
    let all = rustix::thread::sched_getaffinity(None).unwrap();
    let mut cores = (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| all.is_set(*core));
    let (Some(workers), Some(_)) = (cores.next(), cores.next()) else {
        assert!(std::env::var_os("CI").is_none(), "a second processor is needed");
        eprintln!("SKIPPED: a second processor is needed");
        return;
    };
    // So many that processors are shared.
    let others = all.count();
    let lab = Lab::new();
    let service = format!("command: nf-forward, instances: {others}, standby: 1");
    let manager = lab.up(&chain_file(&service, "20k"), &["-m", &workers.to_string()]);
    let is_at_the_workers = |pid: Pid| {
        let set = rustix::thread::sched_getaffinity(Some(pid)).unwrap();
        set.count() == 1 && set.is_set(workers)
    };
    let pid = |i: &Value| Pid::from_raw(i32::try_from(i["pid"].as_i64().unwrap()).unwrap()).unwrap();
    for _ in 0..3 {
        wait_for_running(&lab, 1, others as usize);
        let standby =
            || lab.instances(1).into_iter().find(|i| i["role"] == "standby" && i["state"] == "ready");
        wait_until("one that stands by", || standby().is_some_and(|i| is_at_the_workers(pid(&i))));
        let heir = standby().unwrap();
        let before = now(&lab);
        signal(lab.instances(1).iter().find(|i| i["role"] == "share").unwrap(), Signal::KILL);
        wait_until("it has taken over", || {
            lab.events(before).iter().any(|e| e["instance"] == heir["instance"] && e["to"] == "running")
        });
        wait_until("it is at home", || !is_at_the_workers(pid(&heir)));
    }
    let (report, ledger) = verdict(&lab, manager);
    in_order_but_for(&report, &ledger, &["reaped", "backpressure"]);
}

#[test]
fn one_that_hangs_is_killed_and_one_that_is_paused_or_idle_is_not() {
    let lab = Lab::new();
    let file = chain_file("command: nf-forward", "5k");
    // Longer than a machine with other work lets an NF wait for a processor.
    let manager = lab.up(&file, &["--hang-timeout", "2"]);
    wait_for_running(&lab, 2, 1);
    wait_for_running(&lab, 1, 1);
    let before = now(&lab);
    lab.ask(Request::NfPause { target: Target::Service(1) }).unwrap();
    std::thread::sleep(Duration::from_secs(4));
    lab.ask(Request::NfResume { target: Target::Service(1) }).unwrap();
    assert!(lab.events(before).iter().all(|e| e["event"] != "hung"), "{:?}", lab.events(before));
    let before = now(&lab);
    signal(&lab.instances(1)[0], Signal::STOP);
    let event = lab.wait_for_event("hung", before);
    assert!(event["why"].as_str().unwrap().starts_with("it hangs: "), "{event}");
    assert_eq!(event["by"], "manager");
    wait_for_running(&lab, 1, 1);
    let (report, ledger) = verdict(&lab, manager);
    in_order_but_for(&report, &ledger, &["reaped", "backpressure", "no-buffer"]);
}

#[test]
fn a_command_that_dies_at_once_is_given_up_and_tried_again_on_request() {
    let lab = Lab::new();
    let service = "command: [probe_nf, --fail], restart: {give-up: 3, delay: 0.01}, policy: bypass";
    let manager = lab.up(&chain_file(service, "1k"), &[]);
    let event = lab.wait_for_event("gave-up", 0);
    let failed = lab.events(0).iter().filter(|e| e["event"] == "crashed" || e["event"] == "left").count();
    assert_eq!(failed, 4, "{:?}", lab.events(0));
    lab.ask(Request::NfStart { service: 1 }).unwrap();
    let _ = lab.wait_for_event("gave-up", event["number"].as_u64().unwrap());
    let (report, ledger) = verdict(&lab, manager);
    assert_eq!((&report["reordered"], &report["missing"]), (&0.into(), &0.into()), "{report}");
    assert!(ledger.0["drops"].as_object().is_none_or(serde_json::Map::is_empty), "{}", ledger.0["drops"]);
}

#[test]
fn while_a_service_is_gone_its_packets_skip_it_or_are_dropped() {
    for (policy, passes) in [("bypass", true), ("drop", false)] {
        let lab = Lab::new();
        let service = format!("command: nf-forward, policy: {policy}, restart: {{delay: 0.5, give-up: 50}}");
        let manager = lab.up(&chain_file(&service, "20k"), &[]);
        wait_for_running(&lab, 2, 1);
        for _ in 0..3 {
            wait_for_running(&lab, 1, 1);
            let before = now(&lab);
            signal(&lab.instances(1)[0], Signal::KILL);
            let _ = lab.wait_for_event("crashed", before);
        }
        wait_for_running(&lab, 1, 1);
        let (report, ledger) = verdict(&lab, manager);
        assert_eq!(report["reordered"], 0, "{policy}: {report}");
        let (gone, reaped) = (drops(&ledger, "no-instance"), drops(&ledger, "reaped"));
        assert_eq!(gone == 0, passes, "{policy}: {}", ledger.0["drops"]);
        let late = drops(&ledger, "backpressure") + drops(&ledger, "no-buffer");
        assert!(report["missing"].as_u64().unwrap() <= gone + reaped + late, "{policy}: {report}");
    }
}

#[test]
fn a_packet_that_kills_twice_is_set_aside() {
    let lab = Lab::new();
    let service = "command: [deadly_nf, --number, \"7000\"], restart: {delay: 0.01}";
    // What comes while the next one starts has room in a quarter of the pool, also if that takes a second.
    let manager = lab.up(&chain_file(service, "5k"), &["--log-dir", &lab.file("logs")]);
    wait_for_running(&lab, 2, 1);
    let event = lab.wait_for_event("quarantined", 0);
    // The second death is written down when its packets have been dealt with.
    let crashes = || lab.events(0).iter().filter(|e| e["event"] == "crashed").count();
    wait_until("the second crash", || crashes() >= 2);
    assert_eq!(crashes(), 2, "{:?}", lab.events(0));
    wait_for_running(&lab, 1, 1);
    let received = manager.stats().packets("received");
    manager.wait_until("more packets", |l| l.packets("received") > received + 5000);
    let (report, ledger) = verdict(&lab, manager);
    assert_eq!((&report["reordered"], &report["missing"]), (&0.into(), &1.into()), "{report}");
    assert_eq!((drops(&ledger, "quarantined"), drops(&ledger, "reaped")), (1, 0), "{}", ledger.0["drops"]);
    let path = lab.path("logs").join("quarantine.pcapng");
    assert!(event["why"].as_str().unwrap().contains(&path.display().to_string()), "{event}");
    let mut kept = Reader::open(&path).unwrap();
    let number = 7000u64.to_be_bytes();
    assert_eq!(kept.next_frame().unwrap().unwrap().data.last_chunk(), Some(&number));
    assert!(kept.next_frame().unwrap().is_none());
}
