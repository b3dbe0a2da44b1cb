//! `--check`: what is wrong with a rule file, which rules decide nothing, and what the set holds.

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::json;

use super::{failed, print};
use crate::engine::Compiled;
use crate::options::Options;
use crate::rules::load::{Loaded, load};
use crate::rules::shadow::{self, Hidden};
use crate::rules::{Rule, RuleSet};

/// Checks the rule file. Exit code 1 if it cannot be used, or with `--strict` if anything is odd.
pub(super) fn run(options: &Options, json: bool) -> ExitCode {
    let file = options.rules.display().to_string();
    let Loaded { set, warnings } = match load(&options.rules, &options.reading()) {
        Ok(loaded) => loaded,
        Err(errors) if json => {
            let errors: Vec<&str> = errors.lines().collect();
            let _ = print(&format!("{}\n", json!({ "file": file, "ok": false, "errors": errors })));
            return ExitCode::FAILURE;
        }
        Err(errors) => return failed(&errors, false),
    };
    let compiled = Compiled::new(set);
    let findings = shadow::find(&compiled);
    let odd = !warnings.is_empty() || !findings.hidden.is_empty();
    let set = &compiled.set;
    let text = if json {
        let hidden: Vec<serde_json::Value> = findings.hidden.iter().map(|h| machine(set, h)).collect();
        let all = json!({
            "file": file,
            "ok": !(odd && options.strict),
            "format": format!("{:?}", set.format).to_lowercase(),
            "rules": set.rules.len(),
            "five_field_rules": compiled.five_field_rules(),
            "default": set.default.to_string(),
            "stateful": set.asks_for_states(),
            "warnings": warnings,
            "hidden": hidden,
            "looked_at": findings.looked_at,
        });
        format!("{all}\n")
    } else {
        let mut text = String::new();
        for warning in &warnings {
            let _ = writeln!(text, "{warning}");
        }
        for hidden in &findings.hidden {
            let _ = writeln!(text, "{}", told(&file, set, hidden));
        }
        let (rules, fives) = (set.rules.len(), compiled.five_field_rules());
        let _ = writeln!(text, "{file}: {rules} rules ({fives} for the classifier), default {}", set.default);
        if findings.looked_at < rules {
            let n = findings.looked_at;
            let _ = writeln!(
                text,
                "{file}: whether several rules together hide one was looked at for the first {n} rules"
            );
        }
        text
    };
    let code = print(&text);
    if odd && options.strict { ExitCode::FAILURE } else { code }
}

fn shown(rule: &Rule) -> String {
    format!("{:?} (line {})", rule.name, rule.line)
}

/// `f:7: warning: rule "b" decides nothing: rule "a" (line 3) takes all that it matches, and denies it`
fn told(file: &str, set: &RuleSet, hidden: &Hidden) -> String {
    const MOST: usize = 4;
    let Some(rule) = set.rules.get(hidden.rule) else { return String::new() };
    let by: Vec<&Rule> =
        hidden.by.iter().filter_map(|index| set.rules.get(*index).map(AsRef::as_ref)).collect();
    let mut names: Vec<String> = by.iter().take(MOST).map(|rule| shown(rule)).collect();
    if by.len() > MOST {
        names.push(format!("{} more", by.len() - MOST));
    }
    let (kind, verb) = if by.len() == 1 { ("shadowed", "takes") } else { ("unreachable", "together take") };
    let end = if hidden.same_action {
        "with the same action: it is superfluous".to_string()
    } else {
        let action = by.first().map_or(String::new(), |rule| set.told(rule.action));
        format!("with the action {action} instead of {}", set.told(rule.action))
    };
    format!(
        "{file}:{}: warning: rule {:?} is {kind}: {} {verb} all that it matches, {end}",
        rule.line,
        rule.name,
        names.join(" and ")
    )
}

fn machine(set: &RuleSet, hidden: &Hidden) -> serde_json::Value {
    let one = |index: usize| {
        let rule = set.rules.get(index);
        json!({
            "number": index + 1,
            "name": rule.map(|rule| rule.name.as_str()),
            "line": rule.map(|rule| rule.line),
        })
    };
    let mut object = one(hidden.rule);
    object["kind"] = if hidden.by.len() == 1 { "shadowed" } else { "unreachable" }.into();
    object["by"] = hidden.by.iter().map(|index| one(*index)).collect();
    object["same_action"] = hidden.same_action.into();
    object
}
