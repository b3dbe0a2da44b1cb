//! Instances are added and taken away: how many flows move, that those which shall stay do, and how large it all may be.

use std::collections::{BTreeMap, BTreeSet};

use onvm_lib::protocol::{Request, Target};
use onvm_tests::{LIMIT, Lab, Manager, last_report, runs, signal_pid, wait_until};
use rustix::process::Signal;
use serde_json::json;

/// Flows; what instances write down of them at their end they have two seconds for, also on a slow machine.
const FLOWS: u64 = 20_000;
/// Flows of which most are still to come when the service grows, however long that takes: a round of them takes ten seconds.
const SLOW_FLOWS: u64 = 40_000;

/// Where flows are: the instance of each, by its process.
type Places = BTreeMap<u64, u64>;

/// One service whose instances write down which flows they see, before a judge of the order.
fn up<'a>(lab: &'a Lab, flows: u64, rate: &str, service: &str) -> Manager<'a> {
    let file = format!(
        "ports:\n  - gen:size=64,flows={flows},rate={rate},sequence=1\n  - \"null:\"\n\
         services:\n  probe: {{id: 1, command: [probe_nf, --json], {service}}}\n  \
         judge: {{id: 2, command: [order_nf, --flows, \"{flows}\", --json]}}\n\
         chains:\n  main: [probe, judge]\n"
    );
    let manager = lab.up(&file, &["--wait", "1,2", "--log-dir", &lab.file("logs")]);
    lab.wait_for_running(1, 1);
    lab.wait_for_running(2, 1);
    manager
}

fn tell(lab: &Lab, topic: &str, body: &str) {
    let request = Request::NfTell { target: Target::Service(1), topic: topic.into(), body: json!(body) };
    assert!(lab.ask(request).unwrap().1);
}

/// Lets the instances write down the flows that they see while so many packets come, under a name.
fn look(lab: &Lab, manager: &Manager<'_>, name: &str, packets: u64) {
    tell(lab, "look", name);
    let received = manager.stats().packets("received");
    manager.wait_until("a round of flows", |l| l.packets("received") > received + packets);
    tell(lab, "keep", name);
}

/// Scales the service, and waits until the routes follow.
fn scale(lab: &Lab, instances: u32) {
    let before = lab.last_event();
    assert!(lab.ask(Request::NfScale { service: 1, instances }).unwrap().1);
    lab.wait_for_running(1, instances as usize);
    settle(lab, before);
}

/// Waits until the last change of routes after an event is complete.
fn settle(lab: &Lab, after: u64) {
    wait_until("the last change", || {
        let events = lab.events(after);
        let last = |kind: &str| events.iter().rposition(|e| e["event"] == kind);
        let wanted = events
            .iter()
            .rposition(|e| e["event"] == "state" && (e["to"] == "running" || e["to"] == "draining"));
        last("route-change") > wanted
    });
}

/// What all instances wrote down, by name: where each flow was.
fn places(lab: &Lab) -> BTreeMap<String, Places> {
    let mut all: BTreeMap<String, Places> = BTreeMap::new();
    let logs = std::fs::read_dir(lab.path("logs")).unwrap().map(|entry| entry.unwrap().path());
    for (number, log) in (0..).zip(logs.filter(|path| path.to_string_lossy().contains("probe-"))) {
        let text = std::fs::read_to_string(&log).unwrap();
        if !text.lines().any(|line| line.starts_with('{')) {
            continue;
        }
        for (name, flows) in last_report(&log)["kept"].as_object().unwrap() {
            let places = all.entry(name.trim_matches('"').to_string()).or_default();
            for flow in flows.as_array().unwrap() {
                let elsewhere = places.insert(flow.as_u64().unwrap(), number);
                assert_eq!(elsewhere, None, "{name}: a flow at two instances");
            }
        }
    }
    all
}

/// Share of the flows that are elsewhere than before.
fn moved(before: &Places, after: &Places) -> f64 {
    let both: Vec<(u64, u64)> =
        before.iter().filter_map(|(flow, at)| Some((*at, *after.get(flow)?))).collect();
    // A loaded machine drops some at the entry.
    assert!(both.len() as u64 > FLOWS / 2, "{} flows were seen twice", both.len());
    let moved = both.iter().filter(|(before, after)| before != after).count();
    moved as f64 / both.len() as f64
}

#[test]
fn few_flows_move_when_instances_come_and_go() {
    let lab = Lab::new();
    let manager = up(&lab, FLOWS, "12k", "instances: 1");
    let round = FLOWS + 2000;
    look(&lab, &manager, "0", round);
    // Steps, and the share of the flows that may move.
    let steps = [(2, 2.0), (3, 3.0), (4, 4.0), (3, 4.0), (2, 3.0)];
    for (step, (instances, _)) in steps.iter().enumerate() {
        scale(&lab, *instances);
        look(&lab, &manager, &(step + 1).to_string(), round);
    }
    let (report, ledger) = lab.judged(manager, 2);
    let places = places(&lab);
    for (step, (instances, of)) in steps.iter().enumerate() {
        let share = moved(&places[&step.to_string()], &places[&(step + 1).to_string()]);
        println!("to {instances} instances: {:.2} % of the flows moved", share * 100.0);
        assert!(share <= 1.0 / of + 0.02 && share > 0.0, "to {instances}: {share}");
        let at: BTreeSet<u64> = places[&(step + 1).to_string()].values().copied().collect();
        assert_eq!(at.len(), *instances as usize);
    }
    assert!(
        report["missing"].as_u64().unwrap() <= ledger.packets("dropped"),
        "{report} {}",
        ledger.0["drops"]
    );
}

#[test]
fn known_flows_stay_where_they_are() {
    let lab = Lab::new();
    // Those that come after the first second are new to the second instance and the third.
    let service = "instances: 1, affinity: flow, restart: {delay: 0.01}";
    let manager = up(&lab, SLOW_FLOWS, "4k", service);
    look(&lab, &manager, "first", 4000);
    assert!(lab.ask(Request::NfScale { service: 1, instances: 3 }).unwrap().1);
    lab.wait_for_running(1, 3);
    let known = manager.stats().packets("received");
    assert!(known < SLOW_FLOWS, "some flows are new yet");
    manager.wait_until("all flows", |l| l.packets("received") > SLOW_FLOWS + 1000);
    look(&lab, &manager, "grown", SLOW_FLOWS + 1000);
    let victim = lab.instances(1)[1].clone();
    let before = lab.last_event();
    signal_pid(victim["pid"].as_u64().unwrap(), Signal::KILL);
    let _ = lab.wait_for_event("crashed", before);
    lab.wait_for_running(1, 3);
    let received = manager.stats().packets("received");
    manager.wait_until("more packets", |l| l.packets("received") > received + 1000);
    look(&lab, &manager, "after a death", SLOW_FLOWS + 1000);
    let (report, ledger) = lab.judged(manager, 2);
    assert!(
        report["missing"].as_u64().unwrap() <= ledger.packets("dropped"),
        "{report} {}",
        ledger.0["drops"]
    );
    let places = places(&lab);
    let (first, grown, last) = (&places["first"], &places["grown"], &places["after a death"]);
    let elsewhere = |before: &Places, after: &Places| {
        before.iter().filter(|(flow, at)| after.get(flow).is_some_and(|to| to != *at)).count()
    };
    assert_eq!(elsewhere(first, grown), 0, "known flows moved");
    assert!(first.len() > 2000);
    let homes: BTreeSet<u64> = grown.values().copied().collect();
    // What the one that was killed had written down is gone with it; the other new one has new flows.
    assert_eq!(homes.len(), 2, "new flows go to new instances");
    assert_eq!(elsewhere(grown, last), 0, "flows of those that live moved");
    println!("{} flows at two of three instances stayed, {} in all after a death", grown.len(), last.len());
}

#[test]
fn a_hundred_and_twenty_eight_at_once() {
    let lab = Lab::new();
    let file = "manager: {ring-size: 128, buffers: 4096}\n\
        ports:\n  - gen:size=64,flows=2000,rate=2k,sequence=1\n  - \"null:\"\n\
        services:\n  many: {id: 1, command: [heir_nf], instances: 127, shared-core: true}\n  \
        judge: {id: 2, command: [order_nf, --flows, \"2000\", --json], shared-core: true}\n\
        chains:\n  main: [many, judge]\n";
    let manager = lab.up(file, &["--wait", "1,2"]);
    lab.wait_for_running(2, 1);
    lab.wait_for_running(1, 127);
    let pids = lab.pids(1);
    let before = manager.stats().packets("sent");
    manager.wait_until("traffic through all", |l| l.packets("sent") > before + 4000);
    manager.wait_until("flows at all", |l| {
        l.present().iter().filter(|i| i.service() == 1).all(|i| i.count("received") > 0)
    });
    let (report, ledger) = lab.judged(manager, 2);
    assert!(
        report["missing"].as_u64().unwrap() <= ledger.packets("dropped"),
        "{report} {}",
        ledger.0["drops"]
    );
    assert!(pids.iter().all(|pid| !runs(*pid)));
}

#[test]
fn a_chain_of_thirty_two_hops() {
    let lab = Lab::new();
    let services: Vec<String> =
        (1..32).map(|i| format!("  s{i}: {{id: {i}, command: [nf-forward], shared-core: true}}\n")).collect();
    let names: Vec<String> = (1..32).map(|i| format!("s{i}")).collect();
    let wait: Vec<String> = (1..=32).map(|i| i.to_string()).collect();
    let file = format!(
        "ports:\n  - gen:size=64,flows=50,rate=2k,count=6000,sequence=1\n  - \"null:\"\nservices:\n{}  \
         judge: {{id: 32, command: [order_nf, --flows, \"50\", --json], shared-core: true}}\nchains:\n  main: [{}, judge]\n",
        services.concat(),
        names.join(", ")
    );
    let manager = lab.up(&file, &["--wait", &wait.join(","), "--stay"]);
    manager.wait_until("all packets", |l| l.packets("sent") == 6000);
    let (report, ledger) = {
        let (audit, balanced) = manager.audit();
        assert!(balanced, "{audit}");
        lab.judged(manager, 32)
    };
    assert_eq!((&report["packets"], &report["missing"]), (&6000.into(), &0.into()), "{report}");
    for service in 1..=32 {
        assert_eq!(ledger.of_service(service).count("received"), 6000, "hop {service}");
    }
    ledger.assert_clean();
}

#[test]
fn children_share_the_flows_of_their_parent() {
    let lab = Lab::new();
    let manager = lab.manager(&[
        "--port",
        "gen:size=64,flows=500,rate=10k,sequence=1",
        "--port",
        "null:",
        "--chain",
        "1,2",
        "--wait",
        "1,2",
    ]);
    let mut judge = lab.nf("order_nf", &["-r", "2", "--flows", "500"]);
    let mut parent = lab.nf("family_nf", &["-r", "1", "-s", "--children", "3"]);
    manager.wait_for_instances(5);
    manager.wait_until("flows at all of them", |l| {
        l.present().iter().filter(|i| i.service() == 1 && i.count("received") > 100).count() == 4
    });
    let stats = manager.stats();
    let counts: Vec<u64> =
        stats.present().iter().filter(|i| i.service() == 1).map(|i| i.count("received")).collect();
    println!("parent and children: {counts:?} packets");
    // They leave with their parent, and their flows wait for the next one of the service.
    parent.signal(Signal::TERM);
    let _ = parent.wait(LIMIT).good();
    manager.wait_for_instances(1);
    let next = lab.nf("family_nf", &["-r", "1", "-s"]);
    let sent = manager.stats().packets("sent");
    manager.wait_until("traffic again", |l| l.packets("sent") > sent + 500);
    let (audit, balanced) = manager.audit();
    assert!(balanced, "{audit}");
    let ledger = manager.stop(LIMIT);
    let report = judge.wait(LIMIT).good().json()["report"].clone();
    assert_eq!(report["reordered"], 0, "{report}");
    assert!(
        report["missing"].as_u64().unwrap() <= ledger.packets("dropped"),
        "{report} {}",
        ledger.0["drops"]
    );
    drop(next);
}
