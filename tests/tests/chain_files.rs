//! Chain files: the ones that ship, what is said of wrong ones, and managers that are started with one.

use std::cell::Cell;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use onvm_lib::protocol::Request;
use onvm_lib::wire::LinkType;
use onvm_tests::{LIMIT, Lab, Ledger, program, read_capture, sample};
use serde_json::{Value, json};

fn shipped() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../chains");
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    files.sort();
    files
}

#[test]
fn shipped_chain_files_are_valid_and_their_programs_are_there() {
    let lab = Lab::new();
    let files = shipped();
    assert!(files.len() >= 4, "{files:?}");
    for file in &files {
        let end = lab.bare("onvm-mgr", &["validate", &file.display().to_string()]).wait(LIMIT).good();
        assert!(end.out.ends_with(": valid\n") && end.out.lines().count() == 1, "{end}");
    }
}

#[test]
fn the_chain_file_of_the_readme_is_valid() {
    let lab = Lab::new();
    let readme = include_str!("../../README.md").split("## Chain files").nth(1).unwrap();
    let inside = readme.lines().skip_while(|l| !l.starts_with("    ")).take_while(|l| l.starts_with("    "));
    let text: Vec<&str> = inside.map(|line| &line[4..]).collect();
    let end = lab.bare("onvm-mgr", &["validate", &file(&lab, "r.yaml", &text.join("\n"))]).wait(LIMIT).good();
    assert!(end.out.ends_with(": 2 services, 2 chains, 1 rule: valid\n"), "{end}");
}

#[test]
fn the_shell_way_does_the_same() {
    let lab = Lab::new();
    let out = lab.path("out.pcap");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/chain-by-shell.sh");
    let end = std::process::Command::new(script)
        .env("BIN", program("onvm-mgr").parent().unwrap())
        .args([sample(), out.clone()])
        .output()
        .unwrap();
    assert!(end.status.success(), "{end:?}");
    assert_eq!(read_capture(&out), read_capture(&sample()));
}

/// A file in the lab.
fn file(lab: &Lab, name: &str, text: &str) -> String {
    std::fs::write(lab.path(name), text).unwrap();
    lab.file(name)
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let lab = Lab::new();
    let wrong = file(
        &lab,
        "wrong.yaml",
        "manager: {mtuu: 9000}\nservices:\n  firewall: {id: 1, instnces: 2}\nchains:\n  web: [fierwall]\n",
    );
    let end = lab.bare("onvm-mgr", &["validate", &wrong]).wait(LIMIT).with_code(1);
    let told = end.out.replace(&wrong, "F");
    assert_eq!(
        told,
        "F:1:11: manager.mtuu: unknown key; did you mean \"mtu\"?\n\
         F:3:13: warning: services.firewall: this service stands in no chain and is no destination: no packet comes to it\n\
         F:3:21: services.firewall.instnces: unknown key; did you mean \"instances\"?\n\
         F:5:9: chains.web[0]: \"fierwall\" is not a service; did you mean \"firewall\"?\n\
         F: 3 errors, 1 warning: not valid\n"
    );
    let json = lab.bare("onvm-mgr", &["validate", "--json", &wrong]).wait(LIMIT).with_code(1).json();
    assert_eq!((&json["valid"], json["problems"].as_array().map(Vec::len)), (&json!(false), Some(4)));
    assert_eq!((&json["problems"][0]["line"], &json["problems"][0]["column"]), (&json!(1), &json!(11)));
    for command in ["up", "apply"] {
        let end = lab.start("onvm-mgr", &[command, &wrong]).wait(LIMIT).with_code(1);
        assert!(end.err.contains("did you mean \"firewall\"?"), "{end}");
    }
    let end = lab.start("onvm-mgr", &["diff", &wrong]).wait(LIMIT).with_code(2);
    assert!(end.err.ends_with("cannot be used: 3 errors, 1 warning\n"), "{end}");
}

const STRAIGHT: &str = "manager: {no-pin: true, no-huge: true, buffers: 2048, time-limit: 900}\n\
    ports: [\"gen:rate=10k\", \"null:\"]\nchains: {straight: []}\n";

#[test]
fn a_manager_goes_up_in_the_background_and_down() {
    let lab = Lab::new();
    let chain = file(&lab, "straight.yaml", STRAIGHT);
    let up = lab.start("onvm-mgr", &["up", &chain, "--detach", "--json", "--wait", "1"]).wait(LIMIT).good();
    let pid = up.json()["pid"].as_u64().unwrap();
    assert_eq!(up.json()["log"], lab.file("onvm.log"));
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    assert_eq!(after_name[3], pid.to_string(), "it leads a session of its own: {stat}");
    let plan = lab.ask(Request::PlanShow).unwrap().0;
    assert_eq!((&plan["default_chain"], &plan["chains"]), (&json!("straight"), &json!({ "straight": [] })));
    let again = lab.start("onvm-mgr", &["up", &chain]).wait(LIMIT).with_code(1);
    assert!(again.err.contains(&format!("onvm-mgr apply {chain}")), "{again}");

    assert_eq!(lab.client(&["diff", &chain]).good().out, "");
    let other = file(&lab, "other.yaml", &STRAIGHT.replace("straight", "direct"));
    let diff = lab.client(&["diff", &other]).with_code(1);
    assert_eq!(
        diff.out,
        "chain straight: removed\nchain direct: added: straight from port to port\ndefault chain: straight -> direct\n"
    );
    let diff: Value = lab.client(&["diff", "--json", &other]).with_code(1).json();
    assert_eq!(diff["changes"][0], json!({ "change": "chain-removed", "chain": "straight" }));

    assert_eq!(lab.client(&["down"]).good().out, "stopped\n");
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "it is still there: {state}");
    let _ = lab.client(&["down"]).with_code(1);
    let _ = lab.client(&["diff", &chain]).with_code(2);
}

#[test]
fn what_keeps_a_manager_in_the_background_from_starting_is_told() {
    let lab = Lab::new();
    let chain = file(&lab, "c.yaml", "ports: [\"pcap:in=nowhere.pcap\"]\nchains: {straight: []}\n");
    let end = lab.start("onvm-mgr", &["up", &chain, "-D"]).wait(LIMIT).with_code(1);
    assert!(end.err.contains("nowhere.pcap") && end.err.contains(&lab.file("onvm.log")), "{end}");
}

#[test]
fn options_come_from_a_file_and_the_command_line_wins() {
    let lab = Lab::new();
    let chain = file(&lab, "straight.yaml", STRAIGHT);
    let port = "gen:rate=10k,count=500";
    let arguments = ["--config", &chain, "--port", port, "--chain", "none", "--json", "--buffers", "4096"];
    let end = lab.start("onvm-mgr", &arguments).wait(LIMIT).good();
    let ledger = end.json();
    assert_eq!(
        (&ledger["packets"]["received"], &ledger["pool"]["buffers"]),
        (&json!(500), &json!(4096)),
        "{end}"
    );
}

/// Every file of `chains/` runs as it is: its NFs come, packets flow, and both sums balance to the end.
#[test]
fn shipped_chain_files_run() {
    for file in shipped() {
        let lab = Lab::new();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let file = file.display().to_string();
        let mut words = vec!["up", &file, "--json", "--no-pin", "--no-huge", "--time-limit", "900"];
        let port = format!("pcap:in={},out={}", sample().display(), lab.file("out.pcap"));
        if name == "capture" {
            words.extend(["--port", &port]);
            let ledger = Ledger(lab.start("onvm-mgr", &words).wait(LIMIT).good().json());
            ledger.assert_clean();
            assert_eq!(read_capture(&lab.path("out.pcap")), read_capture(&sample()));
            continue;
        }
        words.push("--detach");
        let _ = lab.start("onvm-mgr", &words).wait(LIMIT).good();
        let until = Instant::now() + LIMIT;
        let received = |l: &Ledger| l.instances().iter().map(|i| i.count("received")).sum::<u64>();
        while received(&Ledger(lab.ask(Request::Stats).unwrap().0)) < 100 {
            assert!(Instant::now() < until, "{name}: no traffic");
            std::thread::sleep(Duration::from_millis(10));
        }
        let (audit, balances) = lab.ask(Request::Audit).unwrap();
        assert!(balances, "{name}: {audit}");
        let _ = lab.client(&["down"]).good();
    }
}

/// Rules choose the chain of every packet of a real capture as their words say.
#[test]
fn rules_send_packets_their_way() {
    let lab = Lab::new();
    let out = lab.path("out.pcap");
    let text = format!(
        "manager: {{no-pin: true, no-huge: true, json: true}}
ports: [\"pcap:in={},out={}\"]
services: {{web: {{command: [nf-monitor]}}, pings: {{command: [nf-monitor]}}, rest: {{command: [nf-monitor]}}}}
chains: {{web: [web, rest], pings: [pings], rest: [rest], nothing: []}}
rules:
  - {{priority: 5, protocol: tcp, destination-port: 80, chain: web, both-directions: true}}
  - {{protocol: icmp, source: 10.77.0.0/16, chain: pings}}
  - {{protocol: icmpv6, chain: nothing}}
  - {{priority: -1, protocol: tcp, chain: nothing}}
default-chain: rest
",
        sample().display(),
        out.display()
    );
    let chain = file(&lab, "rules.yaml", &text);
    let ledger = Ledger(lab.start("onvm-mgr", &["up", &chain]).wait(LIMIT).good().json());
    ledger.assert_clean();
    let mut wanted = [0u64; 3];
    for packet in read_capture(&sample()) {
        let key = LinkType::Ethernet.flow_key(&packet.data);
        let web = key.protocol() == Some(6) && (key.src_port() == 80 || key.dst_port() == 80);
        let ping = key.protocol() == Some(1)
            && matches!(key.src(), Some(IpAddr::V4(a)) if a.octets()[..2] == [10, 77]);
        let nothing = !web && !ping && matches!(key.protocol(), Some(58 | 6));
        wanted[0] += u64::from(web);
        wanted[1] += u64::from(ping);
        wanted[2] += u64::from(!ping && !nothing);
    }
    assert!(wanted.iter().all(|n| *n > 0), "{wanted:?}");
    let received = [1, 2, 3].map(|service| ledger.of_service(service).count("received"));
    assert_eq!(received, wanted);
    assert_eq!(read_capture(&out).len(), read_capture(&sample()).len());
}

#[test]
fn apply_changes_chains_and_rules_under_traffic() {
    let lab = Lab::new();
    let with = |name: &str, chain: &str, rules: &str| {
        file(
            &lab,
            name,
            &format!(
                "manager: {{no-pin: true, no-huge: true, time-limit: 900}}
ports: [\"gen:rate=20k,flows=64\", \"null:\"]
services: {{one: {{command: [nf-monitor]}}, two: {{command: [nf-monitor]}}}}
chains: {{all: {chain}, second: [two]}}
rules: {rules}
default-chain: all\n"
            ),
        )
    };
    let stats = || Ledger(lab.ask(Request::Stats).unwrap().0);
    let wait = |what: &str, done: &dyn Fn(&Ledger) -> bool| {
        let until = Instant::now() + LIMIT;
        while !done(&stats()) {
            assert!(Instant::now() < until, "never came: {what}: {}", stats().0);
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let first = with("first.yaml", "[one]", "[]");
    let _ = lab.start("onvm-mgr", &["up", &first, "-D"]).wait(LIMIT).good();
    wait("traffic", &|l| l.packets("sent") > 100);
    assert_eq!(lab.client(&["apply", &first]).good().out, "nothing to change\n");
    let ruled = with("ruled.yaml", "[one]", "[{protocol: udp, chain: second}]");
    let applied = lab.client(&["apply", &ruled]).good();
    assert_eq!(applied.out, "rule added: priority 0: protocol udp: chain second\n");
    let _ = lab.client(&["diff", &ruled]).good();
    wait("packets by the rule", &|l| l.of_service(2).count("received") > 1000);
    // An NF counts what it has passed on a moment later.
    let at_rest = Cell::new(u64::MAX);
    wait("service 1 to be at rest", &|l| {
        let before = at_rest.replace(l.of_service(1).count("received"));
        std::thread::sleep(Duration::from_millis(50));
        before == at_rest.get()
    });
    let at_rest = at_rest.get();
    let longer = with("longer.yaml", "[two, one]", "[]");
    let changed = lab.client(&["apply", &longer]).good().out;
    assert_eq!(changed, "chain all: 1 => 2 -> 1\nrule removed: priority 0: protocol udp: chain second\n");
    wait("packets by the chain", &|l| l.of_service(1).count("received") > at_rest + 1000);
    let (audit, balances) = lab.ask(Request::Audit).unwrap();
    assert!(balances, "{audit}");
    let _ = lab.client(&["down"]).good();
}
