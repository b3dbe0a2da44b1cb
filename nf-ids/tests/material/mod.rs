//! Where captures made by others are, and how they are read.
#![allow(dead_code, reason = "each test uses a part")]

use std::path::{Path, PathBuf};

use onvm_lib::capture::{AsEthernet, Reader};

/// The folder of captures and cases, if it is there.
pub(crate) fn folder(name: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("ONVM_TEST_DATA").map_or(beside, PathBuf::from).join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: no ../shared/data/{name} and no ONVM_TEST_DATA");
    None
}

/// A frame of a capture, as Ethernet: what a replay gives to network functions.
pub(crate) struct Frame {
    pub(crate) data: Vec<u8>,
    pub(crate) time_ns: u64,
}

/// All frames of a capture, as far as it can be read.
pub(crate) fn frames(path: &Path) -> Vec<Frame> {
    let mut all = Vec::new();
    let Ok(mut reader) = Reader::open(path) else { return all };
    while let Ok(Some(frame)) = reader.next_frame() {
        let Some(ethernet) = AsEthernet::of(&frame) else { continue };
        let mut data = vec![0; ethernet.length()];
        ethernet.write(&mut data);
        all.push(Frame { data, time_ns: frame.timestamp_ns });
    }
    all
}

/// The folders in a folder, by name.
pub(crate) fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    all.sort();
    all
}

/// All files under a folder, by name.
pub(crate) fn files(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = entries
        .flat_map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { vec![entry.path()] })
        .collect();
    all.sort();
    all
}
