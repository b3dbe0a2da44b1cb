//! Words of a line, some in double quotes.

/// A word and where it begins: column in characters, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) column: usize,
}

/// Takes a line apart.
///
/// # Errors
/// The column of a quote that is not closed.
pub(super) fn split(line: &str) -> Result<Vec<Word>, usize> {
    let mut words = Vec::new();
    let mut chars = line.chars().zip(1..).peekable();
    while let Some((first, column)) = chars.peek().copied() {
        if first.is_whitespace() {
            chars.next();
            continue;
        }
        let mut text = String::new();
        let mut quoted = None;
        loop {
            match chars.next() {
                None => match quoted {
                    Some(column) => return Err(column),
                    None => break,
                },
                Some(('"', column)) => quoted = if quoted.is_some() { None } else { Some(column) },
                Some(('\\', _)) if quoted.is_some() => text.extend(chars.next().map(|(c, _)| c)),
                Some((c, _)) if c.is_whitespace() && quoted.is_none() => break,
                Some((c, _)) => text.push(c),
            }
        }
        words.push(Word { text, column });
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hold_words_together() {
        let texts = |line| split(line).unwrap().into_iter().map(|word| word.text).collect::<Vec<_>>();
        assert_eq!(texts(r#"-m comment --comment "a \"b\" c" -j X"#)[3], "a \"b\" c");
        assert_eq!(texts("  a  b\t"), ["a", "b"]);
        assert_eq!(texts(r#""" x"#), ["", "x"]);
        assert_eq!(split("a \"b"), Err(3));
        assert_eq!(split(" ä  b").unwrap()[1].column, 5);
    }
}
