//! `dataset:isset,NAME,type string,load FILE` and `datarep:NAME,>,200,load FILE,type md5`: what is in a set, or how it is
//! reputed.

use std::path::{Component, Path, PathBuf};

use super::builder::Builder;
use super::parse::Context;
use super::refusal::Fault;
use super::test::{Place, Test};
use super::values::{SetCommand, SetTest};
use crate::sets::{Definition, KINDS};

/// Every keyword of this room.
pub(crate) const WORDS: &[&str] = &["dataset", "datarep"];
/// The largest reputation.
const MOST_REPUTATION: u64 = 65_535;

const OPTIONS: [&str; 6] = ["type", "load", "save", "state", "memcap", "hashsize"];
const JSON: [&str; 5] = ["format", "enrichment_key", "value_key", "array_key", "remove_key"];

/// Takes a keyword of this room.
pub(crate) fn take(b: &mut Builder, word: &str, value: Option<&str>, context: &Context) -> Result<(), Fault> {
    let value = value.ok_or_else(|| Fault::new(word, "has no value"))?;
    let parts: Vec<&str> = value.split(',').map(str::trim).collect();
    let of_bytes = |b: &Builder| b.sticky.is_some_and(|s| b.rule.sections[s].place != Place::Base64);
    if !of_bytes(b) {
        return Err(Fault::new(word, "has no sticky buffer before it"));
    }
    let (name, command, options) = match (word, &parts[..]) {
        ("dataset", [command, name, options @ ..]) => (*name, set_command(command)?, options),
        ("datarep", [name, operator, number, options @ ..]) => {
            (*name, reputation(operator, number)?, options)
        }
        ("dataset", _) => return Err(Fault::new(word, format!("`{value}` is not COMMAND,NAME[,OPTIONS]"))),
        _ => return Err(Fault::new(word, format!("`{value}` is not NAME,OPERATOR,NUMBER[,OPTIONS]"))),
    };
    if name.is_empty() || name.len() > 64 {
        return Err(Fault::new(word, format!("`{name}` is not a name of 1 to 64 characters")));
    }
    let mut definition = definition(word, options, context)?;
    definition.reputed = word == "datarep";
    let set = context.sets.get(name, &definition).map_err(|why| Fault::new(word, why))?;
    b.test(Test::Set(SetTest { set, command }), false)
}

fn set_command(text: &str) -> Result<SetCommand, Fault> {
    match text {
        "set" => Ok(SetCommand::Set),
        "unset" => Ok(SetCommand::Unset),
        "isset" => Ok(SetCommand::IsSet),
        "isnotset" => Ok(SetCommand::IsNotSet),
        other => Err(Fault::new("dataset", format!("`{other}` is no command"))
            .or_nearest(other, ["set", "unset", "isset", "isnotset"])),
    }
}

fn reputation(operator: &str, number: &str) -> Result<SetCommand, Fault> {
    let wrong = || Fault::new("datarep", format!("`{operator}, {number}` is not one of < = > and 0..=65535"));
    let number = super::compare::number(number).filter(|n| *n <= MOST_REPUTATION).ok_or_else(wrong)?;
    use super::compare::Compare;
    Ok(SetCommand::Reputed(match operator {
        "<" => Compare::Less(number),
        ">" => Compare::Greater(number),
        "=" | "==" => Compare::Equal(number),
        _ => return Err(wrong()),
    }))
}

fn definition(word: &str, options: &[&str], context: &Context) -> Result<Definition, Fault> {
    let mut all = Definition::default();
    for option in options {
        let (name, text) = option.split_once(char::is_whitespace).unwrap_or((option, ""));
        let text = text.trim();
        let wrong = || Fault::new(word, format!("`{option}` is not understood"));
        match name {
            "type" => {
                let names = KINDS.map(|(name, _)| name);
                let kind = KINDS.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind);
                let unknown = || wrong().or_nearest(text, names);
                all.kind = Some(kind.ok_or_else(unknown)?);
            }
            "load" => all.load = Some(beside_rules(text, context)),
            "save" => all.save = Some(in_data_folder(word, text, context)?),
            "state" => {
                let path = in_data_folder(word, text, context)?;
                (all.restore, all.save) = (Some(path.clone()), Some(path));
            }
            "memcap" => {
                let bytes = super::compare::number(text).and_then(|n| usize::try_from(n).ok());
                all.most = Some(bytes.filter(|n| *n > 0).ok_or_else(wrong)?);
            }
            "hashsize" => drop(text.parse::<u32>().map_err(|_| wrong())?),
            _ if JSON.contains(&name) => {
                return Err(Fault::new(
                    word,
                    format!("`{name}` is of sets in JSON, which are not supported"),
                ));
            }
            _ => return Err(wrong().or_nearest(name, OPTIONS)),
        }
    }
    if all.load.is_some() && all.save.is_some() {
        return Err(Fault::new(word, "`load` cannot be combined with `save` or `state`"));
    }
    Ok(all)
}

/// A file that a rule names: beside the file that the rule stands in.
pub(crate) fn beside_rules(name: &str, context: &Context) -> PathBuf {
    context.folder.as_deref().map_or_else(|| PathBuf::from(name), |folder| folder.join(name))
}

/// A file that a rule has written: only where the user lets it.
fn in_data_folder(word: &str, name: &str, context: &Context) -> Result<PathBuf, Fault> {
    let Some(folder) = &context.data else {
        let why = format!("`{name}` would be written, and no `--data FOLDER` says where");
        return Err(Fault::new(word, why));
    };
    let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    let outside = || Fault::new(word, format!("`{name}` is not a name within the folder of `--data`"));
    (plain && !name.is_empty()).then(|| folder.join(name)).ok_or_else(outside)
}
