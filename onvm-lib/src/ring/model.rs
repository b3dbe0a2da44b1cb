//! Models of the ring for the checker loom, which runs them in every order that their threads' atomic accesses can
//! have, and with every value that the memory model lets a load see. `scripts/model.sh` runs them.
//!
//! | Model | Says |
//! |---|---|
//! | here | nothing is lost, doubled or reordered; no slot and no packet is rewritten while it is read |
//! | [`bell`] | no wake-up is lost, not even when the producer dies before its call |
//! | [`death`] | release after forward: whatever store a node dies before, each packet has one fate |
//!
//! What they bound: capacities of 2 and 4, two to four entries, two or three preemptions of a thread at a time when
//! it could go on (the literature finds nearly all faults with two). What they cannot say: that the kernel's membarrier
//! is one, that a killed process's stores become visible in its program order, that compilers keep
//! `compiler_fence`; `tests/ring_processes.rs` kills real processes for that.
#![allow(unsafe_code)]

mod bell;
mod death;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use loom::cell::UnsafeCell;

use super::{Descriptor, Ring};

fn numbered(n: u32) -> Descriptor {
    Descriptor::new(n, 0, 0, 0).with_hash(n)
}

/// Checks a model, prints how many executions that took.
fn check(name: &str, preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) -> u64 {
    let executions = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&executions);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let n = executions.load(Ordering::Relaxed);
    if !name.is_empty() {
        println!("{name}: {n} executions");
    }
    n
}

/// The bytes of packets: the checker objects when two threads touch one without an order between them.
struct Packets(Vec<UnsafeCell<u32>>);

// SAFETY: the checker itself sees every access and fails the model when two are not ordered.
unsafe impl Sync for Packets {}
// SAFETY: as above.
unsafe impl Send for Packets {}

impl Packets {
    fn new(n: usize) -> Arc<Self> {
        Arc::new(Self((0..n).map(|_| UnsafeCell::new(0)).collect()))
    }

    fn write(&self, buffer: u32, value: u32) {
        // SAFETY: the checker watches, and the pointer is to a live cell.
        self.0[buffer as usize].with_mut(|bytes| unsafe { *bytes = value });
    }

    fn read(&self, buffer: u32) -> u32 {
        // SAFETY: as in write.
        self.0[buffer as usize].with(|bytes| unsafe { *bytes })
    }
}

/// Passes `count` entries through a ring of two, in bursts of up to `burst`; a buffer is used again as soon as the
/// slot that named it is.
fn queue(count: u32, burst: usize) {
    let ring = Ring::on_heap(2).unwrap();
    let packets = Packets::new(2);
    let (mut producer, mut consumer) = (ring.producer(), ring.consumer());
    let theirs = Arc::clone(&packets);
    let sender = loom::thread::spawn(move || {
        for n in 0..count {
            while producer.room(1) == 0 {
                loom::thread::yield_now();
            }
            theirs.write(n % 2, n);
            producer.push(1, Descriptor::new(n % 2, 0, 0, 0).with_hash(n)).unwrap();
            if n % 2 == 1 || burst == 1 || n + 1 == count || producer.room(1) == 0 {
                producer.publish();
            }
        }
    });
    let mut entries = vec![Descriptor::default(); burst];
    let mut next = 0;
    while next < count {
        let n = consumer.take(1, &mut entries).unwrap();
        for d in &entries[..n] {
            assert_eq!((d.hash(), d.buffer()), (next, next % 2));
            assert_eq!(packets.read(d.buffer()), next);
            next += 1;
        }
        consumer.release();
        if n == 0 {
            loom::thread::yield_now();
        }
    }
    sender.join().unwrap();
    assert_eq!(ring.occupancy(), 0);
}

#[test]
fn a_queue_of_single_entries() {
    check("queue, 4 single entries", Some(3), || queue(4, 1));
}

#[test]
fn a_queue_of_bursts() {
    check("queue, 4 entries in bursts of 2", Some(3), || queue(4, 2));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn the_model_sees_a_packet_that_is_touched_after_release() {
    check("", Some(3), || {
        let ring = Ring::on_heap(2).unwrap();
        let packets = Packets::new(1);
        let (mut producer, mut consumer) = (ring.producer(), ring.consumer());
        producer.push(1, numbered(0)).unwrap();
        producer.publish();
        let theirs = Arc::clone(&packets);
        let reader = loom::thread::spawn(move || {
            consumer.take(1, &mut [Descriptor::default(); 1]).unwrap();
            consumer.release();
            theirs.read(0);
        });
        if producer.room(2) == 2 {
            packets.write(0, 1);
        }
        reader.join().unwrap();
    });
}
