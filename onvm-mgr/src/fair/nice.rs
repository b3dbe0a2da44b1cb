//! Shares as nice values: each step is a quarter more or less.
//!
//! On Linux each thread has its own. Where the kernel groups processes by session (`sched_autogroup`), nice values count among
//! those of one session: NFs from different terminals are not weighed against each other.

use rustix::io::Errno;
use rustix::process::{Pid, getpriority_process, setpriority_process};

/// Steps by which a value must change to be set anew.
pub(super) const STEP: i32 = 2;
/// What one step is worth.
const FACTOR: f64 = 1.25;
/// Farthest that an instance is moved from the usual value: about nine times as much, or as little.
const FARTHEST: i32 = 10;

/// The nice values that the manager may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    usual: i32,
    /// It may go below the usual value.
    below: bool,
}

impl Range {
    /// The values that can be set and taken back: without the right to lower one, none can.
    pub(super) fn find() -> Option<Self> {
        // Tried by a thread of its own, which ends.
        std::thread::spawn(|| {
            let usual = getpriority_process(None).ok()?;
            let may = |value| setpriority_process(None, value).is_ok();
            let back = usual < 19 && may(usual + 1) && may(usual);
            back.then(|| Self { usual, below: usual > -20 && may(usual - 1) })
        })
        .join()
        .ok()
        .flatten()
    }

    /// The value of those that are not touched.
    pub(super) fn usual(self) -> i32 {
        self.usual
    }
}

/// The nice value of an instance with a share of a processor that `n` have, seen from the usual value, which stands for an equal
/// share.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "small numbers, and cut")]
pub(super) fn value(share: f64, n: usize, range: Range) -> i32 {
    let steps = -(share * n as f64).max(1e-6).log(FACTOR);
    let steps = (steps.round() as i32).clamp(-FARTHEST, FARTHEST);
    // Who may not go below moves all up by as much, so that the differences stay.
    let steps = if range.below { steps } else { steps + most_below(n) };
    steps.clamp(-20 - range.usual, 19 - range.usual)
}

/// How far below the usual value an instance among `n` can be: with all of the processor.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "small numbers, and cut")]
fn most_below(n: usize) -> i32 {
    ((n as f64).log(FACTOR).ceil() as i32).clamp(0, FARTHEST)
}

/// Sets the nice value of all threads of a process.
pub(super) fn set(pid: i32, value: i32) -> std::io::Result<()> {
    let mut first = None;
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let Some(tid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        match setpriority_process(Pid::from_raw(tid), value) {
            // It has ended meanwhile.
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => first = first.or(Some(error)),
        }
    }
    first.map_or(Ok(()), |error| Err(error.into()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;

    use super::*;

    const ROOT: Range = Range { usual: 0, below: true };
    const USER: Range = Range { usual: 0, below: false };

    #[test]
    fn an_equal_share_is_the_usual_value() {
        for n in 1..100usize {
            #[allow(clippy::cast_precision_loss, reason = "small")]
            let share = 1.0 / n as f64;
            assert_eq!(value(share, n, ROOT), 0);
        }
    }

    #[test]
    fn a_step_is_a_quarter() {
        assert_eq!(value(0.5 * 1.25, 2, ROOT), -1);
        assert_eq!(value(0.5 / 1.25, 2, ROOT), 1);
        assert_eq!((value(0.0, 4, ROOT), value(1.0, 1000, ROOT)), (FARTHEST, -FARTHEST));
        assert_eq!(value(0.0, 4, Range { usual: 15, below: true }), 4);
    }

    #[test]
    fn without_privilege_values_only_go_up_and_differ_as_much() {
        for share in [0.01, 0.1, 0.25, 0.6, 1.0] {
            let (root, user) = (value(share, 4, ROOT), value(share, 4, USER));
            assert!((0..=19).contains(&user), "{share}: {user}");
            assert_eq!(user - root, 7, "{share}");
        }
    }

    fn nice_of(pid: i32) -> i32 {
        getpriority_process(Pid::from_raw(pid)).unwrap()
    }

    #[test]
    fn a_process_is_set_and_set_back() {
        let Some(range) = Range::find() else {
            let why = "SKIPPED: this user may not take nice values back (root or RLIMIT_NICE is needed)\n";
            let _ = std::io::stderr().lock().write_all(why.as_bytes());
            return;
        };
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id().cast_signed();
        set(pid, range.usual + 5).unwrap();
        let there = nice_of(pid);
        set(pid, range.usual).unwrap();
        let back = nice_of(pid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((there, back), (range.usual + 5, range.usual));
        assert!(set(pid, 0).is_err(), "it is gone");
    }
}
