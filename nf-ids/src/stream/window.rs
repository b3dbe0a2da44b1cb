//! Bytes of a stream that rules for raw content are asked about.

/// The reassembled bytes of one direction in which raw `content` may match: those that are new, and as many before
/// them as a match across the border may need. Never empty.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    /// The bytes, without gaps.
    pub bytes: &'a [u8],
    /// Offset in the stream of the first; data of a stream begins at 0.
    pub offset: u64,
    /// How many bytes at the front were in a window before: what lies in them alone has been inspected.
    pub old: usize,
}
