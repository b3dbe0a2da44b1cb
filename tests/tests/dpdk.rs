//! Ports on DPDK's virtual devices: captures, kernel TCP through sockets and TAP devices, and packets that a process without
//! DPDK rewrites where they were received.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use onvm_tests::wire::{Background, SERVER, SERVER_V6, Wire};
use onvm_tests::{LIMIT, Lab, Manager, Process, made_capture, read_capture, sample, wait_until, with_dpdk};

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
        let (mut manager, nfs) = start(&lab, [&ports[0], &ports[1]], &["-l", &count.to_string()]);
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
fn no_super_frames(wire: &Wire) {
    for mut command in [
        wire.at_client(&["ethtool", "-K", "c0", "tso", "off", "gso", "off"]),
        wire.at_server(&["ethtool", "-K", "s0", "tso", "off", "gso", "off"]),
    ] {
        assert!(command.status().unwrap().success(), "{command:?}");
    }
}

/// A file of chance, and an HTTP server that has it.
fn served(lab: &Lab, wire: &Wire) -> (String, Background) {
    std::fs::create_dir(lab.path("served")).unwrap();
    let mut file = std::fs::File::create(lab.path("served/file")).unwrap();
    let mut random = std::fs::File::open("/dev/urandom").unwrap();
    let mut block = vec![0; 1 << 20];
    for _ in 0..20 {
        std::io::Read::read_exact(&mut random, &mut block).unwrap();
        file.write_all(&block).unwrap();
    }
    let server =
        wire.serve(&["python3", "-m", "http.server", "--bind", "::", "-d", &lab.file("served"), "8000"]);
    wait_until("the server", || {
        let get = ["curl", "-sf", "-o", "/dev/null", "http://127.0.0.1:8000/"];
        wire.at_server(&get).status().unwrap().success()
    });
    (sha256(Command::new("cat").arg(lab.file("served/file"))), server)
}

/// The checksum of what a command writes.
fn sha256(command: &mut Command) -> String {
    let mut source = command.stdout(Stdio::piped()).spawn().unwrap();
    let sum = Command::new("sha256sum").stdin(source.stdout.take().unwrap()).output().unwrap();
    assert!(source.wait().unwrap().success(), "{command:?}");
    String::from_utf8(sum.stdout).unwrap()
}

/// Client and server speak, in short and long packets, and a download arrives whole by both protocols.
/// Fragments of IPv4 `net_af_packet` joins, and has no room for what comes of it.
fn speak(lab: &Lab, wire: &Wire, fragments: bool) {
    let long = if fragments { "5000" } else { "1472" };
    for (host, size) in [(SERVER, "56"), (SERVER_V6, "56"), (SERVER, long), (SERVER_V6, "5000")] {
        let ping = wire.client(&["ping", "-c", "3", "-i", "0.05", "-W", "5", "-s", size, host]);
        assert!(ping.contains(" 0% packet loss"), "{ping}");
    }
    let (sum, _server) = served(lab, wire);
    for host in [SERVER.to_string(), format!("[{SERVER_V6}]")] {
        let url = format!("http://{host}:8000/file");
        let came = sha256(&mut wire.at_client(&["curl", "-sf", "--max-time", "100", &url]));
        assert_eq!(came, sum, "{host}");
    }
}

#[test]
fn hosts_reach_each_other_through_sockets_of_dpdk() {
    let Some(wire) = Wire::new(1500).filter(|_| with_dpdk()) else { return };
    no_super_frames(&wire);
    for (ports, fragments) in [
        (["dpdk:net_af_packet0,iface=m0", "dpdk:net_af_packet1,iface=m1"], false),
        (["dpdk:net_af_packet0,iface=m0,qpairs=2", "afpacket:m1"], false),
        (["afpacket:m0", "dpdk:net_pcap1,iface=m1"], true),
    ] {
        let lab = Lab::new();
        let (manager, nfs) = start(&lab, ports, &[]);
        speak(&lab, &wire, fragments);
        stop(manager, nfs);
    }
}

/// Sends frames as they are: from standard input, each with its length in front.
const SEND: &str = "import socket, struct, sys\n\
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('c0', 0))\n\
    d = sys.stdin.buffer.read()\n\
    while d:\n    n, = struct.unpack('>I', d[:4]); s.send(d[4:4+n]); d = d[4+n:]\n";

#[test]
fn tagged_and_long_frames_arrive_to_the_byte() {
    let Some(wire) = Wire::new(9000).filter(|_| with_dpdk()) else { return };
    no_super_frames(&wire);
    let lab = Lab::new();
    let sizes = "framesz=9216,blocksz=36864,framecnt=512";
    let ports = ["0", "1"].map(|n| format!("dpdk:net_af_packet{n},iface=m{n},{sizes}"));
    let (manager, nfs) = start(&lab, [&ports[0], &ports[1]], &["--mtu", "9100"]);
    let ping = wire.client(&["ping", "-c", "3", "-i", "0.05", "-M", "do", "-s", "8972", "-W", "5", SERVER]);
    assert!(ping.contains(" 0% packet loss"), "{ping}");
    let out = lab.file("out.pcap");
    let mut tcpdump = wire
        .at_server(&["tcpdump", "-i", "s0", "-Q", "in", "-U", "-w", &out, "ether src 02:77:00:00:00:01"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 9];
    std::io::Read::read_exact(tcpdump.stderr.as_mut().unwrap(), &mut said).unwrap();
    let frames: Vec<Vec<u8>> = (0..150usize)
        .map(|number| {
            let tag: &[u8] = [&[][..], &[0x81, 0, 0, 5], &[0x81, 0, 0xe0, 0]][number % 3];
            let length = [46, 100, 1500, 8990][number % 4];
            let payload = (0..length).map(|at| u8::try_from((at + number) % 256).unwrap());
            let addresses = [2, 0x77, 0, 0, 0, 2, 2, 0x77, 0, 0, 0, 1];
            [&addresses[..], tag, &[0x88, 0xb5]].concat().into_iter().chain(payload).collect()
        })
        .collect();
    let mut send = wire.at_client(&["python3", "-c", SEND]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = send.stdin.take().unwrap();
    for frame in &frames {
        input.write_all(&u32::try_from(frame.len()).unwrap().to_be_bytes()).unwrap();
        input.write_all(frame).unwrap();
    }
    drop(input);
    assert!(send.wait().unwrap().success());
    let out = lab.path("out.pcap");
    wait_until("all frames", || {
        std::fs::metadata(&out).is_ok_and(|m| m.len() > 24) && bytes_of(&out).len() >= frames.len()
    });
    let _ = tcpdump.kill();
    let _ = tcpdump.wait();
    assert!(bytes_of(&out) == frames, "frames arrive changed or in another order");
    stop(manager, nfs);
}

#[test]
fn hosts_reach_each_other_through_taps_of_dpdk() {
    let Some(wire) = Wire::new(1500).filter(|_| with_dpdk()) else { return };
    no_super_frames(&wire);
    for (other, fragments) in [("dpdk:net_af_packet1,iface=m1", false), ("afpacket:m1", true)] {
        let lab = Lab::new();
        let (manager, nfs) = start(&lab, ["dpdk:net_tap0,iface=dtap0", other], &[]);
        wait_until("the device", || {
            let up = Command::new("ip").args(["addr", "show", "up", "dtap0"]).output().unwrap();
            up.status.success() && !up.stdout.is_empty()
        });
        wire.give_to_client("dtap0");
        speak(&lab, &wire, fragments);
        let ledger = manager.stop(LIMIT);
        ledger.assert_clean();
        assert_eq!(ledger.packets("received"), ledger.packets("sent"), "{}", ledger.0);
        for mut nf in nfs {
            let _ = nf.wait(LIMIT).good();
        }
    }
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
