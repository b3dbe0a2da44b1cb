//! nf-ids under a manager: rules reload under traffic, what is dropped goes nowhere, who is rejected hears of it.

use onvm_lib::packet::DropReason;
use onvm_lib::wire::build::Packet;
use onvm_lib::wire::{Headers, MacAddr, icmp};
use onvm_tests::{LIMIT, Lab, read_capture, write_capture};
use rustix::process::Signal;
use serde_json::Value;

/// Replaces a file as editors do.
fn put(lab: &Lab, text: &str) {
    std::fs::write(lab.path("rules.new"), text).unwrap();
    std::fs::rename(lab.path("rules.new"), lab.path("rules")).unwrap();
}

/// Many rules that match nothing, and one that looks at every packet.
fn rules(sid: u32) -> String {
    let others: String = (0..500)
        .map(|n| format!("drop udp any any -> any any (content:\"never seen {n}\"; sid:{};)\n", 10_000 + n))
        .collect();
    format!("{others}alert udp any any -> any any (ttl:>0; noalert; sid:{sid};)\n")
}

fn hits(report: &Value, sid: u64) -> u64 {
    let rules = report["hits"].as_array().unwrap();
    rules.iter().find(|rule| rule["sid"] == sid).map_or(0, |rule| rule["hits"].as_u64().unwrap())
}

#[test]
fn rules_reload_under_traffic_without_losing_a_packet() {
    let lab = Lab::new();
    put(&lab, &rules(1));
    let manager = lab.manager(&["--port", "gen:rate=20k,flows=200", "--port", "null:", "--chain", "1"]);
    let arguments = ["-r", "1", "--json", "--rules", &lab.file("rules"), "--watch"];
    let mut ids = lab.start_in("nf-ids", &arguments, &[("RUST_LOG", "info")]);
    lab.wait_for_running(1, 1);
    let more = |what: &str| {
        let so_far = manager.stats().packets("sent");
        manager.wait_until(what, |l| l.packets("sent") > so_far + 2000);
    };
    more("traffic");
    // By the watch, by the signal, by a message.
    let mut in_force = 0;
    let mut wait_for_set = |ids: &mut onvm_tests::Process| {
        in_force += 1;
        onvm_tests::wait_until("the new set", || ids.errors().matches("are in force").count() >= in_force);
    };
    put(&lab, &rules(2));
    wait_for_set(&mut ids);
    more("traffic under the second set");
    put(&lab, "allert ip any any -> any any (sid:3;)\n");
    ids.wait_for_error("alert", LIMIT);
    more("traffic beside a broken file");
    put(&lab, &rules(4));
    wait_for_set(&mut ids);
    ids.signal(Signal::HUP);
    wait_for_set(&mut ids);
    let _ = lab.client(&["nf", "tell", "1", "--topic", "reload", "--body", "null"]).good();
    wait_for_set(&mut ids);
    more("traffic under the last set");
    ids.signal(Signal::TERM);
    let end = ids.wait(LIMIT).good();
    let ledger = manager.stop(LIMIT);
    ledger.assert_clean();
    let json: Value = serde_json::from_str(end.out.lines().last().unwrap_or_default()).unwrap();
    let report = &json["report"];
    let looked_at: u64 = [1, 2, 4].iter().map(|sid| hits(report, *sid)).sum();
    assert_eq!(Some(looked_at), json["packets"].as_u64(), "every packet was looked at once: {report}");
    assert!(hits(report, 4) > 2000, "{report}");
    for reason in [DropReason::Denied, DropReason::Backpressure, DropReason::Lost, DropReason::Reaped] {
        assert_eq!(ledger.drops(reason), 0, "{reason}");
    }
}

#[test]
fn what_is_dropped_goes_nowhere_and_who_is_rejected_hears_of_it() {
    let lab = Lab::new();
    put(
        &lab,
        "drop udp any any -> any any (content:\"evil\"; sid:1;)\n\
         reject udp any any -> any any (content:\"rude\"; sid:2;)\n\
         alert udp any any -> any any (content:\"odd\"; sid:3;)\n\
         pass udp any any -> any any (content:\"evil but known\"; sid:4;)\n",
    );
    let words: [&[u8]; 5] = [b"plain", b"evil", b"rude", b"odd", b"evil but known"];
    let frames: Vec<Vec<u8>> = (0u16..100)
        .map(|n| {
            let packet = Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6]));
            let packet = packet.ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
            packet.udp(1000 + n, 9).payload(words[usize::from(n) % 5]).to_vec().unwrap()
        })
        .collect();
    write_capture(&lab.path("in.pcap"), &frames);
    let there = format!("pcap:in={},out={},pps=1000", lab.file("in.pcap"), lab.file("back.pcap"));
    let onward = format!("pcap:out={}", lab.file("out.pcap"));
    let mut manager = lab.manager(&["--port", &there, "--port", &onward, "--chain", "1"]);
    let eve = lab.file("eve.json");
    let mut ids = lab.nf("nf-ids", &["-r", "1", "--rules", &lab.file("rules"), "--eve", &eve]);
    let ledger = manager.ended(LIMIT);
    ledger.assert_clean();
    let _ = ids.wait(LIMIT).good();
    let passed: Vec<Vec<u8>> = read_capture(&lab.path("out.pcap")).into_iter().map(|p| p.data).collect();
    let wanted: Vec<&Vec<u8>> =
        frames.iter().zip(0..).filter(|(_, n)| [0, 3, 4].contains(&(n % 5))).map(|(f, _)| f).collect();
    assert_eq!(passed.iter().collect::<Vec<_>>(), wanted);
    let answers = read_capture(&lab.path("back.pcap"));
    assert_eq!(answers.len(), 20);
    for answer in &answers {
        let frame = &answer.data;
        let headers = Headers::parse(frame);
        assert_eq!(headers.icmp(frame).map(|message| message.kind()), Some(icmp::UNREACHABLE));
        assert_eq!(headers.original(frame).and_then(|it| it.ports(frame)).map(|(_, to)| to), Some(9));
    }
    let lines = std::fs::read_to_string(eve).unwrap();
    let alerts: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |sid: u64| alerts.iter().filter(|a| a["alert"]["signature_id"] == sid).count();
    assert_eq!((of(1), of(2), of(3), of(4)), (20, 20, 20, 0));
    let action = |sid: u64| {
        let one = alerts.iter().find(|a| a["alert"]["signature_id"] == sid).unwrap();
        one["alert"]["action"].as_str().unwrap().to_string()
    };
    assert_eq!((action(1).as_str(), action(3).as_str()), ("blocked", "allowed"));
}
