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

use super::segment::{Kind, Segment, after, before};

/// Acknowledgments may lie back this far whatever the window is: a burst that was under way when it shrank.
const LEAST_ACK_WINDOW: u32 = 66_000;

/// What the window says of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    Within,
    /// It is not, but the history of its sender is not known.
    Excused,
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

    /// Takes a segment if it is within the window. `opening`: there was no acknowledgment of both sides yet, so that a SYN
    /// may come anew with other numbers; `syn_sent`: nothing but SYNs of the first side was seen.
    pub(crate) fn take(&mut self, segment: &Segment, reply: bool, opening: bool, syn_sent: bool) -> Fit {
        let [first, second] = &mut self.0;
        let (sender, receiver) = if reply { (second, first) } else { (first, second) };
        let is_reset = segment.kind == Kind::Rst;
        let edge = segment.sacked.filter(|edge| receiver.sack && after(*edge, segment.ack));
        let mut n = Numbers {
            seq: segment.seq,
            end: segment.end,
            ack: segment.ack,
            sack: edge.unwrap_or(segment.ack),
        };
        if sender.window == 0 || opening && is_syn(segment) && after(segment.end, sender.end) {
            let anew = sender.window != 0;
            sender.begins(receiver, segment, n.sack);
            // Without an acknowledgment both have begun at the same time.
            if is_syn(segment) && !segment.has_ack && (reply || !anew) {
                return Fit::Within;
            }
        }
        if !segment.has_ack || is_reset && segment.ack == 0 {
            // Without an acknowledgment there is nothing to hold against it; some resets say 0.
            (n.ack, n.sack) = (receiver.end, receiver.end);
        }
        if is_reset && n.seq == 0 && syn_sent {
            // The answer to a SYN has no number of its own.
            (n.seq, n.end) = (sender.end, sender.end);
        }
        let fit = sender.fit(receiver, n);
        if fit == Fit::Within {
            sender.sends(receiver, segment, n);
        }
        if sender.lenient && fit != Fit::Within { Fit::Excused } else { fit }
    }
}

fn is_syn(segment: &Segment) -> bool {
    matches!(segment.kind, Kind::Syn | Kind::SynAck)
}

/// Sequence numbers of a segment as they are compared: `sack` is the highest that it acknowledges in any way.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    seq: u32,
    end: u32,
    ack: u32,
    sack: u32,
}

impl Side {
    /// The first segment of this side that is seen, or a SYN that comes anew.
    fn begins(&mut self, receiver: &mut Self, segment: &Segment, sack: u32) {
        if is_syn(segment) {
            let (lenient, acked, has_acked) = (self.lenient, self.acked, self.has_acked);
            *self = Self { lenient, acked, has_acked, ..Self::from_syn(segment) };
            if !(self.scales && receiver.scales) {
                // Only if both ask for it are windows scaled (RFC 7323 §2.2).
                (self.scale, receiver.scale) = (0, 0);
            }
            return;
        }
        self.end = segment.end;
        self.window = (segment.window << self.scale).max(1);
        self.limit = segment.end.wrapping_add(self.window);
        if receiver.window == 0 {
            (receiver.end, receiver.limit) = (sack, sack);
        } else if sack == receiver.end.wrapping_add(1) {
            // The answer to a keep-alive, most likely, whose byte was not seen.
            receiver.end = sack;
        }
    }

    /// Whether a segment of this side is within the window.
    fn fit(&mut self, receiver: &Self, n: Numbers) -> Fit {
        let ack_window = self.window.max(LEAST_ACK_WINDOW);
        let seen = !after(n.sack, receiver.end);
        let recent = !before(n.sack, receiver.end.wrapping_sub(ack_window));
        let new = !before(n.end, self.end.wrapping_sub(receiver.window));
        if after(n.seq, self.limit) || !seen {
            let little = receiver.window != 0 && n.end.wrapping_sub(self.limit) < receiver.window;
            if self.lenient || !(seen && recent && new && little) {
                return Fit::Outside;
            }
            // The other side may acknowledge it, and that must be right then.
            (self.end, self.unacknowledged) = (n.end, true);
            return Fit::LetBy;
        }
        if receiver.window != 0 && !new || !recent { Fit::LetBy } else { Fit::Within }
    }

    /// Goes on after a segment within the window.
    fn sends(&mut self, receiver: &mut Self, segment: &Segment, n: Numbers) {
        let window = if is_syn(segment) { segment.window } else { segment.window << self.scale };
        self.window = self.window.max(window.wrapping_add(n.sack.wrapping_sub(n.ack)));
        if after(n.end, self.end) {
            (self.end, self.unacknowledged) = (n.end, true);
        }
        if segment.has_ack && (!self.has_acked || after(n.ack, self.acked)) {
            (self.acked, self.has_acked) = (n.ack, true);
        }
        if receiver.window != 0 && after(n.end, self.limit) {
            receiver.window = receiver.window.saturating_add(n.end.wrapping_sub(self.limit));
        }
        let allowed = n.sack.wrapping_add(window);
        if !before(allowed, receiver.limit) {
            // A closed window may be probed with one byte.
            receiver.limit = if window == 0 { allowed.wrapping_add(1) } else { allowed };
        }
        if n.ack == receiver.end {
            receiver.unacknowledged = false;
        }
    }
}
