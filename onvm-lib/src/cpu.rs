//! Processors: where a thread may run, and how soon it is let.
#![allow(unsafe_code)]

use std::sync::OnceLock;

use rustix::io::{Errno, Result};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

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

    /// Lets another thread run on these again, named by its number (that of a process is the number of its first thread).
    ///
    /// # Errors
    /// The kernel's: `ESRCH` when it is gone, `EPERM` when it is another user's.
    pub fn restore_to(&self, thread: Pid) -> Result<()> {
        sched_setaffinity(Some(thread), &self.0)
    }
}

/// The processor that the calling thread runs on just now.
#[must_use]
pub fn current() -> u32 {
    u32::try_from(sched_getcpu()).unwrap_or(u32::MAX)
}

/// Has another thread, named by its number, run on one processor and nowhere else. Returns where it could run before.
///
/// # Errors
/// The kernel's: `ESRCH` when it is gone, `EPERM` when it is another user's, `EINVAL` when it may not run there.
pub fn bring(thread: Pid, core: u32) -> Result<Allowed> {
    if core as usize >= CpuSet::MAX_CPU {
        return Err(Errno::INVAL);
    }
    let before = Allowed(sched_getaffinity(Some(thread))?);
    let mut there = CpuSet::new();
    there.set(core as usize);
    sched_setaffinity(Some(thread), &there)?;
    Ok(before)
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

/// Keeps the calling thread, and those that it starts from now on, off one processor, if it may use others.
///
/// # Errors
/// The kernel's: `EINVAL` on machines with more than 1024 processors.
pub fn keep_off(core: u32) -> Result<()> {
    let Allowed(mut set) = Allowed::now()?;
    if (core as usize) < CpuSet::MAX_CPU {
        set.unset(core as usize);
    }
    if set.count() == 0 { Ok(()) } else { sched_setaffinity(None, &set) }
}

/// Nanoseconds that a thread with packets runs before the kernel looks who else wants its processor: the least that Linux
/// takes. It has no less of the processor for it, but when it wakes up it need not wait until others have had their usual
/// milliseconds.
const SLICE_NS: u64 = 100_000;

type Attributes = libc::sched_attr;

/// Of the first version of the structure, which is all that is needed here.
const ATTRIBUTES_BYTES: u32 = 48;
const _: () = assert!(size_of::<Attributes>() == ATTRIBUTES_BYTES as usize);

/// The usual policy.
const UNCHANGED: Attributes = Attributes {
    size: ATTRIBUTES_BYTES,
    sched_policy: libc::SCHED_OTHER.cast_unsigned(),
    sched_flags: 0,
    sched_nice: 0,
    sched_priority: 0,
    sched_runtime: 0,
    sched_deadline: 0,
    sched_period: 0,
};

/// Has the calling thread let in soon when it wakes up (`sched_setattr(2)`; Linux 6.12, before that without effect). Its nice
/// value stays, and so does a policy that is not the usual one.
pub fn be_prompt() {
    // SAFETY: it takes numbers, and returns one; 0 is the calling thread.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    if policy != libc::c_long::from(libc::SCHED_OTHER) {
        return;
    }
    let attributes = Attributes {
        sched_nice: rustix::process::getpriority_process(None).unwrap_or(0),
        sched_runtime: SLICE_NS,
        ..UNCHANGED
    };
    // SAFETY: the kernel reads a structure of the size that stands in it.
    if unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } != 0 {
        log::debug!("no short slices: {}", std::io::Error::last_os_error());
    }
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
        keep_off(first).unwrap();
        let left = Allowed::now().unwrap().0;
        assert_eq!(left.is_set(first as usize), all.0.count() == 1);
        assert_eq!(left.count(), (all.0.count() - 1).max(1));
        keep_off(u32::MAX).unwrap();
        assert_eq!(Allowed::now().unwrap().0.count(), left.count());
        all.restore().unwrap();
    }

    #[test]
    fn brought_and_sent_home() {
        let all = Allowed::now().unwrap();
        let first = (0..).find(|core| all.0.is_set(*core as usize)).unwrap();
        let (name, names) = std::sync::mpsc::channel();
        let (over, end) = std::sync::mpsc::channel::<()>();
        let guest = std::thread::spawn(move || {
            name.send(rustix::thread::gettid()).unwrap();
            let _ = end.recv();
        });
        let thread = names.recv().unwrap();
        let allowed = || sched_getaffinity(Some(thread)).unwrap();
        let home = bring(thread, first).unwrap();
        assert!(allowed().count() == 1 && allowed().is_set(first as usize));
        home.restore_to(thread).unwrap();
        assert_eq!(allowed().count(), all.0.count());
        assert_eq!(bring(thread, u32::MAX).map(|_| ()), Err(Errno::INVAL));
        assert_eq!(Allowed::now().unwrap().0.count(), all.0.count(), "the caller stays where it was");
        drop(over);
        guest.join().unwrap();
    }

    #[test]
    fn who_is_prompt_is_as_nice_as_before() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        std::thread::spawn(move || {
            rustix::process::setpriority_process(None, 5).unwrap();
            be_prompt();
            assert_eq!(nice(), 5);
            let mut told = UNCHANGED;
            // SAFETY: the kernel writes at most as many bytes as it is told there are.
            let done = unsafe {
                libc::syscall(libc::SYS_sched_getattr, 0, &raw mut told, size_of::<Attributes>(), 0)
            };
            assert_eq!(done, 0);
            // Kernels before 6.12 know of no slices.
            assert!([0, SLICE_NS].contains(&told.sched_runtime), "{} ns", told.sched_runtime);
            assert_eq!(told.sched_nice, 5);
        })
        .join()
        .unwrap();
    }
}
