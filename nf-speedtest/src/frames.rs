//! The packets that are sent: built, or loaded from a capture.
//!
//! Built packets are UDP over IPv4 from 198.18.0.0/16 to 198.19.0.1, port 9: the network that RFC 2544 sets
//! aside for measurements, and the port that discards (RFC 863). They have no UDP checksum, which IPv4 permits,
//! so that the stamp can change without it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::Ipv4Addr;
use std::path::Path;

use onvm_lib::capture::{AsEthernet, Error as CaptureError, Reader};
use onvm_lib::wire::{EtherType, MacAddr, ethernet, flow_hash, ipv4, udp};

use crate::stamp::{OFFSET, Stamps};

const SOURCE_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const DESTINATION_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const DESTINATION: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
const DISCARD_PORT: u16 = 9;
/// Source port of packets; that of probes is found from here on upwards.
const SOURCE_PORT: u16 = 1024;

/// A packet's first bytes and the hash of its flow.
#[derive(Clone, Copy, Debug)]
struct Template {
    headers: [u8; OFFSET],
    hash: u32,
}

/// Packets built by ourselves.
#[derive(Debug)]
pub(crate) struct Built {
    size: usize,
    flows: Vec<Template>,
    /// The flow of probes, and one in how many packets is one.
    probe: Option<(Template, u32)>,
    pub(crate) stamps: Stamps,
}

/// Where packets come from.
#[derive(Debug)]
pub(crate) enum Frames {
    Built(Box<Built>),
    /// Frames of a capture, as they are.
    Loaded(Vec<Vec<u8>>),
}

impl Frames {
    /// Packets of `size` bytes over so many flows; one in `probe_every` is a probe.
    pub(crate) fn build(size: usize, flows: u32, probe_every: u32) -> Self {
        let flows: Vec<Template> = (0..flows).map(|flow| template(size, flow, SOURCE_PORT)).collect();
        let probe = (probe_every > 0).then(|| (probe_flow(size, &flows), probe_every));
        #[allow(clippy::cast_possible_truncation, reason = "half a random number is one, too")]
        let magic = RandomState::new().hash_one(0u8) as u32;
        Self::Built(Box::new(Built { size, flows, probe, stamps: Stamps::new(magic) }))
    }

    /// The first frames of a capture, `most` at most, that fit a buffer of `room` bytes.
    pub(crate) fn load(file: &Path, most: usize, room: usize) -> Result<Self, String> {
        let mut reader = Reader::open(file).map_err(|e| e.to_string())?;
        let (mut frames, mut unfit) = (Vec::new(), 0u64);
        while frames.len() < most {
            let frame = match reader.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) if CaptureError::is_cut(&error) => {
                    log::warn!("{error}");
                    break;
                }
                Err(error) => return Err(error.to_string()),
            };
            match AsEthernet::of(&frame).filter(|f| (1..=room).contains(&f.length())) {
                Some(ethernet) => {
                    let mut bytes = vec![0; ethernet.length()];
                    ethernet.write(&mut bytes);
                    frames.push(bytes);
                }
                None => unfit += 1,
            }
        }
        if unfit > 0 {
            log::warn!(
                "{}: {unfit} frames do not fit a buffer of {room} bytes and are left out",
                file.display()
            );
        }
        if frames.is_empty() {
            return Err(format!("{}: there is no frame that can be sent", file.display()));
        }
        Ok(Self::Loaded(frames))
    }

    /// Length of a packet.
    #[inline]
    pub(crate) fn length(&self, number: u64) -> usize {
        match self {
            Self::Built(built) => built.size,
            Self::Loaded(frames) => frames[at(number, frames.len())].len(),
        }
    }

    /// Writes a packet, as long as [`Frames::length`] says; gives the hash of its flow. `stamp` is what its
    /// stamp says, number and time.
    #[inline]
    pub(crate) fn write(&self, number: u64, stamp: (u32, u64), into: &mut [u8]) -> u32 {
        match self {
            Self::Built(built) => {
                let template = built.template(number);
                if let Some((head, rest)) = into.split_at_mut_checked(OFFSET) {
                    head.copy_from_slice(&template.headers);
                    // The buffer still holds what was there before, which is nobody's business.
                    rest.fill(0);
                }
                built.stamps.write(into, stamp.0, stamp.1);
                template.hash
            }
            Self::Loaded(frames) => {
                let frame = &frames[at(number, frames.len())];
                into.copy_from_slice(frame);
                flow_hash(frame)
            }
        }
    }

    /// How packets are stamped; none for those of a capture, which are left as they are.
    #[inline]
    pub(crate) fn stamps(&self) -> Option<Stamps> {
        match self {
            Self::Built(built) => Some(built.stamps),
            Self::Loaded(_) => None,
        }
    }

    /// The hash that tells probes, if there are any.
    pub(crate) fn probe_hash(&self) -> Option<u32> {
        match self {
            Self::Built(built) => built.probe.map(|(template, _)| template.hash),
            Self::Loaded(_) => None,
        }
    }
}

impl Built {
    #[inline]
    fn template(&self, number: u64) -> &Template {
        match &self.probe {
            Some((template, every)) if number.is_multiple_of(u64::from(*every)) => template,
            _ => &self.flows[at(number, self.flows.len())],
        }
    }
}

/// The place of a packet among `n`, in turn.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "less than a length")]
fn at(number: u64, n: usize) -> usize {
    (number % n as u64) as usize
}

/// A flow for probes, whose hash no other has.
fn probe_flow(size: usize, flows: &[Template]) -> Template {
    let mut taken: Vec<u32> = flows.iter().map(|flow| flow.hash).collect();
    taken.sort_unstable();
    let free = |flow: &Template| taken.binary_search(&flow.hash).is_err();
    let all = (SOURCE_PORT + 1..=u16::MAX).map(|port| template(size, 0, port));
    // 65,536 flows leave a hash of 32 bits free among 64,511 more, or the hash is no hash.
    all.clone().find(free).or_else(|| all.clone().next()).unwrap_or(flows[0])
}

/// The headers of a flow. `size` is at least 60, so that all of them have room.
fn template(size: usize, flow: u32, source_port: u16) -> Template {
    let mut bytes = vec![0; size];
    let [.., c, d] = flow.to_be_bytes();
    if let Ok(mut link) = ethernet::Frame::new_checked(&mut bytes) {
        link.set_dst(DESTINATION_MAC);
        link.set_src(SOURCE_MAC);
        link.set_ethertype(EtherType::IPV4);
    }
    let network = &mut bytes[ethernet::HEADER_LEN..];
    network[0] = 0x45;
    if let Ok(mut ip) = ipv4::Packet::new_checked(&mut *network) {
        ip.set_total_len(u16::try_from(size - ethernet::HEADER_LEN).unwrap_or(u16::MAX));
        ip.set_dont_fragment(true);
        ip.set_ttl(64);
        ip.set_protocol(udp::PROTOCOL);
        ip.set_src(Ipv4Addr::new(198, 18, c, d));
        ip.set_dst(DESTINATION);
        ip.fill_checksum();
    }
    let transport = &mut network[ipv4::MIN_HEADER_LEN..];
    let length = u16::try_from(transport.len()).unwrap_or(u16::MAX);
    if let Ok(mut datagram) = udp::Datagram::new_checked(transport) {
        datagram.set_src_port(source_port);
        datagram.set_dst_port(DISCARD_PORT);
        datagram.set_len_field(length);
    }
    let mut headers = [0; OFFSET];
    headers.copy_from_slice(&bytes[..OFFSET]);
    Template { headers, hash: flow_hash(&bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onvm_lib::capture::{Frame, LinkType, Writer};
    use onvm_lib::wire::Headers;
    use std::collections::HashSet;

    fn write(frames: &Frames, number: u64) -> (Vec<u8>, u32) {
        let mut bytes = vec![0xee; frames.length(number)];
        let hash = frames.write(number, (7, 8), &mut bytes);
        (bytes, hash)
    }

    #[test]
    fn built_packets_are_sound() {
        for size in [60, 64, 1514, 9216] {
            let frames = Frames::build(size, 10, 4);
            for number in 0..20 {
                let (bytes, hash) = write(&frames, number);
                let headers = Headers::parse(&bytes);
                assert_eq!((bytes.len(), headers.problem(), headers.end()), (size, None, size));
                assert!(headers.ipv4(&bytes).unwrap().verify_checksum());
                let datagram = headers.udp(&bytes).unwrap();
                assert_eq!(datagram.payload().len(), size - OFFSET);
                assert_eq!(hash, flow_hash(&bytes));
                assert_eq!(frames.probe_hash() == Some(hash), number % 4 == 0);
                assert_eq!(frames.stamps().unwrap().read(&bytes), Some((7, 8)));
                assert!(
                    bytes[OFFSET + crate::stamp::LEN..].iter().all(|byte| *byte == 0),
                    "what was there shows"
                );
            }
        }
    }

    #[test]
    fn flows_differ_and_no_probe_is_wanted() {
        let frames = Frames::build(64, 1000, 0);
        let keys: HashSet<_> = (0..2000)
            .map(|number| {
                let bytes = write(&frames, number).0;
                Headers::parse(&bytes).flow_key(&bytes)
            })
            .collect();
        assert_eq!((keys.len(), frames.probe_hash()), (1000, None));
    }

    #[test]
    fn a_capture_is_sent_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.pcap");
        let mut writer = Writer::create(&path).unwrap();
        writer.add_interface(LinkType::Ethernet, "").unwrap();
        for n in [60u8, 200, 70, 80] {
            let data = &vec![n; usize::from(n)];
            let (original_len, link_type) = (u32::from(n), LinkType::Ethernet);
            writer
                .write_frame(&Frame { timestamp_ns: 1, original_len, link_type, interface: 0, data })
                .unwrap();
        }
        writer.finish().unwrap();
        let frames = Frames::load(&path, 2, 100).unwrap();
        assert_eq!([0, 1, 2].map(|n| write(&frames, n).0.len()), [60, 70, 60]);
        assert!(frames.stamps().is_none());
        let error = Frames::load(&path, 2, 10).unwrap_err();
        assert!(error.ends_with("in.pcap: there is no frame that can be sent"), "{error}");
        assert!(Frames::load(&folder.path().join("none.pcap"), 1, 10).unwrap_err().contains("none.pcap"));
    }
}
