//! Captures: the project's own sample, made ones whose packets are all different, and reading them back.

use std::path::{Path, PathBuf};

use onvm_lib::capture::{Error, Frame, LinkType, Reader, Writer};

use crate::Dice;

/// One packet of a capture.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Packet {
    /// Nanoseconds since 1970-01-01 UTC.
    pub timestamp_ns: u64,
    /// Length on the wire.
    pub wire_length: u32,
    /// Bytes.
    pub data: Vec<u8>,
}

/// The project's own capture.
#[must_use]
pub fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/sample.pcap")
}

/// All packets of a capture.
///
/// # Panics
/// When it cannot be read to its end.
#[must_use]
pub fn read_capture(path: &Path) -> Vec<Packet> {
    let (packets, end) = read_until(path);
    end.unwrap_or_else(|e| panic!("{e}"));
    packets
}

/// The packets that are whole in a capture which somebody is still writing: the last one may be there in part.
///
/// # Panics
/// When the capture cannot be read for another reason.
#[must_use]
pub fn read_so_far(path: &Path) -> Vec<Packet> {
    let (packets, end) = read_until(path);
    if let Err(error) = end {
        assert!(error.is_cut(), "{error}");
    }
    packets
}

/// Packets up to the end of a capture, or to what is wrong with it.
fn read_until(path: &Path) -> (Vec<Packet>, Result<(), Error>) {
    let mut packets = Vec::new();
    let end = Reader::open(path).and_then(|mut reader| {
        while let Some(Frame { timestamp_ns, original_len, data, .. }) = reader.next_frame()? {
            packets.push(Packet { timestamp_ns, wire_length: original_len, data: data.to_vec() });
        }
        Ok(())
    });
    (packets, end)
}

/// Whether the packets of each flow are in the same order as in another capture of the same IPv4 packets; flows may have
/// overtaken each other.
#[must_use]
pub fn same_by_flow(one: &[Packet], other: &[Packet]) -> bool {
    // Source and destination address, and ports.
    let flow = |p: &Packet| p.data.get(26..38).map(<[u8]>::to_vec);
    let by_flow = |all: &[Packet]| {
        let mut flows = std::collections::HashMap::<_, Vec<Packet>>::new();
        all.iter().for_each(|p| flows.entry(flow(p)).or_default().push(p.clone()));
        flows
    };
    by_flow(one) == by_flow(other)
}

/// Writes a capture of `count` UDP packets of `flows` flows, no two of them alike, and returns them.
///
/// # Panics
/// When it cannot be written.
pub fn made_capture(path: &Path, count: u32, flows: u32) -> Vec<Packet> {
    let mut dice = Dice::from_seed(u64::from(count) << 32 | u64::from(flows));
    let mut writer = Writer::create(path).unwrap_or_else(|e| panic!("{e}"));
    writer.add_interface(LinkType::Ethernet, "made").unwrap_or_else(|e| panic!("{e}"));
    let mut packets = Vec::new();
    for number in 0..count {
        let data = udp_packet(number, number % flows, &mut dice);
        let packet = Packet {
            timestamp_ns: 1_700_000_000_000_000_000 + u64::from(number) * 1000,
            wire_length: u32::try_from(data.len()).unwrap_or(0),
            data,
        };
        let frame = Frame {
            timestamp_ns: packet.timestamp_ns,
            original_len: packet.wire_length,
            link_type: LinkType::Ethernet,
            interface: 0,
            data: &packet.data,
        };
        writer.write_frame(&frame).unwrap_or_else(|e| panic!("{e}"));
        packets.push(packet);
    }
    writer.finish().unwrap_or_else(|e| panic!("{e}"));
    packets
}

/// A UDP packet over IPv4 that carries its number and random bytes.
fn udp_packet(number: u32, flow: u32, dice: &mut Dice) -> Vec<u8> {
    let payload = 8 + dice.index(120);
    let (total, udp) = (u16::try_from(28 + payload).unwrap_or(0), u16::try_from(8 + payload).unwrap_or(0));
    let flow_low = u16::try_from(flow % 50_000).unwrap_or(0);
    let mut p = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0];
    p.extend(total.to_be_bytes());
    p.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 1]);
    p.extend(flow_low.to_be_bytes());
    p.extend([172, 16, 0, 1]);
    let sum = onvm_lib::wire::checksum::internet(&p[14..34]);
    p[24..26].copy_from_slice(&sum.to_be_bytes());
    p.extend((1024 + flow_low).to_be_bytes());
    p.extend(2000u16.to_be_bytes());
    p.extend(udp.to_be_bytes());
    p.extend([0, 0]);
    p.extend(number.to_be_bytes());
    p.extend(flow.to_be_bytes());
    p.extend((8..payload).map(|_| u8::try_from(dice.below(256)).unwrap_or(0)));
    p
}

/// Writes frames a millisecond apart.
///
/// # Panics
/// When the file cannot be written.
pub fn write_capture(path: &Path, frames: &[Vec<u8>]) {
    let mut writer = Writer::create(path).unwrap();
    let interface = writer.add_interface(LinkType::Ethernet, "").unwrap();
    for (n, data) in (0u64..).zip(frames) {
        let frame = Frame {
            timestamp_ns: 1_700_000_000_000_000_000 + n * 1_000_000,
            original_len: u32::try_from(data.len()).unwrap(),
            link_type: LinkType::Ethernet,
            interface,
            data,
        };
        writer.write_frame(&frame).unwrap();
    }
    writer.finish().unwrap();
}
