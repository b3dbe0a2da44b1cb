//! Lines for finished flows, and the live table on a terminal.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;

fn sample() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/sample.pcap").display().to_string()
}

fn command(options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nf-monitor"));
    command.args(["--replay", &sample()]).args(options);
    command
}

fn run(options: &[&str]) -> Output {
    command(options).output().unwrap()
}

fn report(done: &Output) -> Value {
    let text = [&done.stdout[..], &done.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    let is_report = |line: &&str| line.contains("\"nf\":\"nf-monitor\"");
    let line = text.lines().find(is_report).unwrap_or_else(|| panic!("no report in {text}"));
    serde_json::from_str::<Value>(line).unwrap()["report"].take()
}

const FIELDS: &str = "start_ns,end_ns,src,src_port,dst,dst_port,protocol,packets,bytes,octets,back_packets,back_bytes,\
                      back_octets,tcp_flags,back_tcp_flags,application,application_by,vlan,tos,end_reason";

/// A line of CSV as a line of JSON has it.
fn fields(line: &str) -> Vec<String> {
    line.split(',').map(String::from).collect()
}

#[test]
fn json_lines_and_csv_say_the_same_of_every_flow() {
    let folder = tempfile::tempdir().unwrap();
    let csv = folder.path().join("flows.csv");
    let done = run(&["--json", "--json-lines", "-", "--csv", csv.to_str().unwrap()]);
    let report = report(&done);
    let csv = std::fs::read_to_string(csv).unwrap();
    let mut rows = csv.lines();
    assert_eq!(rows.next(), Some(FIELDS));
    let (mut flows, mut packets, mut bytes) = (0, 0, 0);
    let json = String::from_utf8(done.stdout).unwrap();
    for (line, row) in json.lines().zip(rows.by_ref()) {
        let object: Value = serde_json::from_str(line).unwrap();
        let object = object.as_object().unwrap();
        assert_eq!(object.len(), 20);
        for (name, said) in FIELDS.split(',').zip(fields(row)) {
            let expected = match &object[name] {
                Value::Null => String::new(),
                Value::String(word) => word.clone(),
                other => other.to_string(),
            };
            assert_eq!(said, expected, "{name} in {row}");
        }
        let n = |name: &str| object[name].as_u64().unwrap();
        flows += 1;
        packets += n("packets") + n("back_packets");
        bytes += n("bytes") + n("back_bytes");
    }
    assert_eq!((rows.next(), json.lines().count()), (None, flows));
    assert_eq!((Some(packets), Some(bytes)), (report["packets"].as_u64(), report["bytes"].as_u64()));
    assert_eq!(report["flows"]["seen"], flows);
    let outputs = report["records"]["outputs"].as_array().unwrap();
    assert_eq!(outputs.len(), 2);
    assert!(outputs.iter().all(|output| output["records"] == flows && output["lost"] == 0), "{outputs:?}");
    // The sample's web server, its name service, and its echo, by what they say and by their ports.
    for (application, by) in [("http", "payload"), ("dns", "payload")] {
        let found = format!("\"application\":\"{application}\",\"application_by\":\"{by}\"");
        assert!(json.contains(&found), "no {found}");
    }
    let shares = report["applications"].as_array().unwrap();
    let sum: u64 = shares.iter().map(|share| share["packets"].as_u64().unwrap()).sum();
    assert_eq!(sum, packets);
}

#[test]
fn a_full_disk_is_said_once_and_counted() {
    let done = run(&["--json", "--csv", "/dev/full", "--export", "file:/dev/full"]);
    assert!(done.status.success());
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(said.matches("cannot be written any more: No space left").count(), 2, "{said}");
    let report = report(&done);
    for output in report["records"]["outputs"].as_array().unwrap() {
        assert_eq!(output["records"], 0, "{output}");
        assert!(output["lost"].as_u64() >= report["flows"]["seen"].as_u64(), "{output}");
        assert!(output["error"].as_str().unwrap().contains("No space left"), "{output}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_end() {
    let mut child = command(&["--json", "--json-lines", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It leaves before anything is written.
    drop(child.stdout.take());
    let done = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success() && said.contains("- cannot be written any more: Broken pipe"), "{said}");
    let output = report(&done)["records"]["outputs"][0].take();
    assert_eq!(output["records"], 0, "{output}");
}

/// What a monitor draws while its capture, a pipe, stands still: on a terminal of so many rows and columns, or none.
fn live(terminal: Option<(u16, u16)>) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nf-monitor"));
    command.args(["--replay", "-", "--live"]).stdin(Stdio::piped());
    let (mut child, mut drawn): (_, Box<dyn Read>) = match terminal {
        Some((ws_row, ws_col)) => {
            let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
            grantpt(&master).unwrap();
            unlockpt(&master).unwrap();
            let name = ptsname(&master, Vec::new()).unwrap();
            let slave = std::fs::File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
            tcsetwinsize(&slave, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
            (command.stdout(slave).spawn().unwrap(), Box::new(std::fs::File::from(master)))
        }
        None => {
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            let out = child.stdout.take().unwrap();
            (child, Box::new(out))
        }
    };
    // The command holds the slave's other end.
    drop(command);
    let mut input = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || {
        use std::io::Write;
        let capture = std::fs::read(sample()).unwrap();
        // Ticks come with packets, so it is fed a little at a time, for longer than an interval; and little of it fits into
        // the pipe before it reads.
        for chunk in capture.chunks(capture.len() / 50) {
            if input.write_all(chunk).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let mut text = Vec::new();
    let mut part = [0; 4096];
    // A terminal whose other end is gone gives an error, not an end.
    while let Ok(n @ 1..) = drawn.read(&mut part) {
        text.extend(&part[..n]);
    }
    feeder.join().unwrap();
    assert!(child.wait().unwrap().success());
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn live_is_drawn_over_itself_on_a_terminal() {
    let drawn = live(Some((12, 60)));
    let screens: Vec<&str> = drawn.split("\x1b[H").skip(1).collect();
    assert!(!screens.is_empty(), "{drawn:?}");
    for screen in &screens {
        // What follows the last screen is the report.
        let shown = screen.split("\x1b[J").next().unwrap().replace("\x1b[K", "");
        assert!(shown.lines().count() <= 11, "{shown}");
        assert!(shown.lines().all(|line| line.trim_end().chars().count() <= 60), "{shown}");
        assert!(shown.contains(" packets, ") && shown.contains("flows active"), "{shown}");
    }
}

#[test]
fn live_is_a_line_each_time_without_a_terminal() {
    let drawn = live(None);
    let lines: Vec<&str> = drawn.lines().take_while(|line| !line.starts_with("nf-monitor:")).collect();
    assert!(!lines.is_empty() && !drawn.contains('\x1b'), "{drawn}");
    assert!(lines.iter().all(|line| line.contains(" packets/s, ") && line.ends_with(" seen")), "{drawn}");
}
