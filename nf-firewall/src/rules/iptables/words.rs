//! Words of a line, some in double quotes.

/// Takes a line apart.
///
/// # Errors
/// A quote that is not closed.
pub(super) fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    while let Some(first) = chars.peek().copied() {
        if first.is_whitespace() {
            chars.next();
            continue;
        }
        let mut word = String::new();
        let mut quoted = false;
        loop {
            match chars.next() {
                None if quoted => return Err("a quote is not closed".into()),
                None => break,
                Some('"') => quoted = !quoted,
                Some('\\') if quoted => word.extend(chars.next()),
                Some(c) if c.is_whitespace() && !quoted => break,
                Some(c) => word.push(c),
            }
        }
        words.push(word);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hold_words_together() {
        assert_eq!(split(r#"-m comment --comment "a \"b\" c" -j X"#).unwrap()[3], "a \"b\" c");
        assert_eq!(split("  a  b\t").unwrap(), ["a", "b"]);
        assert_eq!(split(r#""" x"#).unwrap(), ["", "x"]);
        assert!(split("a \"b").is_err());
    }
}
