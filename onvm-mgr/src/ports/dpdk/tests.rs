//! With EAL and its virtual devices, in this process: no root, no interface.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use onvm_lib::capture::{Frame, LinkType, Reader, Writer};
use onvm_lib::pool::{Books, Geometry, Packet, Pool};
use onvm_lib::shm::{Access, Pages, Region};
use onvm_lib::wire::checksum::Pseudo;

use super::frame::{Cut, complete_half};
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

/// TCP over IPv4 or UDP over IPv6, behind tags, with half a checksum, and what the whole one is.
fn half(tags: &[u8], v6: bool, payload: usize) -> (Vec<u8>, usize, u16) {
    let addresses = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let (header, offset, protocol) = if v6 { (8, 6, 17) } else { (20, 16, 6) };
    let length = u16::try_from(header + payload).unwrap();
    let mut transport = vec![0x11; header + payload];
    transport[12.min(header - 1)] = 0x50;
    let (ip, pseudo) = if v6 {
        let (from, to) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        let mut ip = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
        ip[4..6].copy_from_slice(&length.to_be_bytes());
        ip.extend(std::net::Ipv6Addr::octets(&from));
        ip.extend(std::net::Ipv6Addr::octets(&to));
        (ip, Pseudo::v6(from, to))
    } else {
        let (from, to) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0];
        ip[2..4].copy_from_slice(&(length + 20).to_be_bytes());
        ip.extend(from.octets());
        ip.extend(to.octets());
        (ip, Pseudo::v4(from, to))
    };
    let sum = pseudo.sum(protocol, length.into());
    transport[offset..offset + 2].fill(0);
    let whole = sum.add_bytes(&transport).finish();
    transport[offset..offset + 2].copy_from_slice(&(!sum.finish()).to_be_bytes());
    let kind: &[u8] = if v6 { &[0x86, 0xdd] } else { &[8, 0] };
    let at = addresses.len() + tags.len() + kind.len() + ip.len() + offset;
    ([&addresses[..], tags, kind, &ip, &transport].concat(), at, whole)
}

#[test]
fn half_checksums_become_whole_and_all_else_stays() {
    for tags in [&[][..], &[0x81, 0, 0, 5], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 7]] {
        for (v6, payload) in [(false, 0), (false, 1), (false, 1400), (true, 0), (true, 33)] {
            let (frame, at, whole) = half(tags, v6, payload);
            let mut done = frame.clone();
            // Behind the packet there may be padding, which is no part of it.
            done.extend([7, 7, 7]);
            assert_eq!(complete_half(&mut done), Ok(()));
            let mut expected = frame.clone();
            expected[at..at + 2].copy_from_slice(&whole.to_be_bytes());
            expected.extend([7, 7, 7]);
            assert_eq!(done, expected, "tags {tags:?}, v6 {v6}, payload {payload}");
            // What is whole stays, what is wrong stays wrong.
            for change in [0, 1] {
                let mut again = done.clone();
                again[at] ^= change;
                let before = again.clone();
                assert_eq!(complete_half(&mut again), Ok(()));
                assert_eq!(again, before);
            }
            // One that was cut says so.
            if payload > 0 {
                assert_eq!(complete_half(&mut frame.clone()[..frame.len() - 1]), Err(Cut));
            }
        }
    }
    for length in 0..80 {
        let (frame, ..) = half(&[0x81, 0, 0, 5], length % 2 == 0, 40);
        let _ = complete_half(&mut frame[..length].to_vec());
        let mut nonsense = frame.clone();
        nonsense[18 + length % 60] = 0xff;
        let _ = complete_half(&mut nonsense);
    }
}

#[test]
fn tags_are_put_back() {
    let mut room: Vec<u8> = (0..40).collect();
    frame::insert_tag(&mut room, 0x8100, 0x2005);
    let expected: Vec<u8> = (4..16).chain([0x81, 0, 0x20, 5]).chain(16..40).collect();
    assert_eq!(room, expected);
}
