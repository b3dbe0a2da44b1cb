//! `--explain`: which rule decides on a packet, why, and which earlier ones nearly did.

mod described;
mod question;

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::json;

use super::{failed, print};
use crate::engine::checks::{Checks, Facts};
use crate::engine::{Compiled, DEFAULT};
use crate::options::Options;
use crate::rules::load::load;
use crate::rules::rate::Over;
use crate::rules::{Action, Rule};
use described::Described;

/// Earlier rules that are told, those that failed on least.
const NEARLY: usize = 5;
/// Conditions on which a rule may fail to have nearly decided.
const FEW: usize = 2;

/// A rule that did not match, and on what it failed.
struct Near {
    index: u32,
    failed: Vec<Described>,
}

/// All that is said of a packet.
struct Explanation {
    /// Rules that matched and did not decide, in order.
    passed: Vec<u32>,
    decided: u32,
    nearly: Vec<Near>,
}

/// Explains the decision on a packet.
pub(super) fn run(options: &Options, packet: &str, json: bool) -> ExitCode {
    let question = match question::read(packet) {
        Ok(question) => question,
        Err(reason) => return failed(&format!("--explain: {reason}"), json),
    };
    let loaded = match load(&options.rules, &options.reading()) {
        Ok(loaded) => loaded,
        Err(errors) => return failed(&errors, json),
    };
    let compiled = Compiled::new(loaded.set);
    let times = compiled.times(question.now_ns.unwrap_or_else(crate::now_ns));
    let mut facts = question.facts;
    let explanation = explain(&compiled, &mut facts, times);
    let text = if json {
        format!("{}\n", machine(&compiled, &facts, &explanation))
    } else {
        told(&compiled, &facts, &explanation)
    };
    print(&text)
}

fn explain(compiled: &Compiled, facts: &mut Facts, times: u64) -> Explanation {
    let mut explanation = Explanation { passed: Vec::new(), decided: DEFAULT, nearly: Vec::new() };
    let mut from = 0;
    loop {
        // Limits are taken to have room: what they let through depends on the packets before.
        let (index, _) = compiled.first(facts, times, from, |_| true);
        let end = if index == DEFAULT { compiled.set.rules.len() } else { index as usize };
        for (at, rule) in compiled.set.rules.iter().enumerate().take(end).skip(from as usize) {
            let failing = Checks::ALL.iter().filter(|check| !check.holds(&rule.matches, facts, times));
            let failed: Vec<Described> =
                failing.map(|check| described::of(*check, rule, facts, &compiled.set)).collect();
            if failed.len() <= FEW {
                explanation.nearly.push(Near { index: u32::try_from(at).unwrap_or(DEFAULT), failed });
            }
        }
        let Some(rule) = compiled.rule(index) else { break };
        if let Some(mark) = rule.set_mark {
            facts.mark = facts.mark & !mark.mask | mark.value & mark.mask;
        }
        match rule.action {
            Action::Skip(to) => from = to.max(index + 1),
            Action::Continue => from = index + 1,
            _ => {
                explanation.decided = index;
                break;
            }
        }
        explanation.passed.push(index);
    }
    explanation.nearly.sort_by_key(|near| near.failed.len());
    explanation.nearly.truncate(NEARLY);
    explanation.nearly.sort_by_key(|near| near.index);
    explanation
}

fn shown(index: u32, rule: &Rule) -> String {
    format!("rule {} {:?} (line {})", index + 1, rule.name, rule.line)
}

/// The conditions of a rule that ask for anything.
fn reasons(compiled: &Compiled, rule: &Rule, facts: &Facts) -> Vec<Described> {
    let asking = Checks::ALL.iter().filter(|check| described::asks(**check, rule));
    asking.map(|check| described::of(*check, rule, facts, &compiled.set)).collect()
}

fn told(compiled: &Compiled, facts: &Facts, explanation: &Explanation) -> String {
    let mut text = format!("{}\n", described::packet(facts));
    for index in &explanation.passed {
        if let Some(rule) = compiled.rule(*index) {
            let action = compiled.set.told(rule.action);
            let _ = writeln!(text, "  matches {}: {action}", shown(*index, rule));
        }
    }
    match compiled.rule(explanation.decided) {
        Some(rule) => {
            let _ = writeln!(text, "{}: {}", rule.action, shown(explanation.decided, rule));
            let reasons = reasons(compiled, rule, facts);
            for Described { what, has, wants } in &reasons {
                let _ = writeln!(text, "  {what} {has} is in {wants}");
            }
            if reasons.is_empty() {
                let _ = writeln!(text, "  it matches every packet");
            }
            if let Some(limit) = rule.limit {
                let over = if limit.over == Over::Next { "the next rules decide" } else { "it is dropped" };
                let _ = writeln!(text, "  up to {}; beyond that {over}", limit.rate);
            }
        }
        None => {
            let _ = writeln!(text, "{}: no rule matches, so the default decides", compiled.set.default);
        }
    }
    if !explanation.nearly.is_empty() {
        let _ = writeln!(text, "earlier rules that nearly matched:");
    }
    for near in &explanation.nearly {
        let Some(rule) = compiled.rule(near.index) else { continue };
        let failed: Vec<String> =
            near.failed.iter().map(|d| format!("{} {} is not in {}", d.what, d.has, d.wants)).collect();
        let failed = if failed.is_empty() { "it was skipped".into() } else { failed.join("; ") };
        let _ = writeln!(text, "  {}: {failed}", shown(near.index, rule));
    }
    text
}

fn machine(compiled: &Compiled, facts: &Facts, explanation: &Explanation) -> serde_json::Value {
    let one = |index: u32| {
        let rule = compiled.rule(index);
        json!({
            "number": rule.map(|_| index + 1),
            "name": rule.map(|rule| rule.name.as_str()),
            "line": rule.map(|rule| rule.line),
            "action": compiled.set.told(compiled.action(index)),
        })
    };
    let list = |all: &[Described]| -> Vec<serde_json::Value> {
        all.iter().map(|d| json!({ "condition": d.what, "has": d.has, "wants": d.wants })).collect()
    };
    let mut object = one(explanation.decided);
    object["packet"] = described::packet(facts).into();
    let reasons = compiled.rule(explanation.decided).map(|rule| reasons(compiled, rule, facts));
    object["because"] = list(&reasons.unwrap_or_default()).into();
    object["passed"] = explanation.passed.iter().map(|index| one(*index)).collect();
    object["nearly"] = explanation
        .nearly
        .iter()
        .map(|near| {
            let mut rule = one(near.index);
            rule["failed"] = list(&near.failed).into();
            rule
        })
        .collect();
    object
}

#[cfg(test)]
mod tests;
