//! The floors: processes that pass packets over the plainest rings that can be.
//!
//! ```text
//! feeder (core 0) ──▶ node ──▶ … ──▶ node ──▶ back to the feeder, which frees and refills    (nodes: core 1)
//! stream (core 0) ──▶ sink (core 1): entries alone, no packets
//! ```
//! The feeder writes each packet, every node reads its headers and takes one off its time to live. Nothing is
//! checked, counted or marked. What the platform reaches is measured against this.
//!
//! What is alike, so that the ratio says something: buffers and their stride, rings of 16,384 entries, the most recently
//! freed buffer first, 1,024 packets at most in front of the first node, bursts of 64, huge pages. What is not: a node on a shared
//! core works until it finds nothing or the next ring is full (16,384), the platform's NF until 4,096 lie ahead of it. That
//! favours the floor by some changes of process, and costs it some cache misses.

#![allow(clippy::cast_possible_truncation, reason = "bursts and rings are small")]

mod memory;

use std::hint::{black_box, spin_loop};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use memory::{CAPACITY, Entry, Receiver, SIZE, Sender, Shared};

use crate::machine;
use crate::measure::{Error, Span};

/// Packets under way in front of the first node: what the platform's worker allows itself.
const WATERMARK: u32 = 1024;
/// Fruitless yields before a node on a shared core sleeps: as in the platform.
const YIELDS: u32 = 24;
/// Rounds between two looks at the clock.
const ROUNDS_PER_LOOK: u32 = 256;

/// What a set of processes does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Floor {
    /// Nodes between the feeder's two rings; 0: entries alone, one way.
    pub(crate) nodes: usize,
    /// Entries handled together.
    pub(crate) batch: usize,
    /// Entries of 16 bytes, else of 8.
    pub(crate) wide: bool,
}

impl Floor {
    pub(crate) const fn hop(batch: usize, wide: bool) -> Self {
        Self { nodes: 1, batch, wide }
    }

    pub(crate) const fn stream(batch: usize, wide: bool) -> Self {
        Self { nodes: 0, batch, wide }
    }

    /// Runs the processes; packets a second over the span.
    pub(crate) fn measure(self, span: Span) -> Result<f64, Error> {
        let (_file, path) = Shared::create()?;
        let mut nodes = Children(Vec::new());
        for index in 0..self.nodes.max(1) {
            let role = if self.nodes == 0 { "sink" } else { "node" };
            nodes.0.push(self.spawn(role, index, &path, span, Stdio::null())?);
        }
        let feeder =
            self.spawn(if self.nodes == 0 { "stream" } else { "feeder" }, 0, &path, span, Stdio::piped())?;
        let output = feeder.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim().parse().map_err(|_| Error::new(format!("the bare feeder said {text:?}")))
    }

    fn spawn(self, role: &str, index: usize, path: &str, span: Span, out: Stdio) -> Result<Child, Error> {
        Command::new(std::env::current_exe()?)
            .args(["bare", role, &index.to_string(), path])
            .args([self.nodes, self.batch, usize::from(self.wide)].map(|n| n.to_string()))
            .args([span.warm, span.run].map(|d| d.as_millis().to_string()))
            .stdin(Stdio::null())
            .stdout(out)
            .spawn()
            .map_err(Error::from)
    }
}

/// Processes that end with this value at the latest.
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Those that have seen the stop flag are gone already.
            let _ = child.kill();
            if let Err(error) = child.wait() {
                eprintln!("onvm-bench: a bare process is lost: {error}");
            }
        }
    }
}

/// What one of the processes does: `role index path nodes batch wide warm-ms run-ms`.
pub(crate) fn child(arguments: &[String]) -> Result<(), Error> {
    let [role, index, path, numbers @ ..] = arguments else { return Err(Error::new("too few arguments")) };
    let numbers: Vec<u64> = numbers.iter().filter_map(|n| n.parse().ok()).collect();
    let [nodes, batch, wide, warm, run] = numbers[..] else { return Err(Error::new("too few numbers")) };
    let number = |n: u64| usize::try_from(n).unwrap_or(0);
    let floor = Floor { nodes: number(nodes), batch: number(batch), wide: wide == 1 };
    let span = Span { warm: Duration::from_millis(warm), run: Duration::from_millis(run) };
    let index: usize = index.parse().map_err(|_| Error::new("not an index"))?;
    let shared = Shared::open(path)?;
    machine::pin(u32::from(matches!(role.as_str(), "node" | "sink")))?;
    match (floor.wide, floor.batch) {
        (true, 32) => play::<[u64; 2], 32>(role, index, &shared, floor, span),
        (true, _) => play::<[u64; 2], 64>(role, index, &shared, floor, span),
        (false, 32) => play::<u64, 32>(role, index, &shared, floor, span),
        (false, _) => play::<u64, 64>(role, index, &shared, floor, span),
    }
    Ok(())
}

fn play<E: Entry, const BATCH: usize>(role: &str, index: usize, shared: &Shared, floor: Floor, span: Span) {
    let rate = match role {
        "node" => return node::<E, BATCH>(shared, index, floor.nodes > 1),
        "sink" => return sink::<E, BATCH>(shared),
        "stream" => stream::<E, BATCH>(shared, span),
        _ => feeder::<E, BATCH>(shared, floor.nodes, span),
    };
    println!("{rate}");
    shared.stop().store(1, Ordering::SeqCst);
}

/// Counts packets over a span, looking at the clock now and then.
struct Meter {
    span: Span,
    started: Instant,
    rounds: u32,
    begun: Option<(Instant, u64)>,
}

impl Meter {
    fn new(span: Span) -> Self {
        Self { span, started: Instant::now(), rounds: 0, begun: None }
    }

    /// The rate, once the span is over.
    #[inline(always)]
    fn round(&mut self, packets: u64) -> Option<f64> {
        self.rounds = self.rounds.wrapping_add(1);
        if self.rounds.is_multiple_of(ROUNDS_PER_LOOK) { self.look(packets) } else { None }
    }

    #[inline(never)]
    fn look(&mut self, packets: u64) -> Option<f64> {
        let now = Instant::now();
        match self.begun {
            None if now - self.started >= self.span.warm => self.begun = Some((now, packets)),
            Some((begun, before)) if now - begun >= self.span.run => {
                #[allow(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
                return Some((packets - before) as f64 / (now - begun).as_secs_f64());
            }
            _ => {}
        }
        None
    }
}

/// A UDP packet over IPv4, as `gen:` makes them.
fn template() -> [u8; SIZE] {
    let mut packet = [0; SIZE];
    packet[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    packet[14..34]
        .copy_from_slice(&[0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 0, 172, 16, 0, 1]);
    packet
}

fn feeder<E: Entry, const BATCH: usize>(shared: &Shared, nodes: usize, span: Span) -> f64 {
    let (mut out, mut back) = (shared.sender::<E>(0), shared.receiver::<E>(nodes));
    let mut free: Vec<u32> = (0..memory::BUFFERS).rev().collect();
    let (packet, mut burst) = (template(), [E::default(); BATCH]);
    let (mut meter, mut packets) = (Meter::new(span), 0);
    loop {
        let n = back.take(&mut burst);
        for entry in &burst[..n] {
            free.push(entry.buffer());
        }
        back.release();
        packets += n as u64;
        let ahead = CAPACITY - out.room(CAPACITY - WATERMARK + BATCH as u32);
        if ahead + BATCH as u32 <= WATERMARK && free.len() >= BATCH {
            for _ in 0..BATCH {
                let Some(buffer) = free.pop() else { break };
                shared.write(buffer, &packet);
                out.push(E::of(buffer));
            }
            out.publish();
            out.ring_bell();
        } else if n == 0 {
            spin_loop();
        }
        if let Some(rate) = meter.round(packets) {
            return rate;
        }
    }
}

fn node<E: Entry, const BATCH: usize>(shared: &Shared, index: usize, shares: bool) {
    let (mut input, mut output) = (shared.receiver::<E>(index), shared.sender::<E>(index + 1));
    let (mut burst, mut fruitless) = ([E::default(); BATCH], 0);
    while shared.stop().load(Ordering::Relaxed) == 0 {
        let n = input.take(&mut burst);
        if n == 0 {
            wait(&input, shares, &mut fruitless);
            continue;
        }
        fruitless = 0;
        for entry in &burst[..n] {
            shared.prefetch(entry.buffer());
        }
        for entry in &burst[..n] {
            shared.hop(entry.buffer());
        }
        while (output.room(BATCH as u32) as usize) < n && shared.stop().load(Ordering::Relaxed) == 0 {
            if shares { std::thread::yield_now() } else { spin_loop() }
        }
        forward(&mut output, &burst[..n]);
        input.release();
    }
}

#[inline(always)]
fn forward<E: Entry>(output: &mut Sender<E>, burst: &[E]) {
    for entry in burst {
        output.push(*entry);
    }
    output.publish();
    output.ring_bell();
}

#[inline]
fn wait<E: Entry>(input: &Receiver<E>, shares: bool, fruitless: &mut u32) {
    *fruitless += 1;
    if !shares {
        spin_loop();
    } else if *fruitless <= YIELDS {
        std::thread::yield_now();
    } else {
        input.sleep();
        *fruitless = 0;
    }
}

fn stream<E: Entry, const BATCH: usize>(shared: &Shared, span: Span) -> f64 {
    let mut out = shared.sender::<E>(0);
    let (mut meter, mut packets) = (Meter::new(span), 0u64);
    let burst: [E; BATCH] = std::array::from_fn(|i| E::of(i as u32 & 0xff));
    loop {
        if out.room(BATCH as u32) >= BATCH as u32 {
            // The compiler is not to know what is in them, as it would not where packets come from somewhere.
            for entry in black_box(&burst) {
                out.push(*entry);
            }
            out.publish();
            packets += BATCH as u64;
        } else {
            spin_loop();
        }
        if let Some(rate) = meter.round(packets) {
            return rate;
        }
    }
}

fn sink<E: Entry, const BATCH: usize>(shared: &Shared) {
    let (mut input, mut burst) = (shared.receiver::<E>(0), [E::default(); BATCH]);
    while shared.stop().load(Ordering::Relaxed) == 0 {
        let n = input.take(&mut burst);
        black_box(&burst);
        input.release();
        if n == 0 {
            spin_loop();
        }
    }
}
