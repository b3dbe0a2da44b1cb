//! `gen:`: makes valid UDP packets, as many, as large and as fast as told; what is sent to it goes nowhere.
//!
//! `size=64` bytes of the frame without its checksum (42..=the buffer), or `imix=1` for the simple IMIX mix of
//! 64, 594 and 1518 bytes in the ratio 7:4:1; `flows=N` different 5-tuples in turn; `rate=` as of
//! every port (`rate`), by which they are made; `count=N`.
//! `sequence=1` writes the packet's number, counted from 0, into its last eight bytes, most significant first; these packets
//! have no UDP checksum.

use std::time::Instant;

use onvm_lib::pool::{Books, Packet};
use onvm_lib::wire;

use super::rate::{Pace, Rate, Tick, now_ns};
use super::{Port, PortCounters, PortError, Reception, Spec, SpecError};

/// Sizes of the simple IMIX, each as often as it stands here.
const IMIX: [usize; 12] = [64, 594, 64, 64, 594, 64, 1518, 64, 594, 64, 594, 64];
/// Ethernet, IPv4 and UDP headers.
const HEADERS: usize = 42;
/// Bytes of the number that a packet may carry at its end.
const NUMBER: usize = 8;
/// Most templates that are kept: more would only miss the cache.
const MAX_FLOWS: u64 = 1 << 20;

/// A packet to be copied, with its hash.
struct Template {
    bytes: Box<[u8]>,
    hash: u32,
}

impl Template {
    #[inline(always)]
    fn frame(&self) -> (&[u8], u32) {
        (&self.bytes, self.hash)
    }
}

pub(super) struct Generator {
    name: String,
    /// There is at least one.
    templates: Vec<Template>,
    /// Bytes of the longest of them.
    longest: usize,
    next: usize,
    pace: Option<Pace>,
    /// The time, for packets that are made without a pace.
    tick: Tick,
    /// Number of the next packet, if they carry numbers.
    sequence: Option<u64>,
    left: u64,
    endless: bool,
    counters: PortCounters,
}

impl Generator {
    pub(super) fn open(spec: &Spec) -> Result<Self, PortError> {
        let size = spec.number("size")?;
        let imix = spec.get("imix").is_some_and(|v| !matches!(v, "0" | "no" | "false"));
        if imix && size.is_some() {
            return Err(spec.missing("either size= or imix=, not both").into());
        }
        let size = match usize::try_from(size.unwrap_or(64)) {
            Ok(size) if (HEADERS..=9216).contains(&size) => size,
            _ => return Err(spec.bad("size", format!("out of range {HEADERS}..=9216 bytes")).into()),
        };
        let flows = spec.number("flows")?.unwrap_or(1);
        if !(1..=MAX_FLOWS).contains(&flows) {
            return Err(spec.bad("flows", format!("out of range 1..={MAX_FLOWS}")).into());
        }
        let pace = Some(Rate::of(spec)?.rx).filter(super::rate::Limit::is_set).map(Pace::new);
        let numbered = spec.get("sequence").is_some_and(|v| !matches!(v, "0" | "no" | "false"));
        if numbered && size < HEADERS + NUMBER {
            return Err(spec
                .bad("size", format!("at least {} bytes with a sequence", HEADERS + NUMBER))
                .into());
        }
        let sizes: &[usize] = if imix { &IMIX } else { &[size] };
        let seed = spec.number("seed")?.unwrap_or(0);
        let templates = (0..flows.max(sizes.len() as u64))
            .zip(sizes.iter().cycle())
            .map(|(i, size)| template(spec, (i % flows).wrapping_add(seed), *size, numbered))
            .collect::<Result<Vec<_>, _>>()?;
        let count = spec.number("count")?;
        Ok(Self {
            name: spec.text().to_string(),
            longest: templates.iter().map(|t| t.bytes.len()).max().unwrap_or(0),
            templates,
            next: 0,
            pace,
            tick: Tick::new(),
            sequence: numbered.then_some(0),
            left: count.unwrap_or(u64::MAX),
            endless: count.is_none(),
            counters: PortCounters::default(),
        })
    }
}

impl Generator {
    /// How many of the next `n` frames, from the first on, fit into `room` bytes.
    #[inline(always)]
    fn run(&self, n: usize, room: usize) -> usize {
        if self.longest <= room {
            return n;
        }
        let ahead = self.templates.iter().cycle().skip(self.next).take(n);
        ahead.take_while(|template| template.bytes.len() <= room).count()
    }

    /// Where the frame is that is `n` after the next one.
    fn after(&self, n: usize) -> usize {
        (self.next + n) % self.templates.len()
    }

    /// Makes packets of the next `n` frames; how many found a buffer, and their bytes.
    #[inline(always)]
    fn fill(&mut self, books: &mut Books, burst: &mut Vec<Packet>, n: usize, now_ns: u64) -> (usize, u64) {
        if let [only] = &*self.templates {
            return books.fill(std::iter::repeat_n(only.frame(), n), now_ns, burst);
        }
        let (mut packets, mut bytes, mut left) = (0, 0, n);
        while left > 0 {
            let some = &self.templates[self.next..];
            let some = &some[..some.len().min(left)];
            let filled = books.fill(some.iter().map(Template::frame), now_ns, burst);
            (packets, bytes, left) = (packets + filled.0, bytes + filled.1, left - some.len());
            self.next = self.after(some.len());
        }
        (packets, bytes)
    }
}

/// Writes their numbers into packets; returns the number of the next.
#[cold]
fn number(books: &Books, packets: &mut [Packet], first: u64) -> u64 {
    let mut next = first;
    for packet in packets {
        if let Some(place) = packet.bytes_mut(books.pool()).last_chunk_mut::<NUMBER>() {
            *place = next.to_be_bytes();
        }
        next += 1;
    }
    next
}

/// The packet of a flow: addresses from 10.0.0.0/8 and 172.16.0.0/12, ports that differ too.
fn template(spec: &Spec, flow: u64, size: usize, numbered: bool) -> Result<Template, SpecError> {
    let [.., a, b, c, d] = flow.to_be_bytes();
    let port = u16::from_be_bytes([c, d]);
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, b, c, d], [172, 16 | a & 15, 0, 1], 64)
        .udp(1024 + port % 60_000, 2000);
    let payload = vec![0; size - HEADERS];
    let mut bytes = Vec::with_capacity(size);
    builder.write(&mut bytes, &payload).map_err(|e| spec.bad("size", e.to_string()))?;
    if numbered {
        // None: the packets of a template are not alike.
        bytes[HEADERS - 2..HEADERS].fill(0);
    }
    let hash = wire::flow_hash(&bytes);
    Ok(Template { bytes: bytes.into(), hash })
}

impl Port for Generator {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_finite(&self) -> bool {
        !self.endless
    }

    fn waits(&self) -> bool {
        self.pace.is_none()
    }

    fn start(&mut self) {
        if let Some(pace) = &mut self.pace {
            pace.start();
        }
    }

    fn receive(&mut self, books: &mut Books, burst: &mut Vec<Packet>, max: usize) -> Reception {
        if self.left == 0 {
            return Reception::Finished;
        }
        let mut max = max.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let now_ns = match &mut self.pace {
            None => self.tick.now_ns(),
            Some(pace) => match pace.due(Instant::now()) {
                Ok(due) => {
                    max = max.min(usize::try_from(due).unwrap_or(usize::MAX));
                    now_ns()
                }
                Err(when) => return Reception::NotBefore(when),
            },
        };
        if self.pace.is_none() {
            max = max.min(books.free_count() as usize);
        }
        // Frames up to the next that no buffer has room for, which is refused; mostly there is none.
        let room = books.pool().geometry().packet_room() as usize;
        let (mut made, mut bytes_made) = (0, 0);
        while made < max {
            let run = self.run(max - made, room);
            if run == 0 {
                self.counters.rx_refused += 1;
                self.next = self.after(1);
                made += 1;
                continue;
            }
            let before = burst.len();
            let (packets, bytes) = self.fill(books, burst, run, now_ns);
            if let Some(next) = &mut self.sequence {
                *next = number(books, &mut burst[before..], *next) + (run - packets) as u64;
            }
            self.counters.rx_packets += packets as u64;
            self.counters.rx_bytes += bytes;
            // What is due at a time is lost at that time, as on a wire.
            self.counters.rx_no_buffer += (run - packets) as u64;
            (made, bytes_made) = (made + run, bytes_made + bytes);
        }
        if !self.endless {
            self.left -= made as u64;
        }
        if let Some(pace) = &mut self.pace {
            pace.sent(made, bytes_made);
        }
        Reception::Ready
    }

    fn send(&mut self, books: &mut Books, burst: &mut Vec<Packet>) {
        self.counters.tx_packets += burst.len() as u64;
        self.counters.tx_bytes += books.free_all(burst);
    }

    fn discards(&self) -> bool {
        true
    }

    fn discarded(&mut self, packets: u64, bytes: u64) {
        self.counters.tx_packets += packets;
        self.counters.tx_bytes += bytes;
    }

    fn close(&mut self, _: &mut Books) -> Result<(), PortError> {
        Ok(())
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onvm_lib::pool::{Geometry, Pool};
    use onvm_lib::shm::Pages;

    fn books() -> Books {
        Books::new(Pool::create(Geometry::new(256, 2048).unwrap(), Pages::Plain).unwrap(), 1)
    }

    fn generate(text: &str, rounds: usize) -> (Vec<Vec<u8>>, Reception) {
        let mut port = Generator::open(&text.parse().unwrap()).unwrap();
        let (mut books, mut all, mut last) = (books(), Vec::new(), Reception::Ready);
        for _ in 0..rounds {
            let mut burst = Vec::new();
            last = port.receive(&mut books, &mut burst, 32);
            all.extend(burst.iter().map(|p| p.bytes(books.pool()).to_vec()));
            port.send(&mut books, &mut burst);
        }
        assert_eq!(books.free_count(), 256);
        (all, last)
    }

    #[test]
    fn packets_are_valid_and_flows_differ() {
        let (all, last) = generate("gen:size=100,flows=7,count=70", 4);
        assert_eq!((all.len(), last), (70, Reception::Finished));
        let mut flows = std::collections::HashSet::new();
        for frame in &all {
            assert_eq!(frame.len(), 100);
            let sliced = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
            assert!(sliced.transport.is_some());
            flows.insert(wire::flow_hash(frame));
        }
        assert_eq!(flows.len(), 7);
    }

    #[test]
    fn imix_has_its_sizes() {
        let (all, _) = generate("gen:imix=1,count=12", 2);
        let count = |size| all.iter().filter(|f| f.len() == size).count();
        assert_eq!((count(64), count(594), count(1518)), (7, 4, 1));
    }

    #[test]
    fn mistakes_are_refused() {
        for text in ["gen:size=10", "gen:flows=0", "gen:rate=0", "gen:size=64,imix=1"] {
            assert!(Generator::open(&text.parse().unwrap()).is_err(), "{text}");
        }
    }
}
