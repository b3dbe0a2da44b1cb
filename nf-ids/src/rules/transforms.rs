//! Keywords that make other bytes of a buffer before it is asked.

use super::builder::Builder;
use super::option::unquote;
use super::payload::base64_mode;
use super::refusal::Fault;
use super::test::{Base64Mode, Transform};

/// Bytes that unpacking may give.
const MOST_UNPACKED: usize = 1 << 16;

/// Every keyword of this room.
pub(crate) const WORDS: &[&str] = &[
    "strip_whitespace",
    "compress_whitespace",
    "to_lowercase",
    "to_uppercase",
    "to_md5",
    "to_sha1",
    "to_sha256",
    "dotprefix",
    "domain",
    "tld",
    "url_decode",
    "xor",
    "header_lowercase",
    "strip_pseudo_headers",
    "pcrexform",
    "from_base64",
    "subslice",
    "gunzip",
    "zlib_deflate",
];

/// Takes a keyword of this room.
pub(crate) fn take(b: &mut Builder, word: &str, value: Option<&str>) -> Result<(), Fault> {
    let needed = || value.ok_or_else(|| Fault::new(word, "has no value"));
    let transform = match word {
        "strip_whitespace" => Transform::StripWhitespace,
        "compress_whitespace" => Transform::CompressWhitespace,
        "to_lowercase" => Transform::ToLowercase,
        "to_uppercase" => Transform::ToUppercase,
        "to_md5" => Transform::Md5,
        "to_sha1" => Transform::Sha1,
        "to_sha256" => Transform::Sha256,
        "dotprefix" => Transform::DotPrefix,
        "domain" => Transform::Domain,
        "tld" => Transform::Tld,
        "url_decode" => Transform::UrlDecode,
        "header_lowercase" => Transform::HeaderLowercase,
        "strip_pseudo_headers" => Transform::StripPseudoHeaders,
        "xor" => xor(needed()?)?,
        "pcrexform" => {
            let (text, _) = unquote(word, needed()?)?;
            Transform::Pcre(text.to_string())
        }
        "from_base64" => from_base64(value.unwrap_or_default())?,
        "subslice" => subslice(needed()?)?,
        "gunzip" => Transform::Gunzip(most_unpacked(word, value)?),
        "zlib_deflate" => Transform::ZlibDeflate(most_unpacked(word, value)?),
        _ => return Err(Fault::new(word, "is not supported")),
    };
    b.transform(word, transform)
}

fn xor(value: &str) -> Result<Transform, Fault> {
    const WORD: &str = "xor";
    let wrong =
        || Fault::new(WORD, format!("`{value}` is neither a key in hexadecimal nor `offset N, extract N N`"));
    let (text, _) = unquote(WORD, value)?;
    if text.trim_start().starts_with("offset") {
        let mut numbers = Vec::new();
        let (offset, extract) = text.split_once(',').ok_or_else(wrong)?;
        let words: Vec<&str> = offset.split_whitespace().chain(extract.split_whitespace()).collect();
        let ["offset", start, "extract", rest @ ..] = words.as_slice() else { return Err(wrong()) };
        for word in std::iter::once(start).chain(rest) {
            numbers.push(word.parse::<u16>().map(usize::from).map_err(|_| wrong())?);
        }
        return match numbers[..] {
            [start, bytes, at] if (1..=32).contains(&bytes) => Ok(Transform::XorExtract(start, bytes, at)),
            _ => Err(wrong()),
        };
    }
    let digits: Vec<char> = text.trim().chars().collect();
    let byte = |pair: &[char]| {
        let text: String = pair.iter().collect();
        u8::from_str_radix(&text, 16).ok().filter(|_| pair.len() == 2)
    };
    let key: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    key.filter(|key| (1..=256).contains(&key.len())).map(Transform::Xor).ok_or_else(wrong)
}

fn from_base64(value: &str) -> Result<Transform, Fault> {
    const WORD: &str = "from_base64";
    let (mut bytes, mut offset, mut mode) = (0, 0, Base64Mode::Rfc4648);
    for part in value.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (name, rest) = part.split_once([' ', '\t', ':']).unwrap_or((part, ""));
        let number = || {
            let wrong = |_| Fault::new(WORD, format!("`{rest}` is not in 0..=65535"));
            rest.trim().parse::<u16>().map(usize::from).map_err(wrong)
        };
        match name {
            "bytes" => bytes = number()?,
            "offset" => offset = number()?,
            "mode" => mode = base64_mode(WORD, rest)?,
            other => {
                let fault = Fault::new(WORD, format!("`{other}` is not `bytes`, `offset` or `mode`"));
                return Err(fault.or_nearest(other, ["bytes", "offset", "mode"]));
            }
        }
    }
    Ok(Transform::FromBase64(bytes, offset, mode))
}

fn subslice(value: &str) -> Result<Transform, Fault> {
    let wrong = || Fault::new("subslice", format!("`{value}` is not OFFSET[, LENGTH][, truncate]"));
    let mut parts: Vec<&str> = value.split(',').map(str::trim).collect();
    let truncate = parts.last() == Some(&"truncate");
    if truncate {
        parts.pop();
    }
    let number = |text: &str| text.parse::<i32>().map(i64::from).map_err(|_| wrong());
    match parts[..] {
        [offset] => Ok(Transform::Subslice(number(offset)?, None, truncate)),
        [offset, length] => Ok(Transform::Subslice(number(offset)?, Some(number(length)?), truncate)),
        _ => Err(wrong()),
    }
}

fn most_unpacked(word: &str, value: Option<&str>) -> Result<usize, Fault> {
    let Some(text) = value else { return Ok(MOST_UNPACKED) };
    let digits = text.strip_prefix("max-size").map_or(text, str::trim);
    let number = super::compare::number(digits).and_then(|n| usize::try_from(n).ok());
    number
        .filter(|n| (1..=1 << 20).contains(n))
        .ok_or_else(|| Fault::new(word, format!("`{text}` is not `max-size N` with N in 1..=1048576")))
}
