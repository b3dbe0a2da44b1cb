//! A monitor that exports flows is replaced under traffic: every flow is exported once, and the collector (Debian's
//! nfcapd) sees one sequence of numbers.

use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use onvm_tests::{LIMIT, Lab, last_report, sample, wait_until};
use rustix::process::{Pid, Signal, kill_process};

/// nfcapd; none, said aloud, if it is not installed. In CI it must be.
fn collector(folder: &Path, tries: u32) -> Option<(Child, u16)> {
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    std::fs::create_dir_all(folder.join("files")).unwrap();
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let started = Command::new("nfcapd")
        .args(["-b", "127.0.0.1", "-p", &free.to_string(), "-t", "3600", "-w"])
        .arg(folder.join("files"))
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .stdin(Stdio::null())
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) if std::env::var_os("CI").is_some() => panic!("nfcapd cannot be run: {error}"),
        Err(error) => {
            eprintln!("SKIPPED: nfcapd cannot be run (apt-get install nfdump): {error}");
            return None;
        }
    };
    let until = Instant::now() + LIMIT;
    let said = || std::fs::read_to_string(folder.join("log")).unwrap();
    while !said().contains("Startup nfcapd") {
        if child.try_wait().unwrap().is_some() {
            // Somebody else was given the port before it had it.
            assert!(tries > 0, "nfcapd has ended: {}", said());
            return collector(folder, tries - 1);
        }
        assert!(Instant::now() < until, "nfcapd does not start: {}", said());
        std::thread::sleep(Duration::from_millis(10));
    }
    Some((child, free))
}

/// Whether something waits in a socket (the kernel's table of UDP sockets).
fn has_unread(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let local = format!(":{port:04X}");
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields
        .filter(|fields| fields.len() > 4 && fields[1].ends_with(&local))
        .any(|fields| !fields[4].ends_with(":00000000"))
}

/// What the collector says at its end: flows, packets, sequence errors.
fn ended(mut collector: Child, port: u16, folder: &Path) -> [u64; 3] {
    // What has come is in its socket, and what it has taken from there it works on.
    wait_until("nfcapd to read", || !has_unread(port));
    std::thread::sleep(Duration::from_millis(300));
    kill_process(Pid::from_child(&collector), Signal::TERM).unwrap();
    collector.wait().unwrap();
    let log = std::fs::read_to_string(folder.join("log")).unwrap();
    let line = log.lines().find(|line| line.contains("Sequence Errors: ")).unwrap_or_else(|| panic!("{log}"));
    ["Flows: ", "Packets: ", "Sequence Errors: "].map(|word| {
        let rest = line.split(word).nth(1).unwrap();
        rest.split(',').next().unwrap().trim().parse().unwrap()
    })
}

#[test]
fn a_monitor_that_is_replaced_exports_every_flow_once() {
    let lab = Lab::new();
    for scheme in ["ipfix", "netflow9"] {
        let folder = lab.path(scheme);
        std::fs::create_dir_all(&folder).unwrap();
        let Some((collector, port)) = collector(&folder, 10) else { return };
        let to = format!("{scheme}://127.0.0.1:{port}");
        let capture = sample().display().to_string();
        // Timeouts that cut flows before, between and after the replacements.
        let options = ["--flow-timeout", "1", "--active-timeout", "2"];
        let csv = folder.join("flows.csv").display().to_string();
        std::fs::write(&csv, "of an earlier run\n").unwrap();
        let command: Vec<String> = ["nf-monitor", "--json", "--csv", &csv, "--export", &to]
            .iter()
            .chain(&options)
            .map(|word| format!("\"{word}\""))
            .collect();
        let file = format!(
            "ports: [\"pcap:in={capture},pps=500\"]\n\
             services: {{monitor: {{id: 1, command: [{}]}}}}\nchains: {{main: [monitor]}}\n",
            command.join(", ")
        );
        let manager = lab.up(&file, &["--stay"]);
        for at in [200, 500, 800, 1100, 1400] {
            manager.wait_until("traffic", |l| l.packets("received") >= at);
            let _ = lab.client(&["nf", "restart", "monitor"]).good();
        }
        let log = lab.log(1);
        manager.wait_until("all packets", |l| l.packets("sent") == 1952);
        manager.stop(LIMIT).assert_clean();
        let report = last_report(&log);
        let output = &report["records"]["outputs"][0];
        let [flows, packets, errors] = ended(collector, port, &folder);
        assert_eq!(report["packets"], 1952);
        assert_eq!((&output["records"], &output["packets"]), (&flows.into(), &packets.into()), "{output}");
        assert_eq!(
            Some(packets + report["records"]["not_exported"]["packets"].as_u64().unwrap()),
            Some(1952)
        );
        assert_eq!((errors, &output["lost"]), (0, &0.into()), "{scheme}: sequence errors");
        // Each of the monitors has added to the file; the first one has begun it.
        let lines = std::fs::read_to_string(&csv).unwrap();
        assert!(lines.starts_with("start_ns,") && lines.matches("start_ns").count() == 1, "{lines}");
        assert_eq!(report["records"]["flows"], lines.lines().count() - 1);
        assert_eq!(report["records"]["outputs"][1]["packets"], 1952);
        assert!(report["flows"]["expired"].as_u64() > Some(0), "{}", report["flows"]);
    }
}
