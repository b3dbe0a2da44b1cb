//! Nanoseconds a packet that the monitor takes, by number of flows. `cargo bench -p nf-monitor`.
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
#[path = "../src/settings.rs"]
mod settings;
#[path = "../src/table.rs"]
mod table;
#[path = "../src/timeouts.rs"]
mod timeouts;

use std::hint::black_box;
use std::time::Instant;

use keys::Keys;
use monitor::Monitor;
use onvm_lib::wire::{flow_hash, ipv4};
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

fn main() {
    for flows in [1, 16, 1000, 60_000, 1_000_000] {
        let (each, recorded) = (measure(flows, Keys::Connection), measure(flows, Keys::Netflow));
        let ratio = recorded / each;
        println!(
            "{flows:>8} flows: {each:6.1} ns a packet, {:6.1} Mpps; for export {ratio:.2} times that",
            1e3 / each
        );
    }
}
