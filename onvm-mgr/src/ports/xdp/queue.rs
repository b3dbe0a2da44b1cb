//! One socket on one queue of an interface, with its rings.

use std::io::{Error, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use onvm_lib::pool::{Books, Packet, Pool};
use onvm_lib::shm::Pages;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags as Bind, SocketAddrXdpWithSharedUmem, XDP_PGOFF_RX_RING,
    XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_COMPLETION_RING, XDP_UMEM_PGOFF_FILL_RING, XdpDesc, XdpDescOptions,
    XdpOptionsFlags, XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sockopt};

use super::lent::{Done, Lent};
use super::ring::{Consumer, Producer};

/// Entries of the rings by which frames come and go.
const ENTRIES: u32 = 2048;
/// Bytes that the kernel leaves free in front of a frame that it receives: `XDP_PACKET_HEADROOM`. They are just those
/// that a buffer's note and headroom take, so that frames stand where packets do.
pub(super) const IN_FRONT: u32 = 256;
/// Smallest and largest chunk that the kernel takes; the largest is a page.
const CHUNKS: std::ops::RangeInclusive<u32> = 2048..=4096;
/// Where the kernel puts the distance of a frame from the start of its chunk (`XSK_UNALIGNED_BUF_OFFSET_SHIFT`).
const DISTANCE_SHIFT: u32 = 48;
/// Bytes that are contiguous for devices as well, where the pool is on huge pages.
const CONTIGUOUS: u64 = 2 << 20;
/// Bytes of frames that may be under way in the kernel.
const SEND_QUEUE: usize = 16 << 20;
/// Times that a full ring is kicked before its frames are given up.
const KICKS: usize = 256;
/// How long a full ring is waited for.
const ROOM_TIME: Duration = Duration::from_millis(1);

/// Bytes of a chunk: as much of a buffer as the kernel may write into. None if the pool's buffers are too small.
pub(super) fn chunk(pool: &Pool) -> Option<u32> {
    let bytes = (IN_FRONT + pool.geometry().packet_room()).min(*CHUNKS.end());
    CHUNKS.contains(&bytes).then_some(bytes)
}

/// A socket that is not bound yet.
pub(super) struct Unbound {
    socket: OwnedFd,
    number: u32,
    shared: bool,
}

/// What a frame that came is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Came {
    /// Byte of the pool's region at which it begins.
    pub(super) byte: u64,
    pub(super) length: u32,
    /// The frame goes on in the next.
    pub(super) goes_on: bool,
}

/// Why sending has stopped.
#[derive(Debug)]
pub(super) enum Stopped {
    /// All was taken, or will be without another call.
    Not,
    /// There is no room in the kernel now.
    Full,
    /// The interface is down or gone.
    Broken(Errno),
}

/// A socket with its rings. The rings go first: only then is the queue free for another.
pub(super) struct Queue {
    fill: Producer<u64>,
    received: Consumer<XdpDesc>,
    transmit: Producer<XdpDesc>,
    completed: Consumer<u64>,
    socket: OwnedFd,
    pub(super) zero_copy: bool,
    chunk: u32,
    /// Buffers that the kernel is to have for receiving, and has.
    wanted: u32,
    given: u32,
    started: bool,
    /// What the kernel had counted when it was asked last.
    missed: u64,
    pub(super) joining: Joining,
    /// A full ring may be waited for, once a burst: there are other ports.
    pub(super) patience: bool,
}

/// A frame of which not all parts have come.
#[derive(Debug)]
pub(super) enum Joining {
    None,
    Some(Whole),
    /// It is too long, and the rest of it will be.
    Forget,
}

/// A frame put together.
#[derive(Debug)]
pub(super) enum Whole {
    Packet(Packet),
    /// Longer than a buffer: a super-frame.
    Long(Vec<u8>),
}

impl Unbound {
    /// A socket for a queue. The first has the pool as its memory; the others share that.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`, `ENOBUFS` or `ENOMEM` when the pool may not be locked into memory.
    pub(super) fn new(pool: &Pool, chunk: u32, number: u32, shared: bool) -> Result<Self> {
        let socket =
            rustix::net::socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        if !shared {
            let region = pool.region();
            let memory = XdpUmemReg {
                addr: region.base().as_ptr() as u64,
                len: region.len() as u64,
                chunk_size: chunk,
                headroom: 0,
                flags: XdpUmemRegFlags::XDP_UMEM_UNALIGNED_CHUNK_FLAG,
                tx_metadata_len: 0,
            };
            sockopt::set_xdp_umem_reg(&socket, memory)?;
        }
        sockopt::set_xdp_umem_fill_ring_size(&socket, ENTRIES)?;
        sockopt::set_xdp_umem_completion_ring_size(&socket, ENTRIES)?;
        sockopt::set_xdp_rx_ring_size(&socket, ENTRIES)?;
        sockopt::set_xdp_tx_ring_size(&socket, ENTRIES)?;
        if sockopt::set_socket_send_buffer_size_force(&socket, SEND_QUEUE).is_err() {
            sockopt::set_socket_send_buffer_size(&socket, SEND_QUEUE)?;
        }
        Ok(Self { socket, number, shared })
    }

    /// Binds it and maps its rings. `first` is the one whose memory is shared, if it is not this one.
    ///
    /// # Errors
    /// `EBUSY` when another socket has the queue, `EOPNOTSUPP` when the driver cannot do what is asked, `EINVAL` when
    /// the kernel cannot, or there is no such queue.
    pub(super) fn bind(
        self,
        index: u32,
        flags: Bind,
        first: Option<&Queue>,
        (chunk, wanted): (u32, u32),
    ) -> Result<Queue> {
        debug_assert_eq!(self.shared, first.is_some());
        match first {
            None => rustix::net::bind(&self.socket, &SocketAddrXdp::new(flags, index, self.number))?,
            Some(first) => {
                let addr = SocketAddrXdp::new(Bind::XDP_SHARED_UMEM, index, self.number);
                let shared_umem_fd = first.socket.as_fd();
                rustix::net::bind(&self.socket, &SocketAddrXdpWithSharedUmem { addr, shared_umem_fd })?;
            }
        }
        let at = sockopt::xdp_mmap_offsets(&self.socket)?;
        let zero_copy = sockopt::xdp_options(&self.socket)?.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY);
        let fd = self.socket.as_fd();
        Ok(Queue {
            fill: Producer::map(fd, XDP_UMEM_PGOFF_FILL_RING, at.fr, ENTRIES)?,
            received: Consumer::map(fd, XDP_PGOFF_RX_RING, at.rx, ENTRIES)?,
            transmit: Producer::map(fd, XDP_PGOFF_TX_RING, at.tx, ENTRIES)?,
            completed: Consumer::map(fd, XDP_UMEM_PGOFF_COMPLETION_RING, at.cr, ENTRIES)?,
            zero_copy,
            chunk,
            wanted: wanted.min(ENTRIES),
            given: 0,
            started: false,
            missed: 0,
            joining: Joining::None,
            patience: true,
            socket: self.socket,
        })
    }
}

impl Queue {
    /// Whether a device that uses the memory itself would find these bytes of the region in two places.
    fn is_torn(&self, byte: u64, length: u32) -> bool {
        self.zero_copy && byte / CONTIGUOUS != (byte + u64::from(length.max(1)) - 1) / CONTIGUOUS
    }

    /// Gives the kernel buffers to receive into. Those that a device cannot use go to `aside`.
    pub(super) fn supply(&mut self, books: &mut Books, lent: &mut Lent, aside: &mut Vec<Packet>) {
        let lacking = self.wanted.saturating_sub(self.given);
        // Half a burst: fewer are not worth the line that travels to the other processor.
        if lacking < 32.min(self.wanted) {
            return;
        }
        for _ in 0..lacking.min(self.fill.room(lacking)) {
            let Some(packet) = books.allocate(0) else { break };
            let start = books.pool().byte_of(packet.descriptor()) - u64::from(IN_FRONT);
            if self.is_torn(start, self.chunk) {
                aside.push(packet);
                continue;
            }
            self.fill.put(start);
            self.given += 1;
            lent.lend_empty(packet);
        }
        self.fill.publish();
        if !self.started {
            // What came before the port was started was not missed.
            let _ = self.missed();
            self.started = true;
        }
        if self.fill.needs_wakeup() {
            // Drivers that wait for buffers are woken by a look at the socket.
            self.look(PollFlags::IN, Duration::ZERO);
        }
    }

    fn look(&self, flags: PollFlags, longest: Duration) {
        let limit = rustix::time::Timespec { tv_sec: 0, tv_nsec: i64::from(longest.subsec_nanos()) };
        let _ = poll(&mut [PollFd::new(&self.socket, flags)], Some(&limit));
    }

    /// Whether a frame waits.
    pub(super) fn has_frame(&self) -> bool {
        self.received.waiting() > 0
    }

    /// The frame that waits longest, or a part of it.
    pub(super) fn take(&mut self) -> Option<Came> {
        let came = self.received.take()?;
        self.given = self.given.saturating_sub(1);
        let start = came.addr & ((1 << DISTANCE_SHIFT) - 1);
        let goes_on = came.options.contains(XdpDescOptions::XDP_PKT_CONTD);
        Some(Came { byte: start + (came.addr >> DISTANCE_SHIFT), length: came.len, goes_on })
    }

    /// What was taken is done with.
    pub(super) fn release(&self) {
        self.received.release();
    }

    /// Puts a packet where the kernel sees it with the next kick.
    ///
    /// # Errors
    /// The packet, when there is no room.
    pub(super) fn put(
        &mut self,
        books: &Books,
        lent: &mut Lent,
        packet: Packet,
    ) -> std::result::Result<(), Packet> {
        let length = packet.descriptor().length();
        let byte = books.pool().byte_of(packet.descriptor());
        let parts = length.div_ceil(self.chunk).max(1);
        if self.is_torn(byte, length) || self.transmit.room(parts) < parts {
            return Err(packet);
        }
        for part in 0..parts {
            let done = part * self.chunk;
            let goes_on = part + 1 < parts;
            let options = if goes_on { XdpDescOptions::XDP_PKT_CONTD } else { XdpDescOptions::empty() };
            let len = (length - done).min(self.chunk);
            self.transmit.put(XdpDesc { addr: byte + u64::from(done), len, options });
        }
        lent.lend_packet(packet, u8::try_from(parts).unwrap_or(u8::MAX));
        Ok(())
    }

    /// Has the kernel send what was put. Packets that it drops are marked.
    pub(super) fn kick(&mut self, pool: &Pool, lent: &mut Lent) -> Stopped {
        self.transmit.publish();
        let mut before = self.transmit.waiting();
        for _ in 0..KICKS {
            if before == 0 || self.zero_copy && !self.transmit.needs_wakeup() {
                return Stopped::Not;
            }
            let kicked = rustix::net::send(&self.socket, &[], SendFlags::DONTWAIT);
            let now = self.transmit.waiting();
            match kicked {
                Ok(_) if self.zero_copy => return Stopped::Not,
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::BUSY) => {
                    // The frame that it took last was dropped by the device.
                    if now < before
                        && let Some((buffer, _)) = pool.place_of(self.transmit.last_taken().addr)
                    {
                        lent.fail(buffer);
                    } else {
                        return Stopped::Full;
                    }
                }
                // It takes only so many with a call; if none, the completions must be taken first, or a queue is full.
                Err(Errno::AGAIN | Errno::NOBUFS) if now < before => {}
                Err(Errno::AGAIN | Errno::NOBUFS) => return Stopped::Full,
                Err(error) => return Stopped::Broken(error),
            }
            before = now;
        }
        Stopped::Full
    }

    /// Whether the kernel has not taken all that was put.
    pub(super) fn has_unsent(&self) -> bool {
        self.transmit.waiting() > 0 && !self.zero_copy
    }

    /// Takes back what was sent; packets that were dropped on the way go to `failed`.
    pub(super) fn reap(&mut self, books: &mut Books, lent: &mut Lent, failed: &mut Vec<Packet>) {
        let mut some = false;
        while let Some(byte) = self.completed.take() {
            some = true;
            let Some((buffer, _)) = books.pool().place_of(byte & ((1 << DISTANCE_SHIFT) - 1)) else {
                continue;
            };
            match lent.sent(buffer) {
                Done::Sent(packet) => books.free(packet),
                Done::Failed(packet) => failed.push(packet),
                Done::Part => {}
                Done::Stray => log::error!("AF_XDP: buffer {buffer} comes back that was not being sent"),
            }
        }
        if some {
            self.completed.release();
        }
    }

    /// Waits a moment until the kernel can take more.
    pub(super) fn wait_for_room(&self) {
        self.look(PollFlags::OUT, ROOM_TIME);
    }

    /// Frames that the kernel could not give us since it was asked last.
    pub(super) fn missed(&mut self) -> u64 {
        let Ok(counted) = sockopt::xdp_statistics(&self.socket) else { return 0 };
        let now = counted.rx_dropped + counted.rx_ring_full.unwrap_or(0);
        let since = now.saturating_sub(std::mem::replace(&mut self.missed, now));
        if self.started { since } else { 0 }
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether a device can be let into a pool: pages of their own would tear most buffers apart.
pub(super) fn allows_zero_copy(pool: &Pool) -> bool {
    pool.region().pages() == Pages::Huge
}

/// Raises how many frames one call may send, where the kernel can be told (Linux 6.17).
pub(super) fn raise_budget(queue: &Queue) {
    super::device::raise_budget(queue.socket.as_raw_fd(), ENTRIES);
}

/// In words for the user.
pub(super) fn why(error: &Error) -> Option<&'static str> {
    match error.raw_os_error()? {
        libc::EPERM => Some("CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF are needed: run as root"),
        libc::ENOBUFS | libc::ENOMEM => {
            Some("the pool may not be locked into memory: raise the limit (ulimit -l) or run as root")
        }
        libc::EAFNOSUPPORT => Some("this kernel has no AF_XDP (CONFIG_XDP_SOCKETS)"),
        _ => None,
    }
}
