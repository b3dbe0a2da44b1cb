//! Messages on their way over UDP: at a pace that a collector's socket can hold.

use std::collections::VecDeque;
use std::net::{ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use super::BURST;
use crate::records::{Chunk, Tally};

/// Messages that wait at most.
const QUEUE: usize = 4096;
/// How long a live monitor that ends waits for the rest to leave.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// A socket and what waits for it.
#[derive(Debug)]
pub(super) struct Paced {
    socket: UdpSocket,
    queue: VecDeque<Chunk>,
    /// Time for a message; zero: no pace.
    interval: Duration,
    /// When the next message would leave if they left one by one.
    due: Instant,
    patient: bool,
    /// What the system said last.
    error: Option<String>,
}

impl Paced {
    /// A socket to a collector.
    ///
    /// # Errors
    /// The collector has no address, or no socket can be had for it.
    pub(super) fn connect(host: &str, rate: u32, patient: bool) -> Result<Self, String> {
        let address = host.to_socket_addrs().map_err(|error| format!("{host}: {error}"))?.next();
        let address = address.ok_or_else(|| format!("{host} has no address"))?;
        let any = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any)
            .and_then(|socket| socket.connect(address).map(|()| socket))
            .and_then(|socket| socket.set_nonblocking(!patient).map(|()| socket))
            .map_err(|error| format!("cannot send to {host}: {error}"))?;
        let interval = Duration::from_secs(1).checked_div(rate).unwrap_or_default();
        let queue = VecDeque::new();
        Ok(Self { socket, queue, interval, due: Instant::now(), patient, error: None })
    }

    /// Sends a message, if its time has come; else it waits.
    pub(super) fn send(&mut self, message: Chunk, tally: &mut Tally) {
        if self.queue.len() >= QUEUE {
            tally.lost += u64::from(message.records);
            return;
        }
        self.queue.push_back(message);
        self.poll(tally);
        if self.patient {
            self.drain(tally);
        }
    }

    /// Sends what may go by now.
    pub(super) fn poll(&mut self, tally: &mut Tally) {
        if self.queue.is_empty() {
            return;
        }
        let now = Instant::now();
        // Time that was not used counts for a burst, and no more.
        let earliest = now.checked_sub(self.interval * BURST).unwrap_or(now);
        self.due = self.due.max(earliest);
        while self.due <= now
            && let Some(message) = self.queue.pop_front()
        {
            self.due += self.interval;
            self.write(&message, tally);
        }
    }

    fn write(&mut self, message: &Chunk, tally: &mut Tally) {
        // A collector that was not there when an earlier message came makes the next call fail: that message is
        // still to be sent.
        let refused = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
        let mut sent = self.socket.send(&message.bytes);
        if sent.as_ref().is_err_and(refused) {
            tally.unheard += 1;
            sent = self.socket.send(&message.bytes);
        }
        match sent {
            Ok(_) => tally.add(message.totals, message.records),
            Err(error) => {
                tally.lost += u64::from(message.records);
                let error = error.to_string();
                if self.error.as_ref() != Some(&error) {
                    log::error!("a message of flow records cannot be sent: {error}");
                    self.error = Some(error);
                }
            }
        }
    }

    /// Waits until all are sent; a live monitor not for long.
    pub(super) fn drain(&mut self, tally: &mut Tally) {
        let end = Instant::now() + LAST_WAIT;
        while !self.queue.is_empty() && (self.patient || Instant::now() < end) {
            std::thread::sleep(self.due.saturating_duration_since(Instant::now()).min(LAST_WAIT));
            self.poll(tally);
        }
        tally.lost += self.queue.drain(..).map(|message| u64::from(message.records)).sum::<u64>();
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.error.clone()
    }
}
