//! `manager:`: what the command line can say, by its long names. The command line's own parser judges every value, so that
//! there is one definition of what is right.

use std::error::Error;
use std::ffi::OsString;
use std::path::Path;

use onvm_lib::document::{Cursor, nearest};

use super::{Names, paths};
use crate::cli::Start;

/// Options that the other parts of the file say.
const ELSEWHERE: &[(&str, &str)] = &[
    ("port", "ports stand under `ports`"),
    (
        "chain",
        "chains stand under `chains`, and the chain of packets that no rule matches is the `default-chain`",
    ),
    ("config", "a chain file names no other"),
];
/// Options whose values are services, by name or id.
const SERVICES: &[&str] = &["default-service", "wait", "isolate"];
/// Options whose values are files.
const FILES: &[&str] = &["socket"];

/// One option with its value, as the command line would have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileOption {
    name: String,
    value: Option<String>,
}

impl FileOption {
    pub(super) fn new(name: &str, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: Some(value.into()) }
    }

    /// Its long name, without dashes.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its value; none for a flag.
    pub(crate) fn value(&self) -> Option<&str> {
        self.value.as_deref()
    }

    /// As an argument of the command line.
    pub(crate) fn argument(&self) -> OsString {
        match &self.value {
            Some(value) => format!("--{}={value}", self.name).into(),
            None => format!("--{}", self.name).into(),
        }
    }
}

/// Reads the options; those that are wrong are reported and left out.
pub(super) fn read(manager: &Cursor<'_>, names: &Names, directory: &Path) -> Vec<FileOption> {
    let command = Start::parser();
    let longs: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
    let known: Vec<&str> =
        longs.iter().copied().filter(|l| ELSEWHERE.iter().all(|(elsewhere, _)| elsewhere != l)).collect();
    let mut all = Vec::new();
    for (key, value) in manager.entries().unwrap_or_default() {
        let name = key.text.as_str();
        let elsewhere =
            ELSEWHERE.iter().find(|(other, _)| *other == name || name.strip_suffix('s') == Some(other));
        if let Some((_, where_to)) = elsewhere {
            value.key_error(key, *where_to);
        } else if !known.contains(&name) {
            value.key_error(
                key,
                match nearest(name, known.iter().copied()) {
                    Some(near) => format!("unknown key; did you mean {near:?}?"),
                    None => format!("unknown key; keys are {}", known.join(", ")),
                },
            );
        } else {
            let takes = |a: &clap::Arg| a.get_long() == Some(name) && a.get_action().takes_values();
            let takes_values = command.get_arguments().any(takes);
            let options = values(name, &value, takes_values, names, directory);
            // One at a time, so that the first that is wrong is named; then all, which may be too many.
            let wrong = options.iter().map(std::slice::from_ref).chain([&options[..]]).find_map(wrong_values);
            match wrong {
                Some(message) => value.error(message),
                None => all.extend(options),
            }
        }
    }
    all
}

fn values(
    name: &str,
    value: &Cursor<'_>,
    takes_values: bool,
    names: &Names,
    directory: &Path,
) -> Vec<FileOption> {
    if !takes_values {
        let set = value.boolean() == Some(true);
        return set.then(|| FileOption { name: name.into(), value: None }).into_iter().collect();
    }
    let one = |value: &Cursor<'_>| {
        let text = value.text()?;
        let text = if SERVICES.contains(&name) && text.parse::<u64>().is_err() {
            names.find(value)?.to_string()
        } else if FILES.contains(&name) {
            paths::resolve(directory, text).display().to_string()
        } else {
            text.to_string()
        };
        Some(FileOption::new(name, text))
    };
    value.one_or_many().iter().filter_map(one).collect()
}

/// What the command line's parser finds wrong with the values of an option.
fn wrong_values(options: &[FileOption]) -> Option<String> {
    let arguments = options.iter().map(FileOption::argument);
    let error = Start::parser().no_binary_name(true).try_get_matches_from(arguments).err()?;
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_string();
    Some(error.source().map_or(first, ToString::to_string))
}
