//! A balancer in plain memory, and packets for it.
#![allow(dead_code, reason = "each test uses some of it")]

use std::net::IpAddr;

use nf_loadbalancer::frame::PlainBurst;
use nf_loadbalancer::{Balancer, config};
use onvm_lib::prelude::{DropReason, Message, Verdict};
use onvm_lib::wire::build::Packet;
use onvm_lib::wire::tcp::Flags;
use onvm_lib::wire::{FlowKey, Headers, MacAddr};
use serde_json::Value;

pub(crate) const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
pub(crate) const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
pub(crate) const SECOND: u64 = 1_000_000_000;

/// The Ethernet address of backend `n`.
pub(crate) fn mac(n: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 1, n])
}

/// A balancer and a clock.
pub(crate) struct Site {
    pub(crate) balancer: Balancer,
    pub(crate) now_ns: u64,
}

/// A file with one service `web` at 192.0.2.1:80 (or 2001:db8::1) and backends `b1`… at 10.1.0.1… (or fd00::1…).
pub(crate) fn file(six: bool, backends: u8, service: &str) -> String {
    let own = if six { "fd00::ffff" } else { "10.1.0.254" };
    let vip = if six { "2001:db8::1" } else { "192.0.2.1" };
    let backend = |n: u8| {
        let address = if six { format!("'fd00::{n:x}'") } else { format!("10.1.0.{n}") };
        format!("      b{n}: {{address: {address}, mac: '{}'}}\n", mac(n))
    };
    let backends: String = (1..=backends).map(backend).collect();
    let service: String = service.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "mac: {OWN}\nlimits: {{connections: 10000}}\naddresses: ['{own}']\nports: {{clients: 0, backends: 1}}\nservices:\n  web:\n    address: '{vip}'\n    \
         port: 80\n{service}    backends:\n{backends}"
    )
}

pub(crate) fn config(text: &str) -> config::Config {
    let (config, report) = config::from_text(text, "test.yaml");
    config.unwrap_or_else(|| panic!("{report}\n{text}"))
}

impl Site {
    pub(crate) fn new(text: &str) -> Self {
        Self { balancer: Balancer::new(config(text)), now_ns: 1_700_000_000 * SECOND }
    }

    pub(crate) fn v4(backends: u8, service: &str) -> Self {
        Self::new(&file(false, backends, service))
    }

    /// Sends frames in one burst; what goes on.
    pub(crate) fn send_all(&mut self, frames: &[Vec<u8>], port: u8) -> Vec<(Verdict, Vec<u8>)> {
        let mut burst = PlainBurst::default();
        for frame in frames {
            burst.frames.extend(PlainBurst::one(frame, Some(port)).frames);
        }
        self.balancer.refresh(self.now_ns);
        self.balancer.burst(&mut burst, self.now_ns);
        burst.out()
    }

    /// Sends a frame; what goes on.
    pub(crate) fn send(&mut self, frame: &[u8]) -> Vec<(Verdict, Vec<u8>)> {
        self.send_all(&[frame.to_vec()], 0)
    }

    /// Sends a frame that must go on, as one; its bytes.
    pub(crate) fn pass(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut out = self.send(frame);
        assert_eq!(out.len(), 1, "{}", onvm_lib::wire::describe(frame));
        out.remove(0).1
    }

    /// Sends a frame that must be dropped; why it was.
    pub(crate) fn refuse(&mut self, frame: &[u8]) -> DropReason {
        let mut burst = PlainBurst::one(frame, Some(0));
        self.balancer.refresh(self.now_ns);
        self.balancer.burst(&mut burst, self.now_ns);
        match burst.frames[0].verdict {
            Verdict::Drop(reason) => reason,
            other => panic!("{other:?}: {}", onvm_lib::wire::describe(frame)),
        }
    }

    /// So many seconds pass, with their ticks; what was made meanwhile.
    pub(crate) fn pass_time(&mut self, seconds: u64) -> Vec<Vec<u8>> {
        let mut made = Vec::new();
        for _ in 0..seconds * 10 {
            self.now_ns += SECOND / 10;
            let mut burst = PlainBurst::default();
            self.balancer.tick(&mut burst, self.now_ns);
            made.extend(burst.out().into_iter().map(|(_, frame)| frame));
        }
        made
    }

    pub(crate) fn tell(&mut self, topic: &str, body: Value) {
        let message = Message { from: None, topic: topic.into(), body };
        assert!(self.balancer.command(&message, self.now_ns), "{topic}");
    }

    pub(crate) fn report(&self) -> Value {
        self.balancer.report().json
    }

    pub(crate) fn counts(&self) -> Value {
        self.report()["services"][0]["counts"].clone()
    }

    /// Open connections of each backend, in the order of the report.
    pub(crate) fn open(&self) -> Vec<u64> {
        let report = self.report();
        let backends = report["services"][0]["backends"].as_array().cloned().unwrap_or_default();
        backends.iter().map(|backend| backend["open"].as_u64().unwrap_or(0)).collect()
    }
}

/// A segment from client `n` to the service.
pub(crate) fn to_service(n: u32, flags: Flags) -> Vec<u8> {
    let [a, b, c, d] = n.to_be_bytes();
    let port = 20_000 + u16::from(d);
    Packet::ethernet(CLIENT, OWN)
        .ipv4([172, 16 | a, b, c].into(), [192, 0, 2, 1].into())
        .tcp(port, 80)
        .flags(flags)
        .payload(b"hello")
        .to_vec()
        .unwrap()
}

/// The answer to a packet as it came to the backend.
pub(crate) fn answer(frame: &[u8], flags: Flags) -> Vec<u8> {
    let headers = Headers::parse(frame);
    let key = headers.flow_key(frame);
    let ethernet = headers.ethernet(frame).unwrap();
    let packet = Packet::ethernet(ethernet.dst(), ethernet.src());
    let packet = match (key.dst().unwrap(), key.src().unwrap()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => packet.ipv4(from, to),
        (IpAddr::V6(from), IpAddr::V6(to)) => packet.ipv6(from, to),
        _ => unreachable!("both are of one version"),
    };
    let (from, to) = (key.dst_port(), key.src_port());
    let packet =
        if key.protocol() == Some(17) { packet.udp(from, to) } else { packet.tcp(from, to).flags(flags) };
    packet.payload(b"world").to_vec().unwrap()
}

pub(crate) fn key(frame: &[u8]) -> FlowKey {
    Headers::parse(frame).flow_key(frame)
}

/// All checksums of a frame that it has are right.
pub(crate) fn assert_sound(frame: &[u8]) {
    let headers = Headers::parse(frame);
    assert_eq!(headers.problem(), None, "{}", onvm_lib::wire::describe(frame));
    let sums = headers.verify_checksums(frame);
    assert!(sums.ip != Some(false) && sums.transport != Some(false), "{}", onvm_lib::wire::describe(frame));
}

/// Last byte of the destination address: the backend's number.
pub(crate) fn backend_of(frame: &[u8]) -> u8 {
    match key(frame).dst() {
        Some(IpAddr::V4(ip)) => ip.octets()[3],
        Some(IpAddr::V6(ip)) => ip.octets()[15],
        None => 0,
    }
}
