//! nf-ids under a manager: rules reload under traffic, what is dropped goes nowhere, who is rejected hears of it.

use onvm_lib::packet::DropReason;
use onvm_lib::wire::build::Packet;
use onvm_lib::wire::tcp::Flags;
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
    let manager = lab.manager(&["--port", "gen:rate=5k,flows=200", "--port", "null:", "--chain", "1"]);
    let arguments = ["-r", "1", "--json", "--rules", &lab.file("rules"), "--watch"];
    let mut ids = lab.start_in("nf-ids", &arguments, &[("RUST_LOG", "info")]);
    lab.wait_for_running(1, 1);
    let more = |what: &str| {
        let so_far = manager.stats().packets("sent");
        manager.wait_until(what, |l| l.packets("sent") > so_far + 1500);
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
    assert!(hits(report, 4) > 1500, "{report}");
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

/// A segment of a session between 10.0.0.1:1000 and 10.0.0.2:4000.
fn segment(client: bool, flags: u16, seq: u32, ack: u32, data: &[u8]) -> Vec<u8> {
    let base = Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6]));
    let (one, other) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let packet =
        if client { base.ipv4(one, other).tcp(1000, 4000) } else { base.ipv4(other, one).tcp(4000, 1000) };
    packet.seq(seq).ack(ack).flags(Flags(flags)).payload(data).to_vec().unwrap()
}

fn handshake() -> Vec<Vec<u8>> {
    vec![
        segment(true, 0x02, 100, 0, b""),
        segment(false, 0x12, 500, 101, b""),
        segment(true, 0x10, 101, 501, b""),
    ]
}

/// The resets in a capture as tshark sees them: ports, numbers, and whether the checksum is right (1).
fn resets(path: &std::path::Path) -> Option<Vec<String>> {
    let mut command = std::process::Command::new("tshark");
    command.arg("-r").arg(path).args([
        "-o",
        "tcp.check_checksum:TRUE",
        "-o",
        "tcp.relative_sequence_numbers:FALSE",
    ]);
    command.args(["-Y", "tcp.flags.reset == 1", "-T", "fields", "-E", "separator= "]);
    for field in ["tcp.srcport", "tcp.dstport", "tcp.seq", "tcp.ack", "tcp.checksum.status"] {
        command.args(["-e", field]);
    }
    let Ok(output) = command.output() else {
        eprintln!("tshark is not installed: nobody else looks at the resets");
        return None;
    };
    Some(String::from_utf8_lossy(&output.stdout).lines().map(str::to_string).collect())
}

#[test]
fn both_ends_of_a_rejected_session_are_reset_and_the_rest_of_it_goes_nowhere() {
    for (client, seq, ack, back, on) in [
        (true, 101, 501, "4000 1000 501 105 1", "1000 4000 101 501 1"),
        (false, 501, 101, "1000 4000 101 505 1", "4000 1000 501 101 1"),
    ] {
        let lab = Lab::new();
        put(&lab, "rejectboth tcp any any -> any any (content:\"rude\"; sid:1;)\n");
        let mut frames = handshake();
        frames.push(segment(client, 0x18, seq, ack, b"rude"));
        frames.extend((0..20).map(|n| segment(client, 0x18, seq + 4 + n, ack, b"x")));
        frames.push(segment(!client, 0x18, ack, seq + 4, b"y"));
        write_capture(&lab.path("in.pcap"), &frames);
        let there = format!("pcap:in={},out={},pps=1000", lab.file("in.pcap"), lab.file("back.pcap"));
        let onward = format!("pcap:out={}", lab.file("out.pcap"));
        let mut manager = lab.manager(&["--port", &there, "--port", &onward, "--chain", "1"]);
        let mut ids = lab.nf("nf-ids", &["-r", "1", "--rules", &lab.file("rules")]);
        manager.ended(LIMIT).assert_clean();
        let _ = ids.wait(LIMIT).good();
        let out = read_capture(&lab.path("out.pcap"));
        assert_eq!((out.len(), read_capture(&lab.path("back.pcap")).len()), (4, 1));
        assert!(out.iter().zip(handshake()).all(|(passed, sent)| passed.data == sent));
        for (file, wanted) in [("back.pcap", back), ("out.pcap", on)] {
            if let Some(found) = resets(&lab.path(file)) {
                assert_eq!(found, [wanted], "{file}");
            }
        }
    }
}

#[test]
fn a_successor_knows_the_flows_of_its_predecessor() {
    let lab = Lab::new();
    put(
        &lab,
        "drop tcp any any -> any any (content:\"evil\"; sid:1;)\n\
         alert udp any any -> any any (content:\"first\"; flowbits:set,a; noalert; sid:2;)\n\
         alert udp any any -> any any (content:\"last\"; flowbits:isset,a; sid:3;)\n",
    );
    let mut frames = handshake();
    frames.push(segment(true, 0x18, 101, 501, b"evil"));
    let datagram = |data: &[u8]| {
        let packet = Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6]));
        packet.ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).udp(1000, 9).payload(data).to_vec().unwrap()
    };
    frames.push(datagram(b"first"));
    frames.extend((0..600).map(|n| segment(true, 0x18, 105 + n, 501, b"x")));
    frames.push(datagram(b"last"));
    write_capture(&lab.path("in.pcap"), &frames);
    let eve = lab.file("eve.json");
    let file = format!(
        "ports: [\"pcap:in={},pps=300\", \"pcap:out={}\"]\n\
         services: {{ids: {{id: 1, command: [nf-ids, --rules, \"{}\", --eve, \"{eve}\", --eve-types, \"alert,flow\"]}}}}\n\
         chains: {{main: [ids]}}\n",
        lab.file("in.pcap"),
        lab.file("out.pcap"),
        lab.file("rules")
    );
    let manager = lab.up(&file, &["--stay"]);
    for at in [100, 300] {
        manager.wait_until("traffic", |l| l.packets("received") >= at);
        let _ = lab.client(&["nf", "restart", "ids"]).good();
    }
    let all = frames.len() as u64;
    manager.wait_until("all packets", |l| l.packets("sent") + l.packets("dropped") == all);
    manager.stop(LIMIT).assert_clean();
    let passed = read_capture(&lab.path("out.pcap"));
    assert_eq!(passed.len(), 5, "the handshake and the datagrams");
    let lines = std::fs::read_to_string(eve).unwrap();
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sids: Vec<u64> = events.iter().filter_map(|e| e["alert"]["signature_id"].as_u64()).collect();
    assert_eq!(sids, [1, 3]);
    let flows: Vec<&Value> = events.iter().filter(|e| e["event_type"] == "flow").collect();
    assert_eq!(flows.len(), 2, "each flow is told of once: {flows:?}");
    let session = flows.iter().find(|flow| flow["proto"] == "TCP").unwrap();
    assert_eq!((&session["flow"]["pkts_toserver"], &session["flow"]["alerted"]), (&603.into(), &true.into()));
}

#[test]
fn a_full_disk_costs_lines_and_no_packets() {
    let lab = Lab::new();
    let manager = lab.manager(&["--port", "gen:rate=2k,flows=50", "--port", "null:", "--chain", "1"]);
    put(&lab, "alert ip any any -> any any (ttl:>0; sid:1;)\n");
    let arguments = ["-r", "1", "--json", "--rules", &lab.file("rules"), "--eve", "/dev/full"];
    let mut ids = lab.nf("nf-ids", &arguments);
    manager.wait_until("traffic", |l| l.packets("sent") > 3000);
    ids.signal(Signal::TERM);
    let end = ids.wait(LIMIT).good();
    let ledger = manager.stop(LIMIT);
    ledger.assert_clean();
    let json: Value = serde_json::from_str(end.out.lines().last().unwrap_or_default()).unwrap();
    let report = &json["report"];
    assert!(report["counters"]["lines_lost"].as_u64() > Some(0), "{report}");
    for reason in [DropReason::Backpressure, DropReason::Lost, DropReason::Reaped] {
        assert_eq!(ledger.drops(reason), 0, "{reason}");
    }
}
