//! Linux "cooked" captures: the pseudo headers of the `any` device, `LINKTYPE_LINUX_SLL` (113) and
//! `LINKTYPE_LINUX_SLL2` (276) as tcpdump.org's registry describes them.

use super::Error;
use super::field::{fields, view};

/// Length of the first version.
pub const HEADER_LEN: usize = 16;
/// Length of the second version.
pub const HEADER2_LEN: usize = 20;

view! {
    /// A packet with a cooked header of version 1.
    Cooked, "linux sll", HEADER_LEN
}

fields!(Cooked {
    /// 0 to us, 1 broadcast, 2 multicast, 3 between others, 4 from us.
    packet_type / set_packet_type: u16 = 0;
    /// ARPHRD type of the device; 1 is Ethernet.
    hardware_type / set_hardware_type: u16 = 2;
    /// Bytes of the address that count, at most 8.
    address_len / set_address_len: u16 = 4;
    /// Link-layer address of the sender, padded.
    address / set_address: [u8; 8] = 6;
    /// EtherType of the payload, or a small number for what has none.
    protocol / set_protocol: u16 = 14;
});

impl<T: AsRef<[u8]>> Cooked<T> {
    #[inline]
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// All after the header.
    pub fn payload(&self) -> &[u8] {
        &self.as_bytes()[HEADER_LEN..]
    }
}

view! {
    /// A packet with a cooked header of version 2.
    Cooked2, "linux sll2", HEADER2_LEN
}

fields!(Cooked2 {
    /// EtherType of the payload, or a small number for what has none.
    protocol / set_protocol: u16 = 0;
    /// Index of the interface it was seen on.
    interface / set_interface: u32 = 4;
    /// ARPHRD type of the device; 1 is Ethernet.
    hardware_type / set_hardware_type: u16 = 8;
    /// 0 to us, 1 broadcast, 2 multicast, 3 between others, 4 from us.
    packet_type / set_packet_type: u8 = 10;
    /// Bytes of the address that count, at most 8.
    address_len / set_address_len: u8 = 11;
    /// Link-layer address of the sender, padded.
    address / set_address: [u8; 8] = 12;
});

impl<T: AsRef<[u8]>> Cooked2<T> {
    #[inline]
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// All after the header.
    pub fn payload(&self) -> &[u8] {
        &self.as_bytes()[HEADER2_LEN..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both() {
        let mut bytes = [0u8; 21];
        bytes[..4].copy_from_slice(&[0, 4, 0, 1]);
        bytes[14..16].copy_from_slice(&[8, 0]);
        let one = Cooked::new_checked(&bytes[..]).unwrap();
        assert_eq!((one.packet_type(), one.hardware_type(), one.protocol()), (4, 1, 0x0800));
        assert_eq!(one.payload().len(), 5);

        let mut two = Cooked2::new_checked(bytes).unwrap();
        two.set_protocol(0x86dd);
        two.set_interface(3);
        assert_eq!((two.protocol(), two.interface(), two.payload().len()), (0x86dd, 3, 1));
        assert!(Cooked2::new_checked([0u8; 19]).is_err());
    }
}
