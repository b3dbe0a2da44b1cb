//! AF_XDP ports over veth: modes, programs of others, ends of all kinds, and frames as they are.

use std::process::Command;

use onvm_lib::protocol::Request;
use onvm_tests::traffic::{record, recorded, send_frames, serve, tagged_frames};
use onvm_tests::wire::{SERVER, SERVER_V6, Wire};
use onvm_tests::{LIMIT, Lab, Manager, Process, wait_until};
use rustix::process::Signal;

/// A manager between two ports with one NF.
fn start<'a>(lab: &'a Lab, ports: [&str; 2], more: &[&str]) -> (Manager<'a>, Process) {
    let mut arguments = vec!["--port", ports[0], "--port", ports[1], "--chain", "1"];
    arguments.extend(["--wait-for-instance", "20"]);
    arguments.extend(more);
    let manager = lab.manager(&arguments);
    let nf = lab.nf("nf-forward", &["-r", "1"]);
    lab.wait_for_running(1, 1);
    (manager, nf)
}

/// All that came in went out.
fn stop(manager: Manager<'_>, mut nf: Process) {
    let ledger = manager.stop(LIMIT);
    ledger.assert_clean();
    assert_eq!(ledger.packets("received"), ledger.packets("sent"), "{}", ledger.0["drops"]);
    for port in ledger.0["ports"].as_array().unwrap() {
        for count in ["rx_refused", "rx_missed", "tx_failed"] {
            assert_eq!(port[count], 0, "{port}");
        }
    }
    let _ = nf.wait(LIMIT).good();
}

fn ip(arguments: &[&str]) -> String {
    let end = Command::new("ip").args(arguments).output().unwrap();
    assert!(end.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&end.stderr));
    String::from_utf8(end.stdout).unwrap()
}

/// Whether a program is attached to an interface of the middle.
fn is_attached(interface: &str) -> bool {
    ip(&["link", "show", interface]).contains("xdp")
}

fn manner(manager: &Manager<'_>, port: usize) -> String {
    manager.stats().0["ports"][port]["manner"].as_str().unwrap_or_default().to_string()
}

/// Starts a manager that must not start, and what it says.
fn refused(lab: &Lab, port: &str, more: &[&str]) -> String {
    let socket = lab.file("other.sock");
    let arguments = [&["--port", port, "--socket", &socket, "--no-huge"], more].concat();
    lab.bare("onvm-mgr", &arguments).wait(LIMIT).with_code(1).err
}

fn reaches(wire: &Wire, tries: &str) -> bool {
    let ping = &["ping", "-c", tries, "-i", "0.1", "-W", "1", SERVER];
    wire.at_client(ping).output().unwrap().status.success()
}

#[test]
fn kernel_tcp_passes_in_native_mode_whole_and_right() {
    let Some(wire) = Wire::new(1500) else { return };
    let lab = Lab::new();
    let (manager, nf) = start(&lab, ["xdp:m0", "xdp:m1,mode=native,copy=copy,queue=0"], &[]);
    for port in 0..2 {
        assert_eq!(manner(&manager, port), "native, copy, queue 0");
    }
    for host in [SERVER, SERVER_V6] {
        let ping = wire.client(&["ping", "-c", "1", "-W", "10", "-s", "5000", host]);
        assert!(ping.contains(" 0% packet loss"), "{ping}");
    }
    let served = serve(&lab, &wire, 30);
    served.assert_arrives(&wire, SERVER);
    served.assert_arrives(&wire, &format!("[{SERVER_V6}]"));
    let (audit, balances) = manager.audit();
    assert!(balances, "{audit}");
    stop(manager, nf);
    assert!(!is_attached("m0") && !is_attached("m1"));
}

#[test]
fn kernel_tcp_passes_in_generic_mode_with_its_super_frames_cut_up() {
    let Some(wire) = Wire::new(1500) else { return };
    let lab = Lab::new();
    let (manager, nf) = start(&lab, ["xdp:m0,mode=generic", "xdp:m1,mode=generic"], &[]);
    assert_eq!(manner(&manager, 0), "generic, copy, queue 0");
    let served = serve(&lab, &wire, 20);
    served.assert_arrives(&wire, SERVER);
    served.assert_arrives(&wire, &format!("[{SERVER_V6}]"));
    let ledger = manager.stats();
    assert!(ledger.port(1, "rx_bytes") > 40 << 20);
    stop(manager, nf);
}

#[test]
fn frames_arrive_to_the_byte_in_both_modes() {
    for mode in ["native", "generic"] {
        let Some(wire) = Wire::new(1500) else { return };
        let lab = Lab::new();
        let ports = [format!("xdp:m0,mode={mode}"), format!("xdp:m1,mode={mode}")];
        let (manager, nf) = start(&lab, [&ports[0], &ports[1]], &[]);
        let frames = tagged_frames(400);
        let recording = record(&lab, &wire, "out.pcap");
        send_frames(&wire, &frames);
        let came = recorded(&lab, "out.pcap", frames.len());
        drop(recording);
        assert!(came == frames, "{mode}: frames arrive changed or in another order");
        stop(manager, nf);
    }
}

#[test]
fn long_frames_come_in_parts_where_buffers_have_room_and_are_refused_where_not() {
    let Some(wire) = Wire::new(9000) else { return };
    let lab = Lab::new();
    let told = refused(&lab, "xdp:m0", &[]);
    assert!(told.contains("MTU of 9000 is more than buffers of 2048 bytes") && told.contains("--mtu 9000"));
    assert!(!is_attached("m0"), "nothing is left behind");
    let (manager, nf) = start(&lab, ["xdp:m0", "xdp:m1"], &["--mtu", "9000"]);
    assert!(manner(&manager, 0).ends_with("multi-buffer"), "{}", manner(&manager, 0));
    for size in ["8972", "3800", "3840", "4054", "60"] {
        let ping = wire.client(&["ping", "-c", "1", "-M", "do", "-s", size, "-W", "10", SERVER]);
        assert!(ping.contains(" 0% packet loss"), "{ping}");
    }
    serve(&lab, &wire, 30).assert_arrives(&wire, SERVER);
    stop(manager, nf);
}

#[test]
fn the_program_goes_with_the_manager_even_when_it_is_killed() {
    let Some(wire) = Wire::new(1500) else { return };
    let lab = Lab::new();
    let (mut manager, mut nf) = start(&lab, ["xdp:m0", "afpacket:m1"], &[]);
    wait_until("the server", || reaches(&wire, "1"));
    assert!(is_attached("m0"));
    // Another manager leaves it alone, and says whose it is.
    let told = refused(&lab, "xdp:m0", &[]);
    assert!(told.contains("another XDP program is attached to it, id ") && told.contains("force"), "{told}");
    assert!(told.contains("onvm_to_sockets") && told.contains("native"), "{told}");
    assert!(is_attached("m0"), "it was left alone");
    wait_until("the server once more", || reaches(&wire, "1"));
    manager.process.signal(Signal::KILL);
    let _ = manager.process.wait(LIMIT);
    wait_until("the program to go", || !is_attached("m0"));
    nf.signal(Signal::KILL);
    let _ = nf.wait(LIMIT);
    // And the interface can be had again at once.
    let lab = Lab::new();
    let (manager, nf) = start(&lab, ["xdp:m0", "afpacket:m1"], &[]);
    wait_until("the server through the next one", || reaches(&wire, "1"));
    manager.stop(LIMIT).assert_clean();
    let _ = nf;
}

/// Attaches a program that passes everything to m0, by a link or without one; says so, and ends with its standard input.
const FOREIGN: &str = "import ctypes, socket, struct, sys\n\
    libc = ctypes.CDLL(None, use_errno=True)\n\
    def bpf(command, attribute):\n\
    \x20   b = ctypes.create_string_buffer(attribute, len(attribute)); r = libc.syscall(321, command, b, len(attribute))\n\
    \x20   if r < 0: sys.exit('bpf %d: error %d' % (command, ctypes.get_errno()))\n\
    \x20   return r\n\
    op = lambda code, to, value: struct.pack('<BBhi', code, to, 0, value)\n\
    code = op(0xb7, 0, 2) + op(0x95, 0, 0)\n\
    code = ctypes.create_string_buffer(code, len(code)); licence = ctypes.create_string_buffer(b'GPL')\n\
    load = struct.pack('<IIQQIIQII16sII', 6, 2, ctypes.addressof(code), ctypes.addressof(licence), 0, 0, 0, 0, 0, b'foreign', 0, 37)\n\
    program = bpf(5, load); index = socket.if_nametoindex('m0')\n\
    if sys.argv[1] == 'link': link = bpf(28, struct.pack('<IIII16x', program, index, 37, 2))\n\
    else:\n\
    \x20   xdp = struct.pack('<HHiHHI', 8, 1, program, 8, 3, 2)\n\
    \x20   body = struct.pack('<BxHiII', 0, 0, index, 0, 0) + struct.pack('<HH', 4 + len(xdp), 0x802b) + xdp\n\
    \x20   s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\n\
    \x20   s.send(struct.pack('<IHHII', 16 + len(body), 19, 5, 0, 0) + body)\n\
    \x20   assert struct.unpack('<i', s.recv(4096)[16:20])[0] == 0\n\
    print('ready', flush=True); sys.stdin.read()\n";

#[test]
fn a_program_of_others_stays_unless_it_is_to_be_replaced() {
    if std::env::consts::ARCH != "x86_64" {
        eprintln!("SKIPPED: the test's own program is written for x86_64");
        return;
    }
    for how in ["link", "netlink"] {
        let Some(wire) = Wire::new(1500) else { return };
        let lab = Lab::new();
        let mut other = Command::new("python3")
            .args(["-c", FOREIGN, how])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let told = refused(&lab, "xdp:m0", &[]);
        assert!(told.contains("another XDP program is attached") && told.contains("\"foreign\""), "{told}");
        assert!(ip(&["link", "show", "m0"]).contains("xdpgeneric"), "it stays");
        let (manager, nf) = start(&lab, ["xdp:m0,force", "xdp:m1"], &[]);
        assert_eq!(manner(&manager, 0), "native, copy, queue 0");
        wait_until("the server", || reaches(&wire, "1"));
        stop(manager, nf);
        assert!(!is_attached("m0"));
        drop(other.stdin.take());
        let _ = other.wait();
    }
}

#[test]
fn an_interface_goes_and_comes() {
    let Some(wire) = Wire::new(1500) else { return };
    let lab = Lab::new();
    let (manager, mut nf) = start(&lab, ["xdp:m0", "xdp:m1"], &[]);
    let link = |what: &str| lab.ask(Request::PortList).unwrap().0["ports"][0]["link"][what].clone();
    wait_until("the server", || reaches(&wire, "1"));
    assert_eq!((link("up"), link("mtu"), link("mbps")), (true.into(), 1500.into(), 10_000.into()));
    wire.set_link("down");
    assert!(!reaches(&wire, "2"), "down");
    // The port looks now and then.
    wait_until("the end of the link", || link("up") == false);
    wire.set_link("up");
    wait_until("the server by the link", || reaches(&wire, "1"));
    wait_until("the link", || link("up") == true);
    wire.cut();
    wait_until("the end of the interface", || link("up").is_null());
    wire.mend(1500);
    wait_until("the new interface", || reaches(&wire, "1"));
    assert!(is_attached("m0"));
    serve(&lab, &wire, 3).assert_arrives(&wire, SERVER);
    manager.stop(LIMIT).assert_clean();
    let _ = nf.wait(LIMIT).good();
}

#[test]
fn several_queues_share_the_pool() {
    let Some(wire) = Wire::unwired() else { return };
    let lab = Lab::new();
    wire.connect_server(1500);
    let queues = ["numtxqueues", "2", "numrxqueues", "2"];
    let add =
        [&["link", "add", "c0"], &queues[..], &["type", "veth", "peer", "name", "m0"], &queues].concat();
    ip(&add);
    for interface in ["c0", "m0"] {
        let end = Command::new("ethtool").args(["-L", interface, "rx", "2", "tx", "2"]).status().unwrap();
        assert!(end.success());
    }
    wire.give_to_client("c0");
    ip(&["link", "set", "m0", "up"]);
    let (manager, nf) = start(&lab, ["xdp:m0", "xdp:m1"], &[]);
    assert_eq!(manner(&manager, 0), "native, copy, queues 0-1");
    let served = serve(&lab, &wire, 5);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| served.assert_arrives(&wire, SERVER));
        }
    });
    stop(manager, nf);
    assert!(refused(&lab, "xdp:m0,queue=2", &[]).contains("there is no queue 2, the last is 1"));
}

/// Has the kernel put a VLAN tag beside each frame that the client sends, as VLAN devices do: a program at its egress that
/// calls `bpf_skb_vlan_push`, by hand. Ends with its standard input.
const TAG_BESIDE: &str = "import ctypes, socket, struct, sys\n\
    libc = ctypes.CDLL(None, use_errno=True)\n\
    def bpf(command, attribute):\n\
    \x20   b = ctypes.create_string_buffer(attribute, len(attribute)); r = libc.syscall(321, command, b, len(attribute))\n\
    \x20   if r < 0: sys.exit('bpf %d: error %d' % (command, ctypes.get_errno()))\n\
    \x20   return r\n\
    op = lambda code, to, value: struct.pack('<BBhi', code, to, 0, value)\n\
    code = op(0xb7, 2, 0x0081) + op(0xb7, 3, 5) + op(0x85, 0, 18) + op(0xb7, 0, 0) + op(0x95, 0, 0)\n\
    code = ctypes.create_string_buffer(code, len(code)); licence = ctypes.create_string_buffer(b'GPL')\n\
    load = struct.pack('<IIQQIIQII16sII', 3, 5, ctypes.addressof(code), ctypes.addressof(licence), 0, 0, 0, 0, 0, b'', 0, 0)\n\
    program = bpf(5, load)\n\
    link = bpf(28, struct.pack('<IIII16x', program, socket.if_nametoindex('c0'), 47, 0))\n\
    print('ready', flush=True); sys.stdin.read()\n";

#[test]
fn tags_that_stand_beside_a_frame_are_put_back() {
    if std::env::consts::ARCH != "x86_64" {
        eprintln!("SKIPPED: the test's own program is written for x86_64");
        return;
    }
    let Some(wire) = Wire::new(1500) else { return };
    let lab = Lab::new();
    let (manager, nf) = start(&lab, ["xdp:m0", "xdp:m1"], &[]);
    let mut tagger = wire
        .at_client(&["python3", "-c", TAG_BESIDE])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(tagger.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let frames = tagged_frames(100);
    let recording = record(&lab, &wire, "out.pcap");
    send_frames(&wire, &frames);
    let came = recorded(&lab, "out.pcap", frames.len());
    drop(recording);
    // Whatever tags it had, it has one more, in front.
    let tagged = |frame: &Vec<u8>| [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat();
    let wanted: Vec<Vec<u8>> = frames.iter().map(tagged).collect();
    assert!(came == wanted, "tags are lost: {:02x?} for {:02x?}", &came[0][..20], &wanted[0][..20]);
    drop(tagger.stdin.take());
    assert!(tagger.wait().unwrap().success());
    stop(manager, nf);
}

#[test]
fn what_cannot_be_opened_is_told() {
    let Some(_wire) = Wire::new(1500) else { return };
    let lab = Lab::new();
    for (port, more, why) in [
        ("xdp:no-such-if0", &[][..], "there is no interface \"no-such-if0\""),
        ("xdp:m0,queue=7", &[], "there is no queue 7, the last is 0"),
        ("xdp:m0,copy=zero", &[], "copy=zero needs a pool on huge pages"),
        ("xdp:m0,mode=fast", &[], "auto, native or generic is needed"),
    ] {
        let told = refused(&lab, port, more);
        assert!(told.contains(why), "{port}: {told}");
        assert!(!is_attached("m0"));
    }
    // One port has the interface, another of the same manager cannot have it too.
    let both = refused(&lab, "xdp:m0", &["--port", "xdp:m0"]);
    assert!(both.contains("another XDP program is attached"), "{both}");
    assert!(!is_attached("m0"));
}
