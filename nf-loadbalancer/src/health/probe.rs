//! One question to one backend, over a socket that does not block.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Instant;

use onvm_lib::wire::checksum;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, ipproto, recv, send, socket_with,
    sockopt,
};

use super::Target;
use crate::config::Probe;

/// Most bytes of an answer that are looked at.
const LONGEST_ANSWER: usize = 64 * 1024;
/// How what an echo carries begins; a number that nobody can guess follows, by which the answer is known.
const PAYLOAD: &[u8; 16] = b"nf-loadbalancer?";

/// How far a question is.
#[derive(Debug)]
pub(super) enum Progress {
    Waiting,
    /// Good, or bad; in words.
    Done(Result<String, String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Writing,
    Reading,
}

/// A question that was asked.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) socket: OwnedFd,
    pub(super) deadline: Instant,
    phase: Phase,
    to_write: Vec<u8>,
    /// What an echo carries.
    asked: Vec<u8>,
    read: Vec<u8>,
}

/// A socket for ICMP echoes: one of the kernel's ping sockets, which need no privilege but the group's
/// (`net.ipv4.ping_group_range`), else a raw one, for which `CAP_NET_RAW` is needed.
pub(super) fn ping_socket(address: IpAddr) -> Result<OwnedFd, Errno> {
    let protocol = if address.is_ipv4() { ipproto::ICMP } else { ipproto::ICMPV6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let open = |kind| socket_with(family(address), kind, flags, Some(protocol));
    open(SocketType::DGRAM).or_else(|refused| open(SocketType::RAW).map_err(|_| refused))
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

impl Asked {
    /// Asks. An error is a bad answer.
    pub(super) fn new(target: &Target, now: Instant) -> Result<Self, String> {
        let words = |error: Errno| format!("cannot ask: {error}");
        let icmp = target.health.probe == Probe::Icmp;
        let socket = if icmp {
            ping_socket(target.address)
        } else {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            socket_with(family(target.address), SocketType::STREAM, flags, None)
        }
        .map_err(words)?;
        let to = SocketAddr::new(target.address, if icmp { 0 } else { target.port });
        match connect(&socket, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.to_string()),
        }
        let to_write = match &target.health.probe {
            Probe::Tcp => Vec::new(),
            Probe::Icmp => echo(target.address.is_ipv4()),
            Probe::Http { path, host, .. } => {
                let named = host.clone().unwrap_or_else(|| match target.address {
                    IpAddr::V4(ip) => format!("{ip}:{}", target.port),
                    IpAddr::V6(ip) => format!("[{ip}]:{}", target.port),
                });
                let agent = "User-Agent: nf-loadbalancer";
                format!("GET {path} HTTP/1.1\r\nHost: {named}\r\n{agent}\r\nConnection: close\r\n\r\n")
                    .into_bytes()
            }
        };
        let phase = if icmp { Phase::Writing } else { Phase::Connecting };
        let asked = if icmp { to_write.get(8..).unwrap_or_default().to_vec() } else { Vec::new() };
        Ok(Self { socket, deadline: now + target.health.timeout, phase, to_write, asked, read: Vec::new() })
    }

    /// Whether it waits until it can write.
    pub(super) fn is_writing(&self) -> bool {
        self.phase != Phase::Reading
    }

    /// Does what can be done without waiting.
    pub(super) fn go_on(&mut self, probe: &Probe) -> Progress {
        let bad = |error: Errno| Progress::Done(Err(error.to_string()));
        if self.phase == Phase::Connecting {
            match self.connected() {
                Ok(true) if *probe == Probe::Tcp => return Progress::Done(Ok("connected".into())),
                Ok(true) => self.phase = Phase::Writing,
                Ok(false) => return Progress::Waiting,
                Err(error) => return bad(error),
            }
        }
        if self.phase == Phase::Writing {
            match send(&self.socket, &self.to_write, SendFlags::NOSIGNAL) {
                Ok(written) => drop(self.to_write.drain(..written)),
                Err(Errno::AGAIN) => return Progress::Waiting,
                Err(error) => return bad(error),
            }
            if !self.to_write.is_empty() {
                return Progress::Waiting;
            }
            self.phase = Phase::Reading;
        }
        self.read_on(probe)
    }

    /// Whether the connection stands.
    fn connected(&self) -> Result<bool, Errno> {
        sockopt::socket_error(&self.socket)??;
        match rustix::net::getpeername(&self.socket) {
            Ok(Some(_)) => Ok(true),
            Ok(None) | Err(Errno::NOTCONN) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn read_on(&mut self, probe: &Probe) -> Progress {
        let mut buffer = [0; 4096];
        loop {
            let (_, count) = match recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok(read) => read,
                Err(Errno::AGAIN) => return Progress::Waiting,
                Err(error) => return Progress::Done(Err(error.to_string())),
            };
            if *probe == Probe::Icmp {
                if is_reply(&buffer[..count], &self.asked) {
                    return Progress::Done(Ok("answered".into()));
                }
                continue;
            }
            self.read.extend_from_slice(&buffer[..count]);
            let end = count == 0 || self.read.len() >= LONGEST_ANSWER;
            if let Some(outcome) = judge(&self.read, probe, end) {
                return Progress::Done(outcome);
            }
        }
    }
}

/// Whether this is the reply to an echo that carries `asked`. Raw sockets show all of a host's messages, those of IPv4 with
/// their IP header.
fn is_reply(message: &[u8], asked: &[u8]) -> bool {
    let header = match message.first() {
        Some(first) if first >> 4 == 4 => usize::from(first & 0xf) * 4,
        _ => 0,
    };
    // Echo replies, of ICMP and ICMPv6; no kind of message begins like an IPv4 header (0x40 to 0x4f are unassigned).
    let reply = message.get(header).is_some_and(|kind| matches!(kind, 0 | 129));
    reply && message.ends_with(asked)
}

/// What an HTTP answer says, as far as it has come; none if it can still go either way.
pub(super) fn judge(answer: &[u8], probe: &Probe, end: bool) -> Option<Result<String, String>> {
    let Probe::Http { status: wanted, body, .. } = probe else { return Some(Err("no question".into())) };
    let Some(line) = answer.windows(2).position(|pair| pair == b"\r\n").map(|at| &answer[..at]) else {
        // A first line is short.
        return (end || answer.len() > 1024).then(|| Err("no status line".into()));
    };
    let line = String::from_utf8_lossy(line);
    let code = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse::<u16>().ok());
    let Some(code) = code else {
        return Some(Err(format!("{:?} is no status line", line.chars().take(60).collect::<String>())));
    };
    if !wanted.iter().any(|range| range.contains(&code)) {
        return Some(Err(format!("status {code}")));
    }
    let Some(wanted) = body else { return Some(Ok(format!("status {code}"))) };
    let content = answer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| &answer[at + 4..]);
    if content.is_some_and(|content| contains(content, wanted.as_bytes())) {
        return Some(Ok(format!("status {code}, body as wanted")));
    }
    end.then(|| Err(format!("status {code}, but the body lacks {wanted:?}")))
}

fn contains(content: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || content.windows(wanted.len()).any(|window| window == wanted)
}

/// An ICMP or ICMPv6 echo request; the kernel fills in the identifier of a ping socket, and over IPv6 the checksum.
fn echo(v4: bool) -> Vec<u8> {
    let mut number = [0; 8];
    // Without chance an answer may be taken for another one's, of the same backend.
    let _ = rustix::rand::getrandom(&mut number, rustix::rand::GetRandomFlags::NONBLOCK);
    let mut message = vec![if v4 { 8 } else { 128 }, 0, 0, 0, number[0], number[1], 0, 1];
    message.extend_from_slice(PAYLOAD);
    message.extend_from_slice(&number);
    let sum = checksum::internet(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}
