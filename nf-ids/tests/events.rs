//! Events of decoder and streams against what Suricata says of the same captures.

mod material;

use std::collections::BTreeMap;

use nf_ids::engine::{Detection, Engine, Inspection, Judgement, Mode, Settings};
use nf_ids::{decode, stream};

/// Counts the packets that have an event.
#[derive(Debug, Default)]
struct Tally(BTreeMap<String, u64>);

impl Detection for Tally {
    type FlowState = ();

    fn wants_raw(&self) -> bool {
        true
    }

    fn inspect(&mut self, seen: &Inspection<'_>, _: Option<&mut ()>) -> Judgement {
        let names = seen.packet.events.iter().map(decode::Event::name);
        for name in names.chain(seen.stream_events.iter().map(stream::Event::name)) {
            *self.0.entry(name.to_string()).or_default() += 1;
        }
        Judgement::default()
    }
}

/// The event that a rule asks for and nothing else, and its number.
fn event_of(rule: &str) -> Option<(String, String)> {
    if rule.starts_with('#') || rule.contains("threshold") || rule.contains("requires:") {
        return None;
    }
    let option = |name: &str| {
        let rest = &rule[rule.find(name)? + name.len()..];
        Some(rest[..rest.find(';')?].trim().to_string())
    };
    let event = option("decode-event:").or_else(|| option("stream-event:"))?;
    Some((event, option("sid:")?))
}

#[test]
fn events_are_those_that_suricata_tells() {
    let Some(root) = material::folder("ids") else { return };
    let (mut wrong, mut asked) = (Vec::new(), 0);
    for case in ["T3", "T4d"].iter().flat_map(|rung| material::folders(&root.join(rung))) {
        let rules = std::fs::read_to_string(case.join("test.rules")).unwrap();
        let expect: serde_json::Value =
            serde_json::from_slice(&std::fs::read(case.join("expect.json")).unwrap()).unwrap();
        let frames = material::frames(&case.join("input.pcap"));
        for mode in [Mode::Ids, Mode::Inline] {
            if mode == Mode::Inline && expect["same_inline"] != true {
                continue;
            }
            let mut settings = Settings::of(mode);
            settings.ignore_checksums = true;
            let mut engine = Engine::new(settings, Tally::default());
            for frame in &frames {
                engine.packet(&frame.data, frame.time_ns);
            }
            engine.finish();
            for (event, sid) in rules.lines().filter_map(event_of) {
                let alerts = expect["alerts"].as_array().unwrap();
                let expected =
                    alerts.iter().filter(|alert| alert["sid"].as_u64() == sid.parse().ok()).count() as u64;
                let found = engine.detection.0.get(&event).copied().unwrap_or(0);
                asked += 1;
                if found != expected {
                    let all = &engine.detection.0;
                    wrong.push(format!(
                        "{} {mode:?} {event}: {found}, {expected} expected; {all:?}",
                        case.display()
                    ));
                }
            }
        }
    }
    assert!(asked > 0 && wrong.is_empty(), "of {asked}:\n{}", wrong.join("\n"));
}
