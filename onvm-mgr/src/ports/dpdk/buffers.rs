//! The shared pool as DPDK's mempool: packets are received into the buffers that NFs see, and sent from them.
//!
//! ```text
//! shared memory       │ note │ buffer 0 … │ note │ buffer 1 … │ note │ buffer 2 … │      NFs map this
//!                              ▲ buf_addr          ▲ buf_addr          ▲ buf_addr
//! the manager's own   │ mbuf 0             │ mbuf 1             │ mbuf 2            │     and never this
//! ```
//! Mbuf i belongs to buffer i, by arithmetic both ways. Each port has a mempool, and mbufs, of its own, so it is always known
//! which port has which buffer:
//!
//! ```text
//! books ──stock_up──▶ stock ──driver takes──▶ driver ──received──▶ take ──▶ worker
//!   ▲────return_above── ▲─────driver frees─────┘ ◀──────lend──────────────── worker, to be sent
//! ```
//! While the stock or the driver has a buffer, its token is kept here: a buffer is never in the books and with DPDK at the
//! same time. The stock is the mempool's free list; only the worker's thread touches it. What a driver frees on a
//! thread of its own goes to a list aside, and the worker fetches it from there.

use std::ffi::{CString, c_int, c_uint, c_void};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use dpdk_sys::{Mbuf, MbufShared, Mempool, MempoolOps, PoolPrivate};
use onvm_lib::pool::{Books, Packet, Pool};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::eal::{last_reason, make_known};

/// Bytes from one mbuf to the next: what a mempool keeps of an object, in a line of its own, and the mbuf.
const STRIDE: usize = 64 + size_of::<Mbuf>();
/// Where the mbuf stands in it.
const AT: usize = 64;
/// What these mempools are called among DPDK's.
const OPS: &str = "onvm";

/// The free list of a mempool.
struct Stock {
    /// Mbufs that neither driver nor worker has. Never longer than there are mbufs, for which there is room.
    free: Vec<*mut c_void>,
    /// The worker's thread; 0 before it is known.
    owner: AtomicUsize,
    /// What other threads put back.
    aside: Mutex<Vec<*mut c_void>>,
    any_aside: AtomicBool,
}

/// A number that tells the calling thread from others.
fn this_thread() -> usize {
    thread_local!(static MARK: u8 = const { 0 });
    MARK.with(|mark| std::ptr::from_ref(mark).addr())
}

impl Stock {
    fn is_mine(&self) -> bool {
        self.owner.load(Ordering::Relaxed) == this_thread()
    }
}

/// `MempoolOps::alloc`: the stock was made before the mempool.
unsafe extern "C" fn alloc(pool: *mut Mempool) -> c_int {
    // SAFETY: DPDK calls this for a mempool that `Buffers::new` made, with a stock as its configuration.
    unsafe { (*pool).pool_data = (*pool).pool_config };
    0
}

/// `MempoolOps::free`: the stock ends with its [`Buffers`].
unsafe extern "C" fn free(_: *mut Mempool) {}

/// `MempoolOps::enqueue`.
unsafe extern "C" fn enqueue(pool: *mut Mempool, mbufs: *const *mut c_void, n: c_uint) -> c_int {
    // SAFETY: the mempool has a stock (`alloc`), and DPDK gives `n` mbufs of it. The worker holds no reference to the
    // list while it calls DPDK, and other threads do not touch the list.
    unsafe {
        let stock = (*pool).pool_data.cast::<Stock>();
        let mbufs = std::slice::from_raw_parts(mbufs, n as usize);
        if (*stock).is_mine() {
            (*stock).free.extend_from_slice(mbufs);
        } else if (*stock).owner.load(Ordering::Relaxed) != 0 {
            let mut aside = (*stock).aside.lock().unwrap_or_else(PoisonError::into_inner);
            aside.extend_from_slice(mbufs);
            (*stock).any_aside.store(true, Ordering::Release);
        }
        // Before there is an owner the mempool is being filled: its mbufs have no buffers yet.
    }
    0
}

/// `MempoolOps::dequeue`.
unsafe extern "C" fn dequeue(pool: *mut Mempool, mbufs: *mut *mut c_void, n: c_uint) -> c_int {
    // SAFETY: as in `enqueue`; DPDK has room for `n` at `mbufs`.
    unsafe {
        let stock = (*pool).pool_data.cast::<Stock>();
        if !(*stock).is_mine() {
            return -libc::ENOENT;
        }
        let free = &mut (*stock).free;
        let Some(left) = free.len().checked_sub(n as usize) else { return -libc::ENOBUFS };
        // The last that was put back first: its lines are still in the cache.
        for (at, mbuf) in free[left..].iter().rev().enumerate() {
            *mbufs.add(at) = *mbuf;
        }
        free.truncate(left);
    }
    0
}

/// `MempoolOps::get_count`.
unsafe extern "C" fn get_count(pool: *const Mempool) -> c_uint {
    // SAFETY: as in `enqueue`.
    let stock = unsafe { &*(*pool).pool_data.cast::<Stock>() };
    let count = if stock.is_mine() { stock.free.len() } else { 0 };
    c_uint::try_from(count).unwrap_or(c_uint::MAX)
}

/// `MbufShared::free_cb`: memory that is pinned to its mbuf is never free.
unsafe extern "C" fn nothing(_: *mut c_void, _: *mut c_void) {}

#[inline]
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint; it faults on no address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Makes the ways of these mempools known.
fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let ops = MempoolOps {
            alloc: Some(alloc),
            free: Some(free),
            enqueue: Some(enqueue),
            dequeue: Some(dequeue),
            get_count: Some(get_count),
            ..MempoolOps::named(OPS)
        };
        // SAFETY: DPDK copies what it is given.
        let index = unsafe { dpdk_sys::rte_mempool_register_ops(&raw const ops) };
        if index < 0 {
            log::error!("DPDK takes no further kind of mempool: {index}");
        }
    });
}

/// Mbufs over the pool's buffers, for one port.
pub(super) struct Buffers {
    pool: Pool,
    mempool: NonNull<Mempool>,
    /// The manager's own memory that the mbufs stand in.
    mbufs: NonNull<u8>,
    stock: NonNull<Stock>,
    shared: NonNull<MbufShared>,
    /// [`Mbuf::ol_flags`] of a packet without anything special.
    flags: u64,
    /// Tokens of the buffers that are in the stock or with the driver.
    tokens: Box<[Option<Packet>]>,
    held: usize,
}

// SAFETY: all of it belongs to this alone; which thread may touch the stock is asked at each touch.
unsafe impl Send for Buffers {}

impl Buffers {
    /// Makes mbufs for all buffers. `direct` says nothing to the driver of the memory's being outside of DPDK's: a quarter
    /// cheaper, for drivers that do not ask.
    ///
    /// # Errors
    /// What DPDK does not do.
    pub(super) fn new(pool: &Pool, direct: bool) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        register();
        make_known(pool)?;
        let count = pool.geometry().buffers();
        let name = format!("onvm-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let [name, ops] = [name.as_str(), OPS].map(|text| CString::new(text).unwrap_or_default());
        let stock = Stock {
            free: Vec::with_capacity(count as usize),
            owner: AtomicUsize::new(0),
            aside: Mutex::default(),
            any_aside: AtomicBool::new(false),
        };
        let shared = MbufShared { free_cb: Some(nothing), fcb_opaque: std::ptr::null_mut(), refcnt: 1 };
        let bytes = count as usize * STRIDE;
        // SAFETY: a new private mapping at a place of the kernel's choice.
        let mbufs = unsafe {
            let rights = ProtFlags::READ | ProtFlags::WRITE;
            mmap_anonymous(std::ptr::null_mut(), bytes, rights, MapFlags::PRIVATE)
        };
        let mbufs = mbufs.map_err(|error| format!("no memory for {count} mbufs: {error}"))?;
        let mbufs = NonNull::new(mbufs.cast::<u8>()).ok_or("no memory for mbufs")?;
        let stock = NonNull::from(Box::leak(Box::new(stock)));
        let shared = NonNull::from(Box::leak(Box::new(shared)));
        let room = u16::try_from(pool.geometry().room()).map_err(|error| error.to_string())?;
        let object = c_uint::try_from(size_of::<Mbuf>()).unwrap_or(0);
        let private = c_uint::try_from(size_of::<PoolPrivate>()).unwrap_or(0);
        let flags = dpdk_sys::NO_SPREAD | dpdk_sys::NO_IOVA_CONTIG;
        // SAFETY: names end with zeros; the mapping has `bytes` bytes and is kept as long as the mempool, as is the stock.
        let mempool = unsafe {
            let any = dpdk_sys::ANY_SOCKET;
            let made =
                dpdk_sys::rte_mempool_create_empty(name.as_ptr(), count, object, 0, private, any, flags);
            let made = NonNull::new(made).ok_or_else(|| format!("no mempool: {}", last_reason()))?;
            let chosen =
                dpdk_sys::rte_mempool_set_ops_byname(made.as_ptr(), ops.as_ptr(), stock.as_ptr().cast());
            let pinned = if direct { 0 } else { dpdk_sys::PINNED_EXTERNAL };
            let mut private = PoolPrivate { room, private: 0, flags: pinned };
            dpdk_sys::rte_pktmbuf_pool_init(made.as_ptr(), (&raw mut private).cast());
            let memory = mbufs.as_ptr();
            let iova = memory.addr() as u64;
            let none = std::ptr::null_mut();
            let filled =
                dpdk_sys::rte_mempool_populate_iova(made.as_ptr(), memory.cast(), iova, bytes, None, none);
            if chosen < 0 || u32::try_from(filled) != Ok(count) {
                dpdk_sys::rte_mempool_free(made.as_ptr());
                return Err(format!("a mempool for {count} buffers was filled with {filled}"));
            }
            made
        };
        let tokens = (0..count).map(|_| None).collect();
        let flags = if direct { 0 } else { dpdk_sys::EXTERNAL };
        let buffers = Self { pool: pool.clone(), mempool, mbufs, stock, shared, flags, tokens, held: 0 };
        (0..count).for_each(|index| buffers.set_up(index, room));
        Ok(buffers)
    }

    /// Writes what never changes about an mbuf.
    fn set_up(&self, index: u32, room: u16) {
        let buffer = self.address(index);
        // SAFETY: the mbuf stands in our memory, and no driver knows of it yet.
        unsafe {
            let mbuf = self.mbuf(index).as_ptr();
            (*mbuf).buf_addr = buffer;
            (*mbuf).buf_iova = buffer.addr() as u64;
            (*mbuf).buf_len = room;
            (*mbuf).data_off = dpdk_sys::HEADROOM;
            (*mbuf).refcnt = 1;
            (*mbuf).nb_segs = 1;
            (*mbuf).port = u16::MAX;
            (*mbuf).ol_flags = self.flags;
            (*mbuf).pool = self.mempool.as_ptr();
            (*mbuf).next = std::ptr::null_mut();
            if self.flags != 0 {
                (*mbuf).shinfo = self.shared.as_ptr();
            }
        }
    }

    /// Where a buffer's room begins, in the shared pool.
    fn address(&self, index: u32) -> *mut u8 {
        self.pool.room_address(index).as_ptr()
    }

    fn mbuf(&self, index: u32) -> NonNull<Mbuf> {
        debug_assert!((index as usize) < self.tokens.len());
        // SAFETY: there are as many mbufs as tokens, and every index comes from the pool or was checked.
        unsafe { self.mbufs.add(index as usize * STRIDE + AT).cast() }
    }

    /// The buffer that an mbuf belongs to; none if it is not one of ours.
    fn index(&self, mbuf: *const c_void) -> Option<u32> {
        let distance = mbuf.addr().wrapping_sub(self.mbufs.as_ptr().addr()).wrapping_sub(AT);
        let index = distance / STRIDE;
        let sound = distance.is_multiple_of(STRIDE) && index < self.tokens.len();
        sound.then(|| u32::try_from(index).ok()).flatten()
    }

    /// For drivers.
    pub(super) fn mempool(&self) -> *mut Mempool {
        self.mempool.as_ptr()
    }

    /// The calling thread is the worker's.
    pub(super) fn belong_to_this_thread(&self) {
        // SAFETY: the stock lives as long as this.
        unsafe { self.stock.as_ref() }.owner.store(this_thread(), Ordering::Relaxed);
    }

    /// The free list. Not to be held while DPDK is called.
    #[inline]
    fn free_list(&mut self) -> &mut Vec<*mut c_void> {
        // SAFETY: only the worker's thread comes here, DPDK is not being called, and `self` is borrowed as a whole.
        let stock = unsafe { self.stock.as_mut() };
        debug_assert!(stock.is_mine());
        // Looked at before it is taken: that costs nothing as long as there is nothing.
        if stock.any_aside.load(Ordering::Relaxed) && stock.any_aside.swap(false, Ordering::Acquire) {
            let mut aside = stock.aside.lock().unwrap_or_else(PoisonError::into_inner);
            stock.free.append(&mut aside);
        }
        &mut stock.free
    }

    /// Buffers that the port has: in stock and with the driver.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Sees to it that so many are in stock, if there are so many.
    pub(super) fn stock_up(&mut self, books: &mut Books, wanted: usize) {
        let missing = wanted.saturating_sub(self.free_list().len());
        for _ in 0..missing {
            let Some(packet) = books.allocate(0) else { return };
            let index = packet.descriptor().buffer();
            let mbuf = self.mbuf(index).as_ptr().cast();
            self.keep(index, packet);
            self.free_list().push(mbuf);
        }
    }

    /// Gives back what is in stock beyond so many.
    pub(super) fn return_above(&mut self, books: &mut Books, most: usize) {
        let surplus = self.free_list().len().saturating_sub(most);
        for _ in 0..surplus {
            let Some(mbuf) = self.free_list().pop() else { return };
            if let Some(packet) = self.index(mbuf).and_then(|index| self.release(index)) {
                books.free(packet);
            }
        }
    }

    fn keep(&mut self, index: u32, packet: Packet) {
        let before = self.tokens[index as usize].replace(packet);
        debug_assert!(before.is_none());
        self.held += 1;
    }

    fn release(&mut self, index: u32) -> Option<Packet> {
        let packet = self.tokens[index as usize].take();
        self.held -= usize::from(packet.is_some());
        packet
    }

    /// Takes over what the driver received; none if it was not lent to it, or lies outside of its buffer.
    ///
    /// # Safety
    /// The driver gave it, or [`Buffers::lend`] did and the driver did not take it.
    pub(super) unsafe fn take(&mut self, mbuf: *mut Mbuf) -> Option<Packet> {
        let index = self.index(mbuf.cast())?;
        // SAFETY: it is one of ours and complete, and nobody else has it (the caller's promise).
        let (address, offset, length, room) =
            unsafe { ((*mbuf).buf_addr, (*mbuf).data_off, (*mbuf).data_len, (*mbuf).buf_len) };
        let fits = usize::from(offset) + usize::from(length) <= usize::from(room);
        debug_assert!(fits);
        // Received without a copy: the driver wrote to the buffer that NFs see, and nowhere else.
        assert!(address == self.address(index), "mbuf {index} has left its buffer");
        let mut packet = self.release(index)?;
        // The driver may have sent another packet from this buffer, which neither its hops nor its generation outlive.
        packet.begin_anew();
        let length = if fits { length } else { 0 };
        packet.describe(packet.descriptor().with_place(offset.into(), length.into()));
        Some(packet)
    }

    /// Asks the processor to fetch what [`Buffers::lend`] will write.
    #[inline]
    pub(super) fn prefetch_to_lend(&self, packet: &Packet) {
        let index = packet.descriptor().buffer();
        prefetch(self.mbuf(index).as_ptr().cast());
        prefetch(std::ptr::from_ref(&self.tokens[index as usize]).cast());
    }

    /// Asks the processor to fetch the first line of a packet that was received.
    ///
    /// # Safety
    /// The driver gave it.
    #[inline]
    pub(super) unsafe fn prefetch_packet(mbuf: *const Mbuf) {
        // SAFETY: a whole mbuf (the caller's promise).
        let (address, offset) = unsafe { ((*mbuf).buf_addr, (*mbuf).data_off) };
        prefetch(address.wrapping_add(offset.into()).cast_const());
    }

    /// Makes a packet ready to be sent, from the buffer that it is in.
    pub(super) fn lend(&mut self, packet: Packet) -> *mut Mbuf {
        let descriptor = packet.descriptor();
        let index = descriptor.buffer();
        let mbuf = self.mbuf(index).as_ptr();
        // Both fit: books and descriptors have them from a pool whose room is a u16 (`new`).
        let offset = u16::try_from(descriptor.offset()).unwrap_or(0);
        let length = u16::try_from(descriptor.length()).unwrap_or(0);
        // SAFETY: nobody has the mbuf, since its buffer comes from the worker. What is not written here is as it must be in
        // a mempool: one part, no next one, one holder.
        unsafe {
            (*mbuf).data_off = offset;
            (*mbuf).refcnt = 1;
            (*mbuf).nb_segs = 1;
            (*mbuf).ol_flags = self.flags;
            (*mbuf).packet_type = 0;
            (*mbuf).pkt_len = length.into();
            (*mbuf).data_len = length;
            (*mbuf).vlan_tci = 0;
        }
        self.keep(index, packet);
        mbuf
    }

    /// Gives everything back that is in stock, and ends the mempool. Buffers that the driver still has stay with it, and then
    /// so do all mbufs.
    pub(super) fn end(mut self, books: &mut Books) {
        self.return_above(books, 0);
        if self.held > 0 {
            return;
        }
        // SAFETY: the driver was closed and has nothing of it; the mempool ends before what it stands on.
        unsafe {
            dpdk_sys::rte_mempool_free(self.mempool.as_ptr());
            let _ = munmap(self.mbufs.as_ptr().cast(), self.tokens.len() * STRIDE);
            drop(Box::from_raw(self.stock.as_ptr()));
            drop(Box::from_raw(self.shared.as_ptr()));
        }
    }
}
