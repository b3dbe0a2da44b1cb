//! ICMP errors (RFC 792, RFC 4443): what a router or host says of a packet of a connection goes to the side that sent
//! it, with the datagram that it quotes as that side knows it (RFC 5508 §4).
//!
//! ```text
//! quotes virtual → client     from the clients' side    goes to the backend; quotes backend → client
//! quotes client → backend     from the backends' side   goes to the client;  quotes client → virtual
//! quotes a tunnel's packet    to the balancer itself    a router's limit on the length is heeded from now on
//! ```

use std::net::IpAddr;

use onvm_lib::prelude::DropReason;
use onvm_lib::wire::{FlowKey, Headers, IPV4_IN_IP, IPV6_IN_IP, Net, icmp, icmpv6, udp};

use crate::balancer::{Balancer, Look, Step, first_fragment_key};
use crate::connections::{Carry, Flow};
use crate::frame::Frame;
use crate::path::deliver;
use crate::translate::{in_tunnel, translate_error};

/// Shortest limit that is believed: what every IPv6 link carries; and less than IPv4 needs is an attack (RFC 1191 §3).
const LEAST_MTU: u16 = 576;

impl Balancer {
    /// An ICMP or ICMPv6 error.
    pub(crate) fn error<F: Frame>(&mut self, frame: &mut F, look: &Look, now_ns: u64) -> Step {
        let quoted = look.headers.original(frame.bytes());
        let key = quoted.and_then(|quoted| {
            let by_address = quoted.flow_key(frame.bytes());
            first_fragment_key(&quoted, frame.bytes(), &by_address)
        });
        // What was sent one way belongs to the flow that comes the other way.
        if let Some(arriving) = key.map(FlowKey::reversed) {
            let flow = self.connections.table.get(arriving.hash32(), &arriving).copied();
            if let Some(flow) = flow {
                self.counts.errors += 1;
                return self.carry_error(frame, look, &arriving, &flow);
            }
            // Without translation, an error from the backends' side quotes client → virtual and is for the client.
        }
        if quoted.is_some_and(|quoted| self.is_about_tunnel(frame.bytes(), look, &quoted, now_ns)) {
            self.counts.tunnel_errors += 1;
            return DropReason::Consumed.into();
        }
        let to = look.key.dst();
        let from_backend =
            key.and_then(|key| key.dst().map(|ip| self.directory.is_origin(ip, key.dst_port())));
        if to.is_some_and(|ip| self.directory.is_virtual(ip)) || from_backend == Some(true) {
            self.counts.strays += 1;
            return DropReason::NoRoute.into();
        }
        self.other()
    }

    /// An error about a connection: `flow` is what comes from where the error comes.
    fn carry_error<F: Frame>(&mut self, frame: &mut F, look: &Look, arriving: &FlowKey, flow: &Flow) -> Step {
        let (from, own_end) = (look.key.src(), arriving.src());
        let translated = match flow.carry {
            Carry::Dsr | Carry::Ipip | Carry::Gue => return self.carry(frame, look, flow),
            Carry::Nat | Carry::Back => {
                // The packet in question went the other way: its source is where the flow's packets go.
                let quoted = (flow.destination, flow.source);
                let source = (from == own_end).then_some(flow.source.ip);
                let own = (source, Some(flow.destination.ip));
                let change = |frame: &mut [u8]| translate_error(frame, &look.headers, quoted, own);
                if look.tunnelled {
                    in_tunnel(frame.bytes_mut(), &look.headers, change)
                } else {
                    change(frame.bytes_mut())
                }
            }
        };
        if !translated {
            self.counts.unsupported += 1;
            return DropReason::Unsupported.into();
        }
        frame.set_hash(flow.hash);
        match self.servers.get_mut(flow.server) {
            Some(server) => deliver(frame, look, flow, server, self.gear),
            None => DropReason::NoRoute.into(),
        }
    }

    /// Whether the packet in question is one of a tunnel's; a limit on its length is noted.
    fn is_about_tunnel(&mut self, frame: &[u8], look: &Look, quoted: &Headers, now_ns: u64) -> bool {
        let tunnel = match quoted.protocol() {
            Some(IPV4_IN_IP | IPV6_IN_IP) => true,
            Some(udp::PROTOCOL) => quoted.ports(frame).is_some_and(|(_, to)| to == crate::tunnel::GUE_PORT),
            _ => false,
        };
        let (Some(from), Some(to)) = addresses(quoted, frame) else { return false };
        if !tunnel || !self.config.addresses.contains(&from) {
            return false;
        }
        let Some((_, server)) = self.servers.iter_mut().find(|(_, server)| server.backend.address == to)
        else {
            return false;
        };
        let mtu = match look.headers.net() {
            Net::Ipv4 => look.headers.icmp(frame).and_then(|message| {
                let needed =
                    (message.kind(), message.code()) == (icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED);
                needed.then(|| message.mtu())
            }),
            _ => look.headers.icmpv6(frame).and_then(|message| {
                (message.kind() == icmpv6::PACKET_TOO_BIG)
                    .then(|| u16::try_from(message.mtu()).unwrap_or(u16::MAX))
            }),
        };
        if let Some(mtu) = mtu {
            let least = if to.is_ipv4() { LEAST_MTU } else { 1280 };
            server.path_mtu = Some((mtu.max(least), now_ns));
        }
        true
    }
}

fn addresses(headers: &Headers, frame: &[u8]) -> (Option<IpAddr>, Option<IpAddr>) {
    let key = headers.flow_key(frame);
    (key.src(), key.dst())
}
