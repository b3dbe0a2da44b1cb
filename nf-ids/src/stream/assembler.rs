//! Bytes of one direction, put in their places.
//!
//! ```text
//! base                 ready                              end
//!  │ in order, readable │ gap │ came early │ gap │ came early │
//! ```
//! Bytes lie at their stream offset in one buffer, so that what is in order is one slice. The segments they came in are
//! remembered until they are read: which of two that overlap counts depends on where both began
//! and ended ([`Policy`]), because receivers differ in it, and an attacker sends what only his victim puts together.

/// Which data counts where segments or fragments overlap with different content: as hosts of these systems have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is told by its name, and by what it takes below")]
pub enum Policy {
    #[default]
    Bsd,
    Linux,
    OldLinux,
    Solaris,
    Hpux11,
    Macos,
    Windows,
    Vista,
    /// What came first, always.
    First,
    /// What came last, always.
    Last,
}

impl Policy {
    /// All of them, with their names.
    pub const NAMES: &'static [(&'static str, Policy)] = &[
        ("bsd", Policy::Bsd),
        ("linux", Policy::Linux),
        ("old-linux", Policy::OldLinux),
        ("solaris", Policy::Solaris),
        ("hpux11", Policy::Hpux11),
        ("macos", Policy::Macos),
        ("windows", Policy::Windows),
        ("vista", Policy::Vista),
        ("first", Policy::First),
        ("last", Policy::Last),
    ];

    /// Whether the bytes of the new segment of TCP count where it overlaps the earlier one.
    #[must_use]
    pub fn takes_new(self, new: Span, earlier: Span) -> bool {
        let before = new.start < earlier.start;
        let same = new.start == earlier.start;
        match self {
            Policy::Bsd | Policy::Windows | Policy::Macos => before,
            Policy::Linux => before || same && new.end > earlier.end,
            Policy::OldLinux => before || same && new.end >= earlier.end,
            Policy::Solaris | Policy::Hpux11 => {
                (before || same) && new.end >= earlier.end || new.end > earlier.end
            }
            Policy::Vista | Policy::First => false,
            Policy::Last => true,
        }
    }

    /// The same for fragments of IP, with which the same systems deal otherwise.
    #[must_use]
    pub fn takes_new_fragment(self, new: Span, earlier: Span) -> bool {
        let before = new.start < earlier.start;
        match self {
            Policy::Bsd => before,
            Policy::Linux | Policy::OldLinux => new.start <= earlier.start,
            Policy::Windows | Policy::Vista => before && new.end > earlier.end,
            Policy::Solaris => before && new.end >= earlier.end,
            Policy::Hpux11 | Policy::Macos | Policy::First => false,
            Policy::Last => true,
        }
    }
}

/// A piece of a stream, by the offsets of its first byte and of what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u64,
    /// After the last.
    pub end: u64,
}

/// What became of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is in its place.
    Done {
        /// It overlaps another, and says something else.
        differs: bool,
        /// Bytes that were not there before.
        new: usize,
    },
    /// All of it lies before what was read already.
    Old,
    /// There is no room for it.
    Full,
}

/// Bytes between what was read and the end of the farthest segment, at most.
pub(super) const MOST_BYTES: usize = 1 << 20;
/// Segments that wait, at most.
const MOST_SEGMENTS: usize = 4096;
/// A buffer that has this much room and nothing in it is given back.
const KEPT_ROOM: usize = 64 << 10;
/// Room for so many segments is kept when none waits.
const KEPT_SEGMENTS: usize = 64;

/// The bytes of one direction.
#[derive(Debug, Default)]
pub struct Assembler {
    /// Stream offset of what stands at `head`.
    base: u64,
    /// Everything before it is in order.
    ready: u64,
    buffer: Vec<u8>,
    /// Bytes at the front of the buffer that were read.
    head: usize,
    /// By their start.
    segments: Vec<Span>,
    /// Bytes of segments that were compared with others.
    #[cfg(test)]
    compared: u64,
}

impl Assembler {
    /// Offset of the first byte that is still there.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Bytes up to here are in order, from the base on.
    #[must_use]
    pub fn ready(&self) -> u64 {
        self.ready
    }

    /// End of the farthest segment.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.base + (self.buffer.len() - self.head) as u64
    }

    /// Bytes held, with what is known of segments.
    #[must_use]
    pub fn held(&self) -> usize {
        self.buffer.capacity() + self.segments.capacity() * size_of::<Span>()
    }

    /// Bytes in order from `from` up to `to`, as far as they are there.
    #[must_use]
    pub fn bytes(&self, from: u64, to: u64) -> &[u8] {
        let (from, to) = (from.max(self.base), to.min(self.ready));
        if from >= to {
            return &[];
        }
        &self.buffer[self.place(from)..self.place(to)]
    }

    /// Bytes of a segment that is there, in order or not.
    #[must_use]
    pub fn held_bytes(&self, from: u64, to: u64) -> &[u8] {
        let (from, to) = (from.max(self.base), to.min(self.end()));
        if from >= to {
            return &[];
        }
        &self.buffer[self.place(from)..self.place(to)]
    }

    /// Index of an offset that lies between base and end.
    #[allow(clippy::cast_possible_truncation, reason = "no farther than the buffer is long")]
    fn place(&self, offset: u64) -> usize {
        self.head + (offset - self.base) as usize
    }

    /// Puts a segment in its place; `takes_new` is asked whose bytes count where it overlaps an earlier one.
    pub fn put(&mut self, start: u64, data: &[u8], takes_new: impl Fn(Span, Span) -> bool) -> Put {
        let span = Span { start, end: start + data.len() as u64 };
        if span.end <= self.base || data.is_empty() {
            return Put::Old;
        }
        // What lies before the base was read, and counts.
        let cut = usize::try_from(self.base.saturating_sub(start)).unwrap_or(usize::MAX);
        let Some(data) = data.get(cut..) else { return Put::Old };
        let from = span.start.max(self.base);
        if span.end - self.base > MOST_BYTES as u64 || self.segments.len() >= MOST_SEGMENTS {
            return Put::Full;
        }
        if from == self.end() {
            self.buffer.extend_from_slice(data);
            if from == self.ready {
                self.ready = span.end;
            }
            self.segments.push(span);
            return Put::Done { differs: false, new: data.len() };
        }
        self.put_among(span, from, data, takes_new)
    }

    /// Puts a segment in that leaves a gap, or overlaps others.
    fn put_among(
        &mut self,
        span: Span,
        from: u64,
        data: &[u8],
        takes_new: impl Fn(Span, Span) -> bool,
    ) -> Put {
        if span.end > self.end() {
            let most = self.place(span.end);
            self.buffer.resize(most, 0);
        }
        // Segments may overlap each other, but each byte is compared and copied once at most: what a segment costs is
        // bounded by its length and the number of segments, whatever they are.
        let (mut differs, mut taken, mut new) = (false, false, 0);
        // Everything up to here was looked at; and what the new segment won was copied.
        let (mut covered, mut won) = (from, from);
        let mut first = None;
        for index in 0..self.segments.len() {
            let earlier = self.segments[index];
            // Those that begin behind this one's end do not touch it.
            if earlier.start >= span.end {
                break;
            }
            if earlier.end <= from {
                continue;
            }
            first.get_or_insert(index);
            if earlier.start > covered {
                new += self.copy(from, data, covered, earlier.start);
                covered = earlier.start;
            }
            let end = earlier.end.min(span.end);
            if covered < end {
                differs |= self.is_other(from, data, covered, end);
                covered = end;
            }
        }
        if covered < span.end {
            new += self.copy(from, data, covered, span.end);
        }
        if differs && let Some(first) = first {
            for index in first..self.segments.len() {
                let earlier = self.segments[index];
                let (start, end) = (earlier.start.max(won), earlier.end.min(span.end));
                if earlier.start >= span.end {
                    break;
                }
                if start < end && takes_new(span, earlier) {
                    taken = true;
                    self.copy(from, data, start, end);
                    won = end;
                }
            }
        }
        // One that neither adds nor changes anything leaves no trace, at the receiver neither.
        if new > 0 || taken {
            let at = self.segments.partition_point(|other| other.start <= span.start);
            self.segments.insert(at, span);
        }
        if span.start <= self.ready && span.end > self.ready {
            self.ready = self.in_order_to(self.ready);
        }
        Put::Done { differs, new }
    }

    /// Whether `[start, end)` of a segment that begins at `from` is not what is held there.
    fn is_other(&mut self, from: u64, data: &[u8], start: u64, end: u64) -> bool {
        #[cfg(test)]
        {
            self.compared += end - start;
        }
        self.buffer[self.place(start)..self.place(end)] != *slice(from, data, start, end)
    }

    /// Copies `[start, end)` of a segment that begins at `from`; how many bytes.
    fn copy(&mut self, from: u64, data: &[u8], start: u64, end: u64) -> usize {
        let (at, to) = (self.place(start), self.place(end));
        self.buffer[at..to].copy_from_slice(slice(from, data, start, end));
        to - at
    }

    /// How far bytes are in order from `from` on.
    fn in_order_to(&self, from: u64) -> u64 {
        let mut end = from;
        for span in &self.segments {
            if span.start > end {
                break;
            }
            end = end.max(span.end);
        }
        end
    }

    /// Forgets everything before `offset`.
    pub fn forget(&mut self, offset: u64) {
        if offset <= self.base {
            return;
        }
        if offset >= self.end() {
            self.buffer.clear();
            self.head = 0;
            if self.buffer.capacity() > KEPT_ROOM {
                self.buffer = Vec::new();
            }
        } else {
            self.head = self.place(offset);
            if self.head >= self.buffer.len() / 2 {
                self.buffer.drain(..self.head);
                self.head = 0;
            }
        }
        self.base = offset;
        let gone = self.segments.iter().take_while(|span| span.end <= offset).count();
        self.segments.drain(..gone);
        if self.segments.is_empty() && self.segments.capacity() > KEPT_SEGMENTS {
            self.segments = Vec::new();
        }
        self.ready = self.in_order_to(self.ready.max(offset));
    }

    /// Start of the first segment after the gap at the end of what is in order; none if there is no gap with something
    /// behind it.
    #[must_use]
    pub fn after_gap(&self) -> Option<u64> {
        self.segments.iter().map(|span| span.start).find(|start| *start > self.ready)
    }
}

/// Bytes `[start, end)` of a segment that begins at `from`.
#[allow(clippy::cast_possible_truncation, reason = "inside the segment")]
fn slice(from: u64, data: &[u8], start: u64, end: u64) -> &[u8] {
    &data[(start - from) as usize..(end - from) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(policy: Policy, segments: &[(u64, &str)]) -> (String, bool) {
        let mut assembler = Assembler::default();
        let mut differs = false;
        for (start, text) in segments {
            if let Put::Done { differs: here, .. } =
                assembler.put(*start, text.as_bytes(), |new, old| policy.takes_new(new, old))
            {
                differs |= here;
            }
        }
        (String::from_utf8_lossy(assembler.bytes(0, assembler.ready())).into(), differs)
    }

    #[test]
    fn segments_come_in_any_order() {
        assert_eq!(stream(Policy::Bsd, &[(3, "def"), (6, "ghi"), (0, "abc")]), ("abcdefghi".into(), false));
        assert_eq!(stream(Policy::Bsd, &[(0, "abc"), (1, "bcde"), (9, "x")]), ("abcde".into(), false));
    }

    #[test]
    fn overlaps_are_settled_by_policy() {
        // An earlier segment in the middle, and one over all of it.
        let over: &[(u64, &str)] = &[(3, "EEE"), (0, "nnnnnnnnn")];
        for (policy, text) in [
            (Policy::Bsd, "nnnnnnnnn"),
            (Policy::Linux, "nnnnnnnnn"),
            (Policy::Windows, "nnnnnnnnn"),
            (Policy::Solaris, "nnnnnnnnn"),
            (Policy::Vista, "nnnEEEnnn"),
            (Policy::First, "nnnEEEnnn"),
            (Policy::Last, "nnnnnnnnn"),
        ] {
            assert_eq!(stream(policy, over), (text.into(), true), "{policy:?}");
        }
        // One that begins with the earlier one and is longer.
        let same: &[(u64, &str)] = &[(1, "EEE"), (1, "nnnnn"), (0, "0")];
        for (policy, text) in [
            (Policy::Bsd, "0EEEnn"),
            (Policy::Linux, "0nnnnn"),
            (Policy::OldLinux, "0nnnnn"),
            (Policy::Windows, "0EEEnn"),
            (Policy::First, "0EEEnn"),
            (Policy::Last, "0nnnnn"),
        ] {
            assert_eq!(stream(policy, same), (text.into(), true), "{policy:?}");
        }
        // One that begins before the earlier one and ends in it.
        let into: &[(u64, &str)] = &[(3, "EEEE"), (0, "nnnnn")];
        for (policy, text) in [
            (Policy::Bsd, "nnnnnEE"),
            (Policy::Windows, "nnnnnEE"),
            (Policy::Macos, "nnnnnEE"),
            (Policy::Solaris, "nnnEEEE"),
            (Policy::Vista, "nnnEEEE"),
        ] {
            assert_eq!(stream(policy, into), (text.into(), true), "{policy:?}");
        }
        // One that begins in the earlier one and ends behind it.
        let behind: &[(u64, &str)] = &[(0, "EEEE"), (2, "nnnn")];
        for (policy, text) in [(Policy::Bsd, "EEEEnn"), (Policy::Hpux11, "EEnnnn"), (Policy::Last, "EEnnnn")]
        {
            assert_eq!(stream(policy, behind), (text.into(), true), "{policy:?}");
        }
    }

    #[test]
    fn what_was_read_stays() {
        let mut assembler = Assembler::default();
        assert_eq!(assembler.put(0, b"abcdef", |_, _| true), Put::Done { differs: false, new: 6 });
        assembler.forget(4);
        assert_eq!(assembler.put(0, b"XXXX", |_, _| true), Put::Old);
        assert_eq!(assembler.put(2, b"XXYYZZ", |_, _| true), Put::Done { differs: true, new: 2 });
        assert_eq!(assembler.bytes(0, 99), b"YYZZ");
        assert_eq!(assembler.put(20, b"later", |_, _| true), Put::Done { differs: false, new: 5 });
        assert_eq!((assembler.ready(), assembler.after_gap()), (8, Some(20)));
        assembler.forget(20);
        assert_eq!(assembler.bytes(20, 25), b"later");
        assert_eq!(assembler.put(20 + MOST_BYTES as u64, b"far", |_, _| true), Put::Full);
    }

    #[test]
    fn segments_that_add_nothing_are_not_remembered() {
        let mut assembler = Assembler::default();
        assert_eq!(assembler.put(9, b"x", |_, _| false), Put::Done { differs: false, new: 1 });
        let held = assembler.held();
        for _ in 0..5000 {
            assert_eq!(assembler.put(9, b"x", |_, _| false), Put::Done { differs: false, new: 0 });
            assert_eq!(assembler.put(9, b"y", |_, _| false), Put::Done { differs: true, new: 0 });
        }
        assert_eq!((assembler.held(), assembler.segments.len()), (held, 1));
    }

    #[test]
    fn a_segment_is_compared_once_however_many_it_overlaps() {
        // Each begins one byte before the one before it, so that all of them overlap; each second says something else.
        let mut assembler = Assembler::default();
        let texts = [[b'a'; 1400], [b'b'; 1400]];
        for turn in 0..2000 {
            let text = &texts[turn % 2];
            let put = assembler.put(3000 - turn as u64, text, |new, old| Policy::Bsd.takes_new(new, old));
            assert!(matches!(put, Put::Done { .. }), "{turn}");
        }
        assert!(assembler.compared <= 2000 * 1400, "{} bytes", assembler.compared);
        // What is known of segments counts as memory.
        assert!(assembler.held() >= 3399 + 2000 * size_of::<Span>(), "{}", assembler.held());
        assembler.forget(4400);
        assert!(assembler.held() < 64 << 10, "{}", assembler.held());
    }

    proptest::proptest! {
        /// Pieces of one text, in any order and with any overlap, make the text up to the first hole.
        #[test]
        fn pieces_of_one_text_make_it(
            pieces in proptest::collection::vec((0u64..300, 1u64..80), 0..60), forget in 0u64..200,
            policy in proptest::sample::select(Policy::NAMES.iter().map(|(_, p)| *p).collect::<Vec<_>>()),
        ) {
            let text: Vec<u8> = (0u32..400).map(|n| (n * 31 % 251).to_le_bytes()[0]).collect();
            let mut there = vec![false; 400];
            let mut assembler = Assembler::default();
            for (turn, (start, length)) in pieces.iter().enumerate() {
                let (from, to) = (usize::try_from(*start).unwrap(), usize::try_from(start + length).unwrap());
                let put = assembler.put(*start, &text[from..to], |new, old| policy.takes_new(new, old));
                let differs = matches!(put, Put::Done { differs: true, .. } | Put::Full);
                proptest::prop_assert!(!differs);
                there[from..to].fill(true);
                if turn == pieces.len() / 2 {
                    let upto = forget.min(assembler.ready());
                    assembler.forget(upto);
                }
            }
            let hole = there.iter().position(|known| !known).unwrap_or(400) as u64;
            proptest::prop_assert_eq!(assembler.ready(), hole);
            let base = usize::try_from(assembler.base()).unwrap();
            let end = usize::try_from(hole).unwrap();
            proptest::prop_assert_eq!(assembler.bytes(0, hole), &text[base.min(end)..end]);
        }
    }
}
