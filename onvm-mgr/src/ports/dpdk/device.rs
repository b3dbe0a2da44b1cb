//! One device of DPDK's, from its name to its end.
//!
//! ```text
//! probe ──▶ configured ──begin──▶ started ──end──▶ gone
//! ```
//! Until it is started nothing is received; a driver may ask for buffers from `begin` on.

use std::ffi::{CStr, CString, c_int};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use dpdk_sys::{Counters, Facts, Mbuf, Wish};
use onvm_lib::pool::Pool;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::buffers::Buffers;
use super::eal::{check, one_at_a_time, reason};

/// Packets that a driver is given, or gives, at once.
pub(super) const BURST: usize = 64;
/// Entries of a queue where the driver asks for nothing else.
const ENTRIES: u16 = 512;
/// How long packets on their way out are waited for at the end.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// The key by which both directions of a flow get one hash: all words are equal (Woo and Park, "Scalable TCP Session
/// Monitoring with Symmetric Receive-side Scaling", 2012).
const SYMMETRIC: [u8; 64] = {
    let mut key = [0x6d; 64];
    let mut at = 1;
    while at < key.len() {
        key[at] = 0x5a;
        at += 2;
    }
    key
};
/// Bytes of a key where the driver says nothing.
const KEY_BYTES: u8 = 40;

/// Drivers that make their packets of nothing or of files: they wait for whoever asks. All of these, and those of the
/// kernel's interfaces, treat memory that is not DPDK's as their own.
const DIRECT: [&str; 5] = ["net_null", "net_af_packet", "net_tap", "net_pcap", "net_ring"];
/// Drivers whose queues are there because the user asked for each: all must be served.
const ALL_QUEUES: [&str; 3] = ["net_af_packet", "net_pcap", "net_ring"];

/// What the user wants of a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) rx_queues: Option<u16>,
    pub(super) mtu: Option<u16>,
    pub(super) promiscuous: bool,
    pub(super) checksums: bool,
}

/// A device.
pub(super) struct Device {
    port: u16,
    facts: Facts,
    driver: String,
    rx_queues: u16,
    rx_entries: u16,
    tx_entries: u16,
    next_queue: u16,
    wanted: Wanted,
    pool: Pool,
    mapped: bool,
}

// SAFETY: the pointers of `facts` are names and handles of DPDK's, good on every thread.
unsafe impl Send for Device {}

impl Device {
    /// Loads the driver that a text like `net_tap0,iface=dtap0` or `0000:00:05.0` names, and configures the device.
    ///
    /// # Errors
    /// What DPDK says, in words for the user.
    pub(super) fn open(devargs: &str, wanted: Wanted, pool: &Pool) -> Result<(Self, Buffers), String> {
        let _turn = one_at_a_time();
        let name = devargs.split(',').next().unwrap_or_default();
        let [text, name] = [devargs, name].map(CString::new);
        let (text, name) = (text.map_err(|e| e.to_string())?, name.map_err(|e| e.to_string())?);
        let mut port = u16::MAX;
        // SAFETY: two strings that end with zeros, and room for a number.
        let (probed, found) = unsafe {
            let there = dpdk_sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &raw mut port) == 0;
            if there {
                return Err("another port of this manager has this device".into());
            }
            let probed = dpdk_sys::rte_dev_probe(text.as_ptr());
            (probed, dpdk_sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &raw mut port))
        };
        check("there is no such device, or its driver does not take it", probed)?;
        check("its driver made no network device of this name", found)?;
        let facts = facts(port)?;
        // SAFETY: a driver's name is static.
        let driver = unsafe { CStr::from_ptr(facts.driver) }.to_string_lossy().into_owned();
        let direct = DIRECT.contains(&driver.as_str());
        let mut device = Self {
            port,
            facts,
            rx_queues: 1,
            rx_entries: if facts.rx_ring == 0 { ENTRIES } else { facts.rx_ring },
            tx_entries: if facts.tx_ring == 0 { ENTRIES } else { facts.tx_ring },
            driver,
            next_queue: 0,
            wanted,
            pool: pool.clone(),
            mapped: false,
        };
        let buffers = device.configure().and_then(|()| Buffers::new(pool, direct));
        match buffers {
            Ok(buffers) => {
                device.map_memory()?;
                Ok((device, buffers))
            }
            Err(why) => {
                device.remove();
                Err(why)
            }
        }
    }

    fn configure(&mut self) -> Result<(), String> {
        let (facts, wanted) = (&self.facts, self.wanted);
        let asked = ALL_QUEUES.contains(&self.driver.as_str()).then_some(facts.max_rx_queues);
        self.rx_queues = wanted.rx_queues.or(asked).unwrap_or(1);
        if !(1..=facts.max_rx_queues).contains(&self.rx_queues) {
            return Err(format!("rxq={}: out of range 1..={}", self.rx_queues, facts.max_rx_queues));
        }
        let room = self.pool.geometry().packet_room();
        // Ethernet header and check sum.
        let of_frames = facts.max_rx_length.saturating_sub(18);
        let longest = room.saturating_sub(22).min(of_frames).min(facts.max_mtu.into());
        let longest = u16::try_from(longest).unwrap_or(u16::MAX);
        if let Some(mtu) = wanted.mtu
            && !(facts.min_mtu..=longest).contains(&mtu)
        {
            let why = "what the device can, and the manager's --mtu";
            return Err(format!("mtu={mtu}: out of range {}..={longest} ({why})", facts.min_mtu));
        }
        let key = if facts.rss_key_bytes == 0 { KEY_BYTES } else { facts.rss_key_bytes };
        let spreads = self.rx_queues > 1 && facts.rss_offloads != 0;
        if spreads && usize::from(key) > SYMMETRIC.len() {
            return Err(format!("it spreads packets by a key of {key} bytes, more than {}", SYMMETRIC.len()));
        }
        let wish = Wish {
            rss_key: SYMMETRIC.as_ptr(),
            mtu: wanted.mtu.unwrap_or(0),
            rx_checksum: facts.rx_checksum & u8::from(wanted.checksums),
            tx_fast_free: facts.tx_fast_free,
            rss_key_bytes: if spreads { key } else { 0 },
            rx_interrupts: u8::from(self.wakes()),
            // Some drivers want as many of either; only the first is sent by.
            ..Wish::new(self.rx_queues, self.rx_queues.min(facts.max_tx_queues).max(1))
        };
        // SAFETY: the shim reads the wish and its key, and DPDK copies both; the others are numbers and room for them.
        unsafe {
            let configured = dpdk_sys::onvm_dpdk_configure(self.port, &raw const wish);
            check("it cannot be configured", configured)?;
            let (rx, tx) = (&raw mut self.rx_entries, &raw mut self.tx_entries);
            let fitted = dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.port, rx, tx);
            check("its queues cannot be sized", fitted)?;
            let socket = self.socket();
            let none = std::ptr::null();
            for queue in 0..wish.tx_queues {
                let set_up =
                    dpdk_sys::rte_eth_tx_queue_setup(self.port, queue, self.tx_entries, socket, none);
                check("its queue for sending cannot be set up", set_up)?;
            }
        }
        if let Some(mtu) = wanted.mtu {
            // SAFETY: a number.
            check("its MTU cannot be set", unsafe { dpdk_sys::rte_eth_dev_set_mtu(self.port, mtu) })?;
        }
        Ok(())
    }

    /// Lets a card reach the pool. Drivers without a card have no need of it, and say so.
    fn map_memory(&mut self) -> Result<(), String> {
        let region = self.pool.region();
        let base = region.base().as_ptr();
        // SAFETY: the region is registered (`Buffers::new`) and stays mapped for ever.
        let mapped = unsafe {
            dpdk_sys::rte_dev_dma_map(self.facts.device, base.cast(), base.addr() as u64, region.len())
        };
        self.mapped = mapped == 0;
        if self.mapped || DIRECT.contains(&self.driver.as_str()) {
            return Ok(());
        }
        // SAFETY: reads a number of this thread's.
        let why = unsafe { dpdk_sys::onvm_dpdk_errno() };
        if why == libc::ENOTSUP || why == libc::EEXIST {
            return Ok(());
        }
        self.remove();
        Err(format!("it cannot reach the packet memory: {}", reason(why)))
    }

    fn socket(&self) -> u32 {
        // SAFETY: a number.
        let node = unsafe { dpdk_sys::rte_eth_dev_socket_id(self.port) };
        // -1, any, is the same number here.
        node.cast_unsigned()
    }

    /// Starts it: packets come in from now on. On the worker's thread.
    ///
    /// # Errors
    /// What DPDK says, in words for the user.
    pub(super) fn begin(&mut self, buffers: &Buffers) -> Result<(), String> {
        let _turn = one_at_a_time();
        for queue in 0..self.rx_queues {
            // SAFETY: the mempool lives until the device is gone (`end`).
            let set_up = unsafe {
                let (entries, socket) = (self.rx_entries, self.socket());
                let pool = buffers.mempool();
                dpdk_sys::rte_eth_rx_queue_setup(self.port, queue, entries, socket, std::ptr::null(), pool)
            };
            check("a queue for receiving cannot be set up", set_up)?;
        }
        // SAFETY: numbers.
        unsafe {
            check("it cannot be started", dpdk_sys::rte_eth_dev_start(self.port))?;
            let (what, set) = if self.wanted.promiscuous {
                ("promiscuous", dpdk_sys::rte_eth_promiscuous_enable(self.port))
            } else {
                ("not promiscuous", dpdk_sys::rte_eth_promiscuous_disable(self.port))
            };
            if set < 0 && set != -libc::ENOTSUP {
                log::warn!("{}: it cannot be made {what}: {}", self.driver, reason(set));
            }
            let groups = dpdk_sys::rte_eth_allmulticast_enable(self.port);
            if groups < 0 && groups != -libc::ENOTSUP {
                log::warn!("{}: it does not take all of multicast: {}", self.driver, reason(groups));
            }
        }
        Ok(())
    }

    /// Buffers that its queues may hold.
    pub(super) fn appetite(&self) -> usize {
        usize::from(self.rx_queues) * usize::from(self.rx_entries) + BURST
    }

    /// The driver's name.
    pub(super) fn driver(&self) -> &str {
        &self.driver
    }

    /// Queues that are received by.
    pub(super) fn rx_queues(&self) -> u16 {
        self.rx_queues
    }

    /// Whether a queue wakes a sleeper by a descriptor that needs no further care.
    fn wakes(&self) -> bool {
        self.driver == "net_tap" && self.rx_queues == 1
    }

    /// What becomes readable when packets come in.
    pub(super) fn readiness(&self) -> Option<BorrowedFd<'_>> {
        if !self.wakes() {
            return None;
        }
        // SAFETY: a number; what comes back is open until the device is closed, which ends this.
        unsafe {
            let fd = dpdk_sys::rte_eth_dev_rx_intr_ctl_q_get_fd(self.port, 0);
            (fd >= 0).then(|| BorrowedFd::borrow_raw(fd))
        }
    }

    /// Whether packets wait, as far as [`Device::readiness`] tells. A driver may come to know of them later than a sleeper: it
    /// is told by a signal.
    pub(super) fn has_packets(&self) -> bool {
        let Some(fd) = self.readiness() else { return false };
        let mut asked = [PollFd::new(&fd, PollFlags::IN)];
        poll(&mut asked, Some(&Timespec::default())).is_ok_and(|n| n > 0)
    }

    /// Receives up to `most` packets from the queues in turn.
    pub(super) fn receive(&mut self, mbufs: &mut [*mut Mbuf; BURST], most: usize) -> usize {
        let mut came = 0;
        for _ in 0..self.rx_queues {
            let room = u16::try_from(most.min(BURST) - came).unwrap_or(0);
            // SAFETY: there is room for so many behind `came`; the queue was set up.
            let n = unsafe {
                let to = mbufs.as_mut_ptr().add(came);
                dpdk_sys::onvm_dpdk_rx_burst(self.port, self.next_queue, to, room)
            };
            came += usize::from(n);
            self.next_queue = (self.next_queue + 1) % self.rx_queues;
            if came >= most.min(BURST) {
                break;
            }
        }
        came
    }

    /// Sends packets; how many of them, from the front.
    pub(super) fn send(&mut self, mbufs: &mut [*mut Mbuf]) -> usize {
        let n = u16::try_from(mbufs.len()).unwrap_or(u16::MAX);
        // SAFETY: so many whole mbufs, each of which has one packet that nobody else has.
        usize::from(unsafe { dpdk_sys::onvm_dpdk_tx_burst(self.port, 0, mbufs.as_mut_ptr(), n) })
    }

    /// The MTU that it has now.
    pub(super) fn mtu(&self) -> Option<u16> {
        let mut mtu = 0;
        // SAFETY: room for a number.
        let asked = unsafe { dpdk_sys::rte_eth_dev_get_mtu(self.port, &raw mut mtu) };
        (asked == 0 && mtu > 0).then_some(mtu)
    }

    /// What it has counted since its start.
    pub(super) fn counters(&self) -> Option<Counters> {
        let mut counters = Counters::default();
        // SAFETY: room for the counters.
        let asked = unsafe { dpdk_sys::onvm_dpdk_counters(self.port, &raw mut counters) };
        (asked == 0).then_some(counters)
    }

    /// Whether its link is up, and its speed in Mbit/s; none where the driver does not know.
    pub(super) fn link(&self) -> Option<(bool, u32)> {
        let mut speed = 0;
        // SAFETY: room for a number.
        let up = unsafe { dpdk_sys::onvm_dpdk_link(self.port, &raw mut speed) };
        (up >= 0).then_some((up == 1, speed))
    }

    /// The number of the kernel's interface that the driver has made or reads, if it is on one.
    pub(super) fn interface(&self) -> Option<u32> {
        Some(self.facts.interface).filter(|index| *index > 0)
    }

    /// Waits until what was sent is out, as far as the driver tells, and stops the device: all buffers come back.
    pub(super) fn end(&mut self) {
        let _turn = one_at_a_time();
        self.wait_for_the_last();
        // SAFETY: numbers; nobody receives or sends any more, since `self` is borrowed as a whole.
        let stopped = unsafe { dpdk_sys::rte_eth_dev_stop(self.port) };
        if stopped < 0 {
            log::warn!("{}: it does not stop: {}", self.driver, reason(stopped));
        }
        self.remove();
    }

    fn wait_for_the_last(&self) {
        const FULL: c_int = 0;
        let behind = self.tx_entries.saturating_sub(1);
        let until = Instant::now() + LAST_WORDS;
        // SAFETY: numbers. The entry behind the next one to be used is the one used last.
        while unsafe { dpdk_sys::onvm_dpdk_tx_descriptor_status(self.port, 0, behind) } == FULL
            && Instant::now() < until
        {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Closes the device and unloads its driver from it.
    fn remove(&mut self) {
        let region = self.pool.region();
        let base = region.base().as_ptr();
        // SAFETY: the device is stopped or was never started; its handle is the one that it was found with.
        unsafe {
            if std::mem::take(&mut self.mapped) {
                let iova = base.addr() as u64;
                dpdk_sys::rte_dev_dma_unmap(self.facts.device, base.cast(), iova, region.len());
            }
            let closed = dpdk_sys::rte_eth_dev_close(self.port);
            let removed = dpdk_sys::rte_dev_remove(self.facts.device);
            if closed < 0 || removed < 0 {
                log::debug!("{}: close {closed}, remove {removed}", self.driver);
            }
        }
    }
}

fn facts(port: u16) -> Result<Facts, String> {
    let mut facts = std::mem::MaybeUninit::<Facts>::zeroed();
    // SAFETY: room for the facts, of which zeros are valid ones.
    unsafe {
        check("it says nothing of itself", dpdk_sys::onvm_dpdk_facts(port, facts.as_mut_ptr()))?;
        Ok(facts.assume_init())
    }
}
