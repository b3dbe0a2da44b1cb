//! What can go wrong for a user: each time one clear line, the right exit code, and nothing left behind.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use onvm_lib::packet::DropReason;
use onvm_lib::protocol::{Answer, Hello, Line, PROTOCOL_VERSION, Request, Say};
use onvm_tests::{End, LIMIT, Lab, Ledger, made_capture, read_capture, sample};
use rustix::process::Signal;

/// One line on standard error that has all of these words in it; the log is silent.
fn says(end: &End, words: &[&str]) {
    let lines: Vec<&str> = end.complaints().collect();
    assert_eq!(lines.len(), 1, "{end}");
    for word in words {
        assert!(lines[0].contains(word), "no {word:?} in {end}");
    }
}

#[test]
fn ids_out_of_range_are_refused_at_once() {
    let lab = Lab::new();
    for id in ["0", "4096", "70000", "-1", "x"] {
        let end = lab.nf("nf-forward", &[&format!("--service-id={id}")]).wait(LIMIT).with_code(2);
        assert!(end.err.contains(id) && end.err.contains("--service-id"), "{end}");
    }
    let end = lab.nf("nf-forward", &[]).wait(LIMIT).with_code(2);
    assert!(end.err.contains("--service-id"), "{end}");
    let end = lab.nf("nf-forward", &["-r", "1", "-d", "5000"]).wait(LIMIT).with_code(2);
    assert!(end.err.contains("5000"), "{end}");
}

#[test]
fn an_instance_id_is_given_once() {
    let lab = Lab::new();
    let manager = lab.manager(&[]);
    let mut first = lab.nf("nf-forward", &["-r", "1", "-n", "7"]);
    manager.wait_for_instances(1);
    let end = lab.nf("nf-forward", &["-r", "1", "-n", "7"]).wait(LIMIT).with_code(1);
    says(&end, &["instance id 7 is taken by", "nf-forward", "-n"]);
    first.signal(Signal::INT);
    let _ = first.wait(LIMIT).good();
    manager.wait_for_instances(0);
    let end = lab.nf("nf-forward", &["-r", "1", "-n", "7"]).wait(LIMIT).with_code(1);
    says(&end, &["instance id 7 was used before", "choose 8 or more"]);
    let end = lab.nf("nf-forward", &["-r", "1", "-n", "4294967295"]).wait(LIMIT).with_code(1);
    says(&end, &["instance ids end at"]);
    let _next = lab.nf("nf-forward", &["-r", "1"]);
    manager.wait_for_instances(1);
    assert_eq!(manager.stats().present()[0].id(), 8);
    manager.stop(LIMIT).assert_clean();
}

#[test]
fn without_a_manager_nfs_and_clients_say_so() {
    let lab = Lab::new();
    let end = lab.nf("nf-forward", &["-r", "1"]).wait(LIMIT).with_code(1);
    says(&end, &["nf-forward: no manager at", "onvm.sock", "start onvm-mgr", "--socket"]);
    let end = lab.client(&["status"]).with_code(1);
    says(&end, &["onvm-mgr: no manager at", "onvm.sock", "start onvm-mgr"]);
}

#[test]
fn an_nf_waits_for_a_manager_that_is_just_starting() {
    let lab = Lab::new();
    let mut nf = lab.nf("nf-forward", &["-r", "1"]);
    std::thread::sleep(Duration::from_millis(100));
    let mut manager = lab.manager(&["--port", "gen:count=1000"]);
    manager.ended(LIMIT).assert_clean();
    let _ = nf.wait(LIMIT).good();
}

#[test]
fn other_versions_are_told_what_to_do() {
    let lab = Lab::new();
    let manager = lab.manager(&[]);
    let hello = Hello {
        version: 99,
        service: 1,
        instance: None,
        name: "nf-old".into(),
        destination: None,
        reads_only: true,
        emits: false,
        core: None,
        shared_core: false,
        reattached: None,
        received: 0,
        token: None,
        parent: None,
        hands_over: false,
    };
    for say in [Say::Hello(hello), Say::Ask { version: 99, request: Request::Status }] {
        let mut line = Line::connect(lab.socket()).unwrap();
        line.send(&say, &[], true).unwrap();
        let Ok((Answer::Refused { reason }, _)) = line.receive(true) else { panic!("not refused") };
        assert!(
            reason.contains(&format!("protocol version {PROTOCOL_VERSION}")) && reason.contains("99"),
            "{reason}"
        );
        assert!(reason.contains("use programs of one release"), "{reason}");
        assert!(line.receive::<Answer>(true).is_err(), "the line ends");
    }
    manager.stop(LIMIT).assert_clean();
}

#[test]
fn a_full_pool_holds_the_source_up_or_drops_with_a_reason() {
    let lab = Lab::new();
    made_capture(&lab.path("in.pcap"), 2000, 5);
    let port = format!("pcap:in={},out={}", lab.file("in.pcap"), lab.file("out.pcap"));
    let mut manager = lab.manager(&["--port", &port, "--chain", "1", "--buffers", "64"]);
    let _slow = lab.nf("probe_nf", &["-r", "1", "--delay-us", "100"]);
    let ledger = manager.ended(LIMIT);
    ledger.assert_clean();
    assert_eq!(ledger.packets("sent"), 2000, "a capture waits: nothing is lost");
    let lab = Lab::new();
    let mut manager = lab.manager(&["--port", "gen:rate=100k,count=20k", "--chain", "1", "--buffers", "64"]);
    let _slow = lab.nf("probe_nf", &["-r", "1", "--delay-us", "1000"]);
    let ledger = manager.ended(LIMIT);
    ledger.assert_clean();
    let dropped = ledger.drops(DropReason::NoBuffer) + ledger.drops(DropReason::Backpressure);
    assert_eq!(ledger.packets("received"), 20_000);
    assert!(dropped > 0, "{}", ledger.0);
}

#[test]
fn captures_that_cannot_be_read_are_named() {
    let lab = Lab::new();
    let start = |port: String| {
        let end = lab.start("onvm-mgr", &["--port", &port, "--chain", "none"]).wait(LIMIT).with_code(1);
        assert!(!lab.socket().exists());
        end
    };
    says(&start(format!("pcap:in={}", lab.file("none.pcap"))), &["onvm-mgr:", "none.pcap", "No such file"]);
    std::fs::write(lab.path("empty.pcap"), b"").unwrap();
    says(&start(format!("pcap:in={}", lab.file("empty.pcap"))), &["empty.pcap"]);
    std::fs::write(lab.path("text.pcap"), b"this is no capture, it is a text").unwrap();
    says(&start(format!("pcap:in={}", lab.file("text.pcap"))), &["text.pcap"]);
    says(&start(format!("pcap:in={},out=/nowhere/out.pcap", sample().display())), &["/nowhere/out.pcap"]);
    std::fs::create_dir(lab.path("locked")).unwrap();
    std::fs::set_permissions(lab.path("locked"), PermissionsExt::from_mode(0o500)).unwrap();
    if !rustix::process::geteuid().is_root() {
        let out = lab.file("locked/out.pcap");
        says(&start(format!("pcap:in={},out={out}", sample().display())), &["locked/out.pcap", "denied"]);
    }
}

#[test]
fn a_cut_capture_gives_what_it_has_and_fails() {
    let lab = Lab::new();
    let whole = std::fs::read(sample()).unwrap();
    std::fs::write(lab.path("cut.pcap"), &whole[..whole.len() - 7]).unwrap();
    let port = format!("pcap:in={},out={}", lab.file("cut.pcap"), lab.file("out.pcap"));
    let mut manager = lab.manager(&["--port", &port, "--chain", "none"]);
    let end = manager.process.wait(LIMIT).with_code(1);
    says(&end, &["cut.pcap", "cut"]);
    Ledger(end.json()).assert_clean();
    let all = read_capture(&sample());
    assert_eq!(read_capture(&lab.path("out.pcap")), all[..all.len() - 1]);
}

#[test]
fn a_full_disk_is_said_once_and_counted() {
    let lab = Lab::new();
    let mut manager = lab.manager(&[
        "--port",
        "gen:count=200k,size=1000",
        "--port",
        "pcap:out=/dev/full",
        "--chain",
        "none",
    ]);
    let end = manager.process.wait(LIMIT).with_code(1);
    says(&end, &["/dev/full", "No space left"]);
    let ledger = Ledger(end.json());
    ledger.assert_clean();
    assert!(ledger.drops(DropReason::SendFailed) > 0, "{}", ledger.0);
}

#[test]
fn control_c_ends_a_manager_that_waits() {
    let lab = Lab::new();
    let mut manager = lab.manager(&["--port", "gen:", "--chain", "1"]);
    manager.process.signal(Signal::INT);
    let ledger = manager.ended(LIMIT);
    ledger.assert_clean();
    assert_eq!(ledger.packets("received"), 0);
}

#[test]
fn control_c_lets_everything_out() {
    for signal in [Signal::INT, Signal::TERM] {
        let lab = Lab::new();
        let mut manager = lab.manager(&["--port", "gen:", "--chain", "1"]);
        let mut nf = lab.nf("nf-forward", &["-r", "1"]);
        manager.wait_until("traffic", |l| l.packets("sent") > 1000);
        manager.process.signal(signal);
        let ledger = manager.ended(LIMIT);
        ledger.assert_clean();
        assert_eq!(ledger.packets("received"), ledger.packets("sent"));
        let _ = nf.wait(LIMIT).good();
    }
}

#[test]
fn a_second_control_c_does_not_wait() {
    let lab = Lab::new();
    let mut manager = lab.manager_in(&["--port", "gen:count=2000", "--chain", "1"], &[("RUST_LOG", "warn")]);
    let mut stuck = lab.nf("probe_nf", &["-r", "1", "--delay-us", "1000000"]);
    manager.wait_until("packets inside", |l| l.packets("received") > 100);
    manager.process.signal(Signal::INT);
    manager.wait_until("draining", |l| l.phase() == "draining");
    manager.process.signal(Signal::INT);
    let ledger = manager.ended(LIMIT);
    // What it says once it has waited for as long as it does without the second one.
    let said = manager.process.errors();
    assert!(!said.contains("not everything came out in time"), "{said}");
    ledger.assert_clean();
    assert!(ledger.drops(DropReason::Shutdown) > 0, "{}", ledger.0);
    let end = stuck.wait(LIMIT);
    assert!(end.signal == Some(9) || end.code == Some(0), "{end}");
}

#[test]
fn control_c_ends_an_nf_whose_packets_wait_for_the_next() {
    let lab = Lab::new();
    // What comes before the next one is there has room in a quarter of the pool.
    let mut manager = lab.manager(&["--port", "gen:rate=4k,count=8000", "--chain", "1"]);
    let mut first = lab.nf("nf-forward", &["-r", "1"]);
    manager.wait_until("traffic", |l| l.packets("sent") > 200);
    first.signal(Signal::INT);
    let _ = first.wait(LIMIT).good();
    let _second = lab.nf("nf-forward", &["-r", "1"]);
    let ledger = manager.ended(LIMIT);
    ledger.assert_clean();
    assert_eq!(ledger.packets("sent"), 8000);
}

#[test]
fn nfs_that_are_told_so_end_when_their_manager_is_killed() {
    let lab = Lab::new();
    let mut manager = lab.manager(&["--port", "gen:", "--chain", "1,2"]);
    let nfs = [
        lab.nf("nf-forward", &["-r", "1", "--reattach", "0"]),
        lab.nf("nf-monitor", &["-r", "2", "--reattach=0"]),
        lab.nf("nf-monitor", &["-r", "9", "--reattach", "0"]),
    ];
    manager.wait_for_instances(3);
    manager.wait_until("traffic", |l| l.packets("sent") > 1000);
    manager.process.signal(Signal::KILL);
    let _ = manager.process.wait(LIMIT);
    for mut nf in nfs {
        let end = nf.wait(LIMIT).with_code(1);
        says(&end, &["the manager is gone"]);
    }
    assert!(lab.socket().exists(), "a killed manager cannot clear up");
    let mut next = lab.manager(&["--port", "gen:count=1000", "--chain", "none"]);
    next.ended(LIMIT).assert_clean();
}

#[test]
fn there_is_one_manager_at_a_socket() {
    let lab = Lab::new();
    let manager = lab.manager(&[]);
    let end = lab.start("onvm-mgr", &["--port", "null:"]).wait(LIMIT).with_code(1);
    says(&end, &["onvm.sock", "already running", "--socket"]);
    assert!(lab.socket().exists() && manager.audit().1, "the first one is not disturbed");
    manager.stop(LIMIT).assert_clean();
    std::fs::write(lab.socket(), "a file of the user's").unwrap();
    let end = lab.start("onvm-mgr", &["--port", "null:"]).wait(LIMIT).with_code(1);
    says(&end, &["onvm.sock"]);
    assert_eq!(std::fs::read_to_string(lab.socket()).unwrap(), "a file of the user's");
}

#[test]
fn wrong_command_lines_are_exit_code_2() {
    let lab = Lab::new();
    for (arguments, words) in [
        (vec!["--port", "pacp:in=x"], vec!["pacp", "kinds are"]),
        (vec!["--port", "gen:siez=64"], vec!["siez", "options are"]),
        (vec!["--chain", "1,x"], vec!["chain", "1,2,3"]),
        (vec!["--chain", "1,5000"], vec!["5000", "1..=4095"]),
        (vec!["--ring-size", "1000"], vec!["power of two"]),
        (vec!["--no-such-option"], vec!["--no-such-option"]),
        (vec!["-t", "0"], vec!["more than 0"]),
        (vec!["nf", "stop"], vec!["SERVICE"]),
    ] {
        let end = lab.bare("onvm-mgr", &arguments).wait(LIMIT).with_code(2);
        for word in words {
            assert!(end.err.contains(word), "no {word:?} in {end}");
        }
        assert!(end.out.is_empty());
    }
}

#[test]
fn values_that_make_no_sense_together_are_exit_code_1() {
    let lab = Lab::new();
    for (arguments, words) in [
        (vec!["--port", "gen:size=10"], vec!["size=10", "42..=9216"]),
        (vec!["--port", "gen:size=64,imix=1"], vec!["not both"]),
        (vec!["--port", "pcap:out=x,loop=2"], vec!["in=FILE"]),
        (vec!["--port", "null:", "--buffers", "0"], vec!["0 buffers", "out of range"]),
        (vec!["--port", "null:", "-m", "4000"], vec!["processor 4000 is not available"]),
    ] {
        let end = lab.start("onvm-mgr", &arguments).wait(LIMIT).with_code(1);
        says(&end, &words);
        assert!(!lab.socket().exists(), "{end}");
    }
}

#[test]
fn an_nf_that_cannot_be_set_up_leaves_nothing_behind() {
    let lab = Lab::new();
    let manager = lab.manager(&[]);
    let end = lab.nf("probe_nf", &["-r", "1", "--fail"]).wait(LIMIT).with_code(1);
    says(&end, &["probe_nf: it was told to fail"]);
    manager.wait_for_instances(0);
    manager.stop(LIMIT).assert_clean();
}

#[test]
fn an_nf_that_hangs_is_killed_when_the_manager_ends() {
    let lab = Lab::new();
    let mut manager = lab.manager(&["--port", "gen:rate=10k", "--chain", "1"]);
    let mut nf = lab.nf("nf-monitor", &["-r", "1"]);
    manager.wait_until("traffic", |l| l.packets("sent") > 100);
    nf.signal(Signal::STOP);
    manager.process.signal(Signal::INT);
    let ledger = manager.ended(LIMIT);
    ledger.assert_clean();
    assert_eq!(nf.wait(LIMIT).signal, Some(9));
}

#[test]
fn silent_connections_keep_nobody_out() {
    let lab = Lab::new();
    let manager = lab.manager(&[]);
    let silent: Vec<Line> = (0..200).map(|_| Line::connect(lab.socket()).unwrap()).collect();
    // Clients and NFs come in all the same, and the ones that speak are answered.
    let status = lab.client(&["status", "--json"]).good();
    assert_eq!(status.json()["phase"], "running", "{status}");
    let mut nf = lab.nf("nf-forward", &["-r", "1"]);
    manager.wait_for_instances(1);
    drop(silent);
    let _ = manager.stop(LIMIT);
    let _ = nf.wait(LIMIT).good();
}
