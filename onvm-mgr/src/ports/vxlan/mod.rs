//! `vxlan:local=ADDRESS[:PORT],remote=ADDRESS[:PORT],vni=N`: a tunnel to another host (RFC 7348), over UDP.
//!
//! ```text
//! frame ─▶ header with the VNI ─▶ datagram, from a port by the flow's hash ─▶ network ─▶ frame
//! ```
//! At the other end may be a manager with such a port, so that services of two hosts are one graph, or anything that
//! speaks VXLAN. There is one other end and no learning. A datagram that is not from there, or is of another VNI, is counted as
//! foreign and forgotten.
//!
//! Flows have different source ports, so that the network spreads them over its ways (RFC 7348 §5). A frame whose
//! datagram is too long for the way is not sent and counted as failed: tunnels must not fragment (§4.3). So packets that go in
//! may be 50 bytes shorter than the network's MTU, or 70 over IPv6; `mtu=` says what the inner MTU is where that
//! is not it.
//!
//! A kernel at the other end of a veth leaves undone what a card would have done; that is done here (`half_done`).

mod socket;

use std::io::Error;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use onvm_lib::pool::{Books, HEADROOM, Note, Packet, Pool};
use onvm_lib::wire::{self, vxlan};

use super::half_done;
use super::intake::{Came, Intake};
use super::rate::now_ns;
use super::spec::SpecError;
use super::{Link, Port, PortCounters, PortError, Reception, Spec};
use socket::{Datagram, Inbox, MOST_AT_ONCE};

/// Ports that datagrams are sent from: as many ways as flows can take.
const WAYS: usize = 16;
/// Where those are looked for (RFC 7348 §5: the dynamic ports).
const DYNAMIC: std::ops::RangeInclusive<u16> = 49_152..=65_535;
/// Calls that receive in one burst, at most.
const CALLS: usize = 4;
/// Datagrams that may have come before the port is opened: more than a queue holds.
const MOST_EARLY: usize = 1 << 16;
/// Bytes of the shortest thing that is a frame.
const ETHERNET: usize = 14;
/// Inner MTUs that can be given.
const MTUS: std::ops::RangeInclusive<u64> = 68..=9216;
/// How often the kernel's counters and the MTU are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A tunnel.
pub(super) struct VxlanPort {
    name: String,
    remote: IpAddr,
    header: [u8; vxlan::HEADER_LEN],
    vni: u32,
    receiver: UdpSocket,
    senders: Vec<UdpSocket>,
    /// What goes by each of them in this burst.
    outgoing: Vec<Vec<Packet>>,
    inbox: Inbox,
    came: Vec<Datagram>,
    /// Buffers for what comes next.
    ready: Vec<Packet>,
    intake: Intake,
    /// There may be more: the last look ended before there was nothing.
    more: bool,
    /// Longest inner IP packet, and whether the user said so.
    mtu: u32,
    mtu_is_given: bool,
    counters: PortCounters,
    /// What the kernel had counted as dropped when it was asked last.
    dropped: u32,
    last_look: Instant,
    /// The last thing that the user was told went wrong.
    told: Option<i32>,
}

fn endpoint(spec: &Spec, option: &str) -> Result<SocketAddr, SpecError> {
    let Some(text) = spec.get(option) else {
        return Err(
            spec.missing("both ends and a VNI are needed, as in vxlan:local=10.0.0.1,remote=10.0.0.2,vni=7")
        );
    };
    let address = text.parse::<SocketAddr>().or_else(|_| {
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, vxlan::PORT))
    });
    address
        .map_err(|_| spec.bad(option, "an address like 10.0.0.1, 10.0.0.1:4789 or [fd00::1]:4789 is needed"))
}

/// Bytes of the headers around an inner IP packet.
fn overhead(remote: &SocketAddr) -> u32 {
    if remote.is_ipv4() { 20 + 8 + 8 + 14 } else { 40 + 8 + 8 + 14 }
}

/// Sockets that send from different ports, first of the dynamic ones.
fn senders(local: SocketAddr, remote: SocketAddr) -> Result<Vec<UdpSocket>, Error> {
    // Two managers on one host look in different places first.
    let first = DYNAMIC.start() + u16::try_from(std::process::id() % 1000).unwrap_or(0) * 16;
    let mut senders = Vec::with_capacity(WAYS);
    for port in (first..=*DYNAMIC.end()).chain(*DYNAMIC.start()..first) {
        match socket::sender(SocketAddr::new(local.ip(), port), remote) {
            Ok(socket) => senders.push(socket),
            Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => {}
            Err(error) => return Err(error),
        }
        if senders.len() == WAYS {
            break;
        }
    }
    if senders.is_empty() { Err(Error::from_raw_os_error(libc::EADDRINUSE)) } else { Ok(senders) }
}

impl VxlanPort {
    pub(super) fn open(spec: &Spec, pool: &Pool) -> Result<Self, PortError> {
        let (local, remote) = (endpoint(spec, "local")?, endpoint(spec, "remote")?);
        if local.is_ipv4() != remote.is_ipv4() {
            return Err(spec.bad("remote", "both ends are IPv4 or both IPv6").into());
        }
        let Some(vni) = spec.number("vni")? else {
            return Err(spec.missing("a VNI is needed, as in vni=7").into());
        };
        let vni = u32::try_from(vni).ok().filter(|vni| *vni < 1 << 24);
        let vni = vni.ok_or_else(|| spec.bad("vni", "out of range 0..=16777215"))?;
        let mtu = spec.number("mtu")?;
        if mtu.is_some_and(|mtu| !MTUS.contains(&mtu)) {
            return Err(spec.bad("mtu", format!("out of range {}..={}", MTUS.start(), MTUS.end())).into());
        }
        let failed = |what: &str, error: &Error| PortError::Interface {
            text: spec.text().to_string(),
            what: format!("{what}: {}", why(error)),
        };
        let receiver = socket::receiver(local).map_err(|e| failed("cannot be received at", &e))?;
        let senders = senders(local, remote).map_err(|e| failed("cannot be sent from", &e))?;
        let mut header = [0; vxlan::HEADER_LEN];
        if let Ok(mut packet) = vxlan::Packet::new_checked(&mut header[..]) {
            packet.set_has_vni(true);
            packet.set_vni(vni);
        }
        let path = socket::path_mtu(&senders[0]).map_err(|e| failed("its MTU cannot be had", &e))?;
        let room = pool.geometry().packet_room();
        let inner = mtu.and_then(|mtu| u32::try_from(mtu).ok());
        Ok(Self {
            name: spec.text().to_string(),
            remote: remote.ip(),
            header,
            vni,
            receiver,
            outgoing: senders.iter().map(|_| Vec::new()).collect(),
            senders,
            inbox: Inbox::new(),
            came: Vec::with_capacity(MOST_AT_ONCE),
            ready: Vec::with_capacity(MOST_AT_ONCE),
            intake: Intake::default(),
            more: true,
            mtu: inner.unwrap_or(path.saturating_sub(overhead(&remote)).min(room)),
            mtu_is_given: inner.is_some(),
            counters: PortCounters::default(),
            dropped: 0,
            last_look: Instant::now(),
            told: None,
        })
    }

    fn tell(&mut self, error: &Error) {
        if self.told != error.raw_os_error() {
            self.told = error.raw_os_error();
            log::warn!("{}: frames cannot be sent: {}", self.name, why(error));
        }
    }

    /// Receives a burst; false when there is nothing more.
    fn take(&mut self, books: &mut Books, burst: &mut Vec<Packet>, max: usize) -> bool {
        let room = books.pool().geometry().packet_room();
        while self.ready.len() < MOST_AT_ONCE
            && let Some(packet) = books.allocate(room)
        {
            self.ready.push(packet);
        }
        let wanted = (max - burst.len()).min(self.ready.len());
        if wanted == 0 {
            return true;
        }
        self.came.clear();
        let buffers = self.ready.iter_mut().take(wanted).map(|packet| packet.bytes_mut(books.pool()));
        if self.inbox.receive(&self.receiver, buffers, &mut self.came).is_err() {
            return false;
        }
        let timestamp_ns = now_ns();
        let came = std::mem::take(&mut self.came);
        let packets: Vec<Packet> = self.ready.drain(..came.len()).collect();
        for ((index, datagram), packet) in came.iter().enumerate().zip(packets) {
            if let Some(packet) = self.accept(books, (index, datagram), packet, timestamp_ns, (burst, max)) {
                books.free(packet);
            }
        }
        let all = came.len() == wanted;
        self.came = came;
        all
    }

    /// Makes a packet of a datagram, or more; gives the buffer back if it is not needed.
    fn accept(
        &mut self,
        books: &mut Books,
        (index, datagram): (usize, &Datagram),
        mut packet: Packet,
        timestamp_ns: u64,
        (burst, max): (&mut Vec<Packet>, usize),
    ) -> Option<Packet> {
        let header = vxlan::Packet::new_checked(&datagram.header[..]);
        let ours = datagram.from == Some(self.remote)
            && header.is_ok_and(|header| header.has_vni() && header.vni() == self.vni);
        let Some(length) = datagram.length.filter(|_| ours) else {
            self.counters.rx_foreign += 1;
            return Some(packet);
        };
        if length < ETHERNET || datagram.cut {
            self.counters.rx_refused += 1;
            return Some(packet);
        }
        let room = books.pool().geometry().packet_room() as usize;
        let longest = self.mtu as usize + ETHERNET + 8;
        if length > room.min(longest) {
            let here = &packet.bytes(books.pool())[..length.min(room)];
            let beyond = self.inbox.beyond(index, length.saturating_sub(room));
            let bytes = &[here, beyond].concat()[..];
            if let Some(offload) = half_done::cut_up(bytes, self.mtu) {
                let came = Came { bytes, offload, tag: None, timestamp_ns };
                self.intake.take(books, burst, max, came, &mut self.counters);
                return Some(packet);
            }
            if length > room {
                self.counters.rx_refused += 1;
                return Some(packet);
            }
        }
        let length = u32::try_from(length).unwrap_or(0);
        packet.describe(packet.descriptor().with_place(HEADROOM, length));
        let bytes = packet.bytes_mut(books.pool());
        half_done::complete(bytes);
        let hash = wire::flow_hash(bytes);
        packet.describe(packet.descriptor().with_hash(hash));
        books.set_note(&packet, Note { timestamp_ns, wire_length: length });
        self.counters.rx_packets += 1;
        self.counters.rx_bytes += u64::from(length);
        self.intake.put(packet, burst, max);
        None
    }

    /// Sends what goes by one of the ways; what cannot be sent goes to `failed`.
    fn send_by(&mut self, way: usize, books: &mut Books, failed: &mut Vec<Packet>) {
        let mut packets = std::mem::take(&mut self.outgoing[way]);
        let (mut done, mut patience) = (0, 3);
        while done < packets.len() {
            let frames = packets[done..].iter().map(|packet| packet.bytes(books.pool()));
            match socket::send(&self.senders[way], &self.header, frames) {
                Ok(sent) => {
                    let sizes = packets[done..done + sent].iter().map(|p| u64::from(p.descriptor().length()));
                    self.counters.tx_bytes += sizes.sum::<u64>();
                    self.counters.tx_packets += sent as u64;
                    done += sent;
                }
                Err(error) => match error.raw_os_error() {
                    // The answer to an earlier one: nobody was there. The next may find somebody.
                    Some(libc::ECONNREFUSED | libc::EINTR) if patience > 0 => patience -= 1,
                    // This one alone cannot be sent.
                    Some(libc::EMSGSIZE) => {
                        self.tell(&error);
                        failed.push(packets.remove(done));
                    }
                    _ => {
                        self.tell(&error);
                        failed.extend(packets.drain(done..));
                    }
                },
            }
        }
        packets.drain(..).for_each(|packet| books.free(packet));
        self.outgoing[way] = packets;
    }
}

/// In words for the user.
fn why(error: &Error) -> String {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => "another program has the port".into(),
        Some(libc::EADDRNOTAVAIL) => "the address is not of this host".into(),
        Some(libc::EMSGSIZE) => {
            "a frame is too long for the way: raise the MTU there, or lower it inside of the tunnel".into()
        }
        Some(libc::ECONNREFUSED) => "nobody is at the other end".into(),
        _ => error.to_string(),
    }
}

impl Port for VxlanPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn waits(&self) -> bool {
        false
    }

    /// What came before the ports were open is not for the chain.
    fn start(&mut self) {
        let mut byte = [0];
        for _ in 0..MOST_EARLY {
            if self.receiver.recv(&mut byte).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock) {
                break;
            }
        }
        self.dropped = socket::dropped(&self.receiver);
    }

    fn receive(&mut self, books: &mut Books, burst: &mut Vec<Packet>, max: usize) -> Reception {
        self.intake.fill(burst, max);
        self.more = true;
        // Datagrams that make no packet are looked at as well: there are other ports.
        for _ in 0..CALLS {
            if burst.len() >= max {
                break;
            }
            if !self.take(books, burst, max) {
                self.more = false;
                break;
            }
        }
        Reception::Ready
    }

    fn send(&mut self, books: &mut Books, burst: &mut Vec<Packet>) {
        for packet in burst.drain(..) {
            let way = packet.descriptor().hash() as usize % self.senders.len();
            self.outgoing[way].push(packet);
        }
        for way in 0..self.senders.len() {
            if !self.outgoing[way].is_empty() {
                self.send_by(way, books, burst);
            }
        }
        self.counters.tx_failed += burst.len() as u64;
    }

    fn holds(&self) -> usize {
        self.ready.len() + self.intake.len()
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.receiver.as_fd())
    }

    fn is_ready(&self) -> bool {
        self.more || self.intake.len() > 0
    }

    fn idle(&mut self) {
        if self.last_look.elapsed() < LOOK {
            return;
        }
        self.last_look = Instant::now();
        let dropped = socket::dropped(&self.receiver);
        self.counters.rx_missed += u64::from(dropped.wrapping_sub(self.dropped));
        self.dropped = dropped;
        if !self.mtu_is_given
            && let Ok(path) = socket::path_mtu(&self.senders[0])
            && let Ok(remote) = self.senders[0].peer_addr()
        {
            self.mtu = path.saturating_sub(overhead(&remote));
        }
    }

    fn close(&mut self, books: &mut Books) -> Result<(), PortError> {
        self.intake.close(books);
        self.ready.drain(..).for_each(|packet| books.free(packet));
        Ok(())
    }

    /// That of the interface by which datagrams leave; the MTU is the inner one.
    fn link(&self) -> Link {
        let local = self.senders[0].local_addr().ok();
        let interface = local.and_then(|local| socket::interface_of(local.ip()));
        match interface.as_deref().map(super::afpacket::link) {
            Some(below) => Link { mtu: Some(self.mtu), ..below },
            None => Link { up: Some(false), mtu: Some(self.mtu), ..Link::default() },
        }
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}
