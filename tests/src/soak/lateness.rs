//! How late this machine lets a process run: what takes too long may be due to others that use the processors.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Wakes up often, and writes down how late.
#[derive(Debug)]
pub(super) struct Lateness {
    worst_us: Arc<AtomicU64>,
    pub(super) longest: Duration,
}

impl Lateness {
    pub(super) fn watch() -> Self {
        let worst_us = Arc::new(AtomicU64::new(0));
        let known = Arc::downgrade(&worst_us);
        std::thread::spawn(move || {
            loop {
                let start = Instant::now();
                std::thread::sleep(PAUSE);
                let late = start.elapsed().saturating_sub(PAUSE);
                let Some(worst) = known.upgrade() else { return };
                worst.fetch_max(u64::try_from(late.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        });
        Self { worst_us, longest: Duration::ZERO }
    }

    /// The worst since the last time.
    pub(super) fn take(&mut self) -> Duration {
        let worst = Duration::from_micros(self.worst_us.swap(0, Ordering::Relaxed));
        self.longest = self.longest.max(worst);
        worst
    }
}
