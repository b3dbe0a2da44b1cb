//! UDP sockets of a tunnel: datagrams received and sent many at a time, the frame apart from the header, so that it comes
//! straight into a buffer. Every system call that takes raw memory is here.
#![allow(unsafe_code)]

use std::io::{Error, Result};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use onvm_lib::wire::vxlan::HEADER_LEN;

/// Datagrams received or sent with one call.
pub(super) const MOST_AT_ONCE: usize = 32;
/// Bytes of a frame that may follow what a buffer has room for: of super-frames of local senders.
const BEYOND: usize = 65_536;
/// Bytes that may wait in a socket.
const QUEUE: libc::c_int = 16 << 20;
/// The same where nobody looks at what comes: as few as the kernel allows.
const UNREAD: libc::c_int = 0;
/// `UDP_NO_CHECK6_RX` of `linux/udp.h`: datagrams without a checksum are taken over IPv6 as well.
const UNCHECKED_V6: libc::c_int = 102;

fn check(result: libc::c_int) -> Result<usize> {
    usize::try_from(result).map_err(|_| Error::last_os_error())
}

fn set(socket: &UdpSocket, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or(0);
    let value = std::ptr::from_ref(&value).cast();
    // SAFETY: the kernel reads a number of just this size.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, length) }).map(|_| ())
}

/// Sizes the queue that a socket needs; as large as it may be without the right to more.
fn widen(socket: &UdpSocket, (force, plain): (libc::c_int, libc::c_int)) -> Result<()> {
    if set(socket, libc::SOL_SOCKET, force, QUEUE).is_err() {
        set(socket, libc::SOL_SOCKET, plain, QUEUE)?;
    }
    Ok(())
}

/// A socket that receives.
///
/// # Errors
/// `EADDRINUSE` when another has the port, `EADDRNOTAVAIL` when the address is not of this host.
pub(super) fn receiver(local: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(local)?;
    socket.set_nonblocking(true)?;
    widen(&socket, (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF))?;
    if local.is_ipv6() {
        // RFC 7348 §5: a datagram whose checksum is zero must be accepted; RFC 6935 allows it for tunnels.
        set(&socket, libc::IPPROTO_UDP, UNCHECKED_V6, 1)?;
    }
    Ok(socket)
}

/// A socket that sends to an address from a port of its own, and never in fragments.
///
/// # Errors
/// As [`receiver`]; `ENETUNREACH` when there is no way there.
pub(super) fn sender(from: SocketAddr, to: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(from)?;
    socket.set_nonblocking(true)?;
    widen(&socket, (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF))?;
    // What the other end sends to this port is of no tunnel, and would lie there for ever.
    set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, UNREAD)?;
    if to.is_ipv4() {
        set(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)?;
        // RFC 7348 §5: the outer checksum should be zero. Over IPv6 there must be one.
        set(&socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1)?;
    } else {
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO)?;
    }
    socket.connect(to)?;
    Ok(socket)
}

/// Bytes of an IP packet that reach the other end of a socket that sends.
///
/// # Errors
/// As the kernel says.
pub(super) fn path_mtu(socket: &UdpSocket) -> Result<u32> {
    let (level, option) = match socket.peer_addr()? {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
    };
    let mut mtu: libc::c_int = 0;
    let mut length = libc::socklen_t::try_from(size_of_val(&mtu)).unwrap_or(0);
    let place = std::ptr::from_mut(&mut mtu).cast();
    // SAFETY: the kernel writes a number of no more than this size.
    check(unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, place, &raw mut length) })?;
    Ok(u32::try_from(mtu).unwrap_or(0))
}

/// The name of the interface that has an address.
pub(super) fn interface_of(address: IpAddr) -> Option<String> {
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: room for one address.
    check(unsafe { libc::getifaddrs(&raw mut first) }).ok()?;
    let (mut next, mut found) = (first, None);
    while !next.is_null() && found.is_none() {
        // SAFETY: the list is whole until it is given back, below.
        let one = unsafe { &*next };
        // SAFETY: as above; an address is as long as its family says.
        let here = (!one.ifa_addr.is_null()).then(|| unsafe { interface_address(one.ifa_addr) }).flatten();
        if here == Some(address) {
            // SAFETY: as above; names end with a zero.
            let name = unsafe { std::ffi::CStr::from_ptr(one.ifa_name) };
            found = Some(name.to_string_lossy().into_owned());
        }
        next = one.ifa_next;
    }
    // SAFETY: the list that was given, once.
    unsafe { libc::freeifaddrs(first) };
    found
}

/// # Safety
/// The address has as many bytes as its family says.
unsafe fn interface_address(raw: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: the caller's promise; nothing is said of alignment.
    unsafe {
        match libc::c_int::from(raw.read_unaligned().sa_family) {
            libc::AF_INET => {
                let v4 = raw.cast::<libc::sockaddr_in>().read_unaligned();
                Some(IpAddr::V4(u32::from_be(v4.sin_addr.s_addr).into()))
            }
            libc::AF_INET6 => {
                let v6 = raw.cast::<libc::sockaddr_in6>().read_unaligned();
                Some(IpAddr::V6(v6.sin6_addr.s6_addr.into()))
            }
            _ => None,
        }
    }
}

/// Datagrams that found no room in a socket's queue, since it was opened.
pub(super) fn dropped(socket: &UdpSocket) -> u32 {
    let mut info = [0u32; 9];
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).unwrap_or(0);
    let place = std::ptr::from_mut(&mut info).cast();
    // SAFETY: the kernel writes no more than the size given, which is that of the numbers.
    let got = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, place, &raw mut length)
    };
    if got == 0 { info[libc::SK_MEMINFO_DROPS as usize] } else { 0 }
}

/// A datagram that came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagram {
    pub(super) header: [u8; HEADER_LEN],
    /// Bytes behind the header, in the buffer and beyond it. None where not even the header is whole.
    pub(super) length: Option<usize>,
    pub(super) from: Option<IpAddr>,
    /// Even what is beyond had no room for it.
    pub(super) cut: bool,
}

/// Room for datagrams beside the buffers that their frames come into.
pub(super) struct Inbox {
    headers: Box<[[u8; HEADER_LEN]; MOST_AT_ONCE]>,
    beyond: Vec<u8>,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self { headers: Box::new([[0; HEADER_LEN]; MOST_AT_ONCE]), beyond: vec![0; BEYOND * MOST_AT_ONCE] }
    }

    /// The bytes of a datagram for which its buffer had no room.
    pub(super) fn beyond(&self, index: usize, length: usize) -> &[u8] {
        &self.beyond[index * BEYOND..][..length.min(BEYOND)]
    }

    /// Receives into buffers, at most as many datagrams as there are; what came, in order.
    ///
    /// # Errors
    /// `EAGAIN` when there is none.
    pub(super) fn receive<'a>(
        &mut self,
        socket: &UdpSocket,
        buffers: impl Iterator<Item = &'a mut [u8]>,
        came: &mut Vec<Datagram>,
    ) -> Result<()> {
        const NOTHING: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let mut parts = [[NOTHING; 3]; MOST_AT_ONCE];
        // SAFETY: zeros are valid addresses and messages.
        let mut from: [libc::sockaddr_storage; MOST_AT_ONCE] = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut messages: [libc::mmsghdr; MOST_AT_ONCE] = unsafe { std::mem::zeroed() };
        let mut n = 0;
        for (at, buffer) in buffers.take(MOST_AT_ONCE).enumerate() {
            let beyond = &mut self.beyond[at * BEYOND..][..BEYOND];
            let part =
                |bytes: &mut [u8]| libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
            parts[at] = [part(&mut self.headers[at]), part(buffer), part(beyond)];
            let message = &mut messages[at].msg_hdr;
            message.msg_iov = parts[at].as_mut_ptr();
            message.msg_iovlen = 3;
            message.msg_name = std::ptr::from_mut(&mut from[at]).cast();
            message.msg_namelen = libc::socklen_t::try_from(size_of_val(&from[at])).unwrap_or(0);
            n += 1;
        }
        let (fd, none) = (socket.as_raw_fd(), std::ptr::null_mut());
        // SAFETY: the first `n` messages name headers, buffers, room beyond and addresses that are borrowed for this call, each
        // for one message only; the kernel writes no more than their sizes.
        let got = check(unsafe { libc::recvmmsg(fd, messages.as_mut_ptr(), n, libc::MSG_DONTWAIT, none) })?;
        came.extend((0..got).map(|at| Datagram {
            header: self.headers[at],
            length: (messages[at].msg_len as usize).checked_sub(HEADER_LEN),
            from: address(&from[at]),
            cut: messages[at].msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        }));
        Ok(())
    }
}

fn address(raw: &libc::sockaddr_storage) -> Option<IpAddr> {
    match libc::c_int::from(raw.ss_family) {
        libc::AF_INET => {
            // SAFETY: the kernel says that this is what it has written, and a storage is large enough and aligned.
            let v4 = unsafe { &*std::ptr::from_ref(raw).cast::<libc::sockaddr_in>() };
            Some(IpAddr::V4(u32::from_be(v4.sin_addr.s_addr).into()))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*std::ptr::from_ref(raw).cast::<libc::sockaddr_in6>() };
            Some(IpAddr::V6(v6.sin6_addr.s6_addr.into()))
        }
        _ => None,
    }
}

/// Sends frames in order, each behind the header; how many the kernel took. If none, why the first was not.
///
/// # Errors
/// Of the first frame: `EMSGSIZE` when it is longer than the path allows, `ECONNREFUSED` when nobody is at the other end
/// (of an earlier one), `EAGAIN`, `ENETUNREACH`, …
pub(super) fn send<'a>(
    socket: &UdpSocket,
    header: &[u8; HEADER_LEN],
    frames: impl Iterator<Item = &'a [u8]>,
) -> Result<usize> {
    const NOTHING: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    let mut parts = [[NOTHING; 2]; MOST_AT_ONCE];
    // SAFETY: zeros are a message without address, parts and control data.
    let mut messages: [libc::mmsghdr; MOST_AT_ONCE] = unsafe { std::mem::zeroed() };
    let mut n = 0;
    for (at, frame) in frames.take(MOST_AT_ONCE).enumerate() {
        let part =
            |bytes: &[u8]| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        parts[at] = [part(header), part(frame)];
        messages[at].msg_hdr.msg_iov = parts[at].as_mut_ptr();
        messages[at].msg_hdr.msg_iovlen = 2;
        n += 1;
    }
    // SAFETY: the first `n` messages name the header and frames that live on, and the kernel only reads those.
    check(unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), n, libc::MSG_DONTWAIT) })
}
