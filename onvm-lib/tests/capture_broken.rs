//! Captures that are damaged, foreign, or not there: each has its own error, after all whole frames.

mod capture_made;

use std::io::{self, Read};

use capture_made::{BIG, LITTLE, drain, pcap, pcap_record, pcapng};
use onvm_lib::capture::{BlockFault, Error, LinkType, Reader};
use proptest::prelude::*;

fn open(bytes: Vec<u8>) -> Result<Reader, Error> {
    Reader::new(io::Cursor::new(bytes), "test")
}

#[test]
fn a_cut_file_delivers_what_is_whole_and_then_says_where() {
    let mut file = pcap(LITTLE, 0xa1b2_c3d4, 1);
    file.extend(pcap_record(LITTLE, 1, 2, b"whole", 5));
    let whole = file.len();
    file.extend(pcap_record(LITTLE, 3, 4, b"cut off", 7));
    for end in whole + 1..file.len() {
        let mut reader = open(file[..end].to_vec()).unwrap();
        assert_eq!(reader.next_frame().unwrap().unwrap().data, b"whole");
        let error = reader.next_frame().unwrap_err();
        assert!(error.is_cut());
        let Error::Cut { frame: 2, offset, wanted, got, .. } = error else { panic!("{error}") };
        assert_eq!((offset, got), (whole as u64, (end - whole) as u64));
        assert_eq!(wanted, if end < whole + 16 { 16 } else { 23 });
        assert!(reader.next_frame().unwrap().is_none(), "after an error there are no more frames");
    }
    assert_eq!(drain(open(file[..whole].to_vec()).unwrap()).0.len(), 1);
}

#[test]
fn a_cut_pcapng_delivers_what_is_whole_and_then_says_where() {
    let mut made = pcapng(LITTLE);
    made.interface(1, 0, &[]).enhanced(0, 1, b"whole", 5);
    let whole = made.bytes.len();
    made.block(0xbad, &[0; 40]).enhanced(0, 2, b"cut", 3);
    for end in whole + 1..made.bytes.len() {
        let (frames, error) = drain(open(made.bytes[..end].to_vec()).unwrap());
        assert_eq!(frames.len(), 1);
        match error {
            Some(Error::Cut { frame: 2, offset, wanted, got, .. }) => {
                assert_eq!(offset + got, end as u64);
                assert!(got < wanted);
            }
            // The cut fell between two blocks.
            None => assert_eq!(end, whole + 52),
            Some(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_header_that_is_cut_or_missing_is_told_apart_from_other_files() {
    for file in [pcap(BIG, 0xa1b2_3c4d, 1), pcapng(BIG).bytes] {
        for end in 4..file.len() {
            let error = open(file[..end].to_vec()).unwrap_err();
            assert!(matches!(error, Error::CutHeader { got, .. } if got == end), "{error}");
        }
    }
    assert!(matches!(open(vec![]), Err(Error::Empty { .. })));
    let cases: [(&[u8], &str); 5] = [
        (&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0], "1f 8b 08 00 00 00 00 00: gzip compressed: gunzip it first"),
        (&[0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3, 4], "zstd"),
        (b"snoop\0\0\0\0\0\0\x02", "snoop"),
        (b"#!/bin/sh\n", "23 21 2f 62 69 6e 2f 73: no capture"),
        (b"ab", "starts with bytes 61 62: no capture"),
    ];
    for (bytes, message) in cases {
        let error = open(bytes.to_vec()).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
    let mut old = pcap(LITTLE, 0xa1b2_c3d4, 1);
    old[4] = 1;
    assert!(matches!(open(old), Err(Error::Version { major: 1, minor: 4, .. })));
}

#[test]
fn paths_that_cannot_be_read_say_why() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Reader::open(folder.path()), Err(Error::Directory { .. })));
    let missing = folder.path().join("missing.pcap");
    let error = Reader::open(&missing).unwrap_err();
    assert!(error.to_string().contains("missing.pcap: cannot open: No such file"), "{error}");
}

#[test]
fn only_a_regular_file_is_read_again() {
    let mut file = pcap(LITTLE, 0xa1b2_c3d4, 1);
    // Both a file that fits into the buffer and one that does not.
    for records in [3_u32, 20_000] {
        for number in 0..records {
            file.extend(pcap_record(LITTLE, number, 0, &[7; 60], 60));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loop.pcap");
        std::fs::write(&path, &file).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        let mut first = 0_u64;
        for round in 0..3 {
            let mut frames = 0;
            while let Some(frame) = reader.next_frame().unwrap() {
                assert_eq!(frame.data, [7; 60]);
                frames += 1;
            }
            if round == 0 {
                first = frames;
            }
            assert_eq!((frames, reader.frames()), (first, first));
            reader.rewind().unwrap();
        }
        let mut stream = open(file.clone()).unwrap();
        let error = stream.rewind().unwrap_err();
        assert!(error.to_string().contains("needs a regular file"), "{error}");
        assert!(stream.next_frame().unwrap().is_some(), "a refusal must not disturb reading");
    }
}

#[test]
fn lengths_that_cannot_be_true_are_errors() {
    let mut file = pcap(LITTLE, 0xa1b2_c3d4, 1);
    let mut record = pcap_record(LITTLE, 1, 2, b"x", 1);
    record[8..12].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
    file.extend(record);
    let (_, error) = drain(open(file).unwrap());
    assert!(matches!(error, Some(Error::Oversized { frame: 1, offset: 24, captured: 0xffff_fff0, .. })));

    let fault = |change: fn(&mut [u8])| {
        let mut made = pcapng(BIG);
        made.interface(1, 0, &[]).enhanced(0, 1, b"abc", 3);
        let start = made.bytes.len() - 36;
        let mut block = made.bytes.split_off(start);
        change(&mut block);
        made.bytes.extend(block);
        match drain(open(made.bytes).unwrap()).1 {
            Some(Error::BadBlock { frame: 1, offset, fault, .. }) if offset == start as u64 => fault,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        fault(|block| block[4..8].copy_from_slice(&35_u32.to_be_bytes())),
        BlockFault::Length { length: 35, least: 32 }
    );
    assert_eq!(
        fault(|block| block[4..8].copy_from_slice(&0x7fff_fff0_u32.to_be_bytes())),
        BlockFault::TooLong { length: 0x7fff_fff0, limit: 512 * 1024 }
    );
    assert_eq!(
        fault(|block| block[32..36].copy_from_slice(&40_u32.to_be_bytes())),
        BlockFault::Trailer { length: 36, trailer: 40 }
    );
    assert_eq!(
        fault(|block| block[20..24].copy_from_slice(&5_u32.to_be_bytes())),
        BlockFault::Captured { captured: 5, room: 4 }
    );
    assert_eq!(
        fault(|block| block[8..12].copy_from_slice(&1_u32.to_be_bytes())),
        BlockFault::Interface { interface: 1, interfaces: 1 }
    );
}

#[test]
fn an_unsupported_link_type_is_named_only_when_a_frame_has_it() {
    let mut made = pcapng(LITTLE);
    made.interface(127, 0, &[]).interface(1, 0, &[]).enhanced(1, 1, b"first", 5);
    made.enhanced(0, 2, b"radio", 5).enhanced(1, 3, b"third", 5);
    let mut reader = open(made.bytes).unwrap();
    assert_eq!(reader.next_frame().unwrap().unwrap().data, b"first");
    let error = reader.next_frame().unwrap_err();
    assert!(
        error.to_string().contains("frame 2: interface 0 has link type 127 (IEEE802_11_RADIOTAP)"),
        "{error}"
    );
    let third = reader.next_frame().unwrap().unwrap();
    assert_eq!((third.data, third.link_type), (&b"third"[..], LinkType::Ethernet));
    assert_eq!(reader.frames(), 3);
}

/// Gives one byte at a time, with an interruption before each.
struct Trickle(io::Cursor<Vec<u8>>, bool);

impl Read for Trickle {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 { Err(io::ErrorKind::Interrupted.into()) } else { self.0.read(&mut out[..1]) }
    }
}

#[test]
fn a_stream_that_trickles_is_read_like_any_other() {
    let mut file = pcap(LITTLE, 0xa1b2_c3d4, 1);
    file.extend(pcap_record(LITTLE, 1, 2, b"slowly", 6));
    let (frames, error) = drain(Reader::new(Trickle(io::Cursor::new(file), false), "slow").unwrap());
    assert_eq!((frames.len(), error.is_none()), (1, true));
}

#[test]
fn a_read_error_names_file_and_offset() {
    struct Failing(bool);
    impl Read for Failing {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.0 = !self.0;
            if !self.0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let header = pcap(LITTLE, 0xa1b2_c3d4, 1);
            out[..24].copy_from_slice(&header);
            Ok(24)
        }
    }
    let (_, error) = drain(Reader::new(Failing(false), "disk").unwrap());
    assert!(error.unwrap().to_string().starts_with("disk: reading at byte 24 failed"));
}

fn valid_file() -> Vec<u8> {
    let mut made = pcapng(LITTLE);
    made.interface(1, 96, &[(9, vec![9]), (14, vec![1, 0, 0, 0, 0, 0, 0, 0])]);
    made.enhanced(0, 1, b"abc", 3).simple(b"defg", 4).block(0xbad, &[1; 8]).obsolete(0, 5, b"hi", 2);
    made.bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_never_panic(
        start in prop_oneof![
            Just(vec![]), Just(valid_file()), Just(pcap(LITTLE, 0xa1b2_c3d4, 1)), Just(pcap(BIG, 0xa1b2_3c4d, 276)),
        ],
        rest in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        if let Ok(reader) = open([start, rest].concat()) {
            drain(reader);
        }
    }

    #[test]
    fn changed_bytes_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut pcap_file = pcap(BIG, 0xa1b2_3c4d, 1);
        pcap_file.extend(pcap_record(BIG, 1, 2, b"abcdef", 6));
        for mut file in [valid_file(), pcap_file] {
            for (place, value) in &changes {
                let place = place.index(file.len());
                file[place] = *value;
            }
            if let Ok(reader) = open(file) {
                drain(reader);
            }
        }
    }
}
