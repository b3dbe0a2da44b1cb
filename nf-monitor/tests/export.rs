//! Exports, read back by others: nfcapd and nfdump (Debian's nfdump), counted against softflowd, tshark and capinfos.

mod collector;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use collector::{Collector, Totals, has};
use onvm_lib::capture::{Frame, LinkType, Writer};
use serde_json::Value;

/// No flow of any capture is silent for so long, or lasts.
const NO_TIMEOUT: &str = "tcp=1000000000,tcp.rst=1000000000,tcp.fin=1000000000,udp=1000000000,icmp=1000000000,\
                          general=1000000000,maxlife=1000000000";

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nf-monitor")).args(arguments).output().unwrap()
}

/// The report of a replay.
fn report(input: &Path, options: &[&str]) -> Value {
    all_of(input, options)["report"].take()
}

/// All that a replay says at its end.
fn all_of(input: &Path, options: &[&str]) -> Value {
    let mut arguments = vec!["--replay", input.to_str().unwrap(), "--json", "--timeout", NO_TIMEOUT];
    arguments.extend(options);
    let done = run(&arguments);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

fn output_of(report: &Value) -> Totals {
    let output = &report["records"]["outputs"][0];
    let n = |name: &str| output[name].as_u64().unwrap();
    assert_eq!((n("lost"), &output["error"]), (0, &Value::Null), "{output}");
    Totals { flows: n("records"), packets: n("packets"), bytes: n("octets") }
}

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/sample.pcap")
}

/// Captures of others, if they are there.
fn captures() -> Vec<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("ONVM_TEST_DATA").map_or_else(beside, PathBuf::from).join("pcaps");
    let Ok(kinds) = std::fs::read_dir(&folder) else {
        eprintln!("SKIPPED: no captures in {}; set ONVM_TEST_DATA", folder.display());
        return Vec::new();
    };
    let kinds = kinds.flatten().map(|kind| kind.path()).filter(|kind| kind.is_dir());
    let files = kinds.flat_map(|kind| std::fs::read_dir(kind).unwrap().flatten().map(|file| file.path()));
    let mut all: Vec<PathBuf> = files.collect();
    all.sort();
    assert!(all.len() > 50, "{} has few captures", folder.display());
    all
}

/// Whether our reader knows the capture's link types.
fn is_readable(capture: &Path) -> bool {
    let done = run(&["--replay", capture.to_str().unwrap(), "--json"]);
    done.status.success()
}

/// What tshark says of IP lengths: packets of IP and their bytes, by the outermost header.
fn ip_totals(capture: &Path) -> (u64, u64) {
    let done = Command::new("tshark")
        .args(["-n", "-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE", "-T", "fields"])
        .args(["-E", "occurrence=f", "-E", "separator=;"])
        .args(["-e", "frame.protocols", "-e", "ip.len", "-e", "ipv6.plen", "-r"])
        .arg(capture)
        .output()
        .unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    let mut totals = (0, 0);
    for line in text.lines() {
        let fields: Vec<&str> = line.split(';').collect();
        let layer = fields[0].split(':').find(|layer| matches!(*layer, "ip" | "ipv6" | "arp"));
        let bytes: u64 = match layer {
            Some("ip") => fields[1].parse().unwrap(),
            Some("ipv6") => fields[2].parse::<u64>().unwrap() + 40,
            _ => continue,
        };
        totals = (totals.0 + 1, totals.1 + bytes);
    }
    totals
}

/// Packets and bytes of a capture by capinfos; none if it cannot read it.
fn capinfos(capture: &Path) -> Option<(u64, u64)> {
    let done =
        Command::new("capinfos").args(["-E", "-c", "-d", "-M", "-T", "-r"]).arg(capture).output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    let fields: Vec<&str> = text.trim_end().split('\t').collect();
    let (packets, bytes): (u64, u64) = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
    // Of ATM cells it leaves out the header that the driver put in front, and the file has.
    let left_out = if fields[1] == "atm-pdus" { 4 } else { 0 };
    Some((packets, bytes + packets * left_out))
}

#[test]
fn nfdump_reads_back_what_was_in_the_capture() {
    let Some(mut collector) = Collector::start() else { return };
    if !has("tshark", "tshark") {
        return;
    }
    let (packets, bytes) = ip_totals(&sample());
    let (all_packets, all_bytes) = capinfos(&sample()).unwrap();
    for (scheme, options, expected) in [
        ("ipfix", &[][..], (packets, bytes)),
        ("netflow9", &[], (packets, bytes)),
        ("ipfix", &["--export-applications"], (packets, bytes)),
        ("netflow9", &["--export-applications"], (packets, bytes)),
        ("ipfix", &["--flow-keys", "connection"], (packets, bytes)),
        ("ipfix", &["--export-octets", "frame", "--export-other"], (all_packets, all_bytes)),
        ("netflow9", &["--export-octets", "frame", "--export-other"], (all_packets, all_bytes)),
        ("ipfix", &["--export-octets", "frame", "--export-other", "--biflow"], (all_packets, all_bytes)),
    ] {
        let to = collector.address(scheme);
        let report = report(&sample(), &[&["--export", &to][..], options].concat());
        let read = collector.totals();
        let said = output_of(&report);
        assert_eq!(read.totals, said, "{scheme} {options:?}");
        assert_eq!((said.packets, said.bytes), expected, "{scheme} {options:?}");
        assert_eq!(read.trouble, 0, "sequence errors or bad packets, {scheme} {options:?}");
        if options.contains(&"--biflow") {
            assert_eq!(Some(said.flows), report["flows"]["seen"].as_u64());
        }
    }
}

#[test]
fn a_file_of_messages_is_one_that_tshark_reads() {
    if !has("tshark", "tshark") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flows.ipfix");
    let to = format!("file:{}", file.display());
    for options in [&[][..], &["--biflow", "--export-applications"], &["--export-other"]] {
        let ours = output_of(&report(&sample(), &[&["--export", &to][..], options].concat()));
        let done = Command::new("tshark")
            .args(["-n", "-T", "fields", "-e", "cflow.packets", "-e", "cflow.octets", "-e", "_ws.expert"])
            .args(["-e", "_ws.malformed", "-E", "separator=;", "-r"])
            .arg(&file)
            .output()
            .unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        let mut read = Totals::default();
        for line in text.lines() {
            let fields: Vec<&str> = line.split(';').collect();
            assert!(fields[2..].iter().all(|complaint| complaint.is_empty()), "{line}");
            let numbers = |field: &str| -> Vec<u64> { field.split(',').flat_map(str::parse).collect() };
            read.flows += numbers(fields[0]).len() as u64;
            read.packets += numbers(fields[0]).iter().sum::<u64>();
            read.bytes += numbers(fields[1]).iter().sum::<u64>();
        }
        // Of a record for both directions it has two counts of packets.
        let counts = if options.contains(&"--biflow") { 2 } else { 1 };
        assert_eq!(read, Totals { flows: ours.flows * counts, ..ours }, "{options:?}");
    }
}

#[test]
fn active_and_inactive_timeouts_cut_what_nfdump_reads() {
    let Some(mut collector) = Collector::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    // A packet a second for a hundred seconds, then a silence, then one.
    let seconds = (1_700_000_000..1_700_000_100).chain([1_700_000_200]);
    let input = udp_capture(folder.path(), seconds.map(|second| (second * 1_000_000_000, 1024)));
    for (options, flows) in [
        (&["--flow-timeout", "1000", "--active-timeout", "1000"][..], 1),
        (&["--flow-timeout", "60", "--active-timeout", "1000"], 2),
        (&["--flow-timeout", "60", "--active-timeout", "10"], 11),
        (&["--flow-timeout", "1000", "--active-timeout", "25"], 5),
        (&["--flow-timeout", "1000", "--timeout", "udp=60,maxlife=50"], 3),
    ] {
        let to = collector.address("ipfix");
        let arguments = ["--replay", input.to_str().unwrap(), "--export", &to, "--json"];
        let done = run(&[&arguments[..], options].concat());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let read = collector.totals();
        assert_eq!(read.totals, Totals { flows, packets: 101, bytes: 101 * 46 }, "{options:?}");
    }
}

/// A capture of UDP packets of 60 bytes at these times, from these ports.
fn udp_capture(folder: &Path, packets: impl Iterator<Item = (u64, u16)>) -> PathBuf {
    let path = folder.join("in.pcap");
    let mut writer = Writer::create(&path).unwrap();
    let interface = writer.add_interface(LinkType::Ethernet, "").unwrap();
    for (timestamp_ns, port) in packets {
        let mut data = vec![2; 12];
        data.extend([8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        data.extend(port.to_be_bytes());
        data.extend([0, 53, 0, 26, 0, 0]);
        data.resize(60, 0);
        let frame =
            Frame { timestamp_ns, original_len: 60, link_type: LinkType::Ethernet, interface, data: &data };
        writer.write_frame(&frame).unwrap();
    }
    writer.finish().unwrap();
    path
}

#[test]
fn a_flood_of_records_loses_none_on_the_way() {
    // A rate at which a socket's usual buffer holds what comes while nfcapd waits for a processor.
    let Some(mut collector) = Collector::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let input = udp_capture(folder.path(), (0..60_000u16).map(|port| (1_700_000_000_000_000_000, port)));
    let to = collector.address("ipfix");
    let report = report(&input, &["--export", &to, "--export-rate", "500"]);
    let read = collector.totals();
    assert_eq!(read.totals, Totals { flows: 60_000, packets: 60_000, bytes: 60_000 * 46 });
    assert_eq!((output_of(&report), read.trouble), (read.totals, 0));
}

/// What softflowd counts differently, and why.
const OTHERWISE: &[(&str, &str)] = &[
    ("arkime_synthetic.pcap", "it reads no IP in two of our link layers (several tags, PPPoE)"),
    ("PacketExamples__GrePackets.pcap", "it does not read Linux cooked captures"),
    ("dns_over_tcp.pcapng", "it does not read this kind of pcapng"),
    ("ipv4-malformed.pcap", "it does not read the link layer"),
    ("too_many_interfaces.pcapng", "it does not read pcapng with several interfaces"),
    ("bigtcp-ipv4-geneve-ipv6.pcap", "it takes an IPv4 total length of 0"),
    ("ipv4_invalid_hdr_length.pcap", "it takes an IPv4 header length below 20"),
    ("nfs-attr-oobr.pcap", "it keeps directions apart where both ends have one address"),
    ("wstunnel-http.pcap", "it keeps directions apart where both ends have one address"),
    ("ipv6_zero_len_ah.pcap", "it does not look behind an authentication header"),
];

#[test]
fn flows_are_softflowd_s() {
    if !has("softflowd", "softflowd") {
        return;
    }
    let mut compared = 0;
    for capture in captures().into_iter().chain([sample()]) {
        if OTHERWISE.iter().any(|(name, _)| capture.to_str().unwrap().ends_with(name)) {
            continue;
        }
        let done = Command::new("softflowd")
            .args(["-v", "10", "-6", "-c", "none", "-d", "-n", "127.0.0.1:9", "-r"])
            .arg(&capture)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let numbers = |line: &str| -> Option<Vec<u64>> {
            let line = text.lines().find(|known| known.starts_with(line))?;
            Some(line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect())
        };
        let (Some(flows), Some(packets)) = (numbers("Flows exported"), numbers("Packets processed")) else {
            // It does not know the link type.
            continue;
        };
        if !is_readable(&capture) {
            continue;
        }
        let report = report(&capture, &["--export", "file:/dev/null"]);
        let ours = output_of(&report);
        let seen = report["flows"]["seen_ip"].as_u64().unwrap();
        assert_eq!(
            (seen, ours.flows, ours.packets),
            (flows[0], flows[1], packets[0]),
            "{}",
            capture.display()
        );
        compared += 1;
    }
    eprintln!("{compared} captures compared with softflowd");
    assert!(compared > 0);
}

#[test]
fn packets_and_bytes_are_exact_on_every_capture() {
    if !has("capinfos", "tshark") {
        return;
    }
    let mut compared = 0;
    for capture in captures().into_iter().chain([sample()]) {
        if !is_readable(&capture) {
            continue;
        }
        let whole = ["--export", "file:/dev/null", "--export-octets", "frame", "--export-other"];
        let mut all = all_of(&capture, &whole);
        let (dropped, report) = (all["dropped"].take(), all["report"].take());
        let ours = output_of(&report);
        assert_eq!(dropped, 0, "{}", capture.display());
        assert_eq!(Some(ours.packets), report["packets"].as_u64(), "{}", capture.display());
        assert_eq!(Some(ours.bytes), report["bytes"].as_u64(), "{}", capture.display());
        let Some(expected) = capinfos(&capture) else { continue };
        assert_eq!((ours.packets, ours.bytes), expected, "{}", capture.display());
        compared += 1;
    }
    eprintln!("{compared} captures compared with capinfos");
    assert!(compared > 0);
}

#[test]
fn a_collector_that_is_not_there_and_wrong_options_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let input = udp_capture(folder.path(), [(1, 1)].into_iter());
    let input = input.to_str().unwrap();
    for (options, says) in [
        (&["--export", "sflow://a:1"][..], "there is no export sflow"),
        (&["--export", "ipfix://no such host:1"], "no such host:1: "),
        (&["--export", "file:/nowhere/flows"], "cannot write /nowhere/flows: "),
        (&["--export", "netflow9://127.0.0.1:9", "--biflow"], "NetFlow version 9 has no biflows"),
        (&["--csv", "-", "--json-lines", "-"], "--json-lines and --csv cannot both have standard output"),
        (&["--csv", "-", "--live"], "--live draws on standard output"),
        (&["--timeout", "tpc=3"], "there is no timeout tpc"),
        (&["--active-timeout", "0"], "0 is not in 1..=1000000000"),
    ] {
        let done = run(&[&["--replay", input][..], options].concat());
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(!done.status.success() && said.contains(says), "{options:?}: {said}");
    }
    // Nobody listens on the port for "discard": the system tells, and it is counted.
    let done = run(&["--replay", input, "--export", "ipfix://127.0.0.1:9", "--json"]);
    let json: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert!(done.status.success());
    assert_eq!(json["report"]["records"]["outputs"][0]["records"], 1, "{json}");
}
