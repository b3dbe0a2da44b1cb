//! By what packets of one flow are known, in both directions.

use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;

use super::Direction;
use crate::decode::{Decoded, Transport, be16};

/// Addresses and ports in the order of their value, so that both directions have one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Key {
    low: [u8; 16],
    high: [u8; 16],
    low_port: u16,
    high_port: u16,
    vlan: [u16; 3],
    protocol: u8,
    /// How deep in tunnels; IPv4 and IPv6 with the same 16 bytes differ by the highest bit.
    depth: u8,
}

/// An end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct End {
    /// Its address.
    pub address: IpAddr,
    /// Its port; the type for ICMP.
    pub port: u16,
}

/// A key, and which way the packet goes by it.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// The key.
    pub key: Key,
    /// The packet's source is the lower end.
    pub from_low: bool,
    /// Source end of the packet.
    pub source: End,
    /// Destination end.
    pub destination: End,
}

impl Found {
    /// The key of a packet; none if it belongs to no flow.
    #[must_use]
    pub fn of(packet: &Decoded<'_>) -> Option<Self> {
        if packet.invalid || packet.fragment.is_some() {
            return None;
        }
        let protocol = packet.protocol?;
        let (source_port, destination_port) = match packet.transport {
            Transport::Tcp(_) | Transport::Udp(_) | Transport::Sctp(_) => {
                (packet.source_port, packet.destination_port)
            }
            // An error is about another flow, or about none that is known.
            Transport::Icmp4([3 | 4 | 5 | 11 | 12, ..]) => return None,
            Transport::Icmp4(header) | Transport::Icmp6(header) => {
                let kind = u16::from(*header.first()?);
                (kind, counterpart(protocol, kind))
            }
            // ESP and IP in IP have flows by their addresses; what else IP carries has none.
            Transport::None if protocol == 50 || packet.carrier && matches!(protocol, 4 | 41) => (0, 0),
            Transport::None => return None,
        };
        let source = End { address: packet.source, port: source_port };
        let destination = End { address: packet.destination, port: destination_port };
        Some(Self::between(source, destination, protocol, packet))
    }

    /// The key of the datagram that an ICMP error of IPv4 ("destination unreachable") quotes, as its receiver sees
    /// it: the error belongs to the flow that it is about.
    #[must_use]
    pub fn quoted(packet: &Decoded<'_>) -> Option<Self> {
        let Transport::Icmp4([3, ..]) = packet.transport else { return None };
        let quote = packet.payload;
        let header = usize::from(quote.first()? & 0x0f) * 4;
        let protocol = *quote.get(9)?;
        if quote.first()? >> 4 != 4 || header < 20 || !matches!(protocol, 6 | 17) {
            return None;
        }
        let address = |at: usize| Some(IpAddr::from(*quote.get(at..)?.first_chunk::<4>()?));
        // The quoted packet went the other way.
        let source = End { address: address(16)?, port: be16(quote, header + 2)? };
        let destination = End { address: address(12)?, port: be16(quote, header)? };
        Some(Self::between(source, destination, protocol, packet))
    }

    fn between(source: End, destination: End, protocol: u8, packet: &Decoded<'_>) -> Self {
        let (a, b) = (octets(source.address), octets(destination.address));
        let from_low = (a, source.port) <= (b, destination.port);
        let ((low, low_port), (high, high_port)) = if from_low {
            ((a, source.port), (b, destination.port))
        } else {
            ((b, destination.port), (a, source.port))
        };
        let mut vlan = [0; 3];
        for (place, id) in vlan.iter_mut().zip(packet.vlan_ids()) {
            *place = *id;
        }
        let six = if source.address.is_ipv6() { 0x80 } else { 0 };
        let key = Key { low, high, low_port, high_port, vlan, protocol, depth: packet.depth & 0x7f | six };
        Self { key, from_low, source, destination }
    }
}

/// Type of the answer to an ICMP message, or of what it answers; its own for others.
fn counterpart(protocol: u8, kind: u16) -> u16 {
    match (protocol, kind) {
        (1, 8) => 0,
        (1, 0) => 8,
        (1, 9) => 10,
        (1, 10) => 9,
        (1, 13) => 14,
        (1, 14) => 13,
        (1, 15) => 16,
        (1, 16) => 15,
        (1, 17) => 18,
        (1, 18) => 17,
        // Echoes, group membership, neighbours and routers, node information, mobility, certificates, multicast routers,
        // duplicate addresses: each question stands before its answer.
        (58, 128 | 130 | 133 | 135 | 139 | 144 | 146 | 148 | 151 | 157) => kind + 1,
        (58, 129 | 131 | 134 | 136 | 140 | 145 | 147 | 149 | 152 | 158) => kind - 1,
        (_, own) => own,
    }
}

#[inline]
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let mut wide = [0; 16];
            wide[..4].copy_from_slice(&v4.octets());
            wide
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let word = |bytes: &[u8; 16], half: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&bytes[half * 8..half * 8 + 8]);
            u64::from_le_bytes(eight)
        };
        state.write_u64(word(&self.low, 0));
        state.write_u64(word(&self.high, 0));
        if self.depth & 0x80 != 0 {
            state.write_u64(word(&self.low, 1));
            state.write_u64(word(&self.high, 1));
        }
        let rest = u64::from(self.low_port) << 48
            | u64::from(self.high_port) << 32
            | u64::from(self.vlan[0]) << 16
            | u64::from(self.protocol) << 8
            | u64::from(self.depth);
        state.write_u64(rest);
        if self.vlan[1] != 0 {
            state.write_u64(u64::from(self.vlan[1]) << 16 | u64::from(self.vlan[2]));
        }
    }
}

/// Makes [`Mixer`]s with a secret, so that no one can choose flows that lie in one place of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed(u64);

impl Default for Seed {
    fn default() -> Self {
        Self(std::hash::RandomState::new().hash_one(0x5eed_u64))
    }
}

impl BuildHasher for Seed {
    type Hasher = Mixer;

    #[inline]
    fn build_hasher(&self) -> Mixer {
        Mixer(self.0)
    }
}

/// Folds the halves of products, a word at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0x9e37_79b9_7f4a_7c15;
        #[allow(clippy::cast_possible_truncation, reason = "both halves are folded into one")]
        {
            self.0 = (product as u64) ^ ((product >> 64) as u64) ^ word.rotate_left(32);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A stable number for a flow: equal in repeated runs over the same packets, and of both directions.
#[must_use]
pub(super) fn stable_number(key: &Key, start_ns: u64) -> u64 {
    let mut mixer = Mixer(0x6f6e_766d_2d72_7321 ^ start_ns);
    key.hash(&mut mixer);
    // 51 bits: readers of JSON keep such numbers exactly, and Suricata's are of that size.
    mixer.finish() & ((1 << 51) - 1)
}

/// Which way a packet goes, by who began the flow.
#[must_use]
pub(super) fn direction(found: &Found, client: End, client_low: bool) -> Direction {
    // Equal ends (a host that talks to itself from and to one port) cannot be told apart.
    let same = found.source == found.destination;
    let to_server = if same { true } else { found.from_low == client_low };
    debug_assert!(!same || found.source == client);
    if to_server { Direction::ToServer } else { Direction::ToClient }
}
