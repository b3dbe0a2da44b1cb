//! Which keyword means which buffer, and how: before the contents it is for (sticky), or after one (a modifier).
//!
//! What buffers there are and what is in them is the application layer's to say
//! ([`Buffer`](crate::app::Buffer)); here are the ways that rules have of naming them.

use crate::app::Buffer;

/// Modifiers, which move the `content` before them, and the letters of `pcre` for the same.
const MODIFIERS: &[(&str, char, Buffer)] = &[
    ("http_uri", 'U', Buffer::HttpUri),
    ("http_raw_uri", 'I', Buffer::HttpUriRaw),
    ("http_method", 'M', Buffer::HttpMethod),
    ("http_header", 'H', Buffer::HttpHeader),
    ("http_raw_header", 'D', Buffer::HttpHeaderRaw),
    ("http_cookie", 'C', Buffer::HttpCookie),
    ("http_user_agent", 'V', Buffer::HttpUserAgent),
    ("http_host", 'W', Buffer::HttpHost),
    ("http_raw_host", 'Z', Buffer::HttpHostRaw),
    ("http_client_body", 'P', Buffer::HttpRequestBody),
    ("http_server_body", 'Q', Buffer::HttpResponseBody),
    ("http_stat_code", 'S', Buffer::HttpStatCode),
    ("http_stat_msg", 'Y', Buffer::HttpStatMsg),
];

/// Keywords that have a `content` as their value, and the buffers that it is for.
pub(crate) const CONTENTS: &[(&str, Buffer)] = &[
    ("tls.subject", Buffer::TlsCertSubject),
    ("tls.issuerdn", Buffer::TlsCertIssuer),
    ("tls.fingerprint", Buffer::TlsCertFingerprint),
    ("ssh.softwareversion", Buffer::SshSoftware),
    ("filename", Buffer::FileName),
    ("fileext", Buffer::FileName),
];

/// The buffer that a modifier moves the `content` before it to.
pub(crate) fn modified_buffer(keyword: &str) -> Option<Buffer> {
    MODIFIERS.iter().find(|(word, ..)| *word == keyword).map(|(.., buffer)| *buffer)
}

/// The buffer that a letter of `pcre` means.
pub(crate) fn lettered_buffer(letter: char) -> Option<Buffer> {
    MODIFIERS.iter().find(|(_, l, _)| *l == letter).map(|(.., buffer)| *buffer)
}

/// The buffer that a sticky keyword selects. Of a name with dots, the form with `_` is as good.
pub(crate) fn sticky_buffer(keyword: &str) -> Option<Buffer> {
    let other = modified_buffer(keyword).is_some() || CONTENTS.iter().any(|(w, _)| *w == keyword);
    if other || keyword == "uricontent" {
        return None;
    }
    let dotted = || Buffer::keywords().find(|known| known.replace('.', "_") == keyword);
    Buffer::by_keyword(keyword).or_else(|| dotted().and_then(Buffer::by_keyword))
}

/// Every keyword of this room.
pub(crate) fn words() -> impl Iterator<Item = &'static str> {
    Buffer::keywords().chain(CONTENTS.iter().map(|(word, _)| *word))
}

/// Writes a pattern as its buffer is written: hashes have small letters, serial numbers capitals, whatever a rule has.
pub(crate) fn fold(buffer: Buffer, pattern: &mut [u8]) {
    match buffer {
        Buffer::Ja3Hash
        | Buffer::Ja3sHash
        | Buffer::SshHassh
        | Buffer::SshHasshServer
        | Buffer::QuicCyuHash
        | Buffer::TlsCertFingerprint => pattern.make_ascii_lowercase(),
        Buffer::TlsCertSerial => pattern.make_ascii_uppercase(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_sticky_or_modifiers() {
        assert_eq!(modified_buffer("http_uri"), Some(Buffer::HttpUri));
        assert_eq!(lettered_buffer('P'), Some(Buffer::HttpRequestBody));
        assert_eq!(sticky_buffer("dns_query"), Some(Buffer::DnsQuery));
        assert_eq!(sticky_buffer("ssh_hassh_server"), Some(Buffer::SshHasshServer));
        assert_eq!(sticky_buffer("http_uri"), None);
        assert_eq!(sticky_buffer("tls.fingerprint"), None);
    }
}
