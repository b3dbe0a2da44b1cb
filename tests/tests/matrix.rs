//! A bump in the wire between two hosts, over every pair of kinds of ports, through nf-firewall, nf-ids and nf-monitor; and
//! what goes wrong on the way.

use std::collections::BTreeSet;
use std::process::Command;

use onvm_tests::traffic::{
    assert_datagrams_arrive, converse, record, record_all, recorded, send_frames, serve, tagged_frames,
};
use onvm_tests::wire::{SERVER, SERVER_V6, Wire};
use onvm_tests::{LIMIT, Lab, Ledger, Manager, Process, wait_until, with_dpdk};
use rustix::process::Signal;

/// Kinds of ports by which a host is reached.
const KINDS: [&str; 5] = ["afpacket", "xdp", "tap", "net_af_packet", "net_tap"];
/// Services of the chain; what a test adds comes behind them.
const SERVICES: usize = 3;

/// One bump: the wire, the manager and its NFs.
struct Bump<'a> {
    manager: Manager<'a>,
    nfs: Vec<Process>,
}

fn of_dpdk(kind: &str) -> bool {
    kind.starts_with("net_")
}

/// Whether the other end of the interface that a port makes is the host's own.
fn is_tap(kind: &str) -> bool {
    kind.ends_with("tap")
}

/// A port of a kind, for the client's (0) or the server's half (1).
fn port(kind: &str, half: usize, mtu: u32) -> String {
    match kind {
        "tap" => format!("tap:m{half},mtu={mtu}"),
        "net_tap" => format!("dpdk:net_tap{half},iface=m{half},mtu={mtu}"),
        "net_af_packet" if mtu > 1500 => {
            format!("dpdk:net_af_packet{half},iface=m{half},framesz=9216,blocksz=36864,framecnt=512")
        }
        "net_af_packet" => format!("dpdk:net_af_packet{half},iface=m{half}"),
        _ => format!("{kind}:m{half}"),
    }
}

/// Has an end leave nothing to a card.
fn leave_nothing(wire: &Wire, end: &str, what: &[&str]) {
    let off: Vec<&str> = what.iter().flat_map(|offload| [*offload, "off"]).collect();
    let arguments = [&["ethtool", "-K", end][..], &off].concat();
    let mut command = if end == "c0" { wire.at_client(&arguments) } else { wire.at_server(&arguments) };
    assert!(command.output().unwrap().status.success(), "{command:?}");
}

impl<'a> Bump<'a> {
    /// Starts a manager between two kinds of ports, with a chain of firewall, IDS and monitor, and more NFs behind them.
    fn new(lab: &'a Lab, wire: &Wire, kinds: [&str; 2], mtu: u32, more: &[(&str, &[&str])]) -> Self {
        for (kind, end) in kinds.into_iter().zip(["c0", "s0"]).filter(|(kind, _)| !is_tap(kind)) {
            if end == "c0" {
                wire.connect_client(mtu);
            } else {
                wire.connect_server(mtu);
            }
            if of_dpdk(kind) {
                // These drivers have no room for super-frames. Checksums stay half done.
                leave_nothing(wire, end, &["tso", "gso"]);
            }
        }
        let bump = Self::on_wire(lab, kinds, mtu, more);
        // The other end of a TAP is the interface itself.
        let is_up = |name: &str| {
            let up = Command::new("ip").args(["addr", "show", "up", name]).output().unwrap();
            up.status.success() && !up.stdout.is_empty()
        };
        for (half, name) in ["m0", "m1"].into_iter().enumerate().filter(|(half, _)| is_tap(kinds[*half])) {
            wait_until("the device", || is_up(name));
            if half == 0 {
                wire.give_to_client(name);
            } else {
                wire.give_to_server(name);
            }
        }
        bump
    }

    /// The same where the wire is there already.
    fn on_wire(lab: &'a Lab, kinds: [&str; 2], mtu: u32, more: &[(&str, &[&str])]) -> Self {
        let text = "default: allow\nrules:\n  - {name: telnet, protocol: tcp, to-port: 23, action: deny}\n";
        std::fs::write(lab.file("rules"), text).unwrap();
        let text = "alert tcp any any -> any 8000 (msg:\"download\"; flow:established,to_server; content:\"GET /file\"; sid:1;)\n\
                    drop tcp any any -> any any (msg:\"never\"; flow:established; content:\"|de ad be ef| never seen\"; sid:2;)\n";
        std::fs::write(lab.file("signatures"), text).unwrap();
        let ports = [port(kinds[0], 0, mtu), port(kinds[1], 1, mtu)];
        let chain = (1..=SERVICES + more.len()).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        // Buffers of DPDK's drivers have room for tags as well.
        let room = if mtu > 1500 { mtu + 100 } else { mtu }.to_string();
        let arguments = ["--port", &ports[0], "--port", &ports[1], "--chain", &chain, "--mtu", &room];
        // Small, because two such pools are locked into memory.
        let sizes = ["--buffers", "16384", "--wait-for-instance", "20"];
        let manager = lab.manager(&[&arguments[..], &sizes].concat());
        let mut nfs: Vec<Process> = (1..=SERVICES).map(|service| Self::nf(lab, service)).collect();
        for (number, (name, options)) in more.iter().enumerate() {
            let service = (number + 1 + SERVICES).to_string();
            nfs.push(lab.nf(name, &[&["-r", &service], *options].concat()));
        }
        for service in 1..=nfs.len() {
            lab.wait_for_running(u16::try_from(service).unwrap(), 1);
        }
        Self { manager, nfs }
    }

    /// Starts an NF of the chain.
    fn nf(lab: &Lab, service: usize) -> Process {
        let (rules, signatures, alerts) = (lab.file("rules"), lab.file("signatures"), lab.file("alerts"));
        match service {
            1 => lab.nf("nf-firewall", &["-r", "1", "--rules", &rules]),
            2 => lab.nf("nf-ids", &["-r", "2", "--rules", &signatures, "--eve", &alerts]),
            _ => lab.nf("nf-monitor", &["-r", "3"]),
        }
    }

    /// Ends it. Everything that came in went out, but for what NFs were told to drop.
    fn stop(self) -> Ledger {
        let ledger = self.manager.stop(LIMIT);
        ledger.assert_clean();
        for port in ledger.0["ports"].as_array().unwrap() {
            assert_eq!((&port["rx_refused"], &port["rx_missed"]), (&0.into(), &0.into()), "{port}");
        }
        for mut nf in self.nfs {
            let _ = nf.wait(LIMIT).good();
        }
        ledger
    }
}

/// The IDS has seen so many downloads. Of a request that was sent again before it was acknowledged it may tell again.
fn assert_alerts(lab: &Lab, downloads: usize) {
    let text = std::fs::read_to_string(lab.path("alerts")).unwrap();
    let alerts = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let flows: BTreeSet<u64> = alerts
        .filter(|alert| alert["alert"]["signature_id"] == 1)
        .map(|alert| alert["flow_id"].as_u64().unwrap())
        .collect();
    assert_eq!(flows.len(), downloads, "{text}");
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
    let conversation = converse(&wire);
    // Much for two of a kind, and in all pairs enough to fill every ring. DPDK's drivers poll, and take their time where they
    // share a processor.
    let megabytes = match kinds[0] == kinds[1] {
        true if of_dpdk(kinds[0]) => 20,
        true => 100,
        false => 4,
    };
    serve(&lab, &wire, megabytes).assert_arrives(&wire, SERVER);
    assert_datagrams_arrive(&wire, 400, 1400);
    iperf(&wire, &["-n", "3M"]);
    iperf(&wire, &["-u", "-n", "500K", "-b", "50M"]);
    let mut frames = tagged_frames(100);
    if kinds.contains(&"net_af_packet") {
        // It makes 802.1Q tags of 802.1ad ones.
        frames.retain(|frame| frame[12..14] != [0x88, 0xa8]);
    }
    let recording = record(&lab, &wire, "out.pcap");
    send_frames(&wire, &frames);
    let came = recorded(&lab, "out.pcap", frames.len());
    drop(recording);
    assert!(came == frames, "{kinds:?}: frames arrive changed or in another order");
    conversation.end();
    let _ = bump.stop();
    assert_alerts(&lab, 1);
}

/// The same for frames six times as long.
fn prove_long(kinds: [&str; 2]) {
    let Some(wire) = Wire::unwired() else { return };
    let lab = Lab::new();
    let bump = Bump::new(&lab, &wire, kinds, 9000, &[]);
    assert_pings(&wire, SERVER, "8972");
    assert_pings(&wire, SERVER_V6, "8952");
    serve(&lab, &wire, 4).assert_arrives(&wire, &format!("[{SERVER_V6}]"));
    let _ = bump.stop();
    assert_alerts(&lab, 1);
}

fn prove_all(first: &str) {
    for second in KINDS {
        if (of_dpdk(first) || of_dpdk(second)) && !with_dpdk() {
            continue;
        }
        eprintln!("{first} and {second}");
        prove([first, second]);
        // DPDK's driver for TAP devices takes no frames over 1,522 bytes.
        if first != "net_tap" && second != "net_tap" {
            prove_long([first, second]);
        }
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
fn from_sockets_of_dpdk() {
    prove_all("net_af_packet");
}

#[test]
fn from_taps_of_dpdk() {
    prove_all("net_tap");
}

#[test]
fn both_ends_and_the_ledger_agree_on_every_frame() {
    for kinds in [["afpacket"; 2], ["xdp"; 2], ["tap", "xdp"], ["net_af_packet"; 2], ["net_tap", "afpacket"]]
    {
        if kinds.iter().any(|kind| of_dpdk(kind)) && !with_dpdk() {
            continue;
        }
        let Some(wire) = Wire::unwired() else { return };
        let lab = Lab::new();
        let bump = Bump::new(&lab, &wire, kinds, 1500, &[]);
        for end in ["c0", "s0"] {
            // What a host sends is then what is on the wire; and it says nothing that it is not asked for.
            leave_nothing(&wire, end, &["tso", "gso", "gro", "tx"]);
            let quiet = format!("echo 1 > /proc/sys/net/ipv6/conf/{end}/disable_ipv6");
            let quiet = ["sh", "-c", &quiet];
            let mut quiet = if end == "c0" { wire.at_client(&quiet) } else { wire.at_server(&quiet) };
            assert!(quiet.status().unwrap().success());
        }
        // What was said before has passed.
        wait_until("silence", || {
            let counted = |ledger: &Ledger| ledger.packets("received");
            let before = counted(&bump.manager.stats());
            std::thread::sleep(std::time::Duration::from_millis(100));
            counted(&bump.manager.stats()) == before
        });
        let before = bump.manager.stats();
        let recordings = ["c0", "s0"].map(|end| record_all(&lab, &wire, end));
        assert_pings(&wire, SERVER, "1472");
        serve(&lab, &wire, 3).assert_arrives(&wire, SERVER);
        assert_datagrams_arrive(&wire, 100, 1400);
        let ledger = bump.stop();
        let more = |port: usize, counter: &str| {
            usize::try_from(ledger.port(port, counter) - before.port(port, counter)).unwrap()
        };
        let passed = more(0, "rx_packets") + more(1, "rx_packets");
        // What two processors send at one time is recorded and sent in different orders.
        let frames = recordings.map(|recording| recording.frames(passed));
        let [[sent, came], [answered, arrived]] = frames.map(|both| {
            both.map(|mut frames| {
                frames.sort_unstable();
                frames
            })
        });
        assert_eq!(
            (sent.len(), more(0, "rx_packets")),
            (more(0, "rx_packets"), more(1, "tx_packets")),
            "{kinds:?}"
        );
        assert_eq!(
            (answered.len(), more(1, "rx_packets")),
            (more(1, "rx_packets"), more(0, "tx_packets")),
            "{kinds:?}"
        );
        assert!(sent == arrived && answered == came, "{kinds:?}: a frame is changed");
        assert!(answered.len() > 2000, "{kinds:?}: {}", answered.len());
    }
}

#[test]
fn a_download_outlives_the_death_of_each_nf() {
    for kinds in [["xdp", "xdp"], ["tap", "xdp"]] {
        let Some(wire) = Wire::unwired() else { return };
        let lab = Lab::new();
        let mut bump = Bump::new(&lab, &wire, kinds, 1500, &[]);
        let served = serve(&lab, &wire, 30);
        std::thread::scope(|scope| {
            let download = scope.spawn(|| served.assert_arrives_slowly(&wire, SERVER, 4));
            for index in 0..SERVICES {
                let so_far = bump.manager.stats().packets("sent");
                bump.manager.wait_until("the download", |l| l.packets("sent") > so_far + 2000);
                bump.nfs[index].signal(Signal::KILL);
                let _ = bump.nfs[index].wait(LIMIT);
                bump.nfs[index] = Bump::nf(&lab, index + 1);
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
            let download = scope.spawn(|| served.assert_arrives_slowly(&wire, SERVER, 4));
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
        let download = scope.spawn(|| served.assert_arrives_slowly(&wire, SERVER, 4));
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
        let line = ledger.of_service(4);
        let (lost, all) = (line.count("dropped"), line.count("received"));
        assert!(lost * 300 > all && lost * 50 < all, "about 1 of 100 is lost: {lost} of {all}");
        let _ = bump.stop();
    }
}
