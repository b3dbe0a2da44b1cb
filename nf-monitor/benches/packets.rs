//! Nanoseconds a packet that the monitor takes, by number of flows, and how long packets wait at the longest for what is done
//! between bursts. `cargo bench -p nf-monitor`.
//!
//! Frames lie one after the other in memory, as large as the buffers of a pool are far apart, so that with
//! many flows the cache misses are those of real traffic.
#![allow(
    dead_code,
    unused_imports,
    reason = "the program's rooms are included, the report and their tests are not run"
)]

#[path = "../src/application/mod.rs"]
mod application;
#[path = "../src/ended.rs"]
mod ended;
#[path = "../src/export/mod.rs"]
mod export;
#[path = "../src/flow.rs"]
mod flow;
#[path = "../src/heavy/mod.rs"]
mod heavy;
#[path = "../src/keys.rs"]
mod keys;
#[path = "../src/monitor.rs"]
mod monitor;
#[path = "../src/protocols.rs"]
mod protocols;
#[path = "../src/rates.rs"]
mod rates;
#[path = "../src/records/mod.rs"]
mod records;
#[path = "../src/report/mod.rs"]
mod report;
#[path = "../src/reporter.rs"]
mod reporter;
#[path = "../src/settings.rs"]
mod settings;
#[path = "../src/survey.rs"]
mod survey;
#[path = "../src/table.rs"]
mod table;
#[path = "../src/timeouts.rs"]
mod timeouts;

use std::hint::black_box;
use std::time::{Duration, Instant};

use keys::Keys;
use monitor::Monitor;
use onvm_lib::wire::{flow_hash, ipv4};
use records::{Outputs, Wanted};
use report::Picked;
use reporter::Reporter;
use settings::Settings;

const PACKETS: usize = 4_000_000;
/// Packets that are in flight, each in a buffer of its own.
const BUFFERS: usize = 4096;
/// Packets of a burst.
const BURST: usize = 32;

/// A TCP segment of a flow.
fn frame(flow: u32) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    bytes[14] = 0x45;
    let [a, b, c, d] = flow.to_be_bytes();
    let mut ip = ipv4::Packet::new_checked(&mut bytes[14..]).expect("a header of 20 bytes");
    ip.set_total_len(50);
    ip.set_ttl(64);
    ip.set_protocol(6);
    ip.set_src([10, a, b, c].into());
    ip.set_dst([10, 0, 0, 1].into());
    ip.fill_checksum();
    bytes[34..38].copy_from_slice(&[4, d, 0, 80]);
    bytes[46..48].copy_from_slice(&[0x50, 0x10]);
    bytes
}

fn measure(flows: u32, keys: Keys) -> f64 {
    let mut monitor = Monitor::new(Settings { max_flows: 1 << 20, keys, ..Settings::default() });
    let frames: Vec<[u8; 64]> = (0..flows.max(64)).map(|n| frame(n % flows)).collect();
    let hashes: Vec<u32> = frames.iter().map(|frame| flow_hash(frame)).collect();
    let mut best = f64::INFINITY;
    for round in 0..5 {
        let start = Instant::now();
        // An odd stride visits all flows, and not in the order of memory.
        let (stride, mut at) = (7919 % frames.len(), 0);
        let mut burst = [0; BURST];
        for n in 0..PACKETS / BURST {
            let now_ns = 1 + round * 1_000_000_000 + (n * BURST / BUFFERS) as u64;
            for place in &mut burst {
                *place = at;
                at += stride;
                if at >= frames.len() {
                    at -= frames.len();
                }
            }
            monitor.expect(burst.iter().map(|at| hashes[*at]));
            for at in burst {
                monitor.packet(black_box(&frames[at]), 64, hashes[at], now_ns);
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "exact at this size")]
        let each = start.elapsed().as_secs_f64() * 1e9 / PACKETS as f64;
        best = best.min(each);
    }
    assert_eq!(monitor.table.counts.refused, 0);
    black_box(&monitor.table);
    best
}

/// Flows of the pauses: as many as there are by default, each of a host of its own.
const MANY: u32 = 65_536;
/// The clock, in nanoseconds, when they have come.
const NOW: u64 = 1_000_000_000;

/// Outputs of which none is wanted.
fn no_outputs() -> Outputs {
    let (keys, octets) = (Keys::Connection, export::Octets::Ip);
    let shape = export::Shape { keys, octets, biflow: false, applications: false, rate: 0, patient: true };
    let wanted = Wanted {
        exports: Vec::new(),
        lines: Vec::new(),
        shape,
        domain: 1,
        fixed_domain: false,
        other: false,
    };
    Outputs::open(&wanted).expect("nothing to open")
}

fn filled(frames: &[[u8; 64]]) -> Monitor {
    let mut monitor = Monitor::new(Settings::default());
    frames.iter().for_each(|frame| monitor.packet(frame, 64, flow_hash(frame), NOW));
    monitor
}

/// Processor time of this thread: others use the processor, too.
fn used() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap_or_default()
}

/// The time of one thing, if it is longer than all before.
fn longest<T>(so_far: &mut Duration, what: impl FnOnce() -> T) -> T {
    let start = used();
    let done = what();
    *so_far = (used() - start).max(*so_far);
    done
}

/// Longest pauses of a monitor of which a report is asked for at once, and of one whose reporter works beside it: a burst with
/// what is done after it, a tick, a report.
fn pauses(frames: &[[u8; 64]]) -> [Duration; 4] {
    let outputs = no_outputs();
    let mut monitor = filled(frames);
    let (mut at_once, mut burst, mut tick, mut asked) = Default::default();
    longest(&mut at_once, || report::of(&monitor, &Picked::of(&monitor), &outputs));
    let mut reporter = Reporter::start(monitor.settings, Duration::from_millis(10)).expect("a thread");
    let mut reports = 0;
    for (n, burst_of) in frames.chunks(BURST).cycle().enumerate() {
        let now_ns = NOW + n as u64;
        longest(&mut burst, || {
            burst_of.iter().for_each(|frame| monitor.packet(frame, 64, flow_hash(frame), now_ns));
            monitor.step(now_ns);
            reporter.step(&mut monitor);
        });
        if n % 64 == 0 {
            longest(&mut tick, || {
                monitor.tick(now_ns);
                reporter.tick(&mut monitor);
            });
        }
        if n % 1024 == 1023
            && let Some((picked, _)) = reporter.latest()
        {
            longest(&mut asked, || report::of(&monitor, picked, &outputs));
            reports += 1;
            if reports == 8 {
                return [at_once, burst, tick, asked];
            }
        }
    }
    unreachable!("frames come for ever")
}

/// Longest pauses when all flows are over: all that a tick may look at, and what a burst does.
fn ends(frames: &[[u8; 64]]) -> [Duration; 2] {
    let over = NOW + 100_000_000_000;
    let (mut monitor, mut at_once, mut part) = (filled(frames), Duration::ZERO, Duration::ZERO);
    while monitor.table.len() > 0 {
        longest(&mut at_once, || monitor.table.look(table::SWEEP, over));
    }
    monitor = filled(frames);
    while monitor.table.len() > 0 {
        monitor.tick(over);
        (0..32).for_each(|_| longest(&mut part, || monitor.step(over)));
    }
    [at_once, part]
}

/// The longest pauses; of several runs the shortest, since others use the processor too.
fn print_pauses() {
    let frames: Vec<[u8; 64]> = (0..MANY).map(|n| frame(n << 8)).collect();
    let least = |runs: &dyn Fn() -> Vec<Duration>| {
        let mut all = (0..7).map(|_| runs());
        let first = all.next().unwrap_or_default();
        all.fold(first, |least, run| least.into_iter().zip(run).map(|(a, b)| a.min(b)).collect::<Vec<_>>())
    };
    let told = |name: &str, took: Duration| println!("{name:<60} {:>9.1} µs", took.as_secs_f64() * 1e6);
    println!("longest pauses, {MANY} flows and hosts");
    let of_reports = least(&|| pauses(&frames).to_vec());
    for (name, took) in
        ["a report at once", "a burst, and a part of a survey", "a tick", "a report of a survey"]
            .iter()
            .zip(of_reports)
    {
        told(name, took);
    }
    let of_ends = least(&|| ends(&frames).to_vec());
    for (name, took) in ["flows that are over, as many as a tick takes", "flows that are over, after a burst"]
        .iter()
        .zip(of_ends)
    {
        told(name, took);
    }
}

fn main() {
    print_pauses();
    for flows in [1, 16, 1000, 60_000, 1_000_000] {
        let (each, recorded) = (measure(flows, Keys::Connection), measure(flows, Keys::Netflow));
        let ratio = recorded / each;
        println!(
            "{flows:>8} flows: {each:6.1} ns a packet, {:6.1} Mpps; for export {ratio:.2} times that",
            1e3 / each
        );
    }
}
