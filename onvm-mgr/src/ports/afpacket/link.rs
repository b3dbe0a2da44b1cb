//! What the kernel says of an interface's link (`netdevice(7)`, `linux/ethtool.h`).
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::net::{AddressFamily, SocketType, socket};

use super::super::Link;

/// `ETHTOOL_GSET`: the settings of a link, as every kernel answers it.
const GET_SETTINGS: u32 = 1;

/// `struct ethtool_cmd`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Settings {
    command: u32,
    supported: u32,
    advertised: u32,
    speed: u16,
    duplex_port_address_transceiver_autoneg_mdio: [u8; 6],
    coalescing: [u32; 2],
    speed_high: u16,
    crossing: [u8; 2],
    partner: u32,
    reserved: [u32; 2],
}
const _: () = assert!(size_of::<Settings>() == 44);

fn request(name: &str) -> libc::ifreq {
    // SAFETY: zeros are a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request
}

/// Does a request; none when the kernel does not, or has no such interface.
fn ask(socket: BorrowedFd<'_>, what: libc::c_ulong, mut request: libc::ifreq) -> Option<libc::ifreq> {
    #[allow(clippy::cast_possible_truncation, clippy::unnecessary_cast)]
    // the C library's type for it, whatever that is
    let what = what as libc::Ioctl;
    // SAFETY: each request below reads and writes this structure, and what it points to where it does.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), what, &raw mut request) };
    (done >= 0).then_some(request)
}

fn is_up(socket: BorrowedFd<'_>, name: &str) -> Option<bool> {
    ask(socket, libc::SIOCGIFFLAGS as libc::c_ulong, request(name)).map(|answer| {
        // SAFETY: the kernel has just written the flags.
        let flags = libc::c_int::from(unsafe { answer.ifr_ifru.ifru_flags });
        flags & libc::IFF_UP != 0 && flags & libc::IFF_RUNNING != 0
    })
}

/// What is known of an interface; nothing if it is gone.
pub(in super::super) fn link(name: &str) -> Link {
    let Ok(socket) = socket(AddressFamily::INET, SocketType::DGRAM, None) else { return Link::default() };
    let socket = socket.as_fd();
    let up = is_up(socket, name);
    let mtu = ask(socket, libc::SIOCGIFMTU as libc::c_ulong, request(name)).and_then(|answer| {
        // SAFETY: the kernel has just written the MTU.
        u32::try_from(unsafe { answer.ifr_ifru.ifru_mtu }).ok()
    });
    Link { up, mbps: speed(socket, name), mtu }
}

/// Whether the interface with a number is up and has a link; false if it is gone.
#[cfg(feature = "dpdk")]
pub(in super::super) fn is_up_by_index(index: u32) -> bool {
    let Ok(socket) = socket(AddressFamily::INET, SocketType::DGRAM, None) else { return false };
    name_of(index).and_then(|name| is_up(socket.as_fd(), &name)).unwrap_or(false)
}

/// The name of the interface with a number, if there is one.
#[cfg(feature = "dpdk")]
pub(in super::super) fn name_of(index: u32) -> Option<String> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    rustix::net::netdevice::index_to_name(&socket, index).ok()
}

/// Megabits a second; none where the link has no speed, or none while it is down.
fn speed(socket: BorrowedFd<'_>, name: &str) -> Option<u32> {
    let mut settings = Settings { command: GET_SETTINGS, ..Settings::default() };
    let mut asked = request(name);
    // The kernel writes there before the request returns.
    asked.ifr_ifru.ifru_data = (&raw mut settings).cast();
    ask(socket, libc::SIOCETHTOOL as libc::c_ulong, asked)?;
    let speed = u32::from(settings.speed_high) << 16 | u32::from(settings.speed);
    // All ones, in either width, stand for a speed that nobody knows.
    Some(speed).filter(|speed| !matches!(*speed, 0 | 0xffff | u32::MAX))
}
