//! Packets and bytes by protocol, by size, and by what is odd about them.
//!
//! A packet is counted by the EtherType of its network layer (after VLAN tags) and, if it is IP, by the
//! protocol of its transport layer (after IPv6 extension headers), fragments included. Of tunnels the outer
//! packet counts.

use onvm_lib::wire::{EtherType, Headers, Net};
use serde::{Deserialize, Serialize};

/// EtherTypes other than IP and ARP that are counted one by one; beyond these they are one heap.
const MOST_ETHERTYPES: usize = 32;

/// Upper ends of the size classes, in bytes; the last class has none.
pub(crate) const SIZES: [usize; 6] = [63, 127, 255, 511, 1023, 1518];

/// Packets and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Count {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl Count {
    #[inline]
    pub(crate) fn add(&mut self, bytes: u64) {
        self.packets += 1;
        self.bytes += bytes;
    }

    /// Adds what another has counted.
    pub(crate) fn add_all(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// All counts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Protocols {
    pub(crate) all: Count,
    pub(crate) ipv4: Count,
    pub(crate) ipv6: Count,
    pub(crate) arp: Count,
    /// Other EtherTypes, in order of appearance.
    pub(crate) ethertypes: Vec<(EtherType, Count)>,
    /// Without an EtherType (802.3 with LLC, or cut before it), and EtherTypes beyond what is kept.
    pub(crate) other: Count,
    /// By IP protocol number.
    #[serde(with = "by_number")]
    pub(crate) ip: [Count; 256],
    pub(crate) sizes: [u64; SIZES.len() + 1],
    /// With a VLAN tag, and with several.
    pub(crate) vlan: u64,
    pub(crate) stacked_vlan: u64,
    pub(crate) fragments: u64,
    /// Bytes that the headers speak of are missing.
    pub(crate) cut: u64,
    /// Headers contradict themselves.
    pub(crate) malformed: u64,
}

impl Default for Protocols {
    fn default() -> Self {
        let none = Count::default();
        Self {
            all: none,
            ipv4: none,
            ipv6: none,
            arp: none,
            ethertypes: Vec::with_capacity(MOST_ETHERTYPES),
            other: none,
            ip: [none; 256],
            sizes: [0; SIZES.len() + 1],
            vlan: 0,
            stacked_vlan: 0,
            fragments: 0,
            cut: 0,
            malformed: 0,
        }
    }
}

impl Protocols {
    /// Counts a packet that had `bytes` on the wire.
    #[inline]
    pub(crate) fn count(&mut self, headers: &Headers, bytes: u64) {
        self.all.add(bytes);
        self.sizes[size_class(bytes)] += 1;
        match headers.net() {
            Net::Ipv4 => self.ipv4.add(bytes),
            Net::Ipv6 => self.ipv6.add(bytes),
            Net::Arp => self.arp.add(bytes),
            Net::None | Net::Other => self.rare(headers, bytes),
        }
        if let Some(protocol) = headers.protocol() {
            self.ip[usize::from(protocol)].add(bytes);
        }
        self.vlan += u64::from(headers.vlan_count() > 0);
        self.stacked_vlan += u64::from(headers.vlan_count() > 1);
        self.fragments += u64::from(headers.is_fragment());
        if headers.problem().is_some() {
            self.cut += u64::from(headers.is_cut());
            self.malformed += u64::from(headers.is_malformed());
        }
    }

    /// Whether no part is greater than the whole.
    pub(crate) fn is_sound(&self) -> bool {
        let kinds = self.ethertypes.iter().map(|(_, count)| count);
        let mut parts = kinds.chain([&self.ipv4, &self.ipv6, &self.arp, &self.other]).chain(&self.ip);
        let odd = [self.vlan, self.stacked_vlan, self.fragments, self.cut, self.malformed];
        self.ethertypes.len() <= MOST_ETHERTYPES
            && parts.all(|part| part.packets <= self.all.packets && part.bytes <= self.all.bytes)
            && self.sizes.iter().chain(&odd).all(|part| *part <= self.all.packets)
    }

    #[cold]
    fn rare(&mut self, headers: &Headers, bytes: u64) {
        let Some(ethertype) = headers.ethertype() else { return self.other.add(bytes) };
        let known = self.ethertypes.iter().position(|(kind, _)| *kind == ethertype);
        match known {
            Some(at) => self.ethertypes[at].1.add(bytes),
            None if self.ethertypes.len() < MOST_ETHERTYPES => {
                self.ethertypes.push((ethertype, Count { packets: 1, bytes }));
            }
            None => self.other.add(bytes),
        }
    }
}

/// An array longer than those that serde knows.
mod by_number {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Count;

    pub(super) fn serialize<S: Serializer>(all: &[Count; 256], to: S) -> Result<S::Ok, S::Error> {
        all.as_slice().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[Count; 256], D::Error> {
        let all = Vec::<Count>::deserialize(from)?;
        all.try_into().map_err(|_| serde::de::Error::custom("there are 256 IP protocols"))
    }
}

/// The class that a length falls into.
#[inline]
fn size_class(bytes: u64) -> usize {
    match bytes {
        0..=63 => 0,
        64..=127 => 1,
        128..=255 => 2,
        256..=511 => 3,
        512..=1023 => 4,
        1024..=1518 => 5,
        _ => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_end_where_the_table_says() {
        for (class, end) in SIZES.into_iter().enumerate() {
            assert_eq!(size_class(end as u64), class);
            assert_eq!(size_class(end as u64 + 1), class + 1);
        }
        assert_eq!(size_class(u64::MAX), SIZES.len());
    }

    #[test]
    fn a_tagged_fragment_counts_everywhere_it_should() {
        let mut frame = [[2; 12].as_slice(), &[0x81, 0, 0, 5, 8, 0, 0x45, 0, 0, 28, 0, 1, 0x20, 0]].concat();
        frame.extend([64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 53, 0, 53, 0, 99, 0, 0]);
        let mut protocols = Protocols::default();
        protocols.count(&Headers::parse(&frame), 64);
        let one = Count { packets: 1, bytes: 64 };
        assert_eq!((protocols.all, protocols.ipv4, protocols.ip[17]), (one, one, one));
        assert_eq!((protocols.vlan, protocols.stacked_vlan, protocols.fragments), (1, 0, 1));
        assert_eq!((protocols.cut, protocols.malformed), (0, 0));
    }

    #[test]
    fn cut_is_not_malformed() {
        let mut protocols = Protocols::default();
        protocols.count(&Headers::parse(&[2; 10]), 60);
        protocols.count(&Headers::parse(&[&[2; 12][..], &[8, 0, 0x65], &[0; 40]].concat()), 60);
        assert_eq!((protocols.cut, protocols.malformed), (1, 1));
        assert_eq!(protocols.other.packets, 1);
    }

    #[test]
    fn ethertypes_beyond_the_bound_are_one_heap() {
        let mut protocols = Protocols::default();
        for kind in 0x9900u16..0x9900 + 100 {
            let frame = [&[2; 12][..], &kind.to_be_bytes(), &[0; 46]].concat();
            protocols.count(&Headers::parse(&frame), 60);
        }
        assert_eq!((protocols.ethertypes.len(), protocols.other.packets), (MOST_ETHERTYPES, 68));
    }
}
