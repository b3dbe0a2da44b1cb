//! What the kernel says of an interface, by `rtnetlink(7)`: its MTU, its queues, and what program is attached to it.

use std::io::{Error, Result};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send};

use super::bpf::Mode;

const GET_LINK: u16 = libc::RTM_GETLINK;
const SET_LINK: u16 = libc::RTM_SETLINK;
/// Bytes of `struct nlmsghdr`, `struct ifinfomsg` and `struct nlattr`.
const HEADER: usize = 16;
const INTERFACE: usize = 16;
const ATTRIBUTE: usize = 4;
/// Set in the kind of an attribute that has attributes in it.
const NESTED: u16 = 1 << 15;
/// Kinds of attributes in `IFLA_XDP` (`linux/if_link.h`).
const XDP_FD: u16 = 1;
const XDP_FLAGS: u16 = 3;
const XDP_PROGRAM: u16 = 4;
const XDP_NATIVE: u16 = 5;
const XDP_GENERIC: u16 = 6;

/// What is known of an interface.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Interface {
    pub(super) mtu: u32,
    /// Queues that it was made with; not all need be in use.
    pub(super) queues: u32,
    /// The programs that are attached to it.
    pub(super) native: Option<u32>,
    pub(super) generic: Option<u32>,
}

impl Interface {
    /// The program that is attached, if there is one, and how.
    pub(super) fn program(&self) -> Option<(u32, Mode)> {
        self.native
            .map(|id| (id, Mode::Native))
            .or(self.generic.map(|id| (id, Mode::Generic)))
            .filter(|(id, _)| *id != 0)
    }
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

/// The attributes in a message, each with its kind.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (head, _) = bytes.split_first_chunk::<ATTRIBUTE>()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & !NESTED;
        let value = bytes.get(ATTRIBUTE..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn put(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(ATTRIBUTE + value.len()).unwrap_or(u16::MAX);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// Does a request about one interface; the answer behind its headers.
fn ask(kind: u16, index: u32, body: &[u8]) -> Result<Vec<u8>> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    let acknowledge = if kind == SET_LINK { libc::NLM_F_ACK } else { 0 };
    let flags = u16::try_from(libc::NLM_F_REQUEST | acknowledge).unwrap_or(0);
    let length = u32::try_from(HEADER + INTERFACE + body.len()).unwrap_or(0);
    let mut message = Vec::with_capacity(64);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    // `struct ifinfomsg`: family, type, index, flags, mask.
    message.extend([0; 4]);
    message.extend(index.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    send(&socket, &message, SendFlags::empty())?;
    let mut answer = vec![0; 1 << 16];
    let (got, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    answer.truncate(got);
    let bad = || Error::from_raw_os_error(libc::EBADMSG);
    let head = answer.first_chunk::<HEADER>().ok_or_else(bad)?;
    let kind = u16::from_ne_bytes([head[4], head[5]]);
    if i32::from(kind) == libc::NLMSG_ERROR {
        // The error stands behind the header, negative; 0 says that all is well.
        let number = answer.get(HEADER..).and_then(word).ok_or_else(bad)?.cast_signed();
        return if number == 0 { Ok(Vec::new()) } else { Err(Error::from_raw_os_error(-number)) };
    }
    if answer.len() < HEADER + INTERFACE { Err(bad()) } else { Ok(answer.split_off(HEADER + INTERFACE)) }
}

/// What the kernel knows of an interface.
///
/// # Errors
/// `ENODEV` when there is none of this number.
pub(super) fn interface(index: u32) -> Result<Interface> {
    let answer = ask(GET_LINK, index, &[])?;
    let mut found = Interface::default();
    for (kind, value) in attributes(&answer) {
        match kind {
            libc::IFLA_MTU => found.mtu = word(value).unwrap_or(0),
            libc::IFLA_NUM_RX_QUEUES => found.queues = word(value).unwrap_or(1),
            libc::IFLA_XDP => {
                let of = |wanted| attributes(value).find(|(kind, _)| *kind == wanted);
                let id = |wanted| of(wanted).and_then(|(_, value)| word(value));
                (found.native, found.generic) = (id(XDP_NATIVE), id(XDP_GENERIC));
                if found.program().is_none() {
                    found.native = id(XDP_PROGRAM);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Takes away the program that is attached to an interface without a link.
///
/// # Errors
/// `EBUSY` when a link holds it.
pub(super) fn detach(index: u32, mode: Mode) -> Result<()> {
    let (mut body, mut request) = (Vec::new(), Vec::new());
    put(&mut body, XDP_FD, &(-1i32).to_ne_bytes());
    put(&mut body, XDP_FLAGS, &mode.flag().to_ne_bytes());
    put(&mut request, libc::IFLA_XDP | NESTED, &body);
    ask(SET_LINK, index, &request).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written_and_never_beyond_the_end() {
        let mut message = Vec::new();
        put(&mut message, 4, &1500u32.to_ne_bytes());
        put(&mut message, 3, b"eth0\0");
        put(&mut message, 43 | NESTED, &[]);
        let read: Vec<_> = attributes(&message).collect();
        assert_eq!(read, [(4, &1500u32.to_ne_bytes()[..]), (3, b"eth0\0"), (43, &[])]);
        for end in 0..message.len() {
            assert!(attributes(&message[..end]).count() < 3);
        }
        assert_eq!(attributes(&[0; 8]).count(), 0, "an attribute shorter than its head ends all");
    }

    #[test]
    fn the_loopback_interface_is_known() {
        let lo = interface(1).unwrap();
        assert!(lo.mtu >= 1280 && lo.program().is_none(), "{lo:?}");
        assert_eq!(interface(0x7fff_ffff).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
