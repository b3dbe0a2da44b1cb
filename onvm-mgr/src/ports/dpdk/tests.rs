//! With EAL and its virtual devices, in this process: no root, no interface.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use onvm_lib::capture::{Frame, LinkType, Reader, Writer};
use onvm_lib::pool::{Books, Geometry, Packet, Pool};
use onvm_lib::ring::{Destination, Op};
use onvm_lib::shm::{Access, Pages, Region};

use super::*;

/// Devices are DPDK's, and so is the thread that has them: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn books(buffers: u32) -> Books {
    Books::new(Pool::create(Geometry::new(buffers, 2048).unwrap(), Pages::Plain).unwrap(), 7)
}

fn open(text: &str, books: &Books) -> Result<DpdkPort, PortError> {
    DpdkPort::open(&text.parse().unwrap(), books.pool())
}

fn refused(text: &str, books: &Books) -> String {
    open(text, books).err().expect(text).to_string()
}

/// A capture of frames of different lengths.
fn capture(path: &Path, count: u32) -> Vec<Vec<u8>> {
    let mut writer = Writer::create(path).unwrap();
    writer.add_interface(LinkType::Ethernet, "test").unwrap();
    let frames: Vec<Vec<u8>> = (0..count)
        .map(|n| {
            let length = 60 + n * 37 % 1400;
            let header = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5];
            let body = (14..length).map(|at| u8::try_from((at + n) % 256).unwrap());
            header.into_iter().chain(body).collect()
        })
        .collect();
    for (frame, n) in frames.iter().zip(0u64..) {
        let frame = Frame {
            timestamp_ns: 1_700_000_000_000_000_000 + n,
            original_len: u32::try_from(frame.len()).unwrap(),
            link_type: LinkType::Ethernet,
            interface: 0,
            data: frame,
        };
        writer.write_frame(&frame).unwrap();
    }
    writer.finish().unwrap();
    frames
}

fn frames_of(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = Reader::open(path).unwrap();
    let mut all = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        all.push(frame.data.to_vec());
    }
    all
}

/// Receives until nothing comes.
fn receive_all(port: &mut DpdkPort, books: &mut Books) -> Vec<Packet> {
    let mut all = Vec::new();
    loop {
        let before = all.len();
        assert_eq!(port.receive(books, &mut all, 32), Reception::Ready, "{:?}", port.take_error());
        assert!(all.len() <= before + 32);
        if all.len() == before {
            return all;
        }
    }
}

#[test]
fn what_another_process_could_write_is_what_is_sent_and_nothing_is_copied() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let [from, to] = ["in.pcap", "out.pcap"].map(|name| directory.path().join(name));
    let frames = capture(&from, 300);
    let mut books = books(4096);
    let text = format!("dpdk:net_pcap0,rx_pcap={},tx_pcap={}", from.display(), to.display());
    let mut port = open(&text, &books).unwrap();
    let mut packets = receive_all(&mut port, &mut books);
    // The pool as an NF maps it: another mapping of the memory, at another address.
    let region = books.pool().region();
    let seen = region.as_fd().try_clone_to_owned().unwrap();
    let seen = Region::from_fd("seen", seen, region.len(), Access::ReadWrite).unwrap();
    let range = region.base().as_ptr().addr()..region.base().as_ptr().addr() + region.len();
    assert_eq!(packets.len(), frames.len());
    for (packet, frame) in packets.iter().zip(&frames) {
        let bytes = packet.bytes(books.pool());
        assert_eq!(bytes, frame);
        let start = bytes.as_ptr().addr();
        assert!(range.contains(&start) && range.contains(&(start + bytes.len())), "outside of the pool");
        // SAFETY: inside of the region, as was just made sure; this test alone writes there.
        unsafe { seen.base().as_ptr().add(start - range.start + 20).write_volatile(0xee) };
    }
    let held = port.holds();
    port.send(&mut books, &mut packets);
    assert!(packets.is_empty() && port.holds() <= held + 300);
    port.close(&mut books).unwrap();
    assert_eq!(books.free_count(), 4096, "buffers were lost");
    let changed = |mut frame: Vec<u8>| {
        frame[20] = 0xee;
        frame
    };
    let expected: Vec<Vec<u8>> = frames.into_iter().map(changed).collect();
    assert!(frames_of(&to) == expected, "the capture differs");
    let counters = port.counters();
    assert_eq!((counters.rx_packets, counters.tx_packets, counters.tx_failed), (300, 300, 0));
    assert_eq!(counters.rx_bytes, counters.tx_bytes);
}

#[test]
fn two_ports_exchange_packets_for_a_long_time_and_lose_no_buffer() {
    let _alone = alone();
    let mut books = books(1024);
    let mut one = open("dpdk:net_null0,size=128", &books).unwrap();
    let mut other = open("dpdk:net_null1,rxq=2", &books).unwrap();
    assert!(refused("dpdk:net_null1", &books).contains("another port of this manager has this device"));
    let mut burst = Vec::new();
    for round in 0..5000 {
        let max = [64, 1, 33, 40][round % 4];
        assert_eq!(one.receive(&mut books, &mut burst, max), Reception::Ready);
        assert_eq!(burst.len(), max);
        assert!(burst.iter().all(|packet| packet.descriptor().length() == 128));
        other.send(&mut books, &mut burst);
        assert!(burst.is_empty());
        assert_eq!(other.receive(&mut books, &mut burst, 20), Reception::Ready);
        assert_eq!(burst.len(), 20);
        one.send(&mut books, &mut burst);
        let out = one.holds() + other.holds();
        assert_eq!(books.free_count() as usize + out, 1024);
        assert!(out < 700, "{out} buffers are with ports");
    }
    one.close(&mut books).unwrap();
    other.close(&mut books).unwrap();
    assert_eq!(books.free_count(), 1024);
    // Closed it gives nothing and takes nothing.
    assert_eq!(one.receive(&mut books, &mut burst, 64), Reception::Finished);
    burst.extend(books.allocate(100));
    one.send(&mut books, &mut burst);
    assert_eq!((burst.len(), one.counters().tx_failed), (1, 1));
    books.free(burst.remove(0));
    // And its device can be had anew.
    let mut again = open("dpdk:net_null0", &books).unwrap();
    again.close(&mut books).unwrap();
}

#[test]
fn an_exhausted_pool_delays_and_loses_nothing() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let from = directory.path().join("in.pcap");
    let frames = capture(&from, 200);
    let mut books = books(96);
    let mut port = open(&format!("dpdk:net_pcap1,rx_pcap={}", from.display()), &books).unwrap();
    let mut came = Vec::new();
    let mut burst = Vec::new();
    for _ in 0..1000 {
        port.receive(&mut books, &mut burst, 64);
        came.extend(burst.iter().map(|packet| packet.bytes(books.pool()).to_vec()));
        burst.drain(..).for_each(|packet| books.free(packet));
    }
    assert!(came == frames, "{} of {}", came.len(), frames.len());
    port.close(&mut books).unwrap();
    assert_eq!(books.free_count(), 96);
}

#[test]
fn what_is_received_where_another_packet_was_sent_is_a_packet_of_its_own() {
    let _alone = alone();
    let mut books = books(1024);
    let mut port = open("dpdk:net_null0", &books).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    let (mut burst, mut buffers) = (Vec::new(), std::collections::BTreeSet::new());
    for _ in 0..300 {
        assert_eq!(port.receive(&mut books, &mut burst, 64), Reception::Ready);
        for packet in &mut burst {
            let descriptor = packet.descriptor();
            assert_eq!((descriptor.hop(), descriptor.destination().bits()), (0, 0), "{descriptor:?}");
            buffers.insert(descriptor.buffer());
            assert!(seen.insert((descriptor.buffer(), descriptor.generation())), "{descriptor:?} once more");
            // As after a chain of three.
            let out = Destination::new(Op::Next, 3);
            packet.describe(descriptor.with_hop(descriptor.hop() + 3).with_destination(out));
        }
        port.send(&mut books, &mut burst);
    }
    assert!(buffers.len() * 10 < seen.len(), "no buffer was used again: {} of {}", buffers.len(), seen.len());
    port.close(&mut books).unwrap();
    assert_eq!(books.free_count(), 1024);
}

#[test]
fn frames_over_the_mtu_fail_and_are_counted() {
    let _alone = alone();
    let mut books = books(1024);
    let mut port = open("dpdk:net_null2", &books).unwrap();
    // With tags as many bytes more as the tags have.
    let frames =
        [(60, 0), (1514, 0), (1515, 0), (1518, 1), (1519, 1), (1522, 2), (1523, 2), (2000, 0), (64, 2)];
    let mut burst = Vec::new();
    for (length, tags) in frames {
        let mut packet = books.allocate(length).unwrap();
        let bytes = packet.bytes_mut(books.pool());
        bytes.fill(0);
        for at in [12, 16].into_iter().take(tags) {
            bytes[at..at + 2].copy_from_slice(&TAG.to_be_bytes());
        }
        burst.push(packet);
    }
    port.send(&mut books, &mut burst);
    let left: Vec<u32> = burst.iter().map(|packet| packet.descriptor().length()).collect();
    assert_eq!(left, [1515, 1519, 1523, 2000]);
    assert_eq!((port.counters().tx_failed, port.counters().tx_packets), (4, 5));
    burst.drain(..).for_each(|packet| books.free(packet));
    port.close(&mut books).unwrap();
    assert_eq!(books.free_count(), 1024);
}

#[test]
fn mistakes_are_named() {
    let _alone = alone();
    let books = books(64);
    for (text, why) in [
        ("dpdk:", "the name of a device is needed"),
        ("dpdk:iface=eth0", "the name of a device is needed"),
        ("dpdk:net_null5,rxq=0", "rxq=0: a number in 1..=65535 is needed"),
        ("dpdk:net_null5,rxq=40000", "out of range 1..="),
        ("dpdk:net_null5,mtu=9000", "mtu=9000: out of range"),
        ("dpdk:net_null5,promiscuous=maybe", "yes or no is needed"),
        ("dpdk:net_nil5", "there is no such device"),
        ("dpdk:net_pcap5,rx_pcap=/no/such/file", "there is no such device, or its driver does not take it"),
        ("dpdk:0000:ee:1e.6", "there is no such device"),
    ] {
        let said = refused(text, &books);
        assert!(said.starts_with(&format!("port {text:?}: ")) && said.contains(why), "{said}");
    }
}

#[test]
fn frames_that_were_cut_say_so() {
    use onvm_lib::wire::{MacAddr, build::Packet};
    for tags in [&[][..], &[0x81, 0, 0, 5], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 7]] {
        for v6 in [false, true] {
            let packet = Packet::ethernet(MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
            let packet = if v6 {
                packet.ipv6("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap())
            } else {
                packet.ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
            };
            let mut frame = packet.udp(1, 2).payload(&[7; 100]).to_vec().unwrap();
            frame.splice(12..12, tags.iter().copied());
            assert!(!frame::is_cut(&frame));
            assert!(frame::is_cut(&frame[..frame.len() - 1]));
            // Behind the packet there may be padding; in front of an IP header's end nothing is known.
            frame.push(0);
            assert!(!frame::is_cut(&frame));
            (0..34).for_each(|length| assert!(!frame::is_cut(&frame[..length]), "{length}"));
        }
    }
}

proptest::proptest! {
    #[test]
    fn what_is_plainly_whole_would_not_be_changed(
        udp: bool, port: u16, tunnel in 0usize..8, payload in proptest::collection::vec(0u8.., 0..60),
        half: bool, change in 12usize..50, to: u8,
    ) {
        use onvm_lib::wire::{Headers, MacAddr, build::Packet};
        let packet = Packet::ethernet(MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]))
            .ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let port = [4789, 8472, 4790, 6081].get(tunnel).copied().unwrap_or(port);
        let packet = if udp { packet.udp(1, port) } else { packet.tcp(1, port) };
        let mut frame = packet.payload(&payload).to_vec().unwrap();
        if half {
            let headers = Headers::parse(&frame);
            let protocol = headers.protocol().unwrap();
            let sum = headers.pseudo(&frame).unwrap().sum(protocol, frame.len() - 34).fold();
            let at = if udp { 40 } else { 50 };
            frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            proptest::prop_assert!(!frame::is_plainly_whole(&frame));
        }
        if change < frame.len() && to % 2 == 0 {
            frame[change] = to;
        }
        let mut completed = frame.clone();
        half_done::complete(&mut completed);
        proptest::prop_assert!(!frame::is_plainly_whole(&frame) || completed == frame);
    }
}

#[test]
fn tags_are_put_back() {
    let mut room: Vec<u8> = (0..40).collect();
    frame::insert_tag(&mut room, 0x8100, 0x2005);
    let expected: Vec<u8> = (4..16).chain([0x81, 0, 0x20, 5]).chain(16..40).collect();
    assert_eq!(room, expected);
}
