//! An NF for tests: a bad line. Loses some packets and lets some be overtaken, by chance that is the same each time.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use onvm_lib::prelude::*;

#[derive(Args, Debug)]
struct Options {
    /// Packets of a thousand that are lost
    #[arg(long, default_value_t = 0)]
    lose: u64,
    /// Packets of a thousand that others overtake
    #[arg(long, default_value_t = 0)]
    delay: u64,
}

/// Packets that overtake one that is delayed, unless there are not so many.
const OVERTAKEN_BY: u64 = 5;

struct Weather {
    lose: u64,
    delay: u64,
    chance: u64,
    packets: u64,
    lost: u64,
    delayed: u64,
    /// Tickets, and after how many packets they are due.
    held: VecDeque<(u32, u64)>,
}

impl NetworkFunction for Weather {
    type Options = Options;
    type Access = ReadWrite;
    type State = ();
    const NAME: &'static str = "weather_nf";
    const ABOUT: &'static str = "A bad line; for tests";
    const TICK: Duration = Duration::from_millis(10);

    fn setup(options: &Options, _: &Setup) -> Result<Self, SetupError> {
        let (lose, delay) = (options.lose, options.delay);
        Ok(Self { lose, delay, chance: 0x9e37_79b9, packets: 0, lost: 0, delayed: 0, held: VecDeque::new() })
    }

    fn burst(&mut self, burst: &mut Burst<'_, ReadWrite>) {
        for index in 0..burst.len() {
            self.packets += 1;
            // xorshift64.
            self.chance ^= self.chance << 13;
            self.chance ^= self.chance >> 7;
            self.chance ^= self.chance << 17;
            let throw = (self.chance >> 20) % 1000;
            if throw < self.lose {
                self.lost += 1;
                burst.packet(index).set_verdict(Verdict::Drop(DropReason::Denied));
            } else if throw < self.lose + self.delay
                && let Some(ticket) = burst.hold(index)
            {
                self.delayed += 1;
                self.held.push_back((ticket, self.packets + OVERTAKEN_BY));
            }
        }
        while let Some((ticket, due)) = self.held.front().copied().filter(|(_, due)| *due <= self.packets) {
            debug_assert!(due <= self.packets);
            let _ = burst.release(ticket);
            self.held.pop_front();
        }
    }

    fn tick(&mut self, burst: &mut Burst<'_, ReadWrite>) {
        self.held.drain(..).for_each(|(ticket, _)| {
            let _ = burst.release(ticket);
        });
    }

    fn teardown(&mut self, burst: &mut Burst<'_, ReadWrite>) {
        self.tick(burst);
    }

    fn report(&self) -> Report {
        let facts = serde_json::json!({
            "packets": self.packets, "lost": self.lost, "delayed": self.delayed,
        });
        Report::new(format!("{} packets, {} lost", self.packets, self.lost), &facts)
    }
}

impl std::fmt::Debug for Weather {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Weather({} packets)", self.packets)
    }
}

fn main() -> ExitCode {
    onvm_lib::run::<Weather>()
}
