//! Who gets how much of a processor that several instances share.
//!
//! Each is entitled to what comes for it times what a packet costs it, with something to spare. When that is more than there
//! is, those that want little have it all, so that who shares a processor with an overloaded instance does not suffer for
//! it; the others share the rest in proportion to what they want, as in NFVnice, nobody more than a whole processor.
//!
//! | Means | Where |
//! |---|---|
//! | weights of cgroup v2 (`cgroup.rs`) | a cgroup with the `cpu` controller was delegated to the manager |
//! | nice values of all threads (`nice.rs`) | else, where the manager may also take them back |
//! | none | else, or with `--fair off` |
//!
//! What is set is taken back when a processor is no longer shared, and when nothing is to be shared.

mod cgroup;
mod nice;

use std::collections::BTreeMap;

use onvm_lib::protocol::InstanceId;

use cgroup::Group;

/// How much more than it needs an instance is entitled to, for what comes unevenly.
const SPARE: f64 = 1.25;
/// Least part of an equal share that an instance is entitled to. Who needs less does not use it; but the kernel lets wait
/// longer those that weigh little, and packets for others would wait with it.
const LEAST: f64 = 0.5;
/// Part of a processor that all of its instances together must want before it is divided up.
const WORTH: f64 = 0.5;

/// Whether processors are divided up, and chains that have too much to do turn packets away at the entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Choice {
    /// By weights of cgroups or nice values, whichever there are
    #[default]
    Auto,
    /// Not at all: the kernel treats all alike, and packets are dropped wherever there is no room
    Off,
}

/// By what processors are divided up.
enum Means {
    Off,
    None,
    Nice(nice::Range),
    Cgroup(Group),
}

/// An instance on a processor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sharer {
    pub(crate) instance: InstanceId,
    pub(crate) pid: i32,
    pub(crate) core: u32,
    /// Part of a processor that all that comes for it takes.
    pub(crate) busy: f64,
}

/// Divides processors up.
pub(crate) struct Fair {
    means: Means,
    /// What was set, by instance: its process and the nice value, or the weight.
    set: BTreeMap<InstanceId, (i32, i32)>,
}

impl Fair {
    pub(crate) fn new(choice: Choice) -> Self {
        let means = match choice {
            Choice::Off => Means::Off,
            Choice::Auto => match Group::make() {
                Some(group) => Means::Cgroup(group),
                None => nice::Range::find().map_or(Means::None, Means::Nice),
            },
        };
        Self { means, set: BTreeMap::new() }
    }

    /// The means in force, for people.
    pub(crate) fn means(&self) -> &'static str {
        match self.means {
            Means::Off => "off",
            Means::None => "none",
            Means::Nice(_) => "nice",
            Means::Cgroup(_) => "cgroup",
        }
    }

    /// What was set for an instance: its nice value or its weight.
    pub(crate) fn set_for(&self, instance: InstanceId) -> Option<i32> {
        self.set.get(&instance).map(|(_, value)| *value)
    }

    /// Divides all processors up; `sharers` are all instances that have one.
    pub(crate) fn divide(&mut self, sharers: &[Sharer]) {
        if matches!(self.means, Means::Off | Means::None) {
            return;
        }
        self.set.retain(|id, _| sharers.iter().any(|s| s.instance == *id));
        let mut by_core: BTreeMap<u32, Vec<Sharer>> = BTreeMap::new();
        for sharer in sharers {
            by_core.entry(sharer.core).or_default().push(*sharer);
        }
        for on_core in by_core.values() {
            let wanted: f64 = on_core.iter().map(|s| s.busy).sum();
            if on_core.len() < 2 || wanted < WORTH {
                on_core.iter().for_each(|sharer| self.take_back(sharer));
                continue;
            }
            let shares = shares(&on_core.iter().map(|s| s.busy).collect::<Vec<_>>());
            for (sharer, share) in on_core.iter().zip(shares) {
                self.give(sharer, share, on_core.len());
            }
        }
    }

    /// Gives an instance its share of a processor that it shares with `n - 1` others.
    fn give(&mut self, sharer: &Sharer, share: f64, n: usize) {
        let now = self.set.get(&sharer.instance).map(|(_, value)| *value);
        let value = match &self.means {
            Means::Nice(range) => nice::value(share, n, *range),
            Means::Cgroup(_) => cgroup::weight(share, n),
            Means::Off | Means::None => return,
        };
        let enough = match &self.means {
            Means::Nice(_) => (value - now.unwrap_or(0)).abs() >= nice::STEP,
            _ => cgroup::differs(value, now),
        };
        if !enough {
            return;
        }
        let done = match &self.means {
            Means::Nice(range) => nice::set(sharer.pid, range.usual() + value),
            Means::Cgroup(group) => group.set(sharer.instance, sharer.pid, value),
            Means::Off | Means::None => Ok(()),
        };
        match done {
            Ok(()) => {
                self.set.insert(sharer.instance, (sharer.pid, value));
            }
            Err(error) => {
                log::debug!("instance {}: its share is not set: {error}", sharer.instance);
                self.means_failed();
            }
        }
    }

    /// A process that cannot be moved into a group of ours would not be weighed against the others: nice values do it then.
    fn means_failed(&mut self) {
        if let Means::Cgroup(group) = &self.means {
            self.set.iter().for_each(|(id, (pid, _))| group.take_back(*id, *pid));
            self.set.clear();
            log::info!(
                "not all processes can be moved into a cgroup: processors are divided up by nice values"
            );
            self.means = nice::Range::find().map_or(Means::None, Means::Nice);
        }
    }

    fn take_back(&mut self, sharer: &Sharer) {
        let Some((pid, value)) = self.set.remove(&sharer.instance) else { return };
        match &self.means {
            Means::Nice(range) if value != 0 => {
                if let Err(error) = nice::set(pid, range.usual()) {
                    log::debug!("instance {}: its share is not taken back: {error}", sharer.instance);
                }
            }
            Means::Cgroup(group) => group.take_back(sharer.instance, pid),
            _ => {}
        }
    }
}

/// The shares of a processor, which sum up to 1, for instances that want so much of it each.
fn shares(busy: &[f64]) -> Vec<f64> {
    let wanted: Vec<f64> = busy.iter().map(|b| if b.is_finite() { b.clamp(0.0, 1e3) } else { 0.0 }).collect();
    #[allow(clippy::cast_precision_loss, reason = "at most some thousands")]
    let least = LEAST / busy.len().max(1) as f64;
    let with_spare: Vec<f64> = wanted.iter().map(|w| (w * SPARE).max(least)).collect();
    let mut order: Vec<usize> = (0..busy.len()).collect();
    order.sort_by(|a, b| with_spare[*a].total_cmp(&with_spare[*b]));
    let mut shares = vec![0.0; busy.len()];
    let mut left = 1.0;
    let mut satisfied = 0;
    for (place, index) in order.iter().enumerate() {
        #[allow(clippy::cast_precision_loss, reason = "at most some thousands")]
        let equal = left / (order.len() - place) as f64;
        if with_spare[*index] > equal {
            break;
        }
        shares[*index] = with_spare[*index];
        left -= with_spare[*index];
        satisfied = place + 1;
    }
    // The others: in proportion, and nobody for more than a whole processor.
    let others = &order[satisfied..];
    let sum: f64 = others.iter().map(|i| with_spare[*i].min(1.0)).sum();
    for index in others {
        shares[*index] = left * with_spare[*index].min(1.0) / sum;
    }
    let sum: f64 = shares.iter().sum();
    if sum > 0.0 {
        shares.iter_mut().for_each(|share| *share /= sum);
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(shares: &[f64]) -> f64 {
        shares.iter().sum()
    }

    #[test]
    fn who_wants_little_has_it_and_the_overloaded_has_the_rest() {
        // 50, 270, 550 and 10,000 cycles at 1 Mpps on 3 GHz.
        let wanted = [0.017, 0.09, 0.183, 3.3];
        let shares = shares(&wanted);
        assert!((sum(&shares) - 1.0).abs() < 1e-9);
        assert!(shares.iter().zip(&wanted).take(3).all(|(share, wanted)| share >= wanted), "{shares:?}");
        assert!(shares[3] > 0.5, "{shares:?}");
    }

    #[test]
    fn those_that_want_too_much_share_in_proportion() {
        let shares = shares(&[0.4, 0.8, 0.8]);
        assert!((shares[0] - 0.2).abs() < 0.02 && (shares[1] - 0.4).abs() < 0.02, "{shares:?}");
        let flood = super::shares(&[1.0, 50.0]);
        assert!((flood[0] - flood[1]).abs() < 1e-9, "nobody more than a processor: {flood:?}");
    }

    #[test]
    fn nonsense_and_idleness_give_sane_shares() {
        for wanted in [vec![0.0; 100], vec![f64::NAN, 1.0], vec![f64::INFINITY, -3.0], vec![0.0], vec![]] {
            let shares = shares(&wanted);
            assert!(shares.iter().all(|s| (0.0..=1.0).contains(s)), "{wanted:?}: {shares:?}");
            assert!(wanted.is_empty() || (sum(&shares) - 1.0).abs() < 1e-9);
        }
    }
}
