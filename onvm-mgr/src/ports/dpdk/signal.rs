//! `SIGIO`, with which the kernel tells of every packet that comes to a TAP device of DPDK's: its driver asks the device only
//! then. The signal is for the process, and the kernel would rather wake a sleeping thread with it than tell the one that
//! polls. So only the worker lets it in.

use std::mem::MaybeUninit;

/// Keeps it off the calling thread, and off those that this one starts from now on.
pub(in crate::ports) fn leave_to_worker() {
    set(libc::SIG_BLOCK);
}

/// Lets it in where packets are received.
pub(super) fn let_in() {
    set(libc::SIG_UNBLOCK);
}

fn set(how: libc::c_int) {
    let mut signals = MaybeUninit::uninit();
    // SAFETY: the set is emptied, which makes it one, before it is added to and read; nothing is written back.
    let error = unsafe {
        libc::sigemptyset(signals.as_mut_ptr());
        libc::sigaddset(signals.as_mut_ptr(), libc::SIGIO);
        libc::pthread_sigmask(how, signals.as_ptr(), std::ptr::null_mut())
    };
    debug_assert_eq!(error, 0, "a mask of one signal");
}
