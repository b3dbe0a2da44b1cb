//! What a ring costs a descriptor, and why a descriptor has 16 bytes and not 32; all in one run.
//! `cargo bench -p onvm-lib --bench ring`.
//!
//! Two threads: a burst is pushed and published by one, taken and released by the other, as nodes do. Sixteen and
//! thirty-two bytes are compared over a minimal ring of this file's own, alternately, so that nothing but the size
//! differs; the platform's ring stands beside it.

#![allow(clippy::cast_possible_truncation, reason = "bursts and rings are small")]

use std::cell::UnsafeCell;
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use onvm_lib::ring::{Descriptor, Ring};

const CAPACITY: u32 = 4096;
const BURST: usize = 64;
const ROUNDS: usize = 7;
const TIME: Duration = Duration::from_millis(200);

#[repr(align(128))]
struct Line(AtomicU32);

/// The plainest ring of entries of any size.
struct Plain<E> {
    head: Line,
    tail: Line,
    slots: Box<[UnsafeCell<E>]>,
}

// SAFETY: a slot is written by the producer alone until it is published, and read by the consumer alone until it is
// released; head and tail order that.
unsafe impl<E: Send> Sync for Plain<E> {}

impl<E: Copy + Default> Plain<E> {
    fn new() -> Self {
        let line = || Line(AtomicU32::new(0));
        Self { head: line(), tail: line(), slots: (0..CAPACITY).map(|_| UnsafeCell::default()).collect() }
    }

    fn slot(&self, position: u32) -> *mut E {
        self.slots[(position & (CAPACITY - 1)) as usize].get()
    }

    fn produce(&self, stop: &AtomicBool) {
        let (mut head, mut tail, burst) = (0u32, 0u32, [E::default(); BURST]);
        while !stop.load(Ordering::Relaxed) {
            if CAPACITY - head.wrapping_sub(tail) < BURST as u32 {
                tail = self.tail.0.load(Ordering::Acquire);
                spin_loop();
                continue;
            }
            for entry in black_box(&burst) {
                // SAFETY: there is room, so the slot is the producer's.
                unsafe { self.slot(head).write(*entry) };
                head = head.wrapping_add(1);
            }
            self.head.0.store(head, Ordering::Release);
        }
    }

    fn consume(&self) -> u64 {
        let (mut tail, mut burst, mut n) = (0u32, [E::default(); BURST], 0);
        let start = Instant::now();
        while start.elapsed() < TIME {
            for _ in 0..64 {
                if self.head.0.load(Ordering::Acquire).wrapping_sub(tail) < BURST as u32 {
                    spin_loop();
                    continue;
                }
                for entry in &mut burst {
                    // SAFETY: published and not released, so the slot is the consumer's.
                    *entry = unsafe { self.slot(tail).read() };
                    tail = tail.wrapping_add(1);
                }
                black_box(&burst);
                self.tail.0.store(tail, Ordering::Release);
                n += BURST as u64;
            }
        }
        n
    }
}

/// Keeps this thread on one of two processors: left alone, both may share one.
fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        eprintln!("cannot stay on processor {cpu}: {error}");
    }
}

/// Nanoseconds an entry, over a plain ring.
fn plain<E: Copy + Default + Send>() -> f64 {
    let (ring, stop) = (Plain::<E>::new(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(0);
            ring.produce(&stop);
        });
        pin(1);
        let n = ring.consume();
        stop.store(true, Ordering::Relaxed);
        each(n)
    })
}

/// Nanoseconds a descriptor, over the platform's ring.
fn platform() -> f64 {
    let ring = Ring::on_heap(CAPACITY).expect("a power of two");
    let (mut producer, mut consumer) = (ring.producer(), ring.consumer());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(0);
            let (burst, mut turn) = ([Descriptor::new(1, 2, 192, 64); BURST], 1);
            while !stop.load(Ordering::Relaxed) {
                if producer.room(BURST as u32) < BURST as u32 {
                    spin_loop();
                    continue;
                }
                turn += 1;
                for descriptor in black_box(&burst) {
                    let pushed = producer.push(turn, *descriptor);
                    debug_assert!(pushed.is_ok());
                }
                producer.publish();
            }
        });
        pin(1);
        let (mut burst, mut n, mut turn) = ([Descriptor::default(); BURST], 0, 0);
        let start = Instant::now();
        while start.elapsed() < TIME {
            for _ in 0..64 {
                turn += 1;
                let taken = consumer.take(turn, &mut burst).expect("an honest producer");
                black_box(&burst);
                consumer.release();
                n += taken as u64;
                if taken == 0 {
                    spin_loop();
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        each(n)
    })
}

/// Nanoseconds a descriptor pushed and taken by one thread: the instructions alone.
fn one_thread() -> f64 {
    let ring = Ring::on_heap(CAPACITY).expect("a power of two");
    let (mut producer, mut consumer) = (ring.producer(), ring.consumer());
    let (out, mut back) = ([Descriptor::new(1, 2, 192, 64); BURST], [Descriptor::default(); BURST]);
    let (start, mut n, mut turn) = (Instant::now(), 0, 0);
    while start.elapsed() < TIME {
        for _ in 0..64 {
            turn += 1;
            for descriptor in black_box(&out) {
                let pushed = producer.push(turn, *descriptor);
                debug_assert!(pushed.is_ok());
            }
            producer.publish();
            n += consumer.take(turn, &mut back).expect("an honest producer") as u64;
            black_box(&back);
            consumer.release();
        }
    }
    each(n)
}

fn each(n: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let n = n.max(1) as f64;
    TIME.as_secs_f64() * 1e9 / n
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn main() {
    // Where it is allowed, the figures are less disturbed by what else runs.
    let _ = rustix::process::setpriority_process(None, -20);
    type Measure = fn() -> f64;
    let contenders: [(&str, Measure); 5] = [
        ("plain ring, 16 bytes", plain::<[u64; 2]>),
        ("plain ring, 32 bytes", plain::<[u64; 4]>),
        ("plain ring, 8 bytes", plain::<u64>),
        ("platform's ring, 16 bytes", platform),
        ("platform's ring, one thread", one_thread),
    ];
    let mut samples: Vec<Vec<f64>> = vec![Vec::new(); contenders.len()];
    for _ in 0..ROUNDS {
        for ((_, measure), samples) in contenders.iter().zip(&mut samples) {
            samples.push(measure());
        }
    }
    let medians: Vec<f64> = samples.iter_mut().map(|s| median(s)).collect();
    println!("medians of {ROUNDS} alternating rounds, bursts of {BURST}\n");
    println!("{:<30} {:>8} {:>16}", "", "ns each", "to plain 16 B");
    for ((name, _), ns) in contenders.iter().zip(&medians) {
        println!("{name:<30} {ns:>8.2} {:>15.2}x", ns / medians[0]);
    }
}
