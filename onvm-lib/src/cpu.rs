//! Processors: where a thread may run.

use std::sync::OnceLock;

use rustix::io::{Errno, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The processors that a thread may run on.
#[derive(Clone, Debug)]
pub struct Allowed(CpuSet);

impl Allowed {
    /// Those that the calling thread may run on.
    ///
    /// # Errors
    /// The kernel's: `EINVAL` on machines with more than 1024 processors.
    pub fn now() -> Result<Self> {
        sched_getaffinity(None).map(Self)
    }

    /// Lets the calling thread run on these again.
    ///
    /// # Errors
    /// The kernel's: `EINVAL` when none of them is left.
    pub fn restore(&self) -> Result<()> {
        sched_setaffinity(None, &self.0)
    }
}

/// Where the first thread that was pinned could run before.
static BEFORE_PINNING: OnceLock<Option<Allowed>> = OnceLock::new();

/// Lets the calling thread run wherever the process could before any of its threads was pinned: for work beside the
/// packets, whose threads inherit the one processor of the thread that starts them.
pub fn leave_pinned() {
    if let Some(Some(before)) = BEFORE_PINNING.get()
        && let Err(error) = before.restore()
    {
        log::debug!("cannot leave the processor of the packets: {error}");
    }
}

/// Keeps the calling thread on one processor, counted from 0.
///
/// # Errors
/// `EINVAL` when there is no such processor, or it is not one that this process may use.
pub fn pin(core: u32) -> Result<()> {
    if core as usize >= CpuSet::MAX_CPU {
        return Err(Errno::INVAL);
    }
    BEFORE_PINNING.get_or_init(|| Allowed::now().ok());
    let mut set = CpuSet::new();
    set.set(core as usize);
    sched_setaffinity(None, &set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_and_let_go() {
        let all = Allowed::now().unwrap();
        let first = (0..).find(|core| all.0.is_set(*core as usize)).unwrap();
        pin(first).unwrap();
        assert_eq!(Allowed::now().unwrap().0.count(), 1);
        all.restore().unwrap();
        assert_eq!(Allowed::now().unwrap().0.count(), all.0.count());
        assert_eq!(pin(u32::MAX), Err(Errno::INVAL));
    }
}
