//! `xdp:INTERFACE`: a network interface by AF_XDP, whose frames come into the pool's buffers and leave from there.
//!
//! ```text
//! interface ─▶ program (in the driver, or generic) ─▶ socket of the queue ─▶ buffers of the pool ─▶ chain
//!                   └ queue without a socket ─▶ the kernel's stack
//! ```
//! The pool is the memory of the sockets: the kernel, or the device itself where it can (*zero-copy*), writes a frame to
//! just where a packet stands in a buffer, and nothing is copied here. The pool's stride is no power of two, so chunks are
//! given by any address ("unaligned"). All queues of a port share the memory.
//!
//! | Room | What it has |
//! |---|---|
//! | `options` | what the user wants |
//! | `link` | the hold on an interface: program and sockets |
//! | `bpf`, `program`, `btf` | `bpf(2)`, the few instructions, and what they call |
//! | `netlink`, `device` | what the kernel knows of an interface and is told about it |
//! | `queue`, `ring` | a socket, and its four rings |
//! | `lent` | which buffers the kernel has |
//!
//! ```text
//! up ──interface goes down──▶ down ──comes up──▶ up            frames to be sent are counted as failed meanwhile
//!  └──────interface removed──▶ gone ──one of this name comes──▶ up
//! ```
//! The program is held by a link that goes with the process, however it ends. A program of others is left alone unless
//! `force` says otherwise. Frames that local TCP has left to a card have their checksums completed; native mode keeps
//! it from making super-frames, and in generic mode those are cut up (`half_done`). Needs `CAP_NET_ADMIN`, `CAP_NET_RAW` and `CAP_BPF`.

mod bpf;
mod btf;
mod device;
mod lent;
mod link;
mod netlink;
mod options;
mod program;
mod queue;
mod ring;

use std::io::Error;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use onvm_lib::pool::{Books, Note, Packet, Pool};
use onvm_lib::wire;

use super::half_done;
use super::intake::{Came as Frame, Intake};
use super::rate::now_ns;
use super::{Link as LinkState, Port, PortCounters, PortError, Reception, Spec};
use lent::Lent;
use link::{Link, Refusal};
use options::Options;
use queue::{Came, Joining, Queue, Stopped, Whole};

/// How often the kernel's counters, and whether the interface is still there, are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long frames that are being sent are waited for at the end.
const LAST_WAIT: Duration = Duration::from_millis(500);
/// Longest super-frame.
const LONGEST: usize = 65_536 + 22;
/// Bytes of the shortest thing that is a frame.
const ETHERNET: u32 = 14;

/// A port on an interface of the kernel's, by AF_XDP.
pub(super) struct XdpPort {
    name: String,
    options: Options,
    pool: Pool,
    link: Option<Link>,
    lent: Lent,
    intake: Intake,
    /// Buffers that are home again, or that a device cannot use.
    back: Vec<Packet>,
    aside: Vec<Packet>,
    /// The interface was down when it was last tried.
    down: bool,
    /// The queue that is served first in the next round.
    turn: usize,
    counters: PortCounters,
    manner: String,
    last_look: Instant,
    /// The last thing that the user was told went wrong.
    told: Option<String>,
}

/// The number that the kernel gave an interface.
fn index_of(name: &str) -> Result<u32, Error> {
    let probe = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None)?;
    Ok(rustix::net::netdevice::name_to_index(&probe, name)?)
}

impl XdpPort {
    pub(super) fn open(spec: &Spec, pool: &Pool) -> Result<Self, PortError> {
        let options = Options::read(spec)?;
        let failed = |what: String| PortError::Interface { text: spec.text().to_string(), what };
        let index = index_of(&options.interface)
            .map_err(|_| failed(format!("there is no interface {:?}", options.interface)))?;
        let link = Link::open(index, &options, pool).map_err(|Refusal(what)| failed(what))?;
        let driver = device::driver(&options.interface);
        log::info!("{}: {} (driver {driver:?})", spec.text(), link.manner);
        Ok(Self {
            name: spec.text().to_string(),
            manner: link.manner.clone(),
            options,
            pool: pool.clone(),
            link: Some(link),
            lent: Lent::new(pool.geometry().buffers()),
            intake: Intake::default(),
            back: Vec::new(),
            aside: Vec::new(),
            down: false,
            turn: 0,
            counters: PortCounters::default(),
            last_look: Instant::now(),
            told: None,
        })
    }

    /// Tells the user of something once, as long as it is the same.
    fn tell(&mut self, what: String) {
        if self.told.as_ref() != Some(&what) {
            log::warn!("{}: {what}", self.name);
            self.told = Some(what);
        }
    }

    /// Looks at the kernel's counters, and for the interface.
    fn look(&mut self) {
        let index = index_of(&self.options.interface);
        if let Some(link) = &mut self.link {
            self.counters.rx_missed += link.queues.iter_mut().map(Queue::missed).sum::<u64>();
            if index.as_ref().is_ok_and(|index| *index == link.index) {
                if let Ok((up, mtu)) = device::state(&self.options.interface) {
                    link.mtu = mtu;
                    if up && std::mem::replace(&mut self.down, false) {
                        self.told = None;
                    }
                }
                return;
            }
            self.tell("the interface is gone; waiting for one of this name".into());
            self.let_go();
        }
        let Ok(index) = index else { return };
        match Link::open(index, &self.options, &self.pool) {
            Ok(link) => {
                log::info!("{}: there is an interface of this name again: {}", self.name, link.manner);
                (self.manner, self.down, self.told) = (link.manner.clone(), false, None);
                self.link = Some(link);
            }
            Err(Refusal(what)) => self.tell(format!("cannot be opened again: {what}")),
        }
    }

    /// Closes the sockets; then nothing is with the kernel any more.
    fn let_go(&mut self) {
        if let Some(mut link) = self.link.take() {
            for queue in &mut link.queues {
                self.counters.rx_missed += queue.missed();
                let joining = std::mem::replace(&mut queue.joining, Joining::None);
                if let Joining::Some(Whole::Packet(packet)) = joining {
                    self.back.push(packet);
                }
            }
        }
        self.back.extend(self.lent.take_all());
        self.back.append(&mut self.aside);
    }

    fn give_back(&mut self, books: &mut Books) {
        self.back.drain(..).for_each(|packet| books.free(packet));
    }

    /// Takes what has come to a queue.
    fn receive_from(
        &mut self,
        queue: &mut Queue,
        books: &mut Books,
        to: (&mut Vec<Packet>, usize),
        mtu: u32,
    ) {
        let (burst, max) = to;
        if !queue.has_frame() {
            return;
        }
        let timestamp_ns = now_ns();
        // Frames that make no packet are looked at as well: there are other ports.
        for _ in 0..max {
            if burst.len() >= max {
                break;
            }
            let Some(came) = queue.take() else { break };
            let Some(whole) = self.join(queue, books, came) else { continue };
            let long = match whole {
                Whole::Packet(packet) => {
                    let bytes = packet.bytes(books.pool());
                    let over = packet.descriptor().length() > mtu + around(bytes) && !queue.zero_copy;
                    if !over || half_done::cut_up(bytes, mtu).is_none() {
                        burst.extend(self.finish(packet, books, queue.zero_copy, timestamp_ns));
                        continue;
                    }
                    let bytes = bytes.to_vec();
                    books.free(packet);
                    bytes
                }
                Whole::Long(bytes) => bytes,
            };
            match half_done::cut_up(&long, mtu) {
                Some(offload) => {
                    let came = Frame { bytes: &long, offload, tag: None, timestamp_ns };
                    self.intake.take(books, burst, max, came, &mut self.counters);
                }
                None => self.counters.rx_refused += 1,
            }
        }
        queue.release();
    }

    /// The packet of a frame, if it is whole by what has come.
    fn join(&mut self, queue: &mut Queue, books: &mut Books, came: Came) -> Option<Whole> {
        let (buffer, offset) = books.pool().place_of(came.byte)?;
        let Some(mut packet) = self.lent.filled(buffer) else {
            log::error!("{}: a frame came in buffer {buffer}, which was not given", self.name);
            return None;
        };
        let room = books.pool().geometry().room();
        packet.describe(packet.descriptor().with_place(offset, came.length.min(room - offset)));
        let whole = match std::mem::replace(&mut queue.joining, Joining::None) {
            Joining::None => Some(Whole::Packet(packet)),
            Joining::Some(Whole::Packet(mut first)) => {
                let (start, before) = (first.descriptor().offset(), first.descriptor().length());
                let joined = if start + before + came.length <= room {
                    first.describe(first.descriptor().with_place(start, before + came.length));
                    let rest = &mut first.bytes_mut(books.pool())[before as usize..];
                    rest.copy_from_slice(packet.bytes(books.pool()));
                    Whole::Packet(first)
                } else {
                    let long = [first.bytes(books.pool()), packet.bytes(books.pool())].concat();
                    books.free(first);
                    Whole::Long(long)
                };
                books.free(packet);
                Some(joined)
            }
            Joining::Some(Whole::Long(mut long)) => {
                long.extend(packet.bytes(books.pool()));
                books.free(packet);
                (long.len() <= LONGEST).then_some(Whole::Long(long))
            }
            Joining::Forget => {
                books.free(packet);
                None
            }
        };
        match whole {
            Some(whole) if came.goes_on => queue.joining = Joining::Some(whole),
            Some(whole) => return Some(whole),
            None if came.goes_on => queue.joining = Joining::Forget,
            None => self.counters.rx_refused += 1,
        }
        None
    }

    /// Makes of a frame what the chain wants to know of it.
    fn finish(
        &mut self,
        mut packet: Packet,
        books: &mut Books,
        from_card: bool,
        timestamp_ns: u64,
    ) -> Option<Packet> {
        let length = packet.descriptor().length();
        if length < ETHERNET {
            self.counters.rx_refused += 1;
            books.free(packet);
            return None;
        }
        let bytes = packet.bytes_mut(books.pool());
        if !from_card {
            half_done::complete(bytes);
        }
        let hash = wire::flow_hash(bytes);
        packet.describe(packet.descriptor().with_hash(hash));
        books.set_note(&packet, Note { timestamp_ns, wire_length: length });
        self.counters.rx_packets += 1;
        self.counters.rx_bytes += u64::from(length);
        Some(packet)
    }

    /// Puts a packet into the ring of a queue, and waits for a place if need be.
    fn put(&mut self, queue: &mut Queue, books: &mut Books, packet: Packet, failed: &mut Vec<Packet>) {
        let length = u64::from(packet.descriptor().length());
        let packet = match queue.put(books, &mut self.lent, packet) {
            Ok(()) => return self.count_sent(length),
            Err(packet) => packet,
        };
        self.kick(queue, books, failed);
        let packet = match queue.put(books, &mut self.lent, packet) {
            Ok(()) => return self.count_sent(length),
            Err(packet) => packet,
        };
        if std::mem::take(&mut queue.patience) {
            queue.wait_for_room();
        }
        self.kick(queue, books, failed);
        // A device may be unable to use this buffer, and able to use another.
        let copy = if queue.zero_copy { books.duplicate(&packet) } else { None };
        let packet = match copy {
            Some(copy) => {
                books.free(packet);
                copy
            }
            None => packet,
        };
        match queue.put(books, &mut self.lent, packet) {
            Ok(()) => self.count_sent(length),
            Err(packet) => failed.push(packet),
        }
    }

    fn count_sent(&mut self, length: u64) {
        self.counters.tx_packets += 1;
        self.counters.tx_bytes += length;
    }

    /// Has a queue send, and takes back what it has sent. What was dropped on its way was not sent after all.
    fn kick(&mut self, queue: &mut Queue, books: &mut Books, failed: &mut Vec<Packet>) {
        let before = failed.len();
        for _ in 0..4 {
            let stopped = queue.kick(&self.pool, &mut self.lent);
            queue.reap(books, &mut self.lent, failed);
            match stopped {
                Stopped::Not => break,
                Stopped::Full => {}
                Stopped::Broken(error) => {
                    self.down = true;
                    self.tell(format!("frames cannot be sent: {error}"));
                    break;
                }
            }
        }
        self.count_unsent(&failed[before..]);
    }

    /// These were counted as sent, and were not.
    fn count_unsent(&mut self, failed: &[Packet]) {
        self.counters.tx_packets -= failed.len() as u64;
        self.counters.tx_bytes -= failed.iter().map(|p| u64::from(p.descriptor().length())).sum::<u64>();
    }

    /// Waits for what is being sent, but not for ever.
    fn finish_sending(&mut self, books: &mut Books) {
        let until = Instant::now() + LAST_WAIT;
        let Some(mut link) = self.link.take() else { return };
        let mut failed = Vec::new();
        while self.lent.sending() > 0 && Instant::now() < until && !self.down {
            for queue in &mut link.queues {
                self.kick(queue, books, &mut failed);
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        self.back.append(&mut failed);
        self.link = Some(link);
        if self.lent.sending() > 0 {
            log::warn!(
                "{}: {} packets were still with the kernel at the end",
                self.name,
                self.lent.sending()
            );
        }
    }
}

/// Bytes that a frame may have beside the IP packet: the Ethernet header, and one tag.
fn around(frame: &[u8]) -> u32 {
    match frame.get(12..14) {
        Some([0x81, 0x00] | [0x88, 0xa8]) => 18,
        _ => 14,
    }
}

impl Port for XdpPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn manner(&self) -> Option<&str> {
        Some(&self.manner)
    }

    fn waits(&self) -> bool {
        false
    }

    fn receive(&mut self, books: &mut Books, burst: &mut Vec<Packet>, max: usize) -> Reception {
        self.give_back(books);
        let Some(mut link) = self.link.take() else {
            return Reception::NotBefore(Instant::now() + LOOK);
        };
        self.intake.fill(burst, max);
        let (count, mtu) = (link.queues.len(), link.mtu);
        let mut failed = Vec::new();
        for nth in 0..count {
            let queue = &mut link.queues[(self.turn + nth) % count];
            self.receive_from(queue, books, (burst, max), mtu);
            queue.reap(books, &mut self.lent, &mut failed);
            if queue.has_unsent() && !self.down {
                // There was no room in the kernel when it was put, and nothing came after it that would push it on.
                let _ = queue.kick(&self.pool, &mut self.lent);
            }
            queue.supply(books, &mut self.lent, &mut self.aside);
        }
        self.turn = (self.turn + 1) % count.max(1);
        // Dropped by the device after the worker was told that they are sent.
        self.counters.tx_failed += failed.len() as u64;
        self.count_unsent(&failed);
        failed.into_iter().for_each(|packet| books.free(packet));
        self.link = Some(link);
        Reception::Ready
    }

    fn send(&mut self, books: &mut Books, burst: &mut Vec<Packet>) {
        self.give_back(books);
        let link = if self.down { None } else { self.link.take() };
        let Some(mut open) = link else {
            self.counters.tx_failed += burst.len() as u64;
            return;
        };
        let (mut failed, mut too_long, given) = (Vec::new(), None, burst.len());
        let count = u32::try_from(open.queues.len()).unwrap_or(1);
        open.queues.iter_mut().for_each(|queue| queue.patience = true);
        for packet in burst.drain(..) {
            let length = packet.descriptor().length();
            if length > open.mtu + around(packet.bytes(books.pool())) {
                too_long = Some(length);
                failed.push(packet);
                continue;
            }
            let queue = &mut open.queues[(packet.descriptor().hash() % count) as usize];
            self.put(queue, books, packet, &mut failed);
        }
        for queue in &mut open.queues {
            self.kick(queue, books, &mut failed);
        }
        if let Some(length) = too_long {
            let mtu = open.mtu;
            self.tell(format!("a frame of {length} bytes is too long for the MTU of {mtu}"));
        }
        self.link = Some(open);
        self.counters.tx_failed += failed.len() as u64;
        // Some may be of an earlier burst; the worker takes back no more than it has given.
        while failed.len() > given
            && let Some(packet) = failed.pop()
        {
            books.free(packet);
        }
        *burst = failed;
    }

    fn holds(&self) -> usize {
        let joining = |queue: &Queue| usize::from(matches!(queue.joining, Joining::Some(Whole::Packet(_))));
        let joining = self.link.iter().flat_map(|link| &link.queues).map(joining).sum::<usize>();
        self.lent.count() + self.intake.len() + self.back.len() + self.aside.len() + joining
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.link.as_ref().and_then(Link::readiness)
    }

    fn is_ready(&self) -> bool {
        self.intake.len() > 0 || self.link.iter().flat_map(|link| &link.queues).any(Queue::has_frame)
    }

    fn idle(&mut self) {
        if self.last_look.elapsed() >= LOOK {
            self.last_look = Instant::now();
            self.look();
        }
    }

    fn close(&mut self, books: &mut Books) -> Result<(), PortError> {
        self.finish_sending(books);
        self.let_go();
        self.intake.close(books);
        self.give_back(books);
        Ok(())
    }

    fn link(&self) -> LinkState {
        super::afpacket::link(&self.options.interface)
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}
