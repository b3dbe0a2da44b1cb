//! Ports: where packets enter and leave.
//!
//! A port works in bursts on buffers of the manager's pool. It takes buffers from the books to receive into,
//! and gives them back when it has sent; at the end it gives back whatever it still has. It knows nothing of
//! routing, and the worker knows nothing of any port but this trait.

mod afpacket;
#[cfg(feature = "dpdk")]
mod dpdk;
mod generator;
mod half_done;
mod intake;
mod none;
mod null;
mod offload;
mod pcap;
mod rate;
mod sctp;
mod spec;
mod tap;
#[cfg(test)]
mod tests;
mod vxlan;
mod wrap;
mod xdp;

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use onvm_lib::pool::{Books, Packet, Pool};

pub(crate) use none::NONE;
pub(crate) use spec::{Spec, SpecError};
pub(crate) use wrap::{Account, Capture, HopNames, Rest};

/// Counters of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct PortCounters {
    /// Packets received; those that were refused or found no buffer are counted apart.
    pub(crate) rx_packets: u64,
    /// Bytes received.
    pub(crate) rx_bytes: u64,
    /// Packets sent.
    pub(crate) tx_packets: u64,
    /// Bytes sent.
    pub(crate) tx_bytes: u64,
    /// Packets received that did not become packets here: too long for a buffer, or of no Ethernet.
    pub(crate) rx_refused: u64,
    /// Packets that came when the pool was exhausted.
    pub(crate) rx_no_buffer: u64,
    /// Packets that could not be sent.
    pub(crate) tx_failed: u64,
    /// Packets that the interface had no room for before they came here; they are in no other count.
    pub(crate) rx_missed: u64,
    /// What came to a tunnel and belongs to another, or is none; in no other count.
    pub(crate) rx_foreign: u64,
    /// Packets that the interface found broken; they are in no other count.
    pub(crate) rx_errors: u64,
    /// Errors that the interface counted in sending: of packets that it had taken, and of tries, of which a packet may have
    /// had several.
    pub(crate) tx_errors: u64,
    /// Packets whose checksum the interface found wrong; they are passed on, and counted, as all others.
    pub(crate) rx_bad_checksum: u64,
}

/// What is known of the wire at a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Link {
    /// Whether frames can come and go.
    pub(crate) up: Option<bool>,
    /// Megabits a second.
    pub(crate) mbps: Option<u32>,
    /// Bytes of the longest IP packet.
    pub(crate) mtu: Option<u32>,
}

/// What an attempt to receive found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reception {
    /// Packets, or none just now.
    Ready,
    /// Nothing before this moment.
    NotBefore(Instant),
    /// Nothing ever again.
    Finished,
}

/// An outside interface.
pub(crate) trait Port: Send {
    /// As the user named it.
    fn name(&self) -> &str;

    /// How it works, for kinds that find that out when they are opened: `native, copy`.
    fn manner(&self) -> Option<&str> {
        None
    }

    /// Whether there is no port: an empty number.
    fn is_absent(&self) -> bool {
        false
    }

    /// Whether it will end by itself, so that the manager can end with it.
    fn is_finite(&self) -> bool {
        false
    }

    /// Whether packets wait at the source when nobody asks for them: then the worker asks only when there is
    /// room ahead, and nothing is lost.
    fn waits(&self) -> bool;

    /// Receives up to `max` packets into fresh buffers and appends them to `burst`, with flow hash, note and
    /// length set.
    fn receive(&mut self, books: &mut Books, burst: &mut Vec<Packet>, max: usize) -> Reception;

    /// Sends packets in order and frees their buffers. Leaves in `burst` only what it could not send.
    fn send(&mut self, books: &mut Books, burst: &mut Vec<Packet>);

    /// Whether all that is sent to it goes nowhere. The worker may then free the buffers itself, and only say how many
    /// packets it would have sent, by [`Port::discarded`].
    fn discards(&self) -> bool {
        false
    }

    /// The worker has freed packets that were to be sent: so many, of so many bytes.
    fn discarded(&mut self, _packets: u64, _bytes: u64) {}

    /// What becomes readable when packets come in, for ports that can sleep until then.
    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Whether packets are there to be received, for ports that have a [`Port::readiness`].
    fn is_ready(&self) -> bool {
        false
    }

    /// Buffers that the port has now: received too early, or on their way out.
    fn holds(&self) -> usize {
        0
    }

    /// Of those, packets that it was given to be sent and has not sent: they are still inside.
    fn holds_out(&self) -> usize {
        0
    }

    /// Whether it keeps an account of its own of what it has done to packets, which the worker has to ask for by [`Port::settle`]
    /// after each burst, and then believes in place of its own figures. Such a port is also asked to send when there is
    /// nothing to be sent, for it may have something of its own that is due.
    fn settles(&self) -> bool {
        false
    }

    /// What it has done to packets since it was asked last.
    fn settle(&mut self) -> Account {
        Account::default()
    }

    /// The file in which people read what passes, if there is one: the worker knows where packets go, and enters what comes in.
    fn capture(&mut self) -> Option<&mut Capture> {
        None
    }

    /// When a packet that it holds back is due, in whichever direction the worker would take it.
    fn due(&self, _receiving: bool) -> Option<Instant> {
        None
    }

    /// How its link is, where it has one. Asked now and then, by people.
    fn link(&self) -> Link {
        Link::default()
    }

    /// Counters that not every port has, by name.
    fn extras(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// The time begins to run: called once, when the services that were waited for are there.
    fn start(&mut self) {}

    /// Writes out what is buffered, if `since` the last time long enough has passed.
    fn idle(&mut self) {}

    /// The last call: gives back every buffer and writes out everything. The error is for the user, and names the port's file.
    ///
    /// # Errors
    /// Whatever kept the port from sending, or receiving, all.
    fn close(&mut self, books: &mut Books) -> Result<(), PortError>;

    /// Counters.
    fn counters(&self) -> PortCounters;

    /// An error that has happened and that the user must know of now; each is told once.
    fn take_error(&mut self) -> Option<PortError> {
        None
    }
}

/// What went wrong at a port.
#[derive(Debug)]
pub(crate) enum PortError {
    /// In a capture file.
    Capture(onvm_lib::capture::Error),
    /// In the port's options.
    Spec(SpecError),
    /// At an interface of the kernel's.
    Interface { text: String, what: String },
}

impl std::fmt::Display for PortError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Capture(error) => write!(f, "{error}"),
            Self::Spec(error) => write!(f, "{error}"),
            Self::Interface { text, what } => write!(f, "port {text:?}: {what}"),
        }
    }
}

impl std::error::Error for PortError {}

impl From<onvm_lib::capture::Error> for PortError {
    fn from(error: onvm_lib::capture::Error) -> Self {
        Self::Capture(error)
    }
}

impl From<SpecError> for PortError {
    fn from(error: SpecError) -> Self {
        Self::Spec(error)
    }
}

/// How often a port writes out what it has buffered.
const FLUSH_INTERVAL: Duration = Duration::from_millis(200);

/// Opens a port, which has its packets in this pool, with what its options want around it.
///
/// # Errors
/// [`PortError`], in words for the user.
pub(crate) fn open(spec: &Spec, pool: &Pool) -> Result<Box<dyn Port>, PortError> {
    // Before the port, which may empty a file.
    let wrapping = wrap::Wrapping::of(spec)?;
    let port = open_bare(spec, pool)?;
    Ok(match wrapping {
        Some(wrapping) => wrapping.around(spec, port)?,
        None => port,
    })
}

/// What stands where there is no port.
pub(crate) fn absent() -> Box<dyn Port> {
    Box::new(none::NoPort)
}

fn open_bare(spec: &Spec, pool: &Pool) -> Result<Box<dyn Port>, PortError> {
    Ok(match spec.kind() {
        "pcap" => Box::new(pcap::PcapPort::open(spec)?),
        "gen" => Box::new(generator::Generator::open(spec)?),
        "afpacket" => Box::new(afpacket::AfPacketPort::open(spec)?),
        "tap" => Box::new(tap::TapPort::open(spec)?),
        "xdp" => Box::new(xdp::XdpPort::open(spec, pool)?),
        "vxlan" => Box::new(vxlan::VxlanPort::open(spec, pool)?),
        "dpdk" => open_dpdk(spec, pool)?,
        "null" => Box::new(null::NullPort::open(spec)?),
        "none" => absent(),
        _ => return Err(spec.unknown_kind().into()),
    })
}

#[cfg(feature = "dpdk")]
fn open_dpdk(spec: &Spec, pool: &Pool) -> Result<Box<dyn Port>, PortError> {
    Ok(Box::new(dpdk::DpdkPort::open(spec, pool)?))
}

#[cfg(not(feature = "dpdk"))]
fn open_dpdk(spec: &Spec, _: &Pool) -> Result<Box<dyn Port>, PortError> {
    let want = "this manager was built without DPDK; with libdpdk-dev installed, \
        cargo build --release -p onvm-mgr --features dpdk builds one that has it";
    Err(spec.missing(want).into())
}
