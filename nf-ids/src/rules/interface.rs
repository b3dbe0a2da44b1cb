//! `dcerpc.iface:367abb81-9844-35f1-ad32-98f038001003[,=1][,any_frag]`: calls on connections where this interface was accepted.

use super::compare::{Compare, number};
use super::refusal::Fault;
use super::test::{Content, Endian, Notation, Number, Operator, Test, Value};

/// Bytes of an interface's number.
const UUID: usize = 16;

/// The bytes of a number, `367abb81-9844-35f1-ad32-98f038001003`.
fn uuid(text: &str) -> Option<Vec<u8>> {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    let digits: Vec<u32> = text.chars().filter(|c| *c != '-').filter_map(|c| c.to_digit(16)).collect();
    if lengths != [8, 4, 4, 4, 12] || digits.len() != 2 * UUID {
        return None;
    }
    digits.chunks(2).map(|two| u8::try_from(two[0] << 4 | two[1]).ok()).collect()
}

/// What is asked of a buffer that has the interface's number and, in two bytes, its version.
///
/// # Errors
/// What is wrong with the value.
pub(super) fn tests(word: &str, value: &str) -> Result<Vec<Test>, Fault> {
    let mut parts = value.split(',').map(str::trim);
    let text = parts.next().unwrap_or_default();
    let bytes = uuid(text).ok_or_else(|| {
        Fault::new(
            word,
            format!("`{text}` is no interface's number like 367abb81-9844-35f1-ad32-98f038001003"),
        )
    })?;
    let mut content = Content::new(bytes, false);
    content.starts = true;
    let mut all = vec![Test::Content(content)];
    // The first fragment of an offer has all of it: any other says nothing of interfaces.
    for part in parts.filter(|part| *part != "any_frag") {
        let (operator, negated, version) = match Compare::parse(word, part, u16::MAX.into())? {
            Compare::Equal(version) if number(part).is_none() => (Operator::Equal, false, version),
            Compare::NotEqual(version) => (Operator::Equal, true, version),
            Compare::Less(version) => (Operator::Less, false, version),
            Compare::Greater(version) => (Operator::Greater, false, version),
            _ => {
                return Err(Fault::new(
                    word,
                    format!("`{part}` is neither `any_frag` nor a version after `=<>!`"),
                ));
            }
        };
        let field = Number {
            bytes: Value::Is(2),
            offset: Value::Is(UUID as i64),
            relative: false,
            notation: Notation::Binary(Endian::Big),
            mask: None,
        };
        let version = i64::try_from(version).unwrap_or(i64::MAX);
        all.push(Test::ByteTest(field, operator, negated, Value::Is(version)));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBER: &str = "367abb81-9844-35f1-ad32-98f038001003";

    #[test]
    fn interfaces_and_versions_are_read() {
        let all = tests("x", NUMBER).unwrap();
        let [Test::Content(content)] = &all[..] else { panic!("{all:?}") };
        assert_eq!(content.pattern[..5], [0x36, 0x7a, 0xbb, 0x81, 0x98]);
        for (rest, operator, negated) in [
            (",=1", Operator::Equal, false),
            (", !1 ,any_frag", Operator::Equal, true),
            (",any_frag,>1", Operator::Greater, false),
            (",<1", Operator::Less, false),
        ] {
            let all = tests("x", &format!("{NUMBER}{rest}")).unwrap();
            let [_, Test::ByteTest(_, one, not, Value::Is(1))] = &all[..] else { panic!("{rest}: {all:?}") };
            assert_eq!((*one, *not), (operator, negated), "{rest}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "367abb81",
            "367abb81984435f1ad3298f038001003",
            &format!("{NUMBER},1"),
            &format!("{NUMBER},x"),
        ] {
            assert!(tests("x", text).is_err(), "{text}");
        }
        assert!(tests("x", &NUMBER.replace('b', "g")).is_err());
    }
}
