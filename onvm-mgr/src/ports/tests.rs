//! All kinds of ports do the same: what comes in has a hash, a time and a length, what cannot come in or go out is counted
//! by the same names, and every buffer comes back.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use onvm_lib::capture::{Frame, LinkType, Writer};
use onvm_lib::pool::{Books, Geometry, Packet, Pool};
use onvm_lib::shm::Pages;
use onvm_lib::wire;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::rate::now_ns;
use super::*;

const BUFFERS: u32 = 256;
/// Longest wait for the kernel.
const LIMIT: Duration = Duration::from_secs(60);
/// Time of the frames in the capture file.
const RECORDED_NS: u64 = 1_234_567_890_123_456_789;

fn books(room: u32) -> Books {
    Books::new(Pool::create(Geometry::new(BUFFERS, room).unwrap(), Pages::Plain).unwrap(), 1)
}

fn port(text: &str) -> Box<dyn Port> {
    open(&text.parse().unwrap(), books(2048).pool()).unwrap_or_else(|error| panic!("{error}"))
}

/// A UDP packet with this payload, of a flow of its own.
fn frame(number: u16, payload: usize) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 9, 0, 1], [10, 9, 0, 2], 64)
        .udp(10_000 + number, 53);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &vec![0x5a; payload]).unwrap();
    bytes
}

fn frames() -> Vec<Vec<u8>> {
    (0..20).map(|number| frame(number, 20 + 60 * usize::from(number))).collect()
}

/// Whether it is one of ours: an interface that comes up has things of its own to say.
fn is_ours(bytes: &[u8]) -> bool {
    bytes.starts_with(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1])
}

/// An interface of this host in a namespace of its own, or none, said aloud, without the rights for that.
struct Space(String);

impl Space {
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "network namespaces need root");
            eprintln!("SKIPPED: network namespaces need root");
            return None;
        }
        let space = Self(format!("onvm-ports-{}", std::process::id()));
        // One of a run that was killed, and whose process had the same number.
        let _ = Command::new("ip").args(["netns", "del", &space.0]).output();
        ip(&["netns", "add", &space.0]);
        let place = File::open(format!("/run/netns/{}", space.0)).unwrap();
        move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        ip(&["link", "add", "va", "mtu", "4000", "type", "veth", "peer", "name", "vb", "mtu", "4000"]);
        ip(&["link", "set", "va", "up"]);
        ip(&["link", "set", "vb", "up"]);
        Some(space)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

fn ip(arguments: &[&str]) {
    let end = Command::new("ip").args(arguments).output().unwrap();
    assert!(end.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&end.stderr));
}

/// Packets of frames, in buffers.
fn packets(books: &mut Books, frames: &[Vec<u8>]) -> Vec<Packet> {
    let one = |frame: &Vec<u8>| {
        let mut packet = books.allocate(u32::try_from(frame.len()).unwrap()).unwrap();
        packet.bytes_mut(books.pool()).copy_from_slice(frame);
        packet
    };
    frames.iter().map(one).collect()
}

/// Has another port send frames.
fn send_by(port: &mut dyn Port, frames: &[Vec<u8>]) {
    let mut books = books(4096);
    let mut burst = packets(&mut books, frames);
    port.send(&mut books, &mut burst);
    assert!(burst.is_empty());
    assert_eq!(books.free_count(), BUFFERS);
}

/// Receives until `enough`; what came of ours, whose descriptions must be right.
fn receive(
    port: &mut dyn Port,
    books: &mut Books,
    times: &std::ops::RangeInclusive<u64>,
    enough: impl Fn(usize, &PortCounters) -> bool,
) -> Vec<Vec<u8>> {
    let (mut came, until) = (Vec::new(), Instant::now() + LIMIT);
    while !enough(came.len(), &port.counters()) {
        assert!(Instant::now() < until, "{}: {:?} after {}", port.name(), port.counters(), came.len());
        let mut burst = Vec::new();
        let _ = port.receive(books, &mut burst, 8);
        assert!(burst.len() <= 8);
        for packet in burst {
            let (bytes, note) = (packet.bytes(books.pool()), books.note(&packet));
            let (name, length) = (port.name(), u32::try_from(bytes.len()).unwrap());
            assert_eq!(packet.descriptor().hash(), wire::flow_hash(bytes), "{name}: hash");
            assert_eq!((packet.descriptor().length(), note.wire_length), (length, length));
            let now = now_ns();
            let time = note.timestamp_ns;
            assert!(times.contains(&time) && (time <= now), "{name}: {time} is not in {times:?}, {now}");
            if is_ours(bytes) {
                came.push(bytes.to_vec());
            }
            books.free(packet);
        }
    }
    came
}

/// What all must do: packets in, packets out, and the exceptions. `feed` has frames come in.
fn check(port: &mut dyn Port, times: &std::ops::RangeInclusive<u64>, mut feed: impl FnMut(&[Vec<u8>])) {
    let mut books = books(2048);
    let all = frames();
    feed(&all);
    let came = receive(port, &mut books, times, |n, _| n >= all.len());
    assert_eq!(came, all, "{}", port.name());
    assert_eq!(books.free_count() as usize + port.holds(), BUFFERS as usize);

    // Too long for a buffer.
    let refused = port.counters().rx_refused;
    feed(&[frame(7, 3000)]);
    let none = receive(port, &mut books, times, |_, c| c.rx_refused > refused);
    assert_eq!((none.len(), port.counters().rx_refused), (0, refused + 1));

    // No buffer: what comes in then is lost, and counted.
    let mut hostages: Vec<Packet> = std::iter::from_fn(|| books.allocate(0)).collect();
    let before = port.counters();
    feed(&all[..3]);
    let _ = receive(port, &mut books, times, |_, c| c.rx_no_buffer >= before.rx_no_buffer + 3);
    assert_eq!(port.counters().rx_packets, before.rx_packets);
    books.free_all(&mut hostages);
}

/// Sends frames; all must go.
fn check_sending(port: &mut dyn Port) {
    let mut books = books(2048);
    let before = port.counters();
    let all = frames();
    let mut burst = packets(&mut books, &all);
    port.send(&mut books, &mut burst);
    assert_eq!((burst.len(), books.free_count() as usize), (0, BUFFERS as usize - port.holds()));
    let after = port.counters();
    let bytes = all.iter().map(Vec::len).sum::<usize>() as u64;
    assert_eq!(
        (after.tx_packets - before.tx_packets, after.tx_bytes - before.tx_bytes, after.tx_failed),
        (20, bytes, before.tx_failed),
        "{}",
        port.name()
    );
    port.close(&mut books).unwrap();
    assert_eq!((port.holds(), books.free_count()), (0, BUFFERS));
}

/// Sends frames; none can go, and all are left to whoever sent them.
fn check_failing(port: &mut dyn Port) {
    let mut books = books(2048);
    let failed = port.counters().tx_failed;
    let mut burst = packets(&mut books, &frames());
    port.send(&mut books, &mut burst);
    assert_eq!((burst.len(), port.counters().tx_failed), (20, failed + 20), "{}", port.name());
    books.free_all(&mut burst);
    assert_eq!(books.free_count(), BUFFERS);
}

#[test]
fn captures_and_generators_describe_packets_as_interfaces_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("in.pcap");
    let mut writer = Writer::create(&path).unwrap();
    writer.add_interface(LinkType::Ethernet, "").unwrap();
    let mut all = frames();
    all.push(frame(7, 3000));
    for (number, data) in (0u64..).zip(&all) {
        let original_len = u32::try_from(data.len()).unwrap();
        let timestamp_ns = RECORDED_NS + number;
        let link_type = LinkType::Ethernet;
        writer.write_frame(&Frame { timestamp_ns, original_len, link_type, interface: 0, data }).unwrap();
    }
    writer.finish().unwrap();
    let recorded = RECORDED_NS..=RECORDED_NS + 20;
    let begin = now_ns() - 2_000_000;
    let out = directory.path().join("out.pcap");
    let mut books = books(2048);
    let mut capture = port(&format!("pcap:in={},out={}", path.display(), out.display()));
    let came = receive(&mut *capture, &mut books, &recorded, |_, c| c.rx_refused > 0);
    assert_eq!((came.as_slice(), capture.counters().rx_packets), (&frames()[..], 20));
    check_sending(&mut *capture);
    let times = begin..=u64::MAX;
    for text in ["gen:flows=9,size=90", "gen:rate=100k", "gen:imix=1,rate=50Mbit"] {
        let mut generator = port(text);
        let _ = receive(&mut *generator, &mut books, &times, |_, c| c.rx_packets > 100);
        check_sending(&mut *generator);
    }
    let mut too_long = port("gen:size=3000,rate=10k");
    let _ = receive(&mut *too_long, &mut books, &times, |_, c| c.rx_refused > 3);
    let mut hostages: Vec<Packet> = std::iter::from_fn(|| books.allocate(0)).collect();
    let mut late = port("gen:rate=10k");
    let _ = receive(&mut *late, &mut books, &times, |_, c| c.rx_no_buffer > 3);
    // A source that waits loses nothing.
    let mut patient = port("gen:");
    let mut burst = Vec::new();
    assert_eq!(patient.receive(&mut books, &mut burst, 8), Reception::Ready);
    assert_eq!((burst.len(), patient.counters()), (0, PortCounters::default()));
    books.free_all(&mut hostages);
    check_sending(&mut *port("null:"));
}

/// Waits until the kernel knows of a link: it learns of the other end's doings late, and until then takes frames and drops
/// them, and says nothing.
fn wait_for_link(port: &dyn Port, up: bool) {
    let until = Instant::now() + LIMIT;
    while port.link().up != Some(up) {
        assert!(Instant::now() < until, "{}: the link is not {up}", port.name());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn interfaces_of_the_kernel_are_alike() {
    let Some(_space) = Space::new() else { return };
    let begin = now_ns() - 2_000_000;
    let times = begin..=u64::MAX;

    let (mut near, mut far) = (port("afpacket:va,timestamps=hardware"), port("afpacket:vb"));
    check(&mut *near, &times, |frames| send_by(&mut *far, frames));
    assert_eq!(near.link(), Link { up: Some(true), mbps: Some(10_000), mtu: Some(4000) });
    ip(&["link", "set", "vb", "down"]);
    wait_for_link(&*near, false);
    ip(&["link", "set", "va", "down"]);
    check_failing(&mut *near);
    ip(&["link", "set", "va", "up"]);
    ip(&["link", "set", "vb", "up"]);
    wait_for_link(&*near, true);
    // It says so a moment before it does; a change has to wait for that.
    ip(&["link", "set", "va", "up"]);
    check_sending(&mut *near);
    let mut books = books(2048);
    let came = receive(&mut *far, &mut books, &times, |n, _| n >= 20);
    assert_eq!(came, frames());

    let mut tap = port("tap:t0,mtu=4000");
    let mut kernel = port("afpacket:t0");
    check(&mut *tap, &times, |frames| send_by(&mut *kernel, frames));
    assert_eq!((tap.link().up, tap.link().mtu), (Some(true), Some(4000)));
    ip(&["link", "set", "t0", "down"]);
    assert_eq!(tap.link().up, Some(false));
    check_failing(&mut *tap);
    ip(&["link", "set", "t0", "up"]);
    wait_for_link(&*tap, true);
    ip(&["link", "set", "t0", "up"]);
    check_sending(&mut *tap);
    let came = receive(&mut *kernel, &mut books, &times, |n, _| n >= 20);
    assert_eq!(came, frames());

    for other in [&mut near, &mut far, &mut tap, &mut kernel] {
        other.close(&mut books).unwrap();
    }
    assert_eq!(books.free_count(), BUFFERS);
}
