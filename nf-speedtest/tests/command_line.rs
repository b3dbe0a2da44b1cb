//! What the program refuses before it needs a manager.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nf-speedtest")).args(arguments).output().unwrap()
}

#[test]
fn wrong_command_lines_are_refused_with_a_reason() {
    for (arguments, says) in [
        (&["-r", "1", "-c", "0"][..], "0 is not in 1..=16777216"),
        (&["-r", "1", "-o", "59"], "59 is not in 60..=9216"),
        (&["-r", "1", "--flows", "65537"], "65537 is not in 1..=65536"),
        (&["-r", "1", "--rate", "0"], "0 is not in 1..=1000000000"),
        (&["-r", "1", "--pcap", "a.pcap", "-o", "64"], "cannot be used with"),
        (&["-r", "1", "--pcap", "a.pcap", "--flows", "2"], "cannot be used with"),
        (&["-r", "1", "--pcap", "a.pcap", "--latency-every", "2"], "cannot be used with"),
        (&["-d", "1"], "--service-id"),
    ] {
        let done = run(arguments);
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
}

#[test]
fn a_replay_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in.pcap");
    onvm_lib::capture::Writer::create(&path).unwrap().finish().unwrap();
    let done = run(&["--replay", path.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("a replay leads no packet back; run it live"), "{said}");
}

#[test]
fn without_a_manager_it_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none.sock");
    let done = run(&["-r", "1", "-d", "1", "--socket", socket.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("none.sock"), "{said}");
}
