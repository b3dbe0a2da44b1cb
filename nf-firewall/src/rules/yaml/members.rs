//! Members of sets as they stand in a rule file: one address, port, protocol, VLAN or input port.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use onvm_lib::document::{Cursor, nearest};
use onvm_lib::wire::protocol_name;

use super::super::UNTAGGED;
use super::super::addresses::Addresses;
use super::super::ranges::{Number, Ranges};

/// Well-known ports (IANA "Service Name and Transport Protocol Port Number Registry").
const SERVICES: [(&str, u16); 34] = [
    ("ftp", 21),
    ("ssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("dns", 53),
    ("domain", 53),
    ("dhcp-server", 67),
    ("dhcp-client", 68),
    ("tftp", 69),
    ("http", 80),
    ("kerberos", 88),
    ("pop3", 110),
    ("ntp", 123),
    ("imap", 143),
    ("snmp", 161),
    ("snmp-trap", 162),
    ("bgp", 179),
    ("ldap", 389),
    ("https", 443),
    ("smb", 445),
    ("syslog", 514),
    ("submission", 587),
    ("ldaps", 636),
    ("imaps", 993),
    ("pop3s", 995),
    ("radius", 1812),
    ("mqtt", 1883),
    ("nfs", 2049),
    ("mysql", 3306),
    ("rdp", 3389),
    ("vxlan", 4789),
    ("sip", 5060),
    ("postgresql", 5432),
    ("redis", 6379),
];

/// `10.0.0.0/8`, `10.0.0.0/255.0.0.0`, `10.0.0.1-10.0.0.9`, `2001:db8::1`, `ipv4`, `ipv6`.
pub(super) fn address(text: &str, cursor: &Cursor<'_>) -> Result<Addresses, String> {
    match text {
        "ipv4" => return Ok(Addresses::all_v4()),
        "ipv6" => return Ok(Addresses::all_v6()),
        _ => {}
    }
    let wrong = || format!("{text:?} is not an address, prefix or range");
    if let Some((first, last)) = text.split_once('-') {
        let ends = (first.trim().parse::<IpAddr>(), last.trim().parse::<IpAddr>());
        let (Ok(first), Ok(last)) = ends else { return Err(wrong()) };
        let set = Addresses::between(first, last)
            .ok_or_else(|| format!("{first} and {last} are of different families"))?;
        if set.is_empty() {
            return Err(format!("the range {first}-{last} ends before it begins"));
        }
        return Ok(set);
    }
    let net = match text.split_once('/') {
        None => IpNet::from(text.parse::<IpAddr>().map_err(|_| wrong())?),
        Some((address, mask)) if mask.contains('.') => {
            let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
            let mask: Ipv4Addr = mask.parse().map_err(|_| wrong())?;
            IpNet::with_netmask(address.into(), mask.into())
                .map_err(|_| format!("{mask} is not a netmask: its ones do not stand at the front"))?
        }
        Some((address, length)) => {
            let address: IpAddr = address.parse().map_err(|_| wrong())?;
            let most = if address.is_ipv4() { 32u8 } else { 128 };
            let length = length.parse().ok().filter(|n: &u8| *n <= most);
            let length = length.ok_or_else(|| format!("the prefix length of {text} is not in 0..={most}"))?;
            IpNet::new(address, length).map_err(|error| error.to_string())?
        }
    };
    if net.addr() != net.network() {
        cursor.warn(format!("{net} has ones after its prefix; it is read as {}", net.trunc()));
    }
    Ok(Addresses::prefix(net))
}

/// A number or a range of numbers in these bounds; `what` it is goes into the message.
fn numbers<T: Number + TryFrom<u32>>(
    text: &str,
    bounds: (u32, u32),
    what: &str,
) -> Result<Ranges<T>, String> {
    let number = |text: &str| {
        let text = text.trim();
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let read = text.parse::<u32>().ok().filter(|n| plain && (bounds.0..=bounds.1).contains(n));
        match read.and_then(|n| T::try_from(n).ok()) {
            Some(number) => Ok(number),
            None if plain => Err(format!("{text} is out of range {}..={}", bounds.0, bounds.1)),
            None => Err(format!("{text:?} is not {what}")),
        }
    };
    let is_range = text.starts_with(|c: char| c.is_ascii_digit());
    match text.split_once(['-', ':']).filter(|_| is_range) {
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("the range {text} ends before it begins"));
            }
            Ok(Ranges::of([(first, last)]))
        }
        None => number(text).map(Ranges::one),
    }
}

/// `443`, `8000-8080`, `https`.
pub(super) fn port(text: &str, _: &Cursor<'_>) -> Result<Ranges<u16>, String> {
    if let Some((_, port)) = SERVICES.iter().find(|(name, _)| *name == text) {
        return Ok(Ranges::one(*port));
    }
    numbers(text, (0, 65_535), "a port, range of ports or well-known service").map_err(
        |reason| match nearest(text, SERVICES.iter().map(|(name, _)| *name)) {
            Some(near) if text.starts_with(|c: char| c.is_alphabetic()) => {
                format!("{reason} (did you mean {near:?}?)")
            }
            _ => reason,
        },
    )
}

/// The number of a protocol with a name.
pub(crate) fn protocol_number(name: &str) -> Option<u8> {
    match name {
        "icmpv6" | "ipv6-icmp" => return Some(58),
        "ah" => return Some(51),
        _ => {}
    }
    (0..=u8::MAX).find(|number| protocol_name(*number) == Some(name))
}

/// `tcp`, `6`.
pub(super) fn protocol(text: &str, _: &Cursor<'_>) -> Result<Ranges<u8>, String> {
    let name = text.to_ascii_lowercase();
    if let Some(number) = protocol_number(&name) {
        return Ok(Ranges::one(number));
    }
    numbers(text, (0, 255), "a protocol").map_err(|reason| {
        let known = (0..=u8::MAX).filter_map(protocol_name).chain(["icmpv6"]);
        match nearest(&name, known) {
            Some(near) if text.starts_with(|c: char| c.is_alphabetic()) => {
                format!("{reason} (did you mean {near:?}?)")
            }
            _ => reason,
        }
    })
}

/// `20`, `100-199`, `untagged`.
pub(super) fn vlan(text: &str, _: &Cursor<'_>) -> Result<Ranges<u16>, String> {
    if text == "untagged" {
        return Ok(Ranges::one(UNTAGGED));
    }
    numbers(text, (0, 4095), "a VLAN id, range of ids or \"untagged\"")
}

/// `0`, `2-3`.
pub(super) fn in_port(text: &str, _: &Cursor<'_>) -> Result<Ranges<u8>, String> {
    numbers(text, (0, 126), "an input port")
}
