//! What detection remembers of a flow.

use super::threshold::Entry;
use crate::app::Buffer;

/// Bits and counters that a flow may have; more rules than a set has would be needed to reach it.
const MOST: usize = 4096;
/// Variables that a flow may have; each is at most 4 KiB.
const MOST_VARIABLES: usize = 16;
/// Transactions of which something is remembered.
const MOST_TRANSACTIONS: usize = 512;
/// Rules remembered for a transaction: those that wait for more of it, and those that matched.
pub(crate) const MOST_RULES: usize = 2048;

/// What was decided for all that follows of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Fate {
    /// Nothing.
    #[default]
    Open,
    /// No rule is asked any more.
    Passed,
    /// It is dropped.
    Dropped,
}

/// Of one transaction and direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Rules that matched in it, or cannot any more; sorted.
    pub(crate) done: Vec<u32>,
    /// Rules whose fast pattern was found, with the sections that have matched so far (a bit each); sorted.
    pub(crate) waiting: Vec<(u32, u64)>,
    /// Buffers that need not be searched again: whole, and searched.
    pub(crate) searched: Vec<(Buffer, u16)>,
    /// Tables of buffers that still grow, and how many bytes of them were searched.
    pub(crate) partly: Vec<(u16, usize)>,
    /// Progress and bytes when the waiting rules were asked last.
    pub(crate) asked_at: Option<(crate::app::Progress, usize, usize)>,
    /// The rules without a fast pattern were taken up.
    pub(crate) begun: bool,
    /// Nothing can change any more.
    pub(crate) finished: bool,
}

/// Of one transaction, by direction.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    pub(crate) id: u64,
    pub(crate) ways: [Seen; 2],
    /// Rules of both directions (`=>`): sections that have matched so far.
    pub(crate) both: Vec<(u32, u64)>,
    pub(crate) bits: Vec<u64>,
}

/// Detection's memory of a flow. The flow table keeps it with the flow. A successor gets what is not said in indices of
/// the rule set.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct FlowState {
    pub(crate) fate: Fate,
    /// Rules of addresses were asked, by direction.
    pub(crate) addresses_asked: [bool; 2],
    /// Rules of the protocol alone were asked, by direction.
    pub(crate) protocol_asked: [bool; 2],
    /// Hashes of names, sorted.
    bits: Vec<u64>,
    counters: Vec<(u64, u32)>,
    /// What expressions kept, by the hash of its name.
    variables: Vec<(u64, Vec<u8>)>,
    pub(crate) thresholds: Vec<(u64, Entry)>,
    #[serde(skip)]
    transactions: Vec<Transaction>,
    /// Rules whose fast pattern is in what the window of a direction still holds: they may match with what comes. With
    /// each, where in the stream its pattern ends at the latest.
    #[serde(skip)]
    pub(crate) pending: [Vec<(u32, u64)>; 2],
    /// Number of the rule set that the indices are of.
    #[serde(skip)]
    generation: u64,
}

impl FlowState {
    /// Whether a rule's action dropped the flow: no packet of it is to go on.
    #[must_use]
    pub fn is_dropped(&self) -> bool {
        self.fate == Fate::Dropped
    }

    /// Whether a `pass` rule let the flow go uninspected.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        self.fate == Fate::Passed
    }

    /// Bytes held beyond the structure itself.
    #[must_use]
    pub fn memory(&self) -> usize {
        let rules = |s: &Seen| s.done.capacity() * 4 + s.waiting.capacity() * 16 + s.searched.capacity() * 4;
        let each = |t: &Transaction| {
            size_of::<Transaction>() + rules(&t.ways[0]) + rules(&t.ways[1]) + t.both.capacity() * 16
        };
        self.bits.capacity() * 8
            + self.counters.capacity() * 16
            + self.variables.iter().map(|(_, value)| value.capacity() + 32).sum::<usize>()
            + self.thresholds.capacity() * size_of::<(u64, Entry)>()
            + self.transactions.iter().map(each).sum::<usize>()
    }

    /// Forgets what is said in indices of another rule set. Bits and counters are kept by name and stay.
    pub(crate) fn follow(&mut self, generation: u64) {
        if self.generation != generation {
            self.generation = generation;
            self.transactions.clear();
            self.pending = Default::default();
        }
    }

    pub(crate) fn has_bit(&self, name: u64) -> bool {
        self.bits.binary_search(&name).is_ok()
    }

    pub(crate) fn set_bit(&mut self, name: u64, on: bool) {
        match self.bits.binary_search(&name) {
            Ok(at) if !on => {
                self.bits.remove(at);
            }
            Err(at) if on && self.bits.len() < MOST => self.bits.insert(at, name),
            _ => {}
        }
    }

    pub(crate) fn counter(&self, name: u64) -> Option<u32> {
        self.counters.iter().find(|(n, _)| *n == name).map(|(_, value)| *value)
    }

    pub(crate) fn set_counter(&mut self, name: u64, value: u32) {
        if let Some(entry) = self.counters.iter_mut().find(|(n, _)| *n == name) {
            entry.1 = value;
        } else if self.counters.len() < MOST {
            self.counters.push((name, value));
        }
    }

    pub(crate) fn variable(&self, name: u64) -> Option<&[u8]> {
        self.variables.iter().find(|(n, _)| *n == name).map(|(_, value)| &value[..])
    }

    pub(crate) fn set_variable(&mut self, name: u64, value: Vec<u8>) {
        if let Some(entry) = self.variables.iter_mut().find(|(n, _)| *n == name) {
            entry.1 = value;
        } else if self.variables.len() < MOST_VARIABLES {
            self.variables.push((name, value));
        }
    }

    /// What is remembered of a transaction.
    pub(crate) fn transaction(&mut self, id: u64) -> &mut Transaction {
        let at = match self.transactions.binary_search_by_key(&id, |t| t.id) {
            Ok(at) => at,
            Err(mut at) => {
                if self.transactions.len() >= MOST_TRANSACTIONS {
                    self.transactions.remove(0);
                    at = at.saturating_sub(1);
                }
                let new = Transaction { id, ways: Default::default(), both: Vec::new(), bits: Vec::new() };
                self.transactions.insert(at, new);
                at
            }
        };
        &mut self.transactions[at]
    }

    pub(crate) fn has_transaction_bit(&self, id: u64, name: u64) -> bool {
        let found = self.transactions.binary_search_by_key(&id, |t| t.id);
        found.is_ok_and(|at| self.transactions[at].bits.contains(&name))
    }

    pub(crate) fn set_transaction_bit(&mut self, id: u64, name: u64, on: bool) {
        let bits = &mut self.transaction(id).bits;
        bits.retain(|bit| *bit != name);
        if on && bits.len() < MOST {
            bits.push(name);
        }
    }

    /// Forgets the transactions below `id`.
    pub(crate) fn forget_below(&mut self, id: u64) {
        let keep = self.transactions.partition_point(|t| t.id < id);
        self.transactions.drain(..keep);
    }
}
