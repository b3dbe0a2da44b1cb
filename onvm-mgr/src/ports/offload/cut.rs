//! Where a super-frame is cut, and how the headers of each part are made to say what it is.
//!
//! ```text
//! ┌ Ethernet ┬ IP ┬ UDP, or GRE ┬ … ┬ IP ┬ TCP ┬ payload ┐
//!             └ a layer for each tunnel ┘ └ the innermost ┘  each has lengths, IPv4 an identification as well
//! ```
//! Kernel tunnels hand over super-frames too, with what stands beside them speaking of the innermost headers only. All layers are
//! made to fit, and the checksums of tunnel headers, where they have one, are computed anew. A tunnel that is not known by its port
//! still shows: the innermost IP header ends where the transport header begins, and says how long the rest is.

use onvm_lib::wire::checksum::{Pseudo, Sum, internet, udp_nonzero};
use onvm_lib::wire::{Headers, Net, gre, tcp, udp};

use super::{GSO_UDP, NEEDS_CHECKSUM, Offload, Unusable};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;
/// IP headers that one frame may have.
const MOST_LAYERS: usize = 5;
/// Most parts of a datagram, and least payload of a segment: Linux makes no others (`UDP_MAX_SEGMENTS`, `TCP_MIN_GSO_SIZE`), and
/// without these one frame could become 65,000.
const MOST_DATAGRAMS: usize = 128;
const LEAST_SEGMENT: usize = 8;

/// What stands between an IP header and the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Tunnel {
    /// Nothing whose length or checksum would change.
    #[default]
    Plain,
    /// A UDP header at this byte.
    Udp(usize),
    /// A GRE header at this byte.
    Gre(usize),
}

/// An IP header, and what is behind it.
#[derive(Clone, Copy, Debug, Default)]
struct Layer {
    ip: usize,
    v4: bool,
    tunnel: Tunnel,
}

/// How a frame is cut up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    tcp: bool,
    /// From the outside in; there is at least one.
    layers: [Layer; MOST_LAYERS],
    depth: usize,
    start: usize,
    checksum: usize,
    /// Bytes of all headers.
    headers: usize,
    size: usize,
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|word| u16::from_be_bytes(*word))
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = value.to_be_bytes();
    }
}

fn short(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

/// The IP header that ends at `start`, of a packet that goes on to the end of the frame.
fn ip_before(frame: &[u8], start: usize, protocol: u8) -> Option<Layer> {
    let v4 = (20..=60usize).step_by(4).find_map(|header| {
        let ip = start.checked_sub(header)?;
        let sound = usize::from(*frame.get(ip)?) == (0x40 | (header / 4))
            && *frame.get(ip + 9)? == protocol
            && usize::from(word(frame, ip + 2)?) == frame.len() - ip;
        sound.then_some(Layer { ip, v4: true, tunnel: Tunnel::Plain })
    });
    v4.or_else(|| {
        let ip = start.checked_sub(40)?;
        let sound = frame.get(ip)? >> 4 == 6
            && *frame.get(ip + 6)? == protocol
            && usize::from(word(frame, ip + 4)?) == frame.len() - start;
        sound.then_some(Layer { ip, v4: false, tunnel: Tunnel::Plain })
    })
}

/// All IP headers in front of the transport header at `start`.
fn layers(frame: &[u8], start: usize, protocol: u8) -> Option<([Layer; MOST_LAYERS], usize)> {
    let mut layers = [Layer::default(); MOST_LAYERS];
    let mut headers = Headers::parse(frame);
    for depth in 0..MOST_LAYERS {
        let (ip, next) = (headers.l3_offset()?, headers.l4_offset()?);
        let v4 = match headers.net() {
            Net::Ipv4 => true,
            Net::Ipv6 => false,
            _ => return None,
        };
        if next > start || headers.is_fragment() {
            return None;
        }
        layers[depth] = Layer { ip, v4, tunnel: Tunnel::Plain };
        if next == start {
            return (headers.protocol() == Some(protocol)).then_some((layers, depth + 1));
        }
        layers[depth].tunnel = match headers.protocol()? {
            udp::PROTOCOL => Tunnel::Udp(next),
            gre::PROTOCOL => Tunnel::Gre(next),
            _ => Tunnel::Plain,
        };
        match headers.inner(frame).filter(|inner| matches!(inner.net(), Net::Ipv4 | Net::Ipv6)) {
            Some(inner) => headers = inner,
            None => {
                *layers.get_mut(depth + 1)? =
                    ip_before(frame, start, protocol).filter(|last| last.ip > next)?;
                return Some((layers, depth + 2));
            }
        }
    }
    None
}

/// Whether lengths stand in front of the IP header as well, which are not known how to be changed: of PPPoE, and of 802.3.
fn has_other_lengths(frame: &[u8]) -> bool {
    const PPPOE: u16 = 0x8864;
    const LEAST_TYPE: u16 = 0x600;
    let mut at = 12;
    while matches!(word(frame, at), Some(0x8100 | 0x88a8)) {
        at += 4;
    }
    word(frame, at).is_none_or(|ethertype| ethertype == PPPOE || ethertype < LEAST_TYPE)
}

impl Cut {
    /// Finds out how a frame is to be cut up.
    ///
    /// # Errors
    /// [`Unusable`].
    pub(super) fn of(frame: &[u8], offload: Offload) -> Result<Self, Unusable> {
        let start = usize::from(offload.checksum_start);
        let tcp = offload.gso != GSO_UDP;
        let (protocol, checksum, least) = if tcp { (tcp::PROTOCOL, 16, 20) } else { (udp::PROTOCOL, 6, 8) };
        if offload.flags & NEEDS_CHECKSUM == 0 || usize::from(offload.checksum_offset) != checksum {
            return Err(Unusable::Nonsense);
        }
        let header = match frame.get(start + 12) {
            Some(byte) if tcp => usize::from(byte >> 4) * 4,
            _ => 8,
        };
        let (headers, size) = (start + header, usize::from(offload.gso_size));
        if header < least || headers > frame.len() || size == 0 {
            return Err(Unusable::Nonsense);
        }
        let parts = (frame.len() - headers).div_ceil(size);
        if if tcp { size < LEAST_SEGMENT && parts > 1 } else { parts > MOST_DATAGRAMS } {
            return Err(Unusable::Nonsense);
        }
        if has_other_lengths(frame) {
            return Err(Unusable::Unsupported);
        }
        let (layers, depth) = layers(frame, start, protocol).ok_or(Unusable::Unsupported)?;
        Ok(Self { tcp, layers, depth, start, checksum: start + checksum, headers, size })
    }

    /// How many frames come of it.
    pub(super) fn count(&self, frame: &[u8]) -> usize {
        (frame.len() - self.headers).div_ceil(self.size).max(1)
    }

    fn payload<'a>(&self, frame: &'a [u8], index: usize) -> &'a [u8] {
        let all = &frame[self.headers..];
        let from = (index * self.size).min(all.len());
        &all[from..(from + self.size).min(all.len())]
    }

    /// Bytes of one of them.
    pub(super) fn length(&self, frame: &[u8], index: usize) -> usize {
        self.headers + self.payload(frame, index).len()
    }

    /// Writes one to where it belongs, which has just as many bytes as [`Cut::length`] says.
    pub(super) fn write(&self, frame: &[u8], index: usize, to: &mut [u8]) {
        let (headers, payload) = to.split_at_mut(self.headers);
        headers.copy_from_slice(&frame[..self.headers]);
        payload.copy_from_slice(self.payload(frame, index));
        let layers = &self.layers[..self.depth];
        layers.iter().for_each(|layer| layer.fit(index, to));
        self.fit_transport(frame, index, to);
        super::complete(to, self.start, self.checksum);
        // Each covers what is inside of it.
        layers.iter().rev().for_each(|layer| layer.sum_up(to));
    }

    /// Makes the transport header say what its part is.
    fn fit_transport(&self, frame: &[u8], index: usize, to: &mut [u8]) {
        let (start, length) = (self.start, to.len());
        if self.tcp {
            let nth = u32::try_from(index).unwrap_or(u32::MAX);
            let size = u32::try_from(self.size).unwrap_or(0);
            let sequence = &frame[start + 4..start + 8];
            let sequence = u32::from_be_bytes([sequence[0], sequence[1], sequence[2], sequence[3]]);
            let sequence = sequence.wrapping_add(nth.wrapping_mul(size));
            to[start + 4..start + 8].copy_from_slice(&sequence.to_be_bytes());
            if index + 1 < self.count(frame) {
                to[start + 13] &= !(FIN | PSH);
            }
            if index > 0 {
                to[start + 13] &= !CWR;
            }
        } else {
            put(to, start + 4, short(length - start));
        }
        // The length in half a checksum: what it was is taken out, what it is goes in.
        let (was, is) = (short(frame.len() - start), short(length - start));
        let half = word(to, self.checksum).unwrap_or(0);
        put(to, self.checksum, Sum::ZERO.add_u16(half).add_u16(!was).add_u16(is).fold());
    }
}

impl Layer {
    /// Makes its lengths those of a frame, whose number among its like this is.
    fn fit(&self, index: usize, to: &mut [u8]) {
        let length = to.len();
        if self.v4 {
            put(to, self.ip + 2, short(length - self.ip));
            #[allow(clippy::cast_possible_truncation)] // it counts round and round
            let id = word(to, self.ip + 4).unwrap_or(0).wrapping_add(index as u16);
            put(to, self.ip + 4, id);
            put(to, self.ip + 10, 0);
            let header = self.ip + usize::from(to[self.ip] & 0x0f) * 4;
            let sum = internet(&to[self.ip..header]);
            put(to, self.ip + 10, sum);
        } else {
            put(to, self.ip + 4, short(length - self.ip - 40));
        }
        if let Tunnel::Udp(at) = self.tunnel {
            put(to, at + 4, short(length - at));
        }
    }

    fn pseudo(&self, to: &[u8]) -> Option<Pseudo> {
        let bytes = to.get(self.ip..)?;
        if self.v4 {
            let [source, destination] = [12, 16].map(|at| bytes.get(at..)?.first_chunk::<4>().copied());
            Some(Pseudo::v4(source?.into(), destination?.into()))
        } else {
            let [source, destination] = [8, 24].map(|at| bytes.get(at..)?.first_chunk::<16>().copied());
            Some(Pseudo::v6(source?.into(), destination?.into()))
        }
    }

    /// Computes the checksum of a tunnel's header, if it has one, over all that the tunnel carries.
    fn sum_up(&self, to: &mut [u8]) {
        match self.tunnel {
            Tunnel::Udp(at) if word(to, at + 6).is_some_and(|sum| sum != 0) => {
                let Some(pseudo) = self.pseudo(to) else { return };
                put(to, at + 6, 0);
                let sum = pseudo.sum(udp::PROTOCOL, to.len() - at).add_bytes(&to[at..]).finish();
                put(to, at + 6, udp_nonzero(sum));
            }
            Tunnel::Gre(at) => {
                if let Ok(mut packet) = gre::Packet::new_checked(&mut to[at..]) {
                    packet.fill_checksum();
                }
            }
            _ => {}
        }
    }
}
