//! From files to rules in force.

use super::Options;
use crate::rules::{Context, RuleSet, Variables};

/// Reads all rule files.
///
/// # Errors
/// Files that cannot be read, wrong variables; with `--strict`, every rule that cannot be used.
pub fn read_rules(options: &Options) -> Result<RuleSet, String> {
    let mut variables = Variables::default();
    if let Some(path) = &options.vars {
        super::variables::take(path, &mut variables)?;
    }
    for text in &options.set {
        variables.define(text).map_err(|fault| format!("-S {text}: {fault}"))?;
    }
    let mut set = RuleSet::new(Context { variables, ..Context::default() });
    if let Some(path) = &options.classification {
        set.add_classes(path).map_err(|refusal| refusal.to_string())?;
    }
    for path in &options.rules {
        set.add_file(path).map_err(|refusal| refusal.to_string())?;
    }
    if options.strict && !set.refusals.is_empty() {
        let all: Vec<String> = set.refusals.iter().map(ToString::to_string).collect();
        return Err(all.join("\n"));
    }
    Ok(set)
}
