//! The program without a manager: over made captures, and as a tool.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use onvm_lib::capture::{Frame, LinkType, Reader, Writer};
use onvm_lib::wire::build::Packet;
use onvm_lib::wire::tcp::Flags;
use onvm_lib::wire::{Fragment, MacAddr, describe};
use serde_json::Value;

const START_NS: u64 = 1_700_000_000_000_000_000;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nf-firewall")).args(arguments).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn told(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder with a rule file and a capture in it.
struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new(rules: &str, frames: &[(u64, Vec<u8>)]) -> Self {
        let case = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(case.path("rules"), rules).unwrap();
        let mut writer = Writer::create(case.path("in.pcap")).unwrap();
        let interface = writer.add_interface(LinkType::Ethernet, "").unwrap();
        for (milliseconds, data) in frames {
            let frame = Frame {
                timestamp_ns: START_NS + milliseconds * 1_000_000,
                original_len: u32::try_from(data.len()).unwrap(),
                link_type: LinkType::Ethernet,
                interface,
                data,
            };
            writer.write_frame(&frame).unwrap();
        }
        writer.finish().unwrap();
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replays; the report, and what came out in words.
    fn replay(&self, more: &[&str]) -> (Value, Vec<String>) {
        let (rules, input, output) = (self.path("rules"), self.path("in.pcap"), self.path("out.pcap"));
        let mut arguments =
            vec!["--rules", text(&rules), "--replay", text(&input), "--write", text(&output), "--json"];
        arguments.extend(more);
        let done = run(&arguments);
        assert!(done.status.success(), "{}", told(&done.stderr));
        let json: Value = serde_json::from_slice(&done.stdout).unwrap();
        let mut out = Vec::new();
        let mut reader = Reader::open(&output).unwrap();
        while let Some(frame) = reader.next_frame().unwrap() {
            out.push(describe(frame.data).to_string());
        }
        (json, out)
    }
}

/// From host 1 to 2 or back.
fn side<'a>(reply: bool) -> Packet<'a> {
    let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let (from, to) = if reply { (b, a) } else { (a, b) };
    let (client, server) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
    let macs = if reply { (server, client) } else { (client, server) };
    Packet::ethernet(macs.0, macs.1).ipv4(from.into(), to.into())
}

fn syn<'a>(port: u16) -> Packet<'a> {
    side(false).tcp(1000, port).flags(Flags::SYN).seq(100)
}

fn vec(packet: Packet<'_>) -> Vec<u8> {
    packet.to_vec().unwrap()
}

/// Packets of a rule in the report.
fn hits(json: &Value, name: &str) -> u64 {
    let rules = json["report"]["rules"].as_array().unwrap();
    rules.iter().find(|rule| rule["name"] == name).map_or(0, |rule| rule["packets"].as_u64().unwrap())
}

#[test]
fn rules_decide_count_and_answer() {
    let frames = [
        (0, vec(syn(80))),
        (1, vec(syn(113))),
        (2, vec(side(false).udp(5, 161).payload(b"x"))),
        (3, vec(side(false).udp(5, 9))),
        (4, vec(side(false).vlan(7).tcp(5, 113).flags(Flags::SYN))),
        (5, vec![0xff; 60]),
    ];
    let case = Case::new(
        "rules:\n\
         \x20 - {name: web, protocol: tcp, to-port: 80, action: allow}\n\
         \x20 - {name: ident, protocol: tcp, to-port: 113, action: reject}\n\
         \x20 - {name: snmp, to-port: snmp, action: reject with admin-prohibited}\n",
        &frames,
    );
    let (json, out) = case.replay(&[]);
    assert_eq!(
        out,
        [
            "IP 10.0.0.1.1000 > 10.0.0.2.80: Flags [S], seq 100, win 65535, length 0",
            "ff:ff:ff:ff:ff:ff > ff:ff:ff:ff:ff:ff, ethertype 0xffff, length 60",
            "IP 10.0.0.2.113 > 10.0.0.1.1000: Flags [R.], seq 0, ack 101, win 0, length 0",
            "IP 10.0.0.2 > 10.0.0.1: ICMP 10.0.0.2 code 13 unreachable, length 37",
            "vlan 7, p 0, IP 10.0.0.2.113 > 10.0.0.1.5: Flags [R.], seq 0, ack 1, win 0, length 0",
        ],
        "what is no IP goes through; answers come after the packets of their burst"
    );
    let counts = ["web", "ident", "snmp"].map(|name| hits(&json, name));
    assert_eq!((counts, &json["report"]["default"]["packets"]), ([1, 2, 1], &1.into()));
    assert_eq!((&json["report"]["answers"], &json["drops"]["denied"]), (&3.into(), &4.into()));
}

/// All packets of a capture in tshark's eyes that have a wrong checksum; none without tshark.
fn wrong_checksums(path: &Path) -> Option<(usize, String)> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(path).args(["-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE"]);
    let fields =
        ["ip.checksum.status", "tcp.checksum.status", "icmp.checksum.status", "icmpv6.checksum.status"];
    command.args(["-T", "fields", "-e", "frame.number", "-e", "_ws.malformed"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let Ok(out) = command.output() else {
        eprintln!("tshark is not installed: checksums are judged by our own reader only");
        return None;
    };
    assert!(out.status.success(), "{}", told(&out.stderr));
    let text = told(&out.stdout);
    // 1 is good, 0 bad; 2 is not verified, as within quotes.
    let bad: Vec<&str> = text
        .lines()
        .filter(|line| {
            line.split('\t')
                .skip(1)
                .any(|field| field.split(',').next() == Some("0") || field.contains("Malformed"))
        })
        .collect();
    Some((text.lines().count(), bad.join("\n")))
}

#[test]
fn tshark_finds_nothing_wrong_with_the_answers() {
    let six = Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6])).ipv6(1.into(), 2.into());
    let mut frames = Vec::new();
    for (n, payload) in [0usize, 1, 7, 64, 600, 1399].into_iter().enumerate() {
        let bytes = vec![7u8; payload];
        let at = 1000 * n as u64;
        for packet in [side(false), side(false).vlan(5), six, six.vlan(5).vlan(6)] {
            frames.push((at, vec(packet.tcp(1, 2).flags(Flags::SYN).payload(&bytes))));
            frames.push((at, vec(packet.tcp(1, 2).ack(77).payload(&bytes))));
            frames.push((at, vec(packet.udp(1, 2).payload(&bytes))));
            frames.push((at, vec(packet.echo_request(1, 2).payload(&bytes))));
        }
    }
    let case = Case::new("default: reject\nrules: []\n", &frames);
    let (json, out) = case.replay(&[]);
    assert_eq!((out.len(), &json["report"]["answers"]), (frames.len(), &(frames.len() as u64).into()));
    if let Some((seen, bad)) = wrong_checksums(&case.path("out.pcap")) {
        assert_eq!((seen, bad.as_str()), (frames.len(), ""));
    }
}

#[test]
fn states_let_answers_in_and_nothing_else() {
    let rules = "rules:\n\
                 \x20 - {name: answers, state: [established, related], action: allow}\n\
                 \x20 - {name: out, from: 10.0.0.1, state: new, action: allow}\n";
    let ask = side(false).udp(5, 53).payload(b"question");
    let quote = vec(ask)[14..].to_vec();
    let frames = [
        (0, vec(side(true).tcp(80, 1000).flags(Flags(0x12)).seq(500).ack(101))),
        (1, vec(syn(80))),
        (2, vec(side(true).tcp(80, 1000).flags(Flags(0x12)).seq(500).ack(101))),
        (3, vec(side(false).tcp(1000, 80).seq(101).ack(501).payload(b"GET"))),
        (4, vec(side(true).tcp(80, 1000).seq(190_501).ack(104).payload(b"beyond the window"))),
        (5, vec(side(true).tcp(81, 1000).flags(Flags::SYN))),
        (6, vec(ask)),
        (7, vec(side(true).icmp(3, 3, 0).payload(&quote))),
        (8, vec(side(true).udp(54, 5))),
    ];
    let (json, out) = Case::new(rules, &frames).replay(&[]);
    assert_eq!(out.len(), 5, "{out:?}");
    assert_eq!((hits(&json, "answers"), hits(&json, "out")), (3, 2));
    let connections = &json["report"]["connections"];
    assert_eq!((&connections["now"], &connections["related"]), (&2.into(), &1.into()));
    assert_eq!(connections["states"]["tcp established"], 1);
}

#[test]
fn fragments_follow_their_first() {
    let part = |id, offset, more| Fragment { id, offset, more };
    let first = |id, port| vec(side(false).fragment(part(id, 0, true)).udp(1, port).payload(&[0; 64]));
    let later =
        |id, offset, more| vec(side(false).fragment(part(id, offset, more)).udp(0, 0).payload(&[0; 64]));
    let frames = [
        (0, first(1, 53)),
        (1, first(2, 54)),
        (2, later(1, 72, true)),
        (3, later(2, 72, true)),
        (4, later(1, 136, false)),
        (5, later(2, 136, false)),
        (6, later(3, 72, false)),
    ];
    let rules = "rules: [{name: dns, protocol: udp, to-port: 53, action: allow}]\n";
    let (json, out) = Case::new(rules, &frames).replay(&[]);
    assert_eq!(out.len(), 3, "{out:?}");
    assert_eq!((hits(&json, "dns"), &json["report"]["stray_fragments"]["packets"]), (3, &1.into()));
    let open = format!("stray-fragments: allow\n{rules}");
    assert_eq!(Case::new(&open, &frames).replay(&[]).1.len(), 4);
}

#[test]
fn limits_are_kept_over_the_captures_time() {
    let mut frames: Vec<(u64, Vec<u8>)> = (0..1000).map(|n| (n, vec(side(false).udp(1, 2)))).collect();
    frames.extend((0..10).map(|n| (n * 100 + 1000, vec(side(true).udp(2, 1)))));
    let rules = "rules:\n\
                 \x20 - {name: few, limit: {rate: 10/s, burst: 5, per: source}, log: 'few ', action: allow}\n";
    let case = Case::new(rules, &frames);
    let log = case.path("log");
    let (json, out) = case.replay(&["--log-file", text(&log)]);
    // 5 at once, one each 100 ms; the other source has a bucket of its own.
    assert_eq!(out.len(), 5 + 9 + 10, "{}", json["report"]);
    assert_eq!(json["report"]["rules"][0]["limited"], 1010 - 24);
    assert_eq!(json["drops"]["rate-limited"], 1010 - 24);
    let lines = std::fs::read_to_string(&log).unwrap();
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["rule"], &first["from"], &first["to_port"]),
        (&"few".into(), &"10.0.0.1".into(), &2.into())
    );
    // A line says what became of the packet.
    let actions: Vec<Value> =
        lines.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["action"].clone()).collect();
    assert_eq!((&actions[4], &actions[5]), (&"allow".into(), &"deny (over its limit)".into()));
    let told = &json["report"]["log"];
    assert_eq!(told["lines"].as_u64().unwrap(), lines.lines().count() as u64);
    assert!(told["left_out"].as_u64().unwrap() > 900, "{told}");
}

#[test]
fn tunnels_are_looked_into_when_asked() {
    let inner =
        Packet::raw().ipv4([1; 4].into(), [2; 4].into()).tcp(5, 23).flags(Flags::SYN).to_vec().unwrap();
    let frames = [(0, vec(side(false).protocol(4).payload(&inner)))];
    let rules = "default: allow\nrules: [{name: telnet, protocol: tcp, to-port: telnet, action: reject}]\n";
    assert_eq!(Case::new(rules, &frames).replay(&[]).1.len(), 1);
    let (json, out) = Case::new(rules, &frames).replay(&["--inner"]);
    assert_eq!((out.len(), hits(&json, "telnet"), &json["report"]["unanswered"]), (0, 1, &1.into()));
}

#[test]
fn fragments_of_a_tunnel_follow_what_it_carries() {
    let inner = |port: u16| {
        let data = [7; 200];
        Packet::raw().ipv4([1; 4].into(), [2; 4].into()).udp(5, port).payload(&data).to_vec().unwrap()
    };
    let part = |id, inner: &[u8], from: usize, to: usize| {
        let fragment = Fragment { id, offset: u32::try_from(from).unwrap(), more: to < inner.len() };
        vec(side(false).protocol(4).fragment(fragment).payload(&inner[from..to]))
    };
    let (dns, web) = (inner(53), inner(80));
    let frames = [
        (0, part(1, &dns, 0, 104)),
        (1, part(2, &web, 0, 104)),
        (2, part(1, &dns, 104, dns.len())),
        (3, part(2, &web, 104, web.len())),
        (4, part(3, &dns, 104, dns.len())),
    ];
    let rules = "rules: [{name: dns, protocol: udp, to-port: 53, action: allow}]\n";
    let (json, out) = Case::new(rules, &frames).replay(&["--inner"]);
    assert_eq!((out.len(), hits(&json, "dns")), (2, 2), "{out:?}");
    assert_eq!(json["report"]["stray_fragments"]["packets"], 1);
}

#[test]
fn marks_of_connections_can_be_changed_and_cleared() {
    let frames = [
        (0, vec(syn(80))),
        (1, vec(side(true).tcp(80, 1000).flags(Flags(0x12)).seq(500).ack(101))),
        (2, vec(side(false).tcp(1000, 80).flags(Flags::ACK).seq(101).ack(501))),
    ];
    let rules = "default: allow\n\
                 rules:\n\
                 \x20 - {name: first, state: new, mark: 0, set-mark: 5, action: continue}\n\
                 \x20 - {name: clear, state: established, mark: 5, set-mark: 0, action: continue}\n";
    let (json, out) = Case::new(rules, &frames).replay(&[]);
    assert_eq!((out.len(), hits(&json, "first"), hits(&json, "clear")), (3, 1, 1));
    // A mark of iptables is the packet's alone.
    let rules = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m mark --mark 0x1 -j DROP\n\
                 -A FORWARD -j MARK --set-xmark 0x1/0xffffffff\n-A FORWARD -j ACCEPT\nCOMMIT\n";
    assert_eq!(Case::new(rules, &frames).replay(&["--track"]).1.len(), 3);
}

#[test]
fn what_is_sent_to_a_group_is_new() {
    let to = |address: [u8; 4]| {
        let base = Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6]));
        vec(base.ipv4([10, 0, 0, 1].into(), address.into()).udp(5353, 5353))
    };
    let frames = [(0, to([224, 0, 0, 251])), (1, to([255; 4])), (2, to([224, 0, 0, 251]))];
    let rules = "rules: [{name: new, state: new, action: allow}]\n";
    let (json, out) = Case::new(rules, &frames).replay(&[]);
    assert_eq!((out.len(), hits(&json, "new")), (3, 3));
}

#[test]
fn every_example_is_right_and_hides_no_rule() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let done = run(&["--rules", text(&path), "--check", "--strict", "--json"]);
        assert!(done.status.success(), "{}: {}{}", path.display(), told(&done.stdout), told(&done.stderr));
        let json: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!((&json["ok"], &json["hidden"]), (&true.into(), &serde_json::json!([])));
        seen += 1;
    }
    assert!(seen >= 4);
}

#[test]
fn check_tells_mistakes_and_hidden_rules() {
    let case =
        Case::new("rules:\n- {name: a, action: deny}\n- {name: b, protocol: tcp, action: allow}\n", &[]);
    let rules = case.path("rules");
    let done = run(&["--rules", text(&rules), "--check"]);
    let out = told(&done.stdout);
    assert!(
        done.status.success() && out.contains(":3: warning: rule \"b\" is shadowed: \"a\" (line 2)"),
        "{out}"
    );
    assert!(!run(&["--rules", text(&rules), "--check", "--strict"]).status.success());
    let json: Value =
        serde_json::from_slice(&run(&["--rules", text(&rules), "--check", "--json"]).stdout).unwrap();
    assert_eq!((&json["hidden"][0]["number"], &json["hidden"][0]["by"][0]["name"]), (&2.into(), &"a".into()));
    std::fs::write(&rules, "rules: [{acton: deny}]\n").unwrap();
    let done = run(&["--rules", text(&rules), "--check"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(told(&done.stderr).contains("did you mean \"action\"?"), "{}", told(&done.stderr));
    // The same mistakes keep it from starting.
    let input = case.path("in.pcap");
    let done = run(&["--rules", text(&rules), "--replay", text(&input)]);
    assert!(!done.status.success() && told(&done.stderr).contains("did you mean \"action\"?"));
}

#[test]
fn lookups_are_those_of_a_linear_search() {
    let filters = "@10.0.0.0/8\t0.0.0.0/0\t0 : 65535\t80 : 80\t0x06/0xFF\n\
                   @10.0.0.1/32\t0.0.0.0/0\t0 : 65535\t0 : 65535\t0x00/0x00\n";
    let case = Case::new(filters, &[]);
    let (rules, trace) = (case.path("rules"), case.path("trace"));
    std::fs::write(&trace, "167772161\t1\t5\t80\t6\t0\t1\n167772161\t1\t5\t81\t6\t0\t1\n1\t1\t5\t80\t6\n")
        .unwrap();
    let done = run(&["--rules", text(&rules), "--lookup", text(&trace)]);
    assert_eq!(told(&done.stdout), "1\n2\n0\n", "{}", told(&done.stderr));
}

/// The published sets, if they are at hand.
#[test]
fn lookups_of_published_sets_equal_their_goldens() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let data = std::env::var_os("ONVM_TEST_DATA").map_or(beside, PathBuf::from).join("classbench");
    if !data.exists() {
        eprintln!("{} is not there: no published sets are looked up", data.display());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let unpacked = |name: &str| {
        let out = Command::new("gzip").args(["-dc"]).arg(data.join(format!("{name}.gz"))).output().unwrap();
        assert!(out.status.success(), "{}", told(&out.stderr));
        let path = folder.path().join(name);
        std::fs::write(&path, out.stdout).unwrap();
        path
    };
    for set in ["acl1_1k", "fw1_1k", "ipc1_1k", "acl1_10k", "fw1_10k", "ipc1_10k"] {
        let (rules, trace) = (unpacked(set), unpacked(&format!("{set}_trace")));
        let golden = std::fs::read_to_string(unpacked(&format!("{set}_golden"))).unwrap();
        let done = run(&["--rules", text(&rules), "--lookup", text(&trace)]);
        assert!(told(&done.stdout) == golden, "{set}: {}", told(&done.stderr));
    }
}

#[test]
fn tools_take_the_programs_own_command_line() {
    let case = Case::new("rules:\n- {name: a, action: deny}\n", &[]);
    let rules = case.path("rules");
    let done = run(&["-r", "1", "-d", "2", "--rules", text(&rules), "--check"]);
    assert!(done.status.success(), "{}", told(&done.stderr));
    let done = run(&["-r", "1", "--rules", text(&rules), "--check", "--bogus"]);
    assert_eq!(done.status.code(), Some(2), "what would not run is not right");
    let packet = "udp 10.0.0.1:1 > 10.0.0.2:2";
    for tool in [["--explain", packet], ["--lookup", "/nowhere"]] {
        let done = run(&["--rules", "/nowhere", tool[0], tool[1], "--json"]);
        let json: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!((&json["ok"], done.status.code()), (&false.into(), Some(1)), "{json}");
    }
}
