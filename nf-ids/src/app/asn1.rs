//! The little of ASN.1's basic encoding (X.690) that Kerberos and SNMP need: tags, lengths and values.

/// A value with its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item<'a> {
    /// The first byte: class, whether constructed, number.
    pub(super) tag: u8,
    pub(super) value: &'a [u8],
}

/// The item that `bytes` begin with, and what follows; none when it is cut short or has no definite length.
pub(super) fn item(bytes: &[u8]) -> Option<(Item<'_>, &[u8])> {
    let [tag, length, rest @ ..] = bytes else { return None };
    if tag & 0x1f == 0x1f {
        return None;
    }
    let (length, rest) = match length {
        0..=127 => (usize::from(*length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 15))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((Item { tag: *tag, value }, rest))
}

/// The items one after the other in `bytes`.
pub(super) fn items(mut bytes: &[u8]) -> impl Iterator<Item = Item<'_>> {
    std::iter::from_fn(move || {
        let (one, rest) = item(bytes)?;
        bytes = rest;
        Some(one)
    })
}

/// The value of the item with this tag among those in `bytes`.
pub(super) fn find(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    items(bytes).find(|one| one.tag == tag).map(|one| one.value)
}

/// A number; none when it has more than 8 bytes or is negative.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 8 || value[0] & 0x80 != 0 {
        return None;
    }
    Some(value.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_read_and_cuts_refused() {
        let bytes = [0x30, 6, 2, 1, 5, 4, 1, b'x', 0xff];
        let (one, rest) = item(&bytes).unwrap();
        assert_eq!((one.tag, rest), (0x30, &[0xff][..]));
        assert_eq!(find(one.value, 2).and_then(number), Some(5));
        assert_eq!(find(one.value, 4), Some(&b"x"[..]));
        assert!((0..8).all(|length| item(&bytes[..length]).is_none()));
        assert!(item(&[0x30, 0x85, 1, 1, 1, 1, 1]).is_none());
        assert_eq!(item(&[4, 0x81, 1, 7]).map(|(one, _)| one.value), Some(&[7][..]));
    }
}
