//! nf-firewall under a manager: rules reload under traffic, answers go back, connections outlive an instance.

use onvm_lib::packet::DropReason;
use onvm_lib::wire::build::Packet;
use onvm_lib::wire::tcp::Flags;
use onvm_lib::wire::{MacAddr, describe};
use onvm_tests::{LIMIT, Lab, last_report, read_capture, write_capture};
use rustix::process::Signal;
use serde_json::Value;

/// Replaces a file as editors do.
fn put(lab: &Lab, text: &str) {
    std::fs::write(lab.path("rules.new"), text).unwrap();
    std::fs::rename(lab.path("rules.new"), lab.path("rules")).unwrap();
}

fn hits(report: &Value, name: &str) -> u64 {
    let rules = report["rules"].as_array().unwrap();
    rules.iter().find(|rule| rule["name"] == name).map_or(0, |rule| rule["packets"].as_u64().unwrap())
}

/// Rules of which only the one with this name matches; it allows.
fn rules(name: &str) -> String {
    let others: String = (0..500)
        .map(|n| format!("  - {{name: n{n}, from: 240.0.{}.{}, action: deny}}\n", n / 250, n % 250))
        .collect();
    format!("default: deny\nrules:\n{others}  - {{name: {name}, action: allow}}\n")
}

#[test]
fn rules_reload_under_traffic_without_losing_a_packet() {
    let lab = Lab::new();
    put(&lab, &rules("first"));
    let manager = lab.manager(&["--port", "gen:rate=5k,flows=200", "--port", "null:", "--chain", "1"]);
    let arguments = ["-r", "1", "--json", "--rules", &lab.file("rules"), "--watch"];
    let mut firewall = lab.start_in("nf-firewall", &arguments, &[("RUST_LOG", "info")]);
    manager.wait_for_instances(1);
    let more = |what: &str| {
        let so_far = manager.stats().packets("sent");
        manager.wait_until(what, |l| l.packets("sent") > so_far + 2000);
    };
    more("traffic");
    // By the watch, by the signal, by a message.
    let mut in_force = 0;
    let mut wait_for_set = |firewall: &mut onvm_tests::Process| {
        in_force += 1;
        onvm_tests::wait_until("the new set", || {
            firewall.errors().matches("are in force").count() >= in_force
        });
    };
    put(&lab, &rules("second"));
    wait_for_set(&mut firewall);
    more("traffic under the second set");
    put(&lab, "rules:\n  - {name: broken, action: alow}\n");
    firewall.wait_for_error("did you mean \"allow\"?", LIMIT);
    more("traffic beside a broken file");
    put(&lab, &rules("third"));
    wait_for_set(&mut firewall);
    more("traffic under the third set");
    firewall.signal(Signal::HUP);
    wait_for_set(&mut firewall);
    let _ = lab.client(&["nf", "tell", "1", "--topic", "reload", "--body", "null"]).good();
    wait_for_set(&mut firewall);
    more("traffic under the last set");
    firewall.signal(Signal::TERM);
    let end = firewall.wait(LIMIT).good();
    let ledger = manager.stop(LIMIT);
    ledger.assert_clean();
    let json: Value = serde_json::from_str(end.out.lines().last().unwrap_or_default()).unwrap();
    let report = &json["report"];
    let allowed: u64 = ["third"].iter().map(|name| hits(report, name)).sum();
    assert!(allowed > 2000, "{report}");
    assert_eq!(report["allowed"], json["packets"], "every packet that came in was allowed: {report}");
    assert_eq!((&report["default"]["packets"], &report["denied"]), (&0.into(), &0.into()));
    // The watch may see a file twice that is written while it looks.
    let set = &report["set"];
    assert!(set["generation"].as_u64() >= Some(5) && set["failures"].as_u64() >= Some(1), "{report}");
    for reason in [DropReason::Denied, DropReason::Backpressure, DropReason::Lost, DropReason::Reaped] {
        assert_eq!(ledger.drops(reason), 0, "{reason}");
    }
}

fn side<'a>(reply: bool) -> Packet<'a> {
    let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let (from, to) = if reply { (b, a) } else { (a, b) };
    Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6])).ipv4(from.into(), to.into())
}

#[test]
fn answers_go_out_of_the_port_that_the_packet_came_by() {
    let lab = Lab::new();
    put(&lab, "default: reject\nrules: []\n");
    let frames: Vec<Vec<u8>> =
        (1..=100).map(|port| side(false).tcp(port, 23).flags(Flags::SYN).seq(7).to_vec().unwrap()).collect();
    write_capture(&lab.path("in.pcap"), &frames);
    let (input, output) = (lab.file("in.pcap"), lab.file("out.pcap"));
    // So few at a time, even on a slow machine, that the firewall has an empty buffer for each answer.
    let port = format!("pcap:in={input},out={output},pps=100");
    let mut manager = lab.manager(&["--port", &port, "--port", "null:", "--chain", "1"]);
    let mut firewall = lab.nf("nf-firewall", &["-r", "1", "--rules", &lab.file("rules")]);
    let ledger = manager.ended(LIMIT);
    ledger.assert_clean();
    let report = firewall.wait(LIMIT).good().json()["report"].clone();
    let answers = report["answers"].as_u64().unwrap();
    let rejected = report["rejected"].as_u64().unwrap();
    assert!(rejected > 0 && answers == rejected && ledger.drops(DropReason::Denied) == rejected, "{report}");
    let out = read_capture(&lab.path("out.pcap"));
    assert_eq!(out.len() as u64, answers, "and out of no other port");
    let text = describe(&out[0].data).to_string();
    assert!(text.contains("10.0.0.2.23 > 10.0.0.1") && text.contains("Flags [R.], seq 0, ack 8"), "{text}");
}

#[test]
fn connections_outlive_an_instance() {
    let lab = Lab::new();
    put(
        &lab,
        "rules:\n  - {name: known, state: established, action: allow}\n\
         \x20 - {name: begin, state: new, flags: 'syn,!ack', action: allow}\n",
    );
    let mut frames = vec![
        side(false).tcp(9, 80).flags(Flags::SYN).seq(100).to_vec().unwrap(),
        side(true).tcp(80, 9).flags(Flags(0x12)).seq(500).ack(101).to_vec().unwrap(),
        side(false).tcp(9, 80).seq(101).ack(501).to_vec().unwrap(),
    ];
    let data = |n: u32| side(false).tcp(9, 80).seq(101 + n).ack(501).payload(b"x").to_vec().unwrap();
    frames.extend((0..600).map(data));
    write_capture(&lab.path("in.pcap"), &frames);
    let (input, output, rules) = (lab.file("in.pcap"), lab.file("out.pcap"), lab.file("rules"));
    let file = format!(
        "ports: [\"pcap:in={input},pps=300,out={output}\"]\n\
         services: {{wall: {{id: 1, command: [nf-firewall, --json, --no-pick-up, --rules, \"{rules}\"]}}}}\n\
         chains: {{main: [wall]}}\n"
    );
    let manager = lab.up(&file, &["--stay"]);
    for at in [150, 350] {
        manager.wait_until("traffic", |l| l.packets("received") >= at);
        let before = lab.pids(1);
        let _ = lab.client(&["nf", "restart", "wall"]).good();
        assert!(lab.pids(1).iter().all(|pid| !before.contains(pid)));
    }
    let log = lab.log(1);
    manager.wait_until("all packets", |l| l.packets("sent") == frames.len() as u64);
    manager.stop(LIMIT).assert_clean();
    let report = last_report(&log);
    assert_eq!((hits(&report, "begin"), hits(&report, "known")), (1, 602), "{report}");
    assert_eq!(report["connections"]["invalid"], 0);
    assert_eq!(read_capture(&lab.path("out.pcap")).len(), frames.len());
}
