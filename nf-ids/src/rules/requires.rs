//! `requires`: what a rule needs of the program that reads it.
//!
//! It is asked before anything else of the rule, which may be written in words that only a later version knows. A rule whose
//! needs are not met is left out, which is no fault of it.

use super::refusal::Fault;

const WORD: &str = "requires";
/// The version that this program behaves as.
const VERSION: [u32; 3] = [9, 0, 0];
/// What of Suricata's optional parts is there.
const FEATURES: [&str; 2] = ["ja3", "ja4"];

/// Why a rule cannot be read.
#[derive(Debug)]
pub(crate) enum Unmet {
    /// Its needs are written wrong.
    Wrong(Fault),
    /// They are not met.
    Needs(Fault),
}

/// `requires: version >= 7.0.4 < 8 | >= 8.0.3, feature x, keyword y`.
pub(crate) fn check(value: &str) -> Result<(), Unmet> {
    let needs = |why: String| Err(Unmet::Needs(Fault::new(WORD, why)));
    let mut versions = 0;
    for part in value.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (name, rest) = part.split_once(char::is_whitespace).unwrap_or((part, ""));
        let rest = rest.trim();
        match name {
            "version" => {
                versions += 1;
                let met = rest.split('|').map(version_holds).collect::<Option<Vec<bool>>>();
                let wrong =
                    || Unmet::Wrong(Fault::new(WORD, format!("`{part}` is not a version to compare with")));
                if !met.filter(|_| versions == 1).ok_or_else(wrong)?.contains(&true) {
                    return needs(format!("`{part}` is not met: this program behaves as version 9.0"));
                }
            }
            "keyword" if super::parse::is_keyword(rest) => {}
            "keyword" => return needs(format!("keyword `{rest}` is not supported")),
            "feature" if FEATURES.contains(&rest) => {}
            "feature" => return needs(format!("feature `{rest}` is not there")),
            other => return needs(format!("`{other}` is not known, and so not met")),
        }
    }
    Ok(())
}

/// Whether all comparisons of an alternative hold; `None` if they cannot be read.
fn version_holds(text: &str) -> Option<bool> {
    let mut rest = text.trim();
    let mut all = true;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !matches!(c, '<' | '>' | '='))?;
        let (operator, after) = rest.split_at(end);
        let after = after.trim_start();
        let stop = after.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(after.len());
        let mut wanted = [0u32; 3];
        for (place, digits) in wanted.iter_mut().zip(after[..stop].split('.')) {
            *place = digits.parse().ok()?;
        }
        all &= match operator {
            "<" => VERSION < wanted,
            "<=" => VERSION <= wanted,
            ">" => VERSION > wanted,
            ">=" => VERSION >= wanted,
            "=" | "==" => VERSION == wanted,
            _ => return None,
        };
        rest = after[stop..].trim_start();
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared() {
        for text in
            ["version >= 8", "version >= 7.0.3 < 10", "version > 10 | >= 7", "feature ja4, keyword pcre"]
        {
            assert!(check(text).is_ok(), "{text}");
        }
        for text in ["version >= 10.0.0", "version < 8", "feature geoip", "versoin > 1", "keyword pcer"] {
            assert!(matches!(check(text), Err(Unmet::Needs(_))), "{text}");
        }
        for text in ["version 8", "version > x", "version >= 7, version < 10"] {
            assert!(matches!(check(text), Err(Unmet::Wrong(_))), "{text}");
        }
    }
}
