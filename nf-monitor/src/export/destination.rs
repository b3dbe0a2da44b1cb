//! Where flows are exported to: `ipfix://HOST:PORT`, `netflow9://HOST:PORT` or `file:PATH`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The protocol spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Ipfix,
    Netflow9,
}

/// How messages get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// `HOST:PORT`, a name or an address, of IPv6 in brackets.
    Udp(String),
    File(PathBuf),
}

/// A collector or file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(super) protocol: Protocol,
    pub(super) way: Way,
}

impl Destination {
    /// The file that it is, if it is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match &self.way {
            Way::File(path) => Some(path),
            Way::Udp(_) => None,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.way, self.protocol) {
            (Way::Udp(host), Protocol::Ipfix) => write!(f, "ipfix://{host}"),
            (Way::Udp(host), Protocol::Netflow9) => write!(f, "netflow9://{host}"),
            (Way::File(path), _) => write!(f, "file:{}", path.display()),
        }
    }
}

/// The port that IANA registered for a protocol, where it did.
const IPFIX_PORT: u16 = 4739;

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORMS: &str = "ipfix://HOST:PORT, netflow9://HOST:PORT or file:PATH";
        if let Some(path) = text.strip_prefix("file:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(format!("{text} names no file: {FORMS}"));
            }
            return Ok(Self { protocol: Protocol::Ipfix, way: Way::File(path.into()) });
        }
        let (scheme, host) = text.split_once("://").ok_or_else(|| format!("{text} is none of {FORMS}"))?;
        let protocol = match scheme {
            "ipfix" => Protocol::Ipfix,
            "netflow9" | "netflow" | "nf9" => Protocol::Netflow9,
            _ => return Err(format!("there is no export {scheme}: {FORMS}")),
        };
        let host = host.trim_end_matches('/');
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
            _ => (host, None),
        };
        let port = match (port, protocol) {
            (Some(port), _) => port.parse().ok().filter(|port| *port > 0),
            (None, Protocol::Ipfix) => Some(IPFIX_PORT),
            (None, Protocol::Netflow9) => return Err(format!("{text} has no port: netflow9://HOST:PORT")),
        };
        let port = port.ok_or_else(|| format!("the port of {text} is not in 1..=65535"))?;
        if name.is_empty() || name.contains(':') && !name.starts_with('[') {
            return Err(format!("{text} has no host; an address of IPv6 stands in brackets: [::1]:{port}"));
        }
        Ok(Self { protocol, way: Way::Udp(format!("{name}:{port}")) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_understood_and_printed() {
        for (text, shown) in [
            ("ipfix://127.0.0.1:9995", "ipfix://127.0.0.1:9995"),
            ("ipfix://collector.example/", "ipfix://collector.example:4739"),
            ("ipfix://[::1]", "ipfix://[::1]:4739"),
            ("netflow9://[::1]:2055", "netflow9://[::1]:2055"),
            ("file:flows.ipfix", "file:flows.ipfix"),
            ("file:///tmp/flows.ipfix", "file:/tmp/flows.ipfix"),
        ] {
            assert_eq!(text.parse::<Destination>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn mistakes_are_named() {
        let wrong = |text: &str| text.parse::<Destination>().unwrap_err();
        assert!(wrong("127.0.0.1:9995").starts_with("127.0.0.1:9995 is none of ipfix://HOST:PORT, "));
        assert!(wrong("sflow://a:1").starts_with("there is no export sflow: "));
        assert_eq!(wrong("ipfix://a:0"), "the port of ipfix://a:0 is not in 1..=65535");
        assert_eq!(wrong("netflow9://a"), "netflow9://a has no port: netflow9://HOST:PORT");
        assert!(wrong("ipfix://::1:9995").contains("[::1]:9995"), "{}", wrong("ipfix://::1:9995"));
        assert!(wrong("ipfix://:9995").contains("has no host"));
        assert!(wrong("file:").contains("names no file"));
    }
}
