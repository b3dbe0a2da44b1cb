//! The states of a TCP connection as one in the middle sees them.
//!
//! Reads RFC 9293 (793) as netfilter does: packets may be lost behind us, so what is seen is what a side has *sent*, and
//! the states are guesses of both sides' together.
//!
//! ```text
//!   SYN          SYN/ACK          ACK            FIN          ACK           FIN          ACK
//! ──────▶ SynSent ─────▶ SynReceived ─────▶ Established ─────▶ FinWait ─────▶ CloseWait ─────▶ LastAck ─────▶ TimeWait
//!            │ SYN from the other side: SynSent2                   │ FIN of the other: LastAck
//!            └── any RST in the window: Closed ◀────────────────────┘
//! ```
//! | Segment | What may not be |
//! |---|---|
//! | SYN | from the answering side, once there was a SYN/ACK |
//! | SYN/ACK | from the side that began, but for a simultaneous open |
//! | FIN, ACK | from the side that began, before a SYN/ACK |
//!
//! A segment that *may* show that we are out of step (a SYN within a connection that we take for open) is let through
//! without changing anything: if the other side answers it, the answer sets us right.

use serde::{Deserialize, Serialize};

use super::segment::{Kind, Segment, before};
use super::window::{Fit, Windows};

/// Segments in a row that are the same, from which on a connection counts as one that nobody answers.
const MOST_REPEATS: u8 = 3;

/// How far a connection got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Phase {
    SynSent,
    /// Both sides have sent a SYN.
    SynSent2,
    SynReceived,
    Established,
    /// One side has sent a FIN.
    FinWait,
    /// And it was acknowledged.
    CloseWait,
    /// Both have.
    LastAck,
    TimeWait,
    /// By a reset.
    Closed,
}

/// What a segment does to a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    To(Phase),
    /// It may be right, and then we are wrong.
    LetBy,
    Invalid,
}

/// The phase after a segment from the side that began the connection, or from the other.
fn step(phase: Phase, kind: Kind, reply: bool) -> Step {
    use Phase::{CloseWait, Closed, Established, FinWait, LastAck, SynReceived, SynSent, SynSent2, TimeWait};
    match (kind, phase) {
        (Kind::Rst, _) => Step::To(Closed),
        (Kind::Syn, SynSent) if reply => Step::To(SynSent2),
        (Kind::Syn, SynSent) => Step::To(SynSent),
        (Kind::Syn, SynSent2) => Step::To(SynSent2),
        // Opened again before its time (RFC 9293 §3.6.1).
        (Kind::Syn, TimeWait) => Step::To(SynSent),
        (Kind::Syn, Closed) if !reply => Step::To(SynSent),
        (Kind::Syn, _) if reply => Step::Invalid,
        (Kind::Syn, _) => Step::LetBy,
        (Kind::SynAck, SynSent2) => Step::To(SynReceived),
        (Kind::SynAck, SynSent) if reply => Step::To(SynReceived),
        (Kind::SynAck, _) if reply => Step::LetBy,
        // Sent again after a simultaneous open.
        (Kind::SynAck, SynReceived) => Step::To(SynReceived),
        (Kind::SynAck, _) => Step::Invalid,
        (Kind::Fin, SynSent | SynSent2) => Step::Invalid,
        (Kind::Fin, SynReceived | Established) => Step::To(FinWait),
        (Kind::Fin, FinWait | CloseWait | LastAck) => Step::To(LastAck),
        // Perhaps the answer to a SYN that came again: a connection half open at the other side.
        (Kind::Ack, SynSent | SynSent2) if reply => Step::LetBy,
        (Kind::Ack, SynSent | SynSent2) => Step::Invalid,
        (Kind::Ack, SynReceived) if reply => Step::To(SynReceived),
        (Kind::Ack, SynReceived | Established) => Step::To(Established),
        (Kind::Ack, FinWait | CloseWait) => Step::To(CloseWait),
        (Kind::Ack, LastAck | TimeWait) | (Kind::Fin, TimeWait) => Step::To(TimeWait),
        (Kind::Ack | Kind::Fin, Closed) => Step::To(Closed),
    }
}

/// What a segment meant to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// It belongs to it.
    Valid,
    /// It goes through and changes nothing.
    LetBy,
    Invalid,
    /// It begins another connection between the same ports: this one is over.
    Reopens,
}

/// What to think of a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reset {
    Believed,
    /// Its receiver will ask back.
    Doubtful,
    MadeUp,
}

/// One connection.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Tcp {
    pub(crate) phase: Phase,
    windows: Windows,
    last: Last,
    /// Who first sent a FIN has said that it ends: a SYN may then open it again.
    closing: bool,
    /// Both sides have sent a SYN before there was a SYN/ACK.
    simultaneous: bool,
    /// There was an acknowledgment by both sides: not half open.
    pub(crate) assured: bool,
    repeats: u8,
}

/// The last segment that was taken or let by. Its numbers are of the last one that was let by, or that only acknowledged and was
/// within the window: only these are asked about, and as long as there is none, netfilter takes them for 0.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Last {
    kind: Kind,
    reply: bool,
    /// Window scale option of a SYN that was let by, and whether it permits SACK.
    scale: Option<u8>,
    sack: bool,
    window: u16,
    seq: u32,
    ack: u32,
    end: u32,
}

impl Last {
    fn first(kind: Kind) -> Self {
        Self { kind, reply: false, scale: None, sack: false, window: 0, seq: 0, ack: 0, end: 0 }
    }

    fn of(segment: &Segment, reply: bool) -> Self {
        Self {
            kind: segment.kind,
            reply,
            scale: segment.options.scale,
            sack: segment.options.sack,
            window: u16::try_from(segment.window).unwrap_or(u16::MAX),
            seq: segment.seq,
            ack: segment.ack,
            end: segment.end,
        }
    }

    /// Whether its numbers are the same.
    fn repeats(&self, other: &Self) -> bool {
        (self.reply, self.seq, self.ack, self.end, self.window)
            == (other.reply, other.seq, other.ack, other.end, other.window)
    }
}

impl Tcp {
    /// A connection that begins with this segment; with `pick_up` also one that was there before us. None if it cannot
    /// begin with it.
    pub(crate) fn begin(segment: &Segment, pick_up: bool) -> Option<Self> {
        let (phase, mut windows) = match segment.kind {
            Kind::Syn => (Phase::SynSent, Windows::of_syn(segment)),
            Kind::Ack if pick_up => (Phase::Established, Windows::picked_up(segment)),
            _ => return None,
        };
        let picked_up = segment.kind == Kind::Ack;
        let last = if picked_up && windows.take(segment, false, false, false) == Fit::Within {
            Last::of(segment, false)
        } else {
            Last::first(segment.kind)
        };
        Some(Self { phase, windows, last, closing: false, simultaneous: false, assured: false, repeats: 0 })
    }

    /// Takes a segment of the connection. `reply`: it is not from the side that began; `answered`: that side has sent
    /// something before.
    pub(crate) fn take(&mut self, segment: &Segment, reply: bool, answered: bool) -> Meaning {
        let before_it = self.phase;
        let mut next = match step(self.phase, segment.kind, reply) {
            Step::Invalid => return Meaning::Invalid,
            Step::LetBy => None,
            Step::To(Phase::SynSent) if before_it >= Phase::TimeWait => {
                let reset = self.last.kind == Kind::Rst && self.last.reply == reply;
                if self.closing || reset {
                    return Meaning::Reopens;
                }
                None
            }
            Step::To(phase) => Some(phase),
        };
        if next.is_none() {
            if !self.sets_right(segment, reply) {
                // What the answer to a SYN acknowledges, a challenge perhaps, is what a reset is held to.
                let challenges = before_it == Phase::SynSent && segment.kind == Kind::Ack && reply;
                let ack = if challenges { segment.ack } else { self.last.ack };
                self.last = Last { ack, ..Last::of(segment, reply) };
                return Meaning::LetBy;
            }
            next = Some(Phase::SynReceived);
        }
        let Some(next) = next else { return Meaning::LetBy };
        let mut next = self.corrected(next, segment, reply);
        // A connection that is closing may have been forgotten by both, and its ports used again.
        let mut held = !(segment.kind == Kind::Rst && before_it >= Phase::FinWait);
        if segment.kind == Kind::Rst && before_it == Phase::SynSent && self.answers_challenge(segment, reply)
        {
            held = false;
        } else if held && segment.kind == Kind::Rst {
            next = match self.reset(segment, reply) {
                Reset::MadeUp => return Meaning::Invalid,
                Reset::Doubtful => before_it,
                Reset::Believed => Phase::Closed,
            };
            let answers_let_by = (answered && self.last.kind == Kind::Syn && self.last.reply != reply
                || !self.assured && self.last.kind == Kind::Ack)
                && segment.ack == self.last.end;
            held = !answers_let_by;
        }
        let mut numbers_count = false;
        if held {
            let opening = matches!(before_it, Phase::SynSent | Phase::SynReceived);
            match self.windows.take(segment, reply, opening, before_it == Phase::SynSent) {
                Fit::Outside => {
                    self.remember_outside(segment.kind, reply);
                    return Meaning::Invalid;
                }
                Fit::LetBy => return Meaning::LetBy,
                Fit::Within => numbers_count = segment.kind == Kind::Ack,
                Fit::Excused => {}
            }
        }
        self.remember(Last::of(segment, reply), numbers_count);
        self.closing |= next == Phase::FinWait && before_it != Phase::FinWait;
        if answered
            && matches!(before_it, Phase::SynReceived | Phase::Established)
            && next == Phase::Established
        {
            self.assured = true;
        }
        self.phase = next;
        Meaning::Valid
    }

    /// Remembers a segment that was taken.
    fn remember(&mut self, now: Last, numbers_count: bool) {
        if numbers_count {
            self.repeats = if self.last.repeats(&now) { self.repeats.saturating_add(1) } else { 0 };
            self.last = now;
        } else {
            (self.last.kind, self.last.reply) = (now.kind, now.reply);
        }
    }

    /// An end that is outside the window may be one all the same, to a side that is out of step: it is remembered as the last
    /// segment, unless the other side has said before that it ends.
    fn remember_outside(&mut self, kind: Kind, reply: bool) {
        let ends = |kind| matches!(kind, Kind::Fin | Kind::Rst);
        if self.assured && ends(kind) && !(self.last.reply != reply && ends(self.last.kind)) {
            (self.last.kind, self.last.reply) = (kind, reply);
        }
    }

    /// Whether this is the reset with which who began answers an acknowledgment of what it has never sent: the other side
    /// holds an older connection (RFC 5961 §4), which is over then.
    fn answers_challenge(&self, segment: &Segment, reply: bool) -> bool {
        !reply && self.last.kind == Kind::Ack && self.last.reply && segment.seq == self.last.ack
    }

    /// The next phase where the table of phases alone would be wrong.
    fn corrected(&mut self, next: Phase, segment: &Segment, reply: bool) -> Phase {
        match next {
            Phase::SynSent2 => self.simultaneous = true,
            // After a simultaneous open either side's acknowledgment may be the last.
            Phase::SynReceived if reply && segment.kind == Kind::Ack && self.simultaneous => {
                return Phase::Established;
            }
            // The answer to a SYN out of place (RFC 5961 §4) acknowledges no FIN.
            Phase::TimeWait
                if self.phase == Phase::LastAck
                    && segment.kind == Kind::Ack
                    && self.last.kind == Kind::Syn
                    && self.last.reply != reply =>
            {
                return Phase::LastAck;
            }
            _ => {}
        }
        next
    }

    /// What to think of a reset: RFC 5961 §3 has receivers believe only one with the very next number, and ask back
    /// otherwise. One that is let through may be such a one that is asked back about, so it closes nothing here.
    fn reset(&self, segment: &Segment, reply: bool) -> Reset {
        let Some(expected) = self.windows.acknowledged_by_other(reply) else { return Reset::Believed };
        if self.last.kind == Kind::Syn {
            // Out of step: what was acknowledged may be of an older connection.
            return Reset::Believed;
        }
        let open = self.phase == Phase::Established && self.assured;
        if segment.seq == 0 && !open {
            return Reset::Believed;
        }
        if before(segment.seq, expected) {
            return Reset::MadeUp;
        }
        let follows_its_data =
            self.last.kind == Kind::Ack && self.last.reply == reply && segment.seq == self.last.end;
        if !open || segment.seq == expected || follows_its_data { Reset::Believed } else { Reset::Doubtful }
    }

    /// Whether this is the SYN/ACK to a SYN that was let by: then both sides are in step and we are not. The connection
    /// goes on from what they say.
    fn sets_right(&mut self, segment: &Segment, reply: bool) -> bool {
        let Last { kind, reply: from, end, window, scale, sack, .. } = self.last;
        let answers =
            segment.kind == Kind::SynAck && kind == Kind::Syn && from != reply && segment.ack == end;
        if answers {
            self.windows.begin_again(from, end, u32::from(window), scale, sack);
        }
        answers
    }

    /// Whether the same segment has come again and again without an answer.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.repeats >= MOST_REPEATS
    }

    /// Whether there is data that nobody has acknowledged.
    pub(crate) fn is_unacknowledged(&self) -> bool {
        self.windows.is_unacknowledged()
    }
}
