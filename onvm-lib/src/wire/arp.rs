//! Address Resolution Protocol for Ethernet and IPv4 (RFC 826).
//!
//! The fixed part names the kinds and lengths of addresses; the four addresses follow. Those of any length
//! can be read as slices; the typed accessors are for Ethernet and IPv4, which is all there is today.

use std::net::Ipv4Addr;

use super::Error;
use super::ethernet::MacAddr;
use super::field::{self, Field, fields, view};

/// Length of the part before the addresses.
pub const FIXED_LEN: usize = 8;
/// Length of a whole packet for Ethernet and IPv4.
pub const ETHERNET_IPV4_LEN: usize = 28;

/// Operation: who has this address?
pub const REQUEST: u16 = 1;
/// Operation: it is at this one.
pub const REPLY: u16 = 2;

view! {
    /// An ARP packet.
    Packet, "arp", FIXED_LEN
}

fields!(Packet {
    /// Hardware address space; 1 is Ethernet.
    hardware_type / set_hardware_type: u16 = 0;
    /// Protocol address space, an EtherType; 0x0800 is IPv4.
    protocol_type / set_protocol_type: u16 = 2;
    /// Bytes of a hardware address.
    hardware_len / set_hardware_len: u8 = 4;
    /// Bytes of a protocol address.
    protocol_len / set_protocol_len: u8 = 5;
    /// [`REQUEST`], [`REPLY`] or one of the rarer ones.
    operation / set_operation: u16 = 6;
});

/// The addresses of an Ethernet and IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Hardware address of the sender.
    pub sender_mac: MacAddr,
    /// Protocol address of the sender.
    pub sender_ip: Ipv4Addr,
    /// Hardware address of the target; zero in a request.
    pub target_mac: MacAddr,
    /// Protocol address of the target.
    pub target_ip: Ipv4Addr,
}

impl<T: AsRef<[u8]>> Packet<T> {
    #[inline]
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Whether the addresses are Ethernet and IPv4 ones, by type and length.
    pub fn is_ethernet_ipv4(&self) -> bool {
        self.hardware_type() == 1
            && self.protocol_type() == 0x0800
            && (self.hardware_len(), self.protocol_len()) == (6, 4)
    }

    /// Address number `n` of the four, of whatever kind and length; `None` if it was cut off.
    fn address(&self, n: usize) -> Option<&[u8]> {
        let lens = [self.hardware_len(), self.protocol_len()].map(usize::from);
        let start = FIXED_LEN + [0, lens[0], lens[0] + lens[1], 2 * lens[0] + lens[1]][n];
        self.as_bytes().get(start..start + lens[n % 2])
    }

    /// Hardware address of the sender, as it stands.
    pub fn sender_hardware(&self) -> Option<&[u8]> {
        self.address(0)
    }

    /// Protocol address of the sender, as it stands.
    pub fn sender_protocol(&self) -> Option<&[u8]> {
        self.address(1)
    }

    /// Hardware address of the target, as it stands.
    pub fn target_hardware(&self) -> Option<&[u8]> {
        self.address(2)
    }

    /// Protocol address of the target, as it stands.
    pub fn target_protocol(&self) -> Option<&[u8]> {
        self.address(3)
    }

    /// The addresses, if they are Ethernet and IPv4 and all there.
    pub fn addresses(&self) -> Option<Addresses> {
        let bytes = self.as_bytes();
        if !self.is_ethernet_ipv4() || bytes.len() < ETHERNET_IPV4_LEN {
            return None;
        }
        Some(Addresses {
            sender_mac: MacAddr::read(bytes, 8),
            sender_ip: Ipv4Addr::read(bytes, 14),
            target_mac: MacAddr::read(bytes, 18),
            target_ip: Ipv4Addr::read(bytes, 24),
        })
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Makes it an Ethernet and IPv4 packet with these addresses.
    ///
    /// # Errors
    /// [`Error::Truncated`] if the buffer has less than [`ETHERNET_IPV4_LEN`] bytes.
    pub fn set_addresses(&mut self, addresses: &Addresses) -> Result<(), Error> {
        field::need("arp for ethernet and ipv4", self.as_bytes(), ETHERNET_IPV4_LEN)?;
        self.set_hardware_type(1);
        self.set_protocol_type(0x0800);
        self.set_hardware_len(6);
        self.set_protocol_len(4);
        let bytes = self.buffer.as_mut();
        addresses.sender_mac.write(bytes, 8);
        addresses.sender_ip.write(bytes, 14);
        addresses.target_mac.write(bytes, 18);
        addresses.target_ip.write(bytes, 24);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST_BYTES: [u8; 28] =
        [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2];

    #[test]
    fn reads_a_request() {
        let arp = Packet::new_checked(&REQUEST_BYTES[..]).unwrap();
        assert_eq!(arp.operation(), REQUEST);
        assert_eq!(arp.sender_hardware(), Some(&[2, 0, 0, 0, 0, 1][..]));
        assert_eq!(arp.sender_protocol(), Some(&[10, 0, 0, 1][..]));
        assert_eq!(arp.target_hardware(), Some(&[0; 6][..]));
        assert_eq!(arp.target_protocol(), Some(&[10, 0, 0, 2][..]));
        let addresses = arp.addresses().unwrap();
        assert_eq!(addresses.sender_ip, Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(addresses.target_ip, Ipv4Addr::new(10, 0, 0, 2));
    }

    #[test]
    fn writes_what_it_reads() {
        let addresses = Packet::new_checked(&REQUEST_BYTES[..]).unwrap().addresses().unwrap();
        let mut arp = Packet::new_checked([0u8; 28]).unwrap();
        arp.set_operation(REQUEST);
        arp.set_addresses(&addresses).unwrap();
        assert_eq!(arp.into_inner(), REQUEST_BYTES);
    }

    #[test]
    fn says_what_is_cut() {
        assert!(Packet::new_checked(&REQUEST_BYTES[..7]).is_err());
        let cut = Packet::new_checked(&REQUEST_BYTES[..27]).unwrap();
        assert!(cut.addresses().is_none());
        assert!(
            Packet::new_checked([0u8; 9])
                .unwrap()
                .set_addresses(&Packet::new_checked(&REQUEST_BYTES[..]).unwrap().addresses().unwrap())
                .is_err()
        );
    }
}
