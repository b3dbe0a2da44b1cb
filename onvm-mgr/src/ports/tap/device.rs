//! A TAP device of the kernel's (`Documentation/networking/tuntap.rst`), and what is asked of it by `ioctl(2)`
//! (`netdevice(7)`, `linux/if_tun.h`).
#![allow(unsafe_code)]

use std::io::{Error, Result};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use ipnet::IpNet;
use rustix::fs::{Mode, OFlags};

use super::super::offload::Offload;

/// Longest name of an interface.
pub(super) const LONGEST_NAME: usize = libc::IFNAMSIZ - 1;
/// Longest frame: 64 KiB of IP, Ethernet and two tags.
const LONGEST: usize = 65_536 + 22;

/// The descriptor of a TAP device; the device goes with it, unless it was there before.
pub(super) struct Device {
    fd: OwnedFd,
    name: String,
}

/// `struct in6_ifreq` of `linux/ipv6.h`.
#[repr(C)]
struct Ipv6Request {
    address: [u8; 16],
    prefix: u32,
    index: libc::c_int,
}

/// Does a request that takes a structure.
fn control<T>(fd: BorrowedFd<'_>, request: libc::c_ulong, argument: &mut T) -> Result<()> {
    #[allow(clippy::cast_possible_truncation, clippy::unnecessary_cast)]
    // the C library's type for it, whatever that is
    let request = request as libc::Ioctl;
    // SAFETY: each request below is used with the structure that the kernel reads and writes for it.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), request, std::ptr::from_mut(argument)) };
    if done < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: zeros are a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(LONGEST_NAME)) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request
}

fn ipv4(address: Ipv4Addr) -> libc::sockaddr {
    // SAFETY: zeros are a valid address.
    let mut raw: libc::sockaddr = unsafe { std::mem::zeroed() };
    raw.sa_family = libc::sa_family_t::try_from(libc::AF_INET).unwrap_or(0);
    for (to, from) in raw.sa_data[2..6].iter_mut().zip(address.octets()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    raw
}

impl Device {
    /// Makes a device of this name, or attaches to the one that is there.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`, `EBUSY` when another program has it, `EINVAL` when it is no TAP device.
    pub(super) fn open(name: &str) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
        let mut asked = request(name);
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        asked.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).unwrap_or(0);
        control(fd.as_fd(), libc::TUNSETIFF as libc::c_ulong, &mut asked)?;
        // Another program may have left another size with an interface that was there before.
        let mut header = libc::c_int::try_from(Offload::BYTES).unwrap_or(10);
        control(fd.as_fd(), libc::TUNSETVNETHDRSZ as libc::c_ulong, &mut header)?;
        // Half checksums and super-frames of TCP are completed here, where they cost one look at the frame.
        let offloads = libc::c_ulong::from(libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6);
        #[allow(clippy::cast_possible_truncation, clippy::unnecessary_cast)] // as above
        let request = libc::TUNSETOFFLOAD as libc::Ioctl;
        // SAFETY: this request takes a number and no memory.
        if unsafe { libc::ioctl(fd.as_raw_fd(), request, offloads) } < 0 {
            return Err(Error::last_os_error());
        }
        Ok(Self { fd, name: name.to_string() })
    }

    /// Gives the device an address.
    ///
    /// # Errors
    /// As the kernel says.
    pub(super) fn set_address(&self, network: IpNet) -> Result<()> {
        match network {
            IpNet::V4(network) => {
                let socket = rustix::net::socket(
                    rustix::net::AddressFamily::INET,
                    rustix::net::SocketType::DGRAM,
                    None,
                )?;
                for (what, address) in
                    [(libc::SIOCSIFADDR, network.addr()), (libc::SIOCSIFNETMASK, network.netmask())]
                {
                    let mut asked = request(&self.name);
                    asked.ifr_ifru.ifru_addr = ipv4(address);
                    control(socket.as_fd(), what as libc::c_ulong, &mut asked)?;
                }
                Ok(())
            }
            IpNet::V6(network) => self.set_ipv6(network.addr(), network.prefix_len()),
        }
    }

    fn set_ipv6(&self, address: Ipv6Addr, prefix: u8) -> Result<()> {
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET6, rustix::net::SocketType::DGRAM, None)?;
        let index = rustix::net::netdevice::name_to_index(&socket, &self.name)?.cast_signed();
        let mut asked = Ipv6Request { address: address.octets(), prefix: prefix.into(), index };
        control(socket.as_fd(), libc::SIOCSIFADDR as libc::c_ulong, &mut asked)
    }

    /// Sets the MTU.
    ///
    /// # Errors
    /// As the kernel says.
    pub(super) fn set_mtu(&self, mtu: u32) -> Result<()> {
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
        let mut asked = request(&self.name);
        asked.ifr_ifru.ifru_mtu = mtu.cast_signed();
        control(socket.as_fd(), libc::SIOCSIFMTU as libc::c_ulong, &mut asked)
    }

    /// Brings the device up.
    ///
    /// # Errors
    /// As the kernel says.
    pub(super) fn bring_up(&self) -> Result<()> {
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
        let mut asked = request(&self.name);
        control(socket.as_fd(), libc::SIOCGIFFLAGS as libc::c_ulong, &mut asked)?;
        // SAFETY: the kernel has just written the flags.
        let flags = unsafe { asked.ifr_ifru.ifru_flags };
        asked.ifr_ifru.ifru_flags = flags | libc::c_short::try_from(libc::IFF_UP).unwrap_or(0);
        control(socket.as_fd(), libc::SIOCSIFFLAGS as libc::c_ulong, &mut asked)
    }

    /// A buffer for [`Device::read`].
    pub(super) fn buffer() -> Vec<u8> {
        vec![0; Offload::BYTES + LONGEST]
    }

    /// Takes the oldest frame that the kernel has sent.
    ///
    /// # Errors
    /// `EAGAIN` when there is none.
    pub(super) fn read<'a>(&self, buffer: &'a mut [u8]) -> rustix::io::Result<(Offload, &'a [u8])> {
        let n = rustix::io::read(&self.fd, &mut *buffer)?;
        let (header, frame) =
            buffer[..n].split_first_chunk::<{ Offload::BYTES }>().ok_or(rustix::io::Errno::BADMSG)?;
        Ok((Offload::parse(*header), frame))
    }

    /// Gives a frame to the kernel.
    ///
    /// # Errors
    /// `EIO` while the device is down, `EINVAL` when it is no frame.
    pub(super) fn write(&self, frame: &[u8]) -> rustix::io::Result<()> {
        // Nothing is left to be done on it.
        let header = [0; Offload::BYTES];
        let parts = [std::io::IoSlice::new(&header), std::io::IoSlice::new(frame)];
        rustix::io::writev(&self.fd, &parts).map(|_| ())
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
