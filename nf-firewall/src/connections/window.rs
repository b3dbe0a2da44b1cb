//! Which sequence numbers a connection can have: "Real Stateful TCP Packet Filtering in IP Filter" (G. van Rooij,
//! SANE 2000), with the bounds that netfilter draws, window scaling (RFC 7323) and SACK (RFC 2018).
//!
//! Of each side is kept how far it has sent, how far the other has let it, and the largest window that it has offered. A
//! segment is within the window when
//!
//! ```text
//! I    seq  ≤ how far the sender may send
//! II   end  ≥ what the sender has sent − the receiver's largest window      (not older than one window)
//! III  ack  ≤ what the receiver has sent                                    (acknowledges nothing unseen)
//! IV   ack  ≥ what the receiver has sent − the sender's largest window, at least 66,000
//! ```
//! A segment must touch the window, not lie within it: senders probe closed windows, and receivers take what they can.
//! What breaks I or III cannot be the connection's. What breaks II or IV alone is late, and what goes beyond I by no more
//! than a window, with all else in order, is from a sender that knows better: both are let by and change nothing else.

use serde::{Deserialize, Serialize};

use super::segment::{Segment, after, before};

/// Acknowledgments may lie back this far whatever the window is: a burst that was under way when it shrank.
const LEAST_ACK_WINDOW: u32 = 66_000;

/// What the window says of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    Within,
    /// It goes through and changes nothing.
    LetBy,
    Outside,
}

/// One side of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Side {
    /// How far it has sent.
    end: u32,
    /// How far the other side has let it send.
    limit: u32,
    /// Largest window that it has offered, scaled; 0: nothing of it has been seen.
    window: u32,
    /// Highest acknowledgment that it has sent, if it has sent one.
    acked: u32,
    has_acked: bool,
    scale: u8,
    scales: bool,
    sack: bool,
    /// Its history is not known, so its segments are not held to the window.
    lenient: bool,
    /// It has sent what was not acknowledged yet.
    unacknowledged: bool,
}

impl Side {
    fn from_syn(segment: &Segment) -> Self {
        Self {
            end: segment.end,
            limit: segment.end,
            window: segment.window.max(1),
            scale: segment.options.scale.unwrap_or(0),
            scales: segment.options.scale.is_some(),
            sack: segment.options.sack,
            ..Self::default()
        }
    }
}

/// Both sides: the one that began, and the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Windows([Side; 2]);

impl Windows {
    /// Of a connection that begins with a SYN.
    pub(crate) fn of_syn(segment: &Segment) -> Self {
        Self([Side::from_syn(segment), Side::default()])
    }

    /// Of a connection that was there before us: its scales are not known, so nothing is out of its window.
    pub(crate) fn picked_up(segment: &Segment) -> Self {
        let window = segment.window.max(1);
        let first = Side {
            end: segment.end,
            limit: segment.end.wrapping_add(window),
            window,
            sack: true,
            lenient: true,
            ..Side::default()
        };
        Self([first, Side { sack: true, lenient: true, ..Side::default() }])
    }

    /// Goes on from a SYN that was let by, and of which the other side thinks well.
    pub(crate) fn begin_again(&mut self, reply: bool, end: u32, window: u32, scale: Option<u8>, sack: bool) {
        self.0[usize::from(reply)] = Side {
            end,
            limit: end,
            window: window.max(1),
            scale: scale.unwrap_or(0),
            scales: scale.is_some(),
            sack,
            ..Side::default()
        };
        self.0[usize::from(!reply)] = Side::default();
    }

    /// The highest acknowledgment of the side that is not this one.
    pub(crate) fn acknowledged_by_other(&self, reply: bool) -> Option<u32> {
        let other = &self.0[usize::from(!reply)];
        other.has_acked.then_some(other.acked)
    }

    pub(crate) fn is_unacknowledged(&self) -> bool {
        self.0.iter().any(|side| side.unacknowledged)
    }

    /// Takes a segment if it is within the window. `opening`: there was no acknowledgment of both sides yet, so
    /// that a SYN may come anew with other numbers; `syn_sent`: nothing but SYNs of the first side was seen.
    pub(crate) fn take(&mut self, segment: &Segment, reply: bool, opening: bool, syn_sent: bool) -> Fit {
        let [first, second] = &mut self.0;
        let (sender, receiver) = if reply { (second, first) } else { (first, second) };
        let is_syn = matches!(segment.kind, super::segment::Kind::Syn | super::segment::Kind::SynAck);
        let is_reset = segment.kind == super::segment::Kind::Rst;
        let (mut ack, mut sack) = (segment.ack, segment.ack);
        if receiver.sack
            && let Some(edge) = segment.sacked
            && after(edge, sack)
        {
            sack = edge;
        }
        if sender.window == 0 {
            if is_syn {
                *sender = Side { lenient: sender.lenient, ..Side::from_syn(segment) };
                if !(sender.scales && receiver.scales) {
                    // Only if both ask for it are windows scaled (RFC 7323 §2.2).
                    (sender.scale, receiver.scale) = (0, 0);
                }
                if !segment.has_ack {
                    // Both have begun at the same time.
                    return Fit::Within;
                }
            } else {
                sender.end = segment.end;
                sender.window = (segment.window << sender.scale).max(1);
                sender.limit = segment.end.wrapping_add(sender.window);
                if receiver.window == 0 {
                    (receiver.end, receiver.limit) = (sack, sack);
                }
            }
        } else if opening && is_syn && after(segment.end, sender.end) {
            // It has begun anew, with larger numbers.
            let (lenient, acked, has_acked) = (sender.lenient, sender.acked, sender.has_acked);
            *sender = Side { lenient, acked, has_acked, ..Side::from_syn(segment) };
            if !(sender.scales && receiver.scales) {
                (sender.scale, receiver.scale) = (0, 0);
            }
            if reply && !segment.has_ack {
                return Fit::Within;
            }
        }
        if !segment.has_ack || is_reset && segment.ack == 0 {
            // Without an acknowledgment there is nothing to hold against it; some resets say 0.
            (ack, sack) = (receiver.end, receiver.end);
        }
        let (mut seq, mut end) = (segment.seq, segment.end);
        if is_reset && seq == 0 && syn_sent {
            // The answer to a SYN has no number of its own.
            (seq, end) = (sender.end, sender.end);
        }
        let ack_window = sender.window.max(LEAST_ACK_WINDOW);
        let seen = !after(sack, receiver.end);
        let recent = !before(sack, receiver.end.wrapping_sub(ack_window));
        let new = !before(end, sender.end.wrapping_sub(receiver.window));
        if after(seq, sender.limit) || !seen {
            let little = end.wrapping_sub(sender.limit) < receiver.window;
            if sender.lenient {
                return Fit::Within;
            }
            if !(seen && recent && new && receiver.window != 0 && little) {
                return Fit::Outside;
            }
            // The other side may acknowledge it, and that must be right then.
            (sender.end, sender.unacknowledged) = (end, true);
            return Fit::LetBy;
        }
        if receiver.window != 0 && !new || !recent {
            return if sender.lenient { Fit::Within } else { Fit::LetBy };
        }
        let window = if is_syn { segment.window } else { segment.window << sender.scale };
        sender.window = sender.window.max(window.wrapping_add(sack.wrapping_sub(ack)));
        if after(end, sender.end) {
            sender.end = end;
            sender.unacknowledged = true;
        }
        if segment.has_ack && (!sender.has_acked || after(ack, sender.acked)) {
            (sender.acked, sender.has_acked) = (ack, true);
        }
        if receiver.window != 0 && after(end, sender.limit) {
            receiver.window = receiver.window.saturating_add(end.wrapping_sub(sender.limit));
        }
        let allowed = sack.wrapping_add(window);
        if !before(allowed, receiver.limit) {
            // A closed window may be probed with one byte.
            receiver.limit = if window == 0 { allowed.wrapping_add(1) } else { allowed };
        }
        if ack == receiver.end {
            receiver.unacknowledged = false;
        }
        Fit::Within
    }
}
