//! The program: its command line, its files, and captures through it, with tshark as the judge of what it writes.

mod site;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use onvm_lib::capture::{Frame, LinkType, Reader, Writer};
use onvm_lib::wire::build::Packet;
use onvm_lib::wire::tcp::Flags;
use serde_json::Value;
use site::{CLIENT, OWN, answer, backend_of, file, to_service};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nf-loadbalancer")).args(arguments).output().unwrap()
}

fn capture(folder: &Path, frames: &[Vec<u8>]) -> PathBuf {
    let path = folder.join("in.pcapng");
    let mut writer = Writer::create(&path).unwrap();
    writer.add_interface(LinkType::Ethernet, "clients").unwrap();
    for (millisecond, data) in (1_700_000_000_000u64..).zip(frames) {
        let original_len = u32::try_from(data.len()).unwrap();
        let (timestamp_ns, link_type) = (millisecond * 1_000_000, LinkType::Ethernet);
        writer.write_frame(&Frame { timestamp_ns, original_len, link_type, interface: 0, data }).unwrap();
    }
    writer.finish().unwrap();
    path
}

/// Runs over frames; what came out, its file, and the report.
fn replay(folder: &Path, frames: &[Vec<u8>], services: &str) -> (Vec<Vec<u8>>, PathBuf, Value) {
    let input = capture(folder, frames);
    let (output, rules) = (folder.join("out.pcap"), folder.join("services.yaml"));
    std::fs::write(&rules, services).unwrap();
    let paths = [&input, &output, &rules].map(|path| path.to_str().unwrap());
    let done = run(&["--replay", paths[0], "--write", paths[1], "--services", paths[2], "--json"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mut written = Vec::new();
    let mut reader = Reader::open(&output).unwrap();
    while let Some(frame) = reader.next_frame().unwrap() {
        written.push(frame.data.to_vec());
    }
    (written, output, serde_json::from_slice(&done.stdout).unwrap())
}

#[test]
fn a_capture_goes_through_and_the_same_again() {
    let folder = tempfile::tempdir().unwrap();
    let frames: Vec<Vec<u8>> =
        (0..500).map(|n| to_service(n % 100, if n < 100 { Flags::SYN } else { Flags::ACK })).collect();
    let services = file(false, 3, "scheduler: random\nhealth: {type: tcp}");
    let (first, _, report) = replay(folder.path(), &frames, &services);
    assert_eq!(first.len(), 500);
    assert!((0..400).all(|n| backend_of(&first[n]) == backend_of(&first[n % 100])));
    let report = &report["report"];
    assert_eq!(report["services"][0]["counts"]["connections"], 100);
    assert_eq!(report["services"][0]["backends"][0]["state"], "up", "there are no checks over a capture");
    let (second, ..) = replay(folder.path(), &frames, &services);
    assert_eq!(first, second);
}

#[test]
fn tshark_finds_nothing_wrong_with_what_is_written() {
    if Command::new("tshark").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "tshark is not installed");
        eprintln!("SKIPPED: tshark is not installed");
        return;
    }
    for mode in ["nat", "dsr", "ipip", "gue"] {
        for six in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let base = Packet::ethernet(CLIENT, OWN).vlan(5);
            let ip = match six {
                false => base.ipv4([198, 51, 100, 9].into(), [192, 0, 2, 1].into()),
                true => base.ipv6("2001:db8:7::9".parse().unwrap(), "2001:db8::1".parse().unwrap()),
            };
            let mut frames = Vec::new();
            for port in 3000..3040 {
                let payload = vec![7; usize::from(port) - 2990];
                frames.push(ip.tcp(port, 80).flags(Flags::SYN).to_vec().unwrap());
                frames.push(ip.tcp(port, 80).payload(&payload).to_vec().unwrap());
                frames.push(ip.udp(port, 80).payload(&payload).to_vec().unwrap());
            }
            let (out, path, _) =
                replay(folder.path(), &frames, &file(six, 4, &format!("mode: {mode}\nprotocol: both")));
            assert_eq!(out.len(), frames.len());
            let fields = ["frame.protocols", "ip.dst", "ipv6.dst", "udp.dstport", "tcp.dstport"];
            let wrong = "_ws.malformed || ip.checksum.status == 0 || tcp.checksum.status == 0 || udp.checksum.status == 0";
            let tshark = |filter: &str| {
                let mut command = Command::new("tshark");
                command.arg("-n").arg("-r").arg(&path).args(["-T", "fields", "-Y", filter]);
                for check in ["ip.check_checksum", "tcp.check_checksum", "udp.check_checksum"] {
                    command.args(["-o", &format!("{check}:TRUE")]);
                }
                for field in fields {
                    command.args(["-e", field]);
                }
                let output = command.output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                String::from_utf8_lossy(&output.stdout).into_owned()
            };
            assert_eq!(tshark(wrong), "", "{mode} {six}");
            let outer = if six { "ipv6" } else { "ip" };
            let wanted = match mode {
                "nat" => if six { "ipv6.dst == fd00::/64" } else { "ip.dst == 10.1.0.0/24" }.to_string(),
                "dsr" => if six { "ipv6.dst == 2001:db8::1" } else { "ip.dst == 192.0.2.1" }.to_string(),
                "ipip" => format!("frame.protocols contains \"{outer}:{outer}:\" && (tcp || udp)"),
                _ => format!("{outer} && udp.dstport == 6080"),
            };
            assert_eq!(
                tshark(&format!("vlan.id == 5 && {wanted}")).lines().count(),
                out.len(),
                "{mode} {six}"
            );
        }
    }
}

#[test]
fn check_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.yaml");
    std::fs::write(&path, file(false, 2, "schedular: maglev")).unwrap();
    let done = run(&["--check", "--services", path.to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(1));
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        said.contains("s.yaml:9:5: services.web.schedular: unknown key; did you mean \"scheduler\"?"),
        "{said}"
    );
    std::fs::write(&path, file(false, 2, "")).unwrap();
    let done = run(&["--services", path.to_str().unwrap(), "--check", "-r", "1"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(String::from_utf8_lossy(&done.stdout).contains("1 services, 2 backends"));
    assert_eq!(run(&["--check"]).status.code(), Some(2));
    let check =
        |options: &[&str]| run(&[&["--check", "--services", path.to_str().unwrap()], options].concat());
    assert_eq!(check(&["--bogus"]).status.code(), Some(2));
    assert_eq!(check(&["-r", "much"]).status.code(), Some(2));
    let answer =
        |done: std::process::Output| serde_json::from_slice::<serde_json::Value>(&done.stdout).unwrap();
    let good = answer(check(&["--json"]));
    assert_eq!((&good["ok"], &good["backends"]), (&true.into(), &2.into()));
    assert_eq!(check(&["--inner"]).status.code(), Some(0));
    std::fs::write(&path, file(false, 2, "mode: gue")).unwrap();
    assert_eq!(check(&[]).status.code(), Some(0));
    let done = check(&["--inner", "--json"]);
    assert_eq!(done.status.code(), Some(1));
    let bad = answer(done);
    assert_eq!((&bad["ok"], &bad["services"]), (&false.into(), &0.into()));
    assert!(bad["errors"][0].as_str().unwrap().contains("services.web.mode: with --inner"), "{bad}");
    assert_eq!(run(&["-r", "1"]).status.code(), Some(2), "without a file of services");
    assert!(run(&["--check", "--help"]).status.success());
    let input = capture(folder.path(), &[to_service(1, Flags::SYN)]);
    let done = run(&["--replay", input.to_str().unwrap(), "--services", "/nowhere.yaml"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&done.stderr).contains("/nowhere.yaml: No such file"));
}

#[test]
fn every_example_is_right_and_in_the_readme() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let mut count = 0;
    for entry in std::fs::read_dir(root.join("examples")).unwrap() {
        let path = entry.unwrap().path();
        // Without checks: whether this machine permits echoes is not the example's fault.
        let done = run(&["--check", "--no-health-checks", "--services", path.to_str().unwrap()]);
        assert!(done.status.success() && done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(readme.contains(&format!("examples/{name}")), "README.md does not name {name}");
        count += 1;
    }
    assert!(count >= 4);
}

#[test]
fn the_readme_knows_every_key_and_its_file_can_be_used() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let keys = [
        "mac",
        "addresses",
        "ports",
        "mtu",
        "timeouts",
        "limits",
        "address",
        "protocol",
        "port",
        "mode",
        "scheduler",
        "table-size",
        "sticky",
        "source-nat",
        "max-connections",
        "slow-start",
        "health",
        "passive",
        "backends",
        "weight",
        "next-hop",
        "drain",
        "interval",
        "timeout",
        "rise",
        "fall",
        "path",
        "host",
        "status",
        "body",
        "resets",
        "silence",
        "retry",
        "half-open",
        "established",
        "closed",
        "other",
        "fragment",
        "connections",
        "fragments",
        "clients",
        "when",
    ];
    for key in keys {
        assert!(readme.contains(&format!("`{key}`")), "README.md does not know the key {key}");
    }
    let block = readme.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let (config, report) = nf_loadbalancer::config::from_text(block, "README.md");
    assert!(config.is_some() && report.is_empty(), "{report}");
}

#[test]
fn an_answer_is_translated_over_a_capture_too() {
    let folder = tempfile::tempdir().unwrap();
    let request = to_service(1, Flags::SYN);
    let services = file(false, 1, "");
    let (there, ..) = replay(folder.path(), std::slice::from_ref(&request), &services);
    let (both, ..) =
        replay(folder.path(), &[request.clone(), answer(&there[0], Flags::SYN | Flags::ACK)], &services);
    assert_eq!(site::key(&both[1]), site::key(&request).reversed());
}
