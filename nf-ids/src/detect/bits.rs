//! Bits and counters: what a rule asks of them, and what it does with them when it matches.

use std::collections::HashMap;
use std::net::IpAddr;

use super::names::hash;
use super::state::FlowState;
use crate::rules::{BitCommand, CounterCommand, CounterValue, Keeper, StateTest};

/// Bits of hosts that are kept.
const MOST: usize = 1 << 17;

/// What must hold.
#[derive(Clone, Debug)]
pub(crate) enum Condition {
    Bit(Keeper, bool, Vec<u64>),
    Counter(u64, CounterCommand),
    Variable(bool, u64, Vec<u8>),
}

/// What is done.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Bit(Keeper, BitCommand, u64, u32),
    Counter(u64, CounterCommand),
}

impl Condition {
    pub(crate) fn of(test: &StateTest) -> Option<Self> {
        match test {
            StateTest::Bit(keeper, BitCommand::IsSet, names, _) => {
                Some(Condition::Bit(*keeper, true, names.iter().map(|n| hash(n)).collect()))
            }
            StateTest::Bit(keeper, BitCommand::IsNotSet, names, _) => {
                Some(Condition::Bit(*keeper, false, names.iter().map(|n| hash(n)).collect()))
            }
            StateTest::Variable { of_flow, name, bytes } => {
                Some(Condition::Variable(*of_flow, hash(name), bytes.clone()))
            }
            StateTest::Counter(name, command) if test.is_condition() => {
                Some(Condition::Counter(hash(name), command.clone()))
            }
            _ => None,
        }
    }
}

impl Action {
    pub(crate) fn of(test: &StateTest) -> Option<Self> {
        match test {
            _ if test.is_condition() => None,
            StateTest::Bit(keeper, command, names, seconds) => {
                Some(Action::Bit(*keeper, *command, hash(names.first()?), *seconds))
            }
            StateTest::Counter(name, command) => Some(Action::Counter(hash(name), command.clone())),
            StateTest::Variable { .. } => None,
        }
    }
}

/// Whose bit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
enum Owner {
    Host(IpAddr),
    Pair(IpAddr, IpAddr),
}

/// Bits of hosts and of pairs of hosts, with the time until which they are set.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct HostBits {
    set: HashMap<(Owner, u64), u64>,
    /// What expressions kept of the packet.
    #[serde(skip)]
    pub(crate) of_packet: Vec<(u64, Vec<u8>)>,
}

/// Whom a packet is of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whose {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) now_ns: u64,
    pub(crate) transaction: Option<u64>,
}

impl Whose {
    fn owner(&self, keeper: Keeper) -> Owner {
        let (source, destination) = (self.source, self.destination);
        match keeper {
            Keeper::Destination => Owner::Host(destination),
            Keeper::Pair => Owner::Pair(source.min(destination), source.max(destination)),
            _ => Owner::Host(source),
        }
    }
}

impl HostBits {
    fn has(&self, owner: Owner, name: u64, now_ns: u64) -> bool {
        self.set.get(&(owner, name)).is_some_and(|until| *until > now_ns)
    }

    fn put(&mut self, owner: Owner, name: u64, on: bool, seconds: u32, now_ns: u64) {
        if !on {
            self.set.remove(&(owner, name));
            return;
        }
        if self.set.len() >= MOST {
            self.set.retain(|_, until| *until > now_ns);
            if self.set.len() >= MOST {
                return;
            }
        }
        let until = if seconds == 0 { u64::MAX } else { now_ns + u64::from(seconds) * 1_000_000_000 };
        self.set.insert((owner, name), until);
    }

    /// Whether all conditions hold. Without a flow, no bit of a flow is set.
    pub(crate) fn hold(&self, all: &[Condition], flow: Option<&FlowState>, whose: &Whose) -> bool {
        all.iter().all(|condition| match condition {
            Condition::Bit(Keeper::Flow, set, names) => {
                flow.is_some_and(|flow| names.iter().any(|name| flow.has_bit(*name) == *set))
            }
            Condition::Bit(Keeper::Transaction, set, names) => flow.is_some_and(|flow| {
                names.iter().any(|name| {
                    whose.transaction.is_some_and(|id| flow.has_transaction_bit(id, *name)) == *set
                })
            }),
            Condition::Bit(keeper, set, names) => {
                let owner = whose.owner(*keeper);
                names.iter().any(|name| self.has(owner, *name, whose.now_ns) == *set)
            }
            Condition::Variable(of_flow, name, bytes) => {
                let known = if *of_flow {
                    flow.and_then(|flow| flow.variable(*name))
                } else {
                    let all = self.of_packet.iter().rev();
                    all.clone().find(|(known, _)| known == name).map(|(_, value)| &value[..])
                };
                known.is_some_and(|value| memchr::memmem::find(value, bytes).is_some())
            }
            Condition::Counter(name, command) => flow.is_some_and(|flow| counter(flow, *name, command)),
        })
    }

    /// Does what a match does.
    pub(crate) fn act(&mut self, all: &[Action], mut flow: Option<&mut FlowState>, whose: &Whose) {
        for action in all {
            match (action, flow.as_deref_mut()) {
                (Action::Bit(Keeper::Flow, command, name, _), Some(flow)) => {
                    flow.set_bit(*name, turned(*command, flow.has_bit(*name)));
                }
                (Action::Bit(Keeper::Transaction, command, name, _), Some(flow)) => {
                    if let Some(id) = whose.transaction {
                        let on = turned(*command, flow.has_transaction_bit(id, *name));
                        flow.set_transaction_bit(id, *name, on);
                    }
                }
                (Action::Bit(Keeper::Flow | Keeper::Transaction, ..), None) => {}
                (Action::Bit(keeper, command, name, seconds), _) => {
                    let owner = whose.owner(*keeper);
                    let on = turned(*command, self.has(owner, *name, whose.now_ns));
                    self.put(owner, *name, on, *seconds, whose.now_ns);
                }
                (Action::Counter(name, command), Some(flow)) => count(flow, *name, command),
                (Action::Counter(..), None) => {}
            }
        }
    }
}

/// What a bit is after a command.
fn turned(command: BitCommand, before: bool) -> bool {
    match command {
        BitCommand::Set => true,
        BitCommand::Unset => false,
        BitCommand::Toggle => !before,
        _ => before,
    }
}

fn value(flow: &FlowState, value: &CounterValue) -> Option<u32> {
    match value {
        CounterValue::Is(n) => Some(*n),
        CounterValue::Of(name) => flow.counter(hash(name)),
    }
}

/// Whether a counter is as asked. One that was never set is nothing that could be compared.
fn counter(flow: &FlowState, name: u64, command: &CounterCommand) -> bool {
    use CounterCommand as C;
    let compare = |right: &CounterValue, holds: fn(&u32, &u32) -> bool| {
        flow.counter(name).zip(value(flow, right)).is_some_and(|(left, right)| holds(&left, &right))
    };
    match command {
        C::IsSet(set) => flow.counter(name).is_some() == *set,
        C::Less(right) => compare(right, u32::lt),
        C::AtMost(right) => compare(right, u32::le),
        C::Equal(right) => compare(right, u32::eq),
        C::NotEqual(right) => compare(right, u32::ne),
        C::AtLeast(right) => compare(right, u32::ge),
        C::Greater(right) => compare(right, u32::gt),
        C::Add(_) | C::Subtract(_) | C::Set(_) => true,
    }
}

fn count(flow: &mut FlowState, name: u64, command: &CounterCommand) {
    use CounterCommand as C;
    let before = flow.counter(name).unwrap_or(0);
    let after = match command {
        C::Add(right) => value(flow, right).map(|n| before.saturating_add(n)),
        C::Subtract(right) => value(flow, right).map(|n| before.saturating_sub(n)),
        C::Set(right) => value(flow, right),
        _ => None,
    };
    if let Some(after) = after {
        flow.set_counter(name, after);
    }
}
