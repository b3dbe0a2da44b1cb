//! URIs of requests: parts, and the normalised form that rules match in.
//!
//! The path is percent-decoded once, with encoded and backward slashes as separators, several of them as one, UTF-8 as single
//! bytes, and dot segments taken out (RFC 3986, section 5.2.4); the query is percent-decoded once. `%uXXXX`, of servers on
//! Windows, is an escape too. Invalid escapes stay as they are.

use super::bestfit;

/// The parts of a request's URI, as sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    /// Host of an absolute URI.
    pub(super) host: Option<&'a [u8]>,
    /// Port of an absolute URI, as text.
    pub(super) port: Option<&'a [u8]>,
    /// Path; empty when there is none.
    pub(super) path: &'a [u8],
    /// What follows the first `?`.
    pub(super) query: Option<&'a [u8]>,
    /// What follows the first `#`.
    pub(super) fragment: Option<&'a [u8]>,
}

/// Splits at the first of `any`, which stays with the second part.
fn cut<'a>(text: &'a [u8], any: &[u8]) -> (&'a [u8], &'a [u8]) {
    text.split_at(text.iter().position(|byte| any.contains(byte)).unwrap_or(text.len()))
}

/// Host and port of an authority, without user and password; an IPv6 address keeps its brackets.
pub(super) fn host_and_port(authority: &[u8]) -> (&[u8], Option<&[u8]>) {
    let start = memchr::memrchr(b'@', authority).map_or(0, |at| at + 1);
    let rest = &authority[start..];
    let after =
        if rest.first() == Some(&b'[') { memchr::memchr(b']', rest).map_or(0, |at| at + 1) } else { 0 };
    match memchr::memchr(b':', &rest[after..]) {
        Some(at) => (&rest[..after + at], Some(&rest[after + at + 1..])),
        None => (rest, None),
    }
}

/// Reads the parts of a URI.
pub(super) fn parse(uri: &[u8]) -> Parts<'_> {
    let mut parts = Parts::default();
    let mut rest = uri;
    if rest.first() != Some(&b'/')
        && let Some(colon) = memchr::memchr(b':', rest)
    {
        rest = &rest[colon + 1..];
        if rest.starts_with(b"//") && rest.get(2) != Some(&b'/') {
            let (authority, after) = cut(&rest[2..], b"/?#");
            let (host, port) = host_and_port(authority);
            (parts.host, parts.port) = (Some(host), port);
            rest = after;
        }
    }
    let (path, after) = cut(rest, b"?#");
    parts.path = path;
    rest = after;
    if let [b'?', after @ ..] = rest {
        let (query, after) = cut(after, b"#");
        parts.query = Some(query);
        rest = after;
    }
    if let [b'#', fragment @ ..] = rest {
        parts.fragment = Some(fragment);
    }
    parts
}

/// The byte that `%XX` at the start of `text` stands for.
fn escaped(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

/// The byte that `%uXXXX` at the start of `text` stands for.
fn escaped_wide(text: &[u8]) -> Option<u8> {
    let [b'%', b'u' | b'U', rest @ ..] = text else { return None };
    let number = rest
        .get(..4)?
        .iter()
        .try_fold(0, |number, digit| char::from(*digit).to_digit(16).map(|digit| number << 4 | digit))?;
    Some(bestfit::byte(number))
}

/// Decodes percent escapes.
pub(super) fn decode(text: &[u8], into: &mut Vec<u8>) {
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let narrow = escaped(rest).map(|byte| (byte, 3));
        let (byte, used) =
            narrow.or_else(|| escaped_wide(rest).map(|byte| (byte, 6))).unwrap_or((rest[0], 1));
        into.push(byte);
        at += used;
    }
}

/// Decodes a path and makes its separators single forward slashes.
fn decode_path(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    decode(path, &mut decoded);
    let mut out: Vec<u8> = Vec::with_capacity(decoded.len());
    for byte in decoded {
        let byte = if byte == b'\\' { b'/' } else { byte };
        if byte != b'/' || out.last() != Some(&b'/') {
            out.push(byte);
        }
    }
    if out.is_ascii() { out } else { bestfit::from_utf8(&out) }
}

/// Takes out `.` and `..` segments.
fn without_dots(path: &[u8], into: &mut Vec<u8>) {
    let start = into.len();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(b"../").or_else(|| rest.strip_prefix(b"./")) {
            rest = after;
        } else if rest.starts_with(b"/./") {
            rest = &rest[2..];
        } else if rest == b"/." {
            rest = b"/";
        } else if rest.starts_with(b"/../") || rest == b"/.." {
            rest = if rest.len() > 3 { &rest[3..] } else { b"/" };
            let kept = into[start..].iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            into.truncate(start + kept);
        } else if rest == b"." || rest == b".." {
            rest = b"";
        } else {
            let end = memchr::memchr(b'/', &rest[1..]).map_or(rest.len(), |at| at + 1);
            into.extend_from_slice(&rest[..end]);
            rest = &rest[end..];
        }
    }
}

/// The normalised form.
pub(super) fn normalise(parts: &Parts<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(parts.path.len() + parts.query.map_or(0, <[u8]>::len) + 1);
    without_dots(&decode_path(parts.path), &mut out);
    if let Some(query) = parts.query {
        out.push(b'?');
        decode(query, &mut out);
    }
    if let Some(fragment) = parts.fragment {
        out.push(b'#');
        out.extend_from_slice(fragment);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(uri: &str) -> String {
        String::from_utf8_lossy(&normalise(&parse(uri.as_bytes()))).into_owned()
    }

    #[test]
    fn paths_are_decoded_and_lose_their_dots() {
        assert_eq!(normal("/../a/b/../c/./d.html"), "/a/c/d.html");
        assert_eq!(normal("/normalized%20uri"), "/normalized uri");
        assert_eq!(normal("//a%2f%2e%2e%5cb"), "/b");
        assert_eq!(normal("/a/%zz/%4"), "/a/%zz/%4");
        assert_eq!(normal("/a/.."), "/");
        assert_eq!(normal("a/b"), "a/b");
        assert_eq!(normal(""), "");
    }

    #[test]
    fn wide_escapes_and_utf8_are_decoded() {
        assert_eq!(normal("/%u0061%U0062%u2215%uff0e./c"), "/c");
        assert_eq!(normal("/%u00zz%u12"), "/%u00zz%u12");
        assert_eq!(
            normal("/a%c0%af..%ef%bc%8fb%c3%a9?%u0041%c3%a9"),
            String::from_utf8_lossy(b"/b\xe9?A\xc3\xa9")
        );
        assert_eq!(normal("/a%c4%80"), "/aA");
    }

    #[test]
    fn queries_are_decoded_but_not_made_into_paths() {
        assert_eq!(normal("/?arg=Zm%209v+%2e%2e/x#y%20"), "/?arg=Zm 9v+../x#y%20");
    }

    #[test]
    fn absolute_uris_have_a_host() {
        let parts = parse(b"http://user:pw@www.example.com:8080/x?y");
        assert_eq!(parts.host, Some(&b"www.example.com"[..]));
        assert_eq!(parts.port, Some(&b"8080"[..]));
        assert_eq!(normal("http://h/x?y"), "/x?y");
        assert_eq!(host_and_port(b"[::1]:80"), (&b"[::1]"[..], Some(&b"80"[..])));
    }
}
