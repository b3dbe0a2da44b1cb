//! One flow: what went which way, when, and how far a TCP connection got.

use onvm_lib::wire::FlowKey;
use onvm_lib::wire::tcp::Flags;
use serde::{Deserialize, Serialize};

use crate::application::Finding;
use crate::protocols::Count;

/// What makes a flow or host large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Sort {
    Bytes,
    Packets,
}

impl Sort {
    pub(crate) fn weight(self, count: Count) -> u64 {
        match self {
            Self::Bytes => count.bytes,
            Self::Packets => count.packets,
        }
    }
}

/// What a packet adds to its flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Of the frame.
    pub(crate) bytes: u64,
    /// Of the IP packet; 0 unless records are made.
    pub(crate) octets: u64,
    pub(crate) now_ns: u64,
    /// None for what is not TCP.
    pub(crate) flags: Flags,
}

/// One direction of a flow.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Direction {
    pub(crate) count: Count,
    /// Bytes of IP packets, with their headers; counted only if records are made.
    pub(crate) octets: u64,
    /// All TCP flags seen.
    flags: u16,
}

impl Direction {
    /// All TCP flags seen.
    pub(crate) fn flags(&self) -> Flags {
        Flags(self.flags)
    }
}

/// How far a TCP connection got, from the flags seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Asked for; no answer yet.
    Opening,
    /// Both sides agreed, or it was under way when the watch began.
    Open,
    /// One side has said its last.
    Closing,
    /// Both have.
    Closed,
    Reset,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Open => "open",
            Self::Closing => "closing",
            Self::Closed => "closed",
            Self::Reset => "reset",
        }
    }
}

/// What the first packet of a flow says of the way there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// Type of service or traffic class.
    pub(crate) tos: u8,
    /// Of the outermost VLAN tag; 0 without.
    pub(crate) vlan: u16,
}

/// A flow, both directions. Its key is in the table, and is the one that both directions share.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Flow {
    pub(crate) first_ns: u64,
    pub(crate) last_ns: u64,
    /// As the first packet went, and the other way.
    pub(crate) ways: [Direction; 2],
    /// The first packet went against the direction of the key.
    reversed: bool,
    pub(crate) application: Finding,
    /// Number of the last survey that has it; 0: none.
    #[serde(skip)]
    pub(crate) surveyed: u8,
    pub(crate) origin: Origin,
}

impl Flow {
    /// A flow that begins with a packet.
    #[inline]
    pub(crate) fn new(reversed: bool, seen: Seen) -> Self {
        let mut flow = Self {
            first_ns: seen.now_ns,
            last_ns: seen.now_ns,
            ways: [Direction::default(); 2],
            reversed,
            application: Finding::default(),
            surveyed: 0,
            origin: Origin::default(),
        };
        flow.add::<true>(reversed, seen);
        flow
    }

    /// The key of the first packet.
    pub(crate) fn first_key(&self, key: &FlowKey) -> FlowKey {
        if self.reversed { key.reversed() } else { *key }
    }

    /// Counts a packet; `RECORDS`: octets, too.
    #[inline]
    pub(crate) fn add<const RECORDS: bool>(&mut self, reversed: bool, seen: Seen) {
        let way = &mut self.ways[usize::from(reversed != self.reversed)];
        way.count.add(seen.bytes);
        if RECORDS {
            way.octets += seen.octets;
        }
        way.flags |= seen.flags.0;
        self.last_ns = self.last_ns.max(seen.now_ns);
    }

    /// What comes after a cut by the active timeout: the same flow, which begins anew with a packet.
    pub(crate) fn next_part(&self, reversed: bool, seen: Seen) -> Self {
        let ways = [Direction::default(); 2];
        let mut next = Self { first_ns: seen.now_ns, last_ns: seen.now_ns, ways, ..*self };
        next.add::<true>(reversed, seen);
        next
    }

    /// Both directions together.
    pub(crate) fn total(&self) -> Count {
        let [there, back] = self.ways.map(|way| way.count);
        Count { packets: there.packets + back.packets, bytes: there.bytes + back.bytes }
    }

    /// Whether a packet with these flags begins another connection between the same ports.
    #[inline]
    pub(crate) fn is_reopened_by(&self, flags: Flags) -> bool {
        flags.contains(Flags::SYN)
            && !flags.intersects(Flags::ACK)
            && matches!(self.state(), Some(State::Closed | State::Reset))
    }

    /// The TCP state; none for what is not TCP.
    #[inline]
    pub(crate) fn state(&self) -> Option<State> {
        let [there, back] = self.ways.map(|way| Flags(way.flags));
        let any = Flags(there.0 | back.0);
        let state = match [there, back].map(|f| f.contains(Flags::FIN)) {
            _ if any.0 == 0 => return None,
            _ if any.contains(Flags::RST) => State::Reset,
            [true, true] => State::Closed,
            [true, false] | [false, true] => State::Closing,
            _ if any.contains(Flags::ACK) => State::Open,
            _ => State::Opening,
        };
        Some(state)
    }

    /// The TCP flags seen either way, as letters in the order of their bits: `FSRPAUEC`.
    pub(crate) fn flag_letters(&self) -> String {
        letters(Flags(self.ways[0].flags | self.ways[1].flags))
    }
}

/// TCP flags as letters in the order of their bits: `FSRPAUEC`.
pub(crate) fn letters(flags: Flags) -> String {
    "FSRPAUEC"
        .chars()
        .enumerate()
        .filter(|(bit, _)| flags.0 >> bit & 1 == 1)
        .map(|(_, letter)| letter)
        .collect()
}

/// A flow and its key.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Keyed {
    /// The key that both directions share.
    pub(crate) key: FlowKey,
    pub(crate) flow: Flow,
}

impl Keyed {
    /// The key of the first packet.
    pub(crate) fn first_key(&self) -> FlowKey {
        self.flow.first_key(&self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn flow(flags: &[(bool, u16)]) -> Flow {
        let seen = |flags, now_ns| Seen { bytes: 60, octets: 46, now_ns, flags: Flags(flags) };
        let (first, rest) = flags.split_first().unwrap();
        let mut flow = Flow::new(first.0, seen(first.1, 10));
        for (now_ns, (reversed, flags)) in (11..).zip(rest) {
            flow.add::<true>(*reversed, seen(*flags, now_ns));
        }
        flow
    }

    const SYN: u16 = Flags::SYN.0;
    const ACK: u16 = Flags::ACK.0;
    const FIN: u16 = Flags::FIN.0;
    const RST: u16 = Flags::RST.0;

    #[test]
    fn a_connection_goes_through_its_states() {
        let whole = [
            (true, SYN),
            (false, SYN | ACK),
            (true, ACK),
            (false, FIN | ACK),
            (true, ACK),
            (true, FIN | ACK),
        ];
        let states =
            [State::Opening, State::Open, State::Open, State::Closing, State::Closing, State::Closed];
        for (n, state) in (1..).zip(states) {
            assert_eq!(flow(&whole[..n]).state(), Some(state), "after {n}");
        }
        assert_eq!(flow(&[(true, SYN), (false, RST | ACK)]).state(), Some(State::Reset));
        assert_eq!(flow(&[(true, ACK)]).state(), Some(State::Open));
        assert_eq!(flow(&[(true, 0)]).state(), None);
        assert_eq!(flow(&whole).flag_letters(), "FSA");
    }

    #[test]
    fn the_first_packet_gives_the_direction() {
        let flow = flow(&[(true, SYN), (false, SYN | ACK), (true, ACK)]);
        assert_eq!(flow.ways.map(|way| way.count.packets), [2, 1]);
        let key = FlowKey::v4(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2), 1, 2, 6);
        assert_eq!(flow.first_key(&key).to_string(), "10.0.0.2:2 > 10.0.0.1:1 tcp");
        assert_eq!((flow.first_ns, flow.last_ns, flow.total().bytes), (10, 12, 180));
        assert_eq!(flow.ways.map(|way| way.octets), [92, 46]);
    }

    #[test]
    fn only_a_syn_after_the_end_reopens() {
        let over = flow(&[(true, RST)]);
        assert!(over.is_reopened_by(Flags::SYN));
        assert!(!over.is_reopened_by(Flags(SYN | ACK)) && !over.is_reopened_by(Flags::ACK));
        assert!(!flow(&[(true, SYN)]).is_reopened_by(Flags::SYN));
    }
}
