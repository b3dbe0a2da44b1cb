//! How many instances a service shall have: by what comes for it, within the bounds of its plan.
//!
//! More are started at once, as many as are needed; one at a time leaves, and only when those that stay would be well
//! below the target. Between the two lies a band in which nothing changes, so that a steady load never makes instances come
//! and go.

use crate::plan::Scale;

/// Looks in a row after which there are more instances.
const LOOKS_UP: u32 = 2;
/// Looks in a row after which there is one less.
const LOOKS_DOWN: u32 = 10;
/// Part of the target below which those that stay must be.
const MARGIN: f64 = 0.8;
/// Part of a ring that is a deep queue.
pub(crate) const DEEP: f64 = 0.25;

/// Chooses the number of instances of one service.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Controller {
    above: u32,
    below: u32,
}

impl Controller {
    /// A look: there are `n` instances, all that comes takes `busy` processors, and `deep` says that a queue is deep. The number
    /// that there shall be, if it is another.
    pub(crate) fn look(&mut self, scale: &Scale, n: u32, busy: f64, deep: bool) -> Option<u32> {
        let bounded = n.min(scale.max).max(scale.min).max(1);
        if bounded != n {
            *self = Self::default();
            return Some(bounded);
        }
        let target = scale.target_load.max(0.01);
        if deep || busy / f64::from(n) > target {
            self.below = 0;
            self.above += 1;
            if self.above < LOOKS_UP || n >= scale.max {
                return None;
            }
            self.above = 0;
            return Some(needed(busy, target).max(n + 1).min(scale.max));
        }
        self.above = 0;
        if n <= scale.min.max(1) || busy / f64::from(n - 1) >= MARGIN * target {
            self.below = 0;
            return None;
        }
        self.below += 1;
        if self.below < LOOKS_DOWN {
            return None;
        }
        self.below = 0;
        Some(n - 1)
    }
}

/// Instances that are busy up to the target.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 250, and cut to that")]
fn needed(busy: f64, target: f64) -> u32 {
    (busy / target).ceil().clamp(0.0, f64::from(crate::plan::MAX_INSTANCES)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALE: Scale = Scale { min: 1, max: 6, target_load: 0.7 };

    /// Runs looks with a load each; returns the number of instances after each.
    fn simulate(scale: &Scale, start: u32, loads: impl IntoIterator<Item = f64>) -> Vec<u32> {
        let (mut n, mut controller) = (start, Controller::default());
        let look = |busy| {
            n = controller.look(scale, n, busy, false).unwrap_or(n);
            n
        };
        loads.into_iter().map(look).collect()
    }

    fn changes(of: &[u32]) -> usize {
        of.windows(2).filter(|w| w[0] != w[1]).count()
    }

    #[test]
    fn it_goes_up_at_once_by_as_many_as_needed() {
        assert_eq!(simulate(&SCALE, 1, [2.5; 4]), [1, 4, 4, 4]);
        assert_eq!(simulate(&SCALE, 1, [0.75; 3]), [1, 2, 2]);
    }

    #[test]
    fn a_single_peak_changes_nothing() {
        let peaks = (0..100).map(|i| if i % 2 == 0 { 3.0 } else { 0.5 });
        assert_eq!(simulate(&SCALE, 1, peaks), [1; 100]);
    }

    #[test]
    fn it_goes_down_one_at_a_time_and_slowly() {
        let n = simulate(&SCALE, 4, [0.1; 60]);
        assert_eq!((n[8], n[9], n[18], n[19], n[29], n[59]), (4, 3, 3, 2, 1, 1));
    }

    #[test]
    fn a_steady_load_never_flaps() {
        for step in 0..=120 {
            let busy = f64::from(step) * 0.05;
            for start in 1..=6 {
                // The load shakes by a tenth.
                let loads = (0..400).map(|i| busy * [1.0, 1.1, 0.9, 1.05, 0.95][i % 5]);
                let n = simulate(&SCALE, start, loads);
                assert!(changes(&n[150..]) == 0, "{busy} from {start}: {n:?}");
                assert!(n.iter().all(|n| (1..=6).contains(n)));
            }
        }
    }

    #[test]
    fn bounds_hold_whatever_comes() {
        assert_eq!(simulate(&SCALE, 1, [1e9; 4]), [1, 6, 6, 6]);
        assert_eq!(simulate(&Scale { min: 2, ..SCALE }, 1, [0.0; 40]), [2; 40]);
        assert_eq!(simulate(&Scale { max: 3, ..SCALE }, 9, [0.0]), [3]);
        assert_eq!(simulate(&SCALE, 1, [f64::NAN; 30]), [1; 30]);
        assert_eq!(simulate(&Scale { min: 3, max: 2, ..SCALE }, 1, [0.0; 30])[29], 3, "nonsense has an end");
    }

    #[test]
    fn a_deep_queue_asks_for_one_more() {
        let mut controller = Controller::default();
        assert_eq!(controller.look(&SCALE, 2, 0.1, true), None);
        assert_eq!(controller.look(&SCALE, 2, 0.1, true), Some(3));
    }
}
