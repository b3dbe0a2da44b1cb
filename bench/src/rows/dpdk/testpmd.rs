//! `dpdk-testpmd` as it is meant to be measured: io forwarding between two ports on one core.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use super::super::wires::Wires;
use crate::machine::cpu_time;
use crate::measure::Error;

const PROGRAM: &str = "dpdk-testpmd";

/// Whether it is installed.
pub(super) fn is_there() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(PROGRAM).is_file())
}

/// A running one; it ends with this.
pub(super) struct TestPmd {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl TestPmd {
    /// Starts it on processor 0 between two devices.
    pub(super) fn start(wires: Option<&Wires>, devices: &[String; 2]) -> Result<Self, Error> {
        let mut words: Vec<String> = wires.iter().flat_map(|wires| wires.enter()).map(String::from).collect();
        // Into a pipe it would keep its answers back.
        words.extend(["stdbuf", "-oL", PROGRAM].map(String::from));
        // The thread that forwards and the one that reads commands, which sleeps.
        words.extend(["--lcores=0@0,1@0", "--no-huge", "--no-shconf", "-m", "512"].map(String::from));
        words.extend(["--no-telemetry", "--no-pci", "--log-level=*:error"].map(String::from));
        words.extend(devices.iter().map(|device| format!("--vdev={device}")));
        words.extend(["--", "-i", "--forward-mode=io", "--nb-cores=1"].map(String::from));
        words.extend(["--total-num-mbufs=32768", "--burst=64"].map(String::from));
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::new("testpmd has no pipes"));
        };
        let mut peer = Self { child, input, output: BufReader::new(output) };
        peer.say("start")?;
        // It answers once it forwards.
        let _ = peer.look()?;
        Ok(peer)
    }

    fn say(&mut self, command: &str) -> Result<(), Error> {
        writeln!(self.input, "{command}")?;
        self.input.flush()?;
        Ok(())
    }

    /// Moment, processor time used, packets sent by both ports.
    pub(super) fn look(&mut self) -> Result<(Instant, Duration, u64), Error> {
        self.say("show port stats all")?;
        let (mut ports, mut packets) = (0, 0);
        let mut line = String::new();
        while ports < 2 {
            line.clear();
            if self.output.read_line(&mut line)? == 0 {
                return Err(Error::new("testpmd has ended: are its drivers installed, and is this root?"));
            }
            let count = line.split_once("TX-packets:").and_then(|(_, rest)| rest.split_whitespace().next());
            if let Some(count) = count {
                ports += 1;
                packets += count.parse::<u64>().map_err(|e| Error::new(format!("testpmd counts: {e}")))?;
            }
        }
        Ok((Instant::now(), cpu_time(self.child.id())?, packets))
    }
}

impl Drop for TestPmd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
