//! What is asked of an interface by `ioctl(2)` and by packet sockets: its driver, its queues, that it leaves VLAN tags in
//! their frames and takes frames for others.
#![allow(unsafe_code)]

use std::io::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Commands of `linux/ethtool.h`.
const DRIVER: u32 = 0x03;
const GET_FLAGS: u32 = 0x25;
const SET_FLAGS: u32 = 0x26;
const CHANNELS: u32 = 0x3c;
/// `ETH_FLAG_RXVLAN`: the device takes tags out of frames.
const TAKES_TAGS_OUT: u32 = 1 << 8;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    most: [u32; 4],
    receive: u32,
    transmit: u32,
    other: u32,
    combined: u32,
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

fn named(name: &str) -> libc::ifreq {
    // SAFETY: zeros are a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request
}

fn control(command: libc::c_ulong, request: &mut libc::ifreq) -> Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None)?;
    #[allow(clippy::cast_possible_truncation, clippy::unnecessary_cast)]
    // the C library's type for it, whatever that is
    let command = command as libc::Ioctl;
    // SAFETY: each command is used with the part of the request that the kernel reads and writes for it.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), command, std::ptr::from_mut(request)) };
    if done < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

fn ethtool<T>(name: &str, argument: &mut T) -> Result<()> {
    let mut request = named(name);
    request.ifr_ifru.ifru_data = std::ptr::from_mut(argument).cast();
    control(libc::SIOCETHTOOL as libc::c_ulong, &mut request)
}

/// Whether an interface is up, and its MTU. Other than by netlink this waits for no lock: the worker may ask.
///
/// # Errors
/// `ENODEV` when there is none of this name.
pub(super) fn state(name: &str) -> Result<(bool, u32)> {
    let (mut flags, mut mtu) = (named(name), named(name));
    control(libc::SIOCGIFFLAGS as libc::c_ulong, &mut flags)?;
    control(libc::SIOCGIFMTU as libc::c_ulong, &mut mtu)?;
    // SAFETY: the kernel has just written both.
    let (flags, mtu) = unsafe { (flags.ifr_ifru.ifru_flags, mtu.ifr_ifru.ifru_mtu) };
    Ok((libc::c_int::from(flags) & libc::IFF_UP != 0, u32::try_from(mtu).unwrap_or(0)))
}

/// The name of an interface's driver, or nothing.
pub(super) fn driver(name: &str) -> String {
    let mut info = DriverInfo { command: DRIVER, driver: [0; 32], rest: [0; 160] };
    if ethtool(name, &mut info).is_err() {
        return String::new();
    }
    let text = info.driver.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// Queues by which an interface receives; none where it does not say.
pub(super) fn queues(name: &str) -> Option<u32> {
    let mut channels = Channels { command: CHANNELS, ..Channels::default() };
    ethtool(name, &mut channels).ok()?;
    Some(channels.receive + channels.combined).filter(|n| *n > 0)
}

/// Makes an interface leave VLAN tags where they are; takes them out again, if it did before, when dropped.
pub(super) struct TagsStay {
    name: String,
    before: Option<u32>,
}

impl TagsStay {
    /// From now on. Some devices do not let themselves be told, and some have nothing to be told.
    pub(super) fn on(name: &str) -> Self {
        let mut flags = Value { command: GET_FLAGS, data: 0 };
        let takes_out = ethtool(name, &mut flags).is_ok() && flags.data & TAKES_TAGS_OUT != 0;
        let mut set = Value { command: SET_FLAGS, data: flags.data & !TAKES_TAGS_OUT };
        let changed = takes_out && ethtool(name, &mut set).is_ok();
        Self { name: name.to_string(), before: changed.then_some(flags.data) }
    }
}

impl Drop for TagsStay {
    fn drop(&mut self) {
        if let Some(data) = self.before
            && let Err(error) = ethtool(&self.name, &mut Value { command: SET_FLAGS, data })
        {
            log::debug!("{}: taking out VLAN tags cannot be turned on again: {error}", self.name);
        }
    }
}

/// A packet socket that receives nothing, but keeps an interface from turning away what is for others.
///
/// # Errors
/// `EPERM` without `CAP_NET_RAW`.
pub(super) fn promiscuous(index: u32) -> Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let request = libc::packet_mreq {
        mr_ifindex: index.cast_signed(),
        mr_type: u16::try_from(libc::PACKET_MR_PROMISC).unwrap_or(0),
        mr_alen: 0,
        mr_address: [0; 8],
    };
    let (level, option) = (libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP);
    let length = libc::socklen_t::try_from(size_of_val(&request)).unwrap_or(0);
    // SAFETY: the kernel reads a request of just this size.
    let done = unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, option, std::ptr::from_ref(&request).cast(), length)
    };
    if done < 0 { Err(Error::last_os_error()) } else { Ok(fd) }
}

/// `XDP_MAX_TX_SKB_BUDGET`: frames that one call sends at most, 32 unless told otherwise.
const FRAMES_PER_CALL: libc::c_int = 9;

/// Raises that number. Older kernels do not know it, and want more calls.
pub(super) fn raise_budget(socket: libc::c_int, frames: u32) {
    let length = libc::socklen_t::try_from(size_of_val(&frames)).unwrap_or(0);
    let value = std::ptr::from_ref(&frames).cast();
    // SAFETY: the kernel reads a number of just this size.
    let done = unsafe { libc::setsockopt(socket, libc::SOL_XDP, FRAMES_PER_CALL, value, length) };
    if done < 0 {
        log::debug!("the kernel sends 32 frames with a call: {}", Error::last_os_error());
    }
}
