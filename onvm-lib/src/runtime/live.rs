//! An NF at work between a manager's rings.
//!
//! One round looks at every incoming ring once, and does a turn for each that has packets:
//!
//! ```text
//! turn:  take ─▶ check ─▶ NF ─▶ choose ways ─▶ push ─▶ publish ─▶ release
//! ```
//! News from the manager (routes, messages, stop) is looked at between rounds, so a burst is routed by one
//! snapshot. `news` follows them, `succession` hands state over, `reattach` waits for the next manager when this
//! one is gone, `farewell` reports and leaves.

mod cost;
mod farewell;
mod news;
mod pass_on;
mod reattach;
mod start;
mod succession;

use std::time::{Duration, Instant};

use super::attach::Attached;
use super::control::Ears;
use super::dispatch::{Output, Outputs, Waiter, Wake};
use super::hands::Hands;
use super::route::{RELAY, Routing};
use super::tell::Control;
use super::{Common, NetworkFunction, Printer};
use crate::idle::{Idle, Manner};
use crate::node::{Counter, HeldTable, Lifeline, NodePage};
use crate::packet::{Access as _, Clock, DropReason, MAX_BURST, MAX_ENTRIES};
use crate::pool::Pool;
use crate::protocol::{EdgeId, InstanceId, Line};
use crate::ring::bell::{Barriers, sleep};
use crate::ring::{Consumer, Descriptor, Destination, Op, Violation};

use cost::Cost;
use farewell::Totals;
use reattach::Kept;
pub(super) use start::run;
use start::{LiveError, Place};

/// Services that a packet may pass before it is taken for one that goes round in circles.
const HOP_LIMIT: u8 = 128;
/// Rounds between two looks at the clock.
const ROUNDS_PER_LOOK: u32 = 64;

/// One incoming ring of packets.
struct Input {
    edge: EdgeId,
    consumer: Consumer,
    /// Not to be read before the marker for it has come by the relay.
    gated: bool,
    /// Its producer writes no more; forget it when it is empty.
    finishing: bool,
}

struct Live<'a, N: NetworkFunction> {
    nf: N,
    common: &'a Common,
    control: Control,
    instance: InstanceId,
    line: Line,
    ears: Ears,
    page: NodePage,
    /// By which the manager hears of this thread's death; let go of in [`Live::leave`].
    lifeline: Option<Lifeline>,
    barriers: Barriers,
    inputs: Vec<Input>,
    /// Markers that came before the news of the edge that they open.
    early_markers: Vec<EdgeId>,
    empties: Option<Consumer>,
    outputs: Outputs,
    routing: Routing,
    idle: Idle,
    turn: u32,
    cost: Cost,
    hands: Hands<HeldTable>,
    started: Instant,
    next_tick: Instant,
    next_print: Option<Instant>,
    produce_at: Option<Instant>,
    received: u64,
    /// Done for managers that are gone.
    before: Totals,
    /// Reports of `-p`, and the last.
    printer: Printer,
    /// It leaves when this many have come in.
    limit: u64,
    /// It takes no packets; they wait in its rings.
    paused: bool,
    leaving: bool,
}

impl<'a, N: NetworkFunction> Live<'a, N> {
    fn new(kept: Kept<'a, N>, attached: Attached) -> Self {
        let Kept { nf, common, control, ears, barriers, started, received, before, printer } = kept;
        let Attached { line, welcome, pool, page, inbound, outbound, empties, doorbell } = attached;
        let relay = Output {
            edge: welcome.outbound.edge,
            producer: outbound,
            wake: Wake::Worker(doorbell),
            stuck: false,
        };
        let input = Input { edge: welcome.inbound.edge, consumer: inbound, gated: false, finishing: false };
        let now = Instant::now();
        Self {
            nf,
            common,
            control,
            instance: welcome.instance,
            line,
            ears,
            hands: Hands::new(pool, HeldTable::new(page.clone()), Clock::default()),
            lifeline: Some(Lifeline::tie(page.clone())),
            page,
            barriers,
            inputs: vec![input],
            early_markers: Vec::new(),
            empties,
            outputs: Outputs::new(relay, barriers),
            routing: Routing::relay_only(common.destination),
            idle: Idle::new(manner(common, welcome.shared_core)),
            turn: 0,
            cost: Cost::new(),
            started,
            next_tick: now + N::TICK,
            next_print: common.print_interval.map(|interval| now + interval),
            produce_at: N::EMITS.then_some(now),
            received,
            before,
            printer,
            limit: common.packet_limit.unwrap_or(u64::MAX),
            paused: false,
            leaving: false,
        }
    }

    fn work(&mut self) -> Result<(), LiveError> {
        let mut rounds = 0u32;
        let mut burst = [Descriptor::default(); MAX_BURST];
        while !self.leaving {
            if self.ears.attention.called() {
                self.hear()?;
            }
            if self.paused {
                self.rest();
                continue;
            }
            if self.idle.manner() == Manner::Yield
                && let Some(ahead) = self.outputs.crowd()
                && !self.has_more_than(ahead / 2)
            {
                std::thread::yield_now();
            }
            let mut worked = 0;
            for index in 0..self.inputs.len() {
                worked += self.take_from(index, &mut burst);
            }
            if N::EMITS {
                worked += self.produce();
            }
            rounds = rounds.wrapping_add(1);
            if worked == 0 {
                if self.idle.nothing() {
                    self.rest();
                }
            } else {
                self.idle.worked();
            }
            if rounds.is_multiple_of(ROUNDS_PER_LOOK) || worked == 0 && rounds.is_multiple_of(8) {
                self.look_at_clock();
            }
        }
        Ok(())
    }

    /// Whether more than `few` packets wait here: then there may be others among them than those that would go the crowded
    /// way, and they must not wait for its end.
    #[cold]
    fn has_more_than(&mut self, few: u32) -> bool {
        self.inputs.iter_mut().any(|input| input.consumer.available(few + 1).is_ok_and(|n| n > few))
    }

    /// Does a turn with what an incoming ring has; returns the number of packets.
    #[inline(always)]
    fn take_from(&mut self, index: usize, burst: &mut [Descriptor; MAX_BURST]) -> usize {
        let input = &mut self.inputs[index];
        if input.gated || self.received >= self.limit {
            return 0;
        }
        match input.consumer.available(MAX_ENTRIES) {
            Ok(0) => return 0,
            Ok(_) => {}
            Err(_) => {
                self.page.add(Counter::Violations, 1);
                return 0;
            }
        }
        let sample = self.cost.turn(&self.page);
        self.begin_turn();
        let wanted = usize::try_from(self.limit - self.received).unwrap_or(MAX_BURST).min(MAX_BURST);
        let (consumer, pool) = (&mut self.inputs[index].consumer, &self.hands.pool);
        let Ok((n, sound)) = take_checked(consumer, pool, self.turn, &mut burst[..wanted], N::Access::WRITES)
        else {
            return 0;
        };
        let n = if sound { n } else { self.sort_out(burst, n) };
        self.run_turn(&mut burst[..n], true);
        self.inputs[index].consumer.release();
        if let Some(sample) = sample {
            sample.end(&self.page, n);
        }
        self.received += n as u64;
        self.page.add(Counter::Turns, 1);
        self.page.add(Counter::Received, n as u64);
        n.max(1)
    }

    #[inline(always)]
    fn begin_turn(&mut self) {
        // Turn 0 is what fresh rings say; a live NF skips it.
        self.turn = self.turn.wrapping_add(1).max(1);
        self.page.set_turn(self.turn);
        self.hands.clock.turn();
        if N::EMITS {
            self.fetch_empties();
        }
    }

    /// Keeps some empty buffers at hand. They stay taken, and so accounted for, from turn to turn.
    #[inline]
    fn fetch_empties(&mut self) {
        let at_hand = &mut self.hands.emitter.empties;
        let Some(ring) = self.empties.as_mut().filter(|_| at_hand.len() < MAX_BURST / 2) else { return };
        let mut fresh = [Descriptor::default(); MAX_BURST];
        let n = ring.take(self.turn, &mut fresh[at_hand.len()..]).unwrap_or(0);
        let fresh = &fresh[at_hand.len()..][..n];
        if fresh.iter().all(|d| self.hands.pool.contains(*d)) {
            at_hand.extend_from_slice(fresh);
        } else {
            // Only the manager writes here, and it does not err; without empties the NF makes no more packets.
            self.page.add(Counter::BadDescriptors, 1);
            self.empties = None;
        }
    }

    /// Gives back the slots of the empty buffers that became packets in this turn, which is published.
    #[inline]
    fn release_empties(&mut self) {
        let emitter = &mut self.hands.emitter;
        if emitter.used == 0 {
            return;
        }
        if let Some(ring) = &mut self.empties {
            ring.release_oldest(u32::try_from(emitter.used).unwrap_or(0));
        }
        emitter.empties.drain(..emitter.used);
        emitter.used = 0;
        // The worker refills; it may be asleep and looks at this ring unasked only now and then.
        self.outputs.ring_worker();
    }

    /// Takes out of a burst what is no packet: markers, nonsense, packets that went round too often.
    #[cold]
    #[inline(never)]
    fn sort_out(&mut self, burst: &mut [Descriptor; MAX_BURST], n: usize) -> usize {
        let mut kept = 0;
        for i in 0..n {
            let d = burst[i].with_hop_undone();
            if d.destination().op() == Op::Marker {
                match self.inputs.iter_mut().find(|input| input.edge == d.hash()) {
                    Some(input) => input.gated = false,
                    None => self.early_markers.push(d.hash()),
                }
            } else if !self.hands.pool.contains(d) || d.destination().op() != Op::Next {
                self.page.add(Counter::BadDescriptors, 1);
                if d.buffer() < self.hands.pool.geometry().buffers() {
                    self.relay(d.with_place(0, 0).with_destination(Destination::new(Op::Invalid, 0)));
                }
            } else if d.hop() > HOP_LIMIT {
                self.page.add_drop(DropReason::HopLimit);
                self.relay(d.with_destination(Destination::new(Op::Drop, DropReason::HopLimit as u16)));
            } else {
                burst[kept] = d.with_next_hop();
                kept += 1;
            }
        }
        kept
    }

    fn relay(&mut self, descriptor: Descriptor) {
        let mut waiter = Waiter { idle: &self.idle, page: &self.page, manager_gone: &self.ears.manager_gone };
        self.outputs.send(self.turn, RELAY, descriptor, &mut waiter);
    }

    /// Runs the NF over a burst, or lets it tick or make packets over none, and passes on what comes of it.
    #[inline(always)]
    fn run_turn(&mut self, burst: &mut [Descriptor], packets: bool) -> Option<Duration> {
        let mut hands = self.hands.burst::<N::Access>(burst);
        let mut again = None;
        if packets {
            self.nf.burst(&mut hands);
        } else {
            again = self.nf.produce(&mut hands);
        }
        self.pass_on(burst);
        again
    }

    /// Lets the NF make packets; returns how many it made.
    fn produce(&mut self) -> usize {
        if self.produce_at.is_none() {
            return 0;
        }
        self.begin_turn();
        let before = self.hands.emitter.empties.len();
        let again = self.run_turn(&mut [], false);
        self.produce_at = again.map(|wait| Instant::now() + wait);
        before - self.hands.emitter.empties.len()
    }

    fn look_at_clock(&mut self) {
        let now = Instant::now();
        if now >= self.next_tick {
            self.next_tick = now + N::TICK;
            self.tick(false);
        }
        if let (Some(at), Some(interval)) = (self.next_print, self.common.print_interval)
            && now >= at
        {
            self.next_print = Some(at.max(now - interval) + interval);
            self.print();
        }
        let late = self.common.time_limit.is_some_and(|limit| now - self.started >= limit);
        let enough = self.received >= self.limit;
        self.leaving |= late || enough || self.nf.done();
    }

    fn tick(&mut self, last: bool) {
        self.begin_turn();
        let mut hands = self.hands.burst::<N::Access>(&mut []);
        if last {
            self.nf.teardown(&mut hands);
            for ticket in 0..u32::try_from(crate::packet::HELD).unwrap_or(0) {
                let _ = hands.release(ticket);
            }
        } else {
            self.nf.tick(&mut hands);
        }
        self.pass_on(&mut []);
    }

    /// Sleeps until there is something to do.
    #[inline(never)]
    fn rest(&mut self) {
        let mut limit = self.next_tick.saturating_duration_since(Instant::now());
        if let Some(at) = self.next_print {
            limit = limit.min(at.saturating_duration_since(Instant::now()));
        }
        if let Some(time) = self.common.time_limit {
            limit = limit.min((self.started + time).saturating_duration_since(Instant::now()));
        }
        if let Some(at) = self.produce_at.filter(|_| !self.paused) {
            limit = limit.min(at.saturating_duration_since(Instant::now()));
        }
        if limit.is_zero() || self.leaving {
            self.look_at_clock();
            return;
        }
        // An NF that wants to make packets and has no buffers waits for those too.
        let starved = self.produce_at.is_some() && self.hands.emitter.empties.is_empty();
        // Nor does one that is paused wake for packets.
        let awake = !self.paused;
        let mut rings: Vec<&mut Consumer> =
            self.inputs.iter_mut().filter(|i| awake && !i.gated).map(|i| &mut i.consumer).collect();
        rings.extend(self.empties.as_mut().filter(|_| awake && starved));
        rings.iter_mut().for_each(|ring| ring.arm());
        if let Some(cap) = self.barriers.before_sleep() {
            limit = limit.min(cap);
        }
        let nothing = rings.iter_mut().all(|ring| ring.available(1) == Ok(0));
        if nothing && !self.ears.attention.called() {
            self.page.add(Counter::Sleeps, 1);
            sleep(rings.iter().map(|ring| &**ring), &self.ears.attention, limit);
        }
        // Woken by the clock alone it goes back to sleep at once.
        if rings.iter_mut().any(|ring| ring.available(1) != Ok(0)) {
            self.idle.worked();
        }
        rings.iter_mut().for_each(|ring| ring.disarm());
        self.look_at_clock();
    }
}

fn manner(common: &Common, shared: bool) -> Manner {
    if common.shared_core || shared && common.core.is_none() {
        Manner::Yield
    } else if common.core.is_some() {
        Manner::Poll
    } else {
        Manner::Spin
    }
}

/// Takes a burst, checks its descriptors, counts the hop, and fetches the first line of each packet. How many they
/// are, and whether all are sound; if not, they wait to be sorted out.
#[inline(always)]
fn take_checked(
    consumer: &mut Consumer,
    pool: &Pool,
    turn: u32,
    burst: &mut [Descriptor],
    writes: bool,
) -> Result<(usize, bool), Violation> {
    let mut doubt = 0;
    let n = consumer.take_each(turn, burst, |d| {
        doubt |= pool.misfit(d) | d.astray(HOP_LIMIT);
        if writes {
            pool.prefetch_to_write(d);
        } else {
            pool.prefetch(d);
        }
        d.with_next_hop()
    })?;
    Ok((n, doubt >> 63 == 0))
}
