//! What a node does when it finds nothing to do.
//!
//! | Manner | First | Then | For |
//! |---|---|---|---|
//! | poll | spin | for ever | a processor of its own, asked for with `-m` |
//! | spin | spin 100 µs or so | sleep on the doorbell | a processor that no other node was given |
//! | yield | `sched_yield`, so that nodes of a core take turns on full bursts | sleep after some fruitless rounds | a shared core |

use std::time::Duration;

/// Rounds without work before a spinning node sleeps: about 100 µs of looking at a few rings.
const SPINS: u32 = 20_000;
/// Fruitless yields before a node on a shared core sleeps.
const YIELDS: u32 = 24;

/// How a node waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Never give the processor away.
    Poll,
    /// Spin for a while, then sleep.
    Spin,
    /// Give the processor to the others, then sleep.
    Yield,
}

/// Counts fruitless rounds.
#[derive(Debug)]
pub struct Idle {
    manner: Manner,
    fruitless: u32,
}

impl Idle {
    /// Starts as if there had just been work.
    #[must_use]
    pub fn new(manner: Manner) -> Self {
        Self { manner, fruitless: 0 }
    }

    /// How it waits.
    #[must_use]
    pub fn manner(&self) -> Manner {
        self.manner
    }

    /// Changes how it waits.
    pub fn set_manner(&mut self, manner: Manner) {
        self.manner = manner;
    }

    /// There was work.
    #[inline(always)]
    pub fn worked(&mut self) {
        self.fruitless = 0;
    }

    /// There was none: waits a moment. True when it is time to sleep.
    #[inline]
    #[must_use]
    pub fn nothing(&mut self) -> bool {
        self.fruitless = self.fruitless.saturating_add(1);
        match self.manner {
            Manner::Poll => {
                std::hint::spin_loop();
                false
            }
            Manner::Spin => {
                std::hint::spin_loop();
                self.fruitless > SPINS
            }
            Manner::Yield => {
                std::thread::yield_now();
                self.fruitless > YIELDS
            }
        }
    }

    /// Waits a moment for room on the way ahead; `round` counts from 0.
    pub fn wait_for_room(&self, round: u32) {
        match self.manner {
            Manner::Poll | Manner::Spin if round < SPINS => std::hint::spin_loop(),
            Manner::Yield if round < YIELDS => std::thread::yield_now(),
            _ => std::thread::sleep(Duration::from_micros(20)),
        }
    }
}
