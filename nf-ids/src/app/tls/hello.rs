//! Hellos of client and server (RFC 8446, section 4.1), and the fingerprints made of them: JA3, JA3S and JA4.

use crate::app::Event;
use crate::app::event::note;
use md5::{Digest, Md5};
use sha2::Sha256;

/// Reads big-endian fields one after the other.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.bytes(1).map(|one| one[0])
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.bytes(2).map(|two| u16::from_be_bytes([two[0], two[1]]))
    }

    pub(super) fn u24(&mut self) -> Option<usize> {
        self.bytes(3)
            .map(|three| usize::from(three[0]) << 16 | usize::from(three[1]) << 8 | usize::from(three[2]))
    }

    /// Bytes with their length in one byte before them.
    pub(super) fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.bytes(usize::from(length))
    }

    /// Bytes with their length in two bytes before them.
    pub(super) fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.bytes(usize::from(length))
    }
}

/// What a hello says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hello {
    /// The version in the fixed part.
    pub(super) version: u16,
    pub(super) random: Vec<u8>,
    pub(super) ciphers: Vec<u16>,
    pub(super) extensions: Vec<u16>,
    groups: Vec<u16>,
    points: Vec<u8>,
    signatures: Vec<u16>,
    /// The versions of the extension that names them.
    versions: Vec<u16>,
    pub(super) alpn: Vec<Vec<u8>>,
    pub(super) sni: Option<Vec<u8>>,
    pub(super) events: Vec<Event>,
}

fn u16s(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).map(|two| u16::from_be_bytes([two[0], two[1]])).collect()
}

/// Values that clients throw in to keep servers tolerant (RFC 8701).
fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

impl Hello {
    /// Reads a hello's body. None when it is cut short before the extensions.
    pub(super) fn parse(body: &[u8], client: bool) -> Option<Hello> {
        let mut reader = Reader(body);
        let mut hello = Hello { version: reader.u16()?, ..Hello::default() };
        hello.random = reader.bytes(32)?.to_vec();
        reader.short()?;
        if client {
            hello.ciphers = u16s(reader.long()?);
            reader.short()?;
        } else {
            hello.ciphers = vec![reader.u16()?];
            reader.u8()?;
        }
        if !reader.0.is_empty() {
            let mut extensions = Reader(reader.long().unwrap_or_else(|| {
                note(&mut hello.events, Event::TlsHandshakeInvalidLength);
                &[]
            }));
            while !extensions.0.is_empty() {
                let (Some(kind), Some(data)) = (extensions.u16(), extensions.long()) else {
                    note(&mut hello.events, Event::TlsHandshakeInvalidLength);
                    break;
                };
                hello.extension(kind, data, client);
            }
        }
        Some(hello)
    }

    fn extension(&mut self, kind: u16, data: &[u8], client: bool) {
        self.extensions.push(kind);
        let mut reader = Reader(data);
        match kind {
            0 if client => self.server_name(data),
            10 => self.groups = u16s(reader.long().unwrap_or_default()),
            11 => self.points = reader.short().unwrap_or_default().to_vec(),
            13 => self.signatures = u16s(reader.long().unwrap_or_default()),
            16 => {
                let mut list = Reader(reader.long().unwrap_or_default());
                while let Some(name) = list.short() {
                    if self.alpn.len() < 64 {
                        self.alpn.push(name.to_vec());
                    }
                }
            }
            43 if client => self.versions = u16s(reader.short().unwrap_or_default()),
            43 => self.versions = reader.u16().into_iter().collect(),
            _ => {}
        }
    }

    fn server_name(&mut self, data: &[u8]) {
        if self.sni.is_some() {
            note(&mut self.events, Event::TlsMultipleSni);
            return;
        }
        if data.is_empty() {
            return;
        }
        let mut list = Reader(Reader(data).long().unwrap_or_default());
        match (list.u8(), list.long()) {
            (Some(0), Some(name)) => self.sni = Some(name.to_vec()),
            (Some(0), None) | (None, _) => note(&mut self.events, Event::TlsInvalidSniLength),
            (Some(_), _) => note(&mut self.events, Event::TlsInvalidSniType),
        }
    }

    /// The version that a client would like best, or that a server chose.
    pub(super) fn preferred_version(&self) -> u16 {
        self.versions.iter().copied().find(|version| !is_grease(*version)).unwrap_or(self.version)
    }

    /// The highest version offered, or the one chosen; of the extension where there is one.
    pub(super) fn real_version(&self) -> u16 {
        self.versions.iter().copied().filter(|version| !is_grease(*version)).max().unwrap_or(self.version)
    }

    /// JA3's text of a client's hello.
    pub(super) fn ja3(&self) -> String {
        let points: Vec<u16> = self.points.iter().map(|point| u16::from(*point)).collect();
        format!(
            "{},{},{},{},{}",
            self.version,
            dashed(&self.ciphers),
            dashed(&self.extensions),
            dashed(&self.groups),
            dashed(&points)
        )
    }

    /// JA3S's text of a server's hello.
    pub(super) fn ja3s(&self) -> String {
        let all = |numbers: &[u16]| numbers.iter().map(u16::to_string).collect::<Vec<_>>().join("-");
        format!("{},{},{}", self.version, all(&self.ciphers), all(&self.extensions))
    }

    /// JA4 of a client's hello: over TCP (`t`) or QUIC (`q`).
    pub(super) fn ja4(&self, carrier: char) -> String {
        let keep = |list: &[u16]| list.iter().copied().filter(|value| !is_grease(*value)).collect::<Vec<_>>();
        let (ciphers, extensions) = (keep(&self.ciphers), keep(&self.extensions));
        let version = match self.real_version() {
            0x0304 => "13",
            0x0303 => "12",
            0x0302 => "11",
            0x0301 => "10",
            0x0300 => "s3",
            0x0002 => "s2",
            _ => "00",
        };
        let name = if extensions.contains(&0) { 'd' } else { 'i' };
        let rest: Vec<u16> = extensions.iter().copied().filter(|kind| !matches!(kind, 0 | 16)).collect();
        let mut tail = sorted_hex(&rest);
        if !self.signatures.is_empty() {
            let signatures: Vec<String> =
                keep(&self.signatures).iter().map(|one| format!("{one:04x}")).collect();
            tail = format!("{tail}_{}", signatures.join(","));
        }
        format!(
            "{carrier}{version}{name}{:02}{:02}{}_{}_{}",
            ciphers.len().min(99),
            extensions.len().min(99),
            self.ja4_alpn(),
            short_hash(&sorted_hex(&ciphers), ciphers.is_empty()),
            short_hash(&tail, rest.is_empty())
        )
    }

    /// First and last character of the first protocol offered.
    fn ja4_alpn(&self) -> String {
        let Some((first, last)) = self.alpn.first().and_then(|name| Some((*name.first()?, *name.last()?)))
        else {
            return "00".into();
        };
        if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
            return format!("{}{}", char::from(first), char::from(last));
        }
        format!("{:x}{:x}", first >> 4, last & 15)
    }
}

fn dashed(numbers: &[u16]) -> String {
    let kept: Vec<String> = numbers.iter().filter(|n| !is_grease(**n)).map(u16::to_string).collect();
    kept.join("-")
}

fn sorted_hex(numbers: &[u16]) -> String {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    sorted.iter().map(|number| format!("{number:04x}")).collect::<Vec<_>>().join(",")
}

fn short_hash(text: &str, none: bool) -> String {
    if none { "0".repeat(12) } else { hex(&Sha256::digest(text.as_bytes())[..6]) }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// MD5 in hexadecimal.
pub(in crate::app) fn md5_hex(text: &[u8]) -> String {
    hex(&Md5::digest(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grease_is_known() {
        assert!(is_grease(0x0a0a) && is_grease(0xfafa) && !is_grease(0x0a1a) && !is_grease(0x1301));
    }

    #[test]
    fn md5_is_md5() {
        assert_eq!(md5_hex(b"abc"), "900150983cd24fb0d6963f7d28e17f72");
    }

    #[test]
    fn fingerprints_of_a_hello() {
        // The example of JA4's own description.
        let hello = Hello {
            version: 0x0303,
            ciphers: vec![
                0x1a1a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013,
                0xc014, 0x009c, 0x009d, 0x002f, 0x0035,
            ],
            extensions: vec![
                0x4a4a, 0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023,
                0x0012, 0x002b, 0xff01, 0x000b, 0x000a, 0x0015, 0x6a6a,
            ],
            signatures: vec![0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601],
            versions: vec![0x2a2a, 0x0304, 0x0303],
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            ..Hello::default()
        };
        assert_eq!(hello.ja4('t'), "t13d1516h2_8daaf6152771_e5627efa2ab1");
        assert_eq!(hello.real_version(), 0x0304);
        assert!(hello.ja3().starts_with("771,4865-4866-4867-49195-"));
    }

    #[test]
    fn every_cut_is_read_or_refused() {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend(b"\0\0\x02\x13\x01\x01\0\0\x10\0\0\0\x0c\0\x0a\0\0\x07a.b.com");
        let whole = Hello::parse(&body, true).unwrap();
        assert_eq!(whole.sni.as_deref(), Some(&b"a.b.com"[..]));
        assert!(whole.events.is_empty());
        for length in 0..body.len() {
            if let Some(hello) = Hello::parse(&body[..length], true) {
                assert!(hello.extensions.is_empty() || hello.sni.is_none(), "{length}");
            }
        }
    }
}
