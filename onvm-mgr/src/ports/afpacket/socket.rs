//! The two packet sockets of a port: one receives by a ring, one sends. Every system call that takes raw memory is here.
#![allow(unsafe_code)]

use std::io::{Error, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::super::offload::Offload;
use super::ring::ReceiveRing;

/// Longest frame that comes by the socket's queue: 64 KiB of IP, Ethernet and two tags.
const LONGEST: usize = 65_536 + 22;
/// Bytes of super-frames that may wait in the socket's queue, and of frames that wait to be sent.
const QUEUE: libc::c_int = 16 << 20;
/// Frames sent with one call.
pub(super) const MOST_AT_ONCE: usize = 64;

/// A frame from the socket's queue.
#[derive(Debug)]
pub(super) struct Queued<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) offload: Offload,
}

/// What the kernel counted since it was asked last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Missed {
    /// Frames that found no room.
    pub(super) frames: u64,
}

/// A packet socket.
pub(super) struct Socket(OwnedFd);

fn check(result: libc::c_int) -> Result<libc::c_int> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

/// Sizes as the kernel takes them.
fn size<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

impl Socket {
    fn open() -> Result<Self> {
        // Protocol 0: nothing comes before it is bound.
        let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no memory is passed.
        let fd = check(unsafe { libc::socket(libc::AF_PACKET, flags, 0) })?;
        // SAFETY: the kernel has just given us this descriptor.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn set<T>(&self, level: libc::c_int, option: libc::c_int, value: &T) -> Result<()> {
        let value = std::ptr::from_ref(value).cast();
        // SAFETY: the kernel reads as many bytes as the value has.
        check(unsafe { libc::setsockopt(self.0.as_raw_fd(), level, option, value, size::<T>()) }).map(|_| ())
    }

    fn bind(&self, index: u32, protocol: libc::c_int) -> Result<()> {
        // SAFETY: zeros are a valid address.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
        address.sll_protocol = u16::try_from(protocol).unwrap_or(0).to_be();
        address.sll_ifindex = index.cast_signed();
        let place = std::ptr::from_ref(&address).cast();
        // SAFETY: the kernel reads an address of the size given.
        check(unsafe { libc::bind(self.0.as_raw_fd(), place, size::<libc::sockaddr_ll>()) }).map(|_| ())
    }

    /// A socket that receives all that comes in by an interface.
    ///
    /// # Errors
    /// As the kernel says: without `CAP_NET_RAW` `EPERM`.
    pub(super) fn receiver(index: u32, promiscuous: bool) -> Result<(Self, ReceiveRing)> {
        let socket = Self::open()?;
        let version = libc::tpacket_versions::TPACKET_V2 as libc::c_int;
        socket.set(libc::SOL_PACKET, libc::PACKET_VERSION, &version)?;
        // In front of each frame the kernel says what it has left undone.
        socket.set(libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1)?;
        // What this host sends by the interface is not for us.
        socket.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1)?;
        // What is too long for a slot goes to the queue as well, whatever its length.
        socket.set(libc::SOL_PACKET, libc::PACKET_COPY_THRESH, &1)?;
        if socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &QUEUE).is_err() {
            socket.set(libc::SOL_SOCKET, libc::SO_RCVBUF, &QUEUE)?;
        }
        socket.set(libc::SOL_PACKET, libc::PACKET_RX_RING, &ReceiveRing::request())?;
        let ring = ReceiveRing::map(socket.0.as_fd())?;
        if promiscuous {
            let request = libc::packet_mreq {
                mr_ifindex: index.cast_signed(),
                mr_type: u16::try_from(libc::PACKET_MR_PROMISC).unwrap_or(0),
                mr_alen: 0,
                mr_address: [0; 8],
            };
            socket.set(libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)?;
        }
        socket.bind(index, libc::ETH_P_ALL)?;
        Ok((socket, ring))
    }

    /// A socket that sends by an interface and receives nothing.
    ///
    /// # Errors
    /// As [`Socket::receiver`].
    pub(super) fn sender(index: u32) -> Result<Self> {
        let socket = Self::open()?;
        if socket.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &QUEUE).is_err() {
            socket.set(libc::SOL_SOCKET, libc::SO_SNDBUF, &QUEUE)?;
        }
        socket.bind(index, 0)?;
        Ok(socket)
    }

    /// A buffer for [`Socket::take_queued`].
    pub(super) fn queue_buffer() -> Vec<u8> {
        vec![0; Offload::BYTES + LONGEST]
    }

    /// Takes the oldest frame out of the socket's queue.
    ///
    /// # Errors
    /// `EAGAIN` when there is none.
    pub(super) fn take_queued<'a>(&self, buffer: &'a mut [u8]) -> Result<Queued<'a>> {
        let n = match rustix::io::read(&self.0, &mut *buffer) {
            // An error that happened meanwhile (the interface went down) is told once, in place of a frame that stays.
            Err(error) if error != rustix::io::Errno::AGAIN => rustix::io::read(&self.0, &mut *buffer)?,
            read => read?,
        };
        let Some((header, bytes)) = buffer[..n].split_first_chunk::<{ Offload::BYTES }>() else {
            return Err(Error::from_raw_os_error(libc::EBADMSG));
        };
        Ok(Queued { bytes, offload: Offload::parse(*header) })
    }

    /// Sends frames in order; how many the kernel took. If none, why the first was not.
    ///
    /// # Errors
    /// Of the first frame: `EMSGSIZE` when it is longer than the interface's MTU allows, `ENETDOWN`, `ENXIO`, `ENOBUFS`, …
    pub(super) fn send<'a>(&self, frames: impl Iterator<Item = &'a [u8]>) -> Result<usize> {
        let mut parts: [libc::iovec; MOST_AT_ONCE] =
            [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MOST_AT_ONCE];
        let mut n: u32 = 0;
        for (part, frame) in parts.iter_mut().zip(frames) {
            *part = libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() };
            n += 1;
        }
        // SAFETY: zeros are a message without address, parts and control data.
        let mut messages: [libc::mmsghdr; MOST_AT_ONCE] = unsafe { std::mem::zeroed() };
        for (message, part) in messages.iter_mut().zip(&mut parts) {
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: the first `n` messages name frames that live on, and the kernel only reads those.
        let sent = unsafe { libc::sendmmsg(self.0.as_raw_fd(), messages.as_mut_ptr(), n, 0) };
        check(sent).map(|sent| usize::try_from(sent).unwrap_or(0))
    }

    /// Waits until more can be sent, but no longer than this.
    pub(super) fn wait_for_room(&self, longest: Duration) {
        let limit = rustix::time::Timespec { tv_sec: 0, tv_nsec: i64::from(longest.subsec_nanos()) };
        let mut polled = [PollFd::new(&self.0, PollFlags::OUT)];
        let _ = poll(&mut polled, Some(&limit));
    }

    /// What the kernel could not give us since it was asked last.
    pub(super) fn missed(&self) -> Missed {
        let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = size::<libc::tpacket_stats>();
        let (level, option) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
        let place = std::ptr::from_mut(&mut stats).cast();
        // SAFETY: the kernel writes no more than the size given, which is that of the structure.
        let got = unsafe { libc::getsockopt(self.0.as_raw_fd(), level, option, place, &raw mut length) };
        if got == 0 { Missed { frames: u64::from(stats.tp_drops) } } else { Missed::default() }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
