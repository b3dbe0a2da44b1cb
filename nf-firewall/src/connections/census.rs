//! How many connections there are of each kind, without a look at all of them at once.
//!
//! They are counted in the search for those that are over, which looks at a part of the table at a time. A report says what the
//! last whole round found: it is as old as a round takes, some seconds for a large table, and nobody waits for it.

use std::collections::BTreeMap;

use onvm_lib::wire::{FlowKey, protocol_name};

use super::Connection;
use super::tcp::Phase;

/// Names of what TCP connections are in.
const PHASES: [&str; 8] =
    ["syn-sent", "syn-received", "established", "fin-wait", "close-wait", "last-ack", "time-wait", "closed"];
/// These, and for each protocol those that were seen one way and both ways.
const KINDS: usize = PHASES.len() + 2 * 256;

/// Connections by kind.
#[derive(Clone, Debug)]
pub(super) struct Tally(Box<[u32; KINDS]>);

impl Default for Tally {
    fn default() -> Self {
        Self(Box::new([0; KINDS]))
    }
}

impl Tally {
    pub(super) fn count(&mut self, key: &FlowKey, connection: &Connection) {
        self.0[kind(key, connection)] += 1;
    }

    /// By name, those that there are.
    pub(super) fn by_name(&self) -> BTreeMap<String, u64> {
        let there = self.0.iter().enumerate().filter(|(_, n)| **n > 0);
        there.map(|(kind, n)| (name(kind), u64::from(*n))).collect()
    }
}

fn kind(key: &FlowKey, connection: &Connection) -> usize {
    match &connection.tcp {
        Some(tcp) => phase_number(tcp.phase),
        None => {
            let protocol = usize::from(key.protocol().unwrap_or(0));
            PHASES.len() + 2 * protocol + usize::from(connection.answered)
        }
    }
}

fn phase_number(phase: Phase) -> usize {
    match phase {
        Phase::SynSent | Phase::SynSent2 => 0,
        Phase::SynReceived => 1,
        Phase::Established => 2,
        Phase::FinWait => 3,
        Phase::CloseWait => 4,
        Phase::LastAck => 5,
        Phase::TimeWait => 6,
        Phase::Closed => 7,
    }
}

#[cfg(test)]
pub(super) fn phase_name(phase: Phase) -> &'static str {
    PHASES[phase_number(phase)]
}

fn name(kind: usize) -> String {
    if let Some(phase) = PHASES.get(kind) {
        return format!("tcp {phase}");
    }
    let number = u8::try_from((kind - PHASES.len()) / 2).unwrap_or(u8::MAX);
    let protocol = protocol_name(number).map_or_else(|| number.to_string(), str::to_string);
    format!("{protocol} {}", if (kind - PHASES.len()) % 2 == 1 { "both ways" } else { "one way" })
}

/// Counts round after round.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// Of the round that is under way.
    now: Tally,
    /// Slots that it still has to look at; none before it has begun.
    left: Option<usize>,
    last: Option<Tally>,
}

impl Census {
    /// A connection that stays.
    #[inline]
    pub(super) fn count(&mut self, key: &FlowKey, connection: &Connection) {
        self.now.count(key, connection);
    }

    /// Slots that the round has left, of all that there are.
    pub(super) fn left(&self, all: usize) -> usize {
        self.left.unwrap_or(all)
    }

    /// So many slots were looked at, of all that there are.
    pub(super) fn looked(&mut self, slots: usize, all: usize) {
        let left = self.left(all).saturating_sub(slots);
        self.left = Some(left).filter(|left| *left > 0);
        if left == 0 {
            self.last = Some(std::mem::take(&mut self.now));
        }
    }

    /// What the last whole round found; none before there was one.
    pub(super) fn last(&self) -> Option<&Tally> {
        self.last.as_ref()
    }
}
