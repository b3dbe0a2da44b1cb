//! The doorbell: whoever decides to sleep is woken.
//!
//! The checker knows fences but no membarrier, so the models use [`Barriers::Fences`] at both ends. Membarrier puts
//! the same full barrier into the producer's instruction stream, at a place of the kernel's choosing. The sleep is a
//! futex: the kernel compares the word under a lock that a waker takes too. A sleeper that nobody wakes is a
//! deadlock, which the checker reports.

use std::sync::Arc;

use loom::sync::{Condvar, Mutex};

use super::super::bell::Barriers;
use super::super::sync::mortal::{age, live};
use super::super::{Consumer, Descriptor, Producer, Ring};
use super::{check, numbered};

/// The kernel's side of a futex.
struct Futex {
    lock: Mutex<()>,
    sleepers: Condvar,
}

impl Futex {
    fn new() -> Arc<Self> {
        Arc::new(Self { lock: Mutex::new(()), sleepers: Condvar::new() })
    }

    fn sleep(&self, consumers: &[Consumer]) {
        let guard = self.lock.lock().unwrap();
        if consumers.iter().all(Consumer::is_armed) {
            drop(self.sleepers.wait(guard).unwrap());
        }
    }

    fn wake(&self) {
        let _guard = self.lock.lock().unwrap();
        self.sleepers.notify_one();
    }
}

fn send(producer: &mut Producer, barriers: Barriers, futex: &Futex, entries: u32) {
    for n in 0..entries {
        producer.push(1, numbered(n)).unwrap();
        producer.publish();
        if producer.rings(barriers) {
            age();
            futex.wake();
        }
    }
}

/// Takes until `count` entries have come, sleeping in between as the runtime does.
fn receive(consumers: &mut [Consumer], futex: &Futex, count: usize) {
    let mut seen = 0;
    while seen < count {
        let mut got = 0;
        for consumer in consumers.iter_mut() {
            got += consumer.take(1, &mut [Descriptor::default(); 2]).unwrap();
            consumer.release();
        }
        seen += got;
        if got > 0 {
            continue;
        }
        for consumer in consumers.iter_mut() {
            consumer.arm();
        }
        let _ = Barriers::Fences.before_sleep();
        if consumers.iter_mut().all(|c| c.available(1) == Ok(0)) {
            futex.sleep(consumers);
        }
        for consumer in consumers.iter_mut() {
            consumer.disarm();
        }
    }
}

fn one_producer(barriers: Barriers) {
    let ring = Ring::on_heap(4).unwrap();
    let (mut producer, consumer) = (ring.producer(), ring.consumer());
    let futex = Futex::new();
    let theirs = Arc::clone(&futex);
    let sender = loom::thread::spawn(move || send(&mut producer, barriers, &theirs, 2));
    receive(&mut [consumer], &futex, 2);
    sender.join().unwrap();
}

#[test]
fn no_wake_up_is_lost() {
    check("bell, 2 entries", None, || one_producer(Barriers::Fences));
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_model_sees_a_missing_barrier() {
    // Nobody makes the barrier that this producer leaves to the sleeper.
    check("", None, || one_producer(Barriers::Membarrier));
}

#[test]
fn a_sleeper_on_two_rings_is_woken_by_either() {
    check("bell, 2 producers", Some(3), || {
        let futex = Futex::new();
        let rings = [Ring::on_heap(2).unwrap(), Ring::on_heap(2).unwrap()];
        let senders = rings.clone().map(|ring| {
            let (mut producer, futex) = (ring.producer(), Arc::clone(&futex));
            loom::thread::spawn(move || send(&mut producer, Barriers::Fences, &futex, 1))
        });
        receive(&mut rings.map(|ring| ring.consumer()), &futex, 2);
        for sender in senders {
            sender.join().unwrap();
        }
    });
}

/// A producer that dies before its store number `stores`; the reaper rings in its place, or does not.
fn dying_producer(stores: u32, reaper_rings: bool) {
    let ring = Ring::on_heap(2).unwrap();
    let (mut producer, consumer) = (ring.producer(), ring.consumer());
    let futex = Futex::new();
    let (theirs, sleeper) = (Arc::clone(&futex), Arc::clone(&futex));
    let sender =
        loom::thread::spawn(move || live(stores, || send(&mut producer, Barriers::Fences, &theirs, 1)));
    let receiver = loom::thread::spawn(move || receive(&mut [consumer], &sleeper, 1));
    sender.join().unwrap();
    if stores < PUBLISHED {
        // Nothing came of it; so that the receiver ends, a successor sends.
        send(&mut ring.producer(), Barriers::Fences, &futex, 1);
    }
    if reaper_rings {
        ring.ring_for_the_dead();
        futex.wake();
    }
    receiver.join().unwrap();
}

/// Stores of a producer up to and with the one of its head: mark, turn, two words, head.
const PUBLISHED: u32 = 5;
/// And of its call: the word lowered, the system call.
const CALLED: u32 = PUBLISHED + 2;

#[test]
fn a_dead_producers_call_is_made_for_it() {
    let executions: u64 =
        (0..=CALLED).map(|stores| check("", Some(3), move || dying_producer(stores, true))).sum();
    println!("bell, producer dies at each of {} points: {executions} executions", CALLED + 1);
}

#[test]
#[should_panic(expected = "deadlock")]
fn the_model_sees_a_call_that_died_with_its_producer() {
    check("", Some(3), || dying_producer(PUBLISHED + 1, false));
}
