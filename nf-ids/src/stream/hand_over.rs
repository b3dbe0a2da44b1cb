//! What a successor has to know of a session: the sequence numbers, but no data.

use serde::{Deserialize, Serialize};

use super::session::Syn;
use super::{Session, Side, State};

/// A session on its way to a successor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Carried {
    state: State,
    sides: [CarriedSide; 2],
    midstream: bool,
    asynchronous: bool,
    four_way: bool,
    timestamps: bool,
    confirmed: bool,
    scales: bool,
    fast_open: bool,
    seen: [bool; 2],
    syns: Vec<Syn>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct CarriedSide {
    begun: bool,
    isn: u32,
    next_seq: u32,
    last_ack: u32,
    next_window: u32,
    window: u32,
    scale: u8,
    /// Timestamp, and when it came.
    stamp: Option<(u32, u64)>,
    zero_stamp: bool,
    window_unknown: bool,
    finished: bool,
}

impl CarriedSide {
    fn of(side: &Side) -> Self {
        Self {
            begun: side.has_begun(),
            isn: side.isn,
            next_seq: side.next_seq,
            last_ack: side.last_ack,
            next_window: side.next_window,
            window: side.window,
            scale: side.scale,
            stamp: side.has_stamp.then_some((side.last_stamp, side.last_stamp_s)),
            zero_stamp: side.zero_stamp,
            window_unknown: side.window_unknown,
            finished: side.finished,
        }
    }

    /// The stream goes on with what was not sent yet.
    fn resume(&self) -> Side {
        let mut side = Side::default();
        if self.begun {
            side.begin(self.next_seq.wrapping_sub(1));
        }
        if self.finished {
            side.end_with(self.next_seq);
        }
        side.isn = self.isn;
        side.next_seq = self.next_seq;
        side.last_ack = self.last_ack;
        side.next_window = self.next_window;
        side.window = self.window;
        side.scale = self.scale;
        (side.last_stamp, side.last_stamp_s) = self.stamp.unwrap_or_default();
        side.has_stamp = self.stamp.is_some();
        side.zero_stamp = self.zero_stamp;
        side.window_unknown = self.window_unknown;
        side
    }

    /// Whether it has sent data, or may have.
    fn has_sent(&self) -> bool {
        self.begun && self.next_seq != self.isn.wrapping_add(1)
    }
}

impl Session {
    /// What a successor has to know.
    #[must_use]
    pub fn carried(&self) -> Carried {
        Carried {
            state: self.state,
            sides: [CarriedSide::of(&self.sides[0]), CarriedSide::of(&self.sides[1])],
            midstream: self.midstream,
            asynchronous: self.asynchronous,
            four_way: self.four_way,
            timestamps: self.timestamps,
            confirmed: self.confirmed,
            scales: self.scales,
            fast_open: self.fast_open,
            seen: self.seen,
            syns: self.syns.clone(),
        }
    }

    /// Goes on with a predecessor's session. If it has carried data, it counts as picked up in its midst.
    #[must_use]
    pub fn resumed(carried: &Carried) -> Box<Self> {
        let mut session = Self::fresh(carried.state);
        session.sides = [carried.sides[0].resume(), carried.sides[1].resume()];
        let sent = carried.state >= State::Established && carried.sides.iter().any(CarriedSide::has_sent);
        session.midstream = carried.midstream || sent;
        session.asynchronous = carried.asynchronous;
        session.four_way = carried.four_way;
        session.timestamps = carried.timestamps;
        session.confirmed = carried.confirmed;
        session.scales = carried.scales;
        session.fast_open = carried.fast_open;
        session.seen = carried.seen;
        session.syns.clone_from(&carried.syns);
        // A reset cannot be judged by what was not seen here.
        session.lossy = sent;
        session
    }
}
