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

use ipnet::IpNet;
use onvm_lib::pool::{Books, Packet};
use rustix::io::Errno;

use super::intake::{Came, Intake};
use super::rate::now_ns;
use super::{Link, Port, PortCounters, PortError, Reception, Spec};
use device::{Device, LONGEST_NAME};

/// Smallest and largest MTU that a TAP device takes.
const MTUS: std::ops::RangeInclusive<u64> = 68..=65_521;

/// A port whose other end is the kernel's stack.
pub(super) struct TapPort {
    name: String,
    interface: String,
    device: Device,
    intake: Intake,
    buffer: Vec<u8>,
    /// There may be more frames: the last look ended before there were none.
    more: bool,
    counters: PortCounters,
    /// The last thing that the user was told went wrong.
    told: Option<Errno>,
}

impl TapPort {
    pub(super) fn open(spec: &Spec) -> Result<Self, PortError> {
        let Some(interface) = spec.get("interface") else {
            return Err(spec.missing("the name of an interface is needed, as in tap:onvm0").into());
        };
        let sound = |c: char| !c.is_whitespace() && !c.is_control() && c != '/' && c != '%';
        if interface.len() > LONGEST_NAME || !interface.chars().all(sound) {
            let want = format!("a name has at most {LONGEST_NAME} bytes, without blanks, / and %");
            return Err(spec.bad("interface", want).into());
        }
        let address = spec.get("ip").map(str::parse::<IpNet>).transpose();
        let address = address.map_err(|_| spec.bad("ip", "an address like 10.9.0.1/24 is needed"))?;
        let mtu = spec.number("mtu")?;
        if mtu.is_some_and(|mtu| !MTUS.contains(&mtu)) {
            return Err(spec.bad("mtu", format!("out of range {}..={}", MTUS.start(), MTUS.end())).into());
        }
        let failed = |what: &str, error: &Error| PortError::Interface {
            text: spec.text().to_string(),
            what: format!("{what}: {}", why(error)),
        };
        let device = Device::open(interface).map_err(|e| failed("cannot be opened", &e))?;
        if let Some(mtu) = mtu.and_then(|mtu| u32::try_from(mtu).ok()) {
            device.set_mtu(mtu).map_err(|e| failed("its MTU cannot be set", &e))?;
        }
        if let Some(address) = address {
            device.set_address(address).map_err(|e| failed("its address cannot be set", &e))?;
        }
        if let Err(error) = device.bring_up() {
            // One that belongs to an unprivileged user may have been brought up by root.
            log::warn!("{}", failed("it cannot be brought up", &error));
        }
        Ok(Self {
            name: spec.text().to_string(),
            interface: interface.to_string(),
            device,
            intake: Intake::default(),
            buffer: Device::buffer(),
            more: true,
            counters: PortCounters::default(),
            told: None,
        })
    }

    fn tell(&mut self, error: Errno) {
        if self.told != Some(error) {
            self.told = Some(error);
            log::warn!("port {:?}: a frame cannot be sent: {}", self.name, why(&error.into()));
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
        while burst.len() < max {
            match self.device.read(&mut self.buffer) {
                Ok((offload, bytes)) => {
                    let came = Came { bytes, offload, tag: None, timestamp_ns };
                    self.intake.take(books, burst, max, came, &mut self.counters);
                }
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.more = false;
                    break;
                }
            }
        }
        Reception::Ready
    }

    fn send(&mut self, books: &mut Books, burst: &mut Vec<Packet>) {
        let mut failed = Vec::new();
        for packet in burst.drain(..) {
            match self.device.write(packet.bytes(books.pool())) {
                Ok(()) => {
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
        Some(self.device.as_fd())
    }

    fn is_ready(&self) -> bool {
        self.more
    }

    fn close(&mut self, books: &mut Books) -> Result<(), PortError> {
        self.intake.close(books);
        Ok(())
    }

    fn link(&self) -> Link {
        super::afpacket::link(&self.interface)
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}
