//! Rule sets and headers to look up: ClassBench's, read from files, or made here.

mod made;

use std::path::{Path, PathBuf};
use std::process::Command;

use onvm_classifier::{Header, Rule5, classbench};

pub(crate) use made::{KINDS, as_v6, made};

use crate::measure::Error;

/// Rules and what is looked up among them.
pub(crate) struct RuleSet {
    pub(crate) name: String,
    pub(crate) rules: Vec<Rule5>,
    pub(crate) headers: Vec<Header>,
    /// The index of the first matching rule of each header, if somebody else has found it out.
    pub(crate) golden: Option<Vec<u32>>,
}

/// Where ClassBench's sets are: in `ONVM_TEST_DATA`, else in `../shared/data` beside the project.
fn folder() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    std::env::var_os("ONVM_TEST_DATA").map_or_else(beside, PathBuf::from).join("classbench")
}

/// The names of all sets that have a trace, the small ones first.
pub(crate) fn names() -> Result<Vec<String>, Error> {
    let folder = folder();
    let entries = std::fs::read_dir(&folder).map_err(|error| {
        let wanted = "set ONVM_TEST_DATA to the folder with ClassBench's sets, or see made-rules";
        Error::new(format!("{}: {error}; {wanted}", folder.display()))
    })?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(set) = name.strip_suffix("_trace.gz") {
            let size = std::fs::metadata(folder.join(format!("{set}.gz")))?.len();
            names.push((size.ilog10(), set.to_string()));
        }
    }
    names.sort();
    Ok(names.into_iter().map(|(_, name)| name).collect())
}

/// Reads a set.
pub(crate) fn read(name: &str) -> Result<RuleSet, Error> {
    let text = |suffix: &str| text(&folder().join(format!("{name}{suffix}.gz")));
    let filters = classbench::filters(name, &text("")?).map_err(|e| Error::new(e.to_string()))?;
    let trace = format!("{name}_trace");
    let headers = classbench::trace(&trace, &text("_trace")?).map_err(|e| Error::new(e.to_string()))?;
    let number = |line: &str| {
        let first: Option<u32> = line.trim().parse().ok();
        first
            .and_then(|first| first.checked_sub(1))
            .ok_or_else(|| Error::new(format!("{name}_golden: {line}?")))
    };
    let golden = text("_golden")?.lines().map(number).collect::<Result<Vec<u32>, Error>>()?;
    let rules = filters.iter().map(|filter| filter.rule).collect();
    Ok(RuleSet { name: name.to_string(), rules, headers, golden: Some(golden) })
}

/// The text of a compressed file.
fn text(file: &Path) -> Result<String, Error> {
    let output = Command::new("gzip").arg("-dc").arg(file).output()?;
    if !output.status.success() {
        return Err(Error::new(String::from_utf8_lossy(&output.stderr).trim()));
    }
    String::from_utf8(output.stdout).map_err(|_| Error::new(format!("{} is not text", file.display())))
}
