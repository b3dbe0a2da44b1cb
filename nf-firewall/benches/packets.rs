//! What the firewall needs for a packet: new and known connections, and decisions with and without the cache,
//! and how long packets wait between bursts.
//! `cargo bench -p nf-firewall`.
//!
//! Frames lie one after the other in memory, as large as the buffers of a pool are far apart; they are handled in bursts
//! of 32, as the runtime does.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "the program's rooms are included, the report and their tests are not run"
)]

#[path = "../src/carried.rs"]
mod carried;
#[path = "../src/connections/mod.rs"]
mod connections;
#[path = "../src/counts.rs"]
mod counts;
#[path = "../src/engine/mod.rs"]
mod engine;
#[path = "../src/packet.rs"]
mod packet;
#[path = "../src/rules/mod.rs"]
mod rules;

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

use carried::{Carried, PART};
use connections::{Connections, Key, Saved, Ticket, Timeouts};
use counts::Hits;
use engine::cache::Cache;
use engine::{Compiled, Engine};
use onvm_lib::wire::MacAddr;
use onvm_lib::wire::build::Packet;
use onvm_lib::wire::tcp::Flags;
use packet::Seen;
use rules::load::{Reading, read};
use rules::{State, read_change};

const BURST: usize = 32;
const CONNECTIONS: u32 = 1_000_000;
const NOW_NS: u64 = 1_700_000_000_000_000_000;

/// A segment of the n-th connection, in a buffer of its own.
fn frame(n: u32, flags: Flags, reply: bool) -> [u8; 128] {
    let client = std::net::Ipv4Addr::from_bits(0x0a00_0000 + n);
    let server = std::net::Ipv4Addr::new(192, 0, 2, 1);
    let base = Packet::ethernet(MacAddr([2; 6]), MacAddr([4; 6]));
    let packet = if reply {
        base.ipv4(server, client).tcp(80, 1000).seq(500).ack(101)
    } else {
        base.ipv4(client, server).tcp(1000, 80).seq(if flags == Flags::SYN { 100 } else { 101 }).ack(501)
    };
    let mut bytes = [0; 128];
    let length = packet.flags(flags).write_to(&mut bytes).unwrap_or(0);
    assert!(length > 0);
    bytes
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// Shows bursts of frames to the table; how many nanoseconds each took, and in which states they were.
fn show(table: &mut Connections, frames: &[[u8; 128]], now_ns: u64) -> (f64, [u64; 5]) {
    let mut states = [0; 5];
    let (mut seen, mut keys) = (Vec::with_capacity(BURST), Vec::with_capacity(BURST));
    let start = Instant::now();
    for burst in frames.chunks(BURST) {
        seen.clear();
        seen.extend(burst.iter().map(|frame| Seen::of(&frame[..54], 0, false)));
        keys.clear();
        keys.extend(
            seen.iter().zip(burst).map(|(s, frame)| Key::of(&s.facts.header, &s.headers, &frame[..54])),
        );
        table.fetch(&keys);
        for (place, (s, frame)) in seen.iter().zip(burst).enumerate() {
            let looked = table.look(place, keys[place], &s.facts.header, &s.headers, &frame[..54], now_ns);
            states[looked.state as usize] += 1;
            if looked.state != State::Invalid {
                black_box(table.allowed(looked.ticket, None, now_ns));
            }
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "exact at this size")]
    let each = start.elapsed().as_secs_f64() * 1e9 / frames.len() as f64;
    (each, states)
}

fn connections() {
    let syns: Vec<[u8; 128]> = (0..CONNECTIONS).map(|n| frame(n, Flags::SYN, false)).collect();
    let before = resident();
    let mut table = Connections::new(CONNECTIONS as usize, false, Timeouts::new(432_000));
    let (each, states) = show(&mut table, &syns, NOW_NS);
    assert_eq!(states[State::New as usize], u64::from(CONNECTIONS));
    println!("{CONNECTIONS} new connections: {each:6.1} ns each, {:5.2} M/s", 1e3 / each);
    println!("memory for {} connections: {} MB", table.len(), (resident() - before) / 1_000_000);
    let others: Vec<[u8; 128]> =
        (0..CONNECTIONS).map(|n| frame(0x0200_0000 + n, Flags::SYN, false)).collect();
    let mut half_open = Connections::new(100_000, false, Timeouts::new(432_000));
    let (each, _) = show(&mut half_open, &others, NOW_NS);
    let evicted = half_open.counts.evicted;
    println!(
        "a flood on 100,000 half-open ones: {each:6.1} ns a SYN, {:5.2} M/s, {evicted} evicted",
        1e3 / each
    );
    drop((others, half_open));
    drop(syns);
    let answers: Vec<[u8; 128]> = (0..CONNECTIONS).map(|n| frame(n, Flags(0x12), true)).collect();
    show(&mut table, &answers, NOW_NS);
    drop(answers);
    let data: Vec<[u8; 128]> = (0..CONNECTIONS).map(|n| frame(n, Flags::ACK, false)).collect();
    let (each, states) = show(&mut table, &data, NOW_NS);
    assert_eq!(states[State::Established as usize], table.len() as u64);
    println!("known, {} connections: {each:6.1} ns a packet, {:5.2} Mpps", table.len(), 1e3 / each);
    let start = Instant::now();
    let state = postcard::to_allocvec(&Saved::of(&table)).unwrap_or_default();
    let (given, bytes) = (start.elapsed(), state.len());
    let start = Instant::now();
    let mut next = Connections::new(CONNECTIONS as usize, false, Timeouts::new(432_000));
    let taken = postcard::from_bytes::<Saved>(&state).map(|saved| saved.restore(&mut next));
    assert!(matches!(taken, Ok(Ok(()))) && next.len() == table.len());
    println!("handed over: {given:?} to give {} MB, {:?} to take", bytes / 1_000_000, start.elapsed());
    drop((state, next));
    let (few, _) = data.split_at(1000);
    let mut best = f64::MAX;
    for _ in 0..50 {
        best = best.min(show(&mut table, few, NOW_NS).0);
    }
    println!("known, {} of them: {best:6.1} ns a packet, {:5.2} Mpps", few.len(), 1e3 / best);
    let flood: Vec<[u8; 128]> = (0..CONNECTIONS).map(|n| frame(0x0100_0000 + n, Flags::SYN, false)).collect();
    let (each, _) = show(&mut table, &flood, NOW_NS);
    let counts = table.counts;
    println!(
        "a flood on a table of established ones: {each:6.1} ns a SYN, {:5.2} M/s, {} evicted, {} refused",
        1e3 / each,
        counts.evicted,
        counts.refused
    );
}

/// Rules of two prefixes and a port each, none of which the packets match, and one that they do.
fn rule_set(rules: usize) -> Compiled {
    let mut text = String::from("rules:\n");
    for n in 0..rules {
        let (a, b) = (n / 250, n % 250);
        text.push_str(&format!(
            "  - {{protocol: tcp, from: 10.{b}.{}.0/24, to: 198.{}.{b}.0/24, to-port: {}, action: deny}}\n",
            a % 200,
            51 + a / 200,
            n % 60_000
        ));
    }
    text.push_str("  - {name: last, to: 192.0.2.0/24, flags: ack, action: allow}\n");
    let loaded = read("rules", &text, &Reading::default()).unwrap_or_else(|error| panic!("{error}"));
    Compiled::new(loaded.set)
}

fn decisions() {
    for rules in [10, 1000, 10_000] {
        for (cache, flows) in [(0, 1000), (65_536, 1000), (0, 1_000_000), (65_536, 1_000_000)] {
            let mut engine = Engine::new(rule_set(rules), Cache::new(cache));
            let frames: Vec<[u8; 128]> = (0..flows).map(|n| frame(n * 7, Flags::ACK, false)).collect();
            let mut best = f64::MAX;
            let mut facts = Vec::with_capacity(BURST);
            for _ in 0..(3_000_000 / flows).min(200) {
                let start = Instant::now();
                for burst in frames.chunks(BURST) {
                    facts.clear();
                    facts.extend(burst.iter().map(|frame| Seen::of(&frame[..54], 0, false).facts));
                    engine.foresee(facts.iter().copied().map(Some));
                    for (place, facts) in facts.iter_mut().enumerate() {
                        black_box(engine.decide(place, facts, 54, NOW_NS, |_, _, _| {}));
                    }
                }
                let each = start.elapsed().as_secs_f64() * 1e9 / f64::from(flows);
                best = best.min(each);
            }
            #[allow(clippy::cast_precision_loss, reason = "a share for people")]
            let rate =
                100.0 * engine.cache.hits as f64 / (engine.cache.hits + engine.cache.misses).max(1) as f64;
            println!(
                "{rules:>6} rules, {flows:>8} flows, cache {cache:>6}: {best:6.1} ns a packet, {:5.1} Mpps, {rate:.0} % hits",
                1e3 / best
            );
        }
    }
}

/// A rule changed in a large set by message, and a file read again that differs in one rule, against building anew.
fn changes() {
    const RULES: usize = 100_000;
    const TIMES: u32 = 100;
    let mut engine = Engine::new(rule_set(RULES), Cache::new(65_536));
    let mut slowest = [0f64; 3];
    let mut total = [0f64; 3];
    for n in 0..TIMES {
        let (before, port) = (n * 997, 1000 + n);
        let fields =
            format!(r#""from": "10.1.2.0/24", "protocol": "tcp", "to-port": {port}, "action": "deny""#);
        let bodies = [
            format!(r#"{{"insert": {{"name": "x", {fields}}}, "before": "rule {}"}}"#, before + 1),
            format!(r#"{{"replace": "x", "with": {{{fields}, "state": "new"}}}}"#),
            r#"{"remove": "x"}"#.to_string(),
        ];
        for (kind, body) in bodies.iter().enumerate() {
            let start = Instant::now();
            let (change, schedules) =
                read_change(body, &engine.compiled.set).unwrap_or_else(|e| panic!("{e}"));
            engine.change(change, schedules).unwrap_or_else(|e| panic!("{e}"));
            let each = start.elapsed().as_secs_f64() * 1e6;
            slowest[kind] = slowest[kind].max(each);
            total[kind] += each;
        }
    }
    for (kind, name) in ["insert", "replace", "remove"].iter().enumerate() {
        let mean = total[kind] / f64::from(TIMES);
        println!("{name} one of {RULES} rules: {mean:6.0} µs, {:6.0} µs at most", slowest[kind]);
    }
    let old = rule_set(RULES);
    let mut new = old.set.clone();
    new.rules.remove(RULES / 2);
    let start = Instant::now();
    let built = black_box(Compiled::new(new.clone()));
    let anew = start.elapsed();
    let start = Instant::now();
    let followed = black_box(old.followed_by(new));
    let changed = start.elapsed();
    assert_eq!(built.five_field_rules(), followed.five_field_rules());
    println!(
        "{RULES} rules of which one has gone: {anew:?} built anew, {changed:?} changed: {:.1} times as fast",
        anew.as_secs_f64() / changed.as_secs_f64()
    );
}

/// How long packets wait for what is done between bursts: at once, and a part after each. Of several runs the shortest.
fn pauses() {
    const RULES: usize = 100_000;
    let told = |name: &str, run: &mut dyn FnMut() -> f64| {
        let least = (0..7).map(|_| run()).fold(f64::MAX, f64::min);
        println!("{name:<60} {least:>9.1} µs");
    };
    let timed = |what: &mut dyn FnMut()| {
        let start = Instant::now();
        what();
        start.elapsed().as_secs_f64() * 1e6
    };
    let syns: Vec<[u8; 128]> = (0..262_144).map(|n| frame(n, Flags::SYN, false)).collect();
    let mut table = Connections::new(262_144, false, Timeouts::new(432_000));
    show(&mut table, &syns, NOW_NS);
    (0..40).for_each(|_| table.sweep(NOW_NS));
    println!("{} connections", table.len());
    told("by state, all looked at", &mut || timed(&mut || drop(black_box(table.by_state(true)))));
    told("by state, from the last round", &mut || timed(&mut || drop(black_box(table.by_state(false)))));
    told("search for what is over, a tick's part at once", &mut || timed(&mut || table.sweep(NOW_NS)));
    told("search for what is over, after a burst", &mut || {
        table.tick_live(NOW_NS);
        timed(&mut || table.step(NOW_NS))
    });
    println!("{RULES} rules, all of which have counted, are read anew");
    let set = rule_set(RULES);
    let hits = vec![Hits { packets: 1, bytes: 60, limited: 0 }; set.set.rules.len()];
    let names = |set: &Compiled| set.set.rules.iter().map(|rule| rule.name.clone()).collect::<Vec<_>>();
    let (before, after) = (names(&set), names(&set));
    told("counts by name, all at once", &mut || {
        timed(&mut || {
            let mut known: HashMap<&str, Hits> =
                before.iter().map(String::as_str).zip(hits.iter().copied()).collect();
            let found = after.iter().map(|name| known.remove(name.as_str()).unwrap_or_default());
            drop(black_box(found.collect::<Vec<Hits>>()));
        })
    });
    let mut engine = Engine::new(set.clone(), Cache::new(65_536));
    told("another set in force", &mut || {
        let mut fresh = Some(set.clone());
        let mut old = None;
        timed(&mut || {
            old = fresh.take().map(|fresh| engine.replace(fresh));
            black_box(vec![Hits::default(); RULES]);
        })
    });
    let mut now = vec![Hits::default(); set.set.rules.len()];
    let mut carried = Carried::new(set.clone(), hits.clone());
    told("counts by name, after a burst", &mut || {
        timed(&mut || assert!(!carried.carry(PART, &set, &mut now)))
    });
}

fn main() {
    if std::env::args().any(|word| word == "pauses") {
        return pauses();
    }
    // `cargo bench -p nf-firewall -- changes` measures that alone.
    if std::env::args().any(|word| word == "changes") {
        return changes();
    }
    connections();
    decisions();
    changes();
    pauses();
}
