//! Packets through chains of separate processes: the same ones, in order, all accounted for.

use std::path::Path;
use std::process::Command;

use onvm_tests::{LIMIT, Lab, made_capture, read_capture, sample, wait_until};

/// What tshark makes of a capture: a line for each packet.
fn tshark(path: &Path) -> Option<String> {
    let fields = ["frame.time_epoch", "frame.len", "frame.protocols", "_ws.col.Info"];
    let fields = fields.iter().flat_map(|f| ["-e", *f]);
    let out = Command::new("tshark").arg("-r").arg(path).args(["-T", "fields"]).args(fields).output();
    let Ok(out) = out else {
        eprintln!("tshark is not installed: only our own reader compares");
        return None;
    };
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn pcap(input: &Path, more: &str) -> String {
    format!("pcap:in={}{more}", input.display())
}

#[test]
fn a_capture_goes_through_two_processes_and_comes_out_the_same() {
    let lab = Lab::new();
    let out = lab.path("out.pcap");
    let mut manager = lab.manager(&["--port", &pcap(&sample(), &format!(",out={}", out.display()))]);
    let mut monitor = lab.nf("nf-monitor", &["-r", "2"]);
    manager.wait_for_instances(1);
    let mut forward = lab.nf("nf-forward", &["-r", "1", "-d", "2"]);
    let ledger = manager.ended(LIMIT);
    ledger.assert_clean();
    let wanted = read_capture(&sample());
    assert_eq!(read_capture(&out), wanted);
    if let Some(text) = tshark(&sample()) {
        assert_eq!(tshark(&out).unwrap_or_default(), text);
        assert_eq!(text.lines().count(), wanted.len());
    }
    let n = wanted.len() as u64;
    assert_eq!((ledger.packets("received"), ledger.packets("sent"), ledger.packets("dropped")), (n, n, 0));
    for (nf, service) in [(&mut forward, 1), (&mut monitor, 2)] {
        let end = nf.wait(LIMIT).good();
        assert_eq!(end.json()["packets"], n, "{end}");
        assert_eq!(ledger.of_service(service).count("received"), n);
        assert_eq!(ledger.of_service(service).state(), "left");
        assert_eq!(ledger.of_service(service).report(), &end.json()["report"]);
    }
}

#[test]
fn the_chain_may_be_the_managers() {
    let lab = Lab::new();
    let out = lab.path("out.pcapng");
    let port = pcap(&sample(), &format!(",out={}", out.display()));
    let mut manager = lab.manager(&["--port", &port, "--chain", "3,1,2"]);
    let nfs = [
        lab.nf("nf-forward", &["-r", "1"]),
        lab.nf("nf-forward", &["-r", "3"]),
        lab.nf("nf-monitor", &["-r", "2"]),
    ];
    let ledger = manager.ended(LIMIT);
    ledger.assert_clean();
    let wanted = read_capture(&sample());
    assert_eq!(read_capture(&out), wanted);
    assert!(std::fs::read(&out).unwrap().starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]), "the name says pcapng");
    for service in 1..=3 {
        assert_eq!(ledger.of_service(service).count("received"), wanted.len() as u64);
    }
    for mut nf in nfs {
        let _ = nf.wait(LIMIT).good();
    }
}

#[test]
fn without_a_chain_packets_go_straight_through() {
    let lab = Lab::new();
    let out = lab.path("out.pcap");
    let port = pcap(&sample(), &format!(",out={}", out.display()));
    let ledger = lab.manager(&["--port", &port, "--chain", "none"]).ended(LIMIT);
    ledger.assert_clean();
    assert_eq!(read_capture(&out), read_capture(&sample()));
}

#[test]
fn two_ports_are_each_others_way_out() {
    let lab = Lab::new();
    let (a, b) = (lab.path("a.pcap"), lab.path("b.pcap"));
    let (from_a, from_b) = (made_capture(&a, 3000, 7), made_capture(&b, 2000, 5));
    let port = |input: &Path, out: &str| pcap(input, &format!(",out={}", lab.file(out)));
    let mut manager =
        lab.manager(&["--port", &port(&a, "to-a.pcap"), "--port", &port(&b, "to-b.pcap"), "--chain", "1"]);
    let mut nf = lab.nf("nf-forward", &["-r", "1"]);
    let ledger = manager.ended(LIMIT);
    ledger.assert_clean();
    assert_eq!(read_capture(&lab.path("to-b.pcap")), from_a);
    assert_eq!(read_capture(&lab.path("to-a.pcap")), from_b);
    assert_eq!((ledger.port(0, "tx_packets"), ledger.port(1, "tx_packets")), (2000, 3000));
    let _ = nf.wait(LIMIT).good();
}

#[test]
fn captures_are_looped_and_paced() {
    let lab = Lab::new();
    let input = lab.path("in.pcap");
    let packets = made_capture(&input, 500, 3);
    // The capture is 499 microseconds long.
    for (more, copies, at_least_ms) in [(",loop=4", 4, 0), (",pps=1000", 1, 400), (",speed=0.001", 1, 400)] {
        let out = lab.path("out.pcap");
        let started = std::time::Instant::now();
        let port = pcap(&input, &format!("{more},out={}", out.display()));
        let ledger = lab.manager(&["--port", &port, "--chain", "none"]).ended(LIMIT);
        let took = started.elapsed().as_millis();
        ledger.assert_clean();
        let wanted: Vec<_> = std::iter::repeat_n(&packets, copies).flatten().cloned().collect();
        assert_eq!(read_capture(&out), wanted, "{more}");
        assert!(took >= at_least_ms, "{more} took {took} ms");
    }
}

#[test]
fn an_isolated_nf_sees_and_changes_its_packets_all_the_same() {
    let lab = Lab::new();
    let out = lab.path("out.pcap");
    let port = pcap(&sample(), &format!(",out={}", out.display()));
    let mut manager = lab.manager(&["--port", &port, "--chain", "1,2,3", "--isolate", "1,2"]);
    let nfs = [
        lab.nf("nf-monitor", &["-r", "1"]),
        lab.nf("nf-forward", &["-r", "2", "--set-dst-mac", "02:00:00:00:00:98"]),
        lab.nf("nf-monitor", &["-r", "3"]),
    ];
    let ledger = manager.ended(LIMIT);
    ledger.assert_clean();
    let mut wanted = read_capture(&sample());
    for packet in &mut wanted {
        packet.data[..6].copy_from_slice(&[2, 0, 0, 0, 0, 0x98]);
    }
    assert_eq!(read_capture(&out), wanted);
    for mut nf in nfs {
        let _ = nf.wait(LIMIT).good();
    }
}

#[test]
fn held_packets_come_out_in_the_end() {
    let lab = Lab::new();
    let (input, out) = (lab.path("in.pcap"), lab.path("out.pcap"));
    let packets = made_capture(&input, 900, 4);
    let port = pcap(&input, &format!(",out={}", out.display()));
    let mut manager = lab.manager(&["--port", &port, "--chain", "1", "--stay"]);
    // Longer than any test takes, but for a word.
    let mut nf = lab.nf("probe_nf", &["-r", "1", "--say", "hold", "--hold-ms", "10000000"]);
    manager.wait_until("all packets inside", |l| l.packets("received") == 900);
    wait_until("all packets held", || {
        let (audit, balanced) = manager.audit();
        assert!(balanced && audit["packets"]["inside"] == 900, "{audit}");
        audit["pool"]["held"] == 900
    });
    let _ = lab.client(&["nf", "tell", "1", "--topic", "release"]).good();
    manager.wait_until("release", |l| l.packets("sent") == 900);
    let ledger = { manager.process.is_running().then(|| manager.stop(LIMIT)).expect("it stays") };
    ledger.assert_clean();
    let mut came = read_capture(&out);
    came.sort();
    assert_eq!(came, packets);
    let _ = nf.wait(LIMIT).good();
}

#[test]
fn ports_stay_shut_until_every_service_is_there() {
    let lab = Lab::new();
    let mut manager = lab.manager(&["--port", "gen:count=1000", "--chain", "1,2"]);
    let _first = lab.nf("nf-forward", &["-r", "1"]);
    manager.wait_for_instances(1);
    std::thread::sleep(std::time::Duration::from_millis(200));
    let stats = manager.stats();
    assert_eq!((stats.phase(), stats.packets("received")), ("waiting", 0));
    let _second = lab.nf("nf-forward", &["-r", "2"]);
    let ledger = manager.ended(LIMIT);
    ledger.assert_clean();
    assert_eq!((ledger.packets("sent"), ledger.packets("dropped")), (1000, 0));
}

#[test]
fn with_stay_the_manager_stays() {
    let lab = Lab::new();
    let mut manager = lab.manager(&["--port", "gen:count=1000", "--chain", "none", "--stay"]);
    manager.wait_until("all packets", |l| l.packets("sent") == 1000);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(manager.process.is_running());
    assert!(manager.audit().1);
    manager.stop(LIMIT).assert_clean();
}
