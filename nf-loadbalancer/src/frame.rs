//! What the packet path needs of a packet and of a burst, so that it runs over the pool's buffers, and over plain
//! memory in tests and measurements.

use onvm_lib::prelude::{Burst, Packet, ReadWrite, Verdict};

/// A packet that may be changed.
pub trait Frame {
    /// The frame, from its Ethernet header on.
    fn bytes(&self) -> &[u8];
    /// The frame, to change.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Port that it came in by.
    fn port(&self) -> Option<u8>;
    /// Makes room for `n` bytes at the front; false, and nothing happens, if there is none.
    #[must_use]
    fn push(&mut self, n: usize) -> bool;
    /// Adds `n` bytes at the end; false, and nothing happens, if there is no room.
    #[must_use]
    fn extend(&mut self, n: usize) -> bool;
    /// Cuts bytes off the end, to `length`.
    fn truncate(&mut self, length: usize);
    /// The hash of the flow that it belongs to from here on.
    fn set_hash(&mut self, hash: u32);
    /// Where it goes.
    fn set_verdict(&mut self, verdict: Verdict);
}

/// A burst of packets.
pub trait Frames {
    /// One of them.
    type Frame<'a>: Frame
    where
        Self: 'a;
    /// How many there are.
    fn count(&self) -> usize;
    /// One of them, by its index below [`Frames::count`].
    fn frame(&mut self, index: usize) -> Self::Frame<'_>;
    /// A new one of so many bytes, which hold anything; none if there is no buffer for it.
    fn make(&mut self, length: usize) -> Option<Self::Frame<'_>>;
}

impl Frame for Packet<'_, ReadWrite> {
    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        Packet::bytes(self)
    }

    #[inline(always)]
    fn bytes_mut(&mut self) -> &mut [u8] {
        Packet::bytes_mut(self)
    }

    #[inline(always)]
    fn port(&self) -> Option<u8> {
        Packet::port(self)
    }

    fn push(&mut self, n: usize) -> bool {
        Packet::push(self, n)
    }

    fn extend(&mut self, n: usize) -> bool {
        Packet::extend(self, n)
    }

    fn truncate(&mut self, length: usize) {
        Packet::truncate(self, length);
    }

    #[inline(always)]
    fn set_hash(&mut self, hash: u32) {
        Packet::set_hash(self, hash);
    }

    #[inline(always)]
    fn set_verdict(&mut self, verdict: Verdict) {
        Packet::set_verdict(self, verdict);
    }
}

impl<'b> Frames for Burst<'b, ReadWrite> {
    type Frame<'a>
        = Packet<'a, ReadWrite>
    where
        Self: 'a;

    #[inline(always)]
    fn count(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn frame(&mut self, index: usize) -> Packet<'_, ReadWrite> {
        self.packet(index)
    }

    fn make(&mut self, length: usize) -> Option<Packet<'_, ReadWrite>> {
        Burst::make(self, length)
    }
}

/// A frame in plain memory, with room at both ends.
#[derive(Clone, Debug)]
pub struct Plain {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Port that it came in by.
    pub port: Option<u8>,
    /// What was said of it.
    pub verdict: Verdict,
    /// The hash that it was given.
    pub hash: Option<u32>,
}

impl Plain {
    /// Room at each end, in bytes; as much as the pool's buffers have in front.
    const ROOM: usize = 192;

    /// A frame that came in by a port.
    #[must_use]
    pub fn new(frame: &[u8], port: Option<u8>) -> Self {
        let mut bytes = vec![0; frame.len() + 2 * Self::ROOM];
        bytes[Self::ROOM..Self::ROOM + frame.len()].copy_from_slice(frame);
        let (start, end) = (Self::ROOM, Self::ROOM + frame.len());
        Self { bytes, start, end, port, verdict: Verdict::Next, hash: None }
    }

    /// Puts another frame into the same memory; it must fit.
    pub fn refill(&mut self, frame: &[u8]) {
        (self.start, self.end) = (Self::ROOM, Self::ROOM + frame.len());
        self.bytes[self.start..self.end].copy_from_slice(frame);
        self.verdict = Verdict::Next;
    }
}

impl Frame for &mut Plain {
    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    #[inline(always)]
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    fn port(&self) -> Option<u8> {
        self.port
    }

    fn push(&mut self, n: usize) -> bool {
        let fits = n <= self.start;
        self.start -= if fits { n } else { 0 };
        fits
    }

    fn extend(&mut self, n: usize) -> bool {
        let fits = self.end + n <= self.bytes.len();
        self.end += if fits { n } else { 0 };
        fits
    }

    fn truncate(&mut self, length: usize) {
        self.end = self.end.min(self.start + length);
    }

    fn set_hash(&mut self, hash: u32) {
        self.hash = Some(hash);
    }

    fn set_verdict(&mut self, verdict: Verdict) {
        self.verdict = verdict;
    }
}

/// A burst in plain memory.
#[derive(Clone, Debug, Default)]
pub struct PlainBurst {
    /// Packets that came in.
    pub frames: Vec<Plain>,
    /// Packets that were made.
    pub made: Vec<Plain>,
}

impl PlainBurst {
    /// A burst of one frame.
    #[must_use]
    pub fn one(frame: &[u8], port: Option<u8>) -> Self {
        Self { frames: vec![Plain::new(frame, port)], made: Vec::new() }
    }

    /// What goes on: verdicts and bytes, those made last.
    pub fn out(&mut self) -> Vec<(Verdict, Vec<u8>)> {
        let all = self.frames.iter_mut().chain(&mut self.made);
        let kept = all.filter(|plain| !matches!(plain.verdict, Verdict::Drop(_)));
        kept.map(|mut plain| (plain.verdict, Frame::bytes(&(&mut plain as &mut Plain)).to_vec())).collect()
    }
}

impl Frames for PlainBurst {
    type Frame<'a> = &'a mut Plain;

    #[inline(always)]
    fn count(&self) -> usize {
        self.frames.len()
    }

    #[inline(always)]
    fn frame(&mut self, index: usize) -> &mut Plain {
        &mut self.frames[index]
    }

    fn make(&mut self, length: usize) -> Option<&mut Plain> {
        self.made.push(Plain::new(&vec![0; length], None));
        self.made.last_mut()
    }
}
