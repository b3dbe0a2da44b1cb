//! What rules remember: bits, counters, thresholds.

use std::sync::Arc;

/// Where a bit is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Keeper {
    /// With the flow (`flowbits`).
    Flow,
    /// With the source address (`xbits … track ip_src`, `hostbits … src`).
    Source,
    /// With the destination address.
    Destination,
    /// With both addresses (`xbits … track ip_pair`).
    Pair,
    /// With the transaction (`xbits … track tx`).
    Transaction,
}

/// What is asked of or done with a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BitCommand {
    /// Done on a match.
    Set,
    /// Done on a match.
    Unset,
    /// Done on a match.
    Toggle,
    /// Must be set.
    IsSet,
    /// Must not be set.
    IsNotSet,
}

/// What is asked of or done with a counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CounterCommand {
    /// Done on a match: the value, or another counter's.
    Add(CounterValue),
    /// Done on a match; not below 0.
    Subtract(CounterValue),
    /// Done on a match.
    Set(CounterValue),
    /// Less.
    Less(CounterValue),
    /// Less or the same.
    AtMost(CounterValue),
    /// The same.
    Equal(CounterValue),
    /// Another.
    NotEqual(CounterValue),
    /// More or the same.
    AtLeast(CounterValue),
    /// More.
    Greater(CounterValue),
    /// It has been set (`true`) or not.
    IsSet(bool),
}

/// A constant or another counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CounterValue {
    /// A constant.
    Is(u32),
    /// The counter of this name.
    Of(Arc<str>),
}

/// A bit or a counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateTest {
    /// Bits; more than one name with `|` asks for any of them. The last is for how many seconds a set bit lasts (0: as
    /// long as its keeper).
    Bit(Keeper, BitCommand, Vec<Arc<str>>, u32),
    /// A counter of the flow (`flowint`).
    Counter(Arc<str>, CounterCommand),
    /// What an expression kept with the flow (`flowvar`) or the packet (`pktvar`) has these bytes in it.
    Variable {
        /// With the flow.
        of_flow: bool,
        /// Its name.
        name: Arc<str>,
        /// What must be in it.
        bytes: Vec<u8>,
    },
}

impl StateTest {
    /// Whether it must hold for a match (else it is done on one).
    #[must_use]
    pub fn is_condition(&self) -> bool {
        use CounterCommand as C;
        match self {
            StateTest::Bit(_, command, ..) => matches!(command, BitCommand::IsSet | BitCommand::IsNotSet),
            StateTest::Variable { .. } => true,
            StateTest::Counter(_, command) => !matches!(command, C::Add(_) | C::Subtract(_) | C::Set(_)),
        }
    }
}

/// By what matches are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Track {
    /// The packet's source.
    Source,
    /// Its destination.
    Destination,
    /// Both, whichever way.
    Both,
    /// The rule alone.
    Rule,
    /// The flow.
    Flow,
}

/// `threshold: type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThresholdKind {
    /// Every `count`th within the time.
    Threshold,
    /// The first `count` within the time.
    Limit,
    /// Once within the time, at the `count`th.
    Both,
    /// At `count`, and at each `multiplier` times that.
    Backoff,
}

/// `threshold`, also from a threshold file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// How.
    pub kind: ThresholdKind,
    /// By what.
    pub track: Track,
    /// How many.
    pub count: u32,
    /// Within how many seconds.
    pub seconds: u32,
    /// `backoff`'s factor.
    pub multiplier: u32,
}

/// What must differ between the matches that a filter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UniqueOn {
    /// The source port.
    SourcePort,
    /// The destination port.
    DestinationPort,
    /// The source address.
    Source,
    /// The destination address.
    Destination,
}

/// `detection_filter`: matches count only beyond `count` within `seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// By what.
    pub track: Track,
    /// How many are let by without an alert.
    pub count: u32,
    /// Within how many seconds.
    pub seconds: u32,
    /// Only matches that differ in this count.
    pub unique: Option<UniqueOn>,
}
