//! The record on a ring that names a buffer: 16 bytes of plain data.
//!
//! ```text
//!          63      52 51  48 47    40 39        24 23           0
//! word 0  | argument | op   | hop    | generation | buffer       |
//!          63                  50 49       39 38   32 31        0
//! word 1  | length            | offset       | port  | flow hash |
//! ```
//!
//! Sixteen bytes and not thirty-two, because four of them share a cache line and the line is what travels
//! between cores; `ARCHITECTURE.md` has the figures. A descriptor read from a ring is a peer's claim: nothing
//! in it is true until [`Descriptor::fits`] (every consumer) and the manager's own books (every worker) agree.

/// Highest buffer index that a descriptor can name, exclusive. The last value is [`Descriptor::NO_BUFFER`].
pub const MAX_BUFFERS: u32 = (1 << 24) - 1;
/// Longest packet that a descriptor can name, in bytes.
pub const MAX_LENGTH: u32 = (1 << 14) - 1;
/// Furthest start of a packet in its buffer, in bytes.
pub const MAX_OFFSET: u32 = (1 << 11) - 1;
/// Highest port id. The value after it, [`Descriptor::NO_PORT`], marks packets that an NF made.
pub const MAX_PORT: u8 = 126;
/// Highest argument of an operation: service id, port id, hop of a chain, drop reason.
pub const MAX_ARGUMENT: u16 = (1 << 12) - 1;

/// What the holder of a buffer says shall become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// On with the chain; the argument is the position in it where the packet is now (0: in no chain).
    Next = 0,
    /// To the service whose id is the argument.
    Service = 1,
    /// Out of the port whose id is the argument.
    Port = 2,
    /// To the free list, for the reason whose number is the argument.
    Drop = 3,
    /// A buffer without a packet: handed to an NF that makes packets, or given back unused.
    Empty = 4,
    /// No buffer: all that came before on this path has been passed on; the flow hash is an edge's id.
    Marker = 5,
    /// No buffer: of the packet in the next descriptor, a copy goes where the flow hash says.
    Mirror = 6,
    /// To the manager's books: a consumer found this descriptor to be nonsense.
    Invalid = 7,
}

impl Op {
    const ALL: [Self; 8] = [
        Self::Next,
        Self::Service,
        Self::Port,
        Self::Drop,
        Self::Empty,
        Self::Marker,
        Self::Mirror,
        Self::Invalid,
    ];
}

/// Where a packet goes: an operation and its argument, in 16 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Destination(u16);

impl Destination {
    /// What stands in a descriptor whose packet the NF keeps: means nothing to anybody else.
    pub(crate) const HELD: Self = Self(0xf);
    /// What stands in the NF's own copy of a descriptor that has been passed on already.
    pub(crate) const SENT: Self = Self(0x1f);

    /// Packs an operation and its argument (0..=[`MAX_ARGUMENT`], higher bits are cut off).
    #[must_use]
    #[inline(always)]
    pub const fn new(op: Op, argument: u16) -> Self {
        Self((op as u16) | argument << 4)
    }

    /// The operation; what is none becomes [`Op::Invalid`].
    #[must_use]
    #[inline(always)]
    pub fn op(self) -> Op {
        let number = usize::from(self.0 & 0xf);
        if number < Op::ALL.len() { Op::ALL[number] } else { Op::Invalid }
    }

    /// The argument, 0..=[`MAX_ARGUMENT`].
    #[must_use]
    #[inline(always)]
    pub const fn argument(self) -> u16 {
        self.0 >> 4
    }

    /// The 16 bits as they stand in a descriptor.
    #[must_use]
    #[inline(always)]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Any 16 bits, as read from a peer.
    #[must_use]
    #[inline(always)]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }
}

impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}({})", self.op(), self.argument())
    }
}

/// One entry of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Descriptor {
    words: [u64; 2],
}

impl Descriptor {
    /// Stands where no buffer is named.
    pub const NO_BUFFER: u32 = MAX_BUFFERS;
    /// The input port of packets that came from no port.
    pub const NO_PORT: u8 = MAX_PORT + 1;

    /// A descriptor of `length` bytes that start `offset` bytes into `buffer`; other fields are zero.
    /// Values over their field's range are cut off.
    #[must_use]
    #[inline(always)]
    pub fn new(buffer: u32, generation: u16, offset: u32, length: u32) -> Self {
        let identity = u64::from(buffer & MAX_BUFFERS) | u64::from(generation) << 24;
        let place = u64::from(offset & MAX_OFFSET) << 39 | u64::from(length & MAX_LENGTH) << 50;
        Self { words: [identity, place] }
    }

    /// A descriptor that names no buffer, for markers and mirrors.
    #[must_use]
    pub fn without_buffer(destination: Destination, value: u32) -> Self {
        Self::new(Self::NO_BUFFER, 0, 0, 0).with_destination(destination).with_hash(value)
    }

    /// The two words as they stand in a ring.
    #[must_use]
    #[inline(always)]
    pub const fn words(self) -> [u64; 2] {
        self.words
    }

    /// Any two words, as read from a ring.
    #[must_use]
    #[inline(always)]
    pub const fn from_words(words: [u64; 2]) -> Self {
        Self { words }
    }

    /// Buffer index, 0..[`MAX_BUFFERS`], or [`Self::NO_BUFFER`].
    #[must_use]
    #[inline(always)]
    pub const fn buffer(self) -> u32 {
        (self.words[0] & 0xff_ffff) as u32
    }

    /// How often the buffer had been handed out when this descriptor was made, modulo 65,536.
    #[must_use]
    #[inline(always)]
    pub const fn generation(self) -> u16 {
        (self.words[0] >> 24 & 0xffff) as u16
    }

    /// Services passed since the packet entered, 0..=255.
    #[must_use]
    #[inline(always)]
    pub const fn hop(self) -> u8 {
        (self.words[0] >> 40 & 0xff) as u8
    }

    /// Where it goes.
    #[must_use]
    #[inline(always)]
    pub const fn destination(self) -> Destination {
        Destination((self.words[0] >> 48) as u16)
    }

    /// Symmetric hash of the flow; the value of a marker or mirror.
    #[must_use]
    #[inline(always)]
    pub const fn hash(self) -> u32 {
        (self.words[1] & 0xffff_ffff) as u32
    }

    /// Input port, 0..=[`MAX_PORT`], or [`Self::NO_PORT`].
    #[must_use]
    #[inline(always)]
    pub const fn port(self) -> u8 {
        (self.words[1] >> 32 & 0x7f) as u8
    }

    /// Where the packet starts in its buffer, in bytes.
    #[must_use]
    #[inline(always)]
    pub const fn offset(self) -> u32 {
        (self.words[1] >> 39 & 0x7ff) as u32
    }

    /// Bytes of the packet in the buffer.
    #[must_use]
    #[inline(always)]
    pub const fn length(self) -> u32 {
        (self.words[1] >> 50) as u32
    }

    /// The same with another destination.
    #[must_use]
    #[inline(always)]
    pub const fn with_destination(mut self, destination: Destination) -> Self {
        self.words[0] = self.words[0] & 0x0000_ffff_ffff_ffff | (destination.0 as u64) << 48;
        self
    }

    /// The same with another hop count.
    #[must_use]
    #[inline(always)]
    pub const fn with_hop(mut self, hop: u8) -> Self {
        self.words[0] = self.words[0] & !(0xff << 40) | (hop as u64) << 40;
        self
    }

    /// The same with another flow hash.
    #[must_use]
    #[inline(always)]
    pub const fn with_hash(mut self, hash: u32) -> Self {
        self.words[1] = self.words[1] & !0xffff_ffff | hash as u64;
        self
    }

    /// The same with another input port (cut to 7 bits).
    #[must_use]
    #[inline(always)]
    pub const fn with_port(mut self, port: u8) -> Self {
        self.words[1] = self.words[1] & !(0x7f << 32) | (port as u64 & 0x7f) << 32;
        self
    }

    /// The same with another place in the buffer. Values over their field's range are cut off.
    #[must_use]
    #[inline(always)]
    pub fn with_place(mut self, offset: u32, length: u32) -> Self {
        let place = u64::from(offset & MAX_OFFSET) << 39 | u64::from(length & MAX_LENGTH) << 50;
        self.words[1] = self.words[1] & 0x7f_ffff_ffff | place;
        self
    }

    /// Whether the descriptor names a place inside a pool of `buffers` buffers with `room` bytes each.
    #[must_use]
    #[inline(always)]
    pub const fn fits(self, buffers: u32, room: u32) -> bool {
        self.misfit(buffers, room) >> 63 == 0
    }

    /// The same as a number whose highest bit is set if it does not fit, so that a burst is checked without a branch for
    /// each: all its misfits, combined by `|`, have that bit clear.
    #[must_use]
    #[inline(always)]
    pub(crate) const fn misfit(self, buffers: u32, room: u32) -> u64 {
        (buffers as u64).wrapping_sub(self.buffer() as u64 + 1) | self.misplaced(room)
    }

    /// The same of the place in the buffer alone.
    #[must_use]
    #[inline(always)]
    pub(crate) const fn misplaced(self, room: u32) -> u64 {
        // Both fields together are less than 2^15: the difference wraps only below zero.
        (room as u64).wrapping_sub(self.offset() as u64 + self.length() as u64)
    }

    /// What of `burst` is not the same in all: fields that are, are zero here.
    #[must_use]
    #[inline(always)]
    pub fn difference(burst: &[Self]) -> Self {
        let Some(first) = burst.first() else { return Self::default() };
        let mut odd = [0; 2];
        for d in burst {
            odd[0] |= d.words[0] ^ first.words[0];
            odd[1] |= d.words[1] ^ first.words[1];
        }
        Self { words: odd }
    }

    /// A number whose highest bit is set if the operation is not [`Op::Next`] or the hop count is over `most`.
    #[must_use]
    #[inline(always)]
    pub(crate) const fn astray(self, most: u8) -> u64 {
        // The operation stands right over the hop count: as one number, it is small when the operation is 0.
        (most as u64).wrapping_sub(self.words[0] >> 40 & 0xfff)
    }

    /// One hop on. A count over 254 spoils the operation, so the caller knows that it is not [`Self::astray`], or
    /// undoes it with [`Self::with_hop_undone`].
    #[must_use]
    #[inline(always)]
    pub(crate) const fn with_next_hop(mut self) -> Self {
        self.words[0] = self.words[0].wrapping_add(1 << 40);
        self
    }

    /// One hop back, whatever the count was.
    #[must_use]
    pub(crate) const fn with_hop_undone(mut self) -> Self {
        self.words[0] = self.words[0].wrapping_sub(1 << 40);
        self
    }

    /// Whether both name the same handing-out of the same buffer.
    #[must_use]
    #[inline(always)]
    pub const fn same_holding(self, other: Self) -> bool {
        (self.words[0] ^ other.words[0]) & 0xff_ffff_ffff == 0
    }
}

impl std::fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "buffer {}.{} [{}..+{}] port {} hop {} hash {:08x} {:?}",
            self.buffer(),
            self.generation(),
            self.offset(),
            self.length(),
            self.port(),
            self.hop(),
            self.hash(),
            self.destination()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fields_do_not_touch_each_other(
            buffer in 0..MAX_BUFFERS, generation: u16, hop: u8, hash: u32, port in 0..=Descriptor::NO_PORT,
            offset in 0..=MAX_OFFSET, length in 0..=MAX_LENGTH, op in 0u16..8, argument in 0..=MAX_ARGUMENT,
        ) {
            let destination = Destination::from_bits(op | argument << 4);
            let d = Descriptor::new(buffer, generation, 1, 2)
                .with_hop(hop).with_port(port).with_hash(hash).with_destination(destination)
                .with_place(offset, length);
            prop_assert_eq!((d.buffer(), d.generation(), d.hop()), (buffer, generation, hop));
            prop_assert_eq!((d.offset(), d.length()), (offset, length));
            prop_assert_eq!((d.hash(), d.port(), d.destination()), (hash, port, destination));
            prop_assert_eq!(destination.argument(), argument);
            prop_assert_eq!(Descriptor::from_words(d.words()), d);
        }

        #[test]
        fn any_words_are_read_without_panic(a: u64, b: u64) {
            let d = Descriptor::from_words([a, b]);
            let _ = (d.fits(1000, 2048), d.destination().op(), format!("{d:?}"));
        }
    }

    proptest! {
        #[test]
        fn checks_without_branches_say_the_same(a: u64, b: u64, buffers in 0..MAX_BUFFERS, room in 0u32..20_000, most: u8) {
            let d = Descriptor::from_words([a, b]);
            let fits = d.buffer() < buffers && d.offset() + d.length() <= room;
            prop_assert_eq!(d.fits(buffers, room), fits);
            prop_assert_eq!(d.misfit(buffers, room) >> 63 == 0, fits);
            prop_assert_eq!(d.astray(most) >> 63 == 0, d.destination().op() == Op::Next && d.destination().bits() & 0xf == 0 && d.hop() <= most);
            prop_assert_eq!(d.with_next_hop().with_hop_undone(), d);
        }
    }

    #[test]
    fn what_differs_in_a_burst_is_not_zero() {
        let d = Descriptor::new(9, 3, 256, 64).with_port(2).with_hash(7);
        let odd = Descriptor::difference(&[d, Descriptor::new(8, 3, 256, 64).with_port(2).with_hash(6), d]);
        assert_eq!(
            (odd.port(), odd.generation(), odd.offset(), odd.length(), odd.destination().bits()),
            (0, 0, 0, 0, 0)
        );
        assert!(odd.buffer() != 0 && odd.hash() != 0);
        assert_eq!(Descriptor::difference(&[]), Descriptor::default());
    }

    #[test]
    fn a_place_outside_the_pool_does_not_fit() {
        assert!(Descriptor::new(9, 0, 256, 64).fits(10, 320));
        assert!(!Descriptor::new(10, 0, 256, 64).fits(10, 320));
        assert!(!Descriptor::new(9, 0, 257, 64).fits(10, 320));
        assert!(!Descriptor::without_buffer(Destination::new(Op::Marker, 0), 1).fits(MAX_BUFFERS, 2048));
    }
}
