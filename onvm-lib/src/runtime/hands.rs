//! What an NF works with during a turn, and the one place in the runtime that makes a [`Burst`].
#![allow(unsafe_code)]

use crate::packet::{Access, Burst, Clock, Emitter, Held};
use crate::pool::Pool;
use crate::ring::{Descriptor, Destination};

/// The pool and the things that a burst refers to.
#[derive(Debug)]
pub(super) struct Hands<H> {
    pub(super) pool: Pool,
    pub(super) emitter: Emitter,
    pub(super) mirrors: Vec<(usize, Destination)>,
    pub(super) held: H,
    pub(super) clock: Clock,
}

impl<H: Held> Hands<H> {
    pub(super) fn new(pool: Pool, held: H, clock: Clock) -> Self {
        Self { pool, emitter: Emitter::default(), mirrors: Vec::new(), held, clock }
    }

    /// Puts packets into an NF's hands.
    ///
    /// Both callers give descriptors of packets that they hold, and that the NF holds until they pass them
    /// on: the live loop those that it took in this turn and has checked, the replay those that its own books
    /// handed out. Either mapped the pool for writing if `A` writes.
    #[inline(always)]
    pub(super) fn burst<'a, A: Access>(&'a mut self, descriptors: &'a mut [Descriptor]) -> Burst<'a, A> {
        // SAFETY: a ring names a buffer once (the books and the release rule see to it), and so does the replay;
        // nobody else touches it while this NF holds it. The borrow ends before anything is passed on.
        unsafe {
            Burst::new(
                &self.pool,
                descriptors,
                &mut self.emitter,
                &mut self.mirrors,
                &mut self.held,
                &self.clock,
            )
        }
    }
}
