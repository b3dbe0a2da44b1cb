//! Captures in and out: all of a folder's files, one file for tshark, and mutants of frames.

use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};

use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::PcapNgReader;
use pcap_file::pcapng::blocks::Block;

/// One captured frame.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) link: u32,
    pub(crate) bytes: Vec<u8>,
    /// Length on the wire, which may be more than was captured.
    pub(crate) wire_len: u32,
    pub(crate) origin: String,
    /// Counted from 1, as tshark does.
    pub(crate) number: usize,
}

impl Record {
    pub(crate) fn hex(&self) -> String {
        self.bytes.iter().take(140).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// All captures below `folder`, in a fixed order.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("folder of captures") {
        let path = entry.expect("entry of the folder").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "pcap" || e == "pcapng" || e == "cap") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The frames of a file, up to the first thing in it that cannot be read: some are broken on purpose.
pub(crate) fn read(path: &Path) -> Vec<Record> {
    let mut file = BufReader::new(File::open(path).expect("a capture"));
    let mut magic = [0; 4];
    file.read_exact(&mut magic).expect("a magic number");
    file.rewind().expect("a file");
    let origin = path.file_name().unwrap_or_default().to_string_lossy();
    let mut records = Vec::new();
    let mut push = |link: u32, bytes: &[u8], wire_len: u32| {
        let number = records.len() + 1;
        let wire_len = wire_len.max(u32::try_from(bytes.len()).expect("a frame"));
        records.push(Record { link, bytes: bytes.to_vec(), wire_len, origin: origin.to_string(), number });
    };
    if magic == [0x0a, 0x0d, 0x0d, 0x0a] {
        read_pcapng(file, &mut push);
    } else {
        let mut reader = PcapReader::new(file).expect("a pcap header");
        let link = u32::from(reader.header().datalink) & 0xffff;
        while let Some(Ok(packet)) = reader.next_raw_packet() {
            push(link, &packet.data, packet.orig_len);
        }
    }
    records
}

fn read_pcapng(file: BufReader<File>, push: &mut impl FnMut(u32, &[u8], u32)) {
    let mut reader = PcapNgReader::new(file).expect("a pcapng header");
    let mut links: Vec<u32> = Vec::new();
    while let Some(Ok(block)) = reader.next_block() {
        match block {
            Block::SectionHeader(_) => links.clear(),
            Block::InterfaceDescription(interface) => links.push(u32::from(interface.linktype)),
            Block::EnhancedPacket(packet) => {
                if let Some(link) = links.get(packet.interface_id as usize) {
                    push(*link, &packet.data, packet.original_len);
                }
            }
            Block::SimplePacket(packet) => {
                if let Some(link) = links.first() {
                    push(*link, &packet.data, packet.original_len);
                }
            }
            _ => {}
        }
    }
}

/// Writes a classic pcap file.
pub(crate) fn write(path: &Path, link: u32, records: &[Record]) {
    let mut out = std::io::BufWriter::new(File::create(path).expect("a temporary file"));
    let mut word = |value: u32| out.write_all(&value.to_le_bytes()).expect("room for a capture");
    [0xa1b2_c3d4, 0x0004_0002, 0, 0, 0x4_0000, link].into_iter().for_each(&mut word);
    for record in records {
        let len = u32::try_from(record.bytes.len()).expect("a frame");
        for value in [0, 0, len, record.wire_len] {
            out.write_all(&value.to_le_bytes()).expect("room for a capture");
        }
        out.write_all(&record.bytes).expect("room for a capture");
    }
    out.flush().expect("room for a capture");
}

/// An Ethernet II frame as it would look in a capture of another link type; `None` if it cannot be one.
pub(crate) fn relink(record: &Record, link: u32) -> Option<Record> {
    let (header, payload) = record.bytes.split_at_checked(14)?;
    let ethertype = [header[12], header[13]];
    if record.link != 1 || header[12] < 6 {
        return None;
    }
    let head: Vec<u8> = match link {
        101 if matches!(ethertype, [0x08, 0x00] | [0x86, 0xdd]) => Vec::new(),
        113 => [&[0, 0, 0, 1, 0, 6][..], &header[6..12], &[0, 0], &ethertype].concat(),
        276 => [&ethertype[..], &[0, 0, 0, 0, 0, 3, 0, 1, 0, 6], &header[6..12], &[0, 0]].concat(),
        _ => return None,
    };
    let bytes = [&head[..], payload].concat();
    let wire_len = record.wire_len.saturating_sub(14) + u32::try_from(head.len()).expect("a header");
    Some(Record { link, bytes, wire_len, origin: record.origin.clone(), number: record.number })
}

/// A frame spoilt in one of three ways: bytes changed, cut short, or both. The same each time.
pub(crate) fn mutate(record: &Record, kind: u32) -> Record {
    let mut seed = record.number as u64 ^ u64::from(kind) << 40;
    record.origin.bytes().for_each(|byte| seed = (seed ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let mut random = |below: usize| {
        // splitmix64
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        usize::try_from((mixed ^ (mixed >> 29)) >> 8).unwrap_or(0) % below.max(1)
    };
    let mut mutant = record.clone();
    mutant.origin = format!("{} (mutant {kind})", record.origin);
    if kind % 3 != 1 {
        for _ in 0..=random(3) {
            let at = random(record.bytes.len().min(90));
            if let Some(byte) = mutant.bytes.get_mut(at) {
                *byte = u8::try_from(random(256)).expect("a byte");
            }
        }
    }
    if !kind.is_multiple_of(3) {
        mutant.bytes.truncate(random(record.bytes.len().min(120)).max(1));
    }
    mutant
}
