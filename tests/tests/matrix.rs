//! A bump in the wire between two hosts, over every pair of kinds of ports, through nf-firewall and nf-monitor; and what goes
//! wrong on the way.

use std::process::Command;

use onvm_tests::traffic::{assert_datagrams_arrive, record, recorded, send_frames, serve, tagged_frames};
use onvm_tests::wire::{SERVER, SERVER_V6, Wire};
use onvm_tests::{LIMIT, Lab, Manager, Process, wait_until};
use rustix::process::Signal;

/// Kinds of ports by which a host is reached.
const KINDS: [&str; 3] = ["afpacket", "xdp", "tap"];

/// One bump: the wire, the manager and its NFs.
struct Bump<'a> {
    manager: Manager<'a>,
    nfs: Vec<Process>,
}

/// A port of a kind, for the client's (0) or the server's half (1).
fn port(kind: &str, half: usize, mtu: u32) -> String {
    match kind {
        "tap" => format!("tap:m{half},mtu={mtu}"),
        _ => format!("{kind}:m{half}"),
    }
}

impl<'a> Bump<'a> {
    /// Starts a manager between two kinds of ports, with a chain of firewall and monitor, and more NFs behind them.
    fn new(lab: &'a Lab, wire: &Wire, kinds: [&str; 2], mtu: u32, more: &[(&str, &[&str])]) -> Self {
        if kinds[0] != "tap" {
            wire.connect_client(mtu);
        }
        if kinds[1] != "tap" {
            wire.connect_server(mtu);
        }
        let bump = Self::on_wire(lab, kinds, mtu, more);
        // The other end of a TAP is the interface itself.
        if kinds[0] == "tap" {
            wire.give_to_client("m0");
        }
        if kinds[1] == "tap" {
            wire.give_to_server("m1");
        }
        bump
    }

    /// The same where the wire is there already.
    fn on_wire(lab: &'a Lab, kinds: [&str; 2], mtu: u32, more: &[(&str, &[&str])]) -> Self {
        let rules = lab.file("rules");
        let text = "default: allow\nrules:\n  - {name: telnet, protocol: tcp, to-port: 23, action: deny}\n";
        std::fs::write(&rules, text).unwrap();
        let ports = [port(kinds[0], 0, mtu), port(kinds[1], 1, mtu)];
        let chain = (1..3 + more.len()).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let mtu = mtu.to_string();
        let arguments = ["--port", &ports[0], "--port", &ports[1], "--chain", &chain, "--mtu", &mtu];
        // Small, because two such pools are locked into memory.
        let sizes = ["--buffers", "16384", "--wait-for-instance", "20"];
        let manager = lab.manager(&[&arguments[..], &sizes].concat());
        let mut nfs =
            vec![lab.nf("nf-firewall", &["-r", "1", "--rules", &rules]), lab.nf("nf-monitor", &["-r", "2"])];
        for (number, (name, options)) in more.iter().enumerate() {
            let service = (number + 3).to_string();
            nfs.push(lab.nf(name, &[&["-r", &service], *options].concat()));
        }
        for service in 1..=nfs.len() {
            lab.wait_for_running(u16::try_from(service).unwrap(), 1);
        }
        Self { manager, nfs }
    }

    /// Ends it. Everything that came in went out, but for what NFs were told to drop.
    fn stop(self) {
        let ledger = self.manager.stop(LIMIT);
        ledger.assert_clean();
        for port in ledger.0["ports"].as_array().unwrap() {
            assert_eq!((&port["rx_refused"], &port["rx_missed"]), (&0.into(), &0.into()), "{port}");
        }
        for mut nf in self.nfs {
            let _ = nf.wait(LIMIT).good();
        }
    }
}

/// One at a time: of several, ping waits for the last only twice as long as the others took.
fn assert_pings(wire: &Wire, host: &str, size: &str) {
    let ping = ["ping", "-c", "1", "-W", "10", "-M", "do", "-s", size, host];
    let said = wire.client(&ping);
    assert!(said.contains(" 0% packet loss"), "{host} {size}: {said}");
}

/// As many bytes as iperf3 wants to send by TCP or UDP; it says itself that it could.
fn iperf(wire: &Wire, options: &[&str]) {
    let _server = wire.serve(&["iperf3", "-s", "-1"]);
    let port_is_open = || {
        let end = wire.at_server(&["ss", "-Hltn", "sport", "=", ":5201"]).output().unwrap();
        !end.stdout.is_empty()
    };
    wait_until("iperf3", port_is_open);
    let said = wire.client(&[&["iperf3", "-J", "-c", SERVER][..], options].concat());
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!(said["end"]["sum_received"]["bytes"].as_u64().or(said["end"]["sum"]["bytes"].as_u64()) > Some(0));
}

/// Everything that a wire must carry, over one pair.
fn prove(kinds: [&str; 2]) {
    let Some(wire) = Wire::unwired() else { return };
    let lab = Lab::new();
    let bump = Bump::new(&lab, &wire, kinds, 1500, &[]);
    assert_pings(&wire, SERVER, "56");
    assert_pings(&wire, SERVER, "1472");
    assert_pings(&wire, SERVER_V6, "1452");
    let served = serve(&lab, &wire, 4);
    served.assert_arrives(&wire, SERVER);
    served.assert_arrives(&wire, &format!("[{SERVER_V6}]"));
    assert_datagrams_arrive(&wire, 400, 1400);
    iperf(&wire, &["-n", "3M"]);
    iperf(&wire, &["-u", "-n", "500K", "-b", "50M"]);
    let frames = tagged_frames(100);
    let recording = record(&lab, &wire, "out.pcap");
    send_frames(&wire, &frames);
    let came = recorded(&lab, "out.pcap", frames.len());
    drop(recording);
    assert!(came == frames, "{kinds:?}: frames arrive changed or in another order");
    bump.stop();
}

/// The same for frames six times as long.
fn prove_long(kinds: [&str; 2]) {
    let Some(wire) = Wire::unwired() else { return };
    let lab = Lab::new();
    let bump = Bump::new(&lab, &wire, kinds, 9000, &[]);
    assert_pings(&wire, SERVER, "8972");
    assert_pings(&wire, SERVER_V6, "8952");
    serve(&lab, &wire, 4).assert_arrives(&wire, SERVER);
    bump.stop();
}

fn prove_all(first: &str) {
    for second in KINDS {
        eprintln!("{first} and {second}");
        prove([first, second]);
        prove_long([first, second]);
    }
}

#[test]
fn from_afpacket() {
    prove_all("afpacket");
}

#[test]
fn from_xdp() {
    prove_all("xdp");
}

#[test]
fn from_tap() {
    prove_all("tap");
}

#[test]
fn a_download_outlives_the_death_of_each_nf() {
    for kinds in [["xdp", "xdp"], ["tap", "xdp"]] {
        let Some(wire) = Wire::unwired() else { return };
        let lab = Lab::new();
        let mut bump = Bump::new(&lab, &wire, kinds, 1500, &[]);
        let served = serve(&lab, &wire, 30);
        std::thread::scope(|scope| {
            let download = scope.spawn(|| served.assert_arrives(&wire, SERVER));
            for (index, program) in ["nf-firewall", "nf-monitor"].iter().enumerate() {
                let so_far = bump.manager.stats().packets("sent");
                bump.manager.wait_until("the download", |l| l.packets("sent") > so_far + 2000);
                bump.nfs[index].signal(Signal::KILL);
                let _ = bump.nfs[index].wait(LIMIT);
                let service = (index + 1).to_string();
                let rules = lab.file("rules");
                let rules: &[&str] = if index == 0 { &["--rules", &rules] } else { &[] };
                bump.nfs[index] = lab.nf(program, &[&["-r", &service], rules].concat());
            }
            download.join().unwrap();
        });
        bump.manager.stop(LIMIT).assert_clean();
    }
}

#[test]
fn a_download_outlives_the_manager() {
    for kinds in [["xdp", "xdp"], ["afpacket", "xdp"]] {
        let Some(wire) = Wire::unwired() else { return };
        let (lab, next) = (Lab::new(), Lab::new());
        let mut bump = Bump::new(&lab, &wire, kinds, 1500, &[]);
        let served = serve(&lab, &wire, 30);
        std::thread::scope(|scope| {
            let download = scope.spawn(|| served.assert_arrives(&wire, SERVER));
            bump.manager.wait_until("the download", |l| l.packets("sent") > 2000);
            bump.manager.process.signal(Signal::KILL);
            let _ = bump.manager.process.wait(LIMIT);
            for nf in &mut bump.nfs {
                nf.signal(Signal::KILL);
                let _ = nf.wait(LIMIT);
            }
            let bump = Bump::on_wire(&next, kinds, 1500, &[]);
            download.join().unwrap();
            bump.manager.stop(LIMIT).assert_clean();
        });
    }
}

#[test]
fn a_download_outlives_links_that_go_and_come() {
    let Some(wire) = Wire::unwired() else { return };
    let lab = Lab::new();
    let bump = Bump::new(&lab, &wire, ["xdp", "xdp"], 1500, &[]);
    let served = serve(&lab, &wire, 30);
    std::thread::scope(|scope| {
        let download = scope.spawn(|| served.assert_arrives(&wire, SERVER));
        let flows = |what: &str| {
            let so_far = bump.manager.stats().packets("sent");
            bump.manager.wait_until(what, |l| l.packets("sent") > so_far + 1000);
        };
        flows("the download");
        wire.set_link("down");
        std::thread::sleep(std::time::Duration::from_millis(200));
        wire.set_link("up");
        flows("the download after the link was down");
        // The client's half, both ends of it, goes and comes with the same hardware addresses.
        let [client, ..] = wire.spaces();
        let address = |space: &[&str], name: &str| {
            let end = Command::new("ip").args(space).args(["-br", "link", "show", name]).output().unwrap();
            let words = String::from_utf8(end.stdout).unwrap();
            words.split_whitespace().nth(2).unwrap().to_string()
        };
        let before = address(&["-n", client], "c0");
        wire.cut();
        wire.mend(1500);
        let set = ["-n", client, "link", "set", "c0", "address", &before];
        assert!(Command::new("ip").args(set).status().unwrap().success());
        download.join().unwrap();
    });
    bump.manager.stop(LIMIT).assert_clean();
}

#[test]
fn a_bad_line_loses_and_reorders_and_nothing_arrives_changed() {
    for kinds in [["afpacket", "afpacket"], ["xdp", "xdp"], ["tap", "xdp"]] {
        let Some(wire) = Wire::unwired() else { return };
        let lab = Lab::new();
        let weather: (&str, &[&str]) = ("weather_nf", &["--lose", "10", "--delay", "20"]);
        let bump = Bump::new(&lab, &wire, kinds, 1500, &[weather]);
        let served = serve(&lab, &wire, 6);
        served.assert_arrives(&wire, SERVER);
        served.assert_arrives(&wire, &format!("[{SERVER_V6}]"));
        let ledger = bump.manager.stats();
        let line = ledger.of_service(3);
        let (lost, all) = (line.count("dropped"), line.count("received"));
        assert!(lost * 300 > all && lost * 50 < all, "about 1 of 100 is lost: {lost} of {all}");
        bump.stop();
    }
}
