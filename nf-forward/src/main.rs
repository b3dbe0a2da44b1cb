//! nf-forward: sends every packet on, and on request changes what a hop changes.
//!
//! # Theory of operation
//! What is to be done is settled once, from the options, as a [`Work`]:
//!
//! ```text
//! Plain      all to the next hop (or -d)      nothing is done per packet but adding up lengths
//! Port       all out of one port              one pass over the descriptors, no packet is touched
//! Hop        TTL; then either                 each packet is touched once        (see `rewrite`)
//! Rewrite    MAC addresses, TTL; then either  each packet is touched once
//! Bridge     by destination MAC address       source addresses are learned       (see `bridge`)
//! ```
//! The burst is matched against it once, so that an option which was not given costs nothing.

#![forbid(unsafe_code)]

mod bridge;
mod mac_table;
mod rewrite;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use onvm_lib::prelude::*;
use onvm_lib::wire::MacAddr;
use serde::{Deserialize, Serialize};

use bridge::{Bridge, BridgeState, Decision};
use rewrite::{Outcome, Rewrite};

/// Options of its own.
#[derive(Args, Clone, Debug)]
struct Options {
    /// Send everything out of this port instead of to the next service
    #[arg(long, value_name = "PORT", conflicts_with = "destination",
          value_parser = clap::value_parser!(u8).range(0..=126))]
    port: Option<u8>,

    /// Swap source and destination MAC address
    #[arg(long, conflicts_with_all = ["set_dst_mac", "set_src_mac"])]
    mac_swap: bool,

    /// Set the destination MAC address
    #[arg(long, value_name = "MAC")]
    set_dst_mac: Option<MacAddr>,

    /// Set the source MAC address, which cannot be that of a group
    #[arg(long, value_name = "MAC", value_parser = station)]
    set_src_mac: Option<MacAddr>,

    /// Decrement the IPv4 time to live or IPv6 hop limit; packets whose last hop this would be are dropped
    #[arg(long)]
    decrement_ttl: bool,

    /// Be a learning bridge between ports 0 to N-1: known addresses go out of their port, others out of all
    #[arg(long, help_heading = "Bridge",
          conflicts_with_all = ["destination", "port", "mac_swap", "set_dst_mac", "set_src_mac", "decrement_ttl"])]
    bridge: bool,

    /// Number of ports of the bridge
    #[arg(long, value_name = "N", default_value_t = 2, requires = "bridge", help_heading = "Bridge",
          value_parser = clap::value_parser!(u8).range(2..=127))]
    ports: u8,

    /// Forget an address that has sent nothing for this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, requires = "bridge", help_heading = "Bridge",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    mac_age: u32,

    /// Addresses that the bridge remembers at most; packets to others go out of all ports
    #[arg(long, value_name = "N", default_value_t = 4096, requires = "bridge", help_heading = "Bridge",
          value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    max_macs: u32,
}

fn station(text: &str) -> Result<MacAddr, String> {
    let mac: MacAddr = text.parse().map_err(|e| format!("{e}"))?;
    if mac.is_multicast() {
        return Err(format!("{mac} is the address of a group, which cannot send"));
    }
    Ok(mac)
}

/// What is done with packets.
#[derive(Debug)]
enum Work {
    Plain,
    Port(u8),
    Hop(Verdict),
    Rewrite(Rewrite, Verdict),
    Bridge(Box<Bridge>),
}

/// What it has done so far.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Counts {
    packets: u64,
    bytes: u64,
    /// Packets of which something was changed.
    rewritten: u64,
    /// Packets dropped because their time to live ran out.
    expired: u64,
    /// Packets with nothing to decrement: not IP, or an IP header that cannot be read. They go on.
    without_ttl: u64,
    /// Packets too short for the MAC addresses that were to be changed. They go on.
    too_short: u64,
}

/// What it hands to its successor.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    counts: Counts,
    bridge: Option<BridgeState>,
}

#[derive(Debug)]
struct Forward {
    work: Work,
    counts: Counts,
}

impl NetworkFunction for Forward {
    type Options = Options;
    type Access = ReadWrite;
    type State = State;
    const NAME: &'static str = "nf-forward";
    const ABOUT: &'static str = "Sends packets on to a service or a port, as they are, rewritten or bridged";

    const STATE_VERSION: u32 = 1;

    fn setup(options: &Options, _: &Setup) -> Result<Self, SetupError> {
        let rewrite = Rewrite::new(options);
        let work = if options.bridge {
            let age = Duration::from_secs(u64::from(options.mac_age));
            Work::Bridge(Box::new(Bridge::new(options.ports, options.max_macs as usize, age)))
        } else if let Some(rewrite) = rewrite {
            let verdict = options.port.map_or(Verdict::Next, Verdict::Out);
            if rewrite.is_hop() { Work::Hop(verdict) } else { Work::Rewrite(rewrite, verdict) }
        } else {
            options.port.map_or(Work::Plain, Work::Port)
        };
        Ok(Self { work, counts: Counts::default() })
    }

    #[inline]
    fn burst(&mut self, burst: &mut Burst<'_, ReadWrite>) {
        self.counts.packets += burst.len() as u64;
        self.counts.bytes += burst.bytes();
        match &mut self.work {
            Work::Plain => {}
            Work::Port(port) => burst.set_all(Verdict::Out(*port)),
            Work::Hop(verdict) => change(burst, &mut self.counts, *verdict, rewrite::hop),
            Work::Rewrite(rewrite, verdict) => {
                change(burst, &mut self.counts, *verdict, |frame| rewrite.apply(frame));
            }
            Work::Bridge(bridge) => forward(bridge, burst),
        }
    }

    fn tick(&mut self, burst: &mut Burst<'_, ReadWrite>) {
        if let Work::Bridge(bridge) = &mut self.work {
            bridge.expire(burst.now_ns());
        }
    }

    fn hand_over(&mut self) -> Option<State> {
        let bridge = if let Work::Bridge(bridge) = &self.work { Some(bridge.state()) } else { None };
        Some(State { counts: self.counts, bridge })
    }

    fn take_over(&mut self, state: State) -> Result<(), String> {
        let packets = self.counts.packets;
        if packets > 0 {
            return Err(format!("{packets} packets are counted here already"));
        }
        self.counts = state.counts;
        // A bridge that is replaced by something else leaves its table behind, and the other way round.
        if let (Work::Bridge(bridge), Some(state)) = (&mut self.work, state.bridge) {
            bridge.restore(state);
        }
        Ok(())
    }

    fn report(&self) -> Report {
        let counts = &self.counts;
        let mut text = format!("{} packets, {} bytes", counts.packets, counts.bytes);
        let mut value = serde_json::to_value(counts).unwrap_or_default();
        match &self.work {
            Work::Plain | Work::Port(_) => {}
            Work::Hop(_) | Work::Rewrite(..) => text.push_str(&format!(
                ", {} rewritten, {} expired, {} without a time to live, {} too short",
                counts.rewritten, counts.expired, counts.without_ttl, counts.too_short
            )),
            Work::Bridge(bridge) => {
                text.push('\n');
                text.push_str(&bridge.to_string());
                value["bridge"] = serde_json::to_value(bridge.report()).unwrap_or_default();
            }
        }
        Report::new(text, &value)
    }
}

impl Counts {
    #[cold]
    #[inline(never)]
    fn note(&mut self, outcome: Outcome, packet: &mut Packet<'_, ReadWrite>) {
        match outcome {
            Outcome::Rewritten => self.rewritten += 1,
            Outcome::Partly => {
                self.rewritten += 1;
                self.without_ttl += 1;
            }
            Outcome::NoTtl => self.without_ttl += 1,
            Outcome::TooShort => self.too_short += 1,
            Outcome::Expired => {
                self.expired += 1;
                packet.set_verdict(Verdict::Drop(DropReason::HopsExceeded));
            }
        }
    }
}

/// Changes the packets of a burst. The common outcome is counted once a burst, and its verdict is given to all.
#[inline]
fn change(
    burst: &mut Burst<'_, ReadWrite>,
    counts: &mut Counts,
    verdict: Verdict,
    apply: impl Fn(&mut [u8]) -> Outcome,
) {
    if verdict != Verdict::Next {
        burst.set_all(verdict);
    }
    let mut rewritten = 0;
    for mut packet in burst.packets() {
        match apply(packet.bytes_mut()) {
            Outcome::Rewritten => rewritten += 1,
            other => counts.note(other, &mut packet),
        }
    }
    counts.rewritten += rewritten;
}

/// Bridges a burst. A flooded packet itself takes the first port; the others get copies.
fn forward(bridge: &mut Bridge, burst: &mut Burst<'_, ReadWrite>) {
    let now_ns = burst.now_ns();
    for index in 0..burst.len() {
        let mut packet = burst.packet(index);
        let ingress = packet.port();
        match bridge.decide(packet.bytes(), ingress, now_ns) {
            Decision::Out(port) => packet.set_verdict(Verdict::Out(port)),
            Decision::Drop(reason) => packet.set_verdict(Verdict::Drop(reason)),
            Decision::Flood => {
                let mut others = bridge.others(ingress);
                if let Some(first) = others.next() {
                    packet.set_verdict(Verdict::Out(first));
                }
                others.for_each(|port| burst.mirror(index, Verdict::Out(port)));
            }
        }
    }
}

fn main() -> ExitCode {
    onvm_lib::run::<Forward>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bridge(ports: u8, most_macs: usize) -> Forward {
        let work = Work::Bridge(Box::new(Bridge::new(ports, most_macs, Duration::from_secs(10))));
        Forward { work, counts: Counts::default() }
    }

    fn decide(forward: &mut Forward, frames: &[(u8, u8, u8)], from: usize) -> Vec<Decision> {
        let Work::Bridge(bridge) = &mut forward.work else { return Vec::new() };
        let mut decide = |(n, (src, dst, port)): (u64, &(u8, u8, u8))| {
            let frame = [&[2, 0, 0, 0, 0, *dst, 2, 0, 0, 0, 0, *src][..], &[8; 48]].concat();
            forward.counts.packets += 1;
            forward.counts.bytes += frame.len() as u64;
            bridge.expire(n * 1_000_000_000);
            bridge.decide(&frame, Some(*port), n * 1_000_000_000)
        };
        (from as u64..).zip(frames).map(&mut decide).collect()
    }

    fn handed_over(from: &mut Forward) -> State {
        let state = from.hand_over().unwrap();
        postcard::from_bytes(&postcard::to_allocvec(&state).unwrap()).unwrap()
    }

    proptest! {
        #[test]
        fn a_bridge_that_was_replaced_decides_and_reports_as_one_that_was_not(
            frames in prop::collection::vec((0u8..20, 0u8..20, 0u8..4), 1..200),
            at in any::<prop::sample::Index>(),
            most_macs in prop::sample::select(vec![8usize, 64]),
        ) {
            let at = at.index(frames.len());
            let mut whole = bridge(4, most_macs);
            let decisions = decide(&mut whole, &frames, 0);
            let (mut first, mut second) = (bridge(4, most_macs), bridge(4, most_macs));
            decide(&mut first, &frames[..at], 0);
            second.take_over(handed_over(&mut first)).unwrap();
            prop_assert_eq!(first.report().json, second.report().json);
            prop_assert_eq!(&decide(&mut second, &frames[at..], at)[..], &decisions[at..]);
            prop_assert_eq!(whole.report().json, second.report().json);
        }
    }

    #[test]
    fn a_smaller_bridge_keeps_what_fits() {
        let mut large = bridge(4, 64);
        decide(&mut large, &[(1, 9, 0), (2, 9, 1), (3, 9, 3), (4, 9, 1)], 0);
        let mut small = bridge(2, 2);
        small.take_over(handed_over(&mut large)).unwrap();
        let next = [(9, 4, 0), (9, 2, 0), (9, 3, 0), (9, 1, 1)];
        let flood = Decision::Flood;
        assert_eq!(decide(&mut small, &next, 4), [Decision::Out(1), Decision::Out(1), flood, flood]);
        assert!(small.take_over(handed_over(&mut large)).unwrap_err().contains("8 packets"));
    }
}
