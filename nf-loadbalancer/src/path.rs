//! A packet of a flow: the known ones, and how new ones are opened.

use onvm_lib::flow_table::Guess;
use onvm_lib::prelude::{DropReason, Verdict};
use onvm_lib::wire::tcp;

use crate::answers;
use crate::balancer::{Balancer, Counts, Gear, Look, OwnPackets, Step};
use crate::clients::{Clients, Place};
use crate::config::When;
use crate::connections::{Carry, Endpoint, Flow, Seen, ends, key_between};
use crate::frame::Frame;
use crate::servers::Server;
use crate::source_ports::Scope;
use crate::translate::{in_tunnel, is_error, set_macs, translate};
use crate::tunnel::{Kind, Refusal, Tunnel};

/// For how long a router's word on the longest packet is believed (RFC 1191 §6.3).
const PATH_MTU_AGE: u64 = 600_000_000_000;

/// What comes sooner after a first SYN says nothing of the backend, which may not have had the time to answer: nobody
/// asks again within less (RFC 6298 §2.1 has a second), but networks duplicate packets, and attackers send bursts. In
/// nanoseconds.
const RETRY_AGE: u64 = 500_000_000;

/// Changes a packet so that it comes to its backend or client.
#[inline(always)]
pub(crate) fn carry<F: Frame>(
    frame: &mut F,
    look: &Look,
    flow: &Flow,
    server: &mut Server,
    gear: Gear,
    own: &mut OwnPackets,
    counts: &mut Counts,
) -> Step {
    let done = match flow.carry {
        Carry::Nat | Carry::Back if look.tunnelled => in_tunnel(frame.bytes_mut(), &look.headers, |frame| {
            translate(frame, &look.headers, flow.source, flow.destination)
        }),
        Carry::Nat | Carry::Back => {
            translate(frame.bytes_mut(), &look.headers, flow.source, flow.destination)
        }
        Carry::Dsr | Carry::Ipip | Carry::Gue if look.tunnelled => false,
        Carry::Dsr => true,
        Carry::Ipip | Carry::Gue => {
            own.datagrams = own.datagrams.wrapping_add(1);
            match pack(frame, look, flow, server, gear, own.datagrams) {
                Ok(()) => true,
                Err(Refusal::Unsupported) => false,
                Err(Refusal::Fragment(most)) => return Step::Cut(most, *flow),
                Err(Refusal::TooBig(most)) => {
                    counts.too_big += 1;
                    // An error is never answered by another (RFC 1122 §3.2.2).
                    let may = own.errors_left > 0 && !is_error(&look.headers, frame.bytes());
                    own.errors_left = own.errors_left.saturating_sub(1);
                    return if may && answers::too_big(frame, &look.headers, most) {
                        Step::Done(frame.port().map_or(Verdict::Next, Verdict::Out))
                    } else {
                        DropReason::TooLong.into()
                    };
                }
            }
        }
    };
    if !done {
        counts.unsupported += 1;
        return DropReason::Unsupported.into();
    }
    frame.set_hash(flow.hash);
    deliver(frame, look, flow, server, gear)
}

/// Gives a packet its Ethernet addresses, unless it stays in a tunnel that has its own way, and its verdict.
#[inline(always)]
pub(crate) fn deliver<F: Frame>(
    frame: &mut F,
    look: &Look,
    flow: &Flow,
    server: &mut Server,
    gear: Gear,
) -> Step {
    let to_backend = flow.carry != Carry::Back;
    if let Some(own) = gear.mac.filter(|_| !look.tunnelled) {
        let to = if to_backend { server.mac } else { Some(flow.client_mac()) };
        let Some(to) = to else {
            server.counts.unresolved += 1;
            return DropReason::NoRoute.into();
        };
        set_macs(frame.bytes_mut(), to.0, own.0);
    }
    Step::Done(gear.verdict(to_backend))
}

/// Packs a packet into a tunnel to its backend.
fn pack<F: Frame>(
    frame: &mut F,
    look: &Look,
    flow: &Flow,
    server: &mut Server,
    gear: Gear,
    id: u16,
) -> Result<(), Refusal> {
    let to = server.backend.address;
    let from = if to.is_ipv4() { gear.own_v4 } else { gear.own_v6 };
    let mtu = match server.path_mtu {
        Some((_, since)) if flow.last_ns.saturating_sub(since) > PATH_MTU_AGE => {
            server.path_mtu = None;
            gear.mtu
        }
        Some((mtu, _)) => mtu.min(gear.mtu),
        None => gear.mtu,
    };
    let kind = if flow.carry == Carry::Gue { Kind::Gue } else { Kind::Ipip };
    let tunnel = Tunnel { kind, from: from.ok_or(Refusal::Unsupported)?, to, mtu };
    tunnel.pack(frame, &look.headers, flow.hash, id)
}

fn client_mac(frame: &[u8]) -> [u8; 6] {
    frame.get(6..).and_then(|rest| rest.first_chunk::<6>()).copied().unwrap_or_default()
}

impl Balancer {
    /// A packet with ports.
    #[inline(always)]
    pub(crate) fn flow<F: Frame>(&mut self, frame: &mut F, look: &Look, guess: Guess, now_ns: u64) -> Step {
        if look.headers.is_fragment() {
            self.note_fragment(frame.bytes(), look, now_ns);
        }
        let Some(flow) = self.connections.find_at(guess, look.hash, &look.key) else {
            return self.unknown(frame, look, now_ns);
        };
        let Some(server) = self.servers.get_mut(flow.server) else { return DropReason::NoRoute.into() };
        let seen = Seen::of(look.flags);
        let length = frame.bytes().len() as u64;
        if flow.carry == Carry::Back {
            if flow.seen == Seen::default() && observe(server, seen, now_ns) {
                self.tables.note_change();
            }
            server.counts.packets_from += 1;
            server.counts.bytes_from += length;
        } else {
            let moved = self.gear.mac.is_some() && flow.mac != client_mac(frame.bytes());
            let first_ack = seen.has(Seen::ACK) && !flow.seen.has(Seen::ACK);
            if !server.lives() || seen.has(Seen::SYN) || moved || first_ack {
                return self.unusual(frame, look, now_ns);
            }
            server.counts.packets_to += 1;
            server.counts.bytes_to += length;
        }
        flow.last_ns = now_ns;
        flow.seen.add(seen);
        carry(frame, look, flow, server, self.gear, &mut self.own, &mut self.counts)
    }

    /// A packet to a backend that needs a second look: its backend is down, it asks for a connection again, it is the
    /// first to confirm one, or its client is somewhere else.
    #[cold]
    #[inline(never)]
    fn unusual<F: Frame>(&mut self, frame: &mut F, look: &Look, now_ns: u64) -> Step {
        let Some(flow) = self.connections.table.get(look.hash, &look.key).copied() else {
            return self.unknown(frame, look, now_ns);
        };
        let server = self.servers.get(flow.server);
        let seen = Seen::of(look.flags);
        let unanswered = seen.has(Seen::SYN) && !self.connections.is_answered(&look.key, &flow);
        let goes_elsewhere = unanswered && server.is_some_and(|server| self.has_better(server));
        let lives = server.is_some_and(Server::lives) && !goes_elsewhere;
        if !lives || (seen.has(Seen::SYN) && self.connections.is_over(&look.key, &flow)) {
            if !lives && let Some(server) = self.servers.get_mut(flow.server) {
                server.counts.moved_away += 1;
            }
            self.connections.close(look.hash, &look.key);
            self.settle();
            return self.unknown(frame, look, now_ns);
        }
        let late = now_ns.saturating_sub(flow.last_ns) >= RETRY_AGE;
        let again = late && flow.seen.has(Seen::SYN) && !flow.seen.has(Seen::RETRIED);
        if again && unanswered {
            self.silent(flow.server, now_ns);
            if let Some(flow) = self.connections.table.find(look.hash, &look.key) {
                flow.seen.add(Seen::RETRIED);
            }
        }
        let mac = client_mac(frame.bytes());
        let twin = flow.twin(&look.key);
        if let Some(back) = twin.and_then(|twin| self.connections.table.find(flow.hash, &twin)) {
            back.mac = mac;
            if seen.has(Seen::ACK) && back.seen.has(Seen::ANY) {
                back.seen.add(Seen::CONFIRMED);
            }
        }
        let Some(flow) = self.connections.table.find(look.hash, &look.key) else {
            return DropReason::NoRoute.into();
        };
        flow.mac = mac;
        flow.last_ns = now_ns;
        flow.seen.add(seen);
        let flow = *flow;
        self.carry(frame, look, &flow)
    }

    /// Whether a server is shunned, and another one of its service takes what it does not answer.
    fn has_better(&self, server: &Server) -> bool {
        let takes = |slot: &u32| self.servers.get(*slot).is_some_and(Server::takes_new);
        let service = server.index.and_then(|index| self.services.get(index));
        server.shunned_until_ns.is_some() && service.is_some_and(|service| service.members.iter().any(takes))
    }

    /// A connection was asked for again, and its backend has not said a word.
    fn silent(&mut self, slot: u32, now_ns: u64) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        if let Some(passive) = server.passive
            && server.observe_failure(&passive, false, now_ns)
        {
            self.tables.note_change();
        }
    }

    /// A packet of no flow.
    #[cold]
    #[inline(never)]
    fn unknown<F: Frame>(&mut self, frame: &mut F, look: &Look, now_ns: u64) -> Step {
        let Some((source, destination)) = ends(&look.key) else { return self.other() };
        let Some(protocol) = look.key.protocol() else { return self.other() };
        let Some(index) = self.directory.find(destination.ip, protocol, destination.port) else {
            let own = self.gear.mac.is_some() && self.is_mine(destination.ip);
            // What a backend sends from a translated port must not come out with its own address.
            if self.directory.is_origin(source.ip, source.port) {
                self.counts.strays += 1;
                return DropReason::NoRoute.into();
            }
            if own {
                self.counts.no_service += 1;
                return DropReason::Denied.into();
            }
            return self.other();
        };
        let seen = Seen::of(look.flags);
        // Nor does anyone begin with an answer.
        let answer = (tcp::Flags::SYN | tcp::Flags::ACK).0;
        let is_answer = u16::from(look.flags) & answer == answer;
        if protocol == tcp::PROTOCOL && (seen.has(Seen::RST) || is_answer) {
            self.counts.strays += 1;
            return DropReason::NoRoute.into();
        }
        let adopted = protocol == tcp::PROTOCOL && !seen.has(Seen::SYN);
        let client = Client { source, destination, protocol, mac: client_mac(frame.bytes()), seen, adopted };
        match self.open(index, look, &client, now_ns) {
            Ok(flow) => self.carry(frame, look, &flow),
            Err(reason) => reason.into(),
        }
    }

    /// Opens a connection to a service.
    fn open(&mut self, index: usize, look: &Look, client: &Client, now_ns: u64) -> Result<Flow, DropReason> {
        let service = &mut self.services[index];
        if service.is_full() {
            service.counts.full += 1;
            return Err(DropReason::TableFull);
        }
        let sticky = service.config.sticky;
        let known = sticky.and_then(|time| self.clients.find(service.id, client.source.ip, time, now_ns));
        let takes =
            |place: &Place| self.servers.get(place.slot).is_some_and(|s| s.id == place.id && s.takes_new());
        let known = known.filter(takes).map(|place| place.slot).filter(|slot| service.members.contains(slot));
        // A sticky client keeps its backend by consistent hashing even if the table forgets him.
        let hash = if sticky.is_some() { Clients::hash(client.source.ip) } else { look.hash };
        let chosen = known
            .or_else(|| service.choose(&mut self.servers, hash, client.adopted, &mut self.dice, now_ns))
            .or_else(|| service.last_resort(&self.servers, hash));
        let Some(slot) = chosen else {
            let willing = |slot: &u32| self.servers.get(*slot).is_some_and(Server::is_willing);
            let full = service.members.iter().any(willing);
            if full {
                service.counts.full += 1;
                return Err(DropReason::TableFull);
            }
            service.counts.no_backend += 1;
            return Err(DropReason::NoRoute);
        };
        service.counts.sticky += u64::from(known.is_some());
        let flow = self.connect(index, slot, look, client, now_ns)?;
        let service = &mut self.services[index];
        service.open += 1;
        service.counts.connections += 1;
        service.counts.adopted += u64::from(client.adopted);
        let service = service.id;
        if let Some(server) = self.servers.get_mut(slot) {
            server.open += 1;
            server.counts.connections += 1;
            if sticky.is_some() {
                let place = Place { slot, id: server.id };
                self.clients.note(service, client.source.ip, place, now_ns);
            }
        }
        if self.connections.has_over() {
            self.settle();
        }
        Ok(flow)
    }

    /// Puts a connection to a backend into the table.
    fn connect(
        &mut self,
        index: usize,
        slot: u32,
        look: &Look,
        client: &Client,
        now_ns: u64,
    ) -> Result<Flow, DropReason> {
        let config = &self.services[index].config;
        let carry = Carry::from(config.mode);
        let Some(server) = self.servers.get(slot) else { return Err(DropReason::NoRoute) };
        let mut flow = Flow {
            last_ns: now_ns,
            source: client.source,
            destination: client.destination,
            server: slot,
            hash: look.hash,
            mac: client.mac,
            carry,
            seen: client.seen,
        };
        if carry != Carry::Nat {
            if self.connections.open(look.hash, look.key, flow, None) {
                return Ok(flow);
            }
            self.services[index].counts.table_full += 1;
            return Err(DropReason::TableFull);
        }
        let port = server.backend.port.unwrap_or(client.destination.port);
        flow.destination = Endpoint { ip: server.backend.address, port };
        self.connect_translated(index, look, client, flow)
    }

    /// Puts a translated connection into the table, both ways.
    fn connect_translated(
        &mut self,
        index: usize,
        look: &Look,
        client: &Client,
        mut flow: Flow,
    ) -> Result<Flow, DropReason> {
        let hairpin = self.directory.is_backend(client.source.ip);
        let nat = &self.services[index].config.source_nat;
        let mut translated = nat.when == When::Always || (nat.when == When::Hairpin && hairpin);
        if !translated && self.is_taken(&flow, client.protocol) {
            // The same client has the same ports open to the same backend by way of another virtual address.
            if self.services[index].config.source_nat.addresses.is_empty() {
                self.counts.conflicts += 1;
                return Err(DropReason::TableFull);
            }
            translated = true;
        }
        if translated {
            let Some(source) = self.take_source(index, look.hash, flow.destination, client.protocol) else {
                self.services[index].counts.ports_exhausted += 1;
                return Err(DropReason::TableFull);
            };
            flow.source = source;
        }
        let back =
            key_between(flow.destination, flow.source, client.protocol).ok_or(DropReason::Unsupported)?;
        flow.hash = back.hash32();
        let returning = Flow {
            source: client.destination,
            destination: client.source,
            hash: look.hash,
            carry: Carry::Back,
            seen: Seen::default(),
            ..flow
        };
        if self.connections.open(look.hash, look.key, flow, Some(returning)) {
            return Ok(flow);
        }
        if translated {
            let scope =
                Scope { source: flow.source.ip, backend: flow.destination, protocol: client.protocol };
            self.source_ports.give_back(scope, flow.source.port);
        }
        self.services[index].counts.table_full += 1;
        Err(DropReason::TableFull)
    }

    /// An address and a port in place of the client's.
    fn take_source(&mut self, index: usize, hash: u32, backend: Endpoint, protocol: u8) -> Option<Endpoint> {
        let nat = &self.services[index].config.source_nat;
        let turn = hash as usize % nat.addresses.len().max(1);
        let (before, after) = nat.addresses.split_at(turn);
        after.iter().chain(before).find_map(|source| {
            let scope = Scope { source: *source, backend, protocol };
            Some(Endpoint { ip: *source, port: self.source_ports.take(scope, &nat.ports)? })
        })
    }

    /// Whether what the backend would answer belongs to another connection that is not over.
    fn is_taken(&mut self, flow: &Flow, protocol: u8) -> bool {
        let Some(back) = key_between(flow.destination, flow.source, protocol) else { return false };
        let Some(other) = self.connections.table.get(back.hash32(), &back).copied() else { return false };
        let Some(there) = other.twin(&back) else { return true };
        let over = match self.connections.table.get(other.hash, &there) {
            Some(flow) => self.connections.is_over(&there, flow),
            None => true,
        };
        if over {
            self.connections.close(other.hash, &there);
            self.connections.table.remove(back.hash32(), &back);
        }
        !over
    }
}

/// Who asks for a connection.
#[derive(Clone, Copy, Debug)]
struct Client {
    source: Endpoint,
    destination: Endpoint,
    protocol: u8,
    mac: [u8; 6],
    seen: Seen,
    /// The connection is under way.
    adopted: bool,
}

/// What the first packet from a backend says of how it is; whether it is down because of it.
#[cold]
fn observe(server: &mut Server, seen: Seen, now_ns: u64) -> bool {
    if !seen.has(Seen::RST) {
        server.observe_success();
        return false;
    }
    server.counts.refused += 1;
    server.passive.is_some_and(|passive| server.observe_failure(&passive, true, now_ns))
}
