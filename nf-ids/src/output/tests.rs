//! Lines are what tools expect, and writing survives what disks and pipes do.

use super::*;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Mutex};

fn record() -> Record<'static> {
    let metadata: &'static [(String, String)] = Box::leak(Box::new([
        ("tag".to_string(), "a".to_string()),
        ("tag".to_string(), "b".to_string()),
        ("created_at".to_string(), "2026".to_string()),
    ]));
    let (source, destination) = ([10, 0, 0, 1].into(), [192, 168, 0, 1].into());
    let mut record = Record::new(Kind::Alert, 1_600_000_000_123_456_789, source, destination, 6);
    record.source_port = Some(80);
    record.destination_port = Some(1234);
    record.flow_id = Some(77);
    record.to_server = Some(false);
    record.app_protocol = Some("http");
    record.transaction = Some(3);
    record.flow = Some(Flow { packets: [1, 2], bytes: [100, 200], ..Flow::default() });
    record.matched = Some(Matched {
        done: Done::Blocked,
        gid: 1,
        sid: 2_100_498,
        rev: 7,
        message: "a \"quoted\" message",
        category: "Bad Traffic",
        severity: 2,
        metadata,
    });
    record
}

#[test]
fn eve_has_the_fields_that_tools_read() {
    let value: Value = serde_json::from_str(&eve::line(&record())).unwrap();
    let time = value["timestamp"].as_str().unwrap();
    assert_eq!(&time[19..26], ".123456");
    assert!(matches!(&time[26..27], "+" | "-") && time.len() == 31, "{time}");
    assert_eq!(value["event_type"], "alert");
    assert_eq!((&value["src_ip"], &value["dest_port"]), (&"10.0.0.1".into(), &1234.into()));
    assert_eq!((&value["proto"], &value["flow_id"], &value["tx_id"]), (&"TCP".into(), &77.into(), &3.into()));
    assert_eq!(value["direction"], "to_client");
    let alert = &value["alert"];
    assert_eq!(alert["action"], "blocked");
    assert_eq!(alert["signature_id"], 2_100_498);
    assert_eq!(alert["signature"], "a \"quoted\" message");
    assert_eq!(alert["metadata"]["tag"], serde_json::json!(["a", "b"]));
    assert_eq!(value["flow"]["pkts_toclient"], 2);
    assert_eq!(value["flow"]["src_ip"], "192.168.0.1", "the client");
    assert_eq!(value["flow"]["dest_port"], 80);
}

#[test]
fn all_of_http_stands_in_one_place() {
    let mut record = record();
    let mut fields = Map::new();
    fields.insert("url".into(), "/dns-query".into());
    fields.insert("dns".into(), serde_json::json!({"type": "request"}));
    record.metadata = Some(("doh2", fields));
    let value: Value = serde_json::from_str(&eve::line(&record)).unwrap();
    assert_eq!(value["http"], serde_json::json!({"url": "/dns-query"}));
    assert_eq!(value["dns"]["type"], "request");
    assert_eq!(Kind::of_protocol("http2"), Kind::Http);
    assert_eq!(Kind::of_protocol("ftp"), Kind::Other("ftp"));
}

#[test]
fn fast_lines_are_for_people() {
    let line = fast::line(&record()).unwrap();
    let rest = line.split_once("  ").unwrap().1;
    assert_eq!(
        rest,
        "[Drop] [**] [1:2100498:7] a \"quoted\" message [**] [Classification: Bad Traffic] [Priority: 2] {TCP} 10.0.0.1:80 -> 192.168.0.1:1234"
    );
    let mut other = record();
    other.protocol = 253;
    assert!(fast::line(&other).unwrap().contains("{PROTO:253} 10.0.0.1"));
    other.matched = None;
    assert_eq!(fast::line(&other), None);
}

#[test]
fn event_types_are_read_and_refused() {
    assert!(Kinds::default().has(Kind::Alert) && !Kinds::default().has(Kind::Http));
    let kinds = Kinds::parse("alert, http").unwrap();
    assert!(kinds.has(Kind::Http) && !kinds.has(Kind::Dns) && !kinds.has(Kind::Other("ftp")));
    assert!(Kinds::parse("all").unwrap().has(Kind::Other("ftp")));
    assert!(Kinds::parse("htpt").unwrap_err().contains("\"htpt\" is none of all, alert, http"));
}

/// A disk that is full as long as it is told to be.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<(Vec<u8>, Option<ErrorKind>)>>);

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (kept, error) = &mut *self.0.lock().unwrap();
        if let Some(kind) = *error {
            return Err(kind.into());
        }
        let count = bytes.len().min(1000);
        kept.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_costs_lines_but_never_half_of_one() {
    let disk = Disk::default();
    let mut writer = Writer::to(Box::new(disk.clone()), "disk");
    let line = "x".repeat(99);
    for _ in 0..1000 {
        writer.line(&line);
    }
    disk.0.lock().unwrap().1 = Some(ErrorKind::StorageFull);
    for _ in 0..20_000 {
        writer.line(&line);
    }
    assert!(writer.lost() > 5_000, "{}", writer.lost());
    disk.0.lock().unwrap().1 = None;
    writer.flush();
    writer.line(&line);
    writer.flush();
    let written = disk.0.lock().unwrap().0.clone();
    assert_eq!(written.len() % 100, 0);
    assert_eq!(written.len() as u64 / 100 + writer.lost(), 21_001);
}

#[test]
fn a_broken_pipe_is_given_up() {
    let disk = Disk::default();
    disk.0.lock().unwrap().1 = Some(ErrorKind::BrokenPipe);
    let mut writer = Writer::to(Box::new(disk), "pipe");
    writer.line("one");
    writer.flush();
    writer.line("two");
    assert_eq!(writer.lost(), 2);
}

#[test]
fn a_file_that_was_moved_away_is_opened_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("eve.json"), folder.path().join("eve.json.1"));
    let mut writer = Writer::open(Target::File(path.clone())).unwrap();
    writer.line("one");
    writer.flush();
    std::fs::rename(&path, &moved).unwrap();
    writer.line("two");
    writer.reopen().unwrap();
    writer.line("three");
    drop(writer);
    assert_eq!(std::fs::read_to_string(moved).unwrap(), "one\ntwo\n");
    assert_eq!(std::fs::read_to_string(path).unwrap(), "three\n");
    let error = Writer::open(Target::File("/nowhere/eve.json".into())).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/eve.json: "), "{error}");
}

#[test]
fn a_pipe_that_nobody_reads_costs_lines_and_no_time() {
    use std::io::Read;
    let (mut reader, pipe) = std::io::pipe().unwrap();
    let mut writer = Writer::to(Box::new(super::beside::Beside::start(Box::new(pipe)).unwrap()), "a pipe");
    let line = "x".repeat(1000);
    // Without the thread the first 64 KiB would be the last.
    for _ in 0..5000 {
        writer.line(&line);
    }
    writer.flush();
    let lost = writer.lost();
    assert!(lost > 0, "5 MB have no room anywhere");
    let read = std::thread::spawn(move || {
        let mut all = String::new();
        reader.read_to_string(&mut all).unwrap();
        all.lines().count() as u64
    });
    // What waits is written as soon as somebody reads.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while writer.waiting() > 0 && std::time::Instant::now() < until {
        writer.flush();
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    drop(writer);
    assert_eq!(read.join().unwrap() + lost, 5000);
}
