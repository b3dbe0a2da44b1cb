//! Keywords that rules have from Snort's early days: `asn1`, `rpc`, `ftpbounce`.

use super::builder::Builder;
use super::refusal::Fault;
use super::rule::{HeaderTest, TransactionTest};
use super::test::Test;
use super::values::Asn1;

/// Every keyword of this room.
pub(crate) const WORDS: &[&str] = &["asn1", "rpc", "ftpbounce"];

/// Takes a keyword of this room.
pub(crate) fn take(b: &mut Builder, word: &str, value: Option<&str>) -> Result<(), Fault> {
    if word == "ftpbounce" {
        if let Some(text) = value {
            return Err(Fault::new(word, format!("takes no value, but has `{text}`")));
        }
        b.rule.transaction.push(TransactionTest::FtpBounce);
        return Ok(());
    }
    let value = value.ok_or_else(|| Fault::new(word, "has no value"))?;
    if word == "rpc" {
        b.header(rpc(value)?);
        return Ok(());
    }
    let test = asn1(value)?;
    b.test(Test::Asn1(test), matches!(test.offset, Some((_, true))))
}

/// `rpc:PROGRAM[,VERSION|*[,PROCEDURE|*]]`.
fn rpc(value: &str) -> Result<HeaderTest, Fault> {
    let wrong = || {
        Fault::new("rpc", format!("`{value}` is not PROGRAM[,VERSION[,PROCEDURE]], the last two `*` for any"))
    };
    let parts: Vec<&str> = value.split(',').map(str::trim).collect();
    let number = |text: &&str| text.parse::<u32>().map_err(|_| wrong());
    let or_any = |text: Option<&&str>| match text {
        None | Some(&"*") => Ok(None),
        Some(text) => number(text).map(Some),
    };
    let (Some(program), true) = (parts.first(), parts.len() <= 3) else { return Err(wrong()) };
    Ok(HeaderTest::Rpc {
        program: number(program)?,
        version: or_any(parts.get(1))?,
        procedure: or_any(parts.get(2))?,
    })
}

/// `asn1:bitstring_overflow, double_overflow, oversize_length 2048, relative_offset 54`.
fn asn1(value: &str) -> Result<Asn1, Fault> {
    const WORD: &str = "asn1";
    const KNOWN: [&str; 5] =
        ["bitstring_overflow", "double_overflow", "oversize_length", "absolute_offset", "relative_offset"];
    let mut all = Asn1::default();
    for part in value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, text) = part.split_once(char::is_whitespace).unwrap_or((part, ""));
        let wrong = || Fault::new(WORD, format!("`{part}` has no number in -65535..=65535"));
        let number = || text.trim().parse::<i32>().ok().filter(|n| n.abs() <= 65_535).ok_or_else(wrong);
        match name {
            "bitstring_overflow" => all.bit_string = true,
            "double_overflow" => all.double = true,
            "oversize_length" => all.longest = Some(u32::try_from(number()?).map_err(|_| wrong())?),
            "absolute_offset" | "relative_offset" => {
                let relative = name == "relative_offset";
                if all.offset.replace((number()?, relative)).is_some() {
                    return Err(Fault::new(WORD, "has two offsets"));
                }
            }
            other => {
                let fault = Fault::new(WORD, format!("`{other}` is not one of {}", KNOWN.join(", ")));
                return Err(fault.or_nearest(other, KNOWN));
            }
        }
    }
    if !all.bit_string && !all.double && all.longest.is_none() {
        return Err(Fault::new(WORD, "asks nothing"));
    }
    Ok(all)
}
