//! What a dead node left in its rings, as the reaper reads it.
//!
//! Read only what a node wrote whose packet thread is truly gone (its robust futex, or the pidfd, says so), and in this order: [`Ring::remains`] of each incoming
//! ring; [`Ring::passed_on`] of every outgoing ring, in the turn of the remains; then, in any order,
//! [`Ring::inherit`] the incoming rings and give [`Ring::producer`] of the outgoing ones to a successor.
//! Producers of the incoming and consumers of the outgoing rings may live and work meanwhile.
//!
//! The last thing is [`Ring::wake_consumer`](super::Ring::wake_consumer) of every outgoing ring: the node may have
//! died between its store of the head and its wake-up call.

use super::descriptor::Descriptor;
use super::spsc::{Consumer, Ring, Violation};
use super::sync::Ordering::Acquire;

/// What lies in a ring whose consumer is gone.
#[derive(Debug, Default)]
pub struct Remains {
    /// The consumer's last turn that took from this ring; 0 if it never took.
    pub turn: u32,
    /// Entries that it had in its hands: in order, oldest first.
    pub in_hand: Vec<Descriptor>,
    /// Entries that it had not touched: in order, oldest first.
    pub waiting: Vec<Descriptor>,
}

/// What a turn passed on can no longer be told: it pushed more than the ring holds, and overwrote its own
/// entries (or the positions are nonsense).
///
/// The reaper then leaves the turn's packets alone, for passing one on twice is worse than losing it; the audit finds
/// those that lie in no ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overrun;

impl std::fmt::Display for Overrun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the ring no longer tells what its producer's last turn passed on")
    }
}

impl std::error::Error for Overrun {}

impl Ring {
    /// Reads what a dead consumer left.
    ///
    /// # Errors
    /// [`Violation`] when the positions cannot be; nothing in the ring can be believed then.
    pub fn remains(&self) -> Result<Remains, Violation> {
        let header = self.memory.header();
        let tail = header.consumer.0.tail.load(Acquire);
        let taken = header.hand.0.taken.load(Acquire);
        let turn = header.hand.0.turn.load(Acquire);
        let head = header.producer.0.head.load(Acquire);
        let all = head.wrapping_sub(tail);
        if all > self.capacity() {
            return Err(Violation);
        }
        // A taken behind the tail is from an earlier turn: the consumer died after its release.
        let in_hand = if taken.wrapping_sub(tail) <= all { taken.wrapping_sub(tail) } else { 0 };
        let middle = tail.wrapping_add(in_hand);
        Ok(Remains { turn, in_hand: self.between(tail, middle), waiting: self.between(middle, head) })
    }

    /// Reads what a dead producer published in its turn `turn`, whether or not the consumer has taken it since.
    ///
    /// Nothing is passed on in turn 0, the one that fresh rings name.
    ///
    /// # Errors
    /// [`Overrun`] when it pushed more in this turn than the ring holds.
    pub fn passed_on(&self, turn: u32) -> Result<Vec<Descriptor>, Overrun> {
        let header = self.memory.header();
        let line = &header.passed.0;
        if turn == 0 || line.turn.load(Acquire) != turn {
            return Ok(Vec::new());
        }
        let (mark, head) = (line.mark.load(Acquire), header.producer.0.head.load(Acquire));
        if head.wrapping_sub(mark) > self.capacity() {
            return Err(Overrun);
        }
        Ok(self.between(mark, head))
    }

    /// Empties a ring whose consumer is dead: what was in it has been read by [`Ring::remains`]. The heir finds
    /// what a live producer has published since.
    #[must_use]
    pub fn inherit(&self, remains: &Remains) -> Consumer {
        let mut heir = self.consumer();
        let left = remains.in_hand.len() + remains.waiting.len();
        heir.taken = heir.tail.wrapping_add(u32::try_from(left).unwrap_or(0));
        heir.head = heir.taken;
        heir.release();
        heir
    }
}
