//! A bump in the wire: kernel TCP, UDP, ICMP and neighbour discovery through a chain between two veths.

use std::process::Command;
use std::time::Duration;

use onvm_tests::traffic::{record, recorded, send_frames, serve, tagged_frames};
use onvm_tests::wire::{SERVER, SERVER_V6, Wire};
use onvm_tests::{LIMIT, Lab, Manager, Process, wait_until};
use rustix::process::Signal;

fn start<'a>(lab: &'a Lab, more: &[&str]) -> (Manager<'a>, [Process; 2]) {
    start_with(lab, "afpacket:m0", more)
}

/// A manager between a port and the server's half of the wire.
fn start_with<'a>(lab: &'a Lab, port: &str, more: &[&str]) -> (Manager<'a>, [Process; 2]) {
    let mut arguments = vec!["--port", port, "--port", "afpacket:m1"];
    arguments.extend(["--chain", "1,2", "--wait-for-instance", "20"]);
    arguments.extend(more);
    let manager = lab.manager(&arguments);
    let nfs = [lab.nf("nf-forward", &["-r", "1"]), lab.nf("nf-monitor", &["-r", "2"])];
    lab.wait_for_running(1, 1);
    lab.wait_for_running(2, 1);
    (manager, nfs)
}

/// All packets that came in went out, and those that did not were to: none.
fn stop(manager: Manager<'_>, nfs: [Process; 2]) {
    let ledger = manager.stop(LIMIT);
    ledger.assert_clean();
    assert_eq!(ledger.packets("received"), ledger.packets("sent"), "{}", ledger.0["drops"]);
    for port in ledger.0["ports"].as_array().unwrap() {
        assert_eq!(
            (&port["rx_refused"], &port["rx_missed"], &port["tx_failed"]),
            (&0.into(), &0.into(), &0.into()),
            "{port}"
        );
    }
    for mut nf in nfs {
        let _ = nf.wait(LIMIT).good();
    }
}

#[test]
fn hosts_reach_each_other_through_the_chain() {
    let Some(wire) = Wire::new(1500) else { return };
    let lab = Lab::new();
    let (manager, nfs) = start(&lab, &[]);
    for arguments in [
        &["ping", "-c", "1", "-W", "10", SERVER][..],
        &["ping", "-c", "1", "-W", "10", SERVER_V6],
        // In fragments.
        &["ping", "-c", "1", "-W", "10", "-s", "5000", SERVER],
        &["ping", "-c", "1", "-W", "10", "-s", "5000", SERVER_V6],
    ] {
        assert!(wire.client(arguments).contains(" 0% packet loss"), "{arguments:?}");
    }
    let served = serve(&lab, &wire, 30);
    served.assert_arrives(&wire, SERVER);
    served.assert_arrives(&wire, &format!("[{SERVER_V6}]"));
    stop(manager, nfs);
}

#[test]
fn long_frames_pass_where_buffers_have_room() {
    let Some(wire) = Wire::new(9000) else { return };
    let lab = Lab::new();
    let (manager, nfs) = start(&lab, &["--mtu", "9000"]);
    let ping = wire.client(&["ping", "-c", "1", "-M", "do", "-s", "8972", "-W", "10", SERVER]);
    assert!(ping.contains(" 0% packet loss"), "{ping}");
    serve(&lab, &wire, 30).assert_arrives(&wire, SERVER);
    stop(manager, nfs);
}

#[test]
fn frames_arrive_to_the_byte_with_their_tags() {
    let Some(wire) = Wire::new(1500) else { return };
    let lab = Lab::new();
    let (manager, nfs) = start(&lab, &[]);
    let frames = tagged_frames(200);
    let recording = record(&lab, &wire, "out.pcap");
    send_frames(&wire, &frames);
    let came = recorded(&lab, "out.pcap", frames.len());
    drop(recording);
    assert!(came == frames, "frames arrive changed or in another order");
    stop(manager, nfs);
}

#[test]
fn a_download_outlives_the_death_of_an_nf() {
    let Some(wire) = Wire::new(1500) else { return };
    let lab = Lab::new();
    let (manager, [mut forward, monitor]) = start(&lab, &[]);
    let served = serve(&lab, &wire, 30);
    std::thread::scope(|scope| {
        let download = scope.spawn(|| served.assert_arrives_slowly(&wire, SERVER, 5));
        manager.wait_until("the download", |l| l.packets("sent") > 5000);
        forward.signal(Signal::KILL);
        let _ = forward.wait(LIMIT);
        forward = lab.nf("nf-forward", &["-r", "1"]);
        download.join().unwrap();
    });
    let ledger = manager.stop(LIMIT);
    ledger.assert_clean();
    for mut nf in [forward, monitor] {
        let _ = nf.wait(LIMIT).good();
    }
}

#[test]
fn an_interface_goes_and_comes() {
    let Some(wire) = Wire::new(1500) else { return };
    let lab = Lab::new();
    let (manager, nfs) = start(&lab, &[]);
    let reach = |tries: &str| {
        let ping = &["ping", "-c", tries, "-i", "0.1", "-W", "1", SERVER];
        wire.at_client(ping).output().unwrap().status.success()
    };
    wait_until("the server", || reach("1"));
    wire.set_link("down");
    assert!(!reach("2"), "down");
    wire.set_link("up");
    wait_until("the link", || reach("1"));
    // The kernel's super-frames among them.
    let served = serve(&lab, &wire, 3);
    served.assert_arrives(&wire, SERVER);
    wire.cut();
    std::thread::sleep(Duration::from_millis(300));
    wire.mend(1500);
    wait_until("the new interface", || reach("1"));
    served.assert_arrives(&wire, SERVER);
    manager.stop(LIMIT).assert_clean();
    for mut nf in nfs {
        let _ = nf.wait(LIMIT).good();
    }
}

#[test]
fn what_comes_before_the_ports_are_open_is_not_for_the_chain() {
    let Some(wire) = Wire::new(1500) else { return };
    let lab = Lab::new();
    let manager = lab.manager(&[
        "--port",
        "afpacket:m0",
        "--port",
        "null:",
        "--chain",
        "1",
        "--wait-for-instance",
        "20",
    ]);
    let frames = "import socket\ns = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\ns.bind(('c0', 0))\n\
                  [s.send(b'\\x02' * 12 + b'\\x88\\xb5' + bytes(1000)) for _ in range(300)]";
    let _ = wire.client(&["python3", "-c", frames]);
    let nf = lab.nf("nf-forward", &["-r", "1"]);
    manager.wait_until("the ports to open", |l| l.phase() == "running");
    std::thread::sleep(Duration::from_millis(300));
    // Neighbour discovery may add some of its own.
    let early = manager.stats().packets("received");
    assert!(early < 50, "{early} packets");
    let _ = wire.client(&["python3", "-c", frames]);
    manager.wait_until("later ones", |l| l.packets("received") >= early + 300);
    manager.stop(LIMIT).assert_clean();
    drop(nf);
}

#[test]
fn a_tap_that_is_deleted_is_made_again() {
    let Some(_wire) = Wire::new(1500) else { return };
    let lab = Lab::new();
    let manager = lab.manager(&["--port", "tap:onvm3,ip=10.99.0.1/24", "--port", "null:", "--chain", "none"]);
    let shows = || Command::new("ip").args(["addr", "show", "onvm3"]).output().unwrap();
    let is_there = || String::from_utf8_lossy(&shows().stdout).contains("10.99.0.1/24");
    wait_until("the interface", is_there);
    assert!(Command::new("ip").args(["link", "del", "onvm3"]).status().unwrap().success());
    wait_until("another one", is_there);
    let before = manager.stats().packets("received");
    // Nobody answers, but the host asks.
    let _ = Command::new("ping").args(["-c", "3", "-i", "0.1", "-W", "1", "10.99.0.2"]).output().unwrap();
    manager.wait_until("its frames", |l| l.packets("received") > before);
    manager.stop(LIMIT).assert_clean();
}

#[test]
fn the_host_itself_reaches_out_by_a_tap() {
    let Some(wire) = Wire::new(1500) else { return };
    let lab = Lab::new();
    let (manager, nfs) = start_with(&lab, "tap:onvm0,ip=10.77.0.9/24", &[]);
    let ping = |size: &str| Command::new("ping").args(["-c", "1", "-W", "20", "-s", size, SERVER]).output();
    for size in ["56", "5000"] {
        let end = ping(size).unwrap();
        assert!(end.status.success(), "{}", String::from_utf8_lossy(&end.stdout));
    }
    serve(&lab, &wire, 30).assert_arrives_here(SERVER);
    stop(manager, nfs);
    let gone = || !Command::new("ip").args(["link", "show", "onvm0"]).output().unwrap().status.success();
    wait_until("the end of the interface", gone);
}

#[test]
fn a_tap_that_was_there_before_stays_and_has_one_user() {
    let Some(_wire) = Wire::new(1500) else { return };
    let lab = Lab::new();
    let ip = |arguments: &[&str]| assert!(Command::new("ip").args(arguments).status().unwrap().success());
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "0").unwrap();
    ip(&["tuntap", "add", "mode", "tap", "onvm1"]);
    let manager = lab.manager(&["--port", "tap:onvm1,mtu=1400,ip=fd00:9::1/64", "--stay"]);
    wait_until("the interface to be as wanted", || {
        let shown = Command::new("ip").args(["addr", "show", "onvm1"]).output().unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        ["mtu 1400", "UP", "fd00:9::1/64"].iter().all(|word| shown.contains(word))
    });
    let second = lab.bare("onvm-mgr", &["--port", "tap:onvm1", "--socket", &lab.file("second")]).wait(LIMIT);
    assert!(second.with_code(1).err.contains("another program has it"));
    let _ = manager.stop(LIMIT);
    ip(&["link", "show", "onvm1"]);
}

#[test]
fn what_cannot_be_opened_is_told() {
    let lab = Lab::new();
    for (port, why) in [
        ("tap:", "the name of an interface is needed"),
        ("tap:a-name-that-is-too-long", "a name has at most 15 bytes"),
        ("tap:onvm2,ip=10.9.0.1/33", "an address like 10.9.0.1/24 is needed"),
        ("tap:onvm2,mtu=9", "out of range 68..=65521"),
        ("tap:lo", "cannot be opened"),
    ] {
        let end =
            lab.bare("onvm-mgr", &["--port", port, "--socket", &lab.file("s")]).wait(LIMIT).with_code(1);
        assert!(end.err.contains(&format!("port {port:?}: ")) && end.err.contains(why), "{end}");
    }
    let end =
        lab.bare("onvm-mgr", &["--port", "afpacket:no-such-if0", "--socket", &lab.file("s")]).wait(LIMIT);
    let end = end.with_code(1);
    assert!(
        end.err.contains("port \"afpacket:no-such-if0\": cannot be opened: there is no interface"),
        "{end}"
    );
    let end = lab.bare("onvm-mgr", &["--port", "afpacket:"]).wait(LIMIT).with_code(1);
    assert!(end.err.contains("the name of an interface is needed"), "{end}");
}
