//! The alerts of real captures under real rules, against those that Suricata raises: each of every rung must be equal to the
//! tuple, in line too where Suricata's are the same. What does not pass yet is printed; a rung may not fall below its floor.

mod material;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use nf_ids::detect::{Alert, Detector, Sink, Tables, Watch};
use nf_ids::engine::{Engine, Inspection, Mode, Settings};
use nf_ids::rules::{Context, RuleSet};

/// Cases of each rung that passed when it was last raised.
const FLOORS: &[(&str, usize)] = &[
    ("T1", 12),
    ("T2", 12),
    ("T3", 17),
    ("T4", 9),
    ("T4d", 9),
    ("T5", 49),
    ("T5e", 43),
    ("T6", 18),
    ("T7", 57),
];

/// An alert as it is compared: rule, protocol, ends.
type Tuple = (u64, String, String, u64, String, u64);

#[derive(Debug, Default)]
struct Raised(Vec<Tuple>);

impl Sink for Raised {
    fn alert(&mut self, alert: &Alert, seen: &Inspection<'_>) {
        let packet = seen.packet;
        let protocol = match packet.protocol {
            None => "",
            Some(6) => "tcp",
            Some(17) => "udp",
            Some(1 | 58) => "icmp",
            Some(132) => "sctp",
            Some(44) => "frag",
            Some(47) => "gre",
            Some(2) => "igmp",
            Some(_) => "other",
        };
        let address =
            |ip: std::net::IpAddr| if packet.protocol.is_some() { ip.to_string() } else { String::new() };
        self.0.push((
            u64::from(alert.rule.sid),
            protocol.to_string(),
            address(packet.source),
            u64::from(packet.source_port),
            address(packet.destination),
            u64::from(packet.destination_port),
        ));
    }
}

/// The alerts that a case expects.
fn expected(expect: &serde_json::Value) -> Vec<Tuple> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_string();
    let address = |value: &serde_json::Value| {
        text(value).parse::<std::net::IpAddr>().map_or_else(|_| text(value), |address| address.to_string())
    };
    let alerts = expect["alerts"].as_array().into_iter().flatten();
    let mut all: Vec<Tuple> = alerts
        .map(|alert| {
            (
                alert["sid"].as_u64().unwrap_or(0),
                text(&alert["proto"]),
                address(&alert["src_ip"]),
                alert["src_port"].as_u64().unwrap_or(0),
                address(&alert["dest_ip"]),
                alert["dest_port"].as_u64().unwrap_or(0),
            )
        })
        .collect();
    all.sort();
    all
}

fn raised(tables: &Arc<Tables>, frames: &[material::Frame], mode: Mode) -> Vec<Tuple> {
    let mut settings = Settings::of(mode);
    settings.ignore_checksums = true;
    let watch = Watch::new(Detector::new(tables.clone()), Raised::default());
    let mut engine = Engine::new(settings, watch);
    for frame in frames {
        engine.packet(&frame.data, frame.time_ns);
    }
    engine.finish();
    let mut all = engine.detection.sink.0;
    all.sort();
    all
}

/// What of one list is missing in the other, counted.
fn difference(expected: &[Tuple], found: &[Tuple]) -> String {
    let mut counts: BTreeMap<&Tuple, i64> = BTreeMap::new();
    for tuple in expected {
        *counts.entry(tuple).or_default() -= 1;
    }
    for tuple in found {
        *counts.entry(tuple).or_default() += 1;
    }
    let wrong = counts.iter().filter(|(_, count)| **count != 0);
    let lines: Vec<String> = wrong
        .take(4)
        .map(|((sid, protocol, from, port, to, other), count)| {
            format!("{count:+} sid {sid} {protocol} {from}:{port} > {to}:{other}")
        })
        .collect();
    lines.join(", ")
}

/// What is wrong with a case; none if it passes.
fn judge(case: &Path) -> Option<String> {
    let expect: serde_json::Value =
        serde_json::from_slice(&std::fs::read(case.join("expect.json")).unwrap()).unwrap();
    let mut set = RuleSet::new(Context::default());
    set.add_file(&case.join("test.rules")).unwrap();
    let refused: Vec<String> = set.refusals.iter().map(|refusal| refusal.fault.to_string()).collect();
    let (tables, _) = Tables::new(set.rules);
    let tables = Arc::new(tables);
    let frames = material::frames(&case.join("input.pcap"));
    let expected = expected(&expect);
    for mode in [Mode::Ids, Mode::Inline] {
        if mode == Mode::Inline && expect["same_inline"] != true {
            continue;
        }
        let found = raised(&tables, &frames, mode);
        if found != expected {
            let refused = if refused.is_empty() {
                String::new()
            } else {
                format!("; refused: {}", refused.join(" | "))
            };
            return Some(format!("{mode:?}: {}{refused}", difference(&expected, &found)));
        }
    }
    None
}

#[test]
fn alerts_are_those_of_suricata() {
    let Some(root) = material::folder("ids") else { return };
    let only = std::env::var("ONVM_IDS_CASES").unwrap_or_default();
    let mut fallen = Vec::new();
    for (rung, floor) in FLOORS {
        let cases = material::folders(&root.join(rung));
        let mut passed = 0;
        for case in &cases {
            if !case.display().to_string().contains(&only) {
                continue;
            }
            match judge(case) {
                None => passed += 1,
                Some(wrong) => {
                    let name = case.file_name().unwrap_or_default().to_string_lossy();
                    println!("{rung}/{name}: {wrong}");
                }
            }
        }
        println!("{rung}: {passed} of {} ({} %)", cases.len(), passed * 100 / cases.len().max(1));
        if passed < *floor && only.is_empty() {
            fallen.push(format!("{rung}: {passed}, floor {floor}"));
        }
    }
    assert!(fallen.is_empty(), "{fallen:?}");
}
