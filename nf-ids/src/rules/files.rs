//! Keywords of the files that a transaction carries: their size, their hashes, and what is to be done with them.

use std::collections::HashSet;
use std::sync::Arc;

use super::builder::Builder;
use super::compare::Compare;
use super::dataset::beside_rules;
use super::parse::Context;
use super::refusal::Fault;
use super::test::Test;
use super::values::{FileHash, HashKind};
use crate::app::Buffer;
use crate::sets::from_hex;

/// Every keyword of this room.
pub(crate) const WORDS: &[&str] =
    &["filesize", "filemd5", "filesha1", "filesha256", "filestore", "tls.store", "tls_store"];

/// Hashes of a list.
const MOST_HASHES: usize = 8 << 20;

/// Takes a keyword of this room.
pub(crate) fn take(b: &mut Builder, word: &str, value: Option<&str>, context: &Context) -> Result<(), Fault> {
    let needed = || value.ok_or_else(|| Fault::new(word, "has no value"));
    let kind = match word {
        "filesize" => {
            let compare = Compare::parse(word, needed()?.trim_matches('"'), u64::MAX)?;
            return b.test_of(Buffer::FileData, Test::FileSize(compare));
        }
        "filemd5" => HashKind::Md5,
        "filesha1" => HashKind::Sha1,
        "filesha256" => HashKind::Sha256,
        _ => {
            if word == "filestore" {
                stored(value)?;
            }
            // The rule alerts as it would; that nothing is kept is said where rules are checked.
            b.notes.push(Fault::new(
                word,
                "nothing is stored: this program keeps neither files nor certificates",
            ));
            return Ok(());
        }
    };
    let (name, negated) = needed()?.strip_prefix('!').map_or((needed()?, false), |rest| (rest.trim(), true));
    let list = Arc::new(hashes(word, name.trim_matches('"'), kind, context)?);
    b.test_of(Buffer::FileData, Test::FileHash(FileHash { kind, negated, list }))
}

/// What may stand after `filestore`: a direction and a scope.
fn stored(value: Option<&str>) -> Result<(), Fault> {
    const KNOWN: [&str; 9] =
        ["request", "to_server", "response", "to_client", "both", "file", "tx", "ssn", "flow"];
    for word in value.unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty()) {
        if !KNOWN.contains(&word) {
            let fault = Fault::new("filestore", format!("`{word}` is neither a direction nor a scope"));
            return Err(fault.or_nearest(word, KNOWN));
        }
    }
    Ok(())
}

/// A list of hashes: one at the start of each line.
fn hashes(word: &str, name: &str, kind: HashKind, context: &Context) -> Result<HashSet<Box<[u8]>>, Fault> {
    let path = beside_rules(name, context);
    let wrong = |why: String| Fault::new(word, format!("{}{why}", path.display()));
    let text = super::text::read(&path).map_err(|e| wrong(format!(" cannot be read: {e}")))?;
    let mut all = HashSet::new();
    for (number, line) in text.lines().enumerate() {
        let first = line.split(|c: char| c.is_whitespace() || c == ',').next().unwrap_or_default();
        if first.is_empty() || first.starts_with('#') {
            continue;
        }
        let hash = from_hex(first).filter(|hash| hash.len() == kind.length());
        let hash = hash.ok_or_else(|| {
            let digits = 2 * kind.length();
            wrong(format!(":{}: `{first}` is not {digits} hexadecimal digits", number + 1))
        })?;
        if all.len() >= MOST_HASHES {
            return Err(wrong(format!(" has more than {MOST_HASHES} hashes")));
        }
        all.insert(hash.into_boxed_slice());
    }
    Ok(all)
}
