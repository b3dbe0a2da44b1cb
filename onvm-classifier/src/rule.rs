//! Rules of five fields, and when a header matches one.

use ipnet::IpNet;

use crate::Header;

/// An inclusive range of ports. A range that ends before it begins holds no port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ports {
    /// The lowest port of the range.
    pub first: u16,
    /// The highest port of the range.
    pub last: u16,
}

impl Ports {
    /// All ports.
    pub const ANY: Ports = Ports { first: 0, last: u16::MAX };

    /// One port.
    #[must_use]
    pub const fn one(port: u16) -> Ports {
        Ports { first: port, last: port }
    }

    /// From `first` to `last`, both included.
    #[must_use]
    pub const fn range(first: u16, last: u16) -> Ports {
        Ports { first, last }
    }

    /// Whether `port` is in the range.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// A rule: what it asks of each of the five fields.
///
/// A rule without any address is for both families. One that names an address of either family is for that family
/// alone, and one that names addresses of both matches nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule5 {
    /// Source prefix; none for any. Bits after the prefix length are not looked at.
    pub source: Option<IpNet>,
    /// Destination prefix; none for any.
    pub destination: Option<IpNet>,
    /// Source ports. A header without ports has 0 in their place.
    pub source_ports: Ports,
    /// Destination ports.
    pub destination_ports: Ports,
    /// Protocol number, compared where `protocol_mask` has ones.
    pub protocol: u8,
    /// 0xFF for one protocol, 0 for any.
    pub protocol_mask: u8,
}

impl Rule5 {
    /// The rule that every header matches; a start for others.
    pub const ANY: Rule5 = Rule5 {
        source: None,
        destination: None,
        source_ports: Ports::ANY,
        destination_ports: Ports::ANY,
        protocol: 0,
        protocol_mask: 0,
    };

    /// Whether `header` matches, told plainly, field by field: what every quicker way must agree with.
    #[must_use]
    pub fn matches(&self, header: &Header) -> bool {
        let within = |net: Option<IpNet>, address| net.is_none_or(|net| net.contains(&address));
        within(self.source, header.source())
            && within(self.destination, header.destination())
            && self.source_ports.contains(header.source_port())
            && self.destination_ports.contains(header.destination_port())
            && (header.protocol() ^ self.protocol) & self.protocol_mask == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(source: &str, destination: &str) -> Header {
        Header::new(source.parse().unwrap(), destination.parse().unwrap(), 1024, 53, 17).unwrap()
    }

    #[test]
    fn families_are_kept_apart() {
        let v4 = header("10.0.0.1", "10.0.0.2");
        let v6 = header("::a00:1", "::a00:2");
        assert!(Rule5::ANY.matches(&v4) && Rule5::ANY.matches(&v6));
        let all_v4 = Rule5 { source: Some("0.0.0.0/0".parse().unwrap()), ..Rule5::ANY };
        assert!(all_v4.matches(&v4) && !all_v4.matches(&v6));
        let mixed = Rule5 { destination: Some("::/0".parse().unwrap()), ..all_v4 };
        assert!(!mixed.matches(&v4) && !mixed.matches(&v6));
    }

    #[test]
    fn ends_of_ranges_belong_to_them() {
        let v4 = header("10.0.0.1", "10.0.0.2");
        let rule = |first, last| Rule5 { source_ports: Ports::range(first, last), ..Rule5::ANY };
        assert!(
            rule(1024, 1024).matches(&v4) && rule(0, 1024).matches(&v4) && rule(1024, 65535).matches(&v4)
        );
        assert!(
            !rule(1025, 65535).matches(&v4) && !rule(0, 1023).matches(&v4) && !rule(1025, 1023).matches(&v4)
        );
    }

    #[test]
    fn bits_after_the_prefix_do_not_count() {
        let rule = Rule5 { source: Some("10.0.0.77/24".parse().unwrap()), ..Rule5::ANY };
        assert!(
            rule.matches(&header("10.0.0.1", "1.1.1.1")) && !rule.matches(&header("10.0.1.77", "1.1.1.1"))
        );
    }
}
