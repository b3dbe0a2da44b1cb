//! The ring into which the kernel puts what came in (`packet(7)`, `Documentation/networking/packet_mmap.rst`).
//!
//! ```text
//! slot:   status │ lengths, time, VLAN tag │ … │ offload header │ frame
//!         KERNEL ──kernel has filled it──▶ USER ──we have read it──▶ KERNEL
//! ```
//! Version 2 of the interface: slots of one size, each told of at once. Version 3 packs frames of any size into blocks
//! and tells of a block when it is full or a millisecond old at least, which every ping would have to wait for. Frames that are
//! too long for a slot (64 KiB before they are cut up) the kernel also puts in the socket's queue, and says so in the status.
#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::super::offload::Offload;

/// Bytes of a slot: a frame of 1,518 bytes with a tag, and what stands in front of it.
pub(super) const SLOT: usize = 2048;
/// Slots. At a million packets a second the worker may be away for 4 ms.
const SLOTS: usize = 4096;
/// The kernel allocates blocks, each of consecutive pages.
const BLOCK: usize = 1 << 16;
const _: () = assert!(BLOCK.is_multiple_of(SLOT) && (SLOT * SLOTS).is_multiple_of(BLOCK));

/// A frame in a slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received<'a> {
    /// The frame, as much of it as the slot has room for.
    pub(super) bytes: &'a [u8],
    pub(super) offload: Offload,
    /// Tag protocol and tag that the kernel took out of the frame.
    pub(super) tag: Option<(u16, u16)>,
    pub(super) timestamp_ns: u64,
    /// The whole of it is in the socket's queue.
    pub(super) in_queue: bool,
    /// Bytes that it had.
    pub(super) length: usize,
}

/// The ring, mapped.
pub(super) struct ReceiveRing {
    base: NonNull<u8>,
    next: usize,
}

// SAFETY: the mapping belongs to this alone.
unsafe impl Send for ReceiveRing {}

impl ReceiveRing {
    /// What is to be asked of the kernel.
    pub(super) fn request() -> libc::tpacket_req {
        let number = |n: usize| libc::c_uint::try_from(n).unwrap_or(0);
        libc::tpacket_req {
            tp_block_size: number(BLOCK),
            tp_block_nr: number(SLOT * SLOTS / BLOCK),
            tp_frame_size: number(SLOT),
            tp_frame_nr: number(SLOTS),
        }
    }

    /// Maps the ring of a socket that has one.
    pub(super) fn map(socket: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        // SAFETY: a new mapping at a place of the kernel's choice; the ring has just this many bytes.
        let address = unsafe {
            mmap(
                std::ptr::null_mut(),
                SLOT * SLOTS,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::POPULATE,
                socket,
                0,
            )?
        };
        let base = NonNull::new(address.cast()).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Self { base, next: 0 })
    }

    fn slot(&self) -> NonNull<u8> {
        // SAFETY: `next` is less than SLOTS.
        unsafe { self.base.add(self.next * SLOT) }
    }

    fn status(&self) -> &AtomicU32 {
        // SAFETY: a slot begins with its status, aligned to 16 bytes at least; the kernel and we use it atomically.
        unsafe { self.slot().cast::<AtomicU32>().as_ref() }
    }

    /// Whether a frame waits.
    pub(super) fn has_frame(&self) -> bool {
        self.status().load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// The frame that waits longest.
    pub(super) fn frame(&self) -> Option<Received<'_>> {
        let status = self.status().load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        // SAFETY: the slot is ours, and the kernel has written a header there.
        let header = unsafe { self.slot().cast::<libc::tpacket2_hdr>().read() };
        let start = usize::from(header.tp_mac);
        if !(Offload::BYTES..=SLOT).contains(&start) {
            return Some(Self::nothing());
        }
        let length = (header.tp_snaplen as usize).min(SLOT - start);
        // SAFETY: both stand inside of the slot, as was just made sure, and the kernel leaves it alone until it is released.
        let (bytes, before) = unsafe {
            let frame = self.slot().add(start);
            let before = frame.sub(Offload::BYTES).cast::<[u8; Offload::BYTES]>().read_unaligned();
            (std::slice::from_raw_parts(frame.as_ptr(), length), before)
        };
        let known = |bit: u32| status & bit != 0;
        let protocol =
            if known(libc::TP_STATUS_VLAN_TPID_VALID) { header.tp_vlan_tpid } else { super::ETHERTYPE_VLAN };
        Some(Received {
            bytes,
            offload: Offload::parse(before),
            tag: known(libc::TP_STATUS_VLAN_VALID).then_some((protocol, header.tp_vlan_tci)),
            timestamp_ns: u64::from(header.tp_sec) * 1_000_000_000 + u64::from(header.tp_nsec),
            in_queue: known(libc::TP_STATUS_COPY),
            length: header.tp_len as usize,
        })
    }

    /// What a slot with an impossible header holds.
    fn nothing() -> Received<'static> {
        let (offload, tag) = (Offload::default(), None);
        Received { bytes: &[], offload, tag, timestamp_ns: 0, in_queue: false, length: 0 }
    }

    /// Gives the slot of the frame that waits longest back to the kernel.
    pub(super) fn release(&mut self) {
        self.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = (self.next + 1) % SLOTS;
    }
}

impl Drop for ReceiveRing {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing borrowed from it outlives this.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), SLOT * SLOTS) };
    }
}
