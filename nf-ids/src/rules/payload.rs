//! Keywords that look into bytes: `content` with its modifiers, `isdataat`, `bsize`, `pcre` and the like.

use super::builder::{Asked, Builder};
use super::compare::Compare;
use super::option::{pattern, unquote};
use super::refusal::Fault;
use super::test::{Absence, Base64Mode, Content, FloatCompare, Test, Transform, Value};
use crate::app::Buffer;

/// Bytes that a pattern may have.
const LONGEST_PATTERN: usize = 8192;
/// The farthest that an offset, a depth or a distance may reach.
const FARTHEST: i64 = 1 << 20;

/// Every keyword of this room.
pub(crate) const WORDS: &[&str] = &[
    "content",
    "uricontent",
    "nocase",
    "offset",
    "depth",
    "distance",
    "within",
    "startswith",
    "endswith",
    "rawbytes",
    "fast_pattern",
    "isdataat",
    "bsize",
    "urilen",
    "dsize",
    "absent",
    "entropy",
    "pcre",
    "base64_decode",
    "byte_test",
    "byte_jump",
    "byte_extract",
    "byte_math",
];

/// Takes a keyword of this room.
pub(crate) fn take(b: &mut Builder, word: &str, value: Option<&str>) -> Result<(), Fault> {
    let needed = || value.ok_or_else(|| Fault::new(word, "has no value"));
    let bare = || match value {
        None => Ok(()),
        Some(text) => Err(Fault::new(word, format!("takes no value, but has `{text}`"))),
    };
    match word {
        "content" => content(b, needed()?),
        "uricontent" => uricontent(b, needed()?),
        "nocase" => {
            bare()?;
            let content = b.content(word)?;
            if content.nocase {
                return Err(Fault::new(word, "is given twice for one content"));
            }
            content.nocase = true;
            content.pattern.make_ascii_lowercase();
            Ok(())
        }
        "offset" | "depth" | "distance" | "within" => place(b, word, needed()?),
        "startswith" | "endswith" => {
            bare()?;
            edge(b, word)
        }
        "rawbytes" => b.content(word).map(|_| ()),
        "fast_pattern" => fast_pattern(b, value),
        "isdataat" => data_at(b, needed()?),
        "bsize" => {
            let compare = Compare::parse(word, needed()?, u64::from(u32::MAX))?;
            b.test(Test::Size(compare), false)
        }
        "urilen" => urilen(b, needed()?),
        "absent" => absent(b, value),
        "entropy" => entropy(b, needed()?),
        "pcre" => super::pcre::take(b, needed()?),
        "base64_decode" => base64_decode(b, value),
        "byte_test" | "byte_jump" | "byte_extract" | "byte_math" => super::numbers::take(b, word, needed()?),
        _ => Err(Fault::new(word, "is not supported")),
    }
}

fn parse_content(word: &str, value: &str) -> Result<Content, Fault> {
    if !value.trim_start_matches('!').trim_start().starts_with('"') {
        return Err(Fault::new(word, format!("`{value}` is not in quotes")));
    }
    let (text, negated) = unquote(word, value)?;
    let pattern = pattern(word, text)?;
    if pattern.len() > LONGEST_PATTERN {
        return Err(Fault::new(word, format!("{} bytes are more than {LONGEST_PATTERN}", pattern.len())));
    }
    Ok(Content::new(pattern, negated))
}

fn content(b: &mut Builder, value: &str) -> Result<(), Fault> {
    let content = parse_content("content", value)?;
    b.test(Test::Content(content), false)
}

fn uricontent(b: &mut Builder, value: &str) -> Result<(), Fault> {
    let content = parse_content("uricontent", value)?;
    if b.sticky.is_some() {
        return Err(Fault::new("uricontent", "follows a sticky buffer"));
    }
    b.test_of(Buffer::HttpUri, Test::Content(content))
}

/// `offset`, `depth`, `distance`, `within`.
fn place(b: &mut Builder, word: &str, value: &str) -> Result<(), Fault> {
    let lowest = if word == "distance" { -FARTHEST } else { 0 };
    let (value, _) = unquote(word, value)?;
    let value = b.value(word, value, lowest..=FARTHEST)?;
    let content = b.content(word)?;
    let length = i64::try_from(content.pattern.len()).unwrap_or(i64::MAX);
    if matches!(word, "depth" | "within") && matches!(value, Value::Is(n) if n < length) {
        let Value::Is(n) = value else { return Ok(()) };
        return Err(Fault::new(word, format!("{n} is less than the {length} bytes of its content")));
    }
    if content.starts {
        return Err(Fault::new(word, "cannot be combined with `startswith`"));
    }
    let absolute = matches!(word, "offset" | "depth");
    if absolute && content.is_relative() || !absolute && (content.offset.is_some() || content.depth.is_some())
    {
        let why = "`distance` and `within` cannot be combined with `offset` and `depth` for one content";
        return Err(Fault::new(word, why));
    }
    let field = match word {
        "offset" => &mut content.offset,
        "depth" => &mut content.depth,
        "distance" => &mut content.distance,
        _ => &mut content.within,
    };
    if field.replace(value).is_some() {
        return Err(Fault::new(word, "is given twice for one content"));
    }
    Ok(())
}

fn edge(b: &mut Builder, word: &str) -> Result<(), Fault> {
    let content = b.content(word)?;
    let start = word == "startswith";
    if start && (content.is_relative() || content.offset.is_some() || content.depth.is_some()) {
        let why = "cannot be combined with `offset`, `depth`, `distance` or `within`";
        return Err(Fault::new(word, why));
    }
    let flag = if start { &mut content.starts } else { &mut content.ends };
    if std::mem::replace(flag, true) {
        return Err(Fault::new(word, "is given twice for one content"));
    }
    Ok(())
}

fn fast_pattern(b: &mut Builder, value: Option<&str>) -> Result<(), Fault> {
    const WORD: &str = "fast_pattern";
    let wrong = |text: &str| Fault::new(WORD, format!("`{text}` is neither `only` nor OFFSET,LENGTH"));
    let asked = match value {
        None => Asked::default(),
        Some("only") => Asked { only: true, part: None },
        Some(text) => {
            let (from, length) = text.split_once(',').ok_or_else(|| wrong(text))?;
            let number = |t: &str| t.trim().parse::<u16>().map(usize::from).map_err(|_| wrong(text));
            Asked { only: false, part: Some((number(from)?, number(length)?)) }
        }
    };
    b.ask_fast(asked)
}

fn data_at(b: &mut Builder, value: &str) -> Result<(), Fault> {
    const WORD: &str = "isdataat";
    let (text, negated) = unquote(WORD, value)?;
    let mut parts = text.split(',').map(str::trim);
    let far = b.value(WORD, parts.next().unwrap_or_default(), 0..=65535)?;
    let mut relative = false;
    for part in parts {
        match part {
            "relative" => relative = true,
            "rawbytes" => {}
            other => {
                let fault = Fault::new(WORD, format!("`{other}` is neither `relative` nor `rawbytes`"));
                return Err(fault.or_nearest(other, ["relative", "rawbytes"]));
            }
        }
    }
    b.test(Test::DataAt(far, relative, negated), relative)
}

fn urilen(b: &mut Builder, value: &str) -> Result<(), Fault> {
    let (text, kind) = value.split_once(',').map_or((value, "norm"), |(t, k)| (t, k.trim()));
    let buffer = match kind {
        "norm" => Buffer::HttpUri,
        "raw" => Buffer::HttpUriRaw,
        other => return Err(Fault::new("urilen", format!("`{other}` is neither `norm` nor `raw`"))),
    };
    let compare = Compare::parse("urilen", text, 65535)?;
    b.test_of(buffer, Test::Size(compare))
}

fn absent(b: &mut Builder, value: Option<&str>) -> Result<(), Fault> {
    const KNOWN: [&str; 3] = ["or_else", "must_error", "error_or"];
    let asked = match value {
        None => Absence::Only,
        Some("or_else") => Absence::OrElse,
        Some("must_error") => Absence::MustError,
        Some("error_or") => Absence::ErrorOr,
        Some(other) => {
            let fault = Fault::new("absent", format!("`{other}` is not one of {}", KNOWN.join(", ")));
            return Err(fault.or_nearest(other, KNOWN));
        }
    };
    if b.sticky.is_none() {
        return Err(Fault::new("absent", "has no sticky buffer before it"));
    }
    let section = b.section(false)?;
    let section = &b.rule.sections[section];
    if !section.tests.is_empty() {
        return Err(Fault::new("absent", "must be the first that is asked of its buffer"));
    }
    let can_fail = |t: &Transform| matches!(t, Transform::Pcre(_) | Transform::FromBase64(..));
    if matches!(asked, Absence::MustError | Absence::ErrorOr) && !section.transforms.iter().any(can_fail) {
        return Err(Fault::new(
            "absent",
            "there is no transform before it that could make nothing of the buffer",
        ));
    }
    b.test(Test::Absent(asked), false)
}

fn entropy(b: &mut Builder, value: &str) -> Result<(), Fault> {
    const WORD: &str = "entropy";
    let (mut bytes, mut offset, mut compare) = (0, 0, None);
    for part in value.split(',').map(str::trim) {
        let (name, rest) = part.split_once(char::is_whitespace).unwrap_or((part, ""));
        let number = || {
            rest.trim().parse::<usize>().map_err(|_| Fault::new(WORD, format!("`{rest}` is not a number")))
        };
        match name {
            "bytes" => bytes = number()?,
            "offset" => offset = number()?,
            "value" => compare = Some(float_compare(rest)?),
            other => {
                let fault = Fault::new(WORD, format!("`{other}` is not `bytes`, `offset` or `value`"));
                return Err(fault.or_nearest(other, ["bytes", "offset", "value"]));
            }
        }
    }
    let compare = compare.ok_or_else(|| Fault::new(WORD, "has no `value`"))?;
    b.test(Test::Entropy(bytes, offset, compare), false)
}

fn float_compare(text: &str) -> Result<FloatCompare, Fault> {
    let text = text.trim();
    let wrong = || Fault::new("entropy", format!("`{text}` is not a comparison with a number in 0..=8"));
    let one = |t: &str| t.trim().parse::<f64>().ok().filter(|n| (0.0..=8.0).contains(n)).ok_or_else(wrong);
    let pair = |t: &str| t.split_once("<>").or_else(|| t.split_once('-')).map(|(a, b)| (one(a), one(b)));
    for (sign, make) in [
        ("<=", FloatCompare::AtMost as fn(f64) -> FloatCompare),
        (">=", FloatCompare::AtLeast),
        ("!=", FloatCompare::NotEqual),
        ("=", FloatCompare::Equal),
        ("<", FloatCompare::Less),
        (">", FloatCompare::Greater),
    ] {
        if let Some(rest) = text.strip_prefix(sign) {
            return one(rest).map(make);
        }
    }
    if let Some(rest) = text.strip_prefix('!') {
        return match pair(rest) {
            Some((low, high)) => Ok(FloatCompare::NotBetween(low?, high?)),
            None => one(rest).map(FloatCompare::NotEqual),
        };
    }
    match pair(text) {
        Some((low, high)) => Ok(FloatCompare::Between(low?, high?)),
        None => one(text).map(FloatCompare::Equal),
    }
}

fn base64_decode(b: &mut Builder, value: Option<&str>) -> Result<(), Fault> {
    const WORD: &str = "base64_decode";
    let (mut bytes, mut offset, mut relative) = (0, 0, false);
    for part in value.unwrap_or_default().split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (name, rest) = part.split_once(char::is_whitespace).unwrap_or((part, ""));
        let number = || {
            let n = rest
                .trim()
                .parse::<u16>()
                .map_err(|_| Fault::new(WORD, format!("`{rest}` is not in 0..=65535")));
            n.map(usize::from)
        };
        match name {
            "bytes" => bytes = number()?,
            "offset" => offset = number()?,
            "relative" => relative = true,
            other => {
                let fault = Fault::new(WORD, format!("`{other}` is not `bytes`, `offset` or `relative`"));
                return Err(fault.or_nearest(other, ["bytes", "offset", "relative"]));
            }
        }
    }
    b.test(Test::Base64 { bytes, offset, relative }, relative)
}

/// The rules of base64 by their name.
pub(crate) fn base64_mode(field: &str, name: &str) -> Result<Base64Mode, Fault> {
    const KNOWN: [&str; 3] = ["strict", "rfc4648", "rfc2045"];
    match name.trim().to_ascii_lowercase().as_str() {
        "strict" => Ok(Base64Mode::Strict),
        "rfc4648" => Ok(Base64Mode::Rfc4648),
        "rfc2045" => Ok(Base64Mode::Rfc2045),
        other => Err(Fault::new(field, format!("`{other}` is no mode of base64")).or_nearest(other, KNOWN)),
    }
}
