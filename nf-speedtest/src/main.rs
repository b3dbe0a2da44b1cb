//! nf-speedtest: makes packets, sends them round any chain, and reports how fast and how late they come back.
//!
//! # Theory of operation
//! ```text
//!            make (until there are N)
//!              │
//!  nf-speedtest ──▶ -d ID, or the chain ──▶ … ──▶ nf-speedtest     what comes back goes round again,
//!              ▲                                      │            or, with --rate, ends here and makes
//!              └──────────────────────────────────────┘            room for a new one
//! ```
//! Going round is the fast path: nothing of a packet is touched, only its descriptor, once, to restart its
//! count of hops and to add up its length. One packet in `--latency-every` is a *probe*: it belongs to a flow
//! of its own, so that its hash, which stands in the descriptor, gives it away. Only probes are looked into:
//! a stamp in the payload says whose it is and when it left (see `stamp`).
//!
//! What is lost cannot be seen from the numbers alone, since a packet that is on its way looks like one that
//! is lost. Going round, a census once a second looks into all packets for a few rounds and marks whom it saw
//! (see `census`). Packets of others, such as those that an earlier run left behind in the circle, end here when
//! the census meets them; packets of a capture bear no stamp and cannot be told apart. With `--rate` a packet that is not back two seconds later is taken for lost.
//!
//! The times to live of packets are not restored: a router in the circle ends them after 64 rounds.
#![forbid(unsafe_code)]

mod census;
mod circle;
mod frames;
mod latency;
mod meter;
mod pace;
mod stamp;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use onvm_lib::prelude::*;

use circle::Circle;
use frames::Frames;

/// Options of its own.
#[derive(Args, Clone, Debug)]
struct Options {
    /// Packets that are under way at a time
    #[arg(short = 'c', long, value_name = "N", default_value_t = 128,
          value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    packets: u32,

    /// Bytes of a packet from its Ethernet header on, without the check sequence: 60 are the 64 of the wire
    #[arg(short = 'o', long, value_name = "BYTES", default_value_t = 64, conflicts_with = "pcap",
          value_parser = clap::value_parser!(u16).range(60..=9216))]
    size: u16,

    /// Flows that the packets belong to, in turn
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "pcap",
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    flows: u32,

    /// Send the packets of a pcap or pcapng file, over and over, instead of making some; measures no latency
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,

    /// Packets a second to send; without it, as many as come back
    #[arg(long, value_name = "PPS", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    rate: Option<u64>,

    /// Measure the latency of one packet in N; 0 measures none
    #[arg(long, value_name = "N", default_value_t = 64, conflicts_with = "pcap")]
    latency_every: u32,
}

#[derive(Debug)]
struct SpeedTest(Circle);

impl NetworkFunction for SpeedTest {
    type Options = Options;
    type Access = ReadWrite;
    type State = ();
    const NAME: &'static str = "nf-speedtest";
    const ABOUT: &'static str =
        "Makes packets, sends them round any chain that leads back here, reports rate, loss and latency";
    const EMITS: bool = true;

    fn setup(options: &Options, setup: &Setup) -> Result<Self, SetupError> {
        if setup.replay {
            let reason = "a replay leads no packet back; run it live, for example with -r 1 -d 1";
            return Err(SetupError(reason.into()));
        }
        let room = setup.packet_room;
        let frames = match &options.pcap {
            Some(file) => Frames::load(file, options.packets as usize, room).map_err(SetupError)?,
            None if usize::from(options.size) > room => {
                return Err(SetupError(format!(
                    "packets of {} bytes do not fit the manager's buffers of {room}: choose a smaller --size, \
                     or give the manager a larger --mtu",
                    options.size
                )));
            }
            None => Frames::build(usize::from(options.size), options.flows, options.latency_every),
        };
        Ok(Self(Circle::new(frames, options.packets, options.rate)))
    }

    #[inline]
    fn burst(&mut self, burst: &mut Burst<'_, ReadWrite>) {
        self.0.returned(burst);
    }

    fn tick(&mut self, _: &mut Burst<'_, ReadWrite>) {
        self.0.tick(std::time::Instant::now());
    }

    #[inline]
    fn produce(&mut self, burst: &mut Burst<'_, ReadWrite>) -> Option<Duration> {
        self.0.produce(burst)
    }

    fn manager_lost(&mut self) {
        self.0.all_lost();
    }

    fn report(&self) -> Report {
        self.0.report()
    }
}

fn main() -> ExitCode {
    onvm_lib::run::<SpeedTest>()
}
