//! tshark as an oracle: one run over a file, one row of field values a frame.

use std::process::{Command, Stdio};

use crate::capture::{self, Record};
use crate::fields::FIELDS;

/// What tshark says of one frame.
pub(crate) struct Row {
    pub(crate) protocols: String,
    /// The layer that it says is malformed, or cut short by the capture.
    pub(crate) doubts: String,
    pub(crate) expert: String,
    /// Values of [`FIELDS`], each in the order of its occurrences.
    pub(crate) values: Vec<Vec<String>>,
}

impl Row {
    /// The values of a field.
    pub(crate) fn get(&self, field: &str) -> &[String] {
        let at = FIELDS.iter().position(|name| *name == field);
        at.and_then(|at| self.values.get(at)).map_or(&[], Vec::as_slice)
    }

    /// Whether the dissection did not go through to the end.
    pub(crate) fn is_doubtful(&self) -> bool {
        !self.doubts.is_empty()
    }
}

pub(crate) fn is_installed() -> bool {
    let mut command = Command::new("tshark");
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Fields by packet, not by stream: nothing reassembled, nothing relative, nothing guessed.
const PREFERENCES: &[&str] = &[
    "ip.defragment:FALSE",
    "ipv6.defragment:FALSE",
    "tcp.desegment_tcp_streams:FALSE",
    "tcp.analyze_sequence_numbers:FALSE",
    "tcp.relative_sequence_numbers:FALSE",
    "tcp.check_checksum:FALSE",
    "ip.check_checksum:FALSE",
    "udp.check_checksum:FALSE",
];

/// Fields that say that the dissection ended early: in words, or by the expert's.
const DOUBTS: [&str; 4] = ["_ws.malformed", "_ws.short", "_ws.unreassembled", "_ws.expert.message"];
/// What the expert says of headers that contradict themselves; tshark reads no further then.
const BOGUS: [&str; 3] = ["Bogus", "Bad length value", "length is bogus"];

/// Runs tshark over the records as one file.
pub(crate) fn dissect(link: u32, records: &[Record]) -> Vec<Row> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("frames.pcap");
    capture::write(&path, link, records);
    let mut command = Command::new("tshark");
    command.arg("-n").arg("-r").arg(&path).args(["-T", "fields"]);
    command.args(["-E", "separator=/t", "-E", "occurrence=a", "-E", "aggregator=;"]);
    PREFERENCES.iter().for_each(|preference| {
        command.args(["-o", preference]);
    });
    command.args(["-e", "frame.protocols"]);
    DOUBTS.iter().chain(FIELDS).for_each(|field| {
        command.args(["-e", field]);
    });
    let output = command.output().expect("tshark runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tshark failed: {errors}");
    String::from_utf8_lossy(&output.stdout).lines().map(row).collect()
}

fn row(line: &str) -> Row {
    let mut cells = line.split('\t');
    let protocols = cells.next().unwrap_or_default().to_string();
    let doubts: String = cells.by_ref().take(DOUBTS.len() - 1).collect();
    let expert = cells.next().unwrap_or_default();
    let doubts = if BOGUS.iter().any(|word| expert.contains(word)) { doubts + expert } else { doubts };
    let split = |cell: &str| cell.split(';').filter(|v| !v.is_empty()).map(str::to_string).collect();
    let mut values: Vec<Vec<String>> = cells.map(split).collect();
    values.resize(FIELDS.len(), Vec::new());
    Row { protocols, doubts, expert: expert.to_string(), values }
}
