//! One rule from its text.

use super::builder::Builder;
use super::classes::Classes;
use super::option::{RuleOption, options, split};
use super::refusal::Fault;
use super::rule::Rule;
use super::variables::Variables;
use super::{
    absent, applayer, dataset, files, header, headers, memory, meta, older, payload, requires, transforms,
    validate,
};
use crate::sets::Sets;
use std::path::PathBuf;

/// Bytes that a rule may have.
const LONGEST: usize = 256 << 10;

/// What a rule is read with.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Values of `$NAMES`.
    pub variables: Variables,
    /// Classes.
    pub classes: Classes,
    /// Sets of values, which rules have in common.
    pub sets: Sets,
    /// Where sets are kept that rules fill; `None`: they may not be kept.
    pub data: Option<PathBuf>,
    /// Where the rules stand, and files that they name.
    pub(crate) folder: Option<PathBuf>,
}

/// Every keyword.
pub(crate) fn keywords() -> impl Iterator<Item = &'static str> {
    let lists = [
        payload::WORDS,
        transforms::WORDS,
        memory::WORDS,
        meta::WORDS,
        dataset::WORDS,
        files::WORDS,
        older::WORDS,
    ];
    lists.into_iter().flatten().copied().chain(headers::words()).chain(applayer::words())
}

/// Whether a keyword is known.
pub(crate) fn is_keyword(word: &str) -> bool {
    keywords().any(|known| known == word)
}

/// A rule that could not be read: where, why, and its number if that could be read.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) at: usize,
    pub(crate) fault: Fault,
    pub(crate) sid: Option<u32>,
    /// It asks for what is not there (`requires`): left out, and no fault of the file.
    pub(crate) left_out: bool,
}

/// A rule, and what is worth knowing of it: each with its place.
pub(crate) type Read = (Rule, Vec<(usize, Fault)>);

/// Reads a rule.
pub(crate) fn rule(text: &str, context: &Context) -> Result<Read, Failure> {
    let fail = |sid: Option<u32>| move |(at, fault)| Failure { at, fault, sid, left_out: false };
    if text.len() > LONGEST {
        let why = format!("{} bytes are more than {LONGEST}", text.len());
        return Err(fail(None)((0, Fault::new("rule", why))));
    }
    let parts = split(text).map_err(fail(None))?;
    let all = options(parts.1, parts.2).map_err(fail(None))?;
    let sid = sid_of(&all);
    for option in all.iter().filter(|o| o.name.eq_ignore_ascii_case("requires")) {
        let (fault, left_out) = match requires::check(option.value.unwrap_or_default()) {
            Ok(()) => continue,
            Err(requires::Unmet::Needs(fault)) => (fault, true),
            Err(requires::Unmet::Wrong(fault)) => (fault, false),
        };
        return Err(Failure { at: option.at, fault, sid, left_out });
    }
    let mut builder = header::parse(&parts, &context.variables).map_err(fail(sid))?;
    for option in &all {
        take(&mut builder, option, context).map_err(|fault| fail(sid)((option.at, fault)))?;
    }
    let place = |field: &str| all.iter().find(|o| o.name == field).map_or(0, |o| o.at);
    let notes = std::mem::take(&mut builder.notes);
    let rule = builder.finish().and_then(|rule| validate::complete(rule, &context.classes));
    let rule = rule.map_err(|fault| fail(sid)((place(&fault.field), fault)))?;
    Ok((rule, notes.into_iter().map(|fault| (place(&fault.field), fault)).collect()))
}

fn sid_of(all: &[RuleOption<'_>]) -> Option<u32> {
    all.iter().find(|o| o.name == "sid")?.value?.parse().ok()
}

fn take(builder: &mut Builder, option: &RuleOption<'_>, context: &Context) -> Result<(), Fault> {
    let value = option.value;
    // A keyword may be written with capitals.
    let lower = option.name.to_ascii_lowercase();
    let word = lower.as_str();
    // What asks for the payload's size is a test of headers.
    if payload::WORDS.contains(&word) && word != "dsize" {
        return payload::take(builder, word, value);
    }
    if transforms::WORDS.contains(&word) {
        return transforms::take(builder, word, value);
    }
    if memory::WORDS.contains(&word) {
        return memory::take(builder, word, value);
    }
    if meta::WORDS.contains(&word) {
        return meta::take(builder, word, value, &context.classes);
    }
    if dataset::WORDS.contains(&word) {
        return dataset::take(builder, word, value, context);
    }
    if files::WORDS.contains(&word) {
        return files::take(builder, word, value, context);
    }
    if older::WORDS.contains(&word) {
        return older::take(builder, word, value);
    }
    let known = headers::take(builder, word, value).or_else(|| applayer::take(builder, word, value));
    known.unwrap_or_else(|| {
        Err(absent::reason(word).unwrap_or_else(|| {
            Fault::new(word, "is not a keyword that is supported").or_nearest(word, keywords())
        }))
    })
}
