//! The program itself over captures made here: what it writes, what it drops, what it refuses.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use onvm_lib::capture::{Frame, LinkType, Reader, Writer};
use onvm_lib::wire::MacAddr;
use onvm_lib::wire::build::Packet;
use onvm_lib::wire::tcp::Flags;

const SECOND: u64 = 1_000_000_000;

/// A segment between client and server of one session.
fn segment(client: bool, flags: u16, seq: u32, ack: u32, data: &str) -> Vec<u8> {
    let base = Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6]));
    let (one, other) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let packet =
        if client { base.ipv4(one, other).tcp(40_000, 80) } else { base.ipv4(other, one).tcp(80, 40_000) };
    packet.seq(seq).ack(ack).flags(Flags(flags)).payload(data.as_bytes()).to_vec().unwrap()
}

/// A conversation: a request in two segments, and its answer.
fn conversation() -> Vec<Vec<u8>> {
    let response = "HTTP/1.1 200 OK\r\nServer: made\r\nContent-Length: 2\r\n\r\nok";
    let end = 501 + u32::try_from(response.len()).unwrap();
    vec![
        segment(true, 2, 100, 0, ""),
        segment(false, 0x12, 500, 101, ""),
        segment(true, 0x10, 101, 501, ""),
        segment(true, 0x18, 101, 501, "GET /very-ev"),
        segment(true, 0x18, 113, 501, "il HTTP/1.1\r\nHost: example.test\r\n\r\n"),
        segment(false, 0x10, 501, 148, ""),
        segment(false, 0x18, 501, 148, response),
        segment(true, 0x11, 148, end, ""),
        segment(false, 0x11, end, 149, ""),
        segment(true, 0x10, 149, end + 1, ""),
    ]
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A capture of frames, a second apart.
    fn capture(&self, frames: &[Vec<u8>]) -> PathBuf {
        let path = self.path("in.pcap");
        let mut writer = Writer::create(&path).unwrap();
        let interface = writer.add_interface(LinkType::Ethernet, "made").unwrap();
        for (n, data) in frames.iter().enumerate() {
            let original_len = u32::try_from(data.len()).unwrap();
            let timestamp_ns = SECOND * (1_700_000_000 + n as u64);
            let frame = Frame { timestamp_ns, original_len, link_type: LinkType::Ethernet, interface, data };
            writer.write_frame(&frame).unwrap();
        }
        writer.finish().unwrap();
        path
    }
}

fn run(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nf-ids"));
    for argument in arguments {
        command.arg(argument);
    }
    command.output().unwrap()
}

fn events(output: &Output) -> Vec<serde_json::Value> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

fn count(path: &Path) -> usize {
    let mut reader = Reader::open(path).unwrap();
    let mut frames = 0;
    while reader.next_frame().unwrap().is_some() {
        frames += 1;
    }
    frames
}

const RULE: &str = "alert http any any -> any 80 (msg:\"evil\"; http.uri; content:\"/very-evil\"; classtype:web-application-attack; sid:7; rev:2;)\n";

#[test]
fn standard_output_has_events_and_nothing_else() {
    let folder = Folder::new();
    let (rules, capture) = (folder.write("a.rules", RULE), folder.capture(&conversation()));
    let types = "alert,http,flow,anomaly,stats";
    let output = run(&[&"--rules", &rules, &"--replay", &capture, &"--eve", &"-", &"--eve-types", &types]);
    assert!(output.status.success(), "{output:?}");
    let events = events(&output);
    let of = |kind: &str| events.iter().filter(|e| e["event_type"] == kind).collect::<Vec<_>>();
    let [alert] = of("alert")[..] else { panic!("{events:?}") };
    assert_eq!((&alert["src_ip"], &alert["dest_port"]), (&"10.0.0.1".into(), &80.into()));
    let told = &alert["alert"];
    assert_eq!((&told["gid"], &told["signature_id"], &told["rev"]), (&1.into(), &7.into(), &2.into()));
    assert_eq!((&told["action"], &told["severity"]), (&"allowed".into(), &1.into()));
    assert_eq!(told["category"], "Web Application Attack");
    assert_eq!(alert["http"]["url"], "/very-evil");
    let [http] = of("http")[..] else { panic!("{events:?}") };
    assert_eq!((&http["http"]["hostname"], &http["http"]["status"]), (&"example.test".into(), &200.into()));
    let [flow] = of("flow")[..] else { panic!("{events:?}") };
    assert_eq!((&flow["flow"]["pkts_toserver"], &flow["flow"]["pkts_toclient"]), (&6.into(), &4.into()));
    assert_eq!((&flow["flow_id"], &flow["flow"]["alerted"]), (&alert["flow_id"], &true.into()));
    assert!(of("anomaly").is_empty(), "nothing is wrong with it: {events:?}");
    assert_eq!(of("stats")[0]["stats"]["frames"], 10);
    assert!(String::from_utf8_lossy(&output.stderr).contains("1:7 evil"), "the report is on standard error");
}

#[test]
fn anomalies_are_told_without_a_rule_that_asks_for_them() {
    let folder = Folder::new();
    let mut frames = conversation();
    frames[0].truncate(40); // within the TCP header
    frames.insert(2, segment(true, 0x10, 100, 501, "")); // it acknowledges the server's, but from before its SYN
    let (rules, capture) = (folder.write("a.rules", RULE), folder.capture(&frames));
    let output =
        run(&[&"--rules", &rules, &"--replay", &capture, &"--eve", &"-", &"--eve-types", &"anomaly"]);
    assert!(output.status.success(), "{output:?}");
    let events = events(&output);
    let first = &events[0];
    assert_eq!(first["event_type"], "anomaly");
    assert_eq!(first["anomaly"], serde_json::json!({"type": "decode", "event": "decoder.ipv4.trunc_pkt"}));
    assert!(events[1..].iter().any(|event| event["anomaly"]["type"] == "stream"), "{events:?}");
    assert!(events.iter().all(|event| event["event_type"] == "anomaly"));
}

#[test]
fn in_line_what_a_rule_drops_does_not_come_out() {
    let folder = Folder::new();
    let rules = folder.write("a.rules", &RULE.replace("alert http", "drop http"));
    let (capture, out, fast) =
        (folder.capture(&conversation()), folder.path("out.pcap"), folder.path("fast.log"));
    let arguments: [&dyn AsRef<std::ffi::OsStr>; 8] =
        [&"--rules", &rules, &"--replay", &capture, &"--write", &out, &"--fast", &fast];
    assert!(run(&arguments).status.success());
    assert_eq!(count(&out), 10, "looking on drops nothing");
    assert!(std::fs::read_to_string(&fast).unwrap().contains("[wDrop] [**] [1:7:2] evil"));
    std::fs::remove_file(&out).unwrap();
    let mut inline = arguments.to_vec();
    inline.push(&"--inline");
    assert!(run(&inline).status.success());
    assert_eq!(count(&out), 4, "the segment that completes the match, and all that follow");
    assert!(std::fs::read_to_string(&fast).unwrap().contains("  [Drop] [**] [1:7:2] evil"));
}

#[test]
fn what_cannot_be_used_is_named_with_its_place() {
    let folder = Folder::new();
    let text = format!("{RULE}alert tcp any any -> any any (msg:\"x\"; contnet:\"a\"; sid:8;)\n");
    let (rules, capture) = (folder.write("a.rules", &text), folder.capture(&conversation()));
    let lenient = run(&[&"--rules", &rules, &"--replay", &capture, &"--eve", &"-"]);
    assert!(lenient.status.success());
    assert_eq!(events(&lenient).len(), 1);
    let strict = run(&[&"--rules", &rules, &"--replay", &capture, &"--strict"]);
    assert_eq!(strict.status.code(), Some(1));
    let said = String::from_utf8_lossy(&strict.stderr).into_owned();
    assert!(said.contains("a.rules:2:") && said.contains("did you mean `content`?"), "{said}");
    let check = run(&[&"--rules", &rules, &"--check"]);
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert_eq!(check.status.code(), Some(1));
    assert!(said.contains("contnet") && said.contains("1 rules can be used"), "{said}");
    let missing = run(&[&"--rules", &folder.path("none.rules"), &"--replay", &capture]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("none.rules"));
    assert_eq!(missing.status.code(), Some(1));
}

#[test]
fn variables_come_from_the_command_line_and_from_a_file() {
    let folder = Folder::new();
    let rule = "alert tcp $ME any -> any $WEB_PORTS (flags:S; sid:1;)\n";
    let (rules, capture) = (folder.write("a.rules", rule), folder.capture(&conversation()));
    let alerts = |more: &[&dyn AsRef<std::ffi::OsStr>]| {
        let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> =
            vec![&"--rules", &rules, &"--replay", &capture, &"--eve", &"-"];
        arguments.extend(more);
        let output = run(&arguments);
        (output.status.success(), events(&output).len())
    };
    assert_eq!(alerts(&[&"-S", &"ME=10.0.0.0/24", &"-S", &"WEB_PORTS=[80,8080]"]), (true, 1));
    assert_eq!(alerts(&[&"-S", &"ME=!10.0.0.0/24", &"-S", &"WEB_PORTS=80"]), (true, 0));
    let yaml = "vars:\n  address-groups:\n    ME: \"[10.0.0.1]\"\n  port-groups:\n    WEB_PORTS: 80\n";
    let vars = folder.write("vars.yaml", yaml);
    assert_eq!(alerts(&[&"--vars", &vars]), (true, 1));
    let wrong = folder.write("wrong.yaml", "vars:\n  address-gruops:\n    ME: any\n");
    assert!(!alerts(&[&"--vars", &wrong]).0);
}

#[test]
fn thresholds_come_from_rules_and_from_a_file() {
    let folder = Folder::new();
    let rules = folder.write("a.rules", "alert tcp any any -> any 80 (flags:A+; sid:1;)\n");
    let (capture, out) = (folder.capture(&conversation()), folder.path("out.pcap"));
    let alerts = |file: &str| {
        let limits = folder.write("threshold.config", file);
        let output =
            run(&[&"--rules", &rules, &"--replay", &capture, &"--eve", &"-", &"--threshold-file", &limits]);
        assert!(output.status.success(), "{output:?}");
        events(&output).len()
    };
    assert_eq!(alerts("# nothing\n"), 5);
    assert_eq!(alerts("threshold gen_id 1, sig_id 1, type limit, track by_src, count 2, seconds 60\n"), 2);
    assert_eq!(alerts("suppress gen_id 1, sig_id 1, track by_src, ip 10.0.0.0/24\n"), 0);
    assert_eq!(alerts("suppress gen_id 1, sig_id 1, track by_src, ip $EXTERNAL_NET\n"), 5);
    let wrong = folder.write(
        "threshold.config",
        "\nthreshold gen_id 1, sig_id 1, type limt\nsuppress gen_id 1, sig_id 9\n",
    );
    let check = run(&[&"--rules", &rules, &"--check", &"--threshold-file", &wrong]);
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert_eq!(check.status.code(), Some(1));
    assert!(
        said.contains("threshold.config:2:") && said.contains("note: ") && said.contains("sid 9"),
        "{said}"
    );
    // Below its count, a rule drops nothing.
    let rule = "drop tcp any any -> any 80 (flags:A+; threshold:type threshold, track by_src, count 4, seconds 60; sid:2;)\n";
    let rules = folder.write("b.rules", rule);
    assert!(
        run(&[&"--rules", &rules, &"--replay", &capture, &"--write", &out, &"--inline"]).status.success()
    );
    assert_eq!(count(&out), 9, "the fourth of five");
}

#[test]
fn in_line_what_is_dropped_is_told() {
    let folder = Folder::new();
    let rules = folder.write("a.rules", &RULE.replace("alert http", "drop http"));
    let capture = folder.capture(&conversation());
    let arguments: [&dyn AsRef<std::ffi::OsStr>; 8] =
        [&"--rules", &rules, &"--replay", &capture, &"--eve", &"-", &"--eve-types", &"drop"];
    assert!(events(&run(&arguments)).is_empty(), "looking on drops nothing");
    let in_line: Vec<&dyn AsRef<std::ffi::OsStr>> =
        arguments.into_iter().chain([&"--inline" as &dyn AsRef<std::ffi::OsStr>]).collect();
    let told = events(&run(&in_line));
    let [event] = &told[..] else { panic!("{told:?}") };
    assert_eq!((&event["event_type"], &event["alert"]["signature_id"]), (&"drop".into(), &7.into()));
    let fields = &event["drop"];
    assert_eq!(
        (&fields["reason"], &fields["psh"], &fields["syn"]),
        (&"rules".into(), &true.into(), &false.into())
    );
    assert!(fields["len"].as_u64() > Some(40) && fields["tcpseq"].is_u64(), "{fields}");
}

#[test]
fn files_are_told_and_sets_are_kept() {
    let folder = Folder::new();
    let rule =
        "alert http any any -> any any (http.host; dataset:set,hosts,type string,state hosts.lst; sid:9;)\n";
    let (rules, capture) = (folder.write("a.rules", rule), folder.capture(&conversation()));
    let data = folder.path("data");
    std::fs::create_dir(&data).unwrap();
    let arguments: [&dyn AsRef<std::ffi::OsStr>; 10] = [
        &"--rules",
        &rules,
        &"--replay",
        &capture,
        &"--eve",
        &"-",
        &"--eve-types",
        &"alert,fileinfo",
        &"--data",
        &data,
    ];
    let first = events(&run(&arguments));
    let of =
        |events: &[serde_json::Value], kind: &str| events.iter().filter(|e| e["event_type"] == kind).count();
    assert_eq!(of(&first, "alert"), 1, "{first:?}");
    for event in first.iter().filter(|e| e["event_type"] == "fileinfo") {
        assert_eq!((&event["fileinfo"]["state"], &event["app_proto"]), (&"CLOSED".into(), &"http".into()));
        assert_eq!(event["fileinfo"]["sha256"].as_str().map(str::len), Some(64), "{event}");
        assert_eq!(event["src_port"], 80, "from who sent it");
    }
    assert_eq!(of(&first, "fileinfo"), 1, "{first:?}");
    assert_eq!(std::fs::read_to_string(data.join("hosts.lst")).unwrap(), "ZXhhbXBsZS50ZXN0\n");
    // What was seen before is not new.
    assert_eq!(of(&events(&run(&arguments)), "alert"), 0);
    let output = run(&arguments[..8]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("--data FOLDER"), "{output:?}");
}
