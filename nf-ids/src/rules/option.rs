//! Cutting a rule into its header and its options.
//!
//! Options end with `;`; a value may contain any character, with `\` before `"`, `;` and `\`. What an option's
//! value means is its keyword's to say: here it stays text, with the place where it stood.

use super::refusal::Fault;

/// One option of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RuleOption<'a> {
    /// The keyword.
    pub(crate) name: &'a str,
    /// What follows the colon, trimmed, quotes and all.
    pub(crate) value: Option<&'a str>,
    /// Where the keyword stands in the rule's text.
    pub(crate) at: usize,
}

/// The seven parts before the parenthesis, each with its place, and what is between the parentheses, with its place.
pub(crate) type Parts<'a> = (Vec<(&'a str, usize)>, &'a str, usize);

/// Header parts and body of a rule.
pub(crate) fn split(text: &str) -> Result<Parts<'_>, (usize, Fault)> {
    let open = body_start(text).ok_or_else(|| {
        (text.trim_end().len().saturating_sub(1), Fault::new("rule", "has no options in parentheses"))
    })?;
    let close = without_comment(text).trim_end().len();
    if close <= open + 1 || !text[..close].ends_with(')') {
        return Err((close.saturating_sub(1), Fault::new("rule", "does not end with `)`")));
    }
    Ok((words(&text[..open]), &text[open + 1..close - 1], open + 1))
}

/// A rule without a comment behind it.
fn without_comment(text: &str) -> &str {
    match text.rfind(')').map(|at| text.split_at(at + 1)) {
        Some((rule, rest)) if rest.trim_start().starts_with('#') => rule,
        _ => text,
    }
}

/// Where the parenthesis of the options is: the first that is not within brackets.
fn body_start(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' => depth = depth.saturating_sub(1),
            b'(' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

/// Words, where white space within brackets does not part.
fn words(text: &str) -> Vec<(&str, usize)> {
    let (mut all, mut from, mut depth) = (Vec::new(), None, 0usize);
    for (at, byte) in text.bytes().enumerate() {
        if byte.is_ascii_whitespace() && depth == 0 {
            if let Some(from) = from.take() {
                all.push((&text[from..at], from));
            }
            continue;
        }
        match byte {
            b'[' => depth += 1,
            b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        from.get_or_insert(at);
    }
    all.extend(from.map(|from| (&text[from..], from)));
    all
}

/// The options of a rule's body, which starts at `base` of its text.
pub(crate) fn options(body: &str, base: usize) -> Result<Vec<RuleOption<'_>>, (usize, Fault)> {
    let bytes = body.as_bytes();
    let mut all = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = option_end(bytes, at);
        let text = body[at..end].trim();
        let start = base + at + (body[at..end].len() - body[at..end].trim_start().len());
        if end == bytes.len() && !text.is_empty() {
            return Err((
                start,
                Fault::new(text.split(':').next().unwrap_or(text).trim(), "does not end with `;`"),
            ));
        }
        at = end + 1;
        if text.is_empty() {
            continue;
        }
        let (name, value) = match text.split_once(':') {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (text, None),
        };
        all.push(RuleOption { name, value: value.filter(|v| !v.is_empty()), at: start });
    }
    Ok(all)
}

/// The `;` that ends the option at `from`, or the end of the body. As in Suricata a `;` ends an option also within
/// quotes unless it is escaped, so that a stray quote harms one option and not the rest of the rule.
fn option_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b';' => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// The text of a quoted value, whether a `!` stood before it, and without quotes where there are none.
pub(crate) fn unquote<'a>(field: &str, value: &'a str) -> Result<(&'a str, bool), Fault> {
    let (value, negated) = match value.strip_prefix('!') {
        Some(rest) => (rest.trim_start(), true),
        None => (value, false),
    };
    let Some(inner) = value.strip_prefix('"') else { return Ok((value, negated)) };
    match inner.strip_suffix('"') {
        Some(inner) => Ok((inner, negated)),
        None => Err(Fault::new(field, format!("quote of `{value}` does not close"))),
    }
}

/// A text with its escapes resolved.
pub(crate) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let c = if c == '\\' { chars.next().unwrap_or('\\') } else { c };
        out.push(super::text::raw_byte(c).map_or(c, char::from));
    }
    out
}

/// The bytes of a `content`: characters, escapes, and hexadecimal between bars.
pub(crate) fn pattern(field: &str, text: &str) -> Result<Vec<u8>, Fault> {
    let wrong = |why: &str| Fault::new(field, format!("`{text}` {why}"));
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = super::text::bytes_of(text).into_iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => match bytes.next() {
                Some(b @ (b'"' | b';' | b'\\' | b':' | b'|' | b'\'')) => out.push(b),
                _ => return Err(wrong("has a `\\` that is not before `\"`, `;`, `:`, `|` or `\\`")),
            },
            b'|' => {
                let mut high = None;
                loop {
                    match bytes.next() {
                        Some(b'|') if high.is_none() => break,
                        Some(b' ') => {}
                        Some(digit) if digit.is_ascii_hexdigit() => {
                            let value =
                                u8::try_from(char::from(digit).to_digit(16).unwrap_or(0)).unwrap_or(0);
                            match high.take() {
                                Some(first) => out.push(first << 4 | value),
                                None => high = Some(value),
                            }
                        }
                        _ => {
                            return Err(wrong(
                                "has bytes between bars that are not pairs of hexadecimal digits",
                            ));
                        }
                    }
                }
            }
            byte => out.push(byte),
        }
    }
    if out.is_empty() {
        return Err(wrong("is empty"));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_cut_where_it_should_be() {
        let text = r#"alert tcp [1.1.1.1, 2.2.2.2] any -> any 80 (msg:"a\;b\"c"; content:!"x|3b|y"; nocase; sid:1;)"#;
        let (parts, body, at) = split(text).unwrap();
        assert_eq!(parts.len(), 7);
        assert_eq!(parts[2].0, "[1.1.1.1, 2.2.2.2]");
        let all = options(body, at).unwrap();
        let names: Vec<&str> = all.iter().map(|o| o.name).collect();
        assert_eq!(names, ["msg", "content", "nocase", "sid"]);
        assert_eq!(all[1].value, Some(r#"!"x|3b|y""#));
        assert_eq!(&text[all[3].at..all[3].at + 3], "sid");
    }

    #[test]
    fn patterns_take_text_escapes_and_hexadecimal() {
        assert_eq!(pattern("content", r#"a|0D 0a|\;|7C|b"#).unwrap(), b"a\r\n;|b");
        assert_eq!(pattern("content", "|0d0A|").unwrap(), b"\r\n");
        for text in ["", "|0|", "|0d", "|0g|", r"a\x"] {
            assert!(pattern("content", text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_does_not_end_is_named() {
        assert!(split("alert tcp any any -> any any").is_err());
        assert!(split("alert tcp any any -> any any (sid:1;").is_err());
        assert!(split("alert tcp any any -> any any (sid:1;) # why").is_ok());
        assert!(options("sid:1; rev", 0).is_err());
    }
}
