//! Holds the module's reasons for an own reader to account: these are the cases in which the crate
//! `pcap-file` 2.0 goes wrong. When one of these tests fails, look again whether the crate will do.

mod capture_made;

use std::io;
use std::time::Duration;

use capture_made::{LITTLE, drain, pcap, pcap_record, pcapng};
use onvm_lib::capture::Reader;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};

#[test]
fn a_frame_cut_by_the_snap_length_is_refused() {
    let mut file = pcap(LITTLE, 0xa1b2_c3d4, 1);
    file.extend(pcap_record(LITTLE, 1, 2, &[0; 96], 1500));
    assert!(PcapReader::new(&file[..]).unwrap().next_packet().unwrap().is_err());
    let (frames, error) = drain(Reader::new(io::Cursor::new(file), "test").unwrap());
    assert_eq!((frames[0].data.len(), frames[0].original_len, error.is_none()), (96, 1500, true));
}

#[test]
fn a_microsecond_of_pcapng_is_taken_for_a_nanosecond() {
    let mut made = pcapng(LITTLE);
    made.interface(1, 0, &[]).enhanced(0, 5_000_000, b"five seconds", 12);
    let mut theirs = PcapNgReader::new(&made.bytes[..]).unwrap();
    let time = loop {
        if let Block::EnhancedPacket(packet) = theirs.next_block().unwrap().unwrap() {
            break packet.timestamp;
        }
    };
    assert_eq!(time, Duration::from_millis(5));
    let (frames, _) = drain(Reader::new(io::Cursor::new(made.bytes), "test").unwrap());
    assert_eq!(frames[0].timestamp_ns, 5_000_000_000);
}
