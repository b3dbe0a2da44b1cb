//! Memory shared between processes.
//!
//! # The law of this room
//! Memory that another process can write is hostile: its bytes may change between two reads, and to hold a
//! `&` or `&mut` to them would be undefined behaviour. So a [`Region`] hands out raw addresses only, and
//! what lies behind them is read and written
//!
//! - by the rings and node pages, through atomics, each value copied out before it is checked and used;
//! - by the packet room, as plain bytes, because the holder of a descriptor is the only one who may touch
//!   its buffer (`ARCHITECTURE.md`, "Ownership").
//!
//! A region is a sealed `memfd`: nobody can shrink it, so a mapping never raises SIGBUS, and nobody can add
//! seals. It has no name in any file system; it exists for as long as someone holds it, so a crash leaves
//! nothing behind.
//!
//! Sources: `memfd_create(2)`, `fcntl(2)` "File Sealing", `mmap(2)`.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

/// Size of a huge page that regions ask for, in bytes.
const HUGE_PAGE: usize = 2 << 20;

/// Which pages carry a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pages {
    /// 2 MiB pages from the kernel's reserved set (`vm.nr_hugepages`).
    Huge,
    /// Pages of the system's base size, made on first touch.
    Plain,
}

impl std::fmt::Display for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Huge => "2 MiB huge pages",
            Self::Plain => "plain pages",
        })
    }
}

/// What may be done through a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Loads only; a store raises SIGSEGV.
    Read,
    /// Loads and stores.
    ReadWrite,
}

/// Why a region could not be made or mapped.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a step.
    Kernel {
        /// The system call and the region's name.
        step: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A region received from a peer is not of the size it announced.
    Size {
        /// Bytes announced.
        want: usize,
        /// Bytes that the file really has.
        got: u64,
    },
    /// A region received from a peer could be shrunk under our feet.
    Unsealed,
    /// A region of no bytes was asked for.
    Empty,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kernel { step, errno } => write!(f, "{step}: {errno}"),
            Self::Size { want, got } => write!(f, "shared region has {got} bytes, {want} were announced"),
            Self::Unsealed => f.write_str("shared region is not sealed against shrinking"),
            Self::Empty => f.write_str("a shared region needs at least one byte"),
        }
    }
}

impl std::error::Error for Error {}

fn kernel(step: &str, name: &str) -> impl FnOnce(Errno) -> Error {
    let step = format!("{step} of shared region {name}");
    move |errno| Error::Kernel { step, errno }
}

/// One mapped, sealed memfd.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    len: usize,
    fd: OwnedFd,
    pages: Pages,
}

// SAFETY: a Region is an address range and a descriptor; it hands out raw addresses and dereferences none
// itself, so moving it to another thread, or sharing it, adds no access.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Makes a zeroed region of at least `len` bytes and maps it for reading and writing.
    ///
    /// With [`Pages::Huge`] wanted, huge pages are reserved at once and plain pages are the fallback;
    /// [`Region::pages`] says which it became.
    ///
    /// # Errors
    /// [`Error::Empty`] for no bytes, [`Error::Kernel`] when memory or descriptors have run out.
    pub fn create(name: &str, len: usize, wanted: Pages) -> Result<Self, Error> {
        if len == 0 {
            return Err(Error::Empty);
        }
        if wanted == Pages::Huge {
            let rounded = len.next_multiple_of(HUGE_PAGE);
            let flags = MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
            if let Ok(region) = Self::create_with(name, rounded, flags, Pages::Huge) {
                return Ok(region);
            }
        }
        let rounded = len.next_multiple_of(rustix::param::page_size());
        Self::create_with(name, rounded, MemfdFlags::empty(), Pages::Plain)
    }

    fn create_with(name: &str, len: usize, flags: MemfdFlags, pages: Pages) -> Result<Self, Error> {
        let flags = flags | MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create(name, flags).map_err(kernel("memfd_create", name))?;
        // Owner only: whoever gets the descriptor read-only may not reopen it for writing as somebody else.
        rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR).map_err(kernel("fchmod", name))?;
        rustix::fs::ftruncate(&fd, len as u64).map_err(kernel("ftruncate", name))?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&fd, seals).map_err(kernel("fcntl(F_ADD_SEALS)", name))?;
        let base = map(&fd, len, Access::ReadWrite, name)?;
        Ok(Self { base, len, fd, pages })
    }

    /// Maps a region that a peer sent, after checking its size and its seals.
    ///
    /// # Errors
    /// [`Error::Size`] and [`Error::Unsealed`] for a region that is not what was announced,
    /// [`Error::Kernel`] when the kernel refuses to map it (a write mapping of a read-only descriptor, say).
    pub fn from_fd(name: &str, fd: OwnedFd, len: usize, access: Access) -> Result<Self, Error> {
        if len == 0 {
            return Err(Error::Empty);
        }
        let got = u64::try_from(rustix::fs::fstat(&fd).map_err(kernel("fstat", name))?.st_size).unwrap_or(0);
        if got < len as u64 {
            return Err(Error::Size { want: len, got });
        }
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(kernel("fcntl(F_GET_SEALS)", name))?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(Error::Unsealed);
        }
        let base = map(&fd, len, access, name)?;
        Ok(Self { base, len, fd, pages: Pages::Plain })
    }

    /// A second descriptor of the region through which it can be mapped for reading only.
    ///
    /// # Errors
    /// [`Error::Kernel`] where `/proc` is not mounted.
    pub fn read_only_fd(&self) -> Result<OwnedFd, Error> {
        use std::os::fd::AsRawFd;
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(kernel("open", "for reading"))
    }

    /// First address of the region.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes in the region.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // a region is never empty
    pub fn len(&self) -> usize {
        self.len
    }

    /// Which pages carry it.
    #[must_use]
    pub fn pages(&self) -> Pages {
        self.pages
    }
}

impl AsFd for Region {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: base and len are what mmap returned, and whoever derived an address from them holds the
        // Region (by value or in an Arc), so nothing refers to the range any more.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast::<c_void>(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}

fn map(fd: &OwnedFd, len: usize, access: Access, name: &str) -> Result<NonNull<u8>, Error> {
    let prot = match access {
        Access::Read => ProtFlags::READ,
        Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
    };
    // SAFETY: a fresh mapping at an address of the kernel's choosing overlaps nothing of ours.
    let address = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, fd, 0) }
        .map_err(kernel("mmap", name))?;
    NonNull::new(address.cast::<u8>()).ok_or(Error::Empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_mappings_of_one_region_see_the_same_bytes() {
        let first = Region::create("test", 5000, Pages::Plain).unwrap();
        assert!(first.len() >= 5000);
        let fd = first.as_fd().try_clone_to_owned().unwrap();
        let second = Region::from_fd("test", fd, 5000, Access::ReadWrite).unwrap();
        // SAFETY: both mappings are live, the offset is inside, and this test is their only user.
        unsafe {
            first.base().as_ptr().add(4999).write_volatile(42);
            assert_eq!(second.base().as_ptr().add(4999).read_volatile(), 42);
        }
    }

    #[test]
    fn a_region_cannot_be_shrunk_by_its_receiver() {
        let region = Region::create("test", 8192, Pages::Plain).unwrap();
        assert_eq!(rustix::fs::ftruncate(&region, 0), Err(Errno::PERM));
    }

    #[test]
    fn a_file_that_is_too_small_or_unsealed_is_refused() {
        let small = Region::create("test", 1, Pages::Plain).unwrap();
        let fd = small.as_fd().try_clone_to_owned().unwrap();
        assert!(matches!(Region::from_fd("test", fd, 1 << 20, Access::Read), Err(Error::Size { .. })));
        let open = rustix::fs::memfd_create("open", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&open, 4096).unwrap();
        assert!(matches!(Region::from_fd("test", open, 4096, Access::Read), Err(Error::Unsealed)));
    }

    #[test]
    fn a_read_only_descriptor_cannot_be_mapped_for_writing() {
        let region = Region::create("test", 4096, Pages::Plain).unwrap();
        let fd = region.read_only_fd().unwrap();
        let refused = Region::from_fd("test", fd, 4096, Access::ReadWrite);
        assert!(matches!(refused, Err(Error::Kernel { errno: Errno::ACCESS, .. })));
        let fd = region.read_only_fd().unwrap();
        assert!(Region::from_fd("test", fd, 4096, Access::Read).is_ok());
    }
}
