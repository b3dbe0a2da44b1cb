//! Which node runs on which processor.
//!
//! The worker has the first allowed processor, unless told otherwise. An NF gets the one that it asks for, else the
//! one with fewest nodes; the worker's only when there is no other. A processor with more than one node is shared:
//! those on it yield and sleep instead of spinning.

use std::collections::BTreeMap;

use rustix::thread::CpuSet;

/// The processors and how many nodes each has.
#[derive(Debug)]
pub(crate) struct Cores {
    nodes: BTreeMap<u32, u32>,
    worker: u32,
    pinned: bool,
}

impl Cores {
    /// The processors that this process may use; the worker on `wanted`, or on the first.
    ///
    /// # Errors
    /// Says which processors there are, when the wanted one is none of them.
    pub(crate) fn new(wanted: Option<u32>, pinned: bool) -> Result<Self, String> {
        let set = rustix::thread::sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        let allowed =
            (0..u32::try_from(CpuSet::MAX_CPU).unwrap_or(0)).filter(|cpu| set.is_set(*cpu as usize));
        Self::of(allowed.collect(), wanted, pinned)
    }

    fn of(allowed: Vec<u32>, wanted: Option<u32>, pinned: bool) -> Result<Self, String> {
        let mut nodes: BTreeMap<u32, u32> = allowed.into_iter().map(|cpu| (cpu, 0)).collect();
        let first = nodes.keys().next().copied().unwrap_or(0);
        let worker = wanted.unwrap_or(first);
        match nodes.get_mut(&worker) {
            Some(n) => *n = 1,
            None => return Err(format!("processor {worker} is not available, {} are", list(&nodes))),
        }
        Ok(Self { nodes, worker, pinned })
    }

    /// The worker's processor, if it is to stay there.
    pub(crate) fn worker(&self) -> Option<u32> {
        self.pinned.then_some(self.worker)
    }

    /// Keeps the calling thread off the worker's processor, where what it does would hold up packets.
    pub(crate) fn leave_to_worker(&self) {
        if let Some(Err(error)) = self.worker().map(onvm_lib::cpu::keep_off) {
            log::warn!("cannot keep off the worker's processor: {error}");
        }
    }

    /// A processor for an NF.
    ///
    /// # Errors
    /// Why it cannot have the one that it asks for.
    pub(crate) fn assign(&mut self, wanted: Option<u32>, shares: bool) -> Result<Option<u32>, String> {
        let core = match wanted {
            Some(core) => {
                let Some(nodes) = self.nodes.get(&core) else {
                    return Err(format!("processor {core} is not available, {} are", list(&self.nodes)));
                };
                if *nodes > 0 && !shares && core != self.worker {
                    log::info!("processor {core} has {nodes} node(s) already: they will share it");
                }
                core
            }
            None if !self.pinned => return Ok(None),
            None => {
                let others = self.nodes.iter().filter(|(cpu, _)| **cpu != self.worker);
                others.min_by_key(|(_, n)| **n).map_or(self.worker, |(cpu, _)| *cpu)
            }
        };
        if let Some(n) = self.nodes.get_mut(&core) {
            *n += 1;
        }
        Ok(Some(core))
    }

    /// An NF has gone.
    pub(crate) fn release(&mut self, core: Option<u32>) {
        if let Some(n) = core.and_then(|core| self.nodes.get_mut(&core)) {
            *n = n.saturating_sub(1);
        }
    }

    /// Whether more than one node runs where this one does; without pinning, whether there are more nodes than
    /// processors (`nodes` counts the NFs).
    pub(crate) fn is_shared(&self, core: Option<u32>, nodes: usize) -> bool {
        match core {
            Some(core) => self.nodes.get(&core).is_some_and(|n| *n > 1),
            None => nodes + 1 > self.nodes.len(),
        }
    }

    /// Whether an NF runs on the worker's processor.
    pub(crate) fn worker_shares(&self, nodes: usize) -> bool {
        self.is_shared(self.worker(), nodes)
    }
}

fn list(nodes: &BTreeMap<u32, u32>) -> String {
    nodes.keys().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

/// Keeps the calling thread on one processor.
pub(crate) fn pin(core: u32) {
    if let Err(error) = onvm_lib::cpu::pin(core) {
        log::warn!("cannot stay on processor {core}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nfs_keep_off_the_workers_processor_while_they_can() {
        let mut cores = Cores::of(vec![0, 1, 3], None, true).unwrap();
        assert_eq!(cores.assign(None, false), Ok(Some(1)));
        assert_eq!(cores.assign(None, false), Ok(Some(3)));
        assert!(!cores.is_shared(Some(3), 2) && !cores.worker_shares(2));
        assert_eq!(cores.assign(None, false), Ok(Some(1)));
        assert!(cores.is_shared(Some(1), 3));
        cores.release(Some(1));
        assert!(!cores.is_shared(Some(1), 2));
        assert_eq!(cores.assign(Some(0), false), Ok(Some(0)));
        assert!(cores.worker_shares(3));
        assert_eq!(cores.assign(Some(2), false), Err("processor 2 is not available, 0, 1, 3 are".into()));
    }

    #[test]
    fn one_processor_is_shared_by_all() {
        let mut cores = Cores::of(vec![5], None, true).unwrap();
        assert_eq!(cores.assign(None, false), Ok(Some(5)));
        assert!(cores.is_shared(Some(5), 1));
        assert!(Cores::of(vec![5], Some(4), true).is_err());
    }

    #[test]
    fn without_pinning_the_kernel_decides() {
        let mut cores = Cores::of(vec![0, 1], None, false).unwrap();
        assert_eq!(cores.assign(None, false), Ok(None));
        assert!(!cores.is_shared(None, 1) && cores.is_shared(None, 2));
    }
}
