//! What protects QUIC's first packets (RFC 9001, section 5): keys that anyone can make from what stands in them.
//!
//! It keeps middle boxes from meddling by accident, and nobody from reading. Whether a packet was changed on its way is not
//! asked: what comes out of a wrong one are no frames.

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use sha2::{Digest, Sha256};

/// Salts and words of the versions that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    salt: [u8; 20],
    words: [&'static str; 3],
    /// Type of a first packet, and of one that asks to begin anew (bits 4 and 5 of a long header).
    pub(super) initial: u8,
    pub(super) retry: u8,
}

const OLD_WORDS: [&str; 3] = ["quic key", "quic iv", "quic hp"];

/// Bytes from hexadecimal digits.
const fn salt(digits: &str) -> [u8; 20] {
    const fn digit(byte: u8) -> u8 {
        if byte <= b'9' { byte - b'0' } else { byte - b'a' + 10 }
    }
    let text = digits.as_bytes();
    let mut out = [0; 20];
    let mut at = 0;
    while at < 20 {
        out[at] = digit(text[2 * at]) << 4 | digit(text[2 * at + 1]);
        at += 1;
    }
    out
}

impl Version {
    /// Of a version's number (RFC 9001, section 5.2; RFC 9369, section 3.3; the drafts before).
    pub(super) fn of(number: u32) -> Option<Version> {
        let version = |digits| Version { salt: salt(digits), words: OLD_WORDS, initial: 0, retry: 3 };
        Some(match number {
            1 => version("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"),
            0x6b33_43cf => Version {
                words: ["quicv2 key", "quicv2 iv", "quicv2 hp"],
                initial: 1,
                retry: 0,
                ..version("0dede3def700a6db819381be6e269dcbf9bd2ed9")
            },
            0xff00_001d..=0xff00_0020 => version("afbfec289993d24c9e9786f19c6111e04390a899"),
            0xff00_0017..=0xff00_001c => version("c3eef712c72ebb5a11a7d2432bb46365bef9f502"),
            _ => return None,
        })
    }
}

/// HMAC with SHA-256 (RFC 2104) of a key of at most 64 bytes.
fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut pads = [[0x36u8; 64], [0x5c; 64]];
    for pad in &mut pads {
        pad.iter_mut().zip(key).for_each(|(pad, key)| *pad ^= key);
    }
    let inner = parts.iter().fold(Sha256::new_with_prefix(pads[0]), |hash, part| hash.chain_update(part));
    Sha256::new_with_prefix(pads[1]).chain_update(inner.finalize()).finalize().into()
}

/// The first bytes that a word expands a secret to (RFC 8446, section 7.1; RFC 5869, section 2.3): at most 32.
fn expand(secret: &[u8; 32], word: &str, length: u8) -> [u8; 32] {
    let label = u8::try_from(word.len() + 6).unwrap_or(u8::MAX);
    hmac(secret, &[&[0, length, label], b"tls13 ", word.as_bytes(), &[0], &[1]])
}

/// What protects one side's first packets.
#[derive(Clone)]
pub(super) struct Keys {
    packet: Aes128,
    header: Aes128,
    iv: [u8; 12],
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

/// The first 16 of 32 bytes.
fn half(bytes: &[u8; 32]) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&bytes[..16]);
    out
}

impl Keys {
    /// Of client and server, of the first number of a connection that the client chose.
    pub(super) fn pair(version: &Version, connection: &[u8]) -> [Keys; 2] {
        let first = hmac(&version.salt, &[connection]);
        ["client in", "server in"].map(|side| {
            let secret = expand(&first, side, 32);
            let [key, iv, header] = version.words;
            let mut nonce = [0; 12];
            nonce.copy_from_slice(&expand(&secret, iv, 12)[..12]);
            Keys {
                packet: Aes128::new(&half(&expand(&secret, key, 16)).into()),
                header: Aes128::new(&half(&expand(&secret, header, 16)).into()),
                iv: nonce,
            }
        })
    }

    /// Opens a packet: its first byte, and what follows the length. None when it is too short.
    pub(super) fn open(&self, first: u8, protected: &[u8]) -> Option<Vec<u8>> {
        let sample: [u8; 16] = protected.get(4..20)?.try_into().ok()?;
        let mut mask = aes::Block::from(sample);
        self.header.encrypt_block(&mut mask);
        let length = usize::from((first ^ mask[0]) & 3) + 1;
        let mut number = 0u32;
        for at in 0..length {
            number = number << 8 | u32::from(protected[at] ^ mask[1 + at]);
        }
        // The last 16 bytes are the tag.
        let text = protected.get(length..protected.len().checked_sub(16)?)?;
        Some(self.apply(number, text))
    }

    /// Encrypts or decrypts a packet's content, which is the same (AES-GCM without its tag).
    fn apply(&self, number: u32, text: &[u8]) -> Vec<u8> {
        let mut counter = [0; 16];
        counter[..12].copy_from_slice(&self.iv);
        for (byte, mask) in counter[8..12].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= mask;
        }
        let mut out = Vec::with_capacity(text.len());
        for (place, part) in (2u32..).zip(text.chunks(16)) {
            counter[12..].copy_from_slice(&place.to_be_bytes());
            let mut block = aes::Block::from(counter);
            self.packet.encrypt_block(&mut block);
            out.extend(part.iter().zip(block).map(|(byte, key)| byte ^ key));
        }
        out
    }
}

#[cfg(test)]
impl Keys {
    /// Protects frames as packet 7, whose number takes two bytes: what follows the length, and the first byte.
    pub(super) fn seal(&self, first: u8, frames: &[u8]) -> (u8, Vec<u8>) {
        let mut out = [&[0, 7][..], &self.apply(7, frames), &[0; 16]].concat();
        let mut mask = aes::Block::from(<[u8; 16]>::try_from(&out[4..20]).unwrap());
        self.header.encrypt_block(&mut mask);
        out[0] ^= mask[1];
        out[1] ^= mask[2];
        ((first | 1) ^ (mask[0] & 15), out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_standard() {
        // RFC 9001, appendix A.1: of the connection 8394c8f03e515708.
        let first = hmac(&Version::of(1).unwrap().salt, &[b"\x83\x94\xc8\xf0\x3e\x51\x57\x08"]);
        assert_eq!(first[..4], [0x7d, 0xb5, 0xdf, 0x06]);
        let client = expand(&first, "client in", 32);
        assert_eq!(client[..4], [0xc0, 0x0c, 0xf1, 0x51]);
        assert_eq!(expand(&client, "quic key", 16)[..4], [0x1f, 0x36, 0x96, 0x13]);
        assert_eq!(expand(&client, "quic iv", 12)[..4], [0xfa, 0x04, 0x4b, 0x2f]);
        assert_eq!(expand(&client, "quic hp", 16)[..4], [0x9f, 0x50, 0x44, 0x9e]);
    }

    #[test]
    fn the_servers_packet_of_the_standard_is_opened() {
        // RFC 9001, appendix A.3: an acknowledgement and the server's hello.
        let packet = "75c0d95a482cd0991cd25b0aac406a5816b6394100f37a1c69797554780bb38cc5a99f5ede4cf73c3ec2493a1839b3db\
            cba3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b562bfb19fb84022f8ef4cdd93795d77d06edbb7aaf2f58891850abbdca3d20398c276456cbc42158407dd074ee";
        let bytes: Vec<u8> = (0..packet.len() / 2)
            .map(|at| u8::from_str_radix(&packet[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let [_, server] = Keys::pair(&Version::of(1).unwrap(), b"\x83\x94\xc8\xf0\x3e\x51\x57\x08");
        // The packet begins cf000000010008f067a5502a4262b5004075c0d9…: what follows the length 0x4075 is c0d9….
        let open = server.open(0xcf, &bytes[1..]).unwrap();
        assert_eq!(open[..9], *b"\x02\0\0\0\0\x06\0\x40\x5a");
        assert_eq!(open[9..13], *b"\x02\0\0\x56");
    }
}
