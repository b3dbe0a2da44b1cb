//! DNS messages in requests and responses (RFC 8484).

use super::tx::Side;
use crate::app::dns::Carried;

/// Longest message.
const MOST: usize = 65_535;

/// Decodes base64url without padding (RFC 4648, section 5). None when there are other characters.
fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.iter().take_while(|byte| **byte != b'=') {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(out)
}

/// The message that one side of a stream carries: in its body when its type says so, or in the path's `dns=`.
pub(super) fn carried(side: &Side) -> Option<Carried> {
    let is_dns = |name: &[u8]| side.first(name).is_some_and(|kind| kind == b"application/dns-message");
    if is_dns(b"content-type") {
        return Carried::parse(side.body.data.get(..side.body.data.len().min(MOST))?);
    }
    let path = side.first(b":path").filter(|_| is_dns(b"accept"))?;
    let start = memchr::memmem::find(path, b"?dns=").or_else(|| memchr::memmem::find(path, b"&dns="))? + 5;
    let text = path[start..].split(|byte| *byte == b'&').next()?;
    Carried::parse(&from_base64(&text[..text.len().min(MOST)])?)
}

#[cfg(test)]
mod tests {
    use super::from_base64;

    #[test]
    fn base64url_is_decoded() {
        assert_eq!(from_base64(b"AAABAAABAAAAAAAA").unwrap(), [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(from_base64(b"_-8").unwrap(), [0xff, 0xef]);
        assert_eq!(from_base64(b"YQ==").unwrap(), b"a");
        assert_eq!(from_base64(b"a+b"), None);
    }
}
