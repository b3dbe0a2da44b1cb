//! The packet memory: buffers of one size in one shared region.
//!
//! ```text
//! buffer   0        64              256                       stride (an odd number of cache lines)
//!          | note    | headroom      | packet … room           | next buffer
//! ```
//! The first line of a buffer is its note: what the input port knew of the packet (time, length on the
//! wire). Packets start on a line of their own, [`HEADROOM`] bytes into the room. The stride is odd in cache
//! lines, so that headers do not all fall into the same cache sets.
//!
//! # Ownership
//! A buffer is free, or exactly one node holds it. The manager's [`Books`] say which; a node other than a
//! worker knows only what stands in its rings. Packet bytes may be touched by the holder alone:
//! a worker holds a [`Packet`] token that cannot be copied, an NF sees a packet only inside its burst.

mod books;
mod memory;
mod record;

pub use books::{Books, Packet, Refusal};
pub use memory::{Note, Pool};
pub use record::Holder;

/// Bytes between the start of a buffer's room and the start of a packet as received.
pub const HEADROOM: u32 = 192;
/// Bytes of the note in front of each buffer's room.
pub(crate) const NOTE: u32 = 64;
/// Room for a packet that a pool has unless told otherwise, in bytes.
pub const DEFAULT_PACKET_ROOM: u32 = 2048;
const CACHE_LINE: u32 = 64;

/// Sizes of a pool; the same in every process that maps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Geometry {
    buffers: u32,
    room: u32,
    stride: u32,
}

/// A pool of these sizes cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeometryError {
    /// Number of buffers outside 1..=16,777,214.
    Buffers(u32),
    /// Bytes for a packet outside 64..=16,191.
    PacketRoom(u32),
}

impl std::fmt::Display for GeometryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Buffers(n) => {
                write!(f, "{n} buffers is out of range 1..={}", crate::ring::MAX_BUFFERS - 1)
            }
            Self::PacketRoom(n) => write!(
                f,
                "{n} bytes for a packet is out of range 64..={}",
                crate::ring::MAX_LENGTH - HEADROOM
            ),
        }
    }
}

impl std::error::Error for GeometryError {}

impl Geometry {
    /// Sizes for `buffers` buffers with room for packets of `packet_room` bytes behind the headroom.
    ///
    /// # Errors
    /// [`GeometryError`] names the value that is out of range.
    pub fn new(buffers: u32, packet_room: u32) -> Result<Self, GeometryError> {
        if buffers == 0 || buffers >= crate::ring::MAX_BUFFERS {
            return Err(GeometryError::Buffers(buffers));
        }
        if !(64..=crate::ring::MAX_LENGTH - HEADROOM).contains(&packet_room) {
            return Err(GeometryError::PacketRoom(packet_room));
        }
        let room = HEADROOM + packet_room;
        let lines = (NOTE + room).div_ceil(CACHE_LINE) | 1;
        Ok(Self { buffers, room, stride: lines * CACHE_LINE })
    }

    /// Whether these sizes, received from a peer, are ones that [`Geometry::new`] makes.
    #[must_use]
    pub fn is_sound(self) -> bool {
        self.room.checked_sub(HEADROOM).is_some_and(|room| Self::new(self.buffers, room) == Ok(self))
    }

    /// Number of buffers.
    #[must_use]
    pub fn buffers(self) -> u32 {
        self.buffers
    }

    /// Bytes in a buffer for headroom and packet.
    #[must_use]
    pub fn room(self) -> u32 {
        self.room
    }

    /// Longest packet that fits behind the headroom, in bytes.
    #[must_use]
    pub fn packet_room(self) -> u32 {
        self.room - HEADROOM
    }

    /// Bytes from one buffer to the next.
    #[must_use]
    pub fn stride(self) -> u32 {
        self.stride
    }

    /// Bytes of shared memory that the pool takes.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.buffers as usize * self.stride as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stride_is_an_odd_number_of_lines_and_holds_everything() {
        for room in [64, 128, 1500, 2048, 9216, 16_191] {
            let g = Geometry::new(10, room).unwrap();
            assert_eq!(g.stride() / CACHE_LINE % 2, 1);
            assert!(g.stride() >= NOTE + g.room() && g.packet_room() == room && g.is_sound());
        }
        assert_eq!(Geometry::new(0, 2048), Err(GeometryError::Buffers(0)));
        assert_eq!(Geometry::new(10, 63), Err(GeometryError::PacketRoom(63)));
        assert_eq!(Geometry::new(10, 20_000), Err(GeometryError::PacketRoom(20_000)));
        let forged = Geometry { buffers: 10, room: 2240, stride: 64 };
        assert!(!forged.is_sound());
    }
}
