//! What a firewall counts, by rule and beside the rules.

use serde::{Deserialize, Serialize};

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hits {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// Of these packets, those that a limit dropped.
    pub(crate) limited: u64,
}

impl Hits {
    pub(crate) fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }

    /// Adds what was counted before.
    pub(crate) fn add_all(&mut self, before: Self) {
        self.packets += before.packets;
        self.bytes += before.bytes;
        self.limited += before.limited;
    }
}

/// What was counted beside the rules.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) default: Hits,
    pub(crate) non_ip: Hits,
    pub(crate) malformed: Hits,
    pub(crate) stray: Hits,
    pub(crate) allowed: u64,
    pub(crate) denied: u64,
    pub(crate) rejected: u64,
    /// Resets and ICMP errors made.
    pub(crate) answers: u64,
    /// Rejected packets that got no answer: it must not be, there were too many, or there was no buffer.
    pub(crate) unanswered: u64,
}
