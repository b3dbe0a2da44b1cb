//! IEEE 802.1Q tags, single or stacked (802.1ad, "QinQ").
//!
//! A tag stands between the source address and the EtherType. This view begins after the tag's own
//! EtherType, which is the previous header's: two bytes of tag, then the type of what follows.

use super::Error;
use super::ethernet::EtherType;
use super::field::{bits, fields, flags, view};

/// Length of a tag as this view has it: tag control information and the next EtherType.
pub const HEADER_LEN: usize = 4;

view! {
    /// One VLAN tag and what follows it.
    Tag, "vlan tag", HEADER_LEN
}

fields!(Tag {
    /// Tag control information: priority, drop eligibility and identifier in one.
    tci / set_tci: u16 = 0;
    /// EtherType or 802.3 length of what follows, as it stands.
    type_or_len / set_type_or_len: u16 = 2;
});

bits!(Tag {
    /// Priority code point, 0..=7.
    priority / set_priority: u8 = 0, >> 5 & 0x7;
    /// VLAN identifier, 0..=4095; 0 means priority only, 4095 is reserved.
    id / set_id: u16 = 0, >> 0 & 0xfff;
});

flags!(Tag {
    /// Drop eligible indicator.
    drop_eligible / set_drop_eligible: u8 = 0, bit 4;
});

impl<T: AsRef<[u8]>> Tag<T> {
    #[inline]
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// The EtherType of what follows, or `None` if that is an 802.3 length.
    pub fn ethertype(&self) -> Option<EtherType> {
        Some(EtherType(self.type_or_len())).filter(|t| t.0 >= EtherType::MIN)
    }

    /// All after the tag.
    pub fn payload(&self) -> &[u8] {
        &self.as_bytes()[HEADER_LEN..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_tag() {
        let tag = Tag::new_checked(&[0xb0, 0x64, 0x08, 0x00, 1][..]).unwrap();
        assert_eq!((tag.priority(), tag.drop_eligible(), tag.id()), (5, true, 100));
        assert_eq!(tag.ethertype(), Some(EtherType::IPV4));
        assert_eq!(tag.payload(), [1]);
    }

    #[test]
    fn setters_leave_their_neighbours_alone() {
        let mut tag = Tag::new_checked([0xffu8; 4]).unwrap();
        tag.set_id(0x1001);
        tag.set_drop_eligible(false);
        assert_eq!((tag.priority(), tag.drop_eligible(), tag.id()), (7, false, 1));
        tag.set_priority(2);
        tag.set_type_or_len(0x8100);
        assert_eq!(tag.into_inner(), [0x40, 0x01, 0x81, 0x00]);
    }
}
