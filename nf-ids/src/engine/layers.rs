//! Packets inside packets, and the way of one packet.

use onvm_lib::wire::checksum::{Pseudo, Sum};
use std::net::IpAddr;

use super::{Detection, Engine, Inspection, Verdict};
use crate::decode::{Begin, Decoded, Inner, Net, Tunnel, decode};
use crate::flow::{Found, Lookup, Place};
use crate::stream;

/// Packets one inside the other, at most.
const MOST_DEPTH: u8 = 8;
const TCP: u8 = 6;

/// What is around a packet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outside {
    layers: u8,
    depth: u8,
    tunnel: Tunnel,
    vlan: [u16; 3],
    vlans: u8,
    defragmented: bool,
}

impl Outside {
    /// What is around the packet inside of this one.
    fn inside(packet: &Decoded<'_>, tunnel: Tunnel) -> Self {
        let mut vlan = [0; 3];
        for (place, id) in vlan.iter_mut().zip(packet.vlan_ids()) {
            *place = *id;
        }
        Self {
            layers: packet.layers,
            depth: packet.depth + 1,
            tunnel,
            vlan,
            vlans: u8::try_from(packet.vlan_ids().len()).unwrap_or(0),
            defragmented: false,
        }
    }

    /// What is around the datagram that this fragment completes: the same as around the fragment, so that it is in
    /// the flow of what was not sent in fragments. Its header counts once more, so that fragments of fragments end.
    fn whole(packet: &Decoded<'_>) -> Self {
        Self { depth: packet.depth, defragmented: true, ..Self::inside(packet, packet.tunnel) }
    }
}

/// Whether what a tunnel seems to carry begins with a header that can be read: else it is no tunnel, but bytes.
fn is_packet(inner: &Inner<'_>, packet: &Decoded<'_>) -> bool {
    match inner.begin {
        Begin::Ip | Begin::Ipv4 | Begin::Ipv6 | Begin::Ppp => {
            let faulty = inner.tunnel == Tunnel::Teredo && packet.invalid;
            !matches!(packet.net, Net::None) && !faulty
        }
        Begin::Link(_) => packet.ethernet.is_some(),
        Begin::Ether(_) => true,
    }
}

impl<D: Detection> Engine<D> {
    /// Inspects a packet, what is inside of it, and what it completes.
    pub(super) fn layer(&mut self, bytes: &[u8], begin: Begin, outside: &Outside, now_ns: u64) -> Verdict {
        let (packet, inner) = decode(&self.settings.decode, bytes, begin, outside.layers);
        self.decoded(packet, inner, outside, now_ns)
    }

    fn decoded(
        &mut self,
        mut packet: Decoded<'_>,
        inner: Option<Inner<'_>>,
        outside: &Outside,
        now_ns: u64,
    ) -> Verdict {
        packet.depth = outside.depth;
        packet.tunnel = outside.tunnel;
        packet.defragmented = outside.defragmented;
        if packet.vlan_ids().is_empty() {
            for id in &outside.vlan[..usize::from(outside.vlans)] {
                packet.push_vlan(*id);
            }
        }
        let mut verdict = Verdict::Pass;
        if let Some(inner) = inner.filter(|_| packet.depth < MOST_DEPTH) {
            let around = Outside::inside(&packet, inner.tunnel);
            let (inside, deeper) = decode(&self.settings.decode, inner.bytes, inner.begin, around.layers);
            if is_packet(&inner, &inside) {
                verdict = self.decoded(inside, deeper, &around, now_ns);
                // It is inspected as what it is; once more as bytes would be another alert for each.
                packet.payload = &[];
                packet.carrier = true;
            }
        }
        if packet.fragment.is_some() {
            let mut whole = self.buffers.pop().unwrap_or_default();
            if self.defrag.fragment(&mut packet, self.now_ns, &mut whole) {
                let begin = if packet.is_ipv4() { Begin::Ipv4 } else { Begin::Ipv6 };
                verdict = verdict.max(self.layer(&whole, begin, &Outside::whole(&packet), now_ns));
            }
            self.buffers.push(whole);
        }
        verdict.max(self.one(packet, now_ns))
    }

    /// The way of one packet.
    fn one(&mut self, packet: Decoded<'_>, now_ns: u64) -> Verdict {
        self.counts.packets += 1;
        self.counts.malformed += u64::from(!packet.events.is_empty());
        match self.find(&packet, now_ns) {
            Some(place) => self.in_flow(packet, place, now_ns),
            None => {
                let none = stream::Events::default();
                let seen = Inspection {
                    packet: &packet,
                    stream_events: &none,
                    flow: None,
                    window: None,
                    app: None,
                    now_ns,
                };
                self.detection.inspect(&seen, None).verdict
            }
        }
    }

    /// Finds the flow of a packet, or makes one; ends the one that had to go for it.
    fn find(&mut self, packet: &Decoded<'_>, now_ns: u64) -> Option<Place> {
        if let Some(place) = Found::quoted(packet).and_then(|found| self.flows.find(&found)) {
            return Some(place);
        }
        let found = Found::of(packet)?;
        let mut answered = false;
        let looked = self.flows.look(&found, packet, now_ns, |flow, direction| {
            match &flow.session {
                Some(session) => {
                    answered = session.is_answered_anew(packet, direction);
                    answered || session.begins_anew(packet, direction)
                }
                // What was seen before had no beginning; here is one.
                None => packet.tcp_flags().is_some_and(|flags| flags & 0x17 == 0x02),
            }
        });
        Some(match looked {
            Lookup::At(place) => place,
            Lookup::Ended(mut place, mut flow) => {
                let anew = flow.session.as_mut().filter(|_| answered).and_then(|session| session.take_anew());
                self.end_flow(flow);
                if let Some(session) = anew {
                    // The packet is the answer: the client is who it goes to.
                    let flow = self.flows.flow(place.slot);
                    flow.session = Some(session);
                    flow.turn_round();
                    place.direction = place.direction.other();
                }
                place
            }
        })
    }

    /// Whether the checksum of a TCP segment is right, or not to be verified.
    pub(super) fn checksum_is_right(&self, packet: &Decoded<'_>) -> bool {
        if self.settings.ignore_checksums || packet.pseudo {
            return true;
        }
        let pseudo = match (packet.source, packet.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Pseudo::v4(source, destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Pseudo::v6(source, destination),
            _ => return true,
        };
        let Some(header) = packet.tcp_header() else { return true };
        let sum: Sum = pseudo.sum(TCP, header.len() + packet.payload.len());
        sum.add_bytes(header).add_bytes(packet.payload).finish() == 0
    }
}
