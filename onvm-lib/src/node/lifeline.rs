//! The word by which the manager hears at once that the thread with the packets is dead.
//!
//! ```text
//! NF thread      word = thread id | WAITERS, registered with the kernel as a robust futex
//!                leaves in order: word = 0          dies: the kernel adds OWNER_DIED and wakes the manager
//! ```
//! The kernel walks the list of robust futexes of a thread that ends before it takes its memory apart
//! (`futex_exit_release()` in `kernel/futex/core.c`), and tells of the end of a process only afterwards: with a pool of many
//! pages that is milliseconds later. Other threads of the process may run for a moment longer than this one, so the word
//! tells that its packets can be worked on by others, and not that nobody writes to its memory any more.
//!
//! A thread has one such list. The C library's own steps aside for ours, so that a robust mutex of the C library is not
//! given up when this thread dies with it in its hands. Nothing in Rust's standard library uses them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::thread::futex::{Flags, OWNER_DIED, WAITERS, wake};

use super::NodePage;

/// `struct robust_list` of `linux/futex.h`.
#[repr(C)]
struct Entry {
    next: *mut Entry,
}

/// `struct robust_list_head` of `linux/futex.h`, and the one entry that it may have.
#[repr(C)]
struct Registered {
    list: Entry,
    /// From an entry to its futex, in bytes.
    futex_offset: libc::c_long,
    pending: *mut Entry,
    entry: Entry,
}

/// Size of the head alone.
const HEAD_BYTES: usize = std::mem::offset_of!(Registered, entry);
const _: () = assert!(HEAD_BYTES == 3 * size_of::<usize>());

/// Registrations that the kernel is to find in their place when their threads have ended, with the pages of their words.
static LEFT: Mutex<Vec<Left>> = Mutex::new(Vec::new());

/// A registration that nobody takes back.
struct Left {
    _registered: Box<Registered>,
    _page: NodePage,
}

// SAFETY: nobody reads or changes it any more but the kernel, whose thread ends.
unsafe impl Send for Left {}

/// What a word says of its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vital {
    /// Nobody has registered, or has left in order.
    None,
    /// It lives.
    Lives,
    /// It died.
    Died,
}

/// What a word with this value says.
#[must_use]
pub fn vital(word: u32) -> Vital {
    if word & OWNER_DIED != 0 {
        Vital::Died
    } else if word == 0 {
        Vital::None
    } else {
        Vital::Lives
    }
}

/// The calling thread's registration, as long as it has one.
pub(crate) struct Lifeline {
    page: NodePage,
    registered: Option<Box<Registered>>,
    /// The list that stepped aside.
    before: *mut Registered,
}

impl std::fmt::Debug for Lifeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lifeline({:#x})", self.word().load(Ordering::Relaxed))
    }
}

impl Lifeline {
    /// Registers the calling thread; without the kernel's help its death shows by that of its process only.
    pub(crate) fn tie(page: NodePage) -> Self {
        let none = std::ptr::null_mut();
        let mut registered = Box::new(Registered {
            list: Entry { next: none },
            futex_offset: 0,
            pending: none,
            entry: Entry { next: none },
        });
        let (head, entry) = (&raw mut registered.list, &raw mut registered.entry);
        let word: *const AtomicU32 = page.life();
        let offset = word.addr().wrapping_sub(entry.addr()).cast_signed();
        registered.futex_offset = libc::c_long::try_from(offset).unwrap_or(0);
        registered.entry.next = head;
        registered.list.next = entry;
        let (mut before, mut length) = (std::ptr::null_mut::<Registered>(), 0usize);
        // SAFETY: the kernel writes an address and a length, to places that hold them; 0 is the calling thread.
        let had = unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut before, &raw mut length) };
        if had != 0 || length != HEAD_BYTES {
            before = std::ptr::null_mut();
        }
        // SAFETY: the head is of the kernel's layout and size, and stays where it is until `drop` has taken it back, or for
        // ever; only this thread changes it.
        let done = unsafe { libc::syscall(libc::SYS_set_robust_list, head, HEAD_BYTES) };
        let line = Self { page, registered: (done == 0).then_some(registered), before };
        if line.registered.is_some() {
            let thread = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
            line.word().store(thread | WAITERS, Ordering::Release);
            line.call();
        }
        line
    }

    fn word(&self) -> &AtomicU32 {
        self.page.life()
    }

    fn leave_to_the_kernel(&self, registered: Box<Registered>) {
        let left = Left { _registered: registered, _page: self.page.clone() };
        LEFT.lock().unwrap_or_else(PoisonError::into_inner).push(left);
    }

    fn call(&self) {
        // Shared between processes, hence not private.
        let _ = wake(self.word(), Flags::empty(), 1);
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        let Some(mut registered) = self.registered.take() else { return };
        if std::thread::panicking() {
            // This is a death.
            return self.leave_to_the_kernel(registered);
        }
        // SAFETY: what the kernel named before, or none; from here on it does not know ours.
        let done = unsafe { libc::syscall(libc::SYS_set_robust_list, self.before, HEAD_BYTES) };
        if done != 0 {
            registered.list.next = &raw mut registered.list;
            self.leave_to_the_kernel(registered);
        }
        self.word().store(0, Ordering::Release);
        self.call();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_ends_without_taking_it_back_has_died() {
        let page = NodePage::create().unwrap();
        assert_eq!(vital(page.life().load(Ordering::Acquire)), Vital::None);
        let theirs = page.clone();
        std::thread::spawn(move || {
            let line = Lifeline::tie(theirs.clone());
            assert_eq!(vital(theirs.life().load(Ordering::Acquire)), Vital::Lives);
            let mut line = line;
            if let Some(registered) = line.registered.take() {
                line.leave_to_the_kernel(registered);
            }
        })
        .join()
        .unwrap();
        // The kernel gets to it shortly after the thread can be joined.
        let started = std::time::Instant::now();
        while vital(page.life().load(Ordering::Acquire)) != Vital::Died {
            assert!(started.elapsed() < std::time::Duration::from_secs(10), "its death does not show");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_thread_that_panics_has_died() {
        let page = NodePage::create().unwrap();
        let theirs = page.clone();
        let end = std::thread::spawn(move || {
            let _line = Lifeline::tie(theirs);
            std::panic::resume_unwind(Box::new("as wanted"));
        })
        .join();
        assert!(end.is_err());
        let started = std::time::Instant::now();
        while vital(page.life().load(Ordering::Acquire)) != Vital::Died {
            assert!(started.elapsed() < std::time::Duration::from_secs(10), "its death does not show");
            std::thread::yield_now();
        }
    }

    #[test]
    fn one_that_takes_it_back_has_not() {
        let page = NodePage::create().unwrap();
        let theirs = page.clone();
        std::thread::spawn(move || {
            drop(Lifeline::tie(theirs.clone()));
            // Another one, as after a manager's end.
            drop(Lifeline::tie(theirs));
        })
        .join()
        .unwrap();
        assert_eq!(vital(page.life().load(Ordering::Acquire)), Vital::None);
    }
}
