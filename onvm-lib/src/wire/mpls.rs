//! MPLS label stack entries (RFC 3032).

use super::Error;
use super::field::{bits, fields, flags, view};

/// Length of an entry.
pub const ENTRY_LEN: usize = 4;

view! {
    /// One label stack entry and what follows it.
    Entry, "mpls", ENTRY_LEN
}

bits!(Entry {
    /// Label, 20 bits.
    label / set_label: u32 = 0, >> 12 & 0xf_ffff;
    /// Traffic class, 0..=7 (RFC 5462).
    traffic_class / set_traffic_class: u8 = 2, >> 1 & 0x7;
});

flags!(Entry {
    /// This is the last entry of the stack.
    is_bottom / set_is_bottom: u8 = 2, bit 0;
});

fields!(Entry {
    /// Time to live in hops.
    ttl / set_ttl: u8 = 3;
});

impl<T: AsRef<[u8]>> Entry<T> {
    #[inline]
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// The next entry, or after the last one the payload.
    pub fn payload(&self) -> &[u8] {
        &self.as_bytes()[ENTRY_LEN..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        let mut entry = Entry::new_checked([0x12, 0x34, 0x5b, 64]).unwrap();
        assert_eq!((entry.label(), entry.traffic_class(), entry.is_bottom()), (0x1_2345, 5, true));
        assert_eq!((entry.ttl(), entry.payload().len()), (64, 0));
        entry.set_label(1);
        entry.set_is_bottom(false);
        assert_eq!(entry.into_inner(), [0, 0, 0x1a, 64]);
    }
}
