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

/// The priority of rules that have neither their own nor a known class's.
pub(crate) const DEFAULT_PRIORITY: u32 = 3;

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
            // Said twice, the graver counts.
            let before = b.rule.priority;
            let now = number(1, 255)?;
            b.rule.priority = if before == 0 { now } else { before.min(now) };
        }
        "classtype" => classtype(b, needed()?.trim_matches('"').trim(), classes),
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
        // It was asked before everything else.
        "requires" => {}
        "noalert" => b.rule.noalert = true,
        "alert" => b.rule.noalert = false,
        "prefilter" => b.rule.prefilter = true,
        "bypass" => b.rule.bypass = true,
        _ => return Err(Fault::new(word, "is not supported")),
    }
    Ok(())
}

/// The class of a rule. One that is not known is no reason to do without the rule; of two, the graver counts.
fn classtype(b: &mut Builder, name: &str, classes: &Classes) {
    const WORD: &str = "classtype";
    let known = classes.priority(name);
    if known.is_none() {
        let why = format!("`{name}` is no class that is known; the rule has priority {DEFAULT_PRIORITY}");
        b.notes.push(Fault::new(WORD, why).or_nearest(name, classes.names()));
    }
    let before = b.rule.classtype.as_deref().map(|name| classes.priority(name).unwrap_or(DEFAULT_PRIORITY));
    if before.is_some_and(|before| before <= known.unwrap_or(DEFAULT_PRIORITY)) {
        return;
    }
    b.rule.classtype = Some(name.to_string());
    b.rule.category = classes.description(name).unwrap_or("Unknown Classtype").to_string();
}
