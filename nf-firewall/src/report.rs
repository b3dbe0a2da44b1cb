//! What the firewall says of its work.

use std::fmt::Write;

use onvm_lib::prelude::Report;
use serde_json::json;

use crate::counts::Hits;
use crate::firewall::Firewall;

/// Rules shown to people, those with most packets.
const SHOWN: usize = 40;
/// Rules told to machines while packets wait, those with most packets; at the end all that matched.
const TOLD: usize = 1000;

/// Connections by what they are.
type States = std::collections::BTreeMap<String, u64>;

/// The report.
pub(crate) fn of(firewall: &Firewall) -> Report {
    let compiled = &firewall.engine.compiled;
    let rules = &compiled.set.rules;
    let mut text = String::new();
    let status = firewall.reloaded();
    let generation = firewall.generation;
    let _ = writeln!(
        text,
        "{} rules ({} for the classifier), set {generation} in force, {} reloads failed",
        rules.len(),
        compiled.five_field_rules(),
        status.failures
    );
    let changes = &firewall.changes;
    if changes.made + changes.refused > 0 {
        let _ = writeln!(text, "{} rules changed by messages, {} refused", changes.made, changes.refused);
    }
    if let Some(error) = &changes.last_error {
        let _ = writeln!(text, "the last change was refused: {error}");
    }
    if let Some(error) = &status.last_error {
        let _ = writeln!(
            text,
            "the rule file is broken, the set before it stays in force:\n  {}",
            error.replace('\n', "\n  ")
        );
    }
    let mut hit: Vec<(usize, &Hits)> =
        firewall.hits.iter().enumerate().filter(|(_, hits)| hits.packets > 0).collect();
    let untold = if firewall.at_leisure { 0 } else { keep_most(&mut hit, TOLD) };
    let mut shown = hit.clone();
    let left_out = untold + keep_most(&mut shown, SHOWN);
    let states = firewall.tracking.then(|| firewall.connections.by_state(firewall.at_leisure));
    let states = states.unwrap_or_default();
    let _ = writeln!(text, "{:>14} {:>16} {:>10}  rule", "packets", "bytes", "limited");
    let mut row = |hits: &Hits, name: &str| {
        let Hits { packets, bytes, limited } = hits;
        let _ = writeln!(text, "{packets:>14} {bytes:>16} {limited:>10}  {name}");
    };
    for (index, hits) in &shown {
        if let Some(rule) = rules.get(*index) {
            let action = firewall.engine.compiled.set.told(rule.action);
            row(hits, &format!("{}: {action} (line {})", rule.name, rule.line));
        }
    }
    let (counts, set) = (&firewall.counts, &compiled.set);
    row(&counts.default, &format!("default: {}", set.default));
    for (hits, name, action) in [
        (&counts.non_ip, "no IP", set.non_ip),
        (&counts.malformed, "malformed", set.malformed),
        (&counts.stray, "fragments without their first", set.stray_fragments),
    ] {
        if hits.packets > 0 {
            row(hits, &format!("{name}: {action}"));
        }
    }
    if left_out > 0 {
        let _ = writeln!(text, "and {left_out} rules with fewer packets");
    }
    rest(firewall, &states, &mut text);
    let mut machine = machine(firewall, &hit, &states);
    if untold > 0 {
        machine["rules_left_out"] = untold.into();
    }
    Report::new(text.trim_end().to_string(), &machine)
}

/// Leaves the `most` rules with the most packets, in the order of the rules; how many others there were.
fn keep_most(rules: &mut Vec<(usize, &Hits)>, most: usize) -> usize {
    let others = rules.len().saturating_sub(most);
    if others > 0 {
        // Of equal ones the first.
        rules.select_nth_unstable_by_key(most, |(index, hits)| (std::cmp::Reverse(hits.packets), *index));
        rules.truncate(most);
    }
    rules.sort_unstable_by_key(|(index, _)| *index);
    others
}

/// Lines that are there only when there is something to say.
fn rest(firewall: &Firewall, states: &States, text: &mut String) {
    let cache = &firewall.engine.cache;
    if cache.hits + cache.misses > 0 {
        let rate = 100.0 * share(cache.hits, cache.hits + cache.misses);
        let size = cache.size();
        let _ =
            writeln!(text, "cache of {size} decisions: {rate:.1} % of {} asked", cache.hits + cache.misses);
    }
    let counts = &firewall.counts;
    if counts.rejected > 0 {
        let _ = writeln!(
            text,
            "{} rejected: {} answers, {} without",
            counts.rejected, counts.answers, counts.unanswered
        );
    }
    if firewall.tracking {
        let connections = &firewall.connections;
        let crate::connections::Counts { begun, expired, evicted, refused, invalid, related } =
            connections.counts;
        let _ = writeln!(
            text,
            "{} of {} connections: {begun} begun, {expired} expired, {evicted} evicted, {refused} refused; \
             {invalid} invalid packets, {related} related",
            connections.len(),
            connections.capacity()
        );
        let states: Vec<String> = states.iter().map(|(name, n)| format!("{n} {name}")).collect();
        if !states.is_empty() {
            let _ = writeln!(text, "  {}", states.join(", "));
        }
    }
    let fragments = &firewall.fragments;
    if fragments.followed + fragments.stray > 0 {
        let _ = writeln!(text, "{} fragments followed their first", fragments.followed);
    }
    let logging = &firewall.logging;
    if logging.lines > 0 {
        let (suppressed, lost, failed) = (logging.suppressed, logging.lost(), logging.failed());
        let _ = writeln!(
            text,
            "{} log lines, {suppressed} left out, {lost} lost to a slow reader, {failed} not written",
            logging.lines
        );
    }
}

#[allow(clippy::cast_precision_loss, reason = "a share for people")]
fn share(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 }
}

fn machine(firewall: &Firewall, hit: &[(usize, &Hits)], states: &States) -> serde_json::Value {
    let compiled = &firewall.engine.compiled;
    let rules: Vec<serde_json::Value> = hit
        .iter()
        .filter_map(|(index, hits)| {
            let rule = compiled.set.rules.get(*index)?;
            let Hits { packets, bytes, limited } = hits;
            Some(json!({
                "number": index + 1, "name": rule.name, "line": rule.line, "action": compiled.set.told(rule.action),
                "packets": packets, "bytes": bytes, "limited": limited,
            }))
        })
        .collect();
    let (counts, cache) = (&firewall.counts, &firewall.engine.cache);
    let status = firewall.reloaded();
    let connections = firewall.tracking.then(|| {
        let crate::connections::Counts { begun, expired, evicted, refused, invalid, related } =
            firewall.connections.counts;
        json!({
            "now": firewall.connections.len(), "most": firewall.connections.capacity(),
            "begun": begun, "expired": expired, "evicted": evicted, "refused": refused,
            "invalid": invalid, "related": related, "states": states,
        })
    });
    json!({
        "connections": connections,
        "rules": rules,
        "default": counts.default,
        "non_ip": counts.non_ip,
        "malformed": counts.malformed,
        "stray_fragments": counts.stray,
        "allowed": counts.allowed,
        "denied": counts.denied,
        "rejected": counts.rejected,
        "answers": counts.answers,
        "unanswered": counts.unanswered,
        "set": {
            "rules": compiled.set.rules.len(),
            "five_field_rules": compiled.five_field_rules(),
            "generation": firewall.generation,
            "failures": status.failures,
            "last_error": status.last_error,
        },
        "changes": firewall.changes,
        "cache": { "size": cache.size(), "hits": cache.hits, "misses": cache.misses, "rested": cache.rested, "rate": share(cache.hits, cache.hits + cache.misses) },
        "fragments": { "followed": firewall.fragments.followed, "stray": firewall.fragments.stray },
        "limited_addresses": firewall.engine.buckets.addresses(),
        "log": { "lines": firewall.logging.lines, "left_out": firewall.logging.suppressed, "lost": firewall.logging.lost(), "failed": firewall.logging.failed() },
    })
}
