//! A transparent bridge in the manner of IEEE 802.1D, without a spanning tree.
//!
//! ```text
//! source address       → learned with the port that the packet came in by
//! destination known    → out of its port; dropped when that is where the packet came from
//! unknown or a group   → out of all other ports
//! 01:80:c2:00:00:01-0f → dropped: these are for one link (802.1D, 7.12.6). 00, the spanning tree's, goes
//!                        on, so that bridges around this one can still find a loop.
//! ```
//! Addresses are learned across VLANs alike. All that keeps state here is bounded: the table by `--max-macs`.

use std::fmt;
use std::time::Duration;

use onvm_lib::prelude::DropReason;
use onvm_lib::wire::{MacAddr, ethernet};
use serde::{Deserialize, Serialize};

use crate::mac_table::{Learned, MacTable, Station};

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Out(u8),
    /// Out of all ports but the one it came in by; [`Bridge::others`] names them.
    Flood,
    Drop(DropReason),
}

/// What went through a port.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct PortCounts {
    packets_in: u64,
    bytes_in: u64,
    packets_out: u64,
    bytes_out: u64,
}

/// What became of packets.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Counts {
    /// Out of the port that the destination is behind.
    forwarded: u64,
    /// Out of all ports.
    flooded: u64,
    /// The destination is where the packet came from.
    same_port: u64,
    /// To an address that is for one link only.
    link_local: u64,
    /// Too short, or from an address that cannot send.
    malformed: u64,
    /// Came in by a port that the bridge does not have.
    foreign_port: u64,
    learned: u64,
    moved: u64,
    expired: u64,
    /// Addresses not learned because the table was full.
    refused: u64,
}

/// The bridge.
#[derive(Debug)]
pub(crate) struct Bridge {
    table: MacTable,
    ports: Vec<PortCounts>,
    counts: Counts,
}

/// What a bridge hands to its successor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BridgeState {
    stations: Vec<(u64, Station)>,
    ports: Vec<PortCounts>,
    counts: Counts,
}

/// What the bridge reports.
#[derive(Debug, Serialize)]
pub(crate) struct BridgeReport<'a> {
    #[serde(flatten)]
    counts: Counts,
    known: usize,
    ports: &'a [PortCounts],
}

impl Bridge {
    /// A bridge between ports 0 to `ports` - 1.
    pub(crate) fn new(ports: u8, most_macs: usize, age: Duration) -> Self {
        let table = MacTable::new(most_macs, age);
        Self { table, ports: vec![PortCounts::default(); usize::from(ports)], counts: Counts::default() }
    }

    /// Learns from a packet and says where it goes. A packet without a port was made by an NF: it may go
    /// anywhere, and teaches nothing.
    #[inline]
    pub(crate) fn decide(&mut self, frame: &[u8], ingress: Option<u8>, now_ns: u64) -> Decision {
        let bytes = frame.len() as u64;
        if let Some(port) = ingress {
            let Some(counts) = self.ports.get_mut(usize::from(port)) else {
                self.counts.foreign_port += 1;
                return Decision::Drop(DropReason::NoSuchPort);
            };
            counts.packets_in += 1;
            counts.bytes_in += bytes;
        }
        let Some((dst, src)) = addresses(frame) else {
            self.counts.malformed += 1;
            return Decision::Drop(DropReason::Malformed);
        };
        if let Some(port) = ingress {
            self.learn(src, port, now_ns);
        }
        if is_link_local(dst) {
            self.counts.link_local += 1;
            return Decision::Drop(DropReason::Consumed);
        }
        let known = if dst.is_multicast() { None } else { self.table.find(dst, now_ns) };
        match known {
            Some(port) if Some(port) == ingress => {
                self.counts.same_port += 1;
                Decision::Drop(DropReason::Consumed)
            }
            Some(port) => {
                self.counts.forwarded += 1;
                self.count_out(port, bytes);
                Decision::Out(port)
            }
            None => {
                self.counts.flooded += 1;
                self.others(ingress).for_each(|port| self.count_out(port, bytes));
                Decision::Flood
            }
        }
    }

    /// All ports but one.
    pub(crate) fn others(&self, ingress: Option<u8>) -> impl Iterator<Item = u8> + use<> {
        (0..u8::try_from(self.ports.len()).unwrap_or(u8::MAX)).filter(move |port| Some(*port) != ingress)
    }

    /// Forgets addresses that were silent for too long.
    pub(crate) fn expire(&mut self, now_ns: u64) {
        self.counts.expired += self.table.expire(now_ns) as u64;
    }

    pub(crate) fn state(&self) -> BridgeState {
        BridgeState { stations: self.table.stations(), ports: self.ports.clone(), counts: self.counts }
    }

    /// Goes on from where another has come to. What that knew of ports that this one does not have is left out.
    pub(crate) fn restore(&mut self, state: BridgeState) {
        self.table.restore(state.stations, self.ports.len());
        self.ports.iter_mut().zip(state.ports).for_each(|(here, there)| *here = there);
        self.counts = state.counts;
    }

    pub(crate) fn report(&self) -> BridgeReport<'_> {
        BridgeReport { counts: self.counts, known: self.table.len(), ports: &self.ports }
    }

    #[inline]
    fn learn(&mut self, src: MacAddr, port: u8, now_ns: u64) {
        match self.table.learn(src, port, now_ns) {
            Learned::Known => {}
            Learned::New => self.counts.learned += 1,
            Learned::Moved => self.counts.moved += 1,
            Learned::Refused => self.counts.refused += 1,
        }
    }

    #[inline]
    fn count_out(&mut self, port: u8, bytes: u64) {
        if let Some(counts) = self.ports.get_mut(usize::from(port)) {
            counts.packets_out += 1;
            counts.bytes_out += bytes;
        }
    }
}

impl fmt::Display for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.counts;
        writeln!(
            f,
            "{} forwarded, {} flooded, {} to their own port, {} link-local, {} malformed, {} by a foreign port",
            c.forwarded, c.flooded, c.same_port, c.link_local, c.malformed, c.foreign_port
        )?;
        write!(
            f,
            "{} addresses known, {} learned, {} moved, {} expired, {} refused",
            self.table.len(),
            c.learned,
            c.moved,
            c.expired,
            c.refused
        )?;
        for (port, p) in self.ports.iter().enumerate() {
            write!(
                f,
                "\nport {port}: {} packets, {} bytes in; {} packets, {} bytes out",
                p.packets_in, p.bytes_in, p.packets_out, p.bytes_out
            )?;
        }
        Ok(())
    }
}

/// Destination and source; none if the frame is too short or its source cannot be one station's.
#[inline]
fn addresses(frame: &[u8]) -> Option<(MacAddr, MacAddr)> {
    let header = ethernet::Frame::new_checked(frame).ok()?;
    let (dst, src) = (header.dst(), header.src());
    (!src.is_multicast() && src != MacAddr::default()).then_some((dst, src))
}

/// Whether the address is reserved for the two ends of a link (LLDP, pause frames, LACP).
#[inline]
fn is_link_local(mac: MacAddr) -> bool {
    matches!(mac.0, [0x01, 0x80, 0xc2, 0, 0, 0x01..=0x0f])
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

    fn frame(dst: [u8; 6], src: [u8; 6]) -> Vec<u8> {
        [&dst[..], &src, &[0x88, 0xb5], &[0; 46]].concat()
    }

    fn bridge(ports: u8) -> Bridge {
        Bridge::new(ports, 16, Duration::from_secs(300))
    }

    #[test]
    fn learns_then_forwards() {
        let mut bridge = bridge(3);
        assert_eq!(bridge.decide(&frame(B, A), Some(0), 1), Decision::Flood);
        assert_eq!(bridge.decide(&frame(A, B), Some(2), 2), Decision::Out(0));
        assert_eq!(bridge.decide(&frame(B, A), Some(0), 3), Decision::Out(2));
        assert_eq!(bridge.others(Some(0)).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(bridge.ports[1].packets_out, 1);
        assert_eq!((bridge.ports[2].packets_in, bridge.ports[2].packets_out), (1, 2));
    }

    #[test]
    fn does_not_send_back_and_notices_a_move() {
        let mut bridge = bridge(2);
        bridge.decide(&frame(B, A), Some(0), 1);
        assert_eq!(bridge.decide(&frame(A, B), Some(0), 2), Decision::Drop(DropReason::Consumed));
        assert_eq!(bridge.decide(&frame(B, A), Some(1), 3), Decision::Out(0));
        assert_eq!((bridge.counts.moved, bridge.counts.same_port), (1, 1));
    }

    #[test]
    fn groups_are_flooded_but_for_those_of_one_link() {
        let mut bridge = bridge(2);
        let to = |last| frame([1, 0x80, 0xc2, 0, 0, last], A);
        assert_eq!(bridge.decide(&frame([0xff; 6], A), Some(0), 1), Decision::Flood);
        assert_eq!(bridge.decide(&to(0x0e), Some(0), 1), Decision::Drop(DropReason::Consumed));
        assert_eq!(bridge.decide(&to(0), Some(0), 1), Decision::Flood);
        assert_eq!(bridge.decide(&to(0x10), Some(0), 1), Decision::Flood);
    }

    #[test]
    fn refuses_what_cannot_be() {
        let mut bridge = bridge(2);
        let malformed = Decision::Drop(DropReason::Malformed);
        assert_eq!(bridge.decide(&[2; 13], Some(0), 1), malformed);
        assert_eq!(bridge.decide(&frame(A, [0xff; 6]), Some(0), 1), malformed);
        assert_eq!(bridge.decide(&frame(A, [0; 6]), Some(0), 1), malformed);
        assert_eq!(bridge.decide(&frame(A, B), Some(2), 1), Decision::Drop(DropReason::NoSuchPort));
        assert_eq!((bridge.counts.malformed, bridge.counts.foreign_port), (3, 1));
    }

    #[test]
    fn made_packets_go_anywhere_and_teach_nothing() {
        let mut bridge = bridge(2);
        assert_eq!(bridge.decide(&frame(B, A), None, 1), Decision::Flood);
        assert_eq!(bridge.others(None).count(), 2);
        assert_eq!(bridge.table.len(), 0);
    }

    #[test]
    fn old_addresses_are_flooded_again() {
        let mut bridge = Bridge::new(2, 16, Duration::from_secs(1));
        bridge.decide(&frame(B, A), Some(0), 1);
        assert_eq!(bridge.decide(&frame(A, B), Some(1), 2_000_000_000), Decision::Flood);
        bridge.expire(2_500_000_000);
        assert_eq!((bridge.counts.expired, bridge.table.len()), (1, 1));
    }
}
