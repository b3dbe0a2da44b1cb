//! The packet path, apart from the pool and the command line: frames in, frames and verdicts out.
//!
//! ```text
//! burst ─▶ look: headers, key, hash ─▶ locate ─▶ touch ─▶ each packet in its order:
//!                                                   ┌ ARP, neighbor discovery, echo ──▶ answered in place
//!    known flow ─▶ carry (translate, pack)          │ ICMP error ──▶ its flow's backend or client    (`errors`)
//!    service, no flow ─▶ open: choose a backend ────┤ later fragment ──▶ as its first                (`fragments`)
//!    neither ─▶ goes on as it is                    └ else ──▶ goes on as it is
//! ```
//! The three passes over a burst let the processor wait for the memory of many flows at a time.

use std::net::IpAddr;

use onvm_lib::flow_table::Guess;
use onvm_lib::prelude::{DropReason, MAX_BURST, Verdict};
use onvm_lib::wire::{FlowKey, Headers, MacAddr, Net, icmp, icmpv6, tcp, udp};
use serde::{Deserialize, Serialize};

use crate::answers;
use crate::clients::Clients;
use crate::commands::Overlay;
use crate::config::Config;
use crate::connections::{Carry, Connections, Flow, key_between};
use crate::fragments::Fragments;
use crate::frame::{Frame, Frames};
use crate::neighbours::Neighbours;
use crate::servers::Servers;
use crate::services::{Dice, Directory, Running};
use crate::source_ports::SourcePorts;
use crate::tables::Tables;
use crate::tunnel;
use crate::upkeep::History;

/// What packets came to, but for what is counted by service and backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) packets: u64,
    /// Packets that are no business of any service; they go on as they came.
    pub(crate) other: u64,
    /// Questions that were answered: ARP, neighbor solicitations, echo requests.
    pub(crate) answered: u64,
    /// ICMP errors that found their way with their connection.
    pub(crate) errors: u64,
    /// Later fragments that followed their first.
    pub(crate) fragments: u64,
    /// Later fragments without a first one, dropped.
    pub(crate) lost_fragments: u64,
    /// Packets of no connection that only one could have brought, dropped.
    pub(crate) strays: u64,
    /// Packets to a virtual address on a port without a service, dropped.
    pub(crate) no_service: u64,
    /// Packets that contradict themselves, dropped.
    pub(crate) malformed: u64,
    /// Packets too long for a tunnel, whose senders were told.
    pub(crate) too_big: u64,
    /// Packets too long for a tunnel, cut into fragments.
    pub(crate) cut: u64,
    /// Packets that cannot be carried (no room, unknown headers in front), dropped.
    pub(crate) unsupported: u64,
    /// Connections whose ports towards the backend are another one's, dropped.
    pub(crate) conflicts: u64,
    /// Connections that made room for others.
    pub(crate) over: u64,
    /// Messages of routers about packets in tunnels, for the balancer itself.
    pub(crate) tunnel_errors: u64,
}

/// What the path of a packet needs of the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gear {
    pub(crate) mac: Option<MacAddr>,
    pub(crate) to_clients: Option<u8>,
    pub(crate) to_backends: Option<u8>,
    pub(crate) mtu: u16,
    pub(crate) own_v4: Option<IpAddr>,
    pub(crate) own_v6: Option<IpAddr>,
}

impl Gear {
    pub(crate) fn new(config: &Config) -> Self {
        let own = |v4: bool| config.addresses.iter().copied().find(|ip| ip.is_ipv4() == v4);
        Self {
            mac: config.mac,
            to_clients: config.client_port,
            to_backends: config.backend_port,
            mtu: config.mtu,
            own_v4: own(true),
            own_v6: own(false),
        }
    }

    #[inline(always)]
    pub(crate) fn verdict(self, to_backend: bool) -> Verdict {
        let port = if to_backend { self.to_backends } else { self.to_clients };
        port.map_or(Verdict::Next, Verdict::Out)
    }
}

/// What the balancer sends of its own accord.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OwnPackets {
    /// Numbers outer packets that may be fragmented on their way.
    pub(crate) datagrams: u16,
    /// ICMP errors that may be sent before the next tick: their rate is limited (RFC 4443 §2.4 f, RFC 1812 §4.3.2.8).
    pub(crate) errors_left: u32,
}

impl OwnPackets {
    /// Errors from one tick to the next: a thousand a second.
    pub(crate) const ERRORS: u32 = 100;
}

/// What a first look at a packet shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) headers: Headers,
    /// Key of the flow; of later fragments and what is no flow it says nothing.
    pub(crate) key: FlowKey,
    pub(crate) hash: u32,
    /// Flags of a TCP segment; 0 for others.
    pub(crate) flags: u8,
    pub(crate) what: What,
    /// The headers are of what a tunnel carries.
    pub(crate) tunnelled: bool,
}

/// What a packet is to the balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// TCP or UDP with ports.
    Flow,
    LaterFragment,
    Icmp,
    Arp,
    Malformed,
    Other,
}

impl Look {
    #[inline(always)]
    pub(crate) fn new(frame: &[u8], inner: bool) -> Self {
        let headers = Headers::parse(frame);
        if inner && let Some(carried) = headers.innermost(frame) {
            return Self { tunnelled: true, ..Self::of(carried, frame) };
        }
        Self::of(headers, frame)
    }

    #[inline(always)]
    fn of(headers: Headers, frame: &[u8]) -> Self {
        if let (Some(tcp::PROTOCOL | udp::PROTOCOL), false, false) =
            (headers.protocol(), headers.is_fragment(), headers.is_malformed())
            && headers.ports(frame).is_some()
        {
            let key = headers.flow_key(frame);
            return Self {
                headers,
                key,
                hash: key.hash32(),
                flags: flags(&headers, frame),
                what: What::Flow,
                tunnelled: false,
            };
        }
        Self::unusual(headers, frame)
    }

    #[cold]
    fn unusual(headers: Headers, frame: &[u8]) -> Self {
        let key = headers.flow_key(frame);
        let is_ip = matches!(headers.net(), Net::Ipv4 | Net::Ipv6);
        let what = match headers.protocol() {
            _ if headers.net() == Net::Arp => What::Arp,
            _ if is_ip && headers.is_malformed() => What::Malformed,
            Some(_) if headers.is_later_fragment() => What::LaterFragment,
            Some(icmp::PROTOCOL | icmpv6::PROTOCOL) => What::Icmp,
            Some(tcp::PROTOCOL | udp::PROTOCOL) => match first_fragment_key(&headers, frame, &key) {
                Some(key) => {
                    let flags = flags(&headers, frame);
                    return Self {
                        headers,
                        key,
                        hash: key.hash32(),
                        flags,
                        what: What::Flow,
                        tunnelled: false,
                    };
                }
                None => What::Other,
            },
            _ => What::Other,
        };
        Self { headers, key, hash: 0, flags: 0, what, tunnelled: false }
    }
}

/// The key of the flow that a first fragment belongs to.
pub(crate) fn first_fragment_key(headers: &Headers, frame: &[u8], by_address: &FlowKey) -> Option<FlowKey> {
    let (src, dst) = headers.ports(frame)?;
    let end = |ip, port| crate::connections::Endpoint { ip, port };
    key_between(end(by_address.src()?, src), end(by_address.dst()?, dst), headers.protocol()?)
}

#[inline(always)]
fn flags(headers: &Headers, frame: &[u8]) -> u8 {
    if headers.protocol() != Some(tcp::PROTOCOL) {
        return 0;
    }
    headers.l4_offset().and_then(|at| frame.get(at + 13).copied()).unwrap_or(0)
}

/// What became of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Done(Verdict),
    /// It must be cut into fragments of so many bytes, each of which is carried like this flow's packets.
    Cut(u16, Flow),
}

impl From<DropReason> for Step {
    fn from(reason: DropReason) -> Self {
        Self::Done(Verdict::Drop(reason))
    }
}

/// The load balancer.
#[derive(Debug)]
pub struct Balancer {
    /// What the file says.
    pub(crate) file: Config,
    /// What was said by command.
    pub(crate) overlay: Overlay,
    /// Both together.
    pub(crate) config: Config,
    pub(crate) gear: Gear,
    /// Packets in tunnels are balanced, in their tunnels.
    pub(crate) inner: bool,
    pub(crate) services: Vec<Running>,
    /// Number of the latest service.
    pub(crate) last_service: u32,
    pub(crate) directory: Directory,
    pub(crate) servers: Servers,
    pub(crate) connections: Connections,
    pub(crate) source_ports: SourcePorts,
    pub(crate) clients: Clients,
    pub(crate) fragments: Fragments,
    pub(crate) neighbours: Neighbours,
    pub(crate) tables: Tables,
    pub(crate) dice: Dice,
    pub(crate) counts: Counts,
    pub(crate) history: History,
    pub(crate) own: OwnPackets,
    pub(crate) looks: Vec<Look>,
    /// What is to be checked has changed.
    pub(crate) targets_changed: bool,
    /// Flows that are to be looked at before the next tick, whether they are silent.
    pub(crate) to_look_at: usize,
    /// Bursts have come since the last tick, and steps after them.
    pub(crate) bursts: bool,
}

impl Balancer {
    /// Balances what tunnels (IP in IP, GRE, VXLAN, Geneve) carry, which stays in its tunnel: only address translation can
    /// do that.
    pub fn enter_tunnels(&mut self) {
        self.inner = true;
    }

    /// Works on a burst.
    pub fn burst<F: Frames>(&mut self, frames: &mut F, now_ns: u64) {
        let count = frames.count();
        let mut from = 0;
        while from < count {
            let to = count.min(from + MAX_BURST);
            self.part(frames, from..to, now_ns);
            from = to;
        }
        if self.connections.has_over() {
            self.settle();
        }
    }

    #[inline]
    fn part<F: Frames>(&mut self, frames: &mut F, part: std::ops::Range<usize>, now_ns: u64) {
        let mut looks = std::mem::take(&mut self.looks);
        let mut hashes = [0; MAX_BURST];
        let mut guesses = [Guess::NONE; MAX_BURST];
        looks.clear();
        for (hash, index) in hashes.iter_mut().zip(part.clone()) {
            let frame = frames.frame(index);
            let look = Look::new(frame.bytes(), self.inner);
            *hash = look.hash;
            looks.push(look);
        }
        let count = looks.len();
        self.connections.table.locate(&hashes[..count], &mut guesses[..count]);
        self.connections.table.touch(&guesses[..count]);
        self.counts.packets += count as u64;
        for ((look, guess), index) in looks.iter().zip(guesses).zip(part) {
            let mut frame = frames.frame(index);
            let step = match look.what {
                What::Flow => self.flow(&mut frame, look, guess, now_ns),
                _ => self.special(&mut frame, look, now_ns),
            };
            match step {
                Step::Done(Verdict::Next) => {}
                Step::Done(verdict) => frame.set_verdict(verdict),
                Step::Cut(most, flow) => {
                    drop(frame);
                    self.cut(frames, index, look, most, &flow);
                }
            }
        }
        self.looks = looks;
    }

    /// What is no packet of a flow with ports.
    #[cold]
    fn special<F: Frame>(&mut self, frame: &mut F, look: &Look, now_ns: u64) -> Step {
        match look.what {
            What::LaterFragment => self.later_fragment(frame, look, now_ns),
            What::Icmp => self.icmp(frame, look, now_ns),
            What::Arp => self.arp(frame, look, now_ns),
            What::Malformed => {
                let ours = look.key.dst().is_some_and(|ip| self.directory.is_virtual(ip));
                if ours {
                    self.counts.malformed += 1;
                    return DropReason::Malformed.into();
                }
                self.other()
            }
            What::Flow | What::Other => self.other(),
        }
    }

    /// It goes on as it came.
    pub(crate) fn other(&mut self) -> Step {
        self.counts.other += 1;
        Step::Done(Verdict::Next)
    }

    /// Whether an address is one that the balancer answers for.
    pub(crate) fn is_mine(&self, ip: IpAddr) -> bool {
        self.config.addresses.contains(&ip) || self.directory.is_answered_for(ip)
    }

    /// Back where it came from.
    pub(crate) fn answered<F: Frame>(&mut self, frame: &F) -> Step {
        self.counts.answered += 1;
        Step::Done(frame.port().map_or(Verdict::Next, Verdict::Out))
    }

    fn arp<F: Frame>(&mut self, frame: &mut F, look: &Look, now_ns: u64) -> Step {
        let Some(mac) = self.gear.mac else { return self.other() };
        let packet = look.headers.arp(frame.bytes());
        let Some(said) = packet.and_then(|packet| packet.addresses()) else { return self.other() };
        self.learn(said.sender_ip.into(), said.sender_mac, now_ns);
        if answers::arp_reply(frame, &look.headers, mac, |ip| self.is_mine(ip)) {
            return self.answered(frame);
        }
        if said.target_mac == mac {
            return DropReason::Consumed.into();
        }
        self.other()
    }

    fn icmp<F: Frame>(&mut self, frame: &mut F, look: &Look, now_ns: u64) -> Step {
        let headers = &look.headers;
        let Some(destination) = look.key.dst() else { return self.other() };
        // Whoever asks from within a tunnel is answered by its end.
        if let Some(mac) = self.gear.mac.filter(|_| !look.tunnelled) {
            if let Some(target) = answers::solicited(headers, frame.bytes())
                && self.is_mine(target.into())
                && answers::neighbour_advertisement(frame, headers, mac, target)
            {
                return self.answered(frame);
            }
            if let Some((ip, mac)) = answers::advertised(headers, frame.bytes()) {
                self.learn(ip, mac, now_ns);
                let own = self.config.addresses.contains(&destination);
                return if own { DropReason::Consumed.into() } else { self.other() };
            }
        }
        if crate::translate::is_error(headers, frame.bytes()) {
            return self.error(frame, look, now_ns);
        }
        if !look.tunnelled && self.is_mine(destination) && answers::echo_reply(frame, headers) {
            return self.answered(frame);
        }
        self.other()
    }

    /// Someone says where he is.
    pub(crate) fn learn(&mut self, ip: IpAddr, mac: MacAddr, now_ns: u64) {
        if self.neighbours.learn(ip, mac, now_ns) {
            self.resolve(now_ns);
        }
    }

    /// Cuts a packet that is too long into fragments and carries each.
    #[cold]
    fn cut<F: Frames>(&mut self, frames: &mut F, index: usize, look: &Look, most: u16, flow: &Flow) {
        let mut frame = frames.frame(index);
        let l3 = look.headers.l3_offset().unwrap_or(0);
        let whole = frame.bytes().to_vec();
        let pieces = whole.get(l3..look.headers.end()).and_then(|packet| tunnel::fragments(packet, most));
        let Some(pieces) = pieces else {
            self.counts.unsupported += 1;
            frame.set_verdict(Verdict::Drop(DropReason::Unsupported));
            return;
        };
        drop(frame);
        self.counts.cut += 1;
        for (n, piece) in pieces.iter().enumerate() {
            let bytes = [&whole[..l3], piece].concat();
            let frame = if n == 0 { Some(frames.frame(index)) } else { frames.make(bytes.len()) };
            let Some(mut frame) = frame else {
                // No buffer: the rest is lost, and with it the datagram, as on any way that loses packets.
                self.counts.unsupported += 1;
                return;
            };
            frame.truncate(bytes.len());
            frame.bytes_mut().copy_from_slice(&bytes);
            let part = Look { headers: Headers::parse(&bytes), ..*look };
            frame.set_hash(look.hash);
            let step = self.carry(&mut frame, &part, flow);
            frame.set_verdict(match step {
                Step::Done(verdict) => verdict,
                Step::Cut(..) => Verdict::Drop(DropReason::Unsupported),
            });
        }
    }

    /// Carries a packet of a flow, as `flow` says.
    #[inline]
    pub(crate) fn carry<F: Frame>(&mut self, frame: &mut F, look: &Look, flow: &Flow) -> Step {
        let Some(server) = self.servers.get_mut(flow.server) else { return DropReason::NoRoute.into() };
        let length = frame.bytes().len() as u64;
        let to_backend = flow.carry != Carry::Back;
        if to_backend {
            server.counts.packets_to += 1;
            server.counts.bytes_to += length;
        } else {
            server.counts.packets_from += 1;
            server.counts.bytes_from += length;
        }
        crate::path::carry(frame, look, flow, server, self.gear, &mut self.own, &mut self.counts)
    }
}
