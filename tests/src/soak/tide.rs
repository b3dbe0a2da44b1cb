//! Ebb and flood: traffic of which there is now more and now less, and a service that must grow and shrink with it.
//!
//! Nobody but the manager decides how many instances that service has. A capture that is replayed at its own pace brings
//! [`FLOOD`] packets a second for a while, each of which costs some 20 µs, and then [`EBB`]: more than one instance may be busy
//! with, and then less than one needs.

use std::path::Path;

use onvm_lib::capture::{Frame, LinkType, Writer};
use serde_json::Value;

/// The service.
pub(super) const TIDAL: &str = "tidal";
/// What it runs, and the bounds within which the manager chooses: 4,000 packets of 20 µs are 0.08 of a processor.
pub(super) const COMMAND: &str = "cost_nf --cycles 60000";
pub(super) const SCALE: &str = "scale: {min: 1, max: 2, target-load: 0.05}";
pub(super) const BOUNDS: std::ops::RangeInclusive<u32> = 1..=2;
/// Packets a second, and for how many seconds: long enough for what the manager needs to see before it acts, two seconds for
/// more instances and ten for fewer.
const FLOOD: (u64, u64) = (4000, 6);
const EBB: (u64, u64) = (100, 15);
/// Flows, so that each instance has some.
const FLOWS: u64 = 64;

/// Writes the capture.
///
/// # Errors
/// It cannot be written.
pub(super) fn capture(path: &Path) -> Result<(), String> {
    let write = || {
        let mut writer = Writer::create(path)?;
        let interface = writer.add_interface(LinkType::Ethernet, "tide")?;
        let (mut timestamp_ns, mut number) = (1_700_000_000_000_000_000, 0);
        for (rate, seconds) in [FLOOD, EBB] {
            for _ in 0..rate * seconds {
                let data = frame(number % FLOWS);
                let original_len = u32::try_from(data.len()).unwrap_or(0);
                let link_type = LinkType::Ethernet;
                writer.write_frame(&Frame {
                    timestamp_ns,
                    original_len,
                    link_type,
                    interface,
                    data: &data,
                })?;
                timestamp_ns += 1_000_000_000 / rate;
                number += 1;
            }
        }
        writer.finish()
    };
    write().map_err(|e: onvm_lib::capture::Error| e.to_string())
}

/// A UDP packet of a flow.
fn frame(flow: u64) -> Vec<u8> {
    let port = 1024 + u16::try_from(flow).unwrap_or(0);
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 7, 0, 1, 10, 7, 0, 2]);
    frame.extend(port.to_be_bytes());
    frame.extend([0, 53, 0, 26, 0, 0]);
    frame.resize(60, 0);
    frame
}

/// How often the manager gave the service more instances and fewer, because of what came for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tides {
    /// More.
    pub up: u64,
    /// Fewer.
    pub down: u64,
}

impl Tides {
    /// Looks at an event.
    pub(super) fn note(&mut self, event: &Value) {
        if event["event"] != "scaled" || event["by"] != "load" {
            return;
        }
        let why = event["why"].as_str().unwrap_or_default();
        let numbers: Vec<u32> = why.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        match numbers[..] {
            [now, before] if now > before => self.up += 1,
            [now, before] if now < before => self.down += 1,
            _ => {}
        }
    }

    /// Both were seen.
    pub(super) fn turned(self) -> bool {
        self.up > 0 && self.down > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_the_manager_does_by_itself_counts() {
        let mut tides = Tides::default();
        tides.note(&json!({"event": "scaled", "by": "load", "why": "2 instances instead of 1"}));
        tides.note(&json!({"event": "scaled", "by": "operator", "why": "1 instances instead of 2"}));
        assert_eq!((tides, tides.turned()), (Tides { up: 1, down: 0 }, false));
        tides.note(&json!({"event": "scaled", "by": "load", "why": "1 instances instead of 2"}));
        assert_eq!((tides, tides.turned()), (Tides { up: 1, down: 1 }, true));
    }

    #[test]
    fn the_capture_has_ebb_and_flood() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tide.pcap");
        capture(&path).unwrap();
        let packets = crate::read_capture(&path);
        let begin = packets[0].timestamp_ns;
        let in_second =
            |s: u64| packets.iter().filter(|p| (p.timestamp_ns - begin) / 1_000_000_000 == s).count();
        assert_eq!((in_second(0), in_second(5), in_second(6), in_second(20)), (4000, 4000, 100, 100));
        assert_eq!(in_second(21), 0);
    }
}
