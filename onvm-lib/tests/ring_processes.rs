//! Real processes on the rings, killed at random moments: what the models of `ring/model` cannot show.
//!
//! ```text
//!   this process ──A──▶ child ──B──▶ this process
//!                         └────C──▶
//! ```
//! The child passes packets on, as a node does, until SIGKILL comes. Then this process is the reaper. B and C live
//! as long as the test, so each child continues where the dead one stopped; A is made anew for each, and what waited
//! in the old one goes into it first.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use onvm_lib::ring::{Consumer, Descriptor, Producer, Ring};
use rustix::fs::{Mode, OFlags};

const CAPACITY: u32 = 64;
const BURST: u32 = 16;
const DEATHS: u32 = 100;
/// Names the descriptors of A, B and C to the child.
const ROLE: &str = "ONVM_TEST_RING_CHILD";

fn numbered(n: u32) -> Descriptor {
    Descriptor::new(n % onvm_lib::ring::MAX_BUFFERS, 0, 0, 0).with_hash(n)
}

/// Not a test: the child's body, when it is started as one.
#[test]
fn child() {
    let Ok(fds) = std::env::var(ROLE) else { return };
    // Also when the test fails: nobody else would end the loop below.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    let rings: Vec<Ring> = fds
        .split(',')
        .map(|fd| {
            let path = format!("/proc/self/fd/{fd}");
            let own = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
            Ring::open("child", own, CAPACITY).unwrap()
        })
        .collect();
    let mut input = rings[0].consumer();
    let mut outputs = [rings[1].producer(), rings[2].producer()];
    let mut turn = 0;
    loop {
        turn += 1;
        // Each output has room for the whole burst, so the child never waits with packets in its hands.
        while outputs.iter_mut().any(|o| o.room(BURST) < BURST) {
            std::thread::yield_now();
        }
        let mut burst = [Descriptor::default(); BURST as usize];
        let n = input.take(turn, &mut burst).unwrap();
        linger(n);
        for d in &burst[..n] {
            outputs[d.hash() as usize % 2].push(turn, d.with_hop(d.hop() + 1)).unwrap();
            linger(1);
        }
        for output in &mut outputs {
            output.publish();
            linger(n);
        }
        input.release();
        if n == 0 {
            std::thread::yield_now();
        }
    }
}

/// Makes the moments between two steps long enough for death to come in each of them.
fn linger(packets: usize) {
    for _ in 0..packets * 50 {
        std::hint::spin_loop();
    }
}

/// A second descriptor of a ring, which a child process inherits.
fn inheritable(ring: &Ring) -> OwnedFd {
    rustix::io::dup(ring.region().unwrap().as_fd()).unwrap()
}

fn start(rings: [&Ring; 3]) -> Child {
    let fds = rings.map(inheritable);
    let names: Vec<String> = fds.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--test-threads=1"])
        .env(ROLE, names.join(","))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// What has become of every packet so far.
#[derive(Default)]
struct Account {
    sent: u32,
    fate: HashMap<u32, &'static str>,
    last_out: [Option<u32>; 2],
    reaped: u32,
    /// Deaths with packets in hand: all, and those in which some of them had been passed on.
    in_hand: u32,
    in_between: u32,
}

impl Account {
    fn settle(&mut self, number: u32, fate: &'static str) {
        assert!(number < self.sent, "{number} was never sent");
        let before = self.fate.insert(number, fate);
        assert_eq!(before, None, "{number} came to two ends, the second is {fate}");
    }

    fn collect(&mut self, way: usize, consumer: &mut Consumer) -> usize {
        let mut burst = [Descriptor::default(); BURST as usize];
        let n = consumer.take(1, &mut burst).unwrap();
        for d in &burst[..n] {
            let number = d.hash();
            assert_eq!(number as usize % 2, way, "on the wrong ring");
            assert!(self.last_out[way] < Some(number), "{number} after {:?}", self.last_out[way]);
            self.last_out[way] = Some(number);
            self.settle(number, "delivered");
        }
        consumer.release();
        n
    }

    fn send(&mut self, producer: &mut Producer) {
        for _ in 0..BURST {
            if producer.push(1, numbered(self.sent)).is_err() {
                break;
            }
            self.sent += 1;
        }
        producer.publish();
    }
}

/// Reads a dead child's rings; returns what its successor is to get. A child that only looks at packets
/// (`read_only`) has those it had in hand given out again.
fn reap(account: &mut Account, rings: [&Ring; 3], read_only: bool) -> Vec<Descriptor> {
    let left = rings[0].remains().unwrap();
    let mut passed_on = rings[1].passed_on(left.turn).unwrap();
    passed_on.extend(rings[2].passed_on(left.turn).unwrap());
    let mut again = Vec::new();
    let mut delivered = 0;
    for d in &left.in_hand {
        if passed_on.iter().any(|p| p.same_holding(*d)) {
            delivered += 1;
        } else if read_only {
            again.push(*d);
        } else {
            account.settle(d.hash(), "reaped");
            account.reaped += 1;
        }
    }
    account.in_hand += u32::from(!left.in_hand.is_empty());
    account.in_between += u32::from(delivered > 0);
    again.extend(&left.waiting);
    again
}

/// Numbers that look random, the same in every run.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn a_hundred_killed_processes_lose_and_double_nothing() {
    let [b, c] = ["b", "c"].map(|name| Ring::create(name, CAPACITY).unwrap());
    let mut ends = [b.consumer(), c.consumer()];
    let mut account = Account::default();
    let mut again: Vec<Descriptor> = Vec::new();
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    for death in 0..DEATHS {
        let a = Ring::create("a", CAPACITY).unwrap();
        let mut upstream = a.producer();
        for d in again.drain(..) {
            upstream.push(1, d).unwrap();
        }
        upstream.publish();
        let mut child = start([&a, &b, &c]);
        let before = account.fate.len();
        let begun = Instant::now();
        let mut end = None;
        // The child's life is counted from its first packet: until then it starts.
        while end.is_none_or(|end| Instant::now() < end) {
            account.send(&mut upstream);
            for (way, consumer) in ends.iter_mut().enumerate() {
                account.collect(way, consumer);
            }
            if end.is_none() && account.fate.len() > before {
                end = Some(Instant::now() + Duration::from_nanos(next(&mut seed) % 2_000_000));
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "the child does not work");
        }
        child.kill().unwrap();
        // Gone, not merely told to go: only then are its words its last.
        child.wait().unwrap();
        again = reap(&mut account, [&a, &b, &c], death % 2 == 1);
    }
    for (way, consumer) in ends.iter_mut().enumerate() {
        while account.collect(way, consumer) > 0 {}
    }
    for d in again {
        account.settle(d.hash(), "waiting");
    }
    assert_eq!(account.fate.len(), account.sent as usize, "packets are missing");
    println!(
        "{} packets, {} reaped; {DEATHS} deaths, {} with packets in hand, {} of these after a publish",
        account.sent, account.reaped, account.in_hand, account.in_between
    );
    assert!(account.in_hand > 0 && account.in_between > 0, "the deaths came at no moment of interest");
}
