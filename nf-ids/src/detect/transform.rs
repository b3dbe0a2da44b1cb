//! What transforms make of a buffer.

use sha1::Digest as _;

use super::base64;
use super::regex::Regex;
use crate::rules::Transform;

/// A transform with what it needs compiled.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// As the rule says.
    Plain(Transform),
    /// `pcrexform`.
    Pcre(Regex),
}

impl Step {
    pub(crate) fn new(transform: &Transform) -> Result<Self, String> {
        match transform {
            Transform::Pcre(expression) => {
                let regex = Regex::new(expression, false)?;
                match regex.groups() {
                    1 => Ok(Step::Pcre(regex)),
                    n => {
                        Err(format!("`pcrexform` needs an expression with one group, `{expression}` has {n}"))
                    }
                }
            }
            other => Ok(Step::Plain(other.clone())),
        }
    }
}

/// The bytes after all steps; `None` when a step has nothing to give.
pub(crate) fn apply(bytes: &[u8], steps: &[Step]) -> Option<Vec<u8>> {
    let mut now = bytes.to_vec();
    for step in steps {
        now = match step {
            Step::Pcre(regex) => {
                let (from, to) = regex.group(&now)?;
                now[from..to].to_vec()
            }
            Step::Plain(transform) => one(&now, transform)?,
        };
    }
    Some(now)
}

fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn one(bytes: &[u8], transform: &Transform) -> Option<Vec<u8>> {
    Some(match transform {
        Transform::StripWhitespace => bytes.iter().copied().filter(|b| !is_space(b)).collect(),
        Transform::CompressWhitespace => compress(bytes),
        Transform::ToLowercase => bytes.to_ascii_lowercase(),
        Transform::ToUppercase => bytes.to_ascii_uppercase(),
        Transform::Md5 => md5::Md5::digest(bytes).to_vec(),
        Transform::Sha1 => sha1::Sha1::digest(bytes).to_vec(),
        Transform::Sha256 => sha2::Sha256::digest(bytes).to_vec(),
        Transform::DotPrefix => [b".", bytes].concat(),
        Transform::Domain => domain(bytes).to_vec(),
        Transform::Tld => bytes.rsplit(|b| *b == b'.').next().unwrap_or_default().to_vec(),
        Transform::UrlDecode => url_decode(bytes),
        Transform::Xor(key) => xor(bytes, key),
        Transform::XorExtract(start, length, at) => {
            let key = bytes.get(*at..at + length)?;
            xor(bytes.get(*start..)?, key)
        }
        Transform::HeaderLowercase => header_lowercase(bytes),
        Transform::StripPseudoHeaders => strip_pseudo(bytes),
        Transform::Pcre(_) => return None,
        Transform::FromBase64(length, offset, mode) => {
            let rest = bytes.get(*offset..)?;
            let part = if *length == 0 { rest } else { rest.get(..*length).unwrap_or(rest) };
            let mut out = Vec::new();
            base64::decode(part, *mode, &mut out);
            if out.is_empty() {
                return None;
            }
            out
        }
        Transform::Subslice(offset, length, truncate) => {
            subslice(bytes, *offset, *length, *truncate).to_vec()
        }
        Transform::Gunzip(most) => unpack(flate2::read::MultiGzDecoder::new(bytes), *most)?,
        Transform::ZlibDeflate(most) => unpack(flate2::read::ZlibDecoder::new(bytes), *most)?,
    })
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for byte in bytes {
        if !is_space(byte) || out.last().is_none_or(|last| !is_space(last)) {
            out.push(*byte);
        }
    }
    out
}

/// The last two labels of a name, or all of it. Without a list of public suffixes that is as much as can be said.
fn domain(bytes: &[u8]) -> &[u8] {
    let mut dots = bytes.iter().enumerate().rev().filter(|(_, b)| **b == b'.').map(|(at, _)| at);
    dots.nth(1).map_or(bytes, |at| &bytes[at + 1..])
}

fn url_decode(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    let digit = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16));
    while at < bytes.len() {
        match (bytes[at], digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high << 4 | low).unwrap_or_default());
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            (byte, ..) => out.push(byte),
        }
        at += 1;
    }
    out
}

fn xor(bytes: &[u8], key: &[u8]) -> Vec<u8> {
    bytes.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k).collect()
}

/// Names of headers in lower case, values as they are.
fn header_lowercase(bytes: &[u8]) -> Vec<u8> {
    let mut name = true;
    bytes
        .iter()
        .map(|byte| {
            match byte {
                b':' => name = false,
                b'\n' => name = true,
                _ => {}
            }
            if name { byte.to_ascii_lowercase() } else { *byte }
        })
        .collect()
}

/// Lines that begin with `:` go.
fn strip_pseudo(bytes: &[u8]) -> Vec<u8> {
    let lines = bytes.split_inclusive(|b| *b == b'\n');
    lines.filter(|line| !line.starts_with(b":")).flatten().copied().collect()
}

/// Part of the bytes. A negative offset counts from the end, as does a negative length. What reaches beyond the
/// bytes gives nothing, or with `truncate` what is there.
fn subslice(bytes: &[u8], offset: i64, length: Option<i64>, truncate: bool) -> &[u8] {
    let all = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
    let start = if offset < 0 { all + offset } else { offset };
    if start < 0 && !truncate {
        return &[];
    }
    let start = start.clamp(0, all);
    let end = match length {
        None => all,
        Some(n) if n < 0 => all + n,
        Some(n) => start + n,
    };
    if end > all && !truncate || end <= start {
        return &[];
    }
    let index = |n: i64| usize::try_from(n).unwrap_or(0);
    &bytes[index(start)..index(end.min(all))]
}

/// What comes out of a packed form, up to a bound; what cannot be unpacked to its end gives what there is.
fn unpack(mut from: impl std::io::Read, most: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut chunk = [0; 4096];
    while out.len() < most {
        match from.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(n) => out.extend_from_slice(&chunk[..n.min(most - out.len())]),
        }
    }
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8], transform: Transform) -> Vec<u8> {
        apply(bytes, &[Step::new(&transform).unwrap()]).unwrap_or_default()
    }

    #[test]
    fn each_transform_makes_what_it_says() {
        assert_eq!(of(b" a \r\nb", Transform::StripWhitespace), b"ab");
        assert_eq!(of(b"a  b", Transform::CompressWhitespace), b"a b");
        assert_eq!(of(b"x.example.org", Transform::Domain), b"example.org");
        assert_eq!(of(b"x.example.org", Transform::Tld), b"org");
        assert_eq!(of(b"a%41+%4", Transform::UrlDecode), b"aA %4");
        assert_eq!(of(b"kCB", Transform::XorExtract(1, 1, 0)), [b'C' ^ b'k', b'B' ^ b'k']);
        assert_eq!(of(b"Abc: X\r\nD: E", Transform::HeaderLowercase), b"abc: X\r\nd: E");
        assert_eq!(of(b":a: b\r\nc: d\r\n", Transform::StripPseudoHeaders), b"c: d\r\n");
        assert_eq!(of(b"GET /x HTTP", Transform::Pcre("GET (.*) HTTP".into())), b"/x");
        assert_eq!(of(b"", Transform::Md5)[..2], [0xd4, 0x1d]);
    }

    #[test]
    fn subslices_count_from_either_end() {
        let text = b"curl/7.64.1";
        assert_eq!(subslice(text, -20, Some(5), true), b"curl/");
        assert_eq!(subslice(text, -20, None, false), b"");
        assert_eq!(subslice(text, 0, Some(-8), true), b"cur");
        assert_eq!(subslice(text, 0, Some(-30), true), b"");
        assert_eq!(subslice(text, -6, Some(30), true), b"7.64.1");
        assert_eq!(subslice(text, 1, Some(30), false), b"");
    }
}
