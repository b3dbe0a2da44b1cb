//! What a packet carries to be known by: whose it is, which one, and when it left.
//!
//! ```text
//! byte 42 (the UDP payload)   magic, 4    number, 4    time in ns, 8
//! ```
//! All within the first 64 bytes, which the runtime fetches anyway. The magic is drawn at random by each run,
//! so that packets of another run or of somebody else are not measured. The number is given in network order,
//! the rest is for nobody else to read.

/// Where the stamp is.
pub(crate) const OFFSET: usize = 42;
/// Its length.
pub(crate) const LEN: usize = 16;

/// Writes stamps, and knows them again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamps {
    magic: [u8; 4],
}

impl Stamps {
    pub(crate) fn new(magic: u32) -> Self {
        Self { magic: magic.to_be_bytes() }
    }

    /// Marks a packet of ours.
    #[inline]
    pub(crate) fn write(self, frame: &mut [u8], number: u32, time_ns: u64) {
        if let Some(place) = frame.get_mut(OFFSET..OFFSET + LEN) {
            place[..4].copy_from_slice(&self.magic);
            place[4..8].copy_from_slice(&number.to_be_bytes());
            place[8..].copy_from_slice(&time_ns.to_ne_bytes());
        }
    }

    /// Changes the time only.
    #[inline]
    pub(crate) fn set_time(frame: &mut [u8], time_ns: u64) {
        if let Some(place) = frame.get_mut(OFFSET + 8..OFFSET + LEN) {
            place.copy_from_slice(&time_ns.to_ne_bytes());
        }
    }

    /// Number and time of a packet, if it is ours.
    #[inline]
    pub(crate) fn read(self, frame: &[u8]) -> Option<(u32, u64)> {
        let stamp = frame.get(OFFSET..)?.first_chunk::<LEN>()?;
        let [a, b, c, d, number @ .., _, _, _, _, _, _, _, _] = *stamp;
        let time: [u8; 8] = *stamp.last_chunk()?;
        ([a, b, c, d] == self.magic).then(|| (u32::from_be_bytes(number), u64::from_ne_bytes(time)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_wrote_and_nothing_else() {
        let (mine, other) = (Stamps::new(7), Stamps::new(8));
        let mut frame = [0; 60];
        assert_eq!(mine.read(&frame), None);
        mine.write(&mut frame, 9, 1234);
        assert_eq!((mine.read(&frame), other.read(&frame)), (Some((9, 1234)), None));
        Stamps::set_time(&mut frame, 5);
        assert_eq!(mine.read(&frame), Some((9, 5)));
        assert_eq!(mine.read(&frame[..57]), None);
        mine.write(&mut frame[..57], 1, 1);
    }
}
