//! Packets and new connections that the balancer takes, alone, on one processor. `cargo bench -p nf-loadbalancer`.
//!
//! Frames are put into buffers as far apart as a pool's, a thousand at a time, and the clock runs only while the balancer
//! works on them, 32 at a time: what is measured is the balancer, with the cache misses that so many connections cost.
//! Beside it, the same frames are only parsed and hashed: what any network function has to do.

use std::hint::black_box;
use std::time::{Duration, Instant};

use nf_loadbalancer::frame::{Frame, Frames, Plain, PlainBurst};
use nf_loadbalancer::{Balancer, config};
use onvm_lib::wire::build::Packet;
use onvm_lib::wire::tcp::Flags;
use onvm_lib::wire::{Headers, MacAddr};

/// Frames between two looks at the clock.
const ROUND: usize = 1024;
const BURST: usize = 32;

const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

fn balancer(mode: &str, scheduler: &str, connections: u32) -> Balancer {
    let (mode, six) = mode.strip_suffix('6').map_or((mode, false), |mode| (mode, true));
    let (net, own, vip) =
        if six { ("fd00::", "fd00::ffff", "2001:db8::1") } else { ("10.1.0.", "10.0.0.1", "192.0.2.1") };
    let backends: String = (1..=100)
        .map(|n| format!("      b{n}: {{address: '{net}{n}', mac: '02:00:00:00:01:{n:02x}'}}\n"))
        .collect();
    let text = format!(
        "mac: {OWN}\naddresses: '{own}'\nlimits: {{connections: {connections}}}\nservices:\n  web:\n    address: '{vip}'\n    \
         port: 80\n    mode: {mode}\n    scheduler: {scheduler}\n    backends:\n{backends}"
    );
    let (config, report) = config::from_text(&text, "bench");
    Balancer::new(config.unwrap_or_else(|| panic!("{report}")))
}

/// A segment of a connection.
fn frame(connection: u32, flags: Flags, six: bool) -> Vec<u8> {
    let [_, a, b, c] = connection.to_be_bytes();
    let packet = Packet::ethernet(CLIENT, OWN);
    let packet = if six {
        let client = 0x2001_0db8_u128 << 96 | u128::from(connection & 0xf_ffff) << 32;
        packet.ipv6(client.into(), (0x2001_0db8_u128 << 96 | 1).into())
    } else {
        packet.ipv4([172, 16 | a & 15, b, c].into(), [192, 0, 2, 1].into())
    };
    let port = 1024 + u16::try_from(connection >> 20 & 0xff).unwrap_or(0);
    packet.tcp(port, 80).flags(flags).payload(&[0; 10]).to_vec().expect("a frame")
}

/// A part of a burst, so that bursts of 32 are taken from a thousand buffers.
struct Window<'a>(&'a mut [Plain]);

impl Frames for Window<'_> {
    type Frame<'a>
        = &'a mut Plain
    where
        Self: 'a;

    fn count(&self) -> usize {
        self.0.len()
    }

    fn frame(&mut self, index: usize) -> &mut Plain {
        &mut self.0[index]
    }

    fn make(&mut self, _: usize) -> Option<&mut Plain> {
        None
    }
}

/// Runs `work` over bursts of all frames, in an order that is not that of memory; nanoseconds a frame.
fn measure(frames: &[Vec<u8>], count: usize, mut work: impl FnMut(&mut Window<'_>)) -> f64 {
    let mut buffers: Vec<Plain> = (0..ROUND).map(|_| Plain::new(&[0; 1800], None)).collect();
    let (stride, mut at, mut spent, mut done) = (7919 % frames.len().max(1), 0, Duration::ZERO, 0usize);
    while done < count {
        for buffer in &mut buffers {
            buffer.refill(&frames[at]);
            at += stride.max(1);
            if at >= frames.len() {
                at -= frames.len();
            }
        }
        let start = Instant::now();
        for burst in buffers.chunks_mut(BURST) {
            work(&mut Window(burst));
        }
        spent += start.elapsed();
        done += ROUND;
    }
    #[allow(clippy::cast_precision_loss, reason = "exact at this size")]
    let each = spent.as_secs_f64() * 1e9 / done as f64;
    each
}

fn known(mode: &str, connections: u32) {
    let six = mode.ends_with('6');
    let syns: Vec<Vec<u8>> = (0..connections).map(|n| frame(n, Flags::SYN, six)).collect();
    let mut balancer = balancer(mode, "maglev", connections);
    measure(&syns, syns.len() * 2, |burst| balancer.burst(burst, 1));
    drop(syns);
    let frames: Vec<Vec<u8>> = (0..connections).map(|n| frame(n, Flags::ACK, six)).collect();
    let count = frames.len().max(1 << 22);
    let (mut best, mut parsed) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..3 {
        best = best.min(measure(&frames, count, |burst| balancer.burst(burst, 2)));
        parsed = parsed.min(measure(&frames, count, |burst| {
            for index in 0..burst.count() {
                let frame = burst.frame(index);
                let bytes = Frame::bytes(&frame);
                black_box(Headers::parse(bytes).flow_hash(bytes));
            }
        }));
    }
    let report = balancer.report().json;
    assert_eq!(report["connections"]["open"], connections, "some were not known");
    println!(
        "{mode:>5}, {connections:>8} known connections: {best:6.1} ns a packet, {:5.1} Mpps; parsing and hashing alone {parsed:5.1} ns, ratio {:4.1}",
        1e3 / best,
        best / parsed
    );
}

fn new(mode: &str, scheduler: &str) {
    const CONNECTIONS: u32 = 1 << 20;
    let six = mode.ends_with('6');
    let syns: Vec<Vec<u8>> = (0..CONNECTIONS).map(|n| frame(n, Flags::SYN, six)).collect();
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let mut balancer = balancer(mode, scheduler, CONNECTIONS);
        best = best.min(measure(&syns, syns.len(), |burst| balancer.burst(burst, 1)));
        black_box(balancer.report());
    }
    println!(
        "{mode:>5}, {scheduler:>17}: {best:6.1} ns a new connection, {:6.0} thousand a second",
        1e6 / best
    );
}

fn main() {
    // Warms the clock and the memory.
    let mut burst = PlainBurst::one(&frame(1, Flags::SYN, false), None);
    balancer("nat", "maglev", 10).burst(&mut burst, 1);
    for mode in ["nat", "nat6", "dsr", "ipip", "gue"] {
        for connections in [10_000, 1_000_000] {
            known(mode, connections);
        }
    }
    for mode in ["nat", "dsr"] {
        for scheduler in ["maglev", "round-robin", "least-connections", "random"] {
            new(mode, scheduler);
        }
    }
}
