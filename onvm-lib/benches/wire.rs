//! What it costs to read headers, and how that compares with etherparse; both in one run, so that the ratio
//! holds on any machine. `cargo bench -p onvm-lib --bench wire`.
//!
//! Each figure is the best of several rounds over a ring of frames that fits into the first-level cache: the
//! cost of the code, not of the memory.

use std::hint::black_box;
use std::time::Instant;

use etherparse::{LaxSlicedPacket, PacketBuilder, PacketHeaders, SlicedPacket};
use onvm_lib::wire::build::Packet;
use onvm_lib::wire::{Headers, MacAddr, checksum, flow_hash};

const ROUNDS: usize = 15;
const TURNS: usize = 20_000;

/// Nanoseconds a frame that `work` takes.
fn measure(frames: &[Vec<u8>], mut work: impl FnMut(&[u8])) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..TURNS {
            for frame in frames {
                work(black_box(frame));
            }
        }
        let nanos = start.elapsed().as_secs_f64() * 1e9;
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let each = nanos / (TURNS * frames.len()) as f64;
        best = best.min(each);
    }
    best
}

/// Sixteen frames of a kind that differ in a port.
fn frames(build: impl Fn(u16) -> Vec<u8>) -> Vec<Vec<u8>> {
    (1000..1016).map(build).collect()
}

fn written(
    build: impl FnOnce(&mut Vec<u8>) -> Result<(), etherparse::err::packet::BuildWriteError>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    build(&mut bytes).expect("writing to a vector");
    bytes
}

fn kinds() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let link = || PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let (a4, b4) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let (mut a6, mut b6) = ([0x20; 16], [0x20; 16]);
    (a6[15], b6[15]) = (1, 2);
    vec![
        (
            "eth/ipv4/tcp",
            frames(|p| written(|out| link().ipv4(a4, b4, 64).tcp(p, 80, 1, 65_535).write(out, &[7; 40]))),
        ),
        ("eth/ipv4/udp", frames(|p| written(|out| link().ipv4(a4, b4, 64).udp(p, 53).write(out, &[7; 40])))),
        (
            "eth/vlan/ipv4/tcp",
            frames(|p| {
                let vlan = etherparse::VlanId::try_new(5).expect("small");
                written(|out| {
                    link().single_vlan(vlan).ipv4(a4, b4, 64).tcp(p, 80, 1, 65_535).write(out, &[7; 40])
                })
            }),
        ),
        (
            "eth/ipv6/tcp",
            frames(|p| written(|out| link().ipv6(a6, b6, 64).tcp(p, 80, 1, 65_535).write(out, &[7; 40]))),
        ),
    ]
}

/// A UDP packet of 64 bytes made anew: into a buffer that is there, and by etherparse into a vector that is.
fn build() {
    let (src, dst) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
    let packet = Packet::ethernet(src, dst).ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let seed = frames(|port| port.to_be_bytes().to_vec());
    let mut buffer = [0; 64];
    let own = measure(&seed, |port| {
        let port = u16::from_be_bytes([port[0], port[1]]);
        let _ = black_box(packet.udp(port, 53).payload(&[7; 22]).write_to(&mut buffer));
    });
    let mut vector = Vec::with_capacity(64);
    let other = measure(&seed, |port| {
        let port = u16::from_be_bytes([port[0], port[1]]);
        vector.clear();
        let builder = PacketBuilder::ethernet2(src.0, dst.0).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let _ = black_box(builder.udp(port, 53).write(&mut vector, &[7; 22]));
    });
    println!("building 64 bytes: {own:.1} ns; PacketBuilder {other:.1} ns, {:.1} times as long", other / own);
}

fn main() {
    println!(
        "{:<20}{:>9}{:>11}{:>11}{:>11}{:>11}{:>11}  (ns)",
        "frame", "Headers", "+tcp/udp", "flow_hash", "Sliced", "LaxSliced", "PktHeaders"
    );
    for (name, frames) in kinds() {
        let own = measure(&frames, |frame| {
            black_box(Headers::parse(frame));
        });
        let read = measure(&frames, |frame| {
            let headers = Headers::parse(frame);
            black_box((headers.ports(frame), headers.payload(frame).len()));
        });
        let hash = measure(&frames, |frame| {
            black_box(flow_hash(frame));
        });
        let sliced = measure(&frames, |frame| {
            let _ = black_box(SlicedPacket::from_ethernet(frame));
        });
        let lax = measure(&frames, |frame| {
            let _ = black_box(LaxSlicedPacket::from_ethernet(frame));
        });
        let headers = measure(&frames, |frame| {
            let _ = black_box(PacketHeaders::from_ethernet_slice(frame));
        });
        println!(
            "{name:<20}{own:>9.1}{read:>11.1}{hash:>11.1}{sliced:>11.1}{lax:>11.1}{headers:>11.1}  \
             SlicedPacket takes {:.1} times as long",
            sliced / own
        );
    }
    build();
    for len in [20, 64, 1500] {
        let nanos = measure(&frames(|port| vec![port.to_be_bytes()[1]; len]), |bytes| {
            black_box(checksum::internet(bytes));
        });
        println!("checksum of {len:>4} bytes {nanos:>8.1} ns");
    }
}
