//! Wrappers: what any port can have around it, by options that every kind takes.
//!
//! ```text
//!             port ─▶ rate (rx) ─▶ fault (rx) ─▶ worker ─▶ fault (tx) ─▶ rate (tx) ─▶ port
//! ```
//! - `rate=`: what is over is left at a source that waits, and else dropped as `rate-limited`; `gen:` and `pcap:` make their
//!   packets at that rate themselves (`rate`).
//! - `fault=`: drops, changes, copies, delays packets, as chance will have it (`fault`).
//! - `capture=`: writes what passes the port into a file, for people to read (`capture`).
//!
//! A port without any of these options is not wrapped, so nothing is paid for them. The ledger knows of all that is done here
//! ([`Account`]): packets that were dropped have come in, and have been dropped for a reason; copies are counted as such. What
//! is held back on its way in has not come in yet, as far as the ledger is concerned; what is held back on its way out is inside.

mod capture;
mod fault;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use onvm_lib::packet::DropReason;
use onvm_lib::pool::{Books, Packet};

use super::rate::{Limit, Pace, Rate, now_ns};
use super::{Link, Port, PortCounters, PortError, Reception, Spec, SpecError};
use capture::is_same;
pub(crate) use capture::{Capture, HopNames, Rest};
use fault::{Faults, Happened, Item, Script};

/// What wrappers have done to packets since they were asked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Packets that came in and were dropped on the way to the worker.
    pub(crate) rx_dropped: u64,
    /// Copies among the packets that the worker was given.
    pub(crate) rx_copies: u64,
    /// Copies of packets that are sent.
    pub(crate) tx_copies: u64,
    /// Packets that the port has sent.
    pub(crate) sent: u64,
    /// Packets that were dropped by `fault=`, in both directions.
    pub(crate) faulted: u64,
    /// Packets that were dropped by `rate=`, in both directions.
    pub(crate) rate_limited: u64,
    /// Copies for which there was no buffer, in both directions.
    pub(crate) copies_without_buffer: u64,
    /// Packets that were on their way out when the port was closed.
    pub(crate) closed_upon: u64,
    /// What is passed through the stages now came in.
    comes_in: bool,
}

impl Account {
    /// A copy was made. Of what comes in it counts when the worker is given it.
    fn copied(&mut self) {
        self.tx_copies += u64::from(!self.comes_in);
    }

    /// A packet is dropped.
    fn dropped(&mut self, reason: DropReason) {
        self.rx_dropped += u64::from(self.comes_in);
        match reason {
            DropReason::RateLimited => self.rate_limited += 1,
            _ => self.faulted += 1,
        }
    }
}

/// What a port's options say should be around it.
#[derive(Debug)]
pub(super) struct Wrapping {
    rx: Option<Script>,
    tx: Option<Script>,
    rate: Rate,
    /// The file.
    capture: Option<String>,
}

impl Wrapping {
    /// What a port asks for; none if nothing.
    ///
    /// # Errors
    /// What is wrong with its options.
    pub(super) fn of(spec: &Spec) -> Result<Option<Self>, SpecError> {
        let [rx, tx] = Script::both(spec)?;
        let mut rate = Rate::of(spec)?;
        if matches!(spec.kind(), "gen" | "pcap") {
            // They make their own time.
            rate.rx = Limit::default();
        }
        let capture = spec.get("capture").map(String::from);
        let same =
            |path: &String| ["in", "out"].iter().any(|o| spec.get(o).is_some_and(|p| is_same(p, path)));
        if capture.as_ref().is_some_and(same) {
            return Err(spec.bad("capture", "that is the file that the port itself reads or writes"));
        }
        let limited = rate.rx.is_set() || rate.tx.is_set();
        let anything = rx.is_some() || tx.is_some() || limited || capture.is_some();
        Ok(anything.then_some(Self { rx, tx, rate, capture }))
    }

    /// The port with this around it.
    ///
    /// # Errors
    /// When the file of a capture cannot be made.
    pub(super) fn around(self, spec: &Spec, port: Box<dyn Port>) -> Result<Box<dyn Port>, PortError> {
        let pace = |limit: Limit| limit.is_set().then(|| Pace::full(limit));
        let capture = self.capture.map(|path| Capture::open(spec, &path)).transpose()?;
        Ok(Box::new(Wrapped {
            port,
            rx: Side { faults: self.rx.map(Faults::new), pace: pace(self.rate.rx), ..Side::default() },
            tx: Side { faults: self.tx.map(Faults::new), pace: pace(self.rate.tx), ..Side::default() },
            account: Account::default(),
            capture,
            exhausted: false,
            burst: Vec::new(),
        }))
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Side {
    faults: Option<Faults>,
    pace: Option<Pace>,
    /// What may go on, in this order.
    ready: VecDeque<Item>,
    rate_limited: u64,
}

impl Side {
    fn is_plain(&self) -> bool {
        self.faults.is_none() && self.pace.is_none()
    }

    /// Packets that wait.
    fn len(&self) -> usize {
        self.ready.len() + self.faults.as_ref().map_or(0, Faults::len)
    }

    /// When one of them may go on: at once if it is ready.
    fn due(&self) -> Option<Instant> {
        let ready = self.ready.front().map(|_| Instant::now());
        ready.or_else(|| self.faults.as_ref().and_then(Faults::due))
    }

    fn release(&mut self, now: Instant) {
        if let Some(faults) = &mut self.faults {
            faults.release(now, &mut self.ready);
        }
    }

    /// Through the faults, if there are any; gives back a packet that is to be dropped.
    fn fault(
        &mut self,
        books: &mut Books,
        packet: Packet,
        now: Instant,
        account: &mut Account,
    ) -> Option<Packet> {
        match &mut self.faults {
            Some(faults) => faults.pass(books, packet, now, &mut self.ready, account),
            None => {
                self.ready.push_back(Item { packet, copy: false });
                None
            }
        }
    }

    /// Whether the rate has room for a packet; false if it is to be dropped.
    fn admits(&mut self, packet: &Packet, now: Instant) -> bool {
        let Some(pace) = &mut self.pace else { return true };
        let admitted = pace.admits(now, packet.descriptor().length());
        self.rate_limited += u64::from(!admitted);
        admitted
    }

    fn extras(&self, names: [&'static str; 6], all: &mut Vec<(&'static str, u64)>) {
        let happened = self.faults.as_ref().map(|faults| faults.happened).unwrap_or_default();
        let Happened { dropped, corrupted, duplicated, reordered, delayed } = happened;
        let counts = [dropped, corrupted, duplicated, reordered, delayed, self.rate_limited];
        all.extend(names.into_iter().zip(counts).filter(|(_, count)| *count > 0));
    }
}

/// A port with something around it.
struct Wrapped {
    port: Box<dyn Port>,
    rx: Side,
    tx: Side,
    account: Account,
    capture: Option<Capture>,
    /// Nothing more will come from the port; something may still wait here.
    exhausted: bool,
    /// Packets on their way between the port and the stages.
    burst: Vec<Packet>,
}

impl Wrapped {
    /// Puts into the worker's burst, which began at `from`, what is ready, up to `max`.
    fn fill(&mut self, burst: &mut Vec<Packet>, from: usize, max: usize) {
        while burst.len() - from < max
            && let Some(item) = self.rx.ready.pop_front()
        {
            self.account.rx_copies += u64::from(item.copy);
            burst.push(item.packet);
        }
    }

    /// Packets to ask the port for, if `room` may come; or when to ask again.
    fn wanted(&mut self, room: usize, now: Instant) -> Result<usize, Instant> {
        if !self.port.waits() {
            return Ok(room);
        }
        // Nothing is lost that can be left where it is.
        let room = room.min(Faults::ROOM.saturating_sub(self.rx.len() + 1));
        match &mut self.rx.pace {
            Some(pace) => pace.due(now).map(|due| room.min(usize::try_from(due).unwrap_or(usize::MAX))),
            None => Ok(room),
        }
    }

    /// Asks the port, and passes on what it has.
    fn ask(&mut self, books: &mut Books, wanted: usize, now: Instant) -> Reception {
        let mut came = std::mem::take(&mut self.burst);
        let reception = self.port.receive(books, &mut came, wanted);
        let waits = self.port.waits();
        if waits && let Some(pace) = &mut self.rx.pace {
            let bytes = came.iter().map(|packet| u64::from(packet.descriptor().length())).sum();
            pace.sent(came.len(), bytes);
        }
        self.account.comes_in = true;
        for packet in came.drain(..) {
            let dropped = if waits || self.rx.admits(&packet, now) {
                self.rx.fault(books, packet, now, &mut self.account).map(|p| (p, DropReason::InjectedFault))
            } else {
                Some((packet, DropReason::RateLimited))
            };
            if let Some((packet, reason)) = dropped {
                if let Some(capture) = &mut self.capture {
                    capture.refused(books, &packet, reason);
                }
                self.account.dropped(reason);
                books.free(packet);
            }
        }
        self.burst = came;
        reception
    }

    fn drop_outgoing(&mut self, books: &mut Books, packet: Packet, reason: DropReason) {
        if let Some(capture) = &mut self.capture {
            capture.dropped(books, &packet, reason, 0);
        }
        self.account.dropped(reason);
        books.free(packet);
    }

    /// Gives the port what is ready to be sent; leaves in `burst` what it could not send.
    fn send_ready(&mut self, books: &mut Books, burst: &mut Vec<Packet>, now: Instant) {
        let mut going = std::mem::take(&mut self.burst);
        while let Some(item) = self.tx.ready.pop_front() {
            if self.tx.admits(&item.packet, now) {
                going.push(item.packet);
            } else {
                self.drop_outgoing(books, item.packet, DropReason::RateLimited);
            }
        }
        let n = going.len();
        if n > 0 {
            if let Some(capture) = &mut self.capture {
                let time_ns = now_ns();
                going.iter().for_each(|packet| capture.sent(books, packet, time_ns));
            }
            self.port.send(books, &mut going);
            if let Some(capture) = &mut self.capture {
                going.iter().for_each(|packet| capture.dropped(books, packet, DropReason::SendFailed, 0));
            }
        }
        self.account.sent += (n - going.len()) as u64;
        burst.append(&mut going);
        self.burst = going;
    }
}

impl Port for Wrapped {
    fn name(&self) -> &str {
        self.port.name()
    }

    fn is_finite(&self) -> bool {
        self.port.is_finite()
    }

    fn waits(&self) -> bool {
        self.port.waits()
    }

    fn receive(&mut self, books: &mut Books, burst: &mut Vec<Packet>, max: usize) -> Reception {
        let from = burst.len();
        let now = Instant::now();
        self.rx.release(now);
        self.fill(burst, from, max);
        let room = max - (burst.len() - from);
        let mut reception = Reception::Ready;
        if self.exhausted {
            reception = Reception::Finished;
        } else if room > 0 {
            reception = match self.wanted(room, now) {
                Ok(0) => Reception::Ready,
                Ok(wanted) => self.ask(books, wanted, now),
                Err(when) => Reception::NotBefore(when),
            };
            self.fill(burst, from, max);
        }
        self.exhausted |= reception == Reception::Finished;
        // What waits here has a time of its own ([`Port::due`]).
        if self.rx.len() > 0 { Reception::Ready } else { reception }
    }

    fn send(&mut self, books: &mut Books, burst: &mut Vec<Packet>) {
        if burst.is_empty() && self.tx.len() == 0 {
            return;
        }
        let now = Instant::now();
        self.tx.release(now);
        self.account.comes_in = false;
        for packet in burst.drain(..) {
            if let Some(dropped) = self.tx.fault(books, packet, now, &mut self.account) {
                self.drop_outgoing(books, dropped, DropReason::InjectedFault);
            }
        }
        self.send_ready(books, burst, now);
    }

    fn capture(&mut self) -> Option<&mut Capture> {
        self.capture.as_mut()
    }

    fn settles(&self) -> bool {
        true
    }

    fn settle(&mut self) -> Account {
        std::mem::take(&mut self.account)
    }

    fn due(&self, receiving: bool) -> Option<Instant> {
        let rx = if receiving { self.rx.due() } else { None };
        [rx, self.tx.due(), self.port.due(receiving)].into_iter().flatten().min()
    }

    fn discards(&self) -> bool {
        self.tx.is_plain() && self.capture.is_none() && self.port.discards()
    }

    fn discarded(&mut self, packets: u64, bytes: u64) {
        self.port.discarded(packets, bytes);
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.port.readiness()
    }

    fn is_ready(&self) -> bool {
        self.port.is_ready()
    }

    fn holds(&self) -> usize {
        self.port.holds() + self.rx.len() + self.tx.len()
    }

    fn holds_out(&self) -> usize {
        self.port.holds_out() + self.tx.len()
    }

    fn start(&mut self) {
        self.port.start();
    }

    fn idle(&mut self) {
        self.port.idle();
        if let Some(capture) = &mut self.capture {
            capture.idle();
        }
    }

    fn close(&mut self, books: &mut Books) -> Result<(), PortError> {
        for (side, sends) in [(&mut self.rx, false), (&mut self.tx, true)] {
            if let Some(faults) = &mut side.faults {
                faults.empty(&mut side.ready);
            }
            for item in side.ready.drain(..) {
                self.account.closed_upon += u64::from(sends);
                books.free(item.packet);
            }
        }
        self.port.close(books)
    }

    fn counters(&self) -> PortCounters {
        self.port.counters()
    }

    fn link(&self) -> Link {
        self.port.link()
    }

    fn extras(&self) -> Vec<(&'static str, u64)> {
        let mut all = self.port.extras();
        let rx =
            ["rx_faulted", "rx_corrupted", "rx_duplicated", "rx_reordered", "rx_delayed", "rx_rate_limited"];
        let tx =
            ["tx_faulted", "tx_corrupted", "tx_duplicated", "tx_reordered", "tx_delayed", "tx_rate_limited"];
        self.rx.extras(rx, &mut all);
        self.tx.extras(tx, &mut all);
        all.extend(self.capture.iter().flat_map(Capture::extras));
        all
    }

    fn take_error(&mut self) -> Option<PortError> {
        self.port.take_error()
    }
}
