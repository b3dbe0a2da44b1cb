//! `pcre`: the expression, its flags, and the buffer that a flag's letter names.
//!
//! The flags of the expression are written into it, as PCRE2 reads them at its start, so that what is compiled is one
//! text. `$` under `/E` becomes `\z`, as no inline flag says it.

use std::sync::Arc;

use super::buffers::lettered_buffer;
use super::builder::Builder;
use super::option::unquote;
use super::refusal::Fault;
use super::test::{Capture, Group, Pcre, Place, Test};
use crate::app::Buffer;

/// Bytes that an expression may have.
const LONGEST: usize = 16 << 10;

/// Takes the keyword.
pub(crate) fn take(b: &mut Builder, value: &str) -> Result<(), Fault> {
    const WORD: &str = "pcre";
    let (text, negated) = unquote(WORD, value)?;
    let text = text.split_once("/,").filter(|_| !text.ends_with('/')).map_or(text, |_| text);
    let inner = text
        .strip_prefix('/')
        .ok_or_else(|| Fault::new(WORD, format!("`{text}` does not start with `/`")))?;
    let end = inner.rfind('/').ok_or_else(|| Fault::new(WORD, format!("`{text}` does not end with `/`")))?;
    let (expression, flags) = (&inner[..end], &inner[end + 1..]);
    let (flags, variables) = flags.split_once(',').unwrap_or((flags, ""));
    let flags = flags.trim();
    let captures = captures(WORD, expression, variables)?;
    if expression.len() > LONGEST {
        return Err(Fault::new(WORD, format!("{} bytes are more than {LONGEST}", expression.len())));
    }
    let mut options = String::new();
    let (mut relative, mut unlimited, mut anchored, mut dollar_end, mut buffer) =
        (false, false, false, false, None);
    let mut multiline = false;
    for flag in flags.chars() {
        match flag {
            'i' | 's' | 'x' => options.push(flag),
            'm' => {
                multiline = true;
                options.push(flag);
            }
            'G' => options.push('U'),
            'A' => anchored = true,
            'E' => dollar_end = true,
            'R' => relative = true,
            'O' => unlimited = true,
            'B' => {}
            letter => {
                let known = lettered_buffer(letter).ok_or_else(|| {
                    Fault::new(WORD, format!("`{letter}` after the last `/` is no flag that is known"))
                })?;
                if buffer.replace(known).is_some_and(|before| before != known) {
                    return Err(Fault::new(WORD, format!("flags `{flags}` name two buffers")));
                }
            }
        }
    }
    let written = in_escapes(expression);
    let expression = written.as_str();
    let body = if dollar_end && !multiline { end_only(expression) } else { expression.to_string() };
    let flags = if options.is_empty() { String::new() } else { format!("(?{options})") };
    let expression = if anchored { format!("{flags}\\G(?:{body})") } else { format!("{flags}{body}") };
    let test = Test::Pcre(Pcre { expression, negated, relative, unlimited, captures });
    // The body of a response is what `file.data` has of it.
    let sticky = b.sticky.map(|s| b.rule.sections[s].place);
    let same = buffer == Some(Buffer::HttpResponseBody) && sticky == Some(Place::App(Buffer::FileData));
    match buffer.filter(|_| !same) {
        Some(buffer) => {
            if sticky.is_some_and(|place| place != Place::App(buffer)) {
                return Err(Fault::new(WORD, "names a buffer while a sticky buffer is in force"));
            }
            b.test_of(buffer, test)
        }
        None => b.test(test, relative),
    }
}

/// Groups whose matches are kept: the first ones by the names that follow the flags (`flow:NAME,pkt:NAME`), or those whose own
/// names begin with `flow_` or `pkt_`.
fn captures(word: &str, expression: &str, variables: &str) -> Result<Vec<Capture>, Fault> {
    const MOST: usize = 16;
    let mut all = Vec::new();
    for part in variables.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (kind, name) = part.split_once(':').unwrap_or((part, ""));
        if !matches!(kind, "flow" | "pkt" | "alert") || name.is_empty() {
            let why = format!("`{part}` is not flow:NAME, pkt:NAME or alert:NAME");
            return Err(Fault::new(word, why).or_nearest(kind, ["flow", "pkt", "alert"]));
        }
        let group = Group::Number(all.len() + 1);
        all.push(Capture { group, of_flow: kind == "flow", name: Arc::from(name.trim()) });
    }
    for part in expression.split("(?").skip(1) {
        let named = part.strip_prefix("P<").or_else(|| part.strip_prefix('<'));
        let Some(name) = named.and_then(|rest| rest.split('>').next()) else { continue };
        let kept = [("flow_", true), ("pkt_", false)]
            .iter()
            .find_map(|(prefix, of_flow)| Some((name.strip_prefix(prefix)?, *of_flow)));
        if let Some((variable, of_flow)) = kept {
            all.push(Capture { group: Group::Name(name.to_string()), of_flow, name: Arc::from(variable) });
        }
    }
    if all.len() > MOST {
        return Err(Fault::new(word, format!("keeps more than {MOST} groups")));
    }
    Ok(all)
}

/// The expression with bytes that are not UTF-8 as PCRE2 takes them.
fn in_escapes(expression: &str) -> String {
    let mut out = String::with_capacity(expression.len());
    for c in expression.chars() {
        match super::text::raw_byte(c) {
            Some(byte) => out.push_str(&format!("\\x{byte:02x}")),
            None => out.push(c),
        }
    }
    out
}

/// The expression with every `$` that means the end as `\z`.
fn end_only(expression: &str) -> String {
    let mut out = String::with_capacity(expression.len() + 8);
    let (mut escaped, mut class) = (false, false);
    for c in expression.chars() {
        let plain = !std::mem::replace(&mut escaped, false);
        match c {
            '\\' if plain => escaped = true,
            '[' if plain => class = true,
            ']' if plain => class = false,
            '$' if plain && !class => {
                out.push_str("\\z");
                continue;
            }
            _ => {}
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::end_only;

    #[test]
    fn only_a_dollar_that_means_the_end_is_changed() {
        assert_eq!(end_only(r"a$|\$[$]$"), r"a\z|\$[$]\z");
    }
}
