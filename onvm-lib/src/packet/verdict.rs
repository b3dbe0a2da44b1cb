//! What an NF says of a packet, and why packets are dropped.

use crate::ring::{Destination, Op};

macro_rules! drop_reasons {
    ($($variant:ident = $number:literal, $name:literal, $text:literal;)*) => {
        /// Why a packet was dropped. Every drop has one, and a counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $text] $variant = $number,)*
        }

        impl DropReason {
            /// All reasons, in order of their numbers, which are consecutive from 0.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Name used in statistics and ledgers.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

drop_reasons! {
    Denied = 0, "denied", "A rule of the NF denies it.";
    Malformed = 1, "malformed", "The NF found headers that cannot be.";
    RateLimited = 2, "rate-limited", "Over a rate that was set.";
    Unsupported = 3, "unsupported", "A protocol or option that the NF cannot handle.";
    HopsExceeded = 4, "ttl-exceeded", "The IP time to live or hop limit ran out.";
    NoRoute = 5, "no-route", "The NF knows no way to the address.";
    TableFull = 6, "table-full", "The NF has no room for another flow.";
    Consumed = 7, "consumed", "The packet was meant for the NF itself and ends there.";
    Backpressure = 8, "backpressure", "The way ahead stayed full.";
    NoInstance = 9, "no-instance", "No instance of the service is attached.";
    HopLimit = 10, "hop-limit", "It passed too many services: they send it in a circle.";
    Reaped = 11, "reaped", "It was in the hands of an NF that died.";
    NoSuchPort = 12, "no-such-port", "The port does not exist.";
    SendFailed = 13, "send-failed", "The port could not send it.";
    TooLong = 14, "too-long", "It does not fit a buffer or the port's MTU.";
    NoBuffer = 15, "no-buffer", "The pool was exhausted.";
    BadVerdict = 16, "bad-verdict", "The NF gave a verdict that means nothing.";
    Shutdown = 17, "shutdown", "The manager stopped before it came out.";
    Lost = 18, "lost", "An NF took the buffer and never passed it on; the audit found it.";
    Quarantined = 19, "quarantined", "It was in the hands of two instances in a row when they died.";
    InjectedFault = 20, "injected-fault", "The fault= option of a port dropped it.";
}

impl DropReason {
    /// Number of reasons.
    pub const COUNT: usize = Self::ALL.len();

    /// The reason with a number, as read from a descriptor.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What an NF says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On with its chain, or to the destination given at launch; the verdict of packets that get no other.
    Next,
    /// To a service, by its id (1..=4095).
    ToService(u16),
    /// Out of a port, by its id (0..=126).
    Out(u8),
    /// Away with it.
    Drop(DropReason),
}

impl Verdict {
    /// How the verdict stands in a descriptor. `arrived` is the destination that the packet came with; it
    /// carries its position in the chain.
    #[inline(always)]
    pub(crate) fn encode(self, arrived: Destination) -> Destination {
        match self {
            Self::Next => arrived,
            Self::ToService(id) => Destination::new(Op::Service, id),
            Self::Out(port) => Destination::new(Op::Port, u16::from(port)),
            Self::Drop(reason) => Destination::new(Op::Drop, reason as u16),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_in_order_and_named_once() {
        let mut names = std::collections::HashSet::new();
        for (i, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
            assert_eq!(DropReason::from_number(u16::try_from(i).unwrap()), Some(*reason));
            assert!(names.insert(reason.name()), "{reason} stands twice");
        }
        assert_eq!(DropReason::from_number(99), None);
    }

    #[test]
    fn a_verdict_survives_the_descriptor() {
        let here = Destination::new(Op::Next, 7);
        assert_eq!(Verdict::Next.encode(here), here);
        assert_eq!(Verdict::Out(3).encode(here), Destination::new(Op::Port, 3));
        assert_eq!(Verdict::ToService(40).encode(here), Destination::new(Op::Service, 40));
        assert_eq!(Verdict::Drop(DropReason::Reaped).encode(here), Destination::new(Op::Drop, 11));
    }
}
