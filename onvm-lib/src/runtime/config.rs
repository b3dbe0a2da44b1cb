//! `-F FILE`: options from a YAML file, put in front of those of the command line, so that the latter win.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What is wrong with an options file.
#[derive(Debug)]
pub(super) enum ConfigError {
    Unreadable { file: PathBuf, error: std::io::Error },
    NotYaml { file: PathBuf, error: serde_yaml::Error },
    NotAMapping { file: PathBuf },
    UnknownOption { file: PathBuf, line: usize, option: String, near: Option<String> },
    BadValue { file: PathBuf, line: usize, option: String, reason: &'static str },
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable { file, error } => write!(f, "{}: {error}", file.display()),
            Self::NotYaml { file, error } => write!(f, "{}: {error}", file.display()),
            Self::NotAMapping { file } => {
                write!(f, "{}: options are a mapping, like `destination: 2`", file.display())
            }
            Self::UnknownOption { file, line, option, near } => {
                write!(f, "{}:{line}: unknown option {option:?}", file.display())?;
                near.as_ref().map_or(Ok(()), |near| write!(f, ", did you mean {near:?}?"))
            }
            Self::BadValue { file, line, option, reason } => {
                write!(f, "{}:{line}: value of {option:?} {reason}", file.display())
            }
        }
    }
}

/// Replaces `-F FILE` by the options that the file holds.
pub(super) fn with_file(
    command: &clap::Command,
    arguments: Vec<OsString>,
) -> Result<Vec<OsString>, ConfigError> {
    let Some(file) = named_file(&arguments) else { return Ok(arguments) };
    let text = std::fs::read_to_string(&file)
        .map_err(|error| ConfigError::Unreadable { file: file.clone(), error })?;
    let from_file = options_in(command, &file, &text)?;
    let mut all = Vec::with_capacity(arguments.len() + from_file.len());
    let mut rest = arguments.into_iter();
    all.extend(rest.next());
    all.extend(from_file);
    all.extend(rest);
    Ok(all)
}

/// The file after `-F` or `--config`, in any of the forms that clap takes.
pub(super) fn named_file(arguments: &[OsString]) -> Option<PathBuf> {
    let mut named = None;
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy();
        if text == "--" {
            break;
        }
        if text == "-F" || text == "--config" {
            named = rest.next().map(PathBuf::from);
        } else if let Some(file) = text.strip_prefix("--config=").or_else(|| text.strip_prefix("-F")) {
            named = Some(file.trim_start_matches('=').into());
        }
    }
    named
}

fn options_in(command: &clap::Command, file: &Path, text: &str) -> Result<Vec<OsString>, ConfigError> {
    let parsed: serde_yaml::Value = serde_yaml::from_str(text)
        .map_err(|error| ConfigError::NotYaml { file: file.to_path_buf(), error })?;
    let mapping = match parsed {
        serde_yaml::Value::Null => return Ok(Vec::new()),
        serde_yaml::Value::Mapping(mapping) => mapping,
        _ => return Err(ConfigError::NotAMapping { file: file.to_path_buf() }),
    };
    let known: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
    let mut out = Vec::new();
    for (key, value) in &mapping {
        let written = scalar(key).unwrap_or_default();
        let option = written.replace('_', "-");
        let line = line_of(text, &written);
        if !known.contains(&option.as_str()) || option == "config" {
            return Err(ConfigError::UnknownOption {
                file: file.to_path_buf(),
                line,
                near: nearest(&option, &known).map(str::to_string),
                option: written,
            });
        }
        let bad =
            |reason| ConfigError::BadValue { file: file.to_path_buf(), line, option: option.clone(), reason };
        let flag =
            command.get_arguments().any(|a| a.get_long() == Some(&option) && !a.get_action().takes_values());
        for value in value.as_sequence().map_or(std::slice::from_ref(value), Vec::as_slice) {
            match value {
                serde_yaml::Value::Bool(false) if flag => {}
                serde_yaml::Value::Bool(true) if flag => out.push(format!("--{option}").into()),
                _ if flag => return Err(bad("must be true or false")),
                value => {
                    let text =
                        scalar(value).ok_or_else(|| bad("must be a number, a word or a list of them"))?;
                    out.push(joined(&option, OsStr::new(&text)));
                }
            }
        }
    }
    Ok(out)
}

fn joined(option: &str, value: &OsStr) -> OsString {
    let mut all = OsString::from(format!("--{option}="));
    all.push(value);
    all
}

fn scalar(value: &serde_yaml::Value) -> Option<String> {
    match value {
        serde_yaml::Value::String(s) => Some(s.clone()),
        serde_yaml::Value::Number(n) => Some(n.to_string()),
        serde_yaml::Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}

/// Line on which a key stands, counted from 1.
fn line_of(text: &str, key: &str) -> usize {
    let stands = |line: &str| {
        let line = line.trim_start().trim_start_matches(['"', '\'']);
        line.strip_prefix(key).is_some_and(|rest| rest.trim_start_matches(['"', '\'', ' ']).starts_with(':'))
    };
    text.lines().position(stands).map_or(1, |index| index + 1)
}

/// The word that was probably meant: the one with the fewest edits, if they are few.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let best = known.iter().map(|k| (edits(word, k), *k)).min()?;
    (best.0 <= 1 + word.len() / 4).then_some(best.1)
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let change = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> clap::Command {
        clap::Command::new("nf")
            .arg(clap::Arg::new("destination").long("destination"))
            .arg(clap::Arg::new("json").long("json").action(clap::ArgAction::SetTrue))
    }

    #[test]
    fn a_file_becomes_options_in_front_of_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("nf.yaml");
        std::fs::write(&file, "destination: 2\njson: true\n").unwrap();
        let line = ["nf".into(), "-F".into(), file.into_os_string(), "--destination=3".into()];
        let all = with_file(&command(), line.to_vec()).unwrap();
        assert_eq!(all[..3], ["nf", "--destination=2", "--json"]);
        assert_eq!(all.last().unwrap(), "--destination=3");
    }

    #[test]
    fn mistakes_name_file_line_and_the_right_word() {
        let wrong = |text| options_in(&command(), Path::new("f.yaml"), text).unwrap_err().to_string();
        assert_eq!(
            wrong("json: true\ndestinaton: 2\n"),
            "f.yaml:2: unknown option \"destinaton\", did you mean \"destination\"?"
        );
        assert_eq!(wrong("json: 7"), "f.yaml:1: value of \"json\" must be true or false");
        assert_eq!(
            wrong("destination: {a: 1}"),
            "f.yaml:1: value of \"destination\" must be a number, a word or a list of them"
        );
        assert_eq!(wrong("- a"), "f.yaml: options are a mapping, like `destination: 2`");
        assert!(wrong("a: [").starts_with("f.yaml: "));
        assert!(options_in(&command(), Path::new("f"), "").unwrap().is_empty());
    }
}
