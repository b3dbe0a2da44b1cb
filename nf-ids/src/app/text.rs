//! Bytes of strangers as text for people and tools.

/// The bytes as they are when they are UTF-8; else those beyond ASCII as `\xf2`, as Suricata writes them: different bytes
/// stay different.
pub(super) fn readable(bytes: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.to_string();
    }
    let mut text = String::with_capacity(bytes.len() + 16);
    for byte in bytes {
        if byte.is_ascii() {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn different_bytes_stay_different() {
        assert_eq!(readable("grün\n".as_bytes()), "grün\n");
        assert_eq!(readable(b"a\xff\xfe\0"), "a\\xff\\xfe\0");
    }
}
