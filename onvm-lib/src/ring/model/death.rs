//! Release after forward, and death: each packet has exactly one fate.
//!
//! ```text
//!   upstream ──A──▶ X ──B──▶ downstream ──E──▶
//!                   └──C──▶
//! ```
//! X takes from A and passes odd packets on to B, even ones to C, in turns; it dies before each of its stores in
//! one model after another. When its thread has ended (that is what the pidfd says), the reaper reads and decides,
//! while upstream still pushes and downstream still takes; then a successor goes on with what waited.

use super::super::sync::mortal::live;
use super::super::{Consumer, Descriptor, Producer, Ring};
use super::{check, numbered};

/// A node as the runtime runs it: take, push, publish, release.
struct Node {
    input: Consumer,
    outputs: Vec<Producer>,
    turn: u32,
}

impl Node {
    fn new(input: Consumer, outputs: &[Ring]) -> Self {
        Self { input, outputs: outputs.iter().map(Ring::producer).collect(), turn: 0 }
    }

    fn turn(&mut self) -> Vec<u32> {
        self.turn += 1;
        let mut burst = [Descriptor::default(); 2];
        let n = self.input.take(self.turn, &mut burst).unwrap();
        self.pass_on(&burst[..n]);
        self.input.release();
        burst[..n].iter().map(|d| d.hash()).collect()
    }

    fn pass_on(&mut self, burst: &[Descriptor]) {
        let ways = self.outputs.len();
        for d in burst {
            // The rings are large enough for all packets of a model.
            self.outputs[(d.hash() as usize + 1) % ways].push(self.turn, d.with_hop(d.hop() + 1)).unwrap();
        }
        for output in &mut self.outputs {
            output.publish();
        }
    }
}

/// What the reaper found in a dead node's incoming ring.
struct Reaped {
    dropped: Vec<u32>,
    waiting: Vec<Descriptor>,
    heir: Consumer,
}

/// The decision, as the manager makes it.
fn reap(input: &Ring, outputs: &[Ring]) -> Reaped {
    let left = input.remains().unwrap();
    let passed_on: Vec<Descriptor> =
        outputs.iter().flat_map(|ring| ring.passed_on(left.turn).unwrap()).collect();
    let delivered = |d: &&Descriptor| passed_on.iter().any(|p| p.same_holding(**d));
    let dropped = left.in_hand.iter().filter(|d| !delivered(d)).map(|d| d.hash()).collect();
    let heir = input.inherit(&left);
    Reaped { dropped, waiting: left.waiting, heir }
}

/// A successor takes over a dead node's rings: first what waited, then what still comes. Returns what was reaped.
fn succeed(input: &Ring, outputs: &[Ring]) -> (Vec<u32>, Node) {
    let reaped = reap(input, outputs);
    let mut successor = Node::new(reaped.heir, outputs);
    successor.turn = 1;
    successor.pass_on(&reaped.waiting);
    (reaped.dropped, successor)
}

fn drain(ring: &Ring) -> Vec<u32> {
    let mut consumer = ring.consumer();
    let mut burst = [Descriptor::default(); 4];
    let n = consumer.take(9, &mut burst).unwrap();
    consumer.release();
    burst[..n].iter().map(|d| d.hash()).collect()
}

fn assert_each_once(fates: &[&[u32]], count: u32) {
    let mut all: Vec<u32> = fates.concat();
    all.sort_unstable();
    assert_eq!(all, (0..count).collect::<Vec<_>>(), "lost or doubled: {fates:?}");
    for fate in fates {
        assert!(fate.is_sorted(), "out of order: {fate:?}");
    }
}

/// Repeats a model with a death one store later each time, until X survives.
fn at_each_store(name: &str, preemptions: usize, model: impl Fn(u32) -> bool + Send + Sync + Copy + 'static) {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let (mut stores, mut executions) = (0, 0);
    loop {
        let died = Arc::new(AtomicBool::new(false));
        let saw = Arc::clone(&died);
        executions += check("", Some(preemptions), move || {
            if model(stores) {
                saw.store(true, Ordering::Relaxed);
            }
        });
        if !died.load(Ordering::Relaxed) {
            break;
        }
        stores += 1;
    }
    println!("{name}: {stores} points of death, {executions} executions");
    assert!(stores > 0, "nobody ever died");
}

/// X dies; upstream and downstream live. True if it did die.
fn one_death(stores: u32) -> bool {
    const COUNT: u32 = 3;
    let [a, b, c] = [4, 4, 2].map(|capacity| Ring::on_heap(capacity).unwrap());
    let mut upstream = a.producer();
    upstream.push(1, numbered(0)).unwrap();
    upstream.push(1, numbered(1)).unwrap();
    upstream.publish();
    let mut x = Node::new(a.consumer(), &[b.clone(), c.clone()]);
    let mut downstream = b.consumer();
    let x = loom::thread::spawn(move || live(stores, || [x.turn(), x.turn()]).is_none());
    let pushing = loom::thread::spawn(move || {
        upstream.push(2, numbered(2)).unwrap();
        upstream.publish();
    });
    let taking = loom::thread::spawn(move || {
        let mut burst = [Descriptor::default(); 2];
        let n = downstream.take(1, &mut burst).unwrap();
        downstream.release();
        burst[..n].iter().map(|d| d.hash()).collect::<Vec<_>>()
    });
    let died = x.join().unwrap();
    let (dropped, mut successor) = succeed(&a, &[b.clone(), c.clone()]);
    pushing.join().unwrap();
    successor.turn();
    let mut out_of_b = taking.join().unwrap();
    out_of_b.extend(drain(&b));
    assert_each_once(&[&out_of_b, &drain(&c), &dropped], COUNT);
    assert!(died || dropped.is_empty());
    died
}

#[test]
fn a_death_leaves_each_packet_one_fate() {
    at_each_store("death of X", 3, one_death);
}

/// X dies before store `x_stores`, the node behind it before `d_stores`; they are reaped in either order.
fn two_deaths(x_stores: u32, d_stores: u32, downstream_first: bool) -> bool {
    const COUNT: u32 = 2;
    let [a, b, c, e] = [2, 2, 2, 2].map(|capacity| Ring::on_heap(capacity).unwrap());
    let mut upstream = a.producer();
    for n in 0..COUNT {
        upstream.push(1, numbered(n)).unwrap();
    }
    upstream.publish();
    let mut x = Node::new(a.consumer(), &[b.clone(), c.clone()]);
    let mut d = Node::new(b.consumer(), std::slice::from_ref(&e));
    let x = loom::thread::spawn(move || live(x_stores, || x.turn()).is_none());
    let d = loom::thread::spawn(move || live(d_stores, || [d.turn(), d.turn()]).is_none());
    let (x_outputs, d_outputs) = ([b.clone(), c.clone()], [e.clone()]);
    let x_died = x.join().unwrap();
    let (x_dropped, d_dropped, d_died);
    if downstream_first {
        d_died = d.join().unwrap();
        let (dropped, mut heir) = succeed(&b, &d_outputs);
        d_dropped = dropped;
        x_dropped = succeed(&a, &x_outputs).0;
        heir.turn();
    } else {
        x_dropped = succeed(&a, &x_outputs).0;
        d_died = d.join().unwrap();
        let (dropped, mut heir) = succeed(&b, &d_outputs);
        d_dropped = dropped;
        heir.turn();
    }
    assert_each_once(&[&drain(&e), &drain(&c), &x_dropped, &d_dropped], COUNT);
    x_died || d_died
}

#[test]
fn two_deaths_leave_each_packet_one_fate() {
    // X makes 13 stores in its turn, the node behind it 8 in the one that has a packet.
    let (mut executions, mut models) = (0, 0);
    for x_stores in 0..=13 {
        for d_stores in 0..=8 {
            for first in [false, true] {
                executions += check("", Some(4), move || {
                    two_deaths(x_stores, d_stores, first);
                });
                models += 1;
            }
        }
    }
    println!("death of X and of the node behind it: {models} models, {executions} executions");
}

/// X dies while upstream pushes more than the ring holds: the heir makes room for the rest.
fn inheritance(stores: u32) -> bool {
    const COUNT: u32 = 4;
    let [a, b] = [2, 4].map(|capacity| Ring::on_heap(capacity).unwrap());
    let mut upstream = a.producer();
    let mut x = Node::new(a.consumer(), std::slice::from_ref(&b));
    let x = loom::thread::spawn(move || live(stores, || x.turn()).is_none());
    let pushing = loom::thread::spawn(move || {
        for n in 0..COUNT {
            while upstream.push(1 + n / 2, numbered(n)).is_err() {
                loom::thread::yield_now();
            }
            upstream.publish();
        }
    });
    let died = x.join().unwrap();
    let (dropped, mut heir) = succeed(&a, std::slice::from_ref(&b));
    let mut out = drain(&b);
    while out.len() + dropped.len() < COUNT as usize {
        if heir.turn().is_empty() {
            loom::thread::yield_now();
        }
        out.extend(drain(&b));
    }
    pushing.join().unwrap();
    assert_each_once(&[&out, &dropped], COUNT);
    died
}

#[test]
fn an_heir_and_a_live_producer_lose_nothing() {
    at_each_store("inheritance with a live producer", 2, inheritance);
}

#[test]
#[should_panic(expected = "lost or doubled")]
fn the_model_sees_a_release_before_its_publish() {
    at_each_store("", 2, |stores| {
        let [a, b] = [2, 2].map(|capacity| Ring::on_heap(capacity).unwrap());
        let mut upstream = a.producer();
        upstream.push(1, numbered(0)).unwrap();
        upstream.publish();
        let (mut input, mut output) = (a.consumer(), b.producer());
        let x = loom::thread::spawn(move || {
            live(stores, || {
                let mut burst = [Descriptor::default(); 1];
                input.take(1, &mut burst).unwrap();
                output.push(1, burst[0]).unwrap();
                input.release();
                output.publish();
            })
            .is_none()
        });
        let died = x.join().unwrap();
        let (dropped, _) = succeed(&a, std::slice::from_ref(&b));
        assert_each_once(&[&drain(&b), &dropped], 1);
        died
    });
}
