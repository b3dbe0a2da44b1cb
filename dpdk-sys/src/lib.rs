//! The few functions and structures of DPDK (22.11 or later of this ABI) that the manager's `dpdk:` port uses.
//!
//! Declared by hand: no bindgen, no libclang. Functions that DPDK's headers define inline, and structures that are too
//! large or too full of bit fields to be declared, are behind a small shim in C (`shim.c`, names `onvm_dpdk_*`). Layouts are
//! asserted on both sides, so a DPDK that lays them out otherwise does not compile.
//!
//! Without the feature `native` this crate is empty and needs nothing; with it, `pkg-config libdpdk` must find DPDK's headers.
//! Of the libraries only those are linked that are called here; drivers are plug-ins that EAL loads.
//!
//! Sources: `rte_mbuf_core.h`, `rte_mempool.h`, `rte_ethdev.h`, `rte_eal.h`, `rte_dev.h`, `rte_memory.h`.
#![allow(unsafe_code)]
#![cfg(feature = "native")]

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::mem::offset_of;

/// Bytes that drivers leave free in front of a frame that they receive (`RTE_PKTMBUF_HEADROOM`).
pub const HEADROOM: u16 = 128;
/// The frame had a VLAN tag, which stands in [`Mbuf::vlan_tci`].
pub const RX_VLAN: u64 = 1;
/// The device found the checksum of TCP or UDP wrong.
pub const RX_L4_CKSUM_BAD: u64 = 1 << 3;
/// The device found the checksum of the IPv4 header wrong.
pub const RX_IP_CKSUM_BAD: u64 = 1 << 4;
/// The tag in [`Mbuf::vlan_tci`] was taken out of the frame.
pub const RX_VLAN_STRIPPED: u64 = 1 << 6;
/// The device found the checksum of the IPv4 header right.
pub const RX_IP_CKSUM_GOOD: u64 = 1 << 7;
/// The device found the checksum of TCP or UDP right.
pub const RX_L4_CKSUM_GOOD: u64 = 1 << 8;
/// Two tags were taken out of the frame; the outer one is in [`Mbuf::vlan_tci_outer`].
pub const RX_QINQ_STRIPPED: u64 = 1 << 15;
/// The packet's bytes are in memory that is not the mbuf's own.
pub const EXTERNAL: u64 = 1 << 61;
/// [`PoolPrivate::flags`]: every mbuf of the pool has such memory for ever.
pub const PINNED_EXTERNAL: u32 = 1;
/// Objects of a mempool lie one behind the other.
pub const NO_SPREAD: c_uint = 0x0001;
/// Objects of a mempool need not be physically contiguous.
pub const NO_IOVA_CONTIG: c_uint = 0x0020;
/// Any NUMA node.
pub const ANY_SOCKET: c_int = -1;

/// `struct rte_mbuf`: what DPDK knows of a packet.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Mbuf {
    /// First byte of the buffer.
    pub buf_addr: *mut u8,
    /// The same as the device sees it.
    pub buf_iova: u64,
    /// Bytes from there to the packet.
    pub data_off: u16,
    /// Holders of the mbuf.
    pub refcnt: u16,
    /// Parts that the packet has.
    pub nb_segs: u16,
    /// Port that it came in by.
    pub port: u16,
    /// `RX_*`, [`EXTERNAL`].
    pub ol_flags: u64,
    /// Kinds of headers, where the device knows.
    pub packet_type: u32,
    /// Bytes of the packet.
    pub pkt_len: u32,
    /// Bytes of this part.
    pub data_len: u16,
    /// VLAN tag, in the processor's byte order.
    pub vlan_tci: u16,
    /// The device's hash of the flow, and more.
    pub hash: [u32; 2],
    /// Outer VLAN tag.
    pub vlan_tci_outer: u16,
    /// Bytes of the buffer.
    pub buf_len: u16,
    /// Pool that it belongs to.
    pub pool: *mut Mempool,
    /// Next part.
    pub next: *mut Mbuf,
    /// Lengths of headers, for the device to work on.
    pub tx_offload: u64,
    /// Who is to be told when memory that is not its own is free.
    pub shinfo: *mut MbufShared,
    /// Bytes behind the mbuf that are the program's own.
    pub priv_size: u16,
    /// For time stamps.
    pub timesync: u16,
    /// For extensions.
    pub dynfield1: [u32; 9],
}

const _: () = {
    assert!(size_of::<Mbuf>() == 128 && align_of::<Mbuf>() == 64);
    assert!(offset_of!(Mbuf, buf_iova) == 8 && offset_of!(Mbuf, data_off) == 16);
    assert!(offset_of!(Mbuf, refcnt) == 18 && offset_of!(Mbuf, nb_segs) == 20);
    assert!(offset_of!(Mbuf, port) == 22 && offset_of!(Mbuf, ol_flags) == 24);
    assert!(offset_of!(Mbuf, packet_type) == 32 && offset_of!(Mbuf, pkt_len) == 36);
    assert!(offset_of!(Mbuf, data_len) == 40 && offset_of!(Mbuf, vlan_tci) == 42);
    assert!(offset_of!(Mbuf, hash) == 44 && offset_of!(Mbuf, vlan_tci_outer) == 52);
    assert!(offset_of!(Mbuf, buf_len) == 54 && offset_of!(Mbuf, pool) == 56);
    assert!(offset_of!(Mbuf, next) == 64 && offset_of!(Mbuf, tx_offload) == 72);
    assert!(offset_of!(Mbuf, shinfo) == 80 && offset_of!(Mbuf, priv_size) == 88);
    assert!(offset_of!(Mbuf, timesync) == 90 && offset_of!(Mbuf, dynfield1) == 92);
};

/// `struct rte_mbuf_ext_shared_info`.
#[derive(Debug)]
#[repr(C)]
pub struct MbufShared {
    /// Called when nobody has the memory any more.
    pub free_cb: Option<unsafe extern "C" fn(*mut c_void, *mut c_void)>,
    /// What it is called with.
    pub fcb_opaque: *mut c_void,
    /// Holders of the memory.
    pub refcnt: u16,
}

const _: () = assert!(size_of::<MbufShared>() == 24 && offset_of!(MbufShared, refcnt) == 16);

/// `struct rte_mempool`, its front.
#[derive(Debug)]
#[repr(C)]
pub struct Mempool {
    /// Its name.
    pub name: [c_char; 32],
    /// What [`MempoolOps::alloc`] has put there.
    pub pool_data: *mut c_void,
    /// What [`rte_mempool_set_ops_byname`] was given.
    pub pool_config: *mut c_void,
    zone: *const c_void,
    flags: c_uint,
    socket: c_int,
    /// Most objects.
    pub size: u32,
    cache_size: u32,
    /// Bytes of an object.
    pub elt_size: u32,
    /// Bytes in front of each.
    pub header_size: u32,
    /// Bytes behind each.
    pub trailer_size: u32,
}

const _: () = {
    assert!(offset_of!(Mempool, pool_data) == 32 && offset_of!(Mempool, pool_config) == 40);
    assert!(offset_of!(Mempool, size) == 64 && offset_of!(Mempool, elt_size) == 72);
    assert!(offset_of!(Mempool, header_size) == 76 && offset_of!(Mempool, trailer_size) == 80);
};

/// `struct rte_mempool_ops`: where a mempool keeps its free objects.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct MempoolOps {
    /// Its name, ended by a zero.
    pub name: [c_char; 32],
    /// Makes the keeping place; 0 when that is done.
    pub alloc: Option<unsafe extern "C" fn(*mut Mempool) -> c_int>,
    /// Ends it.
    pub free: Option<unsafe extern "C" fn(*mut Mempool)>,
    /// Puts all objects back, or none; 0 when that is done.
    pub enqueue: Option<unsafe extern "C" fn(*mut Mempool, *const *mut c_void, c_uint) -> c_int>,
    /// Takes so many objects, or none; 0 when that is done.
    pub dequeue: Option<unsafe extern "C" fn(*mut Mempool, *mut *mut c_void, c_uint) -> c_int>,
    /// How many are there.
    pub get_count: Option<unsafe extern "C" fn(*const Mempool) -> c_uint>,
    /// Bytes of memory for so many objects; none: DPDK's own way.
    pub calc_mem_size: Option<unsafe extern "C" fn()>,
    /// Puts objects into memory; none: DPDK's own way.
    pub populate: Option<unsafe extern "C" fn()>,
    /// Says more; none: nothing.
    pub get_info: Option<unsafe extern "C" fn()>,
    /// Takes objects that lie side by side; none: not to be had.
    pub dequeue_contig_blocks: Option<unsafe extern "C" fn()>,
}

const _: () = {
    assert!(size_of::<MempoolOps>() == 128);
    assert!(offset_of!(MempoolOps, alloc) == 32 && offset_of!(MempoolOps, get_count) == 64);
    assert!(offset_of!(MempoolOps, dequeue_contig_blocks) == 96);
};

impl MempoolOps {
    /// Ways of keeping with this name (at most 31 bytes) and nothing else.
    #[must_use]
    pub const fn named(name: &str) -> Self {
        let mut bytes = [0; 32];
        let mut at = 0;
        while at < name.len() && at < 31 {
            bytes[at] = c_char::from_ne_bytes([name.as_bytes()[at]]);
            at += 1;
        }
        Self {
            name: bytes,
            alloc: None,
            free: None,
            enqueue: None,
            dequeue: None,
            get_count: None,
            calc_mem_size: None,
            populate: None,
            get_info: None,
            dequeue_contig_blocks: None,
        }
    }
}

/// `struct rte_pktmbuf_pool_private`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PoolPrivate {
    /// Bytes of a buffer.
    pub room: u16,
    /// Bytes behind an mbuf that are the program's own.
    pub private: u16,
    /// [`PINNED_EXTERNAL`].
    pub flags: u32,
}

const _: () = assert!(size_of::<PoolPrivate>() == 8);

/// What a device can do.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Facts {
    /// The device, for [`rte_dev_remove`].
    pub device: *mut c_void,
    /// Name of its driver.
    pub driver: *const c_char,
    /// Kinds of packets that it can spread over queues.
    pub rss_offloads: u64,
    /// Longest frame, in bytes.
    pub max_rx_length: u32,
    /// Number of the kernel's interface that it stands on; 0: none.
    pub interface: u32,
    /// Smallest MTU.
    pub min_mtu: u16,
    /// Largest MTU.
    pub max_mtu: u16,
    /// Most queues to receive by.
    pub max_rx_queues: u16,
    /// Most queues to send by.
    pub max_tx_queues: u16,
    /// Entries of a queue that the driver asks for; 0: nothing.
    pub rx_ring: u16,
    /// The same for sending.
    pub tx_ring: u16,
    /// Bytes of the key that packets are spread by; 0: 40.
    pub rss_key_bytes: u8,
    /// Looks at checksums of received packets.
    pub rx_checksum: u8,
    /// Frees buffers that were sent the quick way.
    pub tx_fast_free: u8,
    /// Can take VLAN tags out.
    pub vlan_strip: u8,
    /// Can put one packet into several buffers.
    pub rx_scatter: u8,
    padding: [u8; 3],
}

const _: () = assert!(size_of::<Facts>() == 56 && offset_of!(Facts, rss_key_bytes) == 44);

/// What is wanted of a device.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Wish {
    /// The key that packets are spread by.
    pub rss_key: *const u8,
    /// Queues to receive by.
    pub rx_queues: u16,
    /// Queues to send by.
    pub tx_queues: u16,
    /// 0: the driver's own.
    pub mtu: u16,
    /// Look at checksums.
    pub rx_checksum: u8,
    /// All packets sent are of one pool and have one holder.
    pub tx_fast_free: u8,
    /// Bytes of the key; 0: packets are not spread.
    pub rss_key_bytes: u8,
    /// Queues can wake a sleeper.
    pub rx_interrupts: u8,
    /// Nothing.
    pub padding: [u8; 6],
}

const _: () = assert!(size_of::<Wish>() == 24 && offset_of!(Wish, rss_key_bytes) == 16);

impl Wish {
    /// So many queues, and nothing else.
    #[must_use]
    pub const fn new(rx_queues: u16, tx_queues: u16) -> Self {
        Self {
            rss_key: std::ptr::null(),
            rx_queues,
            tx_queues,
            mtu: 0,
            rx_checksum: 0,
            tx_fast_free: 0,
            rss_key_bytes: 0,
            rx_interrupts: 0,
            padding: [0; 6],
        }
    }
}

/// What a device counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets that no queue had room for.
    pub rx_missed: u64,
    /// Broken packets received.
    pub rx_errors: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Times that there was no buffer.
    pub rx_no_mbuf: u64,
}

const _: () = assert!(size_of::<Counters>() == 48);

// Functions that DPDK's libraries export; they return less than 0 for an error unless said otherwise.
unsafe extern "C" {
    /// Starts DPDK with a command line.
    pub fn rte_eal_init(argc: c_int, argv: *mut *mut c_char) -> c_int;
    /// The directory that it has made for its files.
    pub fn rte_eal_get_runtime_dir() -> *const c_char;
    /// Loads the driver for a device.
    pub fn rte_dev_probe(devargs: *const c_char) -> c_int;
    /// Takes a device away.
    pub fn rte_dev_remove(device: *mut c_void) -> c_int;
    /// Lets a device reach memory.
    pub fn rte_dev_dma_map(device: *mut c_void, address: *mut c_void, iova: u64, bytes: usize) -> c_int;
    /// The opposite.
    pub fn rte_dev_dma_unmap(device: *mut c_void, address: *mut c_void, iova: u64, bytes: usize) -> c_int;
    /// Makes memory known that is not DPDK's own.
    pub fn rte_extmem_register(
        address: *mut c_void,
        bytes: usize,
        iovas: *mut u64,
        pages: c_uint,
        page_bytes: usize,
    ) -> c_int;
    /// The text of an error.
    pub fn rte_strerror(number: c_int) -> *const c_char;
    /// Makes a way of keeping known; its number.
    pub fn rte_mempool_register_ops(ops: *const MempoolOps) -> c_int;
    /// Makes a mempool without objects; null for an error.
    pub fn rte_mempool_create_empty(
        name: *const c_char,
        objects: c_uint,
        object_bytes: c_uint,
        cache: c_uint,
        private_bytes: c_uint,
        socket: c_int,
        flags: c_uint,
    ) -> *mut Mempool;
    /// Chooses a way of keeping.
    pub fn rte_mempool_set_ops_byname(pool: *mut Mempool, name: *const c_char, config: *mut c_void) -> c_int;
    /// Adds memory for objects; how many.
    pub fn rte_mempool_populate_iova(
        pool: *mut Mempool,
        address: *mut c_void,
        iova: u64,
        bytes: usize,
        free: Option<unsafe extern "C" fn(*mut c_void, *mut c_void)>,
        opaque: *mut c_void,
    ) -> c_int;
    /// Ends a mempool.
    pub fn rte_mempool_free(pool: *mut Mempool);
    /// Says what a mempool of mbufs is like; `private` is a [`PoolPrivate`].
    pub fn rte_pktmbuf_pool_init(pool: *mut Mempool, private: *mut c_void);
    /// The number of a port.
    pub fn rte_eth_dev_get_port_by_name(name: *const c_char, port: *mut u16) -> c_int;
    /// The MTU of a port.
    pub fn rte_eth_dev_get_mtu(port: u16, mtu: *mut u16) -> c_int;
    /// Sets the MTU of a port.
    pub fn rte_eth_dev_set_mtu(port: u16, mtu: u16) -> c_int;
    /// Fits numbers of entries to what a device can do.
    pub fn rte_eth_dev_adjust_nb_rx_tx_desc(port: u16, rx: *mut u16, tx: *mut u16) -> c_int;
    /// Sets up a queue to receive by; `conf` may be null.
    pub fn rte_eth_rx_queue_setup(
        port: u16,
        queue: u16,
        entries: u16,
        socket: c_uint,
        conf: *const c_void,
        pool: *mut Mempool,
    ) -> c_int;
    /// Sets up a queue to send by; `conf` may be null.
    pub fn rte_eth_tx_queue_setup(
        port: u16,
        queue: u16,
        entries: u16,
        socket: c_uint,
        conf: *const c_void,
    ) -> c_int;
    /// Starts a port.
    pub fn rte_eth_dev_start(port: u16) -> c_int;
    /// Stops it.
    pub fn rte_eth_dev_stop(port: u16) -> c_int;
    /// Gives its memory back.
    pub fn rte_eth_dev_close(port: u16) -> c_int;
    /// The NUMA node of a port; -1 for any.
    pub fn rte_eth_dev_socket_id(port: u16) -> c_int;
    /// Takes what is addressed to others.
    pub fn rte_eth_promiscuous_enable(port: u16) -> c_int;
    /// Does not.
    pub fn rte_eth_promiscuous_disable(port: u16) -> c_int;
    /// Whether it does: 1, 0.
    pub fn rte_eth_promiscuous_get(port: u16) -> c_int;
    /// Takes what is addressed to groups.
    pub fn rte_eth_allmulticast_enable(port: u16) -> c_int;
    /// Frees what was sent; how many, at most `most`, 0 for all.
    pub fn rte_eth_tx_done_cleanup(port: u16, queue: u16, most: u32) -> c_int;
    /// What becomes readable when a queue has packets.
    pub fn rte_eth_dev_rx_intr_ctl_q_get_fd(port: u16, queue: u16) -> c_int;
    /// Lets a queue wake.
    pub fn rte_eth_dev_rx_intr_enable(port: u16, queue: u16) -> c_int;
    /// Does not.
    pub fn rte_eth_dev_rx_intr_disable(port: u16, queue: u16) -> c_int;
}

// The shim.
unsafe extern "C" {
    /// Name and number of this DPDK.
    pub fn onvm_dpdk_version() -> *const c_char;
    /// The number of the last error of this thread.
    pub fn onvm_dpdk_errno() -> c_int;
    /// Lets DPDK speak to standard error alone.
    pub fn onvm_dpdk_log_to_stderr() -> c_int;
    /// Receives up to `most` packets; how many.
    pub fn onvm_dpdk_rx_burst(port: u16, queue: u16, packets: *mut *mut Mbuf, most: u16) -> u16;
    /// Sends packets; how many of them, from the front.
    pub fn onvm_dpdk_tx_burst(port: u16, queue: u16, packets: *mut *mut Mbuf, n: u16) -> u16;
    /// State of an entry, so many behind the next to be used: 0 full, 1 done, 2 not to be used.
    pub fn onvm_dpdk_tx_descriptor_status(port: u16, queue: u16, offset: u16) -> c_int;
    /// Frees a packet with all its parts.
    pub fn onvm_dpdk_free(packet: *mut Mbuf);
    /// What a device can do.
    pub fn onvm_dpdk_facts(port: u16, facts: *mut Facts) -> c_int;
    /// Says what is wanted of it.
    pub fn onvm_dpdk_configure(port: u16, wish: *const Wish) -> c_int;
    /// What it counts.
    pub fn onvm_dpdk_counters(port: u16, counters: *mut Counters) -> c_int;
    /// 1 up, 0 down; speed in Mbit/s.
    pub fn onvm_dpdk_link(port: u16, speed: *mut u32) -> c_int;
}
