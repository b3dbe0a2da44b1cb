//! Numbers that are read from the bytes, for `byte_test` and its kin.

use super::find::resolve;
use crate::rules::{Arithmetic, Endian, Notation, Number, Operator};

/// Reads a number; also where it ends. `None` when the bytes are not there or are no number.
pub(crate) fn read(
    number: &Number,
    bytes: &[u8],
    last: usize,
    variables: &[u64],
    dce: Endian,
) -> Option<(u64, usize)> {
    let count = usize::try_from(resolve(number.bytes, variables)).ok()?;
    let base = if number.relative { last } else { 0 };
    let start = i64::try_from(base).ok()?.checked_add(resolve(number.offset, variables))?;
    let start = usize::try_from(start).ok()?;
    let part = match number.notation {
        Notation::Digits(_) if count == 0 => bytes.get(start..)?,
        _ => bytes.get(start..start.checked_add(count)?)?,
    };
    let (value, used) = match number.notation {
        Notation::Binary(order) => {
            if count > 8 {
                return None;
            }
            let order = if order == Endian::Dce { dce } else { order };
            let join = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
            let value = match order {
                Endian::Little => part.iter().rev().fold(0, join),
                _ => part.iter().fold(0, join),
            };
            (value, count)
        }
        Notation::Digits(base) => digits(part, base)?,
    };
    let value = number.mask.map_or(value, |mask| (value & u64::from(mask)) >> mask.trailing_zeros());
    Some((value, start + used))
}

/// The number at the start of a text, and how many bytes of it were read. White space and a sign may go before; base 0 is
/// what the digits tell. A negative number is the one that it is in 64 bits, as C reads it.
fn digits(text: &[u8], base: u32) -> Option<(u64, usize)> {
    let mut at = text.iter().take_while(|b| b.is_ascii_whitespace()).count();
    let negative = text.get(at) == Some(&b'-');
    if matches!(text.get(at), Some(b'+' | b'-')) {
        at += 1;
    }
    let zero = text.get(at) == Some(&b'0');
    let prefixed = zero && matches!(text.get(at + 1), Some(b'x' | b'X'));
    let hexadecimal =
        matches!(base, 0 | 16) && prefixed && text.get(at + 2).is_some_and(u8::is_ascii_hexdigit);
    let base = match base {
        _ if hexadecimal => 16,
        0 if zero => 8,
        0 => 10,
        base => base,
    };
    if hexadecimal {
        at += 2;
    }
    let mut value = 0u64;
    let first = at;
    while let Some(digit) = text.get(at).and_then(|b| char::from(*b).to_digit(base)) {
        value = value.checked_mul(u64::from(base))?.checked_add(u64::from(digit))?;
        at += 1;
    }
    (at > first).then_some((if negative { value.wrapping_neg() } else { value }, at))
}

/// Whether `byte_test` holds.
pub(crate) fn holds(value: u64, operator: Operator, right: u64) -> bool {
    match operator {
        Operator::Less => value < right,
        Operator::AtMost => value <= right,
        Operator::Equal => value == right,
        Operator::Greater => value > right,
        Operator::AtLeast => value >= right,
        Operator::And => value & right != 0,
        Operator::Xor => value ^ right != 0,
    }
}

/// What `byte_math` gives; `None` for a division by 0.
pub(crate) fn calculate(left: u64, operator: Arithmetic, right: u64) -> Option<u64> {
    let shift = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Some(match operator {
        Arithmetic::Add => left.wrapping_add(right),
        Arithmetic::Subtract => left.wrapping_sub(right),
        Arithmetic::Multiply => left.wrapping_mul(right),
        Arithmetic::Divide => left.checked_div(right)?,
        Arithmetic::Left => left.checked_shl(shift(right)).unwrap_or(0),
        Arithmetic::Right => left.checked_shr(shift(right)).unwrap_or(0),
    })
}

/// Rounded up to the next multiple of `to`.
pub(crate) fn align(value: u64, to: u64) -> u64 {
    value.checked_next_multiple_of(to).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Value;

    fn number(bytes: i64, offset: i64, relative: bool, notation: Notation) -> Number {
        Number { bytes: Value::Is(bytes), offset: Value::Is(offset), relative, notation, mask: None }
    }

    #[test]
    fn numbers_are_read_in_every_notation() {
        let big = Notation::Binary(Endian::Big);
        let little = Notation::Binary(Endian::Little);
        let read = |n: Number, bytes: &[u8], last| super::read(&n, bytes, last, &[], Endian::Big);
        assert_eq!(read(number(2, 1, false, big), &[9, 1, 2], 0), Some((258, 3)));
        assert_eq!(read(number(2, -1, true, little), &[9, 1, 2], 2), Some((513, 3)));
        assert_eq!(read(number(2, 2, false, big), &[9, 1, 2], 0), None);
        assert_eq!(read(number(1, -1, false, big), &[9], 0), None);
        assert_eq!(read(number(4, 0, false, Notation::Digits(10)), b" 12x", 0), Some((12, 3)));
        assert_eq!(read(number(4, 0, false, Notation::Digits(16)), b"0x1f", 0), Some((31, 4)));
        assert_eq!(read(number(2, 0, false, Notation::Digits(10)), b"xx", 0), None);
        for (text, value) in [("0x1f", 31), ("017 ", 15), ("  99", 99), ("0", 0), ("-1", u64::MAX)] {
            let n = number(i64::try_from(text.len()).unwrap(), 0, false, Notation::Digits(0));
            assert_eq!(read(n, text.as_bytes(), 0).map(|r| r.0), Some(value), "{text}");
        }
        assert_eq!(read(number(0, 1, false, Notation::Digits(10)), b"x1234567y", 0), Some((1_234_567, 8)));
        assert_eq!((align(5, 4), align(5, 2), align(5, 1), align(u64::MAX, 4)), (8, 6, 5, u64::MAX));
        let mut masked = number(1, 0, false, big);
        masked.mask = Some(0xf0);
        assert_eq!(read(masked, &[0x35], 0), Some((3, 1)));
    }
}
