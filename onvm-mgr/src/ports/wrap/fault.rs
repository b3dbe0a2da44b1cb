//! `fault=`: a bad wire, on purpose.
//!
//! | Item | What becomes of a packet |
//! |---|---|
//! | `drop:1%` | it is dropped (`injected-fault`) |
//! | `corrupt:1%/3` | so many of its bits are turned over, wherever they are; 1 if not said |
//! | `duplicate:1%/2` | so many copies follow it; 1 if not said |
//! | `reorder:1%/5` | so many that come after it go first; 3 if not said. It waits for them at most 50 ms |
//! | `delay:5ms/2ms` | it waits so long, and up to so much longer, as chance will have it; none overtakes another |
//!
//! Items are separated by `;` and stand for both directions, or for one with `rx:` or `tx:` in front:
//! `fault=drop:1%;tx:delay:5ms;seed:7`. A probability is a percentage, or a number from 0 to 1. What befalls the n-th packet
//! of a direction depends on n and on `seed:` (0 if not said) alone, so a run can be repeated. What would have to wait when
//! [`Faults::ROOM`] packets wait already is dropped as `injected-fault` as well.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use onvm_lib::document::{duration, nearest};
use onvm_lib::pool::{Books, Packet};
use onvm_lib::wire;

use super::super::{Spec, SpecError};
use super::Account;

/// How long a packet waits at most for others to overtake it.
const REORDER_TIME: Duration = Duration::from_millis(50);
/// Longest delay.
const LONGEST_DELAY: Duration = Duration::from_secs(10);
const ITEMS: &[&str] = &["drop", "corrupt", "duplicate", "reorder", "delay", "seed", "rx", "tx"];

/// What happens how often: a threshold under which a random number of 32 bits must be, and an amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Chance {
    below: u64,
    amount: u32,
}

impl Chance {
    fn is_set(self) -> bool {
        self.below > 0
    }

    /// Whether it happens to the packet with this number, of which it takes one half.
    fn strikes(self, roll: u64) -> bool {
        roll >> 32 < self.below
    }
}

/// What is to happen in one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Script {
    drop: Chance,
    corrupt: Chance,
    duplicate: Chance,
    reorder: Chance,
    delay: Duration,
    jitter: Duration,
    seed: u64,
}

impl Script {
    fn is_empty(&self) -> bool {
        let chances = [self.drop, self.corrupt, self.duplicate, self.reorder];
        !chances.iter().any(|chance| chance.is_set()) && self.delay.is_zero() && self.jitter.is_zero()
    }

    /// What a port's `fault=` says of what comes in and of what is sent.
    ///
    /// # Errors
    /// What is wrong with the value.
    pub(super) fn both(spec: &Spec) -> Result<[Option<Self>; 2], SpecError> {
        let mut both = [Self::default(), Self { seed: 1 << 63, ..Self::default() }];
        for item in spec.get("fault").unwrap_or_default().split(';').filter(|item| !item.is_empty()) {
            let (sides, rest) = match item.split_once(':') {
                Some(("rx", rest)) => (0..1, rest),
                Some(("tx", rest)) => (1..2, rest),
                _ => (0..2, item),
            };
            for side in &mut both[sides] {
                side.add(rest).map_err(|want| spec.bad("fault", format!("{item:?}: {want}")))?;
            }
        }
        if spec.get("fault").is_some() && both.iter().all(Self::is_empty) {
            return Err(spec.bad("fault", "nothing would happen: a fault is needed, as in drop:1%"));
        }
        Ok(both.map(|side| Some(side).filter(|side| !side.is_empty())))
    }

    fn add(&mut self, item: &str) -> Result<(), String> {
        let (name, value) = item.split_once(':').unwrap_or((item, ""));
        let (value, amount) = match value.split_once('/') {
            Some((value, amount)) => (value, Some(amount)),
            None => (value, None),
        };
        let chance = |usual, most| {
            Ok::<Chance, String>(Chance {
                below: probability(value)?,
                amount: amount_of(amount, usual, most)?,
            })
        };
        match name {
            "drop" if amount.is_none() => self.drop = chance(1, 1)?,
            "drop" => return Err("a packet is dropped or not: there is no amount".into()),
            "corrupt" => self.corrupt = chance(1, 1024)?,
            "duplicate" => self.duplicate = chance(1, 8)?,
            "reorder" => self.reorder = chance(3, 64)?,
            "delay" => {
                (self.delay, self.jitter) = (time(value)?, amount.map_or(Ok(Duration::ZERO), time)?);
            }
            "seed" => {
                let read = value.parse::<u64>().ok().filter(|seed| *seed < 1 << 63 && amount.is_none());
                let seed = read.ok_or("a whole number is needed, as in seed:7")?;
                // The two directions differ in their highest bit.
                self.seed = self.seed & 1 << 63 | seed;
            }
            other => {
                return Err(match nearest(other, ITEMS.iter().copied()) {
                    Some(near) => format!("unknown word {other:?}; did you mean {near:?}?"),
                    None => format!("unknown word {other:?}, words are {}", ITEMS.join(", ")),
                });
            }
        }
        Ok(())
    }
}

/// A probability as a threshold for 32 bits.
fn probability(text: &str) -> Result<u64, String> {
    let read = match text.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    let read = read.ok().filter(|share| (0.0..=1.0).contains(share));
    let share =
        read.ok_or_else(|| format!("{text:?} is no probability: 0% to 100%, or 0 to 1, is needed"))?;
    // At most 2^32, and not negative.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok((share * 4_294_967_296.0).round() as u64)
}

fn amount_of(text: Option<&str>, usual: u32, most: u32) -> Result<u32, String> {
    let Some(text) = text else { return Ok(usual) };
    let read = text.parse().ok().filter(|n| (1..=most).contains(n));
    read.ok_or_else(|| format!("the amount {text:?} is out of range 1..={most}"))
}

fn time(text: &str) -> Result<Duration, String> {
    let read = duration(text).filter(|time| *time <= LONGEST_DELAY);
    read.ok_or_else(|| format!("{text:?} is no time up to 10 s, as 5ms"))
}

/// Numbers that look random (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Copy, Debug)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A packet, and whether it is a copy that was made here.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) packet: Packet,
    pub(super) copy: bool,
}

/// A packet that others are to overtake.
#[derive(Debug)]
struct Held {
    item: Item,
    /// By so many more.
    overtaken_by: u32,
    until: Instant,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Happened {
    pub(super) dropped: u64,
    pub(super) corrupted: u64,
    pub(super) duplicated: u64,
    pub(super) reordered: u64,
    pub(super) delayed: u64,
}

/// The faults of one direction.
#[derive(Debug)]
pub(super) struct Faults {
    script: Script,
    dice: Dice,
    /// What others are to overtake, oldest first.
    held: VecDeque<Held>,
    /// What waits for its time, in this order.
    line: VecDeque<(Instant, Item)>,
    pub(super) happened: Happened,
}

impl Faults {
    /// Packets that may wait in one direction.
    pub(super) const ROOM: usize = 4096;

    pub(super) fn new(script: Script) -> Self {
        let dice = Dice(script.seed);
        Self { script, dice, held: VecDeque::new(), line: VecDeque::new(), happened: Happened::default() }
    }

    /// Packets that wait.
    pub(super) fn len(&self) -> usize {
        self.held.len() + self.line.len()
    }

    /// When the first of those that wait may go.
    pub(super) fn due(&self) -> Option<Instant> {
        let held = self.held.iter().map(|held| held.until).min();
        let line = self.line.front().map(|(when, _)| *when);
        held.into_iter().chain(line).min()
    }

    /// A packet comes by; what may go on now goes to `out`. One that is to be dropped is given back.
    pub(super) fn pass(
        &mut self,
        books: &mut Books,
        mut packet: Packet,
        now: Instant,
        out: &mut VecDeque<Item>,
        account: &mut Account,
    ) -> Option<Packet> {
        // One number for each packet, and all else from it: what happens to one does not change the lot of the next.
        let mut own = Dice(self.dice.roll());
        let [drop, corrupt, duplicate, reorder] = std::array::from_fn(|_| own.roll());
        let copies = if self.script.duplicate.strikes(duplicate) { self.script.duplicate.amount } else { 0 };
        if self.script.drop.strikes(drop) || self.len() + copies as usize >= Self::ROOM {
            self.happened.dropped += 1;
            return Some(packet);
        }
        if self.script.corrupt.strikes(corrupt) {
            self.happened.corrupted += 1;
            turn_bits(books, &mut packet, own, self.script.corrupt.amount);
        }
        for _ in 0..copies {
            self.happened.duplicated += 1;
            match books.duplicate(&packet) {
                Some(mut copy) => {
                    copy.set_destination(packet.descriptor().destination());
                    account.copied();
                    self.go(Item { packet: copy, copy: true }, now, own.roll(), out);
                }
                None => account.copies_without_buffer += 1,
            }
        }
        let item = Item { packet, copy: false };
        if self.script.reorder.strikes(reorder) {
            self.happened.reordered += 1;
            let overtaken_by = self.script.reorder.amount;
            self.held.push_back(Held { item, overtaken_by, until: now + REORDER_TIME });
            return None;
        }
        self.go(item, now, own.roll(), out);
        self.overtake(now, own.roll(), out);
        None
    }

    /// A packet has gone ahead of those that are held.
    fn overtake(&mut self, now: Instant, roll: u64, out: &mut VecDeque<Item>) {
        self.held.iter_mut().for_each(|held| held.overtaken_by -= 1);
        // The first was held first, and all are overtaken by as many.
        while let Some(held) = first_if(&mut self.held, |held| held.overtaken_by == 0) {
            self.go(held.item, now, roll, out);
        }
    }

    /// Sends a packet on, or down the line of those that are delayed.
    fn go(&mut self, item: Item, now: Instant, roll: u64, out: &mut VecDeque<Item>) {
        if self.script.delay.is_zero() && self.script.jitter.is_zero() {
            return out.push_back(item);
        }
        self.happened.delayed += 1;
        let jitter = u64::try_from(self.script.jitter.as_nanos()).unwrap_or(u64::MAX);
        let more = Duration::from_nanos(roll % jitter.saturating_add(1).max(1));
        let when = now + self.script.delay + more;
        let when = self.line.back().map_or(when, |(last, _)| when.max(*last));
        self.line.push_back((when, item));
    }

    /// What has waited long enough goes to `out`.
    pub(super) fn release(&mut self, now: Instant, out: &mut VecDeque<Item>) {
        while let Some(held) = first_if(&mut self.held, |held| held.until <= now) {
            let roll = self.dice.0;
            self.go(held.item, now, roll, out);
        }
        while let Some((_, item)) = first_if(&mut self.line, |(when, _)| *when <= now) {
            out.push_back(item);
        }
    }

    /// Everything that waits goes to `out`.
    pub(super) fn empty(&mut self, out: &mut VecDeque<Item>) {
        out.extend(self.line.drain(..).map(|(_, item)| item));
        out.extend(self.held.drain(..).map(|held| held.item));
    }
}

/// Takes the first if it is as wanted.
fn first_if<T>(all: &mut VecDeque<T>, wanted: impl FnOnce(&T) -> bool) -> Option<T> {
    if all.front().is_some_and(wanted) { all.pop_front() } else { None }
}

/// Turns over so many bits of a packet; two may be the same.
fn turn_bits(books: &Books, packet: &mut Packet, mut dice: Dice, bits: u32) {
    let bytes = packet.bytes_mut(books.pool());
    for _ in 0..bits {
        let place = dice.roll() % (bytes.len() as u64 * 8).max(1);
        let byte = usize::try_from(place / 8).unwrap_or(0);
        if let Some(byte) = bytes.get_mut(byte) {
            *byte ^= 1 << (place % 8);
        }
    }
    // As if it had come like this.
    let hash = wire::flow_hash(bytes);
    packet.describe(packet.descriptor().with_hash(hash));
}
