//! The manager is gone, and the NF waits for the next one.
//!
//! ```text
//! working ──connection ends without Stop──▶ waiting ──next manager──▶ working
//!                                              │ signal, -t                    exit code 0
//!                                              │ time over, refused            exit code 1
//!                                              ▼
//!                                            ended
//! ```
//! Everything of the dead manager is let go of at once: its rings, its pool, its page. The NF itself, what it
//! counted, its children and its ears stay.

use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use super::farewell::{self, Facts, Totals};
use super::{Live, LiveError, Place};
use crate::node::{HeldTable, NodePage};
use crate::packet::Clock;
use crate::pool::{Geometry, Pool};
use crate::protocol::{Error as LineError, InstanceId, Line};
use crate::ring::bell::Barriers;
use crate::runtime::attach::{AttachError, Attached, answer, greet, open};
use crate::runtime::control::{Ears, Event};
use crate::runtime::hands::Hands;
use crate::runtime::tell::Control;
use crate::runtime::{Common, NetworkFunction, Printer};
use crate::shm::Pages;

/// Times between two looks for a manager: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// What of a live NF outlives its manager.
pub(super) struct Kept<'a, N: NetworkFunction> {
    pub(super) nf: N,
    pub(super) common: &'a Common,
    pub(super) control: Control,
    pub(super) ears: Ears,
    pub(super) barriers: Barriers,
    pub(super) started: Instant,
    pub(super) received: u64,
    /// Done for the managers that are gone.
    pub(super) before: Totals,
    pub(super) printer: Printer,
}

impl<'a, N: NetworkFunction> Live<'a, N> {
    /// Lets go of everything that is the manager's.
    fn lose(self) -> Kept<'a, N> {
        let before = self.before.and(&self.page.counters());
        let Self { nf, common, control, ears, barriers, started, received, printer, .. } = self;
        Kept { nf, common, control, ears, barriers, started, received, before, printer }
    }

    /// The manager is gone: waits for the next one. None when the NF is to leave instead.
    pub(super) fn reattach(self, place: &Place, lost: &LineError) -> Result<Option<Self>, LiveError> {
        let gone = Instant::now();
        let old = self.instance;
        let mut kept = self.lose();
        let patience = kept.common.reattach;
        log::warn!("the manager is gone ({lost}): waiting {} seconds for the next", patience.as_secs_f64());
        kept.control.set_manager(None, old);
        kept.nf.manager_lost();
        let found = kept.find(place, old, gone).and_then(|found| {
            let Some(attached) = found else { return Ok(None) };
            place.tell_of(&attached, &kept.control)?;
            let line = attached.line.try_clone().map_err(AttachError::Line)?;
            kept.ears.listen(line).map_err(LiveError::Threads)?;
            Ok(Some(attached))
        });
        match found {
            Ok(Some(attached)) => {
                let (id, gap) = (attached.welcome.instance, gone.elapsed().as_millis());
                log::info!("attached again after {gap} ms, as instance {id}, before {old}");
                kept.nf.reattached(&place.setup(&attached, &kept.control));
                Ok(Some(Live::new(kept, attached)))
            }
            other => {
                kept.leave(old);
                other.map(|_| None)
            }
        }
    }
}

impl<N: NetworkFunction> Kept<'_, N> {
    /// Looks for the next manager; none when a signal or the NF's own time limit comes first.
    fn find(&mut self, place: &Place, old: InstanceId, gone: Instant) -> Result<Option<Attached>, LiveError> {
        let mut asked: Option<Line> = None;
        let mut pause = FIRST_PAUSE;
        loop {
            if asked.is_none() {
                let line = Line::connect(&place.socket).ok();
                asked = line.filter(|line| greet::<N>(line, self.common, Some(old), self.received).is_ok());
                pause = if asked.is_some() { FIRST_PAUSE } else { pause };
            }
            if let Some(mut line) = asked.take() {
                match answer(&mut line, false) {
                    Ok((welcome, fds)) => {
                        return Ok(Some(open::<N>(line, welcome, fds, place.allowed.as_ref())?));
                    }
                    Err(AttachError::Line(LineError::WouldBlock)) => asked = Some(line),
                    // That one is gone, too.
                    Err(AttachError::Line(LineError::Closed)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if self.common.time_limit.is_some_and(|limit| self.started.elapsed() >= limit) {
                return Ok(None);
            }
            if gone.elapsed() >= self.common.reattach {
                return Err(LiveError::NotBack { seconds: self.common.reattach.as_secs_f64() });
            }
            match self.ears.events.recv_timeout(pause) {
                Ok(Event::Signal(number)) => {
                    log::info!("signal {number}: leaving");
                    return Ok(None);
                }
                // The rest is the last of the dead manager.
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Leaves without a manager: the last call with no packets in hand, and the last report.
    fn leave(&mut self, instance: InstanceId) {
        let geometry = Geometry::new(1, crate::pool::DEFAULT_PACKET_ROOM).ok();
        let pool = geometry.and_then(|geometry| Pool::create(geometry, Pages::Plain).ok());
        if let (Some(pool), Ok(page)) = (pool, NodePage::create()) {
            let mut hands = Hands::new(pool, HeldTable::new(page), Clock::default());
            self.nf.teardown(&mut hands.burst::<N::Access>(&mut []));
        }
        self.control.dismiss_children();
        let facts = Facts { instance, received: self.received, totals: self.before };
        farewell::print_last(self.common, facts, &self.nf.report(), N::NAME, &mut self.printer);
    }
}
