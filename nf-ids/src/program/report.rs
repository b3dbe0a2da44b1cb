//! What the IDS says of its work.

use std::collections::BTreeMap;
use std::fmt::Write;

use onvm_lib::prelude::Report;
use serde_json::json;

use super::Ids;

/// Rules shown to people, those with most matches; machines get all that matched.
const SHOWN: usize = 40;

/// Matches of rules by generator and number, of this set and those before.
fn hits(ids: &Ids) -> BTreeMap<(u32, u32), u64> {
    let mut all = ids.before.clone();
    let detector = &ids.engine.detection.detector;
    for (rule, hits) in detector.tables().rules().zip(detector.hits()).filter(|(_, hits)| **hits > 0) {
        *all.entry((rule.gid, rule.sid)).or_default() += hits;
    }
    all
}

/// Counters, for machines.
pub(super) fn counters(ids: &Ids) -> serde_json::Value {
    let engine = &ids.engine;
    let (made, evicted) = engine.flows_made();
    let mut all = serde_json::to_value(engine.counts).unwrap_or_default();
    let more = json!({
        "flows": engine.flows(),
        "flows_made": made,
        "flows_evicted": evicted,
        "stream_bytes": engine.stream_memory(),
        "fragments": engine.fragments(),
        "alerts": engine.detection.sink.alerts,
        "alerts_discarded": engine.detection.detector.discarded,
        "lines_lost": engine.detection.sink.lost(),
        "answers": ids.counts.answers,
        "unanswered": ids.counts.unanswered,
    });
    if let (Some(all), Some(more)) = (all.as_object_mut(), more.as_object()) {
        all.extend(more.clone());
    }
    all
}

/// The report.
pub(super) fn of(ids: &Ids) -> Report {
    let engine = &ids.engine;
    let size = ids.rules.tables.size();
    let status = ids.reloaded();
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} rules in {} groups, {} not usable, set {} in force, {} reloads failed",
        size.rules, size.groups, ids.rules.refused, status.generation, status.failures
    );
    if let Some(error) = &status.last_error {
        let _ = writeln!(
            text,
            "the rule files are broken, the set before them stays in force:\n  {}",
            error.replace('\n', "\n  ")
        );
    }
    let counts = &engine.counts;
    let (made, evicted) = engine.flows_made();
    let _ = writeln!(
        text,
        "{} frames, {} packets inspected, {} with faulty headers, {} segments refused, {} with wrong checksums",
        counts.frames, counts.packets, counts.malformed, counts.refused, counts.bad_checksums
    );
    let _ = writeln!(
        text,
        "{} alerts, {} dropped, {} rejected, {} answers, {} rejected without one",
        engine.detection.sink.alerts,
        counts.dropped,
        counts.rejected,
        ids.counts.answers,
        ids.counts.unanswered
    );
    let _ = writeln!(
        text,
        "{made} flows, {} now, {evicted} made room, {} bytes of streams wait",
        engine.flows(),
        engine.stream_memory()
    );
    let lost = engine.detection.sink.lost();
    if lost > 0 {
        let _ = writeln!(text, "{lost} lines could not be written");
    }
    let all = hits(ids);
    let mut shown: Vec<(&(u32, u32), &u64)> = all.iter().collect();
    shown.sort_by_key(|(number, hits)| (std::cmp::Reverse(**hits), **number));
    let messages: BTreeMap<(u32, u32), &str> =
        ids.rules.tables.rules().map(|rule| ((rule.gid, rule.sid), rule.msg.as_str())).collect();
    for (number, hits) in shown.iter().take(SHOWN) {
        let message = messages.get(number).copied().unwrap_or_default();
        let _ = writeln!(text, "{hits:>12}  {}:{} {message}", number.0, number.1);
    }
    if shown.len() > SHOWN {
        let _ = writeln!(text, "{:>12}  further rules matched", shown.len() - SHOWN);
    }
    let rules: Vec<serde_json::Value> =
        all.iter().map(|((gid, sid), hits)| json!({ "gid": gid, "sid": sid, "hits": hits })).collect();
    let value = json!({
        "rules": size.rules,
        "groups": size.groups,
        "refused": ids.rules.refused,
        "reload": status,
        "counters": counters(ids),
        "hits": rules,
    });
    Report::new(text.trim_end().to_string(), &value)
}
