//! `capture=`: what passes a port, as tshark reads it, while it is written and afterwards.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use onvm_tests::{LIMIT, Lab, Ledger};

/// Interface, direction and comment of each packet, as tshark tells them; none, and said so aloud, without tshark.
fn told(path: &Path) -> Option<Vec<(u32, String, String)>> {
    told_of(path, false)
}

/// The same of a file that may be `growing`: then its last packet may be there in part, and it is read once more.
fn told_of(path: &Path, growing: bool) -> Option<Vec<(u32, String, String)>> {
    let fields = ["-e", "frame.interface_id", "-e", "frame.packet_flags_direction", "-e", "frame.comment"];
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(path).args(["-T", "fields", "-E", "separator=|"]).args(fields);
    let until = Instant::now() + LIMIT;
    let out = loop {
        let Ok(out) = tshark.output() else {
            assert!(std::env::var_os("CI").is_none(), "tshark is missing: apt-get install tshark");
            eprintln!("SKIPPED: tshark is missing, captures are not judged (apt-get install tshark)");
            return None;
        };
        let errors = String::from_utf8_lossy(&out.stderr);
        let cut = errors.contains("cut short");
        if growing && cut && Instant::now() < until {
            continue;
        }
        assert!(out.status.success() && !cut, "{errors}");
        break out;
    };
    let line = |line: &str| {
        let mut parts = line.splitn(3, '|');
        let mut next = || parts.next().unwrap_or_default().to_string();
        let (interface, direction, comment) = (next(), next(), next());
        (interface.parse().unwrap(), direction, comment)
    };
    Some(String::from_utf8(out.stdout).unwrap().lines().map(line).collect())
}

/// How often each was told.
fn counted(packets: &[(u32, String, String)]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for (interface, direction, comment) in packets {
        let way = match direction.as_str() {
            "0x00000001" | "1" => "in",
            "0x00000002" | "2" => "out",
            _ => "-",
        };
        *counts.entry(format!("{interface} {way} {comment}")).or_default() += 1;
    }
    counts
}

fn extra(ledger: &Ledger, port: usize, name: &str) -> u64 {
    ledger.0["ports"][port][name].as_u64().unwrap_or(0)
}

#[test]
fn comments_name_hops_and_verdicts() {
    let lab = Lab::new();
    // A time to live of 64, and a chain that takes 1 from it twice: all arrive. The third rule's chain is straight.
    let text = "ports:\n  - \"gen:count=3000,flows=6,fault=rx:drop:10%,capture=in.pcapng\"\n  \
        - \"null:fault=tx:drop:5%,capture=out.pcapng\"\n\
        services:\n  first: {id: 1, command: [nf-forward]}\n  second: {id: 2, command: [nf-forward]}\n\
        chains:\n  web: [first, second]\n  straight: []\nrules:\n  \
        - {protocol: udp, source-port: 1024-1026, chain: straight}\ndefault-chain: web\n";
    let mut manager = lab.up(text, &[]);
    let ledger = manager.ended(LIMIT);
    ledger.assert_clean();
    for port in [0, 1] {
        assert_eq!(
            (extra(&ledger, port, "capture_missed"), extra(&ledger, port, "capture_unwritten")),
            (0, 0)
        );
    }
    let (refused, lost) = (extra(&ledger, 0, "rx_faulted"), extra(&ledger, 1, "tx_faulted"));
    assert!(refused > 200 && lost > 50, "{}", ledger.0);
    let Some(came) = told(&lab.path("in.pcapng")) else { return };
    let came = counted(&came);
    assert_eq!(came["0 in in, dropped: injected-fault"], refused);
    let [web, straight] =
        ["0 in in, to service 1, chain web", "0 in in, straight on to a port"].map(|c| came[c]);
    assert_eq!(web + straight + refused, 3000);
    assert!(web > 1000 && straight > 1000 && came.len() == 3, "{came:?}");
    let went = counted(&told(&lab.path("out.pcapng")).unwrap());
    let dropped = went["1 - dropped: injected-fault"];
    let from = went["0 out out, from service 2, chain web, came in by port 0"];
    let through = went["0 out out, came in by port 0"];
    assert_eq!((dropped, from + through + dropped, went.len()), (lost, web + straight, 3), "{went:?}");
}

#[test]
fn dropped_packets_say_by_whom() {
    let lab = Lab::new();
    let capture = lab.file("in.pcapng");
    let port = format!("gen:count=500,capture={capture}");
    for (nf, verdict, comment) in [
        ("probe_nf", &["--say", "drop"][..], "1 - dropped: denied, by service 1"),
        ("nf-forward", &["--port", "9"], "1 - dropped: no-such-port"),
    ] {
        let mut manager = lab.manager(&["--port", &port, "--chain", "1"]);
        let mut nf = lab.nf(nf, &[&["-r", "1"], verdict].concat());
        let ledger = manager.ended(LIMIT);
        let _ = nf.wait(LIMIT).good();
        ledger.assert_clean();
        assert_eq!(ledger.packets("dropped"), 500);
        let Some(packets) = told(&lab.path("in.pcapng")) else { return };
        let counts = counted(&packets);
        assert_eq!(
            (counts["0 in in, to service 1, chain default"], counts[comment]),
            (500, 500),
            "{counts:?}"
        );
    }
}

#[test]
fn a_file_can_be_read_while_it_is_written() {
    let lab = Lab::new();
    let capture = lab.file("live.pcapng");
    let manager = lab.manager(&["--port", "gen:rate=20k", "--port", "null:", "--chain", "none"]);
    let told_to = lab.client(&["port", "add", &format!("gen:rate=200,capture={capture}"), "--number", "2"]);
    let _ = told_to.good();
    let mut last = 0;
    for _ in 0..4 {
        let _ = manager.wait_until("more packets", |l| extra(l, 2, "captured") > last + 100);
        let Some(packets) = told_of(&lab.path("live.pcapng"), true) else { return };
        assert!(packets.len() as u64 > last + 100);
        last = packets.len() as u64;
    }
    let removed = lab.client(&["port", "remove", "2", "--json"]).good().json();
    // Nothing is left behind when the port is gone.
    let packets = told(&lab.path("live.pcapng")).unwrap();
    let counts = counted(&packets);
    let came: u64 = counts.iter().filter(|(text, _)| text.starts_with("0 in")).map(|(_, n)| n).sum();
    assert_eq!(came, removed["rx_packets"].as_u64().unwrap(), "{counts:?}");
    manager.stop(LIMIT).assert_clean();
}

/// A small file system of its own, gone with it.
struct SmallDisk(String);

impl SmallDisk {
    fn new(lab: &Lab) -> Option<Self> {
        let place = lab.file("disk");
        std::fs::create_dir(&place).unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "onvm-test", &place]).status();
        if mount.is_ok_and(|status| status.success()) {
            return Some(Self(place));
        }
        assert!(std::env::var_os("CI").is_none(), "a file system cannot be mounted");
        eprintln!("SKIPPED: a file system cannot be mounted, so no disk can be full");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_survived_and_counted() {
    let lab = Lab::new();
    let Some(disk) = SmallDisk::new(&lab) else { return };
    let capture = format!("{}/full.pcapng", disk.0);
    let port = format!("gen:rate=40k,capture={capture}");
    let manager = lab.manager(&["--port", &port, "--port", "null:", "--chain", "none"]);
    let full = manager.wait_until("a full disk", |l| extra(l, 0, "capture_unwritten") > 2000);
    let sent = full.packets("sent");
    let _ = manager.wait_until("packets that pass", |l| l.packets("sent") > sent + 5000);
    // Room again: it goes on where it was cut off.
    let written = extra(&manager.stats(), 0, "captured");
    let grown = Command::new("mount").args(["-o", "remount,size=64m", &disk.0]).status().unwrap();
    assert!(grown.success());
    let _ = manager.wait_until("more packets", |l| extra(l, 0, "captured") > written + 2000);
    let ledger = manager.stop(LIMIT);
    ledger.assert_clean();
    let [captured, missed, unwritten] =
        ["captured", "capture_missed", "capture_unwritten"].map(|name| extra(&ledger, 0, name));
    assert!(captured > 2000 && unwritten > 2000, "{}", ledger.0);
    // The ledger waits for what was captured last.
    assert_eq!(captured + missed + unwritten, ledger.port(0, "rx_packets"), "{}", ledger.0);
    let Some(packets) = told(Path::new(&capture)) else { return };
    assert_eq!(packets.len() as u64, captured);
    assert!(
        packets.iter().all(|(interface, _, text)| *interface == 0 && text == "in, straight on to a port")
    );
}

#[test]
fn mistakes_are_named() {
    let lab = Lab::new();
    let sample = lab.write("sample", "");
    for (port, why) in [
        ("null:capture=/nowhere/at/all.pcapng".to_string(), "No such file"),
        ("null:capture=/dev/null".into(), "a plain file is needed"),
        (format!("pcap:out={sample},capture={sample}"), "the file that the port itself reads or writes"),
        ("null:capture=".into(), "option \"capture\" has no value"),
    ] {
        let end = lab.start("onvm-mgr", &["--port", &port, "--chain", "none"]).wait(LIMIT);
        assert!(end.code != Some(0) && end.err.contains(why), "{port}: {end}");
    }
}
