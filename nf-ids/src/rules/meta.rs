//! Keywords about the rule itself: its number, message, class, references.

use super::builder::Builder;
use super::classes::Classes;
use super::option::{unescape, unquote};
use super::refusal::Fault;

/// Every keyword of this room.
pub(crate) const WORDS: &[&str] = &[
    "msg",
    "sid",
    "gid",
    "rev",
    "classtype",
    "priority",
    "reference",
    "metadata",
    "target",
    "requires",
    "noalert",
    "alert",
    "prefilter",
    "bypass",
];

/// Of what a rule asks for with `requires`, the version that this program behaves as.
const VERSION: [u32; 3] = [9, 0, 0];

/// Takes a keyword of this room.
pub(crate) fn take(b: &mut Builder, word: &str, value: Option<&str>, classes: &Classes) -> Result<(), Fault> {
    let needed = || value.ok_or_else(|| Fault::new(word, "has no value"));
    let number = |least: u32, most: u32| {
        let value = needed()?;
        let value = value.trim_matches('"').trim();
        let wrong = || Fault::new(word, format!("`{value}` is not in {least}..={most}"));
        value.parse::<u32>().ok().filter(|n| (least..=most).contains(n)).ok_or_else(wrong)
    };
    match word {
        "msg" => {
            b.once(word)?;
            let (text, negated) = unquote(word, needed()?)?;
            if negated {
                return Err(Fault::new(word, "is negated"));
            }
            b.rule.msg = unescape(text);
        }
        "sid" => {
            b.once(word)?;
            b.rule.sid = number(1, u32::MAX)?;
        }
        "gid" => {
            b.once(word)?;
            b.rule.gid = number(0, u32::MAX)?;
        }
        "rev" => {
            b.once(word)?;
            b.rule.rev = number(0, u32::MAX)?;
        }
        "priority" => {
            b.once(word)?;
            b.rule.priority = number(1, 255)?;
        }
        "classtype" => {
            b.once(word)?;
            let name = needed()?.trim_matches('"').trim();
            b.rule.classtype = Some(name.to_string());
            b.rule.category = classes.description(name).unwrap_or_default().to_string();
        }
        "reference" => {
            let text = needed()?;
            let (kind, value) = text
                .split_once(',')
                .ok_or_else(|| Fault::new(word, format!("`{text}` is not KIND,VALUE")))?;
            b.rule.references.push((kind.trim().to_string(), value.trim().to_string()));
        }
        "metadata" => {
            for part in value.unwrap_or_default().split(',').map(str::trim).filter(|p| !p.is_empty()) {
                let (key, value) = part.split_once(char::is_whitespace).unwrap_or((part, ""));
                b.rule.metadata.push((key.to_string(), value.trim().to_string()));
            }
        }
        "target" => {
            b.rule.target_source = Some(match needed()? {
                "src_ip" => true,
                "dest_ip" => false,
                other => {
                    let fault = Fault::new(word, format!("`{other}` is neither `src_ip` nor `dest_ip`"));
                    return Err(fault.or_nearest(other, ["src_ip", "dest_ip"]));
                }
            });
        }
        "requires" => requires(needed()?)?,
        "noalert" => b.rule.noalert = true,
        "alert" => b.rule.noalert = false,
        "prefilter" => b.rule.prefilter = true,
        "bypass" => return Err(Fault::new(word, "is not supported: every packet is inspected")),
        _ => return Err(Fault::new(word, "is not supported")),
    }
    Ok(())
}

/// `requires: version >= 7.0.4 < 8 | >= 8.0.3, feature x, keyword y`.
fn requires(value: &str) -> Result<(), Fault> {
    const WORD: &str = "requires";
    for part in value.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (name, rest) = part.split_once(char::is_whitespace).unwrap_or((part, ""));
        match name {
            "version" => {
                let met = rest.split('|').map(version_holds).collect::<Option<Vec<bool>>>();
                let met = met
                    .ok_or_else(|| Fault::new(WORD, format!("`{part}` is not a version to compare with")))?;
                if !met.contains(&true) {
                    let why = format!("`{part}` is not met: this program behaves as version 9.0");
                    return Err(Fault::new(WORD, why));
                }
            }
            "keyword" if super::parse::is_keyword(rest.trim()) => {}
            "keyword" => return Err(Fault::new(WORD, format!("keyword `{}` is not supported", rest.trim()))),
            "feature" => return Err(Fault::new(WORD, format!("feature `{}` is not there", rest.trim()))),
            other => {
                let fault = Fault::new(WORD, format!("`{other}` is not known"));
                return Err(fault.or_nearest(other, ["version", "keyword", "feature"]));
            }
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
    use super::requires;

    #[test]
    fn versions_are_compared() {
        for text in ["version >= 8", "version >= 7.0.3 < 10", "version > 10 | >= 7"] {
            assert!(requires(text).is_ok(), "{text}");
        }
        for text in ["version >= 10.0.0", "version < 8", "version 8", "feature geoip", "versoin > 1"] {
            assert!(requires(text).is_err(), "{text}");
        }
    }
}
