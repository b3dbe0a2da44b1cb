//! Which of the two programs wrote a file, and the addresses that it may hold.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::addresses::Addresses;
use super::words;

/// Which of the two programs a line is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// All addresses of the family.
    pub(super) fn all(self) -> Addresses {
        if self == Self::V4 { Addresses::all_v4() } else { Addresses::all_v6() }
    }

    /// Takes an address of this family.
    ///
    /// # Errors
    /// It is of the other one.
    fn takes(self, address: IpAddr) -> Result<IpAddr, String> {
        match (self, address) {
            (Self::V4, IpAddr::V6(_)) => {
                Err(format!("{address} is of IPv6, and this file is one of iptables-save, for IPv4"))
            }
            (Self::V6, IpAddr::V4(_)) => {
                Err(format!("{address} is of IPv4, and this file is one of ip6tables-save, for IPv6"))
            }
            _ => Ok(address),
        }
    }

    /// Reads `10.0.0.0/8`, `10.0.0.0/255.0.0.0` or an address. The inner error is what is right and has no counterpart.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn net(self, word: &str) -> Result<Result<IpNet, String>, String> {
        let wrong = || format!("{word:?} is not an address");
        let (address, mask) =
            word.split_once('/').map_or((word, None), |(address, mask)| (address, Some(mask)));
        let address = self.takes(address.parse().map_err(|_| wrong())?)?;
        let Some(mask) = mask else { return Ok(Ok(address.into())) };
        match (mask.parse::<u8>(), mask.parse::<IpAddr>()) {
            (Ok(length), _) => IpNet::new(address, length).map(Ok).map_err(|_| wrong()),
            (_, Ok(mask)) => Ok(IpNet::with_netmask(address, mask)
                .map_err(|_| format!("the mask {mask} has ones that do not stand at the front"))),
            _ => Err(wrong()),
        }
    }

    /// Reads `10.0.0.1-10.0.0.9`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn range(self, word: &str) -> Result<Addresses, String> {
        let wrong = || format!("{word:?} is not a range of addresses like 10.0.0.1-10.0.0.9");
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let end = |text: &str| text.parse().map_err(|_| wrong()).and_then(|address| self.takes(address));
        let set = Addresses::between(end(first)?, end(last)?).ok_or_else(wrong)?;
        if set.is_empty() { Err(format!("the range {word} ends before it begins")) } else { Ok(set) }
    }
}

/// Which of the two programs wrote the file: the comment at its head says so, or else the first address, protocol or
/// ICMP type that only one of them has.
pub(super) fn of(text: &str) -> Family {
    for line in text.lines().map(str::trim_start).filter(|line| line.starts_with('#')) {
        if line.contains("ip6tables-save") {
            return Family::V6;
        }
        if line.contains("iptables-save") {
            return Family::V4;
        }
    }
    text.lines().find_map(of_line).unwrap_or(Family::V4)
}

/// What a rule tells of it.
fn of_line(line: &str) -> Option<Family> {
    let line = line.trim_start();
    if !line.starts_with("-A") && !line.starts_with('[') {
        return None;
    }
    let words = words::split(line).ok()?;
    words.windows(2).find_map(|pair| match (pair[0].text.as_str(), pair[1].text.as_str()) {
        ("-s" | "-d" | "--source" | "--destination" | "--src" | "--dst", address)
        | ("--src-range" | "--dst-range", address) => {
            let first = address.split(['/', ',', '-']).next()?.parse::<IpAddr>().ok()?;
            Some(if first.is_ipv4() { Family::V4 } else { Family::V6 })
        }
        ("-p" | "--protocol", "ipv6-icmp" | "icmpv6" | "58") | ("--icmpv6-type", _) => Some(Family::V6),
        ("-p" | "--protocol", "icmp" | "1") | ("--icmp-type", _) => Some(Family::V4),
        ("--reject-with", with) if with.starts_with("icmp6-") => Some(Family::V6),
        ("--reject-with", with) if with.starts_with("icmp-") => Some(Family::V4),
        _ => None,
    })
}
