//! VXLAN ports: the kernel's own device at the other end, and two managers that are one service graph.

use std::process::Command;

use onvm_lib::protocol::Request;
use onvm_tests::traffic::{assert_datagrams_arrive, serve};
use onvm_tests::wire::{SERVER, SERVER_V6, Wire};
use onvm_tests::{LIMIT, Lab, Manager, Process, wait_until};
use serde_json::{Value, json};

fn ip(arguments: &[&str]) {
    let end = Command::new("ip").args(arguments).output().unwrap();
    assert!(end.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&end.stderr));
}

/// A way between the middle (10.88.0.1, fd88::1) and another namespace (10.88.0.2, fd88::2).
fn underlay(space: &str, mtu: &str) {
    ip(&["link", "add", "u0", "mtu", mtu, "type", "veth", "peer", "name", "u1", "mtu", mtu]);
    ip(&["link", "set", "u1", "netns", space]);
    std::fs::write("/proc/sys/net/ipv6/conf/u0/disable_ipv6", "0").unwrap();
    for (more, name, host) in [(&[][..], "u0", "1"), (&["-n", space][..], "u1", "2")] {
        let ip = |rest: &[&str]| ip(&[more, rest].concat());
        ip(&["addr", "add", &format!("10.88.0.{host}/24"), "dev", name]);
        ip(&["addr", "add", &format!("fd88::{host}/64"), "dev", name, "nodad"]);
        ip(&["link", "set", name, "up"]);
    }
}

/// A VXLAN device of the kernel's in a namespace, with the addresses of one end of the wire.
fn kernel_end(space: &str, name: &str, vni: &str, local: &str, remote: &str, host: &str, more: &[&str]) {
    let ends = ["id", vni, "local", local, "remote", remote, "dstport", "4789", "dev", "u1"];
    ip(&[&["-n", space, "link", "add", name, "type", "vxlan"][..], &ends, more].concat());
    ip(&["-n", space, "addr", "add", &format!("10.77.0.{host}/24"), "dev", name]);
    ip(&["-n", space, "addr", "add", &format!("fd77::{host}/64"), "dev", name, "nodad"]);
    ip(&["-n", space, "link", "set", name, "up"]);
}

/// What a manager says of a port's link.
fn link(lab: &Lab, port: usize) -> Value {
    lab.ask(Request::PortList).unwrap().0["ports"][port]["link"].clone()
}

fn start<'a>(lab: &'a Lab, ports: [&str; 2], more: &[&str]) -> Manager<'a> {
    let mut arguments = vec!["--port", ports[0], "--port", ports[1], "--chain", "1"];
    arguments.extend(["--wait-for-instance", "20"]);
    arguments.extend(more);
    lab.manager(&arguments)
}

/// Ends a manager that has lost nothing.
fn stop(manager: Manager<'_>, mut nf: Process) {
    let ledger = manager.stop(LIMIT);
    ledger.assert_clean();
    for port in ledger.0["ports"].as_array().unwrap() {
        for count in ["rx_refused", "rx_missed", "tx_failed"] {
            assert_eq!(port[count], 0, "{port}");
        }
    }
    let _ = nf.wait(LIMIT).good();
}

/// One at a time: of several, ping waits for the last only twice as long as the others took.
fn assert_pings(wire: &Wire, host: &str, size: &str) {
    let ping = wire.client(&["ping", "-c", "1", "-W", "10", "-M", "do", "-s", size, host]);
    assert!(ping.contains(" 0% packet loss"), "{host} {size}: {ping}");
}

#[test]
fn the_kernels_device_is_the_other_end() {
    // The tunnel is the client's half, then the server's; over IPv4, then IPv6 with a checksum and without.
    let unchecked = &["udp6zerocsumtx", "udp6zerocsumrx"][..];
    for (at_client, v6, more) in
        [(true, false, &[][..]), (false, false, &[]), (false, true, &[]), (true, true, unchecked)]
    {
        let Some(wire) = Wire::unwired() else { return };
        let lab = Lab::new();
        let [client, _, server] = wire.spaces().map(str::to_string);
        let (near, far) = if v6 { ("fd88::1", "fd88::2") } else { ("10.88.0.1", "10.88.0.2") };
        let (ours, theirs) = if v6 { ("[fd88::1]", "fd88::2") } else { (near, "10.88.0.2:4789") };
        let tunnel = format!("vxlan:local={ours},remote={theirs},vni=77");
        let (space, host) = if at_client { (&client, "1") } else { (&server, "2") };
        underlay(space, "1500");
        kernel_end(space, "vx0", "77", far, near, host, more);
        let manager = if at_client {
            wire.connect_server(1500);
            start(&lab, [&tunnel, "afpacket:m1"], &[])
        } else {
            wire.connect_client(1500);
            start(&lab, ["afpacket:m0", &tunnel], &[])
        };
        let nf = lab.nf("nf-forward", &["-r", "1"]);
        lab.wait_for_running(1, 1);
        // The longest that the tunnel carries over an MTU of 1500.
        assert_pings(&wire, SERVER, if v6 { "1402" } else { "1422" });
        assert_pings(&wire, SERVER_V6, "56");
        let served = serve(&lab, &wire, 5);
        served.assert_arrives(&wire, SERVER);
        served.assert_arrives(&wire, &format!("[{SERVER_V6}]"));
        assert_datagrams_arrive(&wire, 500, 1200);
        // The link is that of the way, the MTU what is left of its own.
        let mtu = if v6 { 1430 } else { 1450 };
        assert_eq!(link(&lab, usize::from(!at_client)), json!({ "up": true, "mbps": 10_000, "mtu": mtu }));
        // What belongs to another network is counted and goes nowhere.
        kernel_end(space, "vx1", "78", far, near, "99", more);
        ip(&["-n", space, "addr", "add", "10.79.0.1/24", "dev", "vx1"]);
        let at = if at_client { wire.at_client(&[]) } else { wire.at_server(&[]) };
        let mut ping = at;
        let _ = ping.args(["ping", "-c", "2", "-i", "0.05", "-W", "1", "10.79.0.2"]).output();
        manager.wait_until("foreign frames", |l| l.port(usize::from(!at_client), "rx_foreign") > 0);
        stop(manager, nf);
    }
}

#[test]
fn tunnels_of_hosts_pass_with_their_super_frames() {
    // The kernel leaves segments of what a tunnel carries to the card as well; a veth and a TAP hand them over whole.
    for kind in ["afpacket:", "xdp:", "tap:"] {
        let Some(wire) = Wire::unwired() else { return };
        let lab = Lab::new();
        if kind == "tap:" {
            wire.connect_server(1500);
        } else {
            wire.connect_client(1500);
        }
        let ports = match kind {
            "tap:" => ["tap:m0,mtu=1500".to_string(), "afpacket:m1".to_string()],
            _ => {
                wire.connect_server(1500);
                let mode = if kind == "xdp:" { ",mode=generic" } else { "" };
                ["m0", "m1"].map(|interface| format!("{kind}{interface}{mode}"))
            }
        };
        let manager = start(&lab, [&ports[0], &ports[1]], &[]);
        if kind == "tap:" {
            // The manager sets it up first, and has it come up last.
            let is_up = || {
                let up = Command::new("ip").args(["addr", "show", "up", "m0"]).output().unwrap();
                up.status.success() && !up.stdout.is_empty()
            };
            wait_until("the device", is_up);
            wire.give_to_client("m0");
        }
        let nf = lab.nf("nf-forward", &["-r", "1"]);
        lab.wait_for_running(1, 1);
        let [client, _, server] = wire.spaces();
        // VXLAN, with a checksum of its own and without, and to a port that nobody knows.
        for (number, port, checksum) in
            [("1", "4789", "noudpcsum"), ("2", "4789", "udpcsum"), ("3", "7777", "udpcsum")]
        {
            for (space, host, other, device) in [(client, "1", "2", "c0"), (server, "2", "1", "s0")] {
                let (name, local, remote) =
                    (format!("vx{number}"), format!("10.77.0.{host}"), format!("10.77.0.{other}"));
                let ends = [
                    "id", number, "local", &local, "remote", &remote, "dstport", port, "dev", device,
                    checksum,
                ];
                ip(&[&["-n", space, "link", "add", &name, "type", "vxlan"][..], &ends].concat());
                ip(&["-n", space, "addr", "add", &format!("10.10{number}.0.{host}/24"), "dev", &name]);
                ip(&["-n", space, "link", "set", &name, "up"]);
            }
        }
        let served = serve(&lab, &wire, 8);
        // Where nobody says what was left undone, a tunnel to another port than its own does not show.
        for number in 1..=if kind == "xdp:" { 2 } else { 3 } {
            served.assert_arrives(&wire, &format!("10.10{number}.0.2"));
        }
        manager.stop(LIMIT).assert_clean();
        drop(nf);
    }
}

#[test]
fn a_chain_spans_two_managers() {
    let Some(mut wire) = Wire::unwired() else { return };
    let far = wire.add_space("far");
    // Room for whole frames and the tunnel's headers.
    underlay(&far, "1600");
    wire.connect_client(1500);
    wire.connect_server(1500);
    ip(&["link", "set", "m1", "netns", &far]);
    ip(&["-n", &far, "link", "set", "m1", "up"]);
    let (here, there) = (Lab::new(), Lab::new());
    let rules = here.file("rules");
    std::fs::write(
        &rules,
        "default: allow\nrules:\n  - {name: no-telnet, protocol: tcp, to-port: 23, action: deny}\n",
    )
    .unwrap();
    let first = start(&here, ["afpacket:m0", "vxlan:local=10.88.0.1,remote=10.88.0.2,vni=4242"], &[]);
    let firewall = here.nf("nf-firewall", &["-r", "1", "--rules", &rules]);
    let (second, monitor) = wire.within(&far, || {
        let second = start(&there, ["vxlan:local=10.88.0.2,remote=10.88.0.1,vni=4242", "afpacket:m1"], &[]);
        (second, there.nf("nf-monitor", &["-r", "1"]))
    });
    here.wait_for_running(1, 1);
    there.wait_for_running(1, 1);
    assert_pings(&wire, SERVER, "1472");
    assert_pings(&wire, SERVER_V6, "56");
    let served = serve(&here, &wire, 10);
    served.assert_arrives(&wire, SERVER);
    served.assert_arrives(&wire, &format!("[{SERVER_V6}]"));
    assert_datagrams_arrive(&wire, 500, 1400);
    let passed = |manager: &Manager<'_>| manager.stats().of_service(1).count("received");
    assert!(passed(&first) > 5000 && passed(&second) > 5000, "both have had it");
    stop(first, firewall);
    stop(second, monitor);
}

#[test]
fn what_cannot_be_opened_is_told() {
    let lab = Lab::new();
    for (port, why) in [
        ("vxlan:local=127.0.0.1", "both ends and a VNI are needed"),
        ("vxlan:local=127.0.0.1,remote=127.0.0.2", "a VNI is needed"),
        ("vxlan:local=127.0.0.1,remote=127.0.0.2,vni=16777216", "out of range 0..=16777215"),
        ("vxlan:local=here,remote=127.0.0.2,vni=1", "local=here: an address like 10.0.0.1"),
        ("vxlan:local=127.0.0.1,remote=::1,vni=1", "both ends are IPv4 or both IPv6"),
        ("vxlan:local=127.0.0.1,remote=127.0.0.2,vni=1,mtu=9", "out of range 68..=9216"),
        ("vxlan:local=192.0.2.77,remote=127.0.0.2,vni=1", "the address is not of this host"),
    ] {
        let end = lab.bare("onvm-mgr", &["--port", port, "--socket", &lab.file("s")]).wait(LIMIT);
        let end = end.with_code(1);
        assert!(end.err.contains(&format!("port {port:?}: ")) && end.err.contains(why), "{end}");
    }
}
