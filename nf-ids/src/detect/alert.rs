//! What detection says of a packet.

use std::sync::Arc;

use crate::flow::Direction;
use crate::rules::{Action, RejectTo, Rule};

/// A rule that matched, and what with.
#[derive(Clone, Debug)]
pub struct Alert {
    /// The rule: its number, revision, message, class, metadata.
    pub rule: Arc<Rule>,
    /// What was done with the packet, which a threshold file may have changed from what the rule says.
    pub action: Action,
    /// The transaction that it matched in.
    pub transaction: Option<u64>,
    /// Direction of the packet that it is raised with.
    pub direction: Direction,
    /// It matched in the reassembled stream.
    pub in_stream: bool,
}

/// What becomes of a packet, as the rules have it. An IDS notes it, an IPS does it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decision {
    /// It goes on.
    #[default]
    Accept,
    /// It does not.
    Drop,
    /// It does not, and someone is told.
    Reject(RejectTo),
}

/// The result of an inspection, besides the alerts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What becomes of the packet.
    pub decision: Decision,
    /// The same becomes of the packets of its flow that follow.
    pub for_flow: bool,
    /// A `pass` rule matched.
    pub passed: bool,
}
