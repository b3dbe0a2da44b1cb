//! Instances are replaced under traffic: state goes along, nothing is lost or reordered, and what fails changes nothing.

use std::time::Duration;

use onvm_lib::protocol::{Request, Target};
use onvm_tests::{
    LIMIT, Lab, Ledger, Manager, last_report, made_capture, read_capture, sample, signal_pid, wait_until,
};
use rustix::process::Signal;
use serde_json::Value;

/// Everything in a monitor's report that does not depend on when it looked.
fn timeless(mut report: Value) -> Value {
    let all = report.as_object_mut().unwrap();
    all.retain(|name, _| !name.starts_with("rate"));
    let flows = all["top_flows"].as_array_mut().unwrap();
    for flow in flows.iter_mut() {
        flow.as_object_mut().unwrap().retain(|name, _| !name.ends_with("_ns"));
    }
    // Equal ones come in the order in which they began, which depends on what came in one burst.
    flows.sort_by_key(|flow| flow["flow"].to_string());
    report
}

#[test]
fn a_monitor_replaced_in_the_middle_of_a_capture_counts_as_one_that_is_not() {
    let lab = Lab::new();
    let capture = sample().display().to_string();
    // No flow expires, however long the machine takes for it.
    let options = ["--json", "--top", "1000", "--flow-timeout", "100000", "--active-timeout", "100000"];
    let whole = [&["--replay", &capture][..], &options].concat();
    let whole = lab.bare("nf-monitor", &whole).wait(LIMIT).good().json()["report"].clone();
    let out = lab.file("out.pcap");
    let file = format!(
        "ports: [\"pcap:in={capture},pps=500,out={out}\"]\n\
         services: {{monitor: {{id: 1, command: [nf-monitor, {}]}}}}\nchains: {{main: [monitor]}}\n",
        options.map(|word| format!("{word:?}")).join(", ")
    );
    let manager = lab.up(&file, &["--stay"]);
    for (replaced, at) in [200, 500, 800, 1100].into_iter().enumerate() {
        manager.wait_until("traffic", |l| l.packets("received") >= at);
        let before = lab.pids(1);
        let _ = match replaced % 2 {
            0 => lab.client(&["nf", "restart", "monitor"]).good(),
            _ => lab
                .replace("1", &[&["nf-monitor", "--max-flows", "5000"][..], &options].concat())
                .wait(LIMIT)
                .good(),
        };
        assert!(lab.pids(1).iter().all(|pid| !before.contains(pid)));
    }
    let log = lab.log(1);
    let all = read_capture(&sample()).len() as u64;
    manager.wait_until("all packets", |l| l.packets("sent") == all);
    manager.stop(LIMIT).assert_clean();
    assert_eq!(timeless(last_report(&log)), timeless(whole));
    assert_eq!(read_capture(&lab.path("out.pcap")).len(), read_capture(&sample()).len());
}

#[test]
fn a_bridge_keeps_its_addresses() {
    let lab = Lab::new();
    // The other direction: made packets whose addresses are exchanged.
    let there = made_capture(&lab.path("there.pcap"), 3000, 10);
    let mut back = std::fs::read(lab.path("there.pcap")).unwrap();
    let (a, b) = (there[0].data[..6].to_vec(), there[0].data[6..12].to_vec());
    let mut at = 0;
    while let Some(found) = back[at..].windows(12).position(|w| w[..6] == a && w[6..] == b) {
        at += found;
        back[at..at + 6].copy_from_slice(&b);
        back[at + 6..at + 12].copy_from_slice(&a);
        at += 12;
    }
    std::fs::write(lab.path("back.pcap"), back).unwrap();
    let port =
        |name: &str| format!("pcap:in={},pps=2000,out={}", lab.file(name), lab.file(&format!("to-{name}")));
    let file = format!(
        "ports: [\"{}\", \"{}\", \"null:\"]\n\
         services: {{bridge: {{id: 1, command: [nf-forward, --bridge, --ports, \"3\", --json]}}}}\nchains: {{main: [bridge]}}\n",
        port("there.pcap"),
        port("back.pcap")
    );
    let manager = lab.up(&file, &["--stay"]);
    for at in [500, 1500, 2500, 3500] {
        manager.wait_until("traffic", |l| l.packets("received") >= at);
        let _ = lab.client(&["nf", "restart", "bridge"]).good();
    }
    let log = lab.log(1);
    manager.wait_until("all packets", |l| l.packets("sent") == 6000 + l.packets("copied"));
    let ledger = manager.stop(LIMIT);
    ledger.assert_clean();
    let report = last_report(&log);
    assert_eq!(report["packets"], 6000, "{report}");
    let learned = report["bridge"].clone();
    assert!(
        ledger.packets("copied") < 500,
        "only what came before it knew the addresses is flooded: {learned}"
    );
    assert_eq!(ledger.port(2, "tx_packets"), ledger.packets("copied"), "{learned}");
    assert_eq!(read_capture(&lab.path("to-back.pcap")).len(), 3000);
    assert_eq!(read_capture(&lab.path("to-there.pcap")).len(), 3000);
}

/// A chain file with one service before a judge of the order.
fn chain_file(service: &str, rate: &str) -> String {
    format!(
        "ports:\n  - gen:size=64,flows=50,rate={rate},sequence=1\n  - \"null:\"\n\
         services:\n  middle: {{id: 1, {service}}}\n  judge: {{id: 2, command: [order_nf, --flows, \"50\", --json]}}\n\
         chains:\n  main: [middle, judge]\ndefault-chain: main\n"
    )
}

fn up<'a>(lab: &'a Lab, service: &str, rate: &str, instances: usize) -> Manager<'a> {
    let manager = lab.up(&chain_file(service, rate), &["--wait", "1,2"]);
    lab.wait_for_running(2, 1);
    lab.wait_for_running(1, instances);
    manager
}

/// More packets have gone through since.
fn goes_on(manager: &Manager<'_>) {
    let sent = manager.stats().packets("sent");
    manager.wait_until("more packets", |l| l.packets("sent") > sent + 1000);
}

const HEIR: &str = "command: [heir_nf, --json]";

#[test]
fn twenty_times_in_a_row() {
    let lab = Lab::new();
    let manager = up(&lab, &format!("{HEIR}, instances: 2"), "5k", 2);
    for round in 0..20 {
        let before = lab.pids(1);
        let (body, ok) = lab.ask(Request::NfRestart { target: Target::Service(1) }).unwrap();
        assert!(ok && body["instances"] == 2, "round {round}: {body}");
        let after = lab.pids(1);
        assert!(after.len() == 2 && after.iter().all(|pid| !before.contains(pid)), "{before:?} {after:?}");
    }
    goes_on(&manager);
    let report = lab.judged_whole(manager, 2);
    println!("longest gap {} us", report["longest_gap_us"]);
}

/// A replacement by `command` that fails: the client is told why, and the old one goes on as it was.
fn fails(lab: &Lab, manager: &Manager<'_>, command: &[&str], why: &str) {
    let (pids, before) = (lab.pids(1), manager.stats().of_service(1).count("received"));
    let end = lab.replace("1", command).wait(LIMIT).with_code(1);
    assert!(end.err.contains(" is not replaced: ") && end.err.contains(why), "{command:?}: {end}");
    wait_until("the end of the successor", || lab.instances(1).len() == 1);
    lab.wait_for_running(1, 1);
    assert_eq!(lab.pids(1), pids, "{command:?}");
    let received =
        |l: &Ledger| l.present().iter().find(|i| i.service() == 1).map_or(0, |i| i.count("received"));
    manager.wait_until("packets through the old one", |l| received(l) > before + 10);
}

#[test]
fn a_successor_that_fails_changes_nothing() {
    let lab = Lab::new();
    let manager = up(&lab, HEIR, "5k", 1);
    for (command, why) in [
        (&["no-such-nf"][..], "there is no program no-such-nf"),
        (&["probe_nf", "--fail"], "its successor is gone: it ended with exit code 1"),
        (&["true"], "its successor ended at once: it ended with exit code 0"),
        (&["heir_nf", "--die", "setup"], "its successor is gone: it was killed by signal 6 (SIGABRT)"),
        (&["nf-forward"], "its successor cannot use its state: the state is of heir_nf, this is nf-forward"),
        (&["heir_nf", "--refuse"], "its successor cannot use its state: it was told to refuse"),
        (&["heir_nf", "--die", "take-over"], "its successor is gone: it was killed by signal 6 (SIGABRT)"),
    ] {
        fails(&lab, &manager, command, why);
    }
    // What was tried in vain is not the service's command now.
    let pid = lab.pids(1)[0];
    signal_pid(pid, Signal::KILL);
    wait_until("the next one", || lab.pids(1).iter().any(|p| *p != pid));
    lab.wait_for_running(1, 1);
    let _ = lab.client(&["nf", "restart", "1"]).good();
    goes_on(&manager);
    let command = || lab.ask(Request::PlanShow).unwrap().0["services"]["1"]["command"].clone();
    assert_eq!(command().as_array().map(Vec::len), Some(2), "{}", command());
    let _ = lab.replace("1", &["heir_nf", "--json", "--slow-ms", "1"]).wait(LIMIT).good();
    assert_eq!(command()[3], "1", "what was tried with success is: {}", command());
    let _ = lab.judged_whole(manager, 2);
}

#[test]
fn a_successor_that_takes_too_long_is_given_up() {
    let late = ["heir_nf", "--slow", "take-over", "--slow-ms", "60000"];
    std::thread::scope(|scope| {
        let test = |command: &'static [&'static str], why: &'static str| {
            let lab = Lab::new();
            let manager = lab.up(&chain_file(HEIR, "50"), &["--wait", "1,2"]);
            lab.wait_for_running(1, 1);
            lab.wait_for_running(2, 1);
            fails(&lab, &manager, command, why);
            let _ = lab.judged_whole(manager, 2);
        };
        let late: &'static [&'static str] = &*Box::leak(Box::new(late));
        scope.spawn(move || test(late, "its successor did not read its state in time"));
        test(&["sh", "-c", "exec sleep 100"], "its successor did not attach in time");
    });
}

#[test]
fn one_that_is_killed_while_it_is_replaced_loses_nothing() {
    let lab = Lab::new();
    let manager = up(&lab, "command: [heir_nf, --json, --slow, hand-over], restart: {delay: 0.01}", "2k", 1);
    for (round, (slow, wait_ms)) in
        [("setup", 100), ("hand-over", 100), ("take-over", 450), ("setup", 10)].into_iter().enumerate()
    {
        let old = lab.pids(1)[0];
        let mut client = lab.replace("1", &["heir_nf", "--json", "--slow", slow]);
        let number = lab.last_event();
        wait_until("the start of a successor", || {
            lab.events(number.saturating_sub(1)).iter().any(|e| e["event"] == "start")
        });
        std::thread::sleep(Duration::from_millis(wait_ms));
        signal_pid(old, Signal::KILL);
        let end = client.wait(LIMIT);
        assert!(matches!(end.code, Some(0 | 1)), "{end}");
        wait_until("the place of the old one", || lab.pids(1).iter().all(|pid| *pid != old));
        lab.wait_for_running(1, 1);
        goes_on(&manager);
        println!("round {round}: {}{}", end.out, end.err);
        // Those that are slow to hand over give way to one that is not.
        let _ = lab.replace("1", &["heir_nf", "--json", "--slow", "hand-over"]).wait(LIMIT).good();
    }
    let _ = lab.judged_whole(manager, 2);
}

#[test]
fn another_plan_may_want_another_command_and_another_number_of_instances() {
    let lab = Lab::new();
    let plan = |command: &str, instances: u32| {
        format!(
            "ports: [\"gen:rate=5k,flows=64,sequence=1\", \"null:\"]\n\
             services:\n  forward: {{id: 1, command: {command}, instances: {instances}}}\n  \
             judge: {{id: 2, command: [order_nf, --flows, \"64\", --json]}}\n\
             chains: {{main: [forward, judge]}}\n"
        )
    };
    let manager = lab.up(&plan("nf-forward", 3), &[]);
    lab.wait_for_running(1, 3);
    for (command, instances) in [("nf-forward --mac-swap", 1), ("nf-forward", 2)] {
        let before = lab.pids(1);
        let file = lab.write("next.yaml", &plan(command, instances));
        let _ = lab.client(&["apply", &file]).good();
        wait_until("all are new", || lab.pids(1).iter().all(|pid| !before.contains(pid)));
        lab.wait_for_running(1, instances as usize);
    }
    let (report, ledger) = lab.judged(manager, 2);
    assert_eq!((&report["reordered"], &report["missing"]), (&0.into(), &0.into()), "{report}");
    assert!(ledger.0["drops"].as_object().is_none_or(serde_json::Map::is_empty), "{}", ledger.0["drops"]);
}
