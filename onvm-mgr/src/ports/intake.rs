//! From a frame of the kernel's to packets in buffers.

use std::collections::VecDeque;

use onvm_lib::pool::{Books, Note, Packet};
use onvm_lib::wire;

use super::PortCounters;
use super::offload::{Frames, Offload};

/// Bytes of the shortest thing that is a frame.
const ETHERNET: usize = 14;

/// A frame that came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Came<'a> {
    pub(super) bytes: &'a [u8],
    /// What is left to be done on it.
    pub(super) offload: Offload,
    /// Tag protocol and tag that the kernel took out of it.
    pub(super) tag: Option<(u16, u16)>,
    pub(super) timestamp_ns: u64,
}

/// Packets that a port has made of frames.
#[derive(Debug, Default)]
pub(super) struct Intake {
    /// Parts of a super-frame for which there was no place in the burst.
    pending: VecDeque<Packet>,
}

impl Intake {
    /// Packets that wait for the next burst.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Puts those that wait into a burst of at most `max`.
    pub(super) fn fill(&mut self, burst: &mut Vec<Packet>, max: usize) {
        while burst.len() < max
            && let Some(packet) = self.pending.pop_front()
        {
            burst.push(packet);
        }
    }

    /// Makes packets of a frame. What has no place in the burst waits for the next; what has no room in a buffer, and
    /// what makes no sense, is counted as refused.
    pub(super) fn take(
        &mut self,
        books: &mut Books,
        burst: &mut Vec<Packet>,
        max: usize,
        came: Came<'_>,
        counters: &mut PortCounters,
    ) {
        let tag = if came.tag.is_some() { 4 } else { 0 };
        let frames = Frames::of(came.bytes, came.offload).ok();
        let Some(frames) = frames.filter(|_| came.bytes.len() >= ETHERNET) else {
            counters.rx_refused += 1;
            return;
        };
        let room = books.pool().geometry().packet_room();
        for index in 0..frames.count() {
            let length = u32::try_from(frames.length(index) + tag);
            let Some(length) = length.ok().filter(|length| *length <= room) else {
                counters.rx_refused += 1;
                continue;
            };
            let Some(mut packet) = books.allocate(length) else {
                counters.rx_no_buffer += 1;
                continue;
            };
            let bytes = packet.bytes_mut(books.pool());
            frames.write(index, &mut bytes[tag..]);
            if let Some((protocol, tag)) = came.tag {
                // The addresses go where they belong, and behind them the tag.
                bytes.copy_within(4..16, 0);
                bytes[12..14].copy_from_slice(&protocol.to_be_bytes());
                bytes[14..16].copy_from_slice(&tag.to_be_bytes());
            }
            let hash = wire::flow_hash(bytes);
            packet.describe(packet.descriptor().with_hash(hash));
            books.set_note(&packet, Note { timestamp_ns: came.timestamp_ns, wire_length: length });
            counters.rx_packets += 1;
            counters.rx_bytes += u64::from(length);
            self.put(packet, burst, max);
        }
    }

    /// Puts a packet into a burst, or behind those that wait already: none overtakes another.
    pub(super) fn put(&mut self, packet: Packet, burst: &mut Vec<Packet>, max: usize) {
        if burst.len() < max && self.pending.is_empty() {
            burst.push(packet);
        } else {
            self.pending.push_back(packet);
        }
    }

    /// Gives back what waits.
    pub(super) fn close(&mut self, books: &mut Books) {
        self.pending.drain(..).for_each(|packet| books.free(packet));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onvm_lib::pool::{Geometry, Pool};
    use onvm_lib::shm::Pages;

    #[test]
    fn what_comes_later_waits_behind_what_waits() {
        let mut books = Books::new(Pool::create(Geometry::new(16, 2048).unwrap(), Pages::Plain).unwrap(), 1);
        let (mut intake, mut came) = (Intake::default(), Vec::new());
        for length in 60..70 {
            let packet = books.allocate(length).unwrap();
            intake.put(packet, &mut came, 4);
        }
        assert_eq!((came.len(), intake.len()), (4, 6));
        // Room again is for those that wait.
        books.free(came.remove(0));
        let packet = books.allocate(70).unwrap();
        intake.put(packet, &mut came, 4);
        assert_eq!((came.len(), intake.len()), (3, 7));
        intake.fill(&mut came, usize::MAX);
        let lengths: Vec<u32> = came.iter().map(|packet| packet.descriptor().length()).collect();
        assert_eq!(lengths, (61..=70).collect::<Vec<_>>());
        books.free_all(&mut came);
        assert_eq!(books.free_count(), 16);
    }
}
