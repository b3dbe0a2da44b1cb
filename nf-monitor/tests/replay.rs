//! The program over captures: made ones, of which everything is known, and real ones, compared with tshark.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use onvm_lib::capture::{Frame, LinkType, Writer};
use onvm_lib::wire::{ipv4, tcp};
use serde_json::Value;

const SECOND: u64 = 1_000_000_000;
const SYN: u16 = 0x002;
const ACK: u16 = 0x010;
const FIN: u16 = 0x001;

/// A TCP segment between two ports of 10.0.0.1 and 10.0.0.2, the server at port 80 being the second.
fn segment(to_server: bool, port: u16, flags: u16, payload: usize) -> Vec<u8> {
    let mut bytes = vec![2; 12];
    bytes.extend([8, 0, 0x45]);
    bytes.resize(54 + payload, 0);
    let total = u16::try_from(40 + payload).unwrap();
    let mut ip = ipv4::Packet::new_checked(&mut bytes[14..]).unwrap();
    let (client, server) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let (src, dst) = if to_server { (client, server) } else { (server, client) };
    ip.set_total_len(total);
    ip.set_ttl(64);
    ip.set_protocol(tcp::PROTOCOL);
    ip.set_src(src);
    ip.set_dst(dst);
    ip.fill_checksum();
    let ports = if to_server { (port, 80) } else { (80, port) };
    bytes[34..36].copy_from_slice(&ports.0.to_be_bytes());
    bytes[36..38].copy_from_slice(&ports.1.to_be_bytes());
    bytes[46..48].copy_from_slice(&(0x5000 | flags).to_be_bytes());
    bytes
}

fn capture(folder: &Path, frames: &[(u64, Vec<u8>)]) -> PathBuf {
    let path = folder.join("in.pcap");
    let mut writer = Writer::create(&path).unwrap();
    let interface = writer.add_interface(LinkType::Ethernet, "").unwrap();
    for (timestamp_ns, data) in frames {
        let frame = Frame {
            timestamp_ns: *timestamp_ns,
            original_len: u32::try_from(data.len()).unwrap(),
            link_type: LinkType::Ethernet,
            interface,
            data,
        };
        writer.write_frame(&frame).unwrap();
    }
    writer.finish().unwrap();
    path
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nf-monitor")).args(arguments).output().unwrap()
}

fn report(input: &Path, options: &[&str]) -> Value {
    let mut arguments = vec!["--replay", input.to_str().unwrap(), "--json"];
    arguments.extend(options);
    let done = run(&arguments);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mut json: Value = serde_json::from_slice(&done.stdout).unwrap();
    json["report"].take()
}

/// A connection of seven segments, from a time on, a tenth of a second apart.
fn connection(start_ns: u64, port: u16) -> Vec<(u64, Vec<u8>)> {
    let segments = [
        (true, SYN, 0),
        (false, SYN | ACK, 0),
        (true, ACK, 100),
        (false, ACK, 1000),
        (false, FIN | ACK, 0),
        (true, FIN | ACK, 0),
        (false, ACK, 0),
    ];
    (0..)
        .zip(segments)
        .map(|(n, (to_server, flags, payload))| {
            (start_ns + n * SECOND / 10, segment(to_server, port, flags, payload))
        })
        .collect()
}

#[test]
fn a_connection_is_one_flow_with_two_directions() {
    let folder = tempfile::tempdir().unwrap();
    let json = report(&capture(folder.path(), &connection(1_700_000_000 * SECOND, 1234)), &[]);
    assert_eq!(json["packets"], 7);
    assert_eq!(json["bytes"], 7 * 54 + 1100);
    let flow = &json["top_flows"][0];
    assert_eq!(flow["flow"], "10.0.0.1:1234 > 10.0.0.2:80 tcp");
    assert_eq!((&flow["there"]["packets"], &flow["back"]["packets"]), (&3.into(), &4.into()));
    assert_eq!((&flow["there"]["bytes"], &flow["back"]["bytes"]), (&262.into(), &1216.into()));
    assert_eq!((&flow["tcp_state"], &flow["tcp_flags"]), (&"closed".into(), &"FSA".into()));
    assert_eq!(flow["first_ns"], 1_700_000_000 * SECOND);
    assert_eq!(flow["last_ns"], 1_700_000_000 * SECOND + 6 * SECOND / 10);
    assert_eq!(json["protocols"]["transport"]["tcp"]["packets"], 7);
    assert_eq!(json["protocols"]["sizes"]["0-63"], 5);
    let overall = json["rate_overall"]["packets_per_second"].as_f64().unwrap();
    assert!((overall - 7.0 / 0.6).abs() < 0.01, "{overall}");
    let server = json["top_hosts"].as_array().unwrap().iter().find(|h| h["host"] == "10.0.0.2").unwrap();
    assert_eq!(server["sent"]["bytes"], 1216);
}

#[test]
fn a_port_used_again_and_a_silence_make_new_flows() {
    let folder = tempfile::tempdir().unwrap();
    let mut frames = connection(SECOND, 1234);
    frames.extend(connection(10 * SECOND, 1234));
    frames.extend(connection(200 * SECOND, 1234));
    let flows = report(&capture(folder.path(), &frames), &["--flow-timeout", "60"])["flows"].take();
    assert_eq!((&flows["seen"], &flows["active"], &flows["expired"]), (&3.into(), &1.into(), &2.into()));
    assert_eq!(report(&folder.path().join("in.pcap"), &[])["top_flows"].as_array().unwrap().len(), 3);
}

#[test]
fn tables_stay_bounded_and_say_what_they_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let frames: Vec<_> = (1..1000u16).map(|n| (SECOND + u64::from(n), segment(true, n, SYN, 0))).collect();
    let json = report(&capture(folder.path(), &frames), &["--max-flows", "100", "--top", "3"]);
    let n = |name: &str| json["flows"][name].as_u64().unwrap();
    assert!(n("active") <= 100);
    assert_eq!(n("seen") + n("refused"), 999);
    assert_eq!(n("seen"), n("active") + n("evicted") + n("expired"));
    assert_eq!(json["protocols"]["transport"]["tcp"]["packets"], 999);
    assert_eq!(json["top_flows"].as_array().unwrap().len(), 3);
}

#[test]
fn sorting_by_packets_differs_from_sorting_by_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let mut frames = vec![(SECOND, segment(true, 1, ACK, 1400))];
    frames.extend((0..5).map(|n| (SECOND + n, segment(true, 2, ACK, 0))));
    let input = capture(folder.path(), &frames);
    let first =
        |sort: &str| report(&input, &["--sort", sort, "--top", "1"])["top_flows"][0]["src_port"].take();
    assert_eq!((first("bytes"), first("packets")), (1.into(), 2.into()));
}

#[test]
fn text_names_what_was_seen() {
    let folder = tempfile::tempdir().unwrap();
    let input = capture(folder.path(), &connection(SECOND, 1234));
    let done = run(&["--replay", input.to_str().unwrap(), "-p", "1"]);
    let text = String::from_utf8(done.stdout).unwrap();
    for part in ["7 packets, 1478 bytes", "IPv4", "tcp", "closed", "10.0.0.1:1234 > 10.0.0.2:80 tcp"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains('\x1b'), "escapes are for terminals only");
}

#[test]
fn wrong_command_lines_are_refused_with_a_reason() {
    for (arguments, says) in [
        (&["-r", "1", "--sort", "colour"][..], "bytes, packets"),
        (&["-r", "1", "--top", "1001"], "1001 is not in 0..=1000"),
        (&["-r", "1", "--flow-timeout", "0"], "0 is not in 1..=1000000"),
        (&["-r", "1", "--max-flows", "0"], "0 is not in 1..=16777216"),
        (&["--top", "3"], "--service-id"),
    ] {
        let done = run(arguments);
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
}

/// Captures for tests, if they are there.
fn test_data() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("ONVM_TEST_DATA").map_or_else(beside, PathBuf::from);
    folder.is_dir().then_some(folder)
}

/// What tshark says of the outermost headers of each frame: bytes, network, protocol, ends of the flow.
fn tshark(file: &Path) -> Option<Vec<Vec<String>>> {
    let fields = ["frame.len", "frame.protocols", "ip.proto", "ipv6.src", "ipv6.dst", "ip.src", "ip.dst"];
    let ports = ["tcp.srcport", "tcp.dstport"];
    let mut command = Command::new("tshark");
    command.args(["-n", "-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE"]);
    command.args(["-T", "fields", "-E", "occurrence=f", "-E", "separator=;", "-r"]).arg(file);
    fields.iter().chain(&ports).for_each(|field| {
        command.args(["-e", field]);
    });
    let done = match command.output() {
        Ok(done) => done,
        Err(error) if std::env::var_os("CI").is_some() => panic!("tshark cannot be run: {error}"),
        Err(error) => {
            eprintln!("SKIPPED: tshark cannot be run: {error}");
            return None;
        }
    };
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    Some(text.lines().map(|line| line.split(';').map(String::from).collect()).collect())
}

/// What tshark counted: packets by the names of our report, and pairs of ends of TCP connections.
#[derive(Default)]
struct Golden {
    packets: BTreeMap<&'static str, u64>,
    connections: BTreeSet<[(String, String); 2]>,
}

impl Golden {
    fn add(&mut self, frame: &[String]) {
        let layers: Vec<&str> = frame[1].split(':').collect();
        let Some(at) = layers.iter().position(|l| matches!(*l, "ip" | "ipv6" | "arp")) else { return };
        let (network, transport) = match (layers[at], frame[2].as_str()) {
            ("arp", _) => ("ARP", None),
            ("ip", "6") => ("IPv4", Some("tcp")),
            ("ip", "17") => ("IPv4", Some("udp")),
            ("ip", _) => ("IPv4", None),
            // Without extension headers, which these captures do not have.
            _ => ("IPv6", layers.get(at + 1).copied()),
        };
        *self.packets.entry(network).or_default() += 1;
        let Some(transport) = ["tcp", "udp"].into_iter().find(|name| Some(*name) == transport) else {
            return;
        };
        *self.packets.entry(transport).or_default() += 1;
        if transport == "tcp" {
            let end =
                |v4: usize, v6: usize, port: usize| (frame[v4].clone() + &frame[v6], frame[port].clone());
            let mut ends = [end(5, 3, 7), end(6, 4, 8)];
            ends.sort();
            self.connections.insert(ends);
        }
    }
}

/// Pairs of ends of the TCP connections in a report.
fn connections(report: &Value) -> BTreeSet<[(String, String); 2]> {
    let flows = report["top_flows"].as_array().unwrap();
    assert!(flows.len() < 1000, "too many flows to compare");
    let tcp = flows.iter().filter(|flow| flow["protocol"] == 6);
    tcp.map(|flow| {
        let end = |ip: &str, port: &str| (flow[ip].as_str().unwrap().to_owned(), flow[port].to_string());
        let mut ends = [end("src", "src_port"), end("dst", "dst_port")];
        ends.sort();
        ends
    })
    .collect()
}

#[test]
fn real_captures_count_as_tshark_counts_them() {
    let Some(data) = test_data() else {
        eprintln!("SKIPPED: no test data; set ONVM_TEST_DATA");
        return;
    };
    // Ethernet without tunnels on the way, so that the first in tshark's list is the outer one.
    for file in [
        "pcpp/Tests__ExamplesTest__pcap_examples__ip-frag.pcap",
        "pcpp/Tests__ExamplesTest__pcap_examples__tls2.pcap",
        "pcpp/Tests__ExamplesTest__pcap_examples__tcp-reassembly.pcap",
        "pcpp/Tests__Packet++Test__PacketExamples__Ftp.pcap",
        "pcpp/Tests__Packet++Test__PacketExamples__dns_over_tcp.pcapng",
    ] {
        let path = data.join("pcaps").join(file);
        assert!(path.is_file(), "{file} is missing from the test data");
        let Some(frames) = tshark(&path) else { return };
        let mut golden = Golden::default();
        frames.iter().for_each(|frame| golden.add(frame));
        let json = report(&path, &["--flow-timeout", "1000000", "--top", "1000"]);
        let bytes: u64 = frames.iter().map(|frame| frame[0].parse::<u64>().unwrap()).sum();
        assert_eq!((&json["packets"], &json["bytes"]), (&frames.len().into(), &bytes.into()), "{file}");
        for (name, n) in &golden.packets {
            let group = if matches!(*name, "tcp" | "udp") { "transport" } else { "network" };
            assert_eq!(json["protocols"][group][name]["packets"], *n, "{name} in {file}");
        }
        assert_eq!(connections(&json), golden.connections, "{file}");
    }
}

#[test]
fn what_tunnels_carry_is_counted_by_option() {
    let folder = tempfile::tempdir().unwrap();
    let inner = segment(true, 4000, SYN, 10);
    let mut frame = inner[..14].to_vec();
    // IP in IP in IP, between two routers.
    for (levels, last) in [(2u16, 4), (1, 4)] {
        let total = u16::try_from(inner.len() - 14).unwrap() + 20 * levels;
        frame.extend([0x45, 0]);
        frame.extend(total.to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, last, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    }
    frame.extend_from_slice(&inner[14..]);
    let input = capture(folder.path(), &[(SECOND, frame.clone()), (2 * SECOND, frame)]);
    let outer = report(&input, &[]);
    assert_eq!(outer["top_flows"][0]["flow"], "192.0.2.1 > 192.0.2.2 ipip");
    let within = report(&input, &["--inner"]);
    assert_eq!(within["top_flows"][0]["flow"], "10.0.0.1:4000 > 10.0.0.2:80 tcp");
    assert_eq!(within["top_flows"][0]["there"]["packets"], 2);
}
