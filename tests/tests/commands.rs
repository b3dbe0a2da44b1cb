//! What a running manager can be asked and told.

use std::time::Instant;

use onvm_tests::{LIMIT, Lab, Manager, Process, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

/// A manager that goes on for ever, with a chain of two.
fn running(lab: &Lab) -> (Manager<'_>, [Process; 2]) {
    let manager = lab.manager(&["--port", "gen:rate=20k,flows=4", "--port", "null:", "--chain", "1,2"]);
    let nfs = [lab.nf("probe_nf", &["-r", "1"]), lab.nf("nf-monitor", &["-r", "2", "--name", "watch"])];
    manager.wait_until("traffic", |l| l.packets("sent") > 100);
    (manager, nfs)
}

#[test]
fn status_and_stats_tell_of_ports_services_and_memory() {
    let lab = Lab::new();
    let (manager, _nfs) = running(&lab);
    for command in ["status", "stats"] {
        let text = lab.client(&[command]).good().out;
        for part in [
            "Ports",
            "gen:rate=20k,flows=4",
            "null:",
            "Network functions",
            "watch",
            "probe_nf",
            "buffers free",
        ] {
            assert!(text.contains(part), "{command} does not tell of {part}:\n{text}");
        }
        let value = lab.client(&[command, "--json"]).good().json();
        assert_eq!((&value["phase"], value["ports"].as_array().map(Vec::len)), (&json!("running"), Some(2)));
        assert!(value["packets"]["received"].as_u64() > Some(100), "{value}");
    }
    manager.stop(LIMIT).assert_clean();
}

#[test]
fn nfs_are_listed_and_stopped() {
    let lab = Lab::new();
    let (manager, mut nfs) = running(&lab);
    let text = lab.client(&["nf", "list"]).good().out;
    assert!(text.contains("watch") && text.lines().count() == 3, "{text}");
    let list = lab.client(&["nf", "list", "--json"]).good().json();
    let instances = list["instances"].as_array().unwrap();
    assert_eq!(instances.len(), 2, "{list}");
    let watch = instances.iter().find(|i| i["name"] == "watch").unwrap();
    assert_eq!(
        (&watch["service"], &watch["reads_only"], &watch["state"]),
        (&json!(2), &json!(true), &json!("running"))
    );
    assert_eq!(watch["pid"], nfs[1].pid());
    // A second one, so that packets have somewhere to go when the first is stopped.
    let mut second = lab.nf("nf-monitor", &["-r", "2"]);
    manager.wait_for_instances(3);
    let id = watch["instance"].to_string();
    assert_eq!(lab.client(&["nf", "stop", "-n", &id]).good().out, "asked 1 instance to leave\n");
    let _ = nfs[1].wait(LIMIT).good();
    manager.wait_for_instances(2);
    let refused = lab.client(&["nf", "stop", "-n", &id]).with_code(1);
    assert_eq!(refused.err, format!("onvm-mgr: there is no instance {id}\n"));
    assert_eq!(lab.client(&["nf", "stop", "9"]).with_code(1).err, "onvm-mgr: service 9 has no instance\n");
    let before = manager.stats().packets("sent");
    manager.wait_until("traffic by the second", |l| l.packets("sent") > before + 100);
    let told = lab.client(&["nf", "stop", "2", "--json"]).good().json();
    assert_eq!(told, json!({ "instances": 1 }));
    let _ = second.wait(LIMIT).good();
    manager.stop(LIMIT).assert_clean();
}

#[test]
fn nfs_are_told() {
    let lab = Lab::new();
    let (manager, mut nfs) = running(&lab);
    let out = lab.client(&["nf", "tell", "1", "--topic", "rules", "--body", "{\"add\": 5}"]).good().out;
    assert_eq!(out, "told 1 instance\n");
    let none = lab.client(&["nf", "tell", "7", "--topic", "rules"]).with_code(1);
    assert_eq!(none.err, "onvm-mgr: service 7 has no instance\n");
    let bad = lab.client(&["nf", "tell", "1", "--topic", "x", "--body", "{"]).with_code(2);
    assert!(bad.err.contains("not JSON"), "{bad}");
    let ledger = manager.stop(LIMIT);
    assert_eq!(nfs[0].wait(LIMIT).good().json()["report"]["messages"], json!(["rules: {\"add\":5}"]));
    ledger.assert_clean();
}

#[test]
fn the_chain_changes_while_packets_flow() {
    let lab = Lab::new();
    let (manager, _nfs) = running(&lab);
    assert_eq!(lab.client(&["chain", "show"]).good().out, "1 -> 2\n");
    assert_eq!(lab.client(&["chain", "show", "--json"]).good().json()["chain"], json!([1, 2]));
    let received = |l: &onvm_tests::Ledger, service| l.of_service(service).count("received");
    assert_eq!(lab.client(&["chain", "set", "1"]).good().out, "1\n");
    // No more packets come to a service that is on no chain, once those that were on the way are counted.
    let rests = |service| {
        let until = Instant::now() + LIMIT;
        loop {
            let before = manager.stats();
            let sent = before.packets("sent") + 1000;
            let after = manager.wait_until("packets beside it", |l| l.packets("sent") > sent);
            if received(&before, service) == received(&after, service) {
                return received(&after, service);
            }
            assert!(Instant::now() < until, "service {service} still gets packets: {}", after.0);
        }
    };
    let idle = rests(2);
    assert_eq!(lab.client(&["chain", "set", "2,1"]).good().out, "2 -> 1\n");
    manager.wait_until("a chain of two", |l| received(l, 2) > idle + 1000);
    assert_eq!(lab.client(&["chain", "set", "none"]).good().out, "none: straight from port to port\n");
    let _ = rests(1);
    assert!(lab.client(&["chain", "set", "1,9"]).good().out.contains("without an instance: 9"));
    assert_eq!(lab.client(&["chain", "set", "1,0"]).with_code(2).out, "");
    let _ = lab.client(&["chain", "set", "1,2"]).good();
    manager.wait_until("all that waited", |l| {
        l.0["services"].as_array().unwrap().iter().all(|s| s["waiting"] == 0 || s["service"] == 9)
    });
    let ledger = manager.stop(LIMIT);
    ledger.assert_balanced();
    assert_eq!(ledger.bad_descriptors(), 0);
}

#[test]
fn the_audit_balances_at_any_moment() {
    let lab = Lab::new();
    let (manager, _nfs) = running(&lab);
    for _ in 0..20 {
        let text = lab.client(&["audit"]).good().out;
        assert_eq!(text.matches(": balances").count(), 2, "{text}");
    }
    let value: Value = lab.client(&["audit", "--json"]).good().json();
    assert_eq!((&value["packets"]["balances"], &value["pool"]["balances"]), (&json!(true), &json!(true)));
    manager.stop(LIMIT).assert_clean();
}

#[test]
fn stop_lets_everything_out() {
    let lab = Lab::new();
    let (mut manager, mut nfs) = running(&lab);
    assert_eq!(lab.client(&["stop"]).good().out, "stopping\n");
    let ledger = manager.ended(LIMIT);
    ledger.assert_clean();
    assert_eq!(ledger.packets("received"), ledger.packets("sent"));
    for nf in &mut nfs {
        let _ = nf.wait(LIMIT).good();
    }
}

/// Answers that do not fit a message: 64 reports of NFs that have gone, and some of those that are there.
#[test]
fn long_answers_arrive_too() {
    let lab = Lab::new();
    let (manager, _nfs) = running(&lab);
    let body = format!("\"{}\"", "x".repeat(20_000));
    for _ in 0..5 {
        let _ = lab.client(&["nf", "tell", "1", "--topic", "t", "--body", &body]).good();
    }
    for round in 0..3 {
        let mut probes: Vec<_> = (0..3).map(|_| lab.nf("probe_nf", &["-r", "8"])).collect();
        manager.wait_for_instances(5);
        for _ in 0..4 {
            let _ = lab.client(&["nf", "tell", "8", "--topic", "t", "--body", &body]).good();
        }
        let _ = lab.client(&["nf", "stop", "8"]).good();
        for probe in &mut probes {
            let _ = probe.wait(LIMIT).good();
        }
        manager.wait_for_instances(2);
        assert_eq!(manager.stats().instances().len(), 2 + 3 * (round + 1));
    }
    let mut client = lab.start("onvm-mgr", &["stats", "--json"]);
    let stats = client.wait(LIMIT).good();
    assert!(stats.out.len() > 300_000, "{} bytes", stats.out.len());
    manager.stop(LIMIT).assert_clean();
}

#[test]
fn tables_are_printed_at_intervals() {
    let lab = Lab::new();
    let mut manager =
        lab.start("onvm-mgr", &["--port", "gen:rate=10k", "--chain", "none", "-i", "0.1", "--no-pin"]);
    wait_until("three tables", || manager.output().matches("onvm-mgr, running").count() >= 3);
    manager.signal(Signal::INT);
    let end = manager.wait(LIMIT).good();
    assert_eq!(end.out.matches(": balances").count(), 2, "{end}");
    let mut manager = lab.manager(&["--port", "gen:rate=10k", "--chain", "none", "-i", "0.1"]);
    wait_until("four lines", || manager.process.output().lines().count() >= 4);
    manager.process.signal(Signal::INT);
    let end = manager.process.wait(LIMIT).good();
    for line in end.out.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(value["packets"]["received"].is_u64());
    }
    assert!(end.out.lines().count() >= 5, "the last is the ledger: {end}");
}
