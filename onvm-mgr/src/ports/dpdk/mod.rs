//! `dpdk:DEVICE[,OPTION=VALUE…]`: any device that a driver of DPDK's serves, a network card by its PCI address or a virtual
//! device, as in `dpdk:0000:00:05.0` and `dpdk:net_tap0,iface=dtap0`.
//!
//! Packets are received into buffers of the pool and sent from them, with no copy (`buffers`): NFs see what the card wrote, and
//! the card sends what they wrote. NFs need no DPDK for that. Options that are not ours go to the driver:
//!
//! | Ours | |
//! |---|---|
//! | `rxq=N` | queues to receive by; packets are spread over them so that both directions of a flow meet |
//! | `mtu=N` | the device's MTU |
//! | `promiscuous=no` | take only what is addressed to the device |
//! | `checksums=no` | do not have the device look at checksums |
//!
//! The device starts with the first look at it on the worker's thread, since a driver may want buffers for that.
#![allow(unsafe_code)]

mod buffers;
mod device;
mod eal;
mod frame;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use dpdk_sys::Mbuf;
use onvm_lib::pool::{Books, Note, Packet, Pool};
use onvm_lib::wire;

use super::rate::now_ns;
use super::{Link, Port, PortCounters, PortError, Reception, Spec, afpacket, half_done};
use buffers::Buffers;
use device::{BURST, Device, Wanted};

/// Bytes of the shortest thing that is a frame.
const ETHERNET: usize = 14;
/// The same, as lengths of packets are counted.
const HEADER: u32 = 14;
/// Buffers that wait in the mempool for the driver, at least.
const LEAST_STOCK: usize = 64;
/// The same at most, and at most so small a part of the pool.
const MOST_STOCK: usize = 256;
const PART_OF_POOL: usize = 16;
/// How many packets drivers are asked for at least: some give less than a few never.
const LEAST: usize = 32;
/// How long a full sending queue is waited for.
const ROOM_TIME: Duration = Duration::from_millis(1);
/// How often counters and link are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Tags of a frame that had one, and the outer of two.
const TAG: u16 = 0x8100;
const OUTER_TAG: u16 = 0x88a8;

/// Where a port stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Configured,
    Started,
    /// It did not start, or was closed.
    Ended,
}

/// A port on a device of DPDK's.
pub(super) struct DpdkPort {
    name: String,
    /// Driver and queues.
    manner: String,
    device: Device,
    buffers: Option<Buffers>,
    state: State,
    /// Sources that make packets when asked wait; interfaces do not.
    waits: bool,
    /// The driver reads a socket of the kernel's.
    of_kernel: bool,
    /// Longest frame without tags that it sends.
    longest: u32,
    most_stock: usize,
    /// Received beyond what was asked for.
    early: VecDeque<Packet>,
    more: bool,
    counters: PortCounters,
    /// The last try to send was in vain: the next does not wait.
    stuck: bool,
    link_up: Option<bool>,
    last_look: Instant,
    cut_told: bool,
    error: Option<PortError>,
}

/// A yes or no.
fn switch(spec: &Spec, option: &str, value: &str) -> Result<bool, PortError> {
    match value {
        "yes" | "on" | "true" | "1" => Ok(true),
        "no" | "off" | "false" | "0" => Ok(false),
        _ => Err(failure(spec.text(), format!("{option}={value}: yes or no is needed"))),
    }
}

fn failure(name: &str, what: impl Into<String>) -> PortError {
    PortError::Interface { text: name.to_string(), what: what.into() }
}

/// Parts what is ours from what the driver gets.
fn options(spec: &Spec) -> Result<(String, Wanted), PortError> {
    let text = spec.get("device").unwrap_or_default();
    let mut wanted = Wanted { rx_queues: None, mtu: None, promiscuous: true, checksums: true };
    let number = |option: &str, value: &str| {
        let number = value.parse::<u16>().ok().filter(|n| *n > 0);
        let bad = || failure(spec.text(), format!("{option}={value}: a number in 1..=65535 is needed"));
        number.ok_or_else(bad)
    };
    let mut others = Vec::new();
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("rxq", value)) => wanted.rx_queues = Some(number("rxq", value)?),
            Some(("mtu", value)) => wanted.mtu = Some(number("mtu", value)?),
            Some(("promiscuous", value)) => wanted.promiscuous = switch(spec, "promiscuous", value)?,
            Some(("checksums", value)) => wanted.checksums = switch(spec, "checksums", value)?,
            _ => others.push(part),
        }
    }
    if others.first().is_none_or(|device| device.is_empty() || device.contains('=')) {
        let want = "the name of a device is needed, as in dpdk:net_tap0,iface=dtap0 or dpdk:0000:00:05.0";
        return Err(failure(spec.text(), want));
    }
    Ok((others.join(","), wanted))
}

impl DpdkPort {
    pub(super) fn open(spec: &Spec, pool: &Pool) -> Result<Self, PortError> {
        let (devargs, wanted) = options(spec)?;
        let fails = |why: String| failure(spec.text(), why);
        eal::start(pool).map_err(fails)?;
        let (device, buffers) = Device::open(&devargs, wanted, pool).map_err(fails)?;
        let driver = device.driver();
        let file = driver == "net_pcap" && !devargs.contains("iface=");
        let manner = match device.rx_queues() {
            1 => format!("{driver}, 1 queue"),
            n => format!("{driver}, {n} queues"),
        };
        Ok(Self {
            name: spec.text().to_string(),
            waits: file || driver == "net_null",
            of_kernel: driver == "net_af_packet" || driver == "net_pcap" && !file,
            manner,
            device,
            buffers: Some(buffers),
            state: State::Configured,
            longest: u32::MAX,
            most_stock: (pool.geometry().buffers() as usize / PART_OF_POOL).clamp(LEAST_STOCK, MOST_STOCK),
            early: VecDeque::new(),
            more: true,
            counters: PortCounters::default(),
            stuck: false,
            link_up: None,
            last_look: Instant::now(),
            cut_told: false,
            error: None,
        })
    }

    /// Starts the device, the first time that the worker asks anything of it. False when it is not there.
    fn is_started(&mut self, books: &mut Books) -> bool {
        if self.state != State::Configured {
            return self.state == State::Started;
        }
        let Some(buffers) = &mut self.buffers else { return false };
        buffers.belong_to_this_thread();
        buffers.stock_up(books, self.device.appetite());
        let begun = self.device.begin(buffers);
        buffers.return_above(books, self.most_stock);
        if let Err(why) = begun {
            self.error = Some(failure(&self.name, why));
            self.state = State::Ended;
            return false;
        }
        // The kernel knows its interfaces' MTU itself, and a file takes what comes.
        if let Some(mtu) = self.device.mtu().filter(|_| self.device.driver() != "net_pcap" && !self.of_kernel)
        {
            self.longest = u32::from(mtu) + HEADER;
        }
        self.state = State::Started;
        self.look();
        true
    }

    /// Looks at the device's counters and at its link.
    fn look(&mut self) {
        if let Some(counters) = self.device.counters() {
            self.counters.rx_missed = counters.rx_missed;
            self.counters.rx_errors = counters.rx_errors;
            self.counters.tx_errors = counters.tx_errors;
        }
        let mut link = self.device.link();
        if let (Some((up, _)), true, Some(index)) = (&mut link, self.of_kernel, self.device.interface()) {
            // These drivers take every link for up, even of interfaces that are gone.
            *up = afpacket::is_up_by_index(index);
        }
        let up = link.map(|(up, _)| up);
        if up != self.link_up {
            match (link, self.link_up) {
                (Some((true, speed)), _) => log::info!("port {:?}: link up, {speed} Mbit/s", self.name),
                (Some((false, _)), Some(true)) => log::warn!("port {:?}: link down", self.name),
                _ => log::info!("port {:?}: no link yet", self.name),
            }
            self.link_up = up;
        }
    }

    /// Makes a packet of what the driver received.
    fn packet(&mut self, books: &mut Books, mbuf: *mut Mbuf, timestamp_ns: u64) -> Option<Packet> {
        let buffers = self.buffers.as_mut()?;
        // SAFETY: the driver has just given it.
        let (flags, parts) = unsafe { ((*mbuf).ol_flags, (*mbuf).nb_segs) };
        // SAFETY: as above.
        let tags = unsafe { [(*mbuf).vlan_tci_outer, (*mbuf).vlan_tci] };
        if parts != 1 {
            self.counters.rx_refused += 1;
            // SAFETY: it is ours to free, with all its parts; they go back to the stock.
            unsafe { dpdk_sys::onvm_dpdk_free(mbuf) };
            return None;
        }
        // SAFETY: as above.
        let mut packet = unsafe { buffers.take(mbuf) }?;
        if flags & (dpdk_sys::RX_IP_CKSUM_BAD | dpdk_sys::RX_L4_CKSUM_BAD) != 0 {
            let known = |bad: u64, good: u64| flags & (bad | good) == bad;
            let wrong = known(dpdk_sys::RX_IP_CKSUM_BAD, dpdk_sys::RX_IP_CKSUM_GOOD)
                || known(dpdk_sys::RX_L4_CKSUM_BAD, dpdk_sys::RX_L4_CKSUM_GOOD);
            self.counters.rx_bad_checksum += u64::from(wrong);
        }
        if flags & dpdk_sys::RX_VLAN_STRIPPED != 0 {
            put_back(&mut packet, books, TAG, tags[1]);
        }
        if flags & dpdk_sys::RX_QINQ_STRIPPED != 0 {
            put_back(&mut packet, books, OUTER_TAG, tags[0]);
        }
        let length = packet.descriptor().length();
        let bytes = packet.bytes_mut(books.pool());
        let cut = self.of_kernel && frame::is_cut(bytes);
        if self.of_kernel && !frame::is_plainly_whole(bytes) {
            half_done::complete(bytes);
        }
        if bytes.len() < ETHERNET || length > books.pool().geometry().packet_room() || cut {
            self.counters.rx_refused += 1;
            if cut && !std::mem::replace(&mut self.cut_told, true) {
                log::warn!(
                    "port {:?}: frames are longer than this driver's slots and arrive cut: senders must not leave \
                     segmentation to the interface (ethtool -K … tso off gso off), and IPv4 fragments net_af_packet joins",
                    self.name
                );
            }
            books.free(packet);
            return None;
        }
        let hash = wire::flow_hash(bytes);
        packet.describe(packet.descriptor().with_hash(hash));
        books.set_note(&packet, Note { timestamp_ns, wire_length: length });
        Some(packet)
    }

    fn hand_over(&mut self, burst: &mut Vec<Packet>, max: usize) {
        while burst.len() < max
            && let Some(packet) = self.early.pop_front()
        {
            self.counters.rx_packets += 1;
            self.counters.rx_bytes += u64::from(packet.descriptor().length());
            burst.push(packet);
        }
    }

    /// Sends a part of a burst; those that the driver does not take go to `failed`.
    fn send_some(&mut self, some: impl Iterator<Item = Packet>, failed: &mut Vec<Packet>, until: Instant) {
        let Some(buffers) = &mut self.buffers else { return failed.extend(some) };
        let mut mbufs = [std::ptr::null_mut(); BURST];
        let (mut n, mut bytes) = (0, 0);
        for (slot, packet) in mbufs.iter_mut().zip(some) {
            bytes += u64::from(packet.descriptor().length());
            *slot = buffers.lend(packet);
            n += 1;
        }
        let mut done = 0;
        while done < n {
            let sent = self.device.send(&mut mbufs[done..n]);
            done += sent;
            if sent == 0 && (self.stuck || Instant::now() >= until) {
                break;
            }
        }
        self.stuck = done < n;
        for mbuf in &mbufs[done..n] {
            // SAFETY: lent a moment ago, and the driver did not take it.
            if let Some(packet) = unsafe { buffers.take(*mbuf) } {
                bytes -= u64::from(packet.descriptor().length());
                failed.push(packet);
            }
        }
        self.counters.tx_packets += done as u64;
        self.counters.tx_bytes += bytes;
    }
}

/// Puts a tag back that the device took out.
fn put_back(packet: &mut Packet, books: &Books, protocol: u16, tag: u16) {
    let descriptor = packet.descriptor();
    let (offset, length) = (descriptor.offset(), descriptor.length());
    // Drivers leave 128 bytes in front.
    if let Some(offset) = offset.checked_sub(4)
        && length >= 12
    {
        packet.describe(descriptor.with_place(offset, length + 4));
        frame::insert_tag(packet.bytes_mut(books.pool()), protocol, tag);
    }
}

impl Port for DpdkPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn manner(&self) -> Option<&str> {
        Some(&self.manner)
    }

    fn is_finite(&self) -> bool {
        self.state == State::Ended
    }

    fn waits(&self) -> bool {
        self.waits
    }

    fn receive(&mut self, books: &mut Books, burst: &mut Vec<Packet>, max: usize) -> Reception {
        if !self.is_started(books) {
            return Reception::Finished;
        }
        let max = burst.len() + max;
        self.hand_over(burst, max);
        let wanted = max - burst.len();
        if wanted == 0 {
            return Reception::Ready;
        }
        let Some(buffers) = &mut self.buffers else { return Reception::Finished };
        buffers.stock_up(books, LEAST_STOCK);
        let mut mbufs = [std::ptr::null_mut(); BURST];
        let came = self.device.receive(&mut mbufs, wanted.max(LEAST));
        self.more = came > 0;
        if came > 0 {
            let timestamp_ns = now_ns();
            for mbuf in &mbufs[..came] {
                // SAFETY: the driver has just given it.
                unsafe { Buffers::prefetch_packet(*mbuf) };
            }
            for mbuf in &mbufs[..came] {
                let Some(packet) = self.packet(books, *mbuf, timestamp_ns) else { continue };
                if burst.len() < max {
                    self.counters.rx_packets += 1;
                    self.counters.rx_bytes += u64::from(packet.descriptor().length());
                    burst.push(packet);
                } else {
                    self.early.push_back(packet);
                }
            }
        }
        Reception::Ready
    }

    fn send(&mut self, books: &mut Books, burst: &mut Vec<Packet>) {
        let mut failed = Vec::new();
        if self.is_started(books) {
            let (longest, pool) = (self.longest, books.pool());
            let fits = |packet: &Packet| {
                let length = packet.descriptor().length();
                length <= longest || length <= longest + frame::tag_bytes(packet.bytes(pool))
            };
            if !burst.iter().all(fits) {
                let (good, bad) = burst.drain(..).partition(fits);
                (*burst, failed) = (good, bad);
            }
            let until = Instant::now() + ROOM_TIME;
            while !burst.is_empty() {
                let n = burst.len().min(BURST);
                if let Some(buffers) = &self.buffers {
                    burst[..n].iter().for_each(|packet| buffers.prefetch_to_lend(packet));
                }
                self.send_some(burst.drain(..n), &mut failed, until);
            }
            if let Some(buffers) = &mut self.buffers {
                buffers.return_above(books, self.most_stock);
            }
        } else {
            failed.append(burst);
        }
        self.counters.tx_failed += failed.len() as u64;
        *burst = failed;
    }

    fn holds(&self) -> usize {
        self.early.len() + self.buffers.as_ref().map_or(0, Buffers::held)
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        (self.state == State::Started).then(|| self.device.readiness()).flatten()
    }

    fn is_ready(&self) -> bool {
        self.more || !self.early.is_empty() || self.device.has_packets()
    }

    fn idle(&mut self) {
        if self.state == State::Started && self.last_look.elapsed() >= LOOK {
            self.last_look = Instant::now();
            self.look();
        }
    }

    fn close(&mut self, books: &mut Books) -> Result<(), PortError> {
        self.early.drain(..).for_each(|packet| books.free(packet));
        let Some(buffers) = self.buffers.take() else { return Ok(()) };
        buffers.belong_to_this_thread();
        if self.state == State::Started {
            self.look();
        }
        self.state = State::Ended;
        self.device.end();
        // How many buffers the driver has kept, the worker sees by its books, and says so.
        buffers.end(books);
        Ok(())
    }

    fn link(&self) -> Link {
        if self.state != State::Started {
            return Link::default();
        }
        // A TAP device may be in another namespace, where only its driver sees it.
        if let Some(name) = self.device.interface().and_then(afpacket::name_of) {
            return afpacket::link(&name);
        }
        // 0 and all ones stand for a speed that nobody knows.
        let known = |speed: u32| Some(speed).filter(|speed| !matches!(*speed, 0 | u32::MAX));
        let mbps = self.device.link().and_then(|(_, speed)| known(speed));
        Link { up: self.link_up, mbps, mtu: self.device.mtu().map(u32::from) }
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }

    fn take_error(&mut self) -> Option<PortError> {
        self.error.take()
    }
}
