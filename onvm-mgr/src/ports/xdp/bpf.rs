//! What is asked of the kernel by `bpf(2)`: a map of sockets, a program, a link that holds it to an interface.
//!
//! The link is what keeps the program attached: it goes with its descriptor, so with the process, however that ends.
#![allow(unsafe_code)]

use std::io::{Error, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::program::Instruction;

const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE: libc::c_int = 2;
const PROGRAM_LOAD: libc::c_int = 5;
const PROGRAM_BY_ID: libc::c_int = 13;
const OBJECT_INFO: libc::c_int = 15;
const LINK_CREATE: libc::c_int = 28;
const LINK_BY_ID: libc::c_int = 30;
const LINK_NEXT_ID: libc::c_int = 31;
const LINK_DETACH: libc::c_int = 34;

/// `BPF_MAP_TYPE_XSKMAP`.
const MAP_OF_SOCKETS: u32 = 17;
/// `BPF_PROG_TYPE_XDP`, and where it is attached: `BPF_XDP`.
const PROGRAM_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
/// `BPF_LINK_TYPE_XDP`.
const LINK_XDP: u32 = 6;
/// `BPF_F_XDP_HAS_FRAGS`: the program does not mind frames in several parts (Linux 5.18).
const TAKES_PARTS: u32 = 1 << 5;
/// Name that the program has in lists.
const NAME: [u8; 16] = *b"onvm_to_sockets\0";
/// Licence that the program declares: functions of the kernel's may be called by programs that can be had under the GPL
/// as well, which the MIT licence allows.
const LICENCE: &std::ffi::CStr = c"Dual MIT/GPL";
/// `BPF_F_XDP_DEV_BOUND_ONLY`: the program is for one device, which it asks for what is known of a frame.
const FOR_ONE_DEVICE: u32 = 1 << 6;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// In the driver.
    Native,
    /// In the kernel's stack, for any interface.
    Generic,
}

impl Mode {
    /// `XDP_FLAGS_*`.
    pub(super) fn flag(self) -> u32 {
        match self {
            Self::Native => 1 << 2,
            Self::Generic => 1 << 1,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// Parts of `union bpf_attr`, one a command.
#[repr(C)]
#[derive(Default)]
struct MapCreate {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
    flags: u32,
    inner: u32,
    node: u32,
    name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct MapUpdate {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ProgramLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// For commands that name an object by a number.
#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct ObjectInfo {
    object: u32,
    bytes: u32,
    info: u64,
}

fn bpf<T>(command: libc::c_int, attribute: &mut T) -> Result<libc::c_int> {
    let place = std::ptr::from_mut(attribute);
    // SAFETY: the kernel reads and writes as many bytes as the attribute has; addresses in it are of values that live on
    // in the caller, of the sizes that go with them.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, place, size_of::<T>()) };
    if done < 0 { Err(Error::last_os_error()) } else { Ok(libc::c_int::try_from(done).unwrap_or(-1)) }
}

fn owned(fd: libc::c_int) -> OwnedFd {
    // SAFETY: the kernel has just given us this descriptor.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address<T: ?Sized>(of: &T) -> u64 {
    std::ptr::from_ref(of).cast::<u8>() as u64
}

/// A map from queues to sockets.
pub(super) struct Sockets(OwnedFd);

impl Sockets {
    /// An empty one, for queues up to a number.
    ///
    /// # Errors
    /// `EPERM` without `CAP_BPF` and `CAP_NET_ADMIN`.
    pub(super) fn new(queues: u32) -> Result<Self> {
        let (kind, entries, name) = (MAP_OF_SOCKETS, queues, *b"onvm_sockets\0\0\0\0");
        let mut asked =
            MapCreate { kind, key_bytes: 4, value_bytes: 4, entries, name, ..MapCreate::default() };
        bpf(MAP_CREATE, &mut asked).map(|fd| Self(owned(fd)))
    }

    /// What comes to a queue goes to this socket, which is bound.
    ///
    /// # Errors
    /// As the kernel says.
    pub(super) fn set(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<()> {
        let value = number(socket);
        let mut asked = MapUpdate {
            map: number(self.0.as_fd()),
            key: address(&queue),
            value: address(&value),
            ..MapUpdate::default()
        };
        bpf(MAP_UPDATE, &mut asked).map(|_| ())
    }
}

impl AsFd for Sockets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A program in the kernel.
pub(super) struct Program {
    fd: OwnedFd,
    /// Frames in several parts can come by it.
    pub(super) takes_parts: bool,
}

impl Program {
    /// Loads a program, or one that is for one device only.
    ///
    /// # Errors
    /// `EPERM` without `CAP_BPF` and `CAP_NET_ADMIN`.
    pub(super) fn load(instructions: &[Instruction], only: Option<u32>) -> Result<Self> {
        let bound = if only.is_some() { FOR_ONE_DEVICE } else { 0 };
        let load = |flags| {
            let mut asked = ProgramLoad {
                kind: PROGRAM_XDP,
                count: u32::try_from(instructions.len()).unwrap_or(0),
                instructions: address(instructions),
                licence: LICENCE.as_ptr() as u64,
                flags: flags | bound,
                name: NAME,
                interface: only.unwrap_or(0),
                attach_type: ATTACH_XDP,
                ..ProgramLoad::default()
            };
            bpf(PROGRAM_LOAD, &mut asked).map(owned)
        };
        match load(TAKES_PARTS) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                Ok(Self { fd: load(0)?, takes_parts: false })
            }
            loaded => Ok(Self { fd: loaded?, takes_parts: true }),
        }
    }

    /// Attaches it to an interface for as long as the link lives.
    ///
    /// # Errors
    /// `EBUSY` when another is there, `EOPNOTSUPP` when the driver has no room for it, `ERANGE` when the MTU is too large.
    pub(super) fn attach(&self, interface: u32, mode: Mode) -> Result<Link> {
        let program = number(self.fd.as_fd());
        let mut asked = LinkCreate { program, interface, attach_type: ATTACH_XDP, flags: mode.flag() };
        bpf(LINK_CREATE, &mut asked).map(|fd| Link { _fd: owned(fd) })
    }
}

/// What holds a program to an interface.
pub(super) struct Link {
    _fd: OwnedFd,
}

/// Asks for what the kernel knows of an object; `N` numbers of it.
fn info<const N: usize>(object: BorrowedFd<'_>) -> Result<[u32; N]> {
    let mut info = [0u32; N];
    let bytes = u32::try_from(size_of_val(&info)).unwrap_or(0);
    let place = std::ptr::from_mut(&mut info) as u64;
    let mut asked = ObjectInfo { object: number(object), bytes, info: place };
    bpf(OBJECT_INFO, &mut asked).map(|_| info)
}

/// The name of a program by its id, if it has one and we may know.
pub(super) fn name_of(id: u32) -> Option<String> {
    let fd = owned(bpf(PROGRAM_BY_ID, &mut ById { id, ..ById::default() }).ok()?);
    // `struct bpf_prog_info`: the name stands at byte 64.
    let info = info::<20>(fd.as_fd()).ok()?;
    let bytes: Vec<u8> = info[16..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
}

/// Takes down the link, somebody else's, that holds a program to an interface; false if there is none.
///
/// Numbers of interfaces are those of a network namespace, and links of all namespaces are seen here: that the program is
/// the one that our interface has tells them apart. Where even that leaves two, nothing is done.
///
/// # Errors
/// As the kernel says, `ENOTUNIQ` for two.
pub(super) fn detach_link_of(interface: u32, program: u32) -> Result<bool> {
    let (mut last, mut found) = (0, None);
    loop {
        let mut asked = ById { id: last, ..ById::default() };
        match bpf(LINK_NEXT_ID, &mut asked) {
            Ok(_) => last = asked.next,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
            Err(error) => return Err(error),
        }
        // It may have gone meanwhile.
        let Ok(fd) = bpf(LINK_BY_ID, &mut ById { id: last, ..ById::default() }).map(owned) else { continue };
        // `struct bpf_link_info`: kind, id, program, and for this kind the interface at byte 16.
        let info = info::<5>(fd.as_fd())?;
        if (info[0], info[2], info[4]) == (LINK_XDP, program, interface) && found.replace(fd).is_some() {
            return Err(Error::from_raw_os_error(libc::ENOTUNIQ));
        }
    }
    let Some(fd) = found else { return Ok(false) };
    bpf(LINK_DETACH, &mut ById { id: number(fd.as_fd()), ..ById::default() }).map(|_| true)
}
