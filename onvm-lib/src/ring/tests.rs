//! Property tests: any sequence of operations, against a plain queue as the oracle. And threads, for the sanitizers.
#![allow(unsafe_code)]

use std::collections::VecDeque;

use proptest::prelude::*;

use super::{Descriptor, Overrun, Ring};

#[derive(Clone, Debug)]
enum Step {
    Push(u8),
    Publish,
    Take(u8),
    Release,
    Die,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1u8..20).prop_map(Step::Push),
        Just(Step::Publish),
        (1u8..20).prop_map(Step::Take),
        Just(Step::Release),
        Just(Step::Die),
    ]
}

fn numbered(n: u32) -> Descriptor {
    Descriptor::new(n, 0, 0, 0).with_hash(n)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    /// What is pushed and published comes out once, in order; what a dead consumer left is all there.
    #[test]
    fn behaves_like_a_queue(steps in prop::collection::vec(step(), 1..200), bits in 1u32..6) {
        let ring = Ring::on_heap(1 << bits).unwrap();
        let (mut producer, mut consumer) = (ring.producer(), ring.consumer());
        let (mut private, mut visible, mut taken) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        let (mut next, mut turn) = (0, 1);
        for step in steps {
            match step {
                Step::Push(n) => for _ in 0..n {
                    let in_ring = private.len() + visible.len() + taken.len();
                    match producer.push(turn, numbered(next)) {
                        Ok(()) => { private.push_back(next); next += 1; }
                        Err(back) => {
                            prop_assert_eq!(back, numbered(next));
                            prop_assert_eq!(in_ring, ring.capacity() as usize);
                        }
                    }
                },
                Step::Publish => {
                    prop_assert_eq!(producer.publish(), !private.is_empty());
                    visible.append(&mut private);
                }
                Step::Take(n) => {
                    let mut burst = vec![Descriptor::default(); usize::from(n)];
                    let got = consumer.take(turn, &mut burst).unwrap();
                    prop_assert_eq!(got, visible.len().min(usize::from(n)));
                    for d in &burst[..got] {
                        let want = visible.pop_front().unwrap();
                        prop_assert_eq!(*d, numbered(want));
                        taken.push_back(want);
                    }
                }
                Step::Release => { consumer.release(); taken.clear(); turn += 1; }
                Step::Die => {
                    let left = ring.remains().unwrap();
                    let hand: Vec<u32> = left.in_hand.iter().map(|d| d.hash()).collect();
                    let waiting: Vec<u32> = left.waiting.iter().map(|d| d.hash()).collect();
                    prop_assert_eq!(&hand, &taken.iter().copied().collect::<Vec<_>>());
                    prop_assert_eq!(&waiting, &visible.iter().copied().collect::<Vec<_>>());
                    consumer = ring.inherit(&left);
                    visible.clear();
                    taken.clear();
                    prop_assert_eq!(ring.occupancy(), 0);
                }
            }
        }
    }

    /// Whatever a peer writes into the positions, nothing panics and nobody reads more than the ring holds.
    #[test]
    fn wild_positions_are_refused(head: u32, mark: u32, tail: u32, taken: u32, turn: u32) {
        let ring = Ring::on_heap(8).unwrap();
        let (mut producer, mut consumer) = (ring.producer(), ring.consumer());
        ring.scribble(head, mark, tail, taken, turn);
        let mut burst = [Descriptor::default(); 32];
        match consumer.take(1, &mut burst) {
            Ok(n) => prop_assert!(n <= 8),
            Err(_) => prop_assert!(head > 8),
        }
        prop_assert!(producer.room(1) <= 8);
        prop_assert!(ring.entries().len() <= 8 && ring.occupancy() <= 8);
        prop_assert!(ring.passed_on(turn).is_ok_and(|d| d.len() <= 8) || head.wrapping_sub(mark) > 8);
        if let Ok(left) = ring.remains() {
            prop_assert!(left.in_hand.len() + left.waiting.len() <= 8);
        }
    }
}

#[test]
fn a_turn_says_what_was_passed_on() {
    let ring = Ring::on_heap(8).unwrap();
    let mut producer = ring.producer();
    let mut consumer = ring.consumer();
    producer.push(1, numbered(1)).unwrap();
    assert!(ring.passed_on(1).unwrap().is_empty(), "pushed but not published");
    producer.publish();
    assert_eq!(ring.passed_on(1).unwrap(), [numbered(1)]);
    producer.push(2, numbered(2)).unwrap();
    assert!(ring.passed_on(2).unwrap().is_empty());
    producer.publish();
    producer.push(2, numbered(3)).unwrap();
    producer.publish();
    assert_eq!(ring.passed_on(2).unwrap(), [numbered(2), numbered(3)], "two publishes of one turn");
    assert!(ring.passed_on(1).unwrap().is_empty(), "an earlier turn says nothing about this one");
    let mut burst = [Descriptor::default(); 8];
    assert_eq!(consumer.take(9, &mut burst), Ok(3));
    consumer.release();
    assert_eq!(ring.passed_on(2).unwrap().len(), 2, "also after the consumer took them");
}

#[test]
fn a_turn_that_overran_says_so() {
    let ring = Ring::on_heap(4).unwrap();
    let (mut producer, mut consumer) = (ring.producer(), ring.consumer());
    let mut burst = [Descriptor::default(); 4];
    producer.push(1, numbered(100)).unwrap();
    producer.publish();
    for n in 0..12 {
        assert_eq!(ring.passed_on(2).map(|d| d.len()), if n < 5 { Ok(n) } else { Err(Overrun) });
        consumer.take(1, &mut burst).unwrap();
        consumer.release();
        producer.push(2, numbered(200)).unwrap();
        if n == 4 {
            // Not even published, but its first entry is gone.
            assert_eq!(ring.passed_on(2), Err(Overrun));
        }
        producer.publish();
    }
    consumer.take(1, &mut burst).unwrap();
    consumer.release();
    producer.push(3, numbered(300)).unwrap();
    producer.publish();
    assert_eq!(ring.passed_on(3).unwrap(), [numbered(300)], "the next turn is told apart again");
}

#[test]
fn a_successor_has_passed_on_nothing_in_its_predecessors_turn() {
    let ring = Ring::on_heap(4).unwrap();
    let mut first = ring.producer();
    first.push(1, numbered(1)).unwrap();
    first.publish();
    assert_eq!(ring.passed_on(1).unwrap(), [numbered(1)]);
    drop(first);
    // It counts its turns anew, and is in the one that its predecessor died in.
    let mut successor = ring.producer();
    assert_eq!(ring.passed_on(1).unwrap(), []);
    successor.push(1, numbered(2)).unwrap();
    successor.publish();
    assert_eq!(ring.passed_on(1).unwrap(), [numbered(2)]);
}

#[test]
fn a_sleeper_is_woken_for_a_producer_that_died_before_its_call() {
    use super::bell::{Attention, Barriers, sleep};
    let ring = Ring::create("test", 4).unwrap();
    let mut consumer = ring.consumer();
    consumer.arm();
    let sleeper = std::thread::spawn(move || {
        let start = std::time::Instant::now();
        let limit = std::time::Duration::from_secs(10);
        sleep(std::iter::once(&consumer), &Attention::default(), limit);
        assert_eq!(consumer.available(1), Ok(1));
        start.elapsed()
    });
    std::thread::sleep(std::time::Duration::from_millis(20));
    let mut producer = ring.producer();
    producer.push(1, numbered(1)).unwrap();
    producer.publish();
    assert!(producer.rings(Barriers::Fences));
    // It dies here.
    ring.wake_consumer();
    assert!(sleeper.join().unwrap() < std::time::Duration::from_secs(9));
}

#[test]
fn two_processes_worth_of_threads_lose_nothing() {
    const COUNT: u32 = 300_000;
    let ring = Ring::create("test", 64).unwrap();
    let (mut producer, mut consumer) = (ring.producer(), ring.consumer());
    let sender = std::thread::spawn(move || {
        let mut next = 0;
        while next < COUNT {
            let burst = (next + 1 + next % 32).min(COUNT);
            while next < burst && producer.push(1, numbered(next & 0xff_ffff)).is_ok() {
                next += 1;
            }
            if !producer.publish() {
                std::thread::yield_now();
            }
        }
    });
    let mut want = 0;
    let mut burst = [Descriptor::default(); 32];
    while want < COUNT {
        let n = consumer.take(1, &mut burst).unwrap();
        for d in &burst[..n] {
            assert_eq!(d.hash(), want);
            want += 1;
        }
        consumer.release();
        if n == 0 {
            std::thread::yield_now();
        }
    }
    sender.join().unwrap();
    assert_eq!(ring.occupancy(), 0);
}

/// Bytes that belong to whoever holds the descriptor that names them.
struct Packets(Vec<std::cell::UnsafeCell<[u32; 16]>>);

// SAFETY: the test below touches a packet only while it holds the descriptor; ThreadSanitizer checks that the ring
// orders the two threads' accesses.
unsafe impl Sync for Packets {}

#[test]
fn bytes_travel_with_their_descriptors() {
    const COUNT: u32 = 20_000;
    const CAPACITY: u32 = 16;
    let ring = Ring::create("test", CAPACITY).unwrap();
    let (mut producer, mut consumer) = (ring.producer(), ring.consumer());
    let packets = std::sync::Arc::new(Packets((0..CAPACITY).map(|_| [0; 16].into()).collect()));
    let theirs = std::sync::Arc::clone(&packets);
    let sender = std::thread::spawn(move || {
        for n in 0..COUNT {
            while producer.room(1) == 0 {
                producer.publish();
                std::thread::yield_now();
            }
            // SAFETY: there is room, so the slot that named this buffer has been released.
            unsafe { *theirs.0[(n % CAPACITY) as usize].get() = [n; 16] };
            producer.push(n, Descriptor::new(n % CAPACITY, 0, 0, 0).with_hash(n)).unwrap();
            if n % 5 == 4 {
                producer.publish();
            }
        }
        producer.publish();
    });
    let mut burst = [Descriptor::default(); 8];
    let mut want = 0;
    while want < COUNT {
        let n = consumer.take(1, &mut burst).unwrap();
        for d in &burst[..n] {
            // SAFETY: taken and not yet released.
            assert_eq!(unsafe { *packets.0[d.buffer() as usize].get() }, [want; 16]);
            want += 1;
        }
        consumer.release();
        if n == 0 {
            std::thread::yield_now();
        }
    }
    sender.join().unwrap();
}

#[test]
fn a_sleeper_is_woken() {
    use super::bell::{Attention, Barriers, sleep};
    let ring = Ring::create("test", 64).unwrap();
    let (mut producer, mut consumer) = (ring.producer(), ring.consumer());
    let barriers = Barriers::register();
    let sleeper = std::thread::spawn(move || {
        let attention = Attention::default();
        let mut burst = [Descriptor::default(); 4];
        let mut seen = 0;
        while seen < 100 {
            let n = consumer.take(1, &mut burst).unwrap();
            consumer.release();
            seen += n;
            if n > 0 {
                continue;
            }
            consumer.arm();
            let _ = barriers.before_sleep();
            if consumer.available(1) == Ok(0) {
                // Ten seconds is a hang: the test would then fail on its own time limit below.
                sleep(std::iter::once(&consumer), &attention, std::time::Duration::from_secs(10));
            }
            consumer.disarm();
        }
    });
    let start = std::time::Instant::now();
    for i in 0..100 {
        producer.push(i, numbered(i)).unwrap();
        producer.publish();
        if producer.rings(barriers) {
            producer.wake_sleeper();
        }
        std::thread::sleep(std::time::Duration::from_millis(u64::from(i % 3)));
    }
    sleeper.join().unwrap();
    assert!(start.elapsed() < std::time::Duration::from_secs(9), "a wake-up was lost");
}
