//! `tap:INTERFACE`: an interface of this host whose other end is the manager.
//!
//! What the host's own programs send by the interface comes in here, and what is sent here they receive. The interface is
//! made, and goes with the manager; one that is there already (`ip tuntap add`) is attached to, and stays. `ip=` gives it an
//! address, `mtu=` an MTU, and it is brought up. Needs `CAP_NET_ADMIN`, or an interface that belongs to the user.
//!
//! The kernel hands over frames as its TCP made them; what a card would have done on them is done here (`offload`).

mod device;

use std::io::Error;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use onvm_lib::pool::{Books, Packet};
use rustix::io::Errno;

use super::intake::{Came, Intake};
use super::rate::now_ns;
use super::{Port, PortCounters, PortError, Reception, Spec};
use device::{Device, LONGEST_NAME};

/// Smallest and largest MTU that a TAP device takes.
const MTUS: std::ops::RangeInclusive<u64> = 68..=65_521;

/// Frames that may have come before the port is opened: more than the kernel queues for it.
const MOST_EARLY: usize = 1 << 16;
/// How often it is tried to make an interface that somebody has deleted.
const AGAIN: Duration = Duration::from_millis(100);

/// What the interface shall be.
struct Settings {
    text: String,
    interface: String,
    address: Option<IpNet>,
    mtu: Option<u32>,
}

impl Settings {
    /// Makes the interface, or attaches to it.
    fn device(&self) -> Result<Device, PortError> {
        let failed = |what: &str, error: &Error| PortError::Interface {
            text: self.text.clone(),
            what: format!("{what}: {}", why(error)),
        };
        let device = Device::open(&self.interface).map_err(|e| failed("cannot be opened", &e))?;
        if let Some(mtu) = self.mtu {
            device.set_mtu(mtu).map_err(|e| failed("its MTU cannot be set", &e))?;
        }
        if let Some(address) = self.address {
            device.set_address(address).map_err(|e| failed("its address cannot be set", &e))?;
        }
        if let Err(error) = device.bring_up() {
            // One that belongs to an unprivileged user may have been brought up by root.
            log::warn!("{}", failed("it cannot be brought up", &error));
        }
        Ok(device)
    }
}

/// A port whose other end is the kernel's stack.
pub(super) struct TapPort {
    name: String,
    settings: Settings,
    /// None while there is none: somebody has deleted it.
    device: Option<Device>,
    intake: Intake,
    buffer: Vec<u8>,
    /// There may be more frames: the last look ended before there were none.
    more: bool,
    counters: PortCounters,
    /// What the user was told went wrong since a frame was sent.
    told: Vec<Errno>,
    last_try: Instant,
}

impl TapPort {
    pub(super) fn open(spec: &Spec) -> Result<Self, PortError> {
        let Some(interface) = spec.get("interface") else {
            return Err(spec.missing("the name of an interface is needed, as in tap:onvm0").into());
        };
        let sound = |c: char| !c.is_whitespace() && !c.is_control() && !"/%:".contains(c);
        let sound = interface.chars().all(sound) && !matches!(interface, "." | "..");
        if interface.len() > LONGEST_NAME || !sound {
            let want = format!("a name has at most {LONGEST_NAME} bytes, without blanks, /, % and :");
            return Err(spec.bad("interface", want).into());
        }
        let address = spec.get("ip").map(str::parse::<IpNet>).transpose();
        let address = address.map_err(|_| spec.bad("ip", "an address like 10.9.0.1/24 is needed"))?;
        let mtu = spec.number("mtu")?;
        if mtu.is_some_and(|mtu| !MTUS.contains(&mtu)) {
            return Err(spec.bad("mtu", format!("out of range {}..={}", MTUS.start(), MTUS.end())).into());
        }
        let mtu = mtu.and_then(|mtu| u32::try_from(mtu).ok());
        let settings =
            Settings { text: spec.text().to_string(), interface: interface.to_string(), address, mtu };
        let device = settings.device()?;
        Ok(Self {
            name: spec.text().to_string(),
            settings,
            device: Some(device),
            intake: Intake::default(),
            buffer: Device::buffer(),
            more: true,
            counters: PortCounters::default(),
            told: Vec::new(),
            last_try: Instant::now(),
        })
    }

    fn tell(&mut self, error: Errno) {
        if !self.told.contains(&error) {
            self.told.push(error);
            let why = match error {
                Errno::INVAL => "it is too short for one".into(),
                error => why(&error.into()),
            };
            log::warn!("port {:?}: a frame cannot be sent: {why}", self.name);
        }
    }
}

/// In words for the user.
fn why(error: &Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => {
            "CAP_NET_ADMIN is needed: run as root, or make the interface for this user".into()
        }
        Some(libc::EBUSY) => "another program has it".into(),
        Some(libc::EINVAL) => "there is an interface of this name that is no TAP device for one queue".into(),
        Some(libc::ENOENT) => "/dev/net/tun is missing".into(),
        Some(libc::EIO) => "the interface is down".into(),
        _ => error.to_string(),
    }
}

impl Port for TapPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn waits(&self) -> bool {
        false
    }

    fn receive(&mut self, books: &mut Books, burst: &mut Vec<Packet>, max: usize) -> Reception {
        self.intake.fill(burst, max);
        self.more = true;
        let timestamp_ns = now_ns();
        // Frames that make no packet are looked at as well: there are other ports.
        for _ in 0..max {
            if burst.len() >= max {
                break;
            }
            let read = self.device.as_ref().map(|device| device.read(&mut self.buffer));
            match read {
                Some(Ok((offload, bytes))) => {
                    let came = Came { bytes, offload, tag: None, timestamp_ns };
                    self.intake.take(books, burst, max, came, &mut self.counters);
                }
                Some(Err(Errno::INTR)) => {}
                Some(Err(Errno::AGAIN | Errno::IO)) => {
                    self.more = false;
                    break;
                }
                Some(Err(error)) => {
                    log::warn!("port {:?}: the interface is gone ({error}); it is made again", self.name);
                    self.device = None;
                }
                None => {
                    self.more = false;
                    return Reception::NotBefore(Instant::now() + AGAIN);
                }
            }
        }
        Reception::Ready
    }

    fn idle(&mut self) {
        if self.device.is_none() && self.last_try.elapsed() >= AGAIN {
            self.last_try = Instant::now();
            match self.settings.device() {
                Ok(device) => {
                    log::info!("port {:?}: the interface is there again", self.name);
                    (self.device, self.more) = (Some(device), true);
                    self.told.clear();
                }
                Err(error) => log::debug!("{error}"),
            }
        }
    }

    /// What came before the ports were open is not for the chain.
    fn start(&mut self) {
        let Some(device) = &self.device else { return };
        let mut early = (0..MOST_EARLY).map(|_| device.read(&mut self.buffer).is_ok());
        let _ = early.all(|more| more);
    }

    fn send(&mut self, books: &mut Books, burst: &mut Vec<Packet>) {
        let mut failed = Vec::new();
        for packet in burst.drain(..) {
            let written = match &self.device {
                Some(device) => device.write(packet.bytes(books.pool())),
                None => Err(Errno::NODEV),
            };
            match written {
                Ok(()) => {
                    self.told.clear();
                    self.counters.tx_packets += 1;
                    self.counters.tx_bytes += u64::from(packet.descriptor().length());
                    books.free(packet);
                }
                Err(error) => {
                    self.tell(error);
                    self.counters.tx_failed += 1;
                    failed.push(packet);
                }
            }
        }
        *burst = failed;
    }

    fn holds(&self) -> usize {
        self.intake.len()
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.device.as_ref().map(AsFd::as_fd)
    }

    fn is_ready(&self) -> bool {
        self.more
    }

    fn close(&mut self, books: &mut Books) -> Result<(), PortError> {
        self.intake.close(books);
        Ok(())
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}
