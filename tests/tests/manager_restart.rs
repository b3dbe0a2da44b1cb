//! A manager is killed under load and started again with the same file: its NFs come back and are taken in, with their state.

use std::time::{Duration, Instant};

use onvm_lib::protocol::{Request, Target};
use onvm_tests::{LIMIT, Lab, Manager, last_report, runs, signal_pid, wait_until};
use rustix::process::Signal;
use serde_json::Value;

const FILE: &str = "ports:\n  - gen:size=64,flows=50,rate=20k,sequence=1\n  - \"null:\"\n\
    services:\n  first: {id: 1, command: [heir_nf, --json], instances: 2}\n  second: {id: 2, command: [nf-monitor, --json], standby: 1}\n  \
    judge: {id: 3, command: [order_nf, --flows, \"50\", --json]}\nchains:\n  main: [first, second, judge]\ndefault-chain: main\n";
/// Services and how many processes they have.
const SERVICES: [(u16, usize); 3] = [(1, 2), (2, 2), (3, 1)];

fn pids(lab: &Lab) -> Vec<u64> {
    let mut all: Vec<u64> = SERVICES.iter().flat_map(|(service, _)| lab.pids(*service)).collect();
    all.sort_unstable();
    all
}

fn wait_for_all(lab: &Lab) {
    for (service, count) in SERVICES {
        wait_until("all instances", || {
            let all = lab.instances(service);
            all.len() == count && all.iter().all(|i| i["state"] == "running" || i["role"] == "standby")
        });
    }
}

/// Kills the manager and starts the next; how long nothing was sent.
fn restart<'a>(lab: &'a Lab, mut manager: Manager<'a>) -> (Manager<'a>, Duration) {
    manager.process.signal(Signal::KILL);
    let killed = Instant::now();
    let _ = manager.process.wait(LIMIT);
    let manager = lab.up(FILE, &[]);
    manager.wait_until("the first packet", |l| l.packets("sent") > 0);
    (manager, killed.elapsed())
}

#[test]
fn nfs_are_taken_in_by_the_next_manager() {
    let lab = Lab::new();
    let mut manager = lab.up(FILE, &[]);
    wait_for_all(&lab);
    let all = pids(&lab);
    assert_eq!(all.len(), 5);
    let mut sent = 0;
    for round in 0..3 {
        sent += manager.wait_until("traffic", |l| l.packets("sent") > 5000).packets("sent");
        let (next, gap) = restart(&lab, manager);
        manager = next;
        println!("restart {round}: the first packet is sent {gap:?} after the kill");
        wait_for_all(&lab);
        // Those that would be started in the place of others come within this time.
        std::thread::sleep(Duration::from_millis(if round == 0 { 2000 } else { 600 }));
        assert_eq!(pids(&lab), all, "the same processes, and no others: {:?}", lab.events(0));
        let started: Vec<Value> = lab.events(0).into_iter().filter(|e| e["event"] == "start").collect();
        assert!(started.is_empty(), "{started:?}");
    }
    sent += manager.wait_until("traffic", |l| l.packets("sent") > 5000).packets("sent");
    // The log of one that was taken in is known.
    let log = lab.log(3);
    // One that was taken in is supervised like any other.
    let victim = lab.pids(1)[0];
    let before = lab.last_event();
    signal_pid(victim, Signal::KILL);
    let _ = lab.wait_for_event("crashed", before);
    lab.wait_for_running(1, 2);
    assert!(!lab.pids(1).contains(&victim) && lab.pids(1).iter().any(|pid| all.contains(pid)));
    // And replaced: its state goes along.
    let _ = lab.client(&["nf", "restart", "second"]).good();
    let logs = lab.ask(Request::Logs { target: Target::Service(2) }).unwrap().0;
    let last: Vec<u64> = pids(&lab);
    assert_eq!(last.len(), 5);
    let (audit, balanced) = manager.audit();
    assert!(balanced, "{audit}");
    let _ = lab.client(&["down"]).good();
    manager.ended(LIMIT);
    wait_until("the end of all processes", || all.iter().chain(&last).all(|pid| !runs(*pid)));
    let judged = last_report(&log);
    // Its count begins anew with each manager, for so do the generator's numbers.
    assert_eq!((&judged["managers_lost"], &judged["reordered"]), (&3.into(), &0.into()), "{judged}");
    let paths = logs["logs"].as_array().unwrap().iter().map(|l| l["path"].as_str().unwrap());
    let counted: Vec<u64> = paths.map(|p| last_report(p.as_ref())["packets"].as_u64().unwrap()).collect();
    assert!(counted.iter().any(|n| *n >= sent), "the monitor kept its count: {counted:?} of {sent}");
}

#[test]
fn what_is_late_is_not_wanted_twice() {
    let lab = Lab::new();
    let mut manager = lab.up(FILE, &[]);
    wait_for_all(&lab);
    let all = pids(&lab);
    // One cannot come back before others are started in its place.
    let late = lab.pids(1)[0];
    manager.process.signal(Signal::KILL);
    let _ = manager.process.wait(LIMIT);
    // Not before: at the end of its parent the kernel wakes a process that was stopped.
    signal_pid(late, Signal::STOP);
    let mut manager = lab.up(FILE, &[]);
    let _ = lab.wait_for_event("start", 0);
    wait_for_all(&lab);
    signal_pid(late, Signal::CONT);
    wait_until("the end of the surplus", || {
        pids(&lab).len() == 5 && lab.instances(1).len() == 2 && (!runs(late) || lab.pids(1).contains(&late))
    });
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(lab.pids(1).len(), 2);
    let last = pids(&lab);
    let _ = lab.client(&["down"]).good();
    manager.ended(LIMIT);
    wait_until("the end of all processes", || all.iter().chain(&last).all(|pid| !runs(*pid)));
}

#[test]
fn one_that_was_stopped_when_its_manager_died_is_taken_in() {
    let lab = Lab::new();
    let mut manager = lab.up(FILE, &[]);
    wait_for_all(&lab);
    let all = pids(&lab);
    manager.wait_until("traffic", |l| l.packets("sent") > 5000);
    // The kernel hangs up on it at the end of its parent, and has it go on; not so in a container whose first process is of
    // the same session, so that is done here once more.
    let stopped = lab.pids(1)[0];
    signal_pid(stopped, Signal::STOP);
    manager.process.signal(Signal::KILL);
    let _ = manager.process.wait(LIMIT);
    [Signal::HUP, Signal::CONT].iter().for_each(|signal| signal_pid(stopped, *signal));
    let (mut manager, _) = restart(&lab, manager);
    wait_for_all(&lab);
    assert_eq!(pids(&lab), all, "the same processes: {:?}", lab.events(0));
    let _ = lab.client(&["down"]).good();
    manager.ended(LIMIT);
}

#[test]
fn logs_are_not_mixed_up() {
    let lab = Lab::new();
    let manager = lab.up(FILE, &[]);
    wait_for_all(&lab);
    let logs_of_first = || -> Vec<String> {
        let (logs, _) = lab.ask(Request::Logs { target: Target::Service(1) }).unwrap();
        let mut paths: Vec<String> = logs["logs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|l| l["path"].as_str().unwrap().to_string())
            .collect();
        paths.sort_unstable();
        paths.dedup();
        paths
    };
    let (old_logs, judge_log) = (logs_of_first(), lab.log(3));
    let (mut manager, _) = restart(&lab, manager);
    wait_for_all(&lab);
    assert_eq!(lab.log(3), judge_log);
    assert_eq!(logs_of_first(), old_logs);
    // What is started now must not write where one that was taken in writes.
    for _ in 0..4 {
        let victim = lab.pids(1)[0];
        signal_pid(victim, Signal::KILL);
        wait_until("the next one", || !lab.pids(1).contains(&victim));
        wait_for_all(&lab);
    }
    assert_eq!(logs_of_first().len(), 2);
    assert_eq!(lab.log(3), judge_log);
    let _ = lab.client(&["down"]).good();
    manager.ended(LIMIT);
    assert!(last_report(&judge_log)["packets"].as_u64() > Some(0));
}
