//! `afpacket:INTERFACE`: any network interface of the kernel's, by packet sockets.
//!
//! What comes in is read from a ring that the kernel fills, and copied into buffers of the pool; what goes out is sent
//! from them, a burst with a call. `promiscuous=no` takes only what is addressed to the interface. Packets have the
//! kernel's time, and with `timestamps=hardware` the card's, where a driver has been told to give it (`hwstamp_ctl`, `ptp4l`). Needs `CAP_NET_RAW`.
//!
//! Frames leave as a network card would have sent them: half checksums are completed, super-frames cut up (`offload`), VLAN
//! tags put back that the kernel had taken out. A frame that is longer than a buffer is counted as refused, one that
//! is longer than the MTU at the other end as failed.
//!
//! ```text
//! up ──interface goes down──▶ down ──comes up──▶ up            frames to be sent are counted as failed meanwhile
//!  └──────interface removed──▶ gone ──one of this name comes──▶ up
//! ```
//! The kernel's own stack sees the frames as well: for a wire that only the chain bridges the interface has no address.

mod link;
mod ring;
mod socket;

use std::io::Error;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use onvm_lib::pool::{Books, Packet};

use super::intake::{Came, Intake};
use super::{Link as LinkState, Port, PortCounters, PortError, Reception, Spec};
pub(super) use link::link;
#[cfg(feature = "dpdk")]
pub(super) use link::{is_up_by_index, name_of};
use ring::ReceiveRing;
use socket::{MOST_AT_ONCE, Socket};

/// EtherType of an 802.1Q tag.
const ETHERTYPE_VLAN: u16 = 0x8100;
/// How long a full sending queue is waited for.
const ROOM_TIME: Duration = Duration::from_millis(1);
/// How often the kernel's counters, and whether the interface is still there, are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Frames that may have come before the port is opened: more than a ring and a queue hold.
const MOST_EARLY: usize = 1 << 16;

/// The sockets, as long as there is an interface.
struct Link {
    index: u32,
    receiver: Socket,
    sender: Socket,
    ring: ReceiveRing,
}

/// A port on an interface of the kernel's.
pub(super) struct AfPacketPort {
    name: String,
    interface: String,
    promiscuous: bool,
    hardware_time: bool,
    link: Option<Link>,
    intake: Intake,
    queue_buffer: Vec<u8>,
    counters: PortCounters,
    last_look: Instant,
    /// What the user was told went wrong since a frame was sent.
    told: Vec<i32>,
}

impl AfPacketPort {
    pub(super) fn open(spec: &Spec) -> Result<Self, PortError> {
        let Some(interface) = spec.get("interface") else {
            return Err(spec.missing("the name of an interface is needed, as in afpacket:eth0").into());
        };
        let promiscuous = match spec.get("promiscuous") {
            None | Some("yes" | "on" | "true" | "1") => true,
            Some("no" | "off" | "false" | "0") => false,
            Some(_) => return Err(spec.bad("promiscuous", "yes or no is needed").into()),
        };
        let hardware_time = match spec.get("timestamps") {
            None | Some("software") => false,
            Some("hardware") => true,
            Some(_) => return Err(spec.bad("timestamps", "hardware or software is needed").into()),
        };
        let mut port = Self {
            name: spec.text().to_string(),
            interface: interface.to_string(),
            promiscuous,
            hardware_time,
            link: None,
            intake: Intake::default(),
            queue_buffer: Socket::queue_buffer(),
            counters: PortCounters::default(),
            last_look: Instant::now(),
            told: Vec::new(),
        };
        let link = port.connect().map_err(|error| port.failure("cannot be opened", &error))?;
        port.link = Some(link);
        Ok(port)
    }

    fn connect(&self) -> Result<Link, Error> {
        let index = index_of(&self.interface)?;
        let (receiver, ring) = Socket::receiver(index, self.promiscuous, self.hardware_time)?;
        Ok(Link { index, receiver, sender: Socket::sender(index)?, ring })
    }

    /// In words for the user.
    fn failure(&self, what: &str, error: &Error) -> PortError {
        let why = match error.raw_os_error() {
            Some(libc::EPERM) => {
                "CAP_NET_RAW is needed: run as root, or give the program that capability".into()
            }
            Some(libc::ENODEV | libc::ENXIO) => format!("there is no interface {:?}", self.interface),
            _ => error.to_string(),
        };
        PortError::Interface { text: self.name.clone(), what: format!("{what}: {why}") }
    }

    /// Tells the user of an error once, as long as it is the same.
    fn tell(&mut self, what: &str, error: &Error) {
        let number = error.raw_os_error().unwrap_or(0);
        if !self.told.contains(&number) {
            self.told.push(number);
            log::warn!("{}", self.failure(what, error));
        }
    }

    /// Looks at the kernel's counters, and for the interface.
    fn look(&mut self) {
        let index = index_of(&self.interface);
        if let Some(link) = &self.link {
            self.counters.rx_missed += link.receiver.missed().frames;
            if index.as_ref().is_ok_and(|index| *index == link.index) {
                return;
            }
            log::warn!("{}: the interface is gone; waiting for one of this name", self.name);
            self.link = None;
        }
        if index.is_err() {
            return;
        }
        match self.connect() {
            Ok(link) => {
                log::info!("{}: there is an interface of this name again", self.name);
                self.link = Some(link);
                self.told.clear();
            }
            Err(error) => self.tell("cannot be opened again", &error),
        }
    }
}

/// The number that the kernel gave an interface.
fn index_of(name: &str) -> Result<u32, Error> {
    let probe = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None)?;
    Ok(rustix::net::netdevice::name_to_index(&probe, name)?)
}

impl Port for AfPacketPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn waits(&self) -> bool {
        false
    }

    /// What came before the ports were open is not for the chain.
    fn start(&mut self) {
        let Some(link) = &mut self.link else { return };
        for _ in 0..MOST_EARLY {
            let Some(frame) = link.ring.frame() else { break };
            if frame.in_queue {
                let _ = link.receiver.take_queued(&mut self.queue_buffer);
            }
            link.ring.release();
        }
        let _ = link.receiver.missed();
    }

    fn receive(&mut self, books: &mut Books, burst: &mut Vec<Packet>, max: usize) -> Reception {
        self.intake.fill(burst, max);
        // Taken out for the time being: what is borrowed from it lives on while packets are made.
        let Some(mut link) = self.link.take() else {
            return Reception::NotBefore(Instant::now() + LOOK);
        };
        // Frames that make no packet are looked at as well: there are other ports.
        for _ in 0..max {
            if burst.len() >= max {
                break;
            }
            let Some(received) = link.ring.frame() else { break };
            let (tag, timestamp_ns) = (received.tag, received.timestamp_ns);
            if received.in_queue {
                let mut buffer = std::mem::take(&mut self.queue_buffer);
                match link.receiver.take_queued(&mut buffer) {
                    // More than 64 KiB (`gso_max_size`): the queue's frame is read as far as there is room for it.
                    Ok(queued) if queued.bytes.len() < received.length => self.counters.rx_refused += 1,
                    Ok(queued) => {
                        let came = Came { bytes: queued.bytes, offload: queued.offload, tag, timestamp_ns };
                        self.intake.take(books, burst, max, came, &mut self.counters);
                    }
                    Err(_) => self.counters.rx_missed += 1,
                }
                self.queue_buffer = buffer;
            } else if received.length > received.bytes.len() {
                // Too long for a slot, and there was no room in the queue.
                self.counters.rx_missed += 1;
            } else {
                let came = Came { bytes: received.bytes, offload: received.offload, tag, timestamp_ns };
                self.intake.take(books, burst, max, came, &mut self.counters);
            }
            link.ring.release();
        }
        self.link = Some(link);
        Reception::Ready
    }

    fn send(&mut self, books: &mut Books, burst: &mut Vec<Packet>) {
        let (mut done, mut failed) = (0, Vec::new());
        let mut patience = true;
        while done < burst.len() {
            let frames = burst[done..].iter().take(MOST_AT_ONCE).map(|p| p.bytes(books.pool()));
            let sent = match &self.link {
                Some(link) => link.sender.send(frames),
                None => Err(Error::from_raw_os_error(libc::ENXIO)),
            };
            match sent.map_err(|error| (error.raw_os_error(), error)) {
                Ok(sent) => {
                    let sizes = burst[done..done + sent].iter().map(|p| u64::from(p.descriptor().length()));
                    self.counters.tx_bytes += sizes.sum::<u64>();
                    self.counters.tx_packets += sent as u64;
                    done += sent;
                    self.told.retain(|error| *error == libc::EMSGSIZE);
                }
                Err((Some(libc::EAGAIN | libc::ENOBUFS), _)) if std::mem::take(&mut patience) => {
                    self.link.iter().for_each(|link| link.sender.wait_for_room(ROOM_TIME));
                }
                // This one alone cannot be sent.
                Err((Some(libc::EMSGSIZE | libc::EINVAL), error)) => {
                    self.tell("a frame cannot be sent", &error);
                    failed.push(burst.remove(done));
                }
                Err((_, error)) => {
                    self.tell("frames cannot be sent", &error);
                    failed.extend(burst.drain(done..));
                }
            }
        }
        self.counters.tx_failed += failed.len() as u64;
        burst.drain(..).for_each(|packet| books.free(packet));
        *burst = failed;
    }

    fn holds(&self) -> usize {
        self.intake.len()
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.link.as_ref().map(|link| link.receiver.as_fd())
    }

    fn is_ready(&self) -> bool {
        self.intake.len() > 0 || self.link.as_ref().is_some_and(|link| link.ring.has_frame())
    }

    fn idle(&mut self) {
        if self.last_look.elapsed() >= LOOK {
            self.last_look = Instant::now();
            self.look();
        }
    }

    fn close(&mut self, books: &mut Books) -> Result<(), PortError> {
        self.intake.close(books);
        // The sockets end with the port, away from the packets: the kernel waits for readers of its lists then.
        if let Some(link) = &self.link {
            self.counters.rx_missed += link.receiver.missed().frames;
        }
        Ok(())
    }

    fn link(&self) -> LinkState {
        link(&self.interface)
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}
