//! Flows by key: bounded, swept a few at a time, and told of when they end.

use std::collections::HashMap;

use super::key::{End, Found, Key, Seed, direction, stable_number};
use super::{Direction, FlowView};
use crate::decode::Decoded;
use crate::stream::Session;

/// Slots that are looked at for ended flows with each packet.
const SWEPT_A_PACKET: usize = 2;
/// Flows among which the one that has to go is chosen when the table is full.
const ELECTION: usize = 8;
const SECOND_NS: u64 = 1_000_000_000;

/// How far a flow has come.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub enum State {
    /// Packets in one direction, or a handshake that is not complete.
    #[default]
    New,
    /// Both sides have sent; TCP: the handshake is complete.
    Established,
    /// TCP: both sides have ended it, or one has reset it.
    Closed,
}

/// Seconds without a packet after which a flow ends.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// TCP, by state: new, established, closed.
    pub tcp: [u64; 3],
    /// UDP, likewise.
    pub udp: [u64; 3],
    /// ICMP.
    pub icmp: [u64; 3],
    /// What else IP carries.
    pub other: [u64; 3],
}

impl Default for Timeouts {
    /// As in the configuration that Suricata comes with.
    fn default() -> Self {
        Self { tcp: [60, 600, 60], udp: [30, 300, 0], icmp: [30, 300, 0], other: [30, 300, 0] }
    }
}

/// A flow. `X` is what the engine keeps with it.
#[derive(Debug)]
pub struct Flow<X> {
    pub(super) key: Key,
    pub(super) client_low: bool,
    /// Its number.
    pub id: u64,
    /// Who began it.
    pub client: End,
    /// With whom.
    pub server: End,
    /// Protocol of IP.
    pub protocol: u8,
    /// VLAN ids, outermost first.
    pub vlans: [u16; 3],
    /// How many of them.
    pub vlan_count: u8,
    /// Time of the first packet.
    pub start_ns: u64,
    /// Time of the last.
    pub last_ns: u64,
    /// Packets by direction.
    pub packets: [u64; 2],
    /// Bytes by direction.
    pub bytes: [u64; 2],
    /// How far it has come.
    pub state: State,
    /// The TCP session, if there is one.
    pub session: Option<Box<Session>>,
    /// What is kept with it.
    pub kept: X,
}

impl<X> Flow<X> {
    /// What rules may ask of it, with a packet in this direction.
    #[must_use]
    pub fn view(&self, direction: Direction, now_ns: u64) -> FlowView {
        FlowView {
            id: self.id,
            direction,
            established: self.state != State::New,
            both_ways: self.packets.iter().all(|count| *count > 0),
            first_in_direction: self.packets[direction.index()] == 1,
            presence: super::Presence::Packet,
            start_ns: self.start_ns,
            now_ns,
            packets: self.packets,
            bytes: self.bytes,
            stream_bytes: self.session.as_ref().map(|session| session.sizes()),
            last: false,
        }
    }

    /// Makes the server the client and the other way round: the packet that began it was an answer.
    pub fn turn_round(&mut self) {
        std::mem::swap(&mut self.client, &mut self.server);
        self.client_low = !self.client_low;
        self.packets.swap(0, 1);
        self.bytes.swap(0, 1);
    }
}

/// A look-up that found a flow, or made one.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Where it is.
    pub slot: usize,
    /// Which way the packet goes.
    pub direction: Direction,
    /// It was made for this packet.
    pub new: bool,
}

/// What a packet found.
#[derive(Debug)]
pub enum Lookup<X> {
    /// Its flow.
    At(Place),
    /// Its flow, and one that had to end for it: it has timed out, was replaced, or had to make room.
    Ended(Place, Box<Flow<X>>),
}

/// The table.
#[derive(Debug)]
pub struct Table<X> {
    places: HashMap<Key, u32, Seed>,
    slots: Vec<Option<Box<Flow<X>>>>,
    free: Vec<u32>,
    most: usize,
    swept: usize,
    timeouts: Timeouts,
    /// Flows that ended to make room.
    pub evicted: u64,
    /// Flows made so far.
    pub made: u64,
}

impl<X: Default> Table<X> {
    /// A table of at most `most` flows (1 to 2^31).
    #[must_use]
    pub fn new(most: usize, timeouts: Timeouts) -> Self {
        let most = most.clamp(1, 1 << 31);
        Self {
            places: HashMap::with_capacity_and_hasher(most.min(1 << 16), Seed::default()),
            slots: Vec::new(),
            free: Vec::new(),
            most,
            swept: 0,
            timeouts,
            evicted: 0,
            made: 0,
        }
    }

    /// Flows in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The flow in a slot; only for slots that were just found.
    ///
    /// # Panics
    /// If there is none.
    pub fn flow(&mut self, slot: usize) -> &mut Flow<X> {
        match self.slots.get_mut(slot) {
            Some(Some(flow)) => flow,
            _ => panic!("flow slot {slot} is empty"),
        }
    }

    /// Finds the flow of a packet, or makes one. `reuse` says whether a packet begins a session anew in a flow.
    pub fn look(
        &mut self,
        found: &Found,
        packet: &Decoded<'_>,
        now_ns: u64,
        reuse: impl FnOnce(&Flow<X>, Direction) -> bool,
    ) -> Lookup<X> {
        let mut ended = None;
        if let Some(&slot) = self.places.get(&found.key) {
            let slot = slot as usize;
            let timeouts = self.timeouts;
            let flow = self.flow(slot);
            let direction = direction(found, flow.client, flow.client_low);
            if !timed_out(&timeouts, flow, now_ns) && !reuse(flow, direction) {
                return Lookup::At(Place { slot, direction, new: false });
            }
            ended = self.take(slot);
        } else if self.places.len() >= self.most {
            ended = self.elect();
            self.evicted += 1;
        }
        let place = self.make(found, packet, now_ns);
        match ended {
            Some(flow) => Lookup::Ended(place, flow),
            None => Lookup::At(place),
        }
    }

    /// The flow of a key, if there is one; nothing is made.
    #[must_use]
    pub fn find(&self, found: &Found) -> Option<Place> {
        let slot = *self.places.get(&found.key)? as usize;
        let flow = self.slots.get(slot)?.as_ref()?;
        Some(Place { slot, direction: direction(found, flow.client, flow.client_low), new: false })
    }

    fn make(&mut self, found: &Found, packet: &Decoded<'_>, now_ns: u64) -> Place {
        let mut vlans = [0; 3];
        for (place, id) in vlans.iter_mut().zip(packet.vlan_ids()) {
            *place = *id;
        }
        let flow = Flow {
            key: found.key,
            client_low: found.from_low,
            id: stable_number(&found.key, now_ns),
            client: found.source,
            server: found.destination,
            protocol: packet.protocol.unwrap_or(0),
            vlans,
            vlan_count: u8::try_from(packet.vlan_ids().len()).unwrap_or(3),
            start_ns: now_ns,
            last_ns: now_ns,
            packets: [0; 2],
            bytes: [0; 2],
            state: State::New,
            session: None,
            kept: X::default(),
        };
        self.made += 1;
        Place { slot: self.insert(flow), direction: Direction::ToServer, new: true }
    }

    fn insert(&mut self, flow: Flow<X>) -> usize {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        self.places.insert(flow.key, slot);
        self.slots[slot as usize] = Some(Box::new(flow));
        slot as usize
    }

    /// All flows.
    pub(super) fn all(&self) -> impl Iterator<Item = &Flow<X>> {
        self.slots.iter().flatten().map(|flow| &**flow)
    }

    /// Takes a flow that another table had, if there is room and none of its key.
    pub(super) fn put(&mut self, flow: Flow<X>) -> bool {
        let takes = self.places.len() < self.most && !self.places.contains_key(&flow.key);
        if takes {
            self.insert(flow);
        }
        takes
    }

    fn take(&mut self, slot: usize) -> Option<Box<Flow<X>>> {
        let flow = self.slots.get_mut(slot)?.take()?;
        self.places.remove(&flow.key);
        self.free.push(u32::try_from(slot).unwrap_or(u32::MAX));
        Some(flow)
    }

    /// The flow that has to go: of some that lie together, one that is closed, else new, else the longest silent.
    fn elect(&mut self) -> Option<Box<Flow<X>>> {
        let rank = |flow: &Flow<X>| (flow.state == State::Established, flow.last_ns);
        let count = self.slots.len();
        let candidates = (0..count).map(|step| (self.swept + step) % count);
        let chosen = candidates
            .filter_map(|slot| self.slots[slot].as_ref().map(|flow| (slot, rank(flow))))
            .take(ELECTION)
            .min_by_key(|(_, rank)| *rank)?;
        self.swept = (self.swept + ELECTION) % count;
        self.take(chosen.0)
    }

    /// Looks at a few flows, and takes out one whose time is over. Called with each packet.
    pub fn sweep(&mut self, now_ns: u64) -> Option<Box<Flow<X>>> {
        for _ in 0..SWEPT_A_PACKET.min(self.slots.len()) {
            self.swept = (self.swept + 1) % self.slots.len();
            let over =
                self.slots[self.swept].as_ref().is_some_and(|flow| timed_out(&self.timeouts, flow, now_ns));
            if over {
                return self.take(self.swept);
            }
        }
        None
    }

    /// Takes out the next flow from a slot on, whatever its time: for the end. None when all are out.
    pub fn take_next(&mut self, from: &mut usize) -> Option<Box<Flow<X>>> {
        while *from < self.slots.len() {
            *from += 1;
            if let Some(flow) = self.take(*from - 1) {
                return Some(flow);
            }
        }
        None
    }
}

fn timed_out<X>(timeouts: &Timeouts, flow: &Flow<X>, now_ns: u64) -> bool {
    let by_state = match flow.protocol {
        6 => &timeouts.tcp,
        17 => &timeouts.udp,
        1 | 58 => &timeouts.icmp,
        _ => &timeouts.other,
    };
    now_ns.saturating_sub(flow.last_ns) > by_state[flow.state as usize] * SECOND_NS
}
