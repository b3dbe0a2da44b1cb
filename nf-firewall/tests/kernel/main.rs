//! The kernel's own firewall as judge: the same rules and the same packets, in network namespaces.
//!
//! Needs root, `ip`, `iptables` and Python 3, and says so when it cannot run.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use onvm_lib::capture::{Frame, LinkType, Reader, Writer};
use onvm_lib::wire::build::Packet;
use onvm_lib::wire::tcp::Flags;
use onvm_lib::wire::tcp_option::TcpOption;
use onvm_lib::wire::{Headers, MacAddr, describe};

const HOST_A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa0]);
const HOST_B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb0]);
const ROUTER_A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa1]);
const ROUTER_B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb1]);

/// A frame and the side that it comes from.
struct Sent {
    from_b: bool,
    bytes: Vec<u8>,
}

/// A router between two interfaces of another namespace; both go when the test ends.
struct Lab {
    hosts: String,
    router: String,
}

fn shell(script: &str) -> Result<String, String> {
    let out = Command::new("sh").args(["-ec", script]).output().map_err(|e| e.to_string())?;
    if out.status.success() {
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&out.stderr).into_owned())
    }
}

impl Lab {
    /// None, and the reason on standard error, where there can be none.
    fn new(name: &str) -> Option<Self> {
        let number = std::process::id();
        let lab = Self { hosts: format!("fwh{name}{number}"), router: format!("fwr{name}{number}") };
        let (h, r) = (&lab.hosts, &lab.router);
        let script = format!(
            "command -v iptables-restore >/dev/null; python3 -c 'import socket'\n\
             ip netns add {h}; ip netns add {r}\n\
             ip link add a0 netns {h} type veth peer name a1 netns {r}\n\
             ip link add b0 netns {h} type veth peer name b1 netns {r}\n\
             for i in a b; do ip -n {h} link set ${{i}}0 up; ip -n {r} link set ${{i}}1 address 02:00:00:00:00:${{i}}1 up; done\n\
             ip -n {r} addr add 10.98.0.1/24 dev a1; ip -n {r} addr add 10.99.0.1/24 dev b1\n\
             ip -n {r} neigh add 10.98.0.2 lladdr 02:00:00:00:00:a0 dev a1 nud permanent\n\
             ip -n {r} neigh add 10.99.0.2 lladdr 02:00:00:00:00:b0 dev b1 nud permanent\n\
             ip -n {r} route add 10.1.0.0/16 via 10.98.0.2; ip -n {r} route add 10.2.0.0/16 via 10.99.0.2\n\
             ip netns exec {r} sysctl -qw net.ipv4.ip_forward=1 net.ipv4.icmp_ratelimit=0 \
             net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.a1.rp_filter=0 net.ipv4.conf.b1.rp_filter=0\n\
             ip netns exec {r} sysctl -qw net.ipv4.icmp_msgs_per_sec=1000000 net.ipv4.icmp_msgs_burst=1000000 || sysctl -qw net.ipv4.icmp_msgs_per_sec=1000000 net.ipv4.icmp_msgs_burst=1000000 || true\n"
        );
        match shell(&script) {
            Ok(_) => Some(lab),
            Err(why) if std::env::var_os("CI").is_some() => panic!("the kernel cannot be asked: {why}"),
            Err(why) => {
                eprintln!("the kernel is not asked (root, ip, iptables and python3 are needed): {why}");
                None
            }
        }
    }

    /// Puts rules in force; how `iptables-save` shows them.
    fn restore(&self, rules: &str) -> String {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.router, "iptables-restore"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "iptables does not take\n{rules}");
        shell(&format!("ip netns exec {} iptables-save", self.router)).unwrap()
    }

    /// Sends frames; for each what came out before the next was sent.
    fn send(&self, frames: &[Sent], wait_ms: u32) -> Vec<Vec<u8>> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/inject.py");
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.hosts, "python3", script, &wait_ms.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut text = String::new();
        for Sent { from_b, bytes } in frames {
            text.push_str(if *from_b { "b0 " } else { "a0 " });
            bytes.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
            text.push('\n');
        }
        let mut input = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || input.write_all(text.as_bytes()).unwrap());
        let out = child.wait_with_output().unwrap();
        writer.join().unwrap();
        assert!(out.status.success());
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len() / 2).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap()).collect()
        };
        String::from_utf8(out.stdout)
            .unwrap()
            .lines()
            .map(|line| hex(line.split(' ').nth(2).unwrap()))
            .collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = shell(&format!("ip netns del {}; ip netns del {}", self.hosts, self.router));
    }
}

/// Numbers that look like chance, the same in each run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.0 >> 33) % u64::from(n)).unwrap()
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(u32::try_from(all.len()).unwrap()) as usize]
    }
}

/// Runs the firewall over frames; its standard output.
fn ours(folder: &tempfile::TempDir, rules: &str, frames: &[Sent], more: &[&str]) -> Vec<Vec<u8>> {
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("rules"), rules).unwrap();
    let mut writer = Writer::create(path("in.pcap")).unwrap();
    let interface = writer.add_interface(LinkType::Ethernet, "").unwrap();
    for (n, Sent { bytes, .. }) in (0u64..).zip(frames) {
        let frame = Frame {
            timestamp_ns: 1_700_000_000_000_000_000 + n * 1_000_000,
            original_len: u32::try_from(bytes.len()).unwrap(),
            link_type: LinkType::Ethernet,
            interface,
            data: bytes,
        };
        writer.write_frame(&frame).unwrap();
    }
    writer.finish().unwrap();
    let (rules, input, output) = (path("rules"), path("in.pcap"), path("out.pcap"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_nf-firewall"));
    command
        .args(["--rules", &rules, "--strict", "--replay", &input, "--write", &output, "--json"])
        .args(more);
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mut out = Vec::new();
    let mut reader = Reader::open(&output).unwrap();
    while let Some(frame) = reader.next_frame().unwrap() {
        out.push(frame.data.to_vec());
    }
    out
}

/// What became of packets, by their IP identification: forwarded, or how they were answered.
fn outcomes(frames: &[Vec<u8>], resets: &BTreeMap<(u16, u16), u16>) -> BTreeMap<u16, String> {
    let mut all = BTreeMap::new();
    for frame in frames {
        let headers = Headers::parse(frame);
        let Some(ip) = headers.ipv4(frame) else { continue };
        // Those that were sent quote nothing that could be read.
        if let Some(quoted) = headers.original(frame).and_then(|original| original.ipv4(frame)) {
            let message = headers.icmp(frame).unwrap();
            all.insert(quoted.id(), format!("icmp {}/{}", message.kind(), message.code()));
            continue;
        }
        let ports = headers.ports(frame).unwrap_or((0, 0));
        let answered = headers.tcp(frame).filter(|tcp| tcp.flags().contains(Flags::RST));
        match (answered, resets.get(&(ports.1, ports.0))) {
            (Some(tcp), Some(id)) if ip.id() != *id => {
                all.insert(*id, format!("reset {} seq {} ack {}", tcp.flags(), tcp.seq(), tcp.ack()));
            }
            _ => drop(all.insert(ip.id(), "forwarded".into())),
        }
    }
    all
}

fn address(side: u8, host: u32) -> std::net::Ipv4Addr {
    [10, side, 0, u8::try_from(host).unwrap()].into()
}

/// A packet from a to b with this identification and, if it has ports, this source port.
fn packet(chance: &mut Chance, id: u16) -> Vec<u8> {
    let (from, to) = (address(1, 1 + chance.below(6)), address(2, 1 + chance.below(6)));
    let base = Packet::ethernet(HOST_A, ROUTER_A).ipv4(from, to).id(id);
    let sport = 20_000 + id;
    let dport = u16::try_from(78 + chance.below(8)).unwrap();
    let packet = match chance.below(5) {
        0 | 1 => {
            let flags = Flags(u16::try_from(chance.below(64)).unwrap());
            base.tcp(sport, dport)
                .flags(flags)
                .seq(chance.below(9999))
                .ack(chance.below(9999))
                .payload(b"abc")
        }
        2 | 3 => base.udp(sport, dport).payload(b"abc"),
        _ => {
            let kind = [0, 3, 8, 11, 13][chance.below(5) as usize];
            let code = if kind == 3 { u8::try_from(chance.below(5)).unwrap() } else { 0 };
            base.icmp(kind, code, 0).payload(&[0; 40])
        }
    };
    packet.to_vec().unwrap()
}

/// A line of iptables-save for a chain.
fn line(chance: &mut Chance, chain: &str) -> String {
    let mut text = format!("-A {chain}");
    for (option, side) in [("-s", 1), ("-d", 2)] {
        if chance.below(3) == 0 {
            let not = chance.of(&["", "", "! "]);
            let net = format!("10.{side}.0.{}/{}", chance.below(7), chance.of(&["32", "31", "30", "29"]));
            text.push_str(&format!(" {not}{option} {net}"));
        }
    }
    let protocol = chance.of(&["tcp", "tcp", "udp", "udp", "icmp", ""]);
    if !protocol.is_empty() {
        text.push_str(&format!(" -p {protocol}"));
    }
    if matches!(protocol, "tcp" | "udp") {
        text.push_str(&format!(" -m {protocol}"));
    }
    let low = 78 + chance.below(6);
    match protocol {
        "tcp" if chance.below(2) == 0 => {
            let mask = chance.of(&["FIN,SYN,RST,ACK", "SYN,ACK", "FIN", "ALL"]);
            let set = if mask == "ALL" {
                chance.of(&["NONE", "FIN,PSH,URG"])
            } else {
                mask.split(',').next_back().unwrap()
            };
            text.push_str(&format!(" {}--tcp-flags {mask} {set}", chance.of(&["", "! "])));
        }
        "icmp" if chance.below(3) > 0 => {
            let kind = chance.of(&["8", "0", "3", "3/3", "11"]);
            text.push_str(&format!(" -m icmp {}--icmp-type {kind}", chance.of(&["", "", "! "])));
        }
        _ => {}
    }
    if matches!(protocol, "tcp" | "udp") {
        match chance.below(4) {
            0 => {
                text.push_str(&format!(" {}--dport {low}:{}", chance.of(&["", "! "]), low + chance.below(3)));
            }
            1 => text.push_str(&format!(" -m multiport --dports {low},{}:90", low + 3)),
            2 => text.push_str(&format!(" --sport 20000:{}", 20_000 + chance.below(400))),
            _ => {}
        }
    }
    let mut target =
        chance.of(&["ACCEPT", "ACCEPT", "DROP", "DROP", "one", "two", "RETURN", "REJECT", "REJECT"]);
    if chain != "FORWARD" && matches!(target, "one" | "two") || chain == "FORWARD" && target == "RETURN" {
        target = "DROP";
    }
    if target == "REJECT" {
        let kinds: &[&str] = &[
            "icmp-port-unreachable",
            "icmp-net-unreachable",
            "icmp-host-unreachable",
            "icmp-proto-unreachable",
            "icmp-admin-prohibited",
        ];
        let with = if protocol == "tcp" && chance.below(2) == 0 { "tcp-reset" } else { chance.of(kinds) };
        return format!("{text} -j REJECT --reject-with {with}\n");
    }
    format!("{text} -{} {target}\n", if target == "two" { "g" } else { "j" })
}

#[test]
fn stateless_rules_decide_as_iptables_does() {
    let Some(lab) = Lab::new("a") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut compared = BTreeMap::new();
    for seed in 0..12 {
        let mut chance = Chance(seed);
        let mut rules = format!(
            "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD {} [0:0]\n:OUTPUT ACCEPT [0:0]\n:one - [0:0]\n:two - [0:0]\n",
            chance.of(&["ACCEPT", "DROP"])
        );
        (0..10).for_each(|_| rules.push_str(&line(&mut chance, "FORWARD")));
        (0..4).for_each(|_| rules.push_str(&line(&mut chance, "one")));
        (0..4).for_each(|_| rules.push_str(&line(&mut chance, "two")));
        let saved = lab.restore(&format!("{rules}COMMIT\n"));
        let frames: Vec<Sent> =
            (1..250).map(|id| Sent { from_b: false, bytes: packet(&mut chance, id) }).collect();
        let mut resets = BTreeMap::new();
        for frame in &frames {
            let headers = Headers::parse(&frame.bytes);
            let id = headers.ipv4(&frame.bytes).unwrap().id();
            if headers.tcp(&frame.bytes).is_some() {
                resets.insert(headers.ports(&frame.bytes).unwrap(), id);
            }
        }
        let theirs = outcomes(&lab.send(&frames, 3), &resets);
        let ours = outcomes(&ours(&folder, &saved, &frames, &[]), &resets);
        for frame in &frames {
            let id = Headers::parse(&frame.bytes).ipv4(&frame.bytes).unwrap().id();
            let (theirs, ours) = (theirs.get(&id), ours.get(&id));
            assert_eq!(ours, theirs, "seed {seed}: {}\n{saved}", describe(&frame.bytes));
            let kind = theirs.map_or("dropped", |text| text.split(' ').next().unwrap());
            *compared.entry(kind.to_string()).or_insert(0u32) += 1;
        }
    }
    println!("decided alike: {compared:?}");
    assert!(compared.values().all(|n| *n > 50) && compared.len() == 4, "{compared:?}");
}

/// A TCP conversation of two hosts with all that can go wrong in it; an orderly one at least begins with a handshake.
fn conversation(chance: &mut Chance, orderly: bool, port: u16, id: &mut u16, into: &mut Vec<Sent>) {
    let (mut next, mut got) = ([chance.below(1 << 30), chance.below(1 << 30)], [0u32, 0]);
    let scale = [TcpOption::WindowScale(2), TcpOption::SackPermitted];
    let scaled = chance.below(2) == 0;
    for step in 0..24 {
        let mut side = usize::from(chance.below(2) == 1);
        let mut flags = [0x10u16, 0x10, 0x18, 0x11, 0x02, 0x12, 0x04, 0x14][chance.below(8) as usize];
        if orderly || chance.below(3) > 0 {
            match step {
                0 => (side, flags) = (0, 0x02),
                1 => (side, flags) = (1, 0x12),
                2 => (side, flags) = (0, 0x10),
                _ if chance.below(6) > 0 => flags = 0x18,
                _ => {}
            }
        }
        let payload = if flags == 0x18 { chance.below(600) } else { 0 };
        // Now and then a number that is off: a little, by a window, by far.
        let off = |chance: &mut Chance| match chance.below(14) {
            0 => chance.below(3000),
            1 => chance.below(3000).wrapping_neg(),
            2 => 100_000 + chance.below(3000),
            3 => (100_000 + chance.below(3000)).wrapping_neg(),
            _ => 0,
        };
        let off = |chance: &mut Chance| if step < 3 && orderly { 0 } else { off(chance) };
        let seq = next[side].wrapping_add(off(chance));
        let ack = if flags & 0x10 == 0 { 0 } else { got[side].wrapping_add(off(chance)) };
        let macs = [(HOST_A, ROUTER_A), (HOST_B, ROUTER_B)][side];
        let hosts = if side == 0 { (address(1, 1), address(2, 1)) } else { (address(2, 1), address(1, 1)) };
        let ports = if side == 0 { (port, 80) } else { (80, port) };
        *id += 1;
        let bytes = vec![7; payload as usize];
        let mut packet = Packet::ethernet(macs.0, macs.1)
            .ipv4(hosts.0, hosts.1)
            .id(*id)
            .tcp(ports.0, ports.1)
            .flags(Flags(flags))
            .seq(seq)
            .ack(ack)
            .window(1000)
            .payload(&bytes);
        if scaled && flags & 0x02 != 0 {
            packet = packet.tcp_options(&scale);
        }
        into.push(Sent { from_b: side == 1, bytes: packet.to_vec().unwrap() });
        if seq == next[side] {
            let counts = u32::from(flags & 0x02 != 0) + u32::from(flags & 0x01 != 0);
            next[side] = seq.wrapping_add(payload + counts);
            got[1 - side] = next[side];
        }
    }
}

/// Conversations in which not even the beginning is in order.
const WILD: u16 = 40;
/// Sets of conversations.
const SEEDS: u64 = 8;

#[test]
fn connections_have_the_states_that_the_kernel_says() {
    let Some(lab) = Lab::new("s") else { return };
    let folder = tempfile::tempdir().unwrap();
    let states = [
        ("NEW", "new", 4u8),
        ("ESTABLISHED", "established", 8),
        ("RELATED", "related", 12),
        ("INVALID", "invalid", 16),
    ];
    let mut rules = String::from("*mangle\n:FORWARD ACCEPT [0:0]\n");
    for (theirs, _, tos) in states {
        rules.push_str(&format!("-A FORWARD -m conntrack --ctstate {theirs} -j TOS --set-tos {tos}/0xff\n"));
    }
    lab.restore(&format!("{rules}COMMIT\n"));
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 1..=SEEDS {
        let mut chance = Chance(seed);
        let (mut frames, mut id) = (Vec::new(), 0);
        for number in 0..120 {
            let port = 1000 + 200 * u16::try_from(seed).unwrap() + number;
            conversation(&mut chance, number >= WILD, port, &mut id, &mut frames);
        }
        judged_alike(&lab, &folder, &states, &frames, &mut counts);
    }
    println!("{counts:?}");
    assert!(counts.len() == 3 && counts.values().all(|n| *n > 100), "{counts:?}");
}

/// Has the kernel and the firewall say what state each packet's connection is in.
fn judged_alike(
    lab: &Lab,
    folder: &tempfile::TempDir,
    states: &[(&str, &'static str, u8)],
    frames: &[Sent],
    counts: &mut BTreeMap<&'static str, u32>,
) {
    let mut theirs = BTreeMap::new();
    for frame in lab.send(frames, 5000) {
        let headers = Headers::parse(&frame);
        let Some(ip) = headers.ipv4(&frame) else { continue };
        let state = states.iter().find(|(.., tos)| *tos == ip.tos()).map_or("untracked", |(_, name, _)| name);
        theirs.insert(ip.id(), state);
    }
    assert_eq!(theirs.len(), frames.len(), "all packets went through the kernel");
    let log = folder.path().join("log");
    let _ = std::fs::remove_file(&log);
    let all = "rules: [{name: all, log: {rate: 1000000/s}, action: allow}]\n";
    ours(folder, all, frames, &["--track", "--log-file", log.to_str().unwrap()]);
    let text = std::fs::read_to_string(log).unwrap();
    assert_eq!(text.lines().count(), frames.len());
    let mut different = Vec::new();
    for (frame, line) in frames.iter().zip(text.lines()) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let id = Headers::parse(&frame.bytes).ipv4(&frame.bytes).unwrap().id();
        *counts.entry(theirs[&id]).or_insert(0) += 1;
        let seq = Headers::parse(&frame.bytes).tcp(&frame.bytes).map_or(0, |tcp| tcp.seq());
        let described = format!("{} from {seq}", describe(&frame.bytes));
        if std::env::var_os("SHOW").is_some() {
            eprintln!("{id}: {described} ours {} theirs {}", line["state"], theirs[&id]);
        }
        if line["state"] != theirs[&id] {
            different.push(format!("{id}: {described}: ours {}, theirs {}", line["state"], theirs[&id]));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}
