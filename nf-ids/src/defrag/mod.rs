//! Putting IPv4 and IPv6 fragments together.
//!
//! ```text
//! fragment ─▶ datagram of (addresses, id, protocol, VLANs, depth) ─▶ all there? ─▶ head of the first + data ─▶ decode
//!                │ overlap, too large, no room: an event of the fragment
//! ```
//! Which of two overlapping fragments counts depends on the receiver ([`Policy`]), as with segments of TCP; the same
//! [`Assembler`] keeps them. A datagram is forgotten when it is complete, after [`Settings::timeout_s`], or, the oldest first,
//! when there is no room for another. IPv6 forbids overlaps (RFC 5722); they are reported, and what a lenient receiver would
//! make of them is inspected.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use crate::decode::{Decoded, Event, Fragment};
use crate::stream::{Assembler, Policy, Put};

/// Longest datagram, in bytes; IPv4's with its header.
const MOST_LENGTH: u64 = 65_535;
const IPV4_HEADER: u64 = 20;
/// Entries in the order of silence that may mean nothing any more, beside as many as there are datagrams.
const MOST_STALE: usize = 64;

/// Bounds and policy.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Which data counts where fragments overlap.
    pub policy: Policy,
    /// Seconds that a further fragment of a datagram is waited for.
    pub timeout_s: u64,
    /// Datagrams that are being put together, at most.
    pub most: usize,
    /// Memory of them, at most, in bytes.
    pub memory: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { policy: Policy::Bsd, timeout_s: 60, most: 65_535, memory: 32 << 20 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    id: u32,
    protocol: u8,
    vlan: [u16; 3],
    depth: u8,
}

/// A datagram in the making.
#[derive(Debug)]
struct Datagram {
    /// Of the entry in the order of silence that holds for it.
    number: u64,
    /// When its latest fragment came.
    last_ns: u64,
    data: Assembler,
    /// Its length, when the last fragment has come.
    total: Option<u64>,
    /// What stands before the data, of the first fragment, and where the number of the next header is in it.
    head: Vec<u8>,
    next_at: usize,
    next: u8,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Counts {
    /// Fragments that came.
    pub fragments: u64,
    /// Datagrams that were put together.
    pub reassembled: u64,
    /// Datagrams that were given up by time.
    pub timed_out: u64,
    /// Datagrams that were given up for room.
    pub evicted: u64,
}

/// Datagrams whose fragments come in.
#[derive(Debug, Default)]
pub struct Defragmenter {
    settings: Settings,
    datagrams: HashMap<Key, Datagram>,
    /// Longest silent first, by number and the time since when; those that are complete leave a number behind that means
    /// nothing any more. Who was heard of since goes to the back when he comes to the front.
    order: VecDeque<(u64, u64, Key)>,
    numbers: u64,
    memory: usize,
    /// What was counted.
    pub counts: Counts,
}

impl Defragmenter {
    /// Nothing has come yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Takes in a fragment; writes the datagram to `whole` if it is complete with it. Events are those of the fragment.
    pub fn fragment(&mut self, packet: &mut Decoded<'_>, now_ns: u64, whole: &mut Vec<u8>) -> bool {
        let Some(fragment) = packet.fragment else { return false };
        self.counts.fragments += 1;
        let v4 = packet.is_ipv4();
        let end = u64::from(fragment.offset) + fragment.data.len() as u64;
        if end + if v4 { IPV4_HEADER } else { 0 } > MOST_LENGTH {
            let event = if v4 { Event::Ipv4FragmentTooLarge } else { Event::Ipv6FragmentTooLarge };
            packet.events.set(event);
            return false;
        }
        if fragment.data.is_empty() {
            return false;
        }
        self.expire(now_ns);
        let key = key_of(packet, &fragment);
        if self.datagrams.get(&key).is_some_and(|datagram| self.is_over(datagram, now_ns)) {
            self.counts.timed_out += 1;
            self.remove(&key);
        }
        let policy = self.settings.policy;
        let datagram = self.datagrams.entry(key).or_insert_with(|| {
            self.numbers += 1;
            self.order.push_back((self.numbers, now_ns, key));
            let datagram = Datagram::new(self.numbers, now_ns);
            self.memory += datagram.memory();
            datagram
        });
        datagram.last_ns = now_ns;
        let before = datagram.memory();
        let takes_new = |new, earlier| policy.takes_new_fragment(new, earlier);
        let overlaps = match datagram.data.put(u64::from(fragment.offset), fragment.data, takes_new) {
            Put::Done { new, .. } => new < fragment.data.len(),
            Put::Old => true,
            Put::Full => {
                packet.events.set(if v4 { Event::Ipv4FragmentIgnored } else { Event::Ipv6FragmentIgnored });
                return false;
            }
        };
        if overlaps {
            packet.events.set(if v4 { Event::Ipv4FragmentOverlap } else { Event::Ipv6FragmentOverlap });
        }
        if fragment.offset == 0 && datagram.head.is_empty() {
            datagram.head.extend_from_slice(fragment.head);
            datagram.next_at = fragment.next_at;
            datagram.next = fragment.protocol;
        }
        if !fragment.more {
            datagram.total = Some(datagram.total.map_or(end, |total| total.max(end)));
        }
        let complete =
            datagram.total.is_some_and(|total| datagram.data.ready() >= total) && !datagram.head.is_empty();
        self.memory += datagram.memory() - before;
        let complete = complete && self.finish(&key, v4, whole);
        self.make_room();
        complete
    }

    /// Writes a complete datagram; false if it is longer than its header can say.
    fn finish(&mut self, key: &Key, v4: bool, whole: &mut Vec<u8>) -> bool {
        let Some(datagram) = self.remove(key) else { return false };
        let total = datagram.total.unwrap_or(0);
        whole.clear();
        whole.extend_from_slice(&datagram.head);
        whole.extend_from_slice(datagram.data.bytes(0, total));
        let length = if v4 { whole.len() } else { whole.len() - 40 };
        let Ok(length) = u16::try_from(length) else { return false };
        let length = length.to_be_bytes();
        if v4 {
            whole[2..4].copy_from_slice(&length);
            // It is no fragment any more; "do not fragment" and the reserved bit stay.
            whole[6] &= 0xc0;
            whole[7] = 0;
        } else {
            whole[4..6].copy_from_slice(&length);
            whole[datagram.next_at] = datagram.next;
        }
        self.counts.reassembled += 1;
        true
    }

    fn remove(&mut self, key: &Key) -> Option<Datagram> {
        let datagram = self.datagrams.remove(key)?;
        self.memory -= datagram.memory().min(self.memory);
        Some(datagram)
    }

    fn is_over(&self, datagram: &Datagram, now_ns: u64) -> bool {
        now_ns.saturating_sub(datagram.last_ns) > self.settings.timeout_s * 1_000_000_000
    }

    /// The datagram that has been silent for longest.
    fn longest_silent(&mut self) -> Option<Key> {
        while let Some(&(number, since_ns, key)) = self.order.front() {
            let waits = self.datagrams.get(&key).filter(|datagram| datagram.number == number);
            match waits.map(|datagram| datagram.last_ns) {
                Some(last_ns) if last_ns > since_ns => self.order.push_back((number, last_ns, key)),
                Some(_) => return Some(key),
                None => {}
            }
            self.order.pop_front();
        }
        None
    }

    fn expire(&mut self, now_ns: u64) {
        while let Some(key) = self.longest_silent() {
            if !self.datagrams.get(&key).is_some_and(|datagram| self.is_over(datagram, now_ns)) {
                return;
            }
            self.counts.timed_out += 1;
            self.remove(&key);
        }
    }

    fn make_room(&mut self) {
        // Behind a front that waits, the numbers of complete datagrams would pile up.
        if self.order.len() > 2 * self.datagrams.len() + MOST_STALE {
            let datagrams = &self.datagrams;
            self.order.retain(|(number, _, key)| {
                datagrams.get(key).is_some_and(|datagram| datagram.number == *number)
            });
        }
        while self.datagrams.len() > self.settings.most || self.memory > self.settings.memory {
            let Some(key) = self.longest_silent() else { return };
            self.counts.evicted += 1;
            self.remove(&key);
        }
    }

    /// Datagrams that are being put together.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.datagrams.len()
    }
}

impl Datagram {
    fn new(number: u64, now_ns: u64) -> Datagram {
        Datagram {
            number,
            last_ns: now_ns,
            data: Assembler::default(),
            total: None,
            head: Vec::new(),
            next_at: 0,
            next: 0,
        }
    }

    /// Bytes held, with those of its places in the table and in the order of silence.
    fn memory(&self) -> usize {
        let places = size_of::<Key>() + 2 * size_of::<(u64, u64, Key)>();
        size_of::<Self>() + places + self.data.held() + self.head.capacity()
    }
}

fn key_of(packet: &Decoded<'_>, fragment: &Fragment<'_>) -> Key {
    let mut vlan = [0; 3];
    for (place, id) in vlan.iter_mut().zip(packet.vlan_ids()) {
        *place = *id;
    }
    // In IPv6 each fragment could name another next header; that of the first counts (RFC 8200 §4.5).
    let protocol = if packet.is_ipv4() { fragment.protocol } else { 0 };
    let (source, destination) = (packet.source, packet.destination);
    Key { source, destination, id: fragment.id, protocol, vlan, depth: packet.depth }
}

#[cfg(test)]
mod tests;
