//! Connections: which backend has each, and how its packets change on their way.
//!
//! With address translation a connection is two flows in one table, one a direction, each under the key that its
//! packets arrive with. What a packet becomes stands in its flow, and that is what the other one's key is made of:
//!
//! ```text
//! there   client → virtual     becomes   client (or source NAT) → backend
//! back    backend → client (or source NAT)     becomes   virtual → client
//! ```
//! The two come and go together. In the other modes answers do not come by here, and there is one flow.
//!
//! A packet touches its own flow only. What both directions say together (is it established, is it over, for how long
//! was it silent) is put together when the table is swept, and where a new connection asks.
//!
//! In a full table half-open and closed connections go first, then what is not TCP; within a class, who has been silent
//! for longest. An established connection makes room only where there is nobody else nearby, and only if it has been
//! silent for a minute; if that is nobody, it is the new connection that is refused.

use onvm_lib::flow_table::{FlowTable, Guess, Inserted};
use onvm_lib::wire::{FlowKey, MacAddr, tcp};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

use crate::config::{Mode, Timeouts};

/// One end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    /// Its address.
    pub(crate) ip: IpAddr,
    /// Its port.
    pub(crate) port: u16,
}

/// The key of packets between two endpoints; none if they are of different IP versions.
#[must_use]
pub(crate) fn key_between(source: Endpoint, destination: Endpoint, protocol: u8) -> Option<FlowKey> {
    match (source.ip, destination.ip) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            Some(FlowKey::v4(src, dst, source.port, destination.port, protocol))
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            Some(FlowKey::v6(src, dst, source.port, destination.port, protocol))
        }
        _ => None,
    }
}

/// The two ends of a key of an IP flow.
#[must_use]
pub(crate) fn ends(key: &FlowKey) -> Option<(Endpoint, Endpoint)> {
    let source = Endpoint { ip: key.src()?, port: key.src_port() };
    Some((source, Endpoint { ip: key.dst()?, port: key.dst_port() }))
}

/// How packets of a flow are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Carry {
    /// To the backend, translated.
    Nat,
    /// From the backend, translated.
    Back,
    /// To the backend, by its Ethernet address.
    Dsr,
    /// To the backend, in IP.
    Ipip,
    /// To the backend, in GUE.
    Gue,
}

impl From<Mode> for Carry {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Nat => Self::Nat,
            Mode::Dsr => Self::Dsr,
            Mode::Ipip => Self::Ipip,
            Mode::Gue => Self::Gue,
        }
    }
}

/// What was seen of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen(pub(crate) u8);

impl Seen {
    /// A TCP segment with FIN.
    pub(crate) const FIN: Self = Self(1);
    /// A segment that asks for a connection.
    pub(crate) const SYN: Self = Self(2);
    /// A TCP segment with RST.
    pub(crate) const RST: Self = Self(4);
    /// Of a flow back: the client has confirmed its answer, so that the connection is established.
    pub(crate) const CONFIRMED: Self = Self(8);
    /// A TCP segment with ACK; after the first of a side without SYN the connection is established.
    pub(crate) const ACK: Self = Self(16);
    /// It was asked for more than once.
    pub(crate) const RETRIED: Self = Self(64);
    /// A packet, of whatever protocol.
    pub(crate) const ANY: Self = Self(128);

    #[inline(always)]
    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// What a TCP segment with these flags shows: its ACK counts in segments without SYN only.
    #[inline(always)]
    pub(crate) fn of(flags: u8) -> Self {
        let ack = if flags & 2 == 0 { flags & 16 } else { 0 };
        Self(flags & 7 | ack | Self::ANY.0)
    }

    #[inline(always)]
    pub(crate) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Flow {
    /// When a packet last came.
    pub(crate) last_ns: u64,
    /// What a packet's source becomes.
    pub(crate) source: Endpoint,
    /// What a packet's destination becomes.
    pub(crate) destination: Endpoint,
    /// Slot of the backend.
    pub(crate) server: u32,
    /// Hash of the flow that packets become part of.
    pub(crate) hash: u32,
    /// Ethernet address of the client, or of the router to it.
    pub(crate) mac: [u8; 6],
    pub(crate) carry: Carry,
    pub(crate) seen: Seen,
}

impl Flow {
    #[inline(always)]
    pub(crate) fn client_mac(&self) -> MacAddr {
        MacAddr(self.mac)
    }

    /// The key of the other direction; none for what has none.
    pub(crate) fn twin(&self, key: &FlowKey) -> Option<FlowKey> {
        if !matches!(self.carry, Carry::Nat | Carry::Back) {
            return None;
        }
        key_between(self.destination, self.source, key.protocol()?)
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Closed,
    HalfOpen,
    /// Not TCP.
    Other,
    Established,
}

fn phase(key: &FlowKey, flow: &Flow, twin: Option<&Flow>) -> Phase {
    if key.protocol() != Some(tcp::PROTOCOL) {
        return Phase::Other;
    }
    let other = twin.map_or(flow.seen, |twin| twin.seen);
    if flow.seen.has(Seen::RST) || other.has(Seen::RST) {
        return Phase::Closed;
    }
    match twin {
        Some(_) if flow.seen.has(Seen::FIN) && other.has(Seen::FIN) => Phase::Closed,
        // Answers are not seen: the other side may still have much to say.
        None if flow.seen.has(Seen::FIN) => Phase::Other,
        // The client's word alone does not count: it could say so without ever having been answered.
        Some(_) if flow.seen.has(Seen::ACK) && other.has(Seen::ANY) => Phase::Established,
        Some(_) if other.has(Seen::ACK) => Phase::Established,
        None if flow.seen.has(Seen::ACK) => Phase::Established,
        _ => Phase::HalfOpen,
    }
}

/// For how long an established connection must have been silent before another may have its place, in nanoseconds.
const IDLE: u64 = 60_000_000_000;

/// How much a flow alone is worth when room is needed; what its other direction says is not looked up. None for one
/// that must stay: an established one, if not `hard_pressed`, and even then if it is not idle.
fn rank(key: &FlowKey, flow: &Flow, hard_pressed: bool, now_ns: u64) -> Option<(u8, u64)> {
    let tcp = key.protocol() == Some(tcp::PROTOCOL);
    let established = flow.seen.has(Seen(Seen::ACK.0 | Seen::CONFIRMED.0)) && !flow.seen.has(Seen::RST);
    let class = match (tcp, established) {
        (true, false) => 0,
        (false, _) => 1,
        (true, true) if hard_pressed && now_ns.saturating_sub(flow.last_ns) >= IDLE => 2,
        (true, true) => return None,
    };
    Some((class, flow.last_ns))
}

/// What a connection that is over gave back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Over {
    /// Its key in the direction to the backend.
    pub(crate) key: FlowKey,
    /// Its flow in that direction.
    pub(crate) flow: Flow,
}

/// All connections.
#[derive(Debug)]
pub(crate) struct Connections {
    pub(crate) table: FlowTable<Flow>,
    timeouts_ns: TimeoutsNs,
    /// Connections that are over since the last look.
    over: Vec<Over>,
}

#[derive(Clone, Copy, Debug)]
struct TimeoutsNs {
    half_open: u64,
    established: u64,
    closed: u64,
    other: u64,
}

impl TimeoutsNs {
    fn new(timeouts: &Timeouts) -> Self {
        let ns = |d: std::time::Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        Self {
            half_open: ns(timeouts.half_open),
            established: ns(timeouts.established),
            closed: ns(timeouts.closed),
            other: ns(timeouts.other),
        }
    }

    fn of(self, phase: Phase) -> u64 {
        match phase {
            Phase::Closed => self.closed,
            Phase::HalfOpen => self.half_open,
            Phase::Other => self.other,
            Phase::Established => self.established,
        }
    }
}

impl Connections {
    /// Room for so many connections, each of two flows.
    pub(crate) fn new(most: u32, timeouts: &Timeouts) -> Self {
        Self {
            table: FlowTable::new(most as usize * 2),
            timeouts_ns: TimeoutsNs::new(timeouts),
            over: Vec::new(),
        }
    }

    pub(crate) fn set_timeouts(&mut self, timeouts: &Timeouts) {
        self.timeouts_ns = TimeoutsNs::new(timeouts);
    }

    /// A flow, as it is found after the burst's flows were brought near.
    #[inline(always)]
    pub(crate) fn find_at(&mut self, guess: Guess, hash: u32, key: &FlowKey) -> Option<&mut Flow> {
        self.table.find_at(guess, hash, key)
    }

    /// Adds a connection: its flow to the backend, and the one back where there is one. False if there is no room,
    /// or the way back is another connection's.
    pub(crate) fn open(&mut self, hash: u32, key: FlowKey, flow: Flow, back: Option<Flow>) -> bool {
        let twin = flow.twin(&key);
        if let Some(twin) = &twin
            && (*twin == key || self.table.get(flow.hash, twin).is_some())
        {
            return false;
        }
        if !self.put(hash, key, flow, None) {
            return false;
        }
        let (Some(twin), Some(back)) = (twin, back) else { return true };
        let done = self.put(flow.hash, twin, back, Some(key));
        if !done {
            self.table.remove(hash, &key);
        }
        done
    }

    fn put(&mut self, hash: u32, key: FlowKey, flow: Flow, spare: Option<FlowKey>) -> bool {
        let now_ns = flow.last_ns;
        for hard_pressed in [false, true] {
            let put = self.table.insert(hash, key, flow, |other, flow| {
                rank(other, flow, hard_pressed, now_ns).filter(|_| Some(*other) != spare)
            });
            match put {
                Inserted::New => return true,
                Inserted::Replaced(old) => {
                    self.forget_other(key, old);
                    return true;
                }
                Inserted::Evicted(out, old) => {
                    self.forget_other(out, old);
                    return true;
                }
                Inserted::Refused(_) => {}
            }
        }
        false
    }

    /// One flow of a connection is out of the table: takes out the other, and notes that the connection is over.
    fn forget_other(&mut self, key: FlowKey, flow: Flow) {
        let twin = flow.twin(&key);
        let other = twin.and_then(|twin| Some((twin, self.table.remove(flow.hash, &twin)?)));
        match (flow.carry, other) {
            (Carry::Back, Some((key, flow))) => self.over.push(Over { key, flow }),
            (Carry::Back, None) => {}
            _ => self.over.push(Over { key, flow }),
        }
    }

    /// Ends a connection by its flow to the backend.
    pub(crate) fn close(&mut self, hash: u32, key: &FlowKey) {
        if let Some(flow) = self.table.remove(hash, key) {
            self.forget_other(*key, flow);
        }
    }

    /// Whether a connection, by its flow to the backend, is over, so that its ports may begin another.
    pub(crate) fn is_over(&self, key: &FlowKey, flow: &Flow) -> bool {
        let twin = flow.twin(key).and_then(|twin| self.table.get(flow.hash, &twin));
        match phase(key, flow, twin) {
            Phase::Closed => true,
            Phase::Other => key.protocol() == Some(tcp::PROTOCOL),
            Phase::HalfOpen | Phase::Established => false,
        }
    }

    /// Whether the backend has answered.
    pub(crate) fn is_answered(&self, key: &FlowKey, flow: &Flow) -> bool {
        let twin = flow.twin(key).and_then(|twin| self.table.get(flow.hash, &twin));
        twin.is_none_or(|twin| twin.seen != Seen::default())
    }

    /// Ends connections that have been silent for too long; looks at so many flows.
    pub(crate) fn sweep(&mut self, flows: usize, now_ns: u64) {
        let mut silent = Vec::new();
        let shortest = self.timeouts_ns.closed.min(self.timeouts_ns.half_open).min(self.timeouts_ns.other);
        self.table.sweep(flows, |key, flow| {
            if flow.carry != Carry::Back
                && now_ns.saturating_sub(flow.last_ns) >= shortest.min(self.timeouts_ns.established)
            {
                silent.push(*key);
            }
            true
        });
        for key in silent {
            let hash = key.hash32();
            let Some(flow) = self.table.get(hash, &key).copied() else { continue };
            let twin = flow.twin(&key).and_then(|twin| self.table.get(flow.hash, &twin));
            let last_ns = twin.map_or(flow.last_ns, |twin| twin.last_ns.max(flow.last_ns));
            let timeout_ns = self.timeouts_ns.of(phase(&key, &flow, twin));
            if now_ns.saturating_sub(last_ns) >= timeout_ns {
                self.close(hash, &key);
            }
        }
    }

    /// Connections that are over since the last call.
    pub(crate) fn take_over_list(&mut self) -> Vec<Over> {
        std::mem::take(&mut self.over)
    }

    pub(crate) fn has_over(&self) -> bool {
        !self.over.is_empty()
    }
}
