//! `byte_test`, `byte_jump`, `byte_extract` and `byte_math`: numbers that stand in the bytes.

use super::builder::Builder;
use super::refusal::Fault;
use super::test::{Arithmetic, Endian, Jump, Notation, Number, Operator, Test, Value};

/// Digits of a number as text.
const MOST_DIGITS: i64 = 23;
/// The range of offsets.
const OFFSETS: std::ops::RangeInclusive<i64> = -65535..=65535;

/// Takes one of the four keywords.
pub(crate) fn take(b: &mut Builder, word: &str, value: &str) -> Result<(), Fault> {
    let parts: Vec<&str> = value.split(',').map(str::trim).collect();
    match word {
        "byte_test" => byte_test(b, &parts),
        "byte_jump" => byte_jump(b, &parts),
        "byte_extract" => byte_extract(b, &parts),
        _ => byte_math(b, &parts),
    }
}

/// What the options after the fixed parts say.
#[derive(Debug, Default)]
struct Options<'a> {
    relative: bool,
    string: bool,
    base: Option<u32>,
    endian: Option<Endian>,
    mask: Option<u32>,
    /// Rounded up to a multiple of this.
    align: u32,
    multiplier: u32,
    from_beginning: bool,
    from_end: bool,
    post_offset: Option<&'a str>,
}

const KNOWN: [&str; 15] = [
    "relative",
    "string",
    "hex",
    "dec",
    "oct",
    "big",
    "little",
    "dce",
    "bitmask",
    "align",
    "multiplier",
    "from_beginning",
    "from_end",
    "post_offset",
    "endian",
];

fn unknown(word: &str, part: &str) -> Fault {
    Fault::new(word, format!("`{part}` is no option of it")).or_nearest(part, KNOWN)
}

fn options<'a>(word: &str, parts: &[&'a str]) -> Result<Options<'a>, Fault> {
    let mut all = Options { multiplier: 1, align: 1, ..Options::default() };
    for part in parts {
        let (name, rest) = part.split_once(char::is_whitespace).unwrap_or((part, ""));
        let (name, rest) = (name.to_ascii_lowercase(), rest.trim());
        match (name.as_str(), rest) {
            ("relative", "") => all.relative = true,
            ("string", "") => all.string = true,
            ("string", base) => {
                all.string = true;
                all.base = Some(base_of(word, base)?);
            }
            ("hex" | "dec" | "oct", "") => all.base = Some(base_of(word, &name)?),
            ("big" | "little" | "dce", "") => all.endian = Some(endian_of(word, &name)?),
            ("endian", order) => all.endian = Some(endian_of(word, order)?),
            ("bitmask", mask) => {
                let value =
                    super::compare::number(mask).and_then(|m| u32::try_from(m).ok()).filter(|m| *m != 0);
                let value = value.or_else(|| u32::from_str_radix(mask, 16).ok().filter(|m| *m != 0));
                all.mask = Some(value.ok_or_else(|| {
                    Fault::new(word, format!("`bitmask {mask}` is not in 0x1..=0xffffffff"))
                })?);
            }
            ("align", "" | "4") if word != "byte_test" => all.align = 4,
            ("align", "2") if word == "byte_extract" => all.align = 2,
            ("multiplier", n) if word != "byte_test" => {
                let n = n.parse::<u16>().ok().filter(|n| *n > 0).map(u32::from);
                all.multiplier =
                    n.ok_or_else(|| Fault::new(word, format!("`{part}` is not in 1..=65535")))?;
            }
            ("from_beginning", "") if word == "byte_jump" => all.from_beginning = true,
            ("from_end", "") if word == "byte_jump" => all.from_end = true,
            ("post_offset", n) if word == "byte_jump" => all.post_offset = Some(n),
            _ => return Err(unknown(word, part)),
        }
    }
    if all.base.is_some() && !all.string {
        return Err(Fault::new(word, "`hex`, `dec` and `oct` need `string`"));
    }
    let reads = matches!(word, "byte_extract" | "byte_math");
    if reads && all.string && all.endian.is_some() {
        return Err(Fault::new(word, "`string` and a byte order exclude each other"));
    }
    Ok(all)
}

fn base_of(word: &str, text: &str) -> Result<u32, Fault> {
    match text {
        "hex" => Ok(16),
        "dec" => Ok(10),
        "oct" => Ok(8),
        _ => Err(Fault::new(word, format!("`{text}` is not `hex`, `dec` or `oct`"))),
    }
}

fn endian_of(word: &str, text: &str) -> Result<Endian, Fault> {
    match text {
        "big" => Ok(Endian::Big),
        "little" => Ok(Endian::Little),
        "dce" => Ok(Endian::Dce),
        _ => Err(Fault::new(word, format!("`{text}` is not `big`, `little` or `dce`"))),
    }
}

/// The number that is read, from its count of bytes, its offset and the options.
fn number(
    b: &Builder,
    word: &str,
    bytes: &str,
    offset: &str,
    all: &Options<'_>,
    least: i64,
) -> Result<Number, Fault> {
    let most = if all.string { MOST_DIGITS } else { 8 };
    // Without a base, the digits tell it (`0x`, `0`); `byte_extract` and `byte_math` read decimal ones.
    let base = if matches!(word, "byte_test" | "byte_jump") { 0 } else { 10 };
    Ok(Number {
        bytes: b.value(word, bytes, least..=most)?,
        offset: b.value(word, offset, OFFSETS)?,
        relative: all.relative,
        notation: if all.string {
            Notation::Digits(all.base.unwrap_or(base))
        } else {
            Notation::Binary(all.endian.unwrap_or(Endian::Big))
        },
        mask: all.mask,
    })
}

fn byte_test(b: &mut Builder, parts: &[&str]) -> Result<(), Fault> {
    const WORD: &str = "byte_test";
    let [bytes, operator, value, offset, rest @ ..] = parts else {
        return Err(Fault::new(WORD, "needs BYTES, OPERATOR, VALUE, OFFSET"));
    };
    let all = options(WORD, rest)?;
    // Of a text, 0 bytes are as many as are digits.
    let number = number(b, WORD, bytes, offset, &all, i64::from(!all.string))?;
    let (sign, negated) = match operator.strip_prefix('!') {
        Some("") => ("=", true),
        Some(rest) => (rest.trim(), true),
        None => (*operator, false),
    };
    let operator = match sign {
        "<" => Operator::Less,
        "<=" => Operator::AtMost,
        "=" | "==" => Operator::Equal,
        ">" => Operator::Greater,
        ">=" => Operator::AtLeast,
        "&" => Operator::And,
        "^" => Operator::Xor,
        other => return Err(Fault::new(WORD, format!("`{other}` is not one of < <= = >= > & ^"))),
    };
    let value = b.value(WORD, value, 0..=i64::MAX)?;
    b.test(Test::ByteTest(number, operator, negated, value), all.relative)
}

fn byte_jump(b: &mut Builder, parts: &[&str]) -> Result<(), Fault> {
    const WORD: &str = "byte_jump";
    let [bytes, offset, rest @ ..] = parts else {
        return Err(Fault::new(WORD, "needs BYTES, OFFSET"));
    };
    let all = options(WORD, rest)?;
    let number = number(b, WORD, bytes, offset, &all, 0)?;
    let post_offset = all.post_offset.map_or(Ok(Value::Is(0)), |text| b.value(WORD, text, OFFSETS))?;
    if number.bytes == Value::Is(0) && all.post_offset.is_none() && !all.from_end && !all.from_beginning {
        return Err(Fault::new(WORD, "reads 0 bytes and has no `post_offset`"));
    }
    let jump = Jump {
        number,
        multiplier: all.multiplier,
        align: all.align == 4,
        from_beginning: all.from_beginning,
        from_end: all.from_end,
        post_offset,
    };
    b.test(Test::ByteJump(jump), all.relative)
}

fn byte_extract(b: &mut Builder, parts: &[&str]) -> Result<(), Fault> {
    const WORD: &str = "byte_extract";
    let [bytes, offset, name, rest @ ..] = parts else {
        return Err(Fault::new(WORD, "needs BYTES, OFFSET, NAME"));
    };
    let all = options(WORD, rest)?;
    let number = number(b, WORD, bytes, offset, &all, 1)?;
    let variable = b.variable(WORD, name)?;
    b.test(Test::ByteExtract(number, all.multiplier, all.align, variable), all.relative)
}

fn byte_math(b: &mut Builder, parts: &[&str]) -> Result<(), Fault> {
    const WORD: &str = "byte_math";
    let (mut bytes, mut offset, mut operator, mut right, mut result) = (None, None, None, None, None);
    let mut rest = Vec::new();
    for part in parts {
        let (name, value) = part.split_once(char::is_whitespace).unwrap_or((part, ""));
        let field = match name {
            "bytes" => &mut bytes,
            "offset" => &mut offset,
            "oper" => &mut operator,
            "rvalue" => &mut right,
            "result" => &mut result,
            _ => {
                rest.push(*part);
                continue;
            }
        };
        if field.replace(value.trim()).is_some() {
            return Err(Fault::new(WORD, format!("`{name}` is given twice")));
        }
    }
    let (Some(bytes), Some(offset), Some(operator), Some(right), Some(result)) =
        (bytes, offset, operator, right, result)
    else {
        return Err(Fault::new(WORD, "needs `bytes`, `offset`, `oper`, `rvalue` and `result`"));
    };
    let all = options(WORD, &rest)?;
    let number = number(b, WORD, bytes, offset, &all, 1)?;
    let operator = match operator {
        "+" => Arithmetic::Add,
        "-" => Arithmetic::Subtract,
        "*" => Arithmetic::Multiply,
        "/" => Arithmetic::Divide,
        "<<" => Arithmetic::Left,
        ">>" => Arithmetic::Right,
        other => return Err(Fault::new(WORD, format!("`oper {other}` is not one of + - * / << >>"))),
    };
    let right = b.value(WORD, right, 0..=i64::from(u32::MAX))?;
    if right == Value::Is(0) && operator == Arithmetic::Divide {
        return Err(Fault::new(WORD, "divides by 0"));
    }
    let variable = b.variable(WORD, result)?;
    b.test(Test::ByteMath(number, operator, right, variable), all.relative)
}
