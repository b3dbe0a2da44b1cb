//! A rule file: it is read, or refused with its reason; what was read can be compiled.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nf_ids::detect::Tables;
use nf_ids::rules::{Context, RuleSet};

fuzz_target!(|text: &str| {
    let mut set = RuleSet::new(Context::default());
    set.add_text(text);
    for refusal in &set.refusals {
        let _ = refusal.to_string();
    }
    let _ = Tables::new(set.rules);
});
