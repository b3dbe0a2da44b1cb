//! Who reads a stream, how far each has come, and what each may see.

use super::session::State;
use super::{Events, Session, Settings, Window};
use crate::flow::Direction;

/// Data for the application layer.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Bytes in order; none if there is a gap.
    pub bytes: &'a [u8],
    /// Stream offset of the first.
    pub offset: u64,
    /// Bytes that are missing, and that the receiver has.
    pub gap: u64,
}

impl Session {
    /// Up to which offset data of a direction may be read.
    fn limit(&self, direction: Direction, settings: &Settings) -> u64 {
        let side = &self.sides[direction.index()];
        let ready = side.data.ready();
        // What was under way when the session ended may have been received: nobody will say so any more.
        if settings.inline || self.asynchronous || self.ending || self.state == State::Closed {
            return ready;
        }
        ready.min(self.acknowledged(direction))
    }

    /// Offset up to which data was acknowledged; the FIN's own number is no data.
    fn acknowledged(&self, direction: Direction) -> u64 {
        let side = &self.sides[direction.index()];
        let acknowledged = side.acknowledged();
        side.end().map_or(acknowledged, |end| acknowledged.min(end))
    }

    /// What the application layer has not seen yet of a direction. What it is given counts as seen.
    pub fn app_chunk(
        &mut self,
        direction: Direction,
        settings: &Settings,
        events: &mut Events,
    ) -> Option<Chunk<'_>> {
        let limit = self.limit(direction, settings);
        if limit > self.sides[direction.index()].app {
            let side = &mut self.sides[direction.index()];
            let from = std::mem::replace(&mut side.app, limit);
            side.gap_over();
            let offset = from.max(side.data.base());
            return Some(Chunk { bytes: side.data.bytes(offset, limit), offset, gap: 0 });
        }
        let offset = self.sides[direction.index()].app;
        let gap = self.skip_gap(direction, settings, events);
        (gap > 0).then_some(Chunk { bytes: &[], offset, gap })
    }

    /// Goes past bytes that the receiver has and that did not come by here; how many.
    fn skip_gap(&mut self, direction: Direction, settings: &Settings, events: &mut Events) -> u64 {
        let acknowledged = self.acknowledged(direction);
        let limit = self.limit(direction, settings);
        let side = &mut self.sides[direction.index()];
        let ready = side.data.ready();
        // Without anything behind it there is nothing to go on to: what is missing may still come by.
        let Some(next) = side.data.after_gap() else { return 0 };
        if side.deep || limit < ready || acknowledged <= ready {
            return 0;
        }
        side.tell_gap(events);
        self.lossy = true;
        // Raw content before the gap is inspected first.
        if !side.raw_done && side.raw < ready {
            side.raw_due = true;
            return 0;
        }
        let to = next.min(acknowledged);
        side.data.forget(to);
        side.app = to;
        side.raw = to;
        to - ready
    }

    /// Nothing follows: what was not acknowledged is read, too.
    pub fn end(&mut self) {
        self.ending = true;
    }

    /// The application layer wants no more of a direction.
    pub fn end_app(&mut self, direction: Direction) {
        self.sides[direction.index()].app_done = true;
    }

    /// What there is of raw data in a direction is inspected with its next packet, however little it is.
    pub fn raw_is_due(&mut self, direction: Direction) {
        self.sides[direction.index()].raw_due = true;
    }

    /// No rule asks for raw data.
    pub fn end_raw(&mut self) {
        for side in &mut self.sides {
            side.raw_done = true;
        }
    }

    /// What rules for raw content are to be asked about with a packet of this direction; `last`: nothing follows.
    #[must_use]
    pub fn window(&self, direction: Direction, settings: &Settings, last: bool) -> Option<Window<'_>> {
        let side = &self.sides[direction.index()];
        if side.raw_done {
            return None;
        }
        if settings.inline && !last {
            return self.window_around(direction, settings);
        }
        let limit = self.limit(direction, settings);
        if limit <= side.raw {
            return None;
        }
        let due = side.raw_due
            || side.deep
            || last
            || self.state >= State::LastAck
            || limit - side.raw >= settings.chunk;
        if !due {
            return None;
        }
        let from = side.raw.saturating_sub(settings.keep).max(side.data.base());
        let bytes = side.data.bytes(from, limit);
        let old = usize::try_from(side.raw - from).unwrap_or(0);
        (!bytes.is_empty()).then_some(Window { bytes, offset: from, old })
    }

    /// The segment that came last, with what is before and behind it.
    fn window_around(&self, direction: Direction, settings: &Settings) -> Option<Window<'_>> {
        if !self.added {
            return None;
        }
        let side = &self.sides[direction.index()];
        let (start, end) = side.latest;
        if start > side.data.ready() {
            let bytes = side.data.held_bytes(start, end);
            return (!bytes.is_empty()).then_some(Window { bytes, offset: start, old: 0 });
        }
        let from = start.saturating_sub(settings.keep).max(side.data.base());
        let bytes = side.data.bytes(from, side.data.ready().min(end + settings.keep));
        let old = usize::try_from(start.saturating_sub(from)).unwrap_or(0);
        (bytes.len() > old).then_some(Window { bytes, offset: from, old })
    }

    /// The window of a direction was inspected.
    pub fn raw_seen(&mut self, direction: Direction, settings: &Settings) {
        let limit = self.limit(direction, settings);
        let side = &mut self.sides[direction.index()];
        side.raw = side.raw.max(limit);
        side.raw_due = false;
    }

    /// Frees what was read; called after each packet.
    pub fn tidy(&mut self, settings: &Settings) {
        for side in &mut self.sides {
            side.tidy(settings.keep);
        }
    }

    /// Whether a direction has ended, and the application layer has seen all of it.
    #[must_use]
    pub fn is_read_to_its_end(&self, direction: Direction, settings: &Settings) -> bool {
        let side = &self.sides[direction.index()];
        let over = side.finished || self.state == State::Closed;
        over && self.limit(direction, settings) <= side.app
            && (self.reset || side.end().is_none_or(|end| side.app >= end))
    }

    /// Whether there is data that someone has not read, and that may be read.
    #[must_use]
    pub fn unread(&self, direction: Direction, settings: &Settings) -> bool {
        let side = &self.sides[direction.index()];
        let limit = self.limit(direction, settings);
        let acknowledged = self.acknowledged(direction);
        let behind_gap = !side.deep && side.data.after_gap().is_some() && acknowledged > side.data.ready();
        (!side.raw_done && (limit > side.raw || behind_gap))
            || (!side.app_done && (limit > side.app || behind_gap))
    }
}
