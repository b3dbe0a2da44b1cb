//! The flow table with values of 80 bytes: look-ups and new flows a second, and memory. `cargo bench -p onvm-lib
//! --bench flow_table`. Times are the best of five rounds of one run; compare columns, not runs.

use std::hint::black_box;
use std::time::Instant;

use onvm_lib::flow_table::{FlowTable, Guess, Inserted};
use onvm_lib::wire::FlowKey;

type Value = [u64; 10];
const BURST: usize = 32;
const LOOK_UPS: usize = 4_000_000;

fn flow(n: usize) -> (u32, FlowKey) {
    let n = u32::try_from(n).expect("few flows");
    let key = FlowKey::v4((0x0a00_0000 + (n >> 4)).into(), 0xc0a8_0101.into(), 1024 + (n & 15) as u16, 80, 6);
    (key.hash32(), key)
}

/// The oldest goes first.
#[allow(clippy::unnecessary_wraps, reason = "a rank may be none")]
fn rank(_: &FlowKey, value: &Value) -> Option<u64> {
    Some(value[0])
}

#[allow(clippy::cast_precision_loss, reason = "exact at this size")]
fn millions(n: usize, start: Instant) -> f64 {
    n as f64 / start.elapsed().as_secs_f64() / 1e6
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    pages.and_then(|text| text.split(' ').nth(1)?.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn fill(table: &mut FlowTable<Value>, flows: &[(u32, FlowKey)]) -> usize {
    let mut evicted = 0;
    for (n, (hash, key)) in (1..).zip(flows) {
        evicted += usize::from(table.insert(*hash, *key, [n; 10], rank) != Inserted::New);
    }
    evicted
}

/// Look-ups one by one, and in bursts by three passes.
fn look_up(table: &mut FlowTable<Value>, flows: &[(u32, FlowKey)]) -> (f64, f64) {
    let (mut single, mut burst) = (0.0f64, 0.0f64);
    // In no order, as packets come.
    let order: Vec<usize> = (0..LOOK_UPS).map(|n| n.wrapping_mul(7_368_787) % flows.len()).collect();
    let packets: Vec<(u32, FlowKey)> = order.iter().map(|n| flows[*n]).collect();
    for _ in 0..5 {
        let start = Instant::now();
        for (hash, key) in &packets {
            if let Some(value) = table.find(*hash, key) {
                value[1] += 1;
            }
        }
        single = single.max(millions(LOOK_UPS, start));
        let start = Instant::now();
        for packets in packets.chunks(BURST) {
            let (mut hashes, mut guesses) = ([0; BURST], [Guess::NONE; BURST]);
            packets.iter().zip(&mut hashes).for_each(|((hash, _), to)| *to = *hash);
            table.locate(&hashes, &mut guesses);
            table.touch(&guesses);
            for ((hash, key), guess) in packets.iter().zip(guesses) {
                if let Some(value) = table.find_at(guess, *hash, key) {
                    value[1] += 1;
                }
            }
        }
        burst = burst.max(millions(LOOK_UPS, start));
    }
    black_box(&table);
    (single, burst)
}

fn main() {
    println!("   flows   one by one   in bursts   ratio   new flows   in a full table (millions a second)");
    for most in [1000, 60_000, 1_000_000] {
        let flows: Vec<(u32, FlowKey)> = (0..2 * most).map(flow).collect();
        let before = resident();
        let mut table = FlowTable::new(most);
        let start = Instant::now();
        let evicted = fill(&mut table, &flows[..most]);
        let new = millions(most, start);
        assert_eq!((table.len(), evicted), (most, 0));
        let bytes = resident() - before;
        let (single, burst) = look_up(&mut table, &flows[..most]);
        let start = Instant::now();
        assert_eq!(fill(&mut table, &flows[most..]), most);
        let full = millions(most, start);
        println!("{most:>8} {single:>12.1} {burst:>11.1} {:>7.2} {new:>11.1} {full:>11.1}", burst / single);
        if most == 1_000_000 {
            println!("memory of the last: {} MB", bytes / 1_000_000);
        }
    }
}
