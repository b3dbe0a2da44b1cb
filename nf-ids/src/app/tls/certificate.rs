//! Certificates (RFC 5280), as far as rules ask of them.

use super::hello::hex;
use crate::app::Event;
use sha1::{Digest, Sha1};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Names of one certificate that are kept.
const MOST_NAMES: usize = 512;

/// What is kept of the first certificate of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Certificate {
    /// As `C=US, ST=WA, CN=x`.
    pub(super) subject: Vec<u8>,
    pub(super) issuer: Vec<u8>,
    /// As `0A:1B`.
    pub(super) serial: Vec<u8>,
    /// SHA-1 of the whole, as `0a:1b:…`.
    pub(super) fingerprint: Vec<u8>,
    /// Seconds since 1970.
    pub(super) not_before: i64,
    pub(super) not_after: i64,
    pub(super) names: Vec<Vec<u8>>,
}

fn colons(bytes: &[u8], upper: bool) -> String {
    let one = |byte: &u8| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") };
    bytes.iter().map(one).collect::<Vec<_>>().join(":")
}

/// The fingerprint of a certificate, readable or not.
pub(super) fn fingerprint(der: &[u8]) -> Vec<u8> {
    colons(&Sha1::digest(der), false).into_bytes()
}

/// An alternative name in text.
fn general_name(name: &GeneralName<'_>) -> Option<Vec<u8>> {
    Some(match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => {
            text.as_bytes().to_vec()
        }
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => std::net::Ipv4Addr::new(a, b, c, d).to_string().into_bytes(),
            _ => match <[u8; 16]>::try_from(*bytes) {
                Ok(octets) => std::net::Ipv6Addr::from(octets).to_string().into_bytes(),
                Err(_) => hex(bytes).into_bytes(),
            },
        },
        GeneralName::DirectoryName(name) => name.to_string().into_bytes(),
        _ => return None,
    })
}

impl Certificate {
    /// Reads a certificate.
    ///
    /// # Errors
    /// The event that says what is wrong with it.
    pub(super) fn parse(der: &[u8]) -> Result<Certificate, Event> {
        use x509_parser::error::X509Error as E;
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| match error {
            x509_parser::nom::Err::Error(error) | x509_parser::nom::Err::Failure(error) => match error {
                E::InvalidVersion => Event::TlsCertificateInvalidVersion,
                E::InvalidSerial => Event::TlsCertificateInvalidSerial,
                E::InvalidAlgorithmIdentifier => Event::TlsCertificateInvalidAlgorithm,
                E::InvalidX509Name => Event::TlsCertificateInvalidName,
                E::InvalidDate => Event::TlsCertificateInvalidDate,
                E::InvalidExtensions | E::DuplicateExtensions => Event::TlsCertificateInvalidExtensions,
                E::Der(_) => Event::TlsCertificateInvalidDer,
                _ => Event::TlsInvalidCertificate,
            },
            x509_parser::nom::Err::Incomplete(_) => Event::TlsCertificateInvalidLength,
        })?;
        let alternatives = parsed.subject_alternative_name().ok().flatten();
        let names = alternatives.map(|extension| &extension.value.general_names);
        Ok(Certificate {
            subject: parsed.subject().to_string().into_bytes(),
            issuer: parsed.issuer().to_string().into_bytes(),
            serial: colons(parsed.raw_serial(), true).into_bytes(),
            fingerprint: fingerprint(der),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            names: names.into_iter().flatten().filter_map(general_name).take(MOST_NAMES).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junk_is_refused_and_has_a_fingerprint() {
        for junk in [&b""[..], b"\x30", b"\x30\x82\xff\xff", &[0x30, 0x03, 0x02, 0x01, 0x05]] {
            assert!(Certificate::parse(junk).is_err());
        }
        assert_eq!(fingerprint(b"abc"), b"a9:99:3e:36:47:06:81:6a:ba:3e:25:71:78:50:c2:6c:9c:d0:d8:9d");
    }
}
