//! Ports on DPDK's virtual devices: captures, kernel TCP through sockets and TAP devices, and packets that a process without
//! DPDK rewrites where they were received.

use std::path::Path;
use std::process::Command;

use onvm_lib::packet::DropReason;
use onvm_lib::protocol::Request;
use onvm_tests::traffic::{assert_datagrams_arrive, record, recorded, send_frames, serve};
use onvm_tests::wire::{SERVER, SERVER_V6, Wire};
use onvm_tests::{LIMIT, Lab, Manager, Process, made_capture, read_capture, sample, wait_until, with_dpdk};
use rustix::process::Signal;

/// What tshark makes of a capture: headers and every byte, but not the time, which is the driver's.
fn tshark(path: &Path) -> Option<String> {
    let arguments = ["-x", "-o", "frame.show_file_off:FALSE", "-T", "text", "-t", "e"];
    let out = Command::new("tshark").arg("-r").arg(path).args(arguments).output();
    let Ok(out) = out else {
        assert!(std::env::var_os("CI").is_none(), "tshark is needed");
        eprintln!("SKIPPED: tshark is not installed: only our own reader compares");
        return None;
    };
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    // A line of numbers and names begins each packet; its second field is the time.
    let timeless = |line: &str| match line.trim_start().split_once(' ') {
        Some((number, rest)) if number.parse::<u32>().is_ok() && line.contains('→') => {
            format!("{number} {}", rest.trim_start().split_once(' ').map_or(rest, |(_, rest)| rest))
        }
        _ => line.to_string(),
    };
    Some(text.lines().map(timeless).collect::<Vec<_>>().join("\n"))
}

fn bytes_of(path: &Path) -> Vec<Vec<u8>> {
    read_capture(path).into_iter().map(|packet| packet.data).collect()
}

/// A manager between two ports with a chain of a forwarder and a monitor.
fn start<'a>(lab: &'a Lab, ports: [&str; 2], more: &[&str]) -> (Manager<'a>, [Process; 2]) {
    let mut arguments = vec!["--port", ports[0], "--port", ports[1], "--chain", "1,2"];
    arguments.extend(more);
    let manager = lab.manager(&arguments);
    let nfs = [lab.nf("nf-monitor", &["-r", "2"]), lab.nf("nf-forward", &["-r", "1"])];
    lab.wait_for_running(1, 1);
    lab.wait_for_running(2, 1);
    (manager, nfs)
}

/// All packets that came in went out.
fn stop(manager: Manager<'_>, nfs: [Process; 2]) {
    let ledger = manager.stop(LIMIT);
    ledger.assert_clean();
    assert_eq!(ledger.packets("received"), ledger.packets("sent"), "{}", ledger.0);
    for port in 0..2 {
        for counter in ["rx_refused", "rx_missed", "rx_errors", "tx_failed", "rx_bad_checksum"] {
            assert_eq!(ledger.port(port, counter), 0, "{counter}: {}", ledger.0["ports"][port]);
        }
    }
    for mut nf in nfs {
        let _ = nf.wait(LIMIT).good();
    }
}

#[test]
fn a_capture_comes_out_as_it_went_in() {
    if !with_dpdk() {
        return;
    }
    let lab = Lab::new();
    let made = lab.path("made.pcap");
    let n = made_capture(&made, 20_000, 100).len();
    for (from, count) in [(sample(), read_capture(&sample()).len()), (made, n)] {
        let out = lab.path("out.pcap");
        let ports = [
            format!("dpdk:net_pcap0,rx_pcap={}", from.display()),
            format!("dpdk:net_pcap1,tx_pcap={}", out.display()),
        ];
        let count_text = count.to_string();
        let arguments = ["--port", &ports[0], "--port", &ports[1], "--chain", "1,2", "-l", &count_text];
        let mut manager = lab.manager(&arguments);
        // Nobody can be asked whether they run: all may be over by then.
        let nfs = [lab.nf("nf-monitor", &["-r", "2"]), lab.nf("nf-forward", &["-r", "1"])];
        let ledger = manager.ended(LIMIT);
        ledger.assert_clean();
        assert_eq!(ledger.packets("sent"), count as u64, "{}", ledger.0);
        assert!(bytes_of(&out) == bytes_of(&from), "the capture differs");
        if let Some(text) = tshark(&from) {
            assert!(tshark(&out).unwrap_or_default() == text, "tshark sees a difference");
            assert!(text.lines().count() > count);
        }
        for mut nf in nfs {
            let _ = nf.wait(LIMIT).good();
        }
    }
}

/// Files with DPDK's code that a process has in its memory.
fn libraries(process: &Process) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", process.pid())).unwrap();
    maps.lines().filter(|line| line.contains("librte_")).count()
}

#[test]
fn an_nf_without_dpdk_rewrites_packets_where_they_were_received() {
    if !with_dpdk() {
        return;
    }
    let lab = Lab::new();
    let (from, out) = (lab.path("in.pcap"), lab.path("out.pcap"));
    let packets = made_capture(&from, 3000, 10);
    let ports = [
        format!("dpdk:net_pcap0,rx_pcap={}", from.display()),
        format!("dpdk:net_pcap1,tx_pcap={}", out.display()),
    ];
    let manager = lab.manager(&["--port", &ports[0], "--port", &ports[1]]);
    let mut nf = lab.nf("nf-forward", &["-r", "1", "--decrement-ttl"]);
    let ledger = manager.wait_until("all packets", |l| l.packets("sent") == 3000);
    assert_eq!(ledger.packets("received"), 3000);
    assert!(libraries(&manager.process) > 0 && libraries(&nf) == 0);
    manager.stop(LIMIT).assert_clean();
    let _ = nf.wait(LIMIT).good();
    let came = bytes_of(&out);
    assert_eq!(came.len(), packets.len());
    for (came, sent) in came.iter().zip(&packets) {
        assert_eq!((came[22], &came[26..]), (63, &sent.data[26..]));
        assert_eq!(onvm_lib::wire::checksum::internet(&came[14..34]), 0);
    }
}

#[test]
fn a_manager_that_stops_under_full_load_has_all_its_buffers() {
    if !with_dpdk() {
        return;
    }
    for more in [&[][..], &["--fair", "off"], &["--buffers", "512"]] {
        let lab = Lab::new();
        let (manager, nfs) = start(&lab, ["dpdk:net_null0", "dpdk:net_null1,size=1000"], more);
        manager.wait_until("packets", |l| l.packets("sent") > 100_000);
        let files = format!("/var/run/dpdk/onvm-{}", manager.process.pid());
        assert!(!Path::new(&files).exists(), "{files} is left behind");
        let (audit, balances) = manager.audit();
        assert!(balances, "{audit}");
        let ledger = manager.stop(LIMIT);
        ledger.assert_clean();
        assert!(ledger.port(0, "tx_packets") > 0 && ledger.port(1, "tx_packets") > 0);
        for mut nf in nfs {
            let _ = nf.wait(LIMIT).good();
        }
    }
}

/// Segmentation is the sender's own work: DPDK's drivers on sockets have no room for super-frames. Checksums stay half done.
fn no_super_frames(wire: &Wire, hosts: &[&str]) {
    for interface in hosts {
        let arguments = ["ethtool", "-K", interface, "tso", "off", "gso", "off"];
        let mut command =
            if *interface == "c0" { wire.at_client(&arguments) } else { wire.at_server(&arguments) };
        assert!(command.status().unwrap().success(), "{command:?}");
    }
}

/// A port of a kind, for the client's (0) or the server's half (1).
fn port(kind: &str, half: usize) -> String {
    match kind {
        "tap" => format!("tap:m{half},mtu=1500"),
        "net_tap" => format!("dpdk:net_tap{half},iface=m{half}"),
        "net_tap, two queues" => format!("dpdk:net_tap{half},iface=m{half},rxq=2,mtu=1500"),
        "net_af_packet, two queues" => format!("dpdk:net_af_packet{half},iface=m{half},qpairs=2"),
        _ if kind.starts_with("net_") => format!("dpdk:{kind}{half},iface=m{half}"),
        _ => format!("{kind}:m{half}"),
    }
}

/// Client and server speak through a pair of ports, in short and long packets, and what is sent arrives whole by TCP over both
/// protocols and by UDP.
fn prove(kinds: [&str; 2]) {
    let Some(wire) = Wire::unwired() else { return };
    // The other end of a TAP device is the interface itself.
    let is_tap = kinds.map(|kind| kind.contains("tap"));
    if !is_tap[0] {
        wire.connect_client(1500);
        no_super_frames(&wire, &["c0"]);
    }
    if !is_tap[1] {
        wire.connect_server(1500);
        no_super_frames(&wire, &["s0"]);
    }
    let lab = Lab::new();
    let ports = [port(kinds[0], 0), port(kinds[1], 1)];
    let (manager, nfs) = start(&lab, [&ports[0], &ports[1]], &["--buffers", "16384"]);
    let is_up = |name: &str| {
        let up = Command::new("ip").args(["addr", "show", "up", name]).output().unwrap();
        up.status.success() && !up.stdout.is_empty()
    };
    for (half, name) in ["m0", "m1"].iter().enumerate().filter(|(half, _)| is_tap[*half]) {
        wait_until("the device", || is_up(name));
        if half == 0 { wire.give_to_client(name) } else { wire.give_to_server(name) }
    }
    // Fragments of IPv4 net_af_packet joins, and has no room for what comes of it.
    let joins = kinds.iter().any(|kind| kind.contains("af_packet"));
    let long = if joins { "1472" } else { "5000" };
    for (host, size) in [(SERVER, "56"), (SERVER_V6, "56"), (SERVER, long), (SERVER_V6, "5000")] {
        // One at a time: of several, ping gives the last too little time.
        for _ in 0..3 {
            let ping = wire.client(&["ping", "-c", "1", "-W", "10", "-s", size, host]);
            assert!(ping.contains(" 0% packet loss"), "{kinds:?}: {ping}");
        }
    }
    let served = serve(&lab, &wire, 8);
    served.assert_arrives(&wire, SERVER);
    served.assert_arrives(&wire, &format!("[{SERVER_V6}]"));
    assert_datagrams_arrive(&wire, 400, 1000);
    let ledger = manager.stop(LIMIT);
    ledger.assert_clean();
    // While a device moves from one host to the other it is down, and takes nothing.
    let missed = ledger.drops(DropReason::SendFailed);
    assert_eq!(ledger.packets("received"), ledger.packets("sent") + missed, "{kinds:?}: {}", ledger.0);
    assert!(missed == 0 || is_tap[0] || is_tap[1], "{kinds:?}: {}", ledger.0["ports"]);
    for mut nf in nfs {
        let _ = nf.wait(LIMIT).good();
    }
}

#[test]
fn hosts_reach_each_other_by_several_queues_and_captures_of_interfaces() {
    if !with_dpdk() {
        return;
    }
    // One queue of each kind, in all pairs, is in `matrix`.
    prove(["afpacket", "net_af_packet, two queues"]);
    prove(["net_pcap", "afpacket"]);
    prove(["xdp", "net_tap, two queues"]);
}

#[test]
fn links_are_told_as_they_are() {
    let Some(wire) = Wire::new(1500).filter(|_| with_dpdk()) else { return };
    let lab = Lab::new();
    let ports = ["dpdk:net_af_packet0,iface=m0", "dpdk:net_tap1,iface=m5"];
    let (manager, _nfs) = start(&lab, ports, &[]);
    let link =
        |port: usize, what: &str| lab.ask(Request::PortList).unwrap().0["ports"][port]["link"][what].clone();
    wait_until("both links", || (0..2).all(|port| link(port, "up") == true));
    assert_eq!((link(0, "mtu"), link(0, "mbps"), link(1, "mtu")), (1500.into(), 10_000.into(), 1500.into()));
    wire.set_link("down");
    wait_until("the end of the link", || link(0, "up") == false);
    wire.set_link("up");
    wait_until("the link", || link(0, "up") == true);
    // The driver takes it for up for ever.
    wire.cut();
    wait_until("the end of the interface", || link(0, "up") == false);
    assert_eq!(link(1, "up"), true);
    manager.stop(LIMIT).assert_clean();
}

#[test]
fn tagged_and_long_frames_arrive_to_the_byte() {
    let Some(wire) = Wire::new(9000).filter(|_| with_dpdk()) else { return };
    no_super_frames(&wire, &["c0", "s0"]);
    let lab = Lab::new();
    let sizes = "framesz=9216,blocksz=36864,framecnt=512";
    let ports = ["0", "1"].map(|n| format!("dpdk:net_af_packet{n},iface=m{n},{sizes}"));
    let (manager, nfs) = start(&lab, [&ports[0], &ports[1]], &["--mtu", "9100"]);
    let ping = wire.client(&["ping", "-c", "1", "-M", "do", "-s", "8972", "-W", "10", SERVER]);
    assert!(ping.contains(" 0% packet loss"), "{ping}");
    let _tcpdump = record(&lab, &wire, "out.pcap");
    let frames: Vec<Vec<u8>> = (0..150usize)
        .map(|number| {
            let tag: &[u8] = [&[][..], &[0x81, 0, 0, 5], &[0x81, 0, 0xe0, 0]][number % 3];
            let length = [46, 100, 1500, 8990][number % 4];
            let payload = (0..length).map(|at| u8::try_from((at + number) % 256).unwrap());
            let addresses = [2, 0x77, 0, 0, 0, 2, 2, 0x77, 0, 0, 0, 1];
            [&addresses[..], tag, &[0x88, 0xb5]].concat().into_iter().chain(payload).collect()
        })
        .collect();
    send_frames(&wire, &frames);
    assert!(recorded(&lab, "out.pcap", frames.len()) == frames, "frames arrive changed or in another order");
    stop(manager, nfs);
}

#[test]
fn a_manager_that_is_killed_leaves_nothing_behind() {
    let Some(_wire) = Wire::unwired().filter(|_| with_dpdk()) else { return };
    let there =
        |name: &str| Command::new("ip").args(["link", "show", name]).output().unwrap().status.success();
    let lab = Lab::new();
    let ports = ["dpdk:net_tap7,iface=m7", "dpdk:net_null0"];
    let (mut manager, _nfs) = start(&lab, ports, &[]);
    wait_until("the device", || there("m7"));
    manager.wait_until("packets", |l| l.packets("received") > 1000);
    let files = format!("/var/run/dpdk/onvm-{}", manager.process.pid());
    manager.process.signal(Signal::KILL);
    let _ = manager.process.wait(LIMIT);
    wait_until("the end of the device", || !there("m7"));
    assert!(!Path::new(&files).exists(), "{files} is left behind");
}

#[test]
fn what_cannot_be_opened_is_told() {
    if !with_dpdk() {
        return;
    }
    let lab = Lab::new();
    for (port, why) in [
        ("dpdk:", "the name of a device is needed"),
        ("dpdk:net_af_packet0,iface=no-such-if0", "its driver does not take it"),
        ("dpdk:0000:ee:1e.6", "there is no such device"),
    ] {
        let end =
            lab.bare("onvm-mgr", &["--port", port, "--socket", &lab.file("s")]).wait(LIMIT).with_code(1);
        assert!(end.err.contains(&format!("port {port:?}: ")) && end.err.contains(why), "{end}");
    }
}
