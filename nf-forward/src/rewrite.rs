//! What a hop changes in a packet: MAC addresses, and the time that it has to live.

use onvm_lib::wire::{EtherType, Headers, MacAddr, Net, ethernet, ipv4, ipv6};

use crate::Options;

/// What is done with the MAC addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Macs {
    Keep,
    Swap,
    Set { dst: Option<MacAddr>, src: Option<MacAddr> },
}

/// What came of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All that was asked for is done.
    Rewritten,
    /// The MAC addresses are changed; there is no time to live.
    Partly,
    /// There is no time to live, and nothing else was asked for.
    NoTtl,
    /// It has no Ethernet header.
    TooShort,
    /// Its time ran out here; nothing was changed.
    Expired,
}

/// Changes to be made to every packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rewrite {
    macs: Macs,
    decrement_ttl: bool,
}

impl Rewrite {
    /// What the options ask for; none if they ask for nothing.
    pub(crate) fn new(options: &Options) -> Option<Self> {
        let macs = match (options.mac_swap, options.set_dst_mac, options.set_src_mac) {
            (true, ..) => Macs::Swap,
            (false, None, None) => Macs::Keep,
            (false, dst, src) => Macs::Set { dst, src },
        };
        let decrement_ttl = options.decrement_ttl;
        (macs != Macs::Keep || decrement_ttl).then_some(Self { macs, decrement_ttl })
    }

    /// Whether the time to live is all that is to be changed.
    pub(crate) fn is_hop(&self) -> bool {
        self.macs == Macs::Keep && self.decrement_ttl
    }

    #[cold]
    #[inline(never)]
    fn apply_slowly(self, frame: &mut [u8]) -> Outcome {
        self.apply(frame)
    }

    /// Changes a frame.
    #[inline]
    pub(crate) fn apply(&self, frame: &mut [u8]) -> Outcome {
        if frame.len() < ethernet::HEADER_LEN {
            return Outcome::TooShort;
        }
        // First, so that a packet that is dropped for it stays as it came.
        let live = if self.decrement_ttl { decrement(frame) } else { Life::Goes };
        if live == Life::Ends {
            return Outcome::Expired;
        }
        self.macs.apply(frame);
        match (live, self.macs) {
            (Life::Goes, _) => Outcome::Rewritten,
            (_, Macs::Keep) => Outcome::NoTtl,
            _ => Outcome::Partly,
        }
    }
}

/// Bytes of an Ethernet and an IPv4 header without tags and options, as most packets have them.
const USUAL: usize = ethernet::HEADER_LEN + ipv4::MIN_HEADER_LEN;

/// Takes one off the time to live, where a [`Rewrite`] is nothing else.
#[inline]
pub(crate) fn hop(frame: &mut [u8]) -> Outcome {
    if let Some(head) = frame.first_chunk_mut::<USUAL>()
        && head[12..15] == [0x08, 0x00, 0x45]
        && head[22] > 1
    {
        head[22] -= 1;
        // RFC 1624, equation 3: of the word that the TTL is the upper half of, ~old + new is 0xfeff whatever it was. The sum
        // is never 0, carries at most once, and is the same in either byte order (RFC 1071).
        let less = u32::from(u16::from_ne_bytes([0xfe, 0xff]));
        let sum = u32::from(!u16::from_ne_bytes([head[24], head[25]])) + less;
        [head[24], head[25]] = (!low16(sum + (sum >> 16))).to_ne_bytes();
        return Outcome::Rewritten;
    }
    Rewrite { macs: Macs::Keep, decrement_ttl: true }.apply_slowly(frame)
}

#[allow(clippy::cast_possible_truncation)] // what is wanted
fn low16(sum: u32) -> u16 {
    sum as u16
}

impl Macs {
    #[inline]
    fn apply(self, frame: &mut [u8]) {
        let Ok(mut header) = ethernet::Frame::new_checked(frame) else { return };
        let (mut dst, mut src) = (header.dst(), header.src());
        match self {
            Self::Keep => return,
            Self::Swap => std::mem::swap(&mut dst, &mut src),
            Self::Set { dst: new_dst, src: new_src } => {
                dst = new_dst.unwrap_or(dst);
                src = new_src.unwrap_or(src);
            }
        }
        header.set_dst(dst);
        header.set_src(src);
    }
}

/// Whether a packet may take another hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Goes,
    Ends,
    Unlimited,
}

/// Takes a hop off an IP packet's life. A label-switched or PPPoE packet's IP header is not ours to change.
#[inline]
fn decrement(frame: &mut [u8]) -> Life {
    // What most packets are needs no search for where its IP header is.
    if let Some((ethernet, packet)) = frame.split_first_chunk_mut::<{ ethernet::HEADER_LEN }>()
        && ethernet[12..] == [0x08, 0x00]
    {
        return decrement_v4(packet);
    }
    decrement_behind_tags(frame)
}

#[inline]
fn decrement_v4(packet: &mut [u8]) -> Life {
    // The last hop is the receiver, so a packet with one hop left ends here (RFC 1812, 5.3.1).
    match ipv4::Packet::new_checked(packet) {
        Ok(ip) if ip.ttl() <= 1 => Life::Ends,
        Ok(mut ip) => live(ip.decrement_ttl()),
        Err(_) => Life::Unlimited,
    }
}

#[inline(never)]
fn decrement_behind_tags(frame: &mut [u8]) -> Life {
    let headers = Headers::parse(frame);
    let Some(packet) = headers.l3_offset().and_then(|at| frame.get_mut(at..)) else { return Life::Unlimited };
    match (headers.net(), headers.ethertype()) {
        (Net::Ipv4, Some(EtherType::IPV4)) => decrement_v4(packet),
        (Net::Ipv6, Some(EtherType::IPV6)) => match ipv6::Packet::new_checked(packet) {
            Ok(ip) if ip.hop_limit() <= 1 => Life::Ends,
            Ok(mut ip) => live(ip.decrement_hop_limit()),
            Err(_) => Life::Unlimited,
        },
        _ => Life::Unlimited,
    }
}

#[inline]
fn live(decremented: bool) -> Life {
    if decremented { Life::Goes } else { Life::Ends }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
    const B: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);

    fn frame(ethertype: u16, network: &[u8]) -> Vec<u8> {
        let mut frame = [&A.0[..], &B.0, &ethertype.to_be_bytes(), network].concat();
        frame.resize(60, 0);
        frame
    }

    fn v4(ttl: u8) -> Vec<u8> {
        let mut bytes = [0; 28];
        (bytes[0], bytes[3], bytes[8], bytes[9]) = (0x45, 28, ttl, 17);
        let mut ip = ipv4::Packet::new_checked(bytes).unwrap();
        ip.fill_checksum();
        ip.into_inner().to_vec()
    }

    fn v6(hops: u8) -> Vec<u8> {
        let mut bytes = vec![0; 40];
        (bytes[0], bytes[6], bytes[7]) = (0x60, 59, hops);
        bytes
    }

    const TTL: Rewrite = Rewrite { macs: Macs::Keep, decrement_ttl: true };

    #[test]
    fn ttl_goes_down_and_the_checksum_stays_right() {
        for ttl in 2..=255 {
            let mut bytes = frame(0x0800, &v4(ttl));
            assert_eq!(TTL.apply(&mut bytes), Outcome::Rewritten);
            let ip = ipv4::Packet::new_checked(&bytes[14..34]).unwrap();
            assert_eq!(ip.ttl(), ttl - 1);
            assert!(ip.verify_checksum());
        }
        let mut bytes = frame(0x86dd, &v6(64));
        assert_eq!(TTL.apply(&mut bytes), Outcome::Rewritten);
        assert_eq!(bytes[14 + 7], 63);
    }

    #[test]
    fn the_short_way_gives_what_the_long_one_does() {
        for ttl in 0..=255 {
            for checksum in [0, 1, 0xfe, 0xff, 0x100, 0x101, 0xfeff, 0xff00, 0xfffe, 0xffff] {
                let mut short = frame(0x0800, &v4(ttl));
                short[24..26].copy_from_slice(&u16::to_be_bytes(checksum));
                let mut long = short.clone();
                assert_eq!(hop(&mut short), TTL.apply(&mut long));
                assert_eq!(short, long);
            }
        }
        for length in 0..40 {
            let mut short = frame(0x0800, &v4(9))[..length].to_vec();
            let mut long = short.clone();
            assert_eq!((hop(&mut short), &short), (TTL.apply(&mut long), &long));
        }
    }

    #[test]
    fn the_last_hop_ends_a_packet_unchanged() {
        let swap = Rewrite { macs: Macs::Swap, decrement_ttl: true };
        for network in [(0x0800, v4(1)), (0x0800, v4(0)), (0x86dd, v6(1)), (0x86dd, v6(0))] {
            let before = frame(network.0, &network.1);
            let mut bytes = before.clone();
            assert_eq!(swap.apply(&mut bytes), Outcome::Expired);
            assert_eq!(bytes, before);
        }
    }

    #[test]
    fn tags_are_passed_over_and_tunnels_left_alone() {
        let tagged = [&[0, 5, 0x08, 0][..], &v4(9)].concat();
        let mut bytes = frame(0x8100, &tagged);
        assert_eq!(TTL.apply(&mut bytes), Outcome::Rewritten);
        assert_eq!(bytes[18 + 8], 8);
        let labelled = [&[0, 0, 0x11, 64][..], &v4(9)].concat();
        let mut bytes = frame(0x8847, &labelled);
        assert_eq!(TTL.apply(&mut bytes), Outcome::NoTtl);
        assert_eq!(bytes[18 + 8], 9);
    }

    #[test]
    fn what_cannot_be_read_goes_on() {
        assert_eq!(TTL.apply(&mut frame(0x0806, &[0; 28])), Outcome::NoTtl);
        assert_eq!(TTL.apply(&mut frame(0x0800, &[0x65; 20])), Outcome::NoTtl);
        assert_eq!(TTL.apply(&mut frame(0x0800, &v4(9))[..30]), Outcome::NoTtl);
        assert_eq!(TTL.apply(&mut [0; 13]), Outcome::TooShort);
        let both = Rewrite { macs: Macs::Swap, decrement_ttl: true };
        assert_eq!(both.apply(&mut frame(0x0806, &[0; 28])), Outcome::Partly);
    }

    #[test]
    fn macs_are_swapped_or_set() {
        let macs = |macs, frame: &mut [u8]| {
            assert_eq!(Rewrite { macs, decrement_ttl: false }.apply(frame), Outcome::Rewritten);
            let header = ethernet::Frame::new_checked(frame).unwrap();
            (header.dst(), header.src())
        };
        let mut bytes = frame(0x0806, &[]);
        assert_eq!(macs(Macs::Swap, &mut bytes), (B, A));
        assert_eq!(macs(Macs::Set { dst: Some(A), src: None }, &mut bytes), (A, A));
        assert_eq!(macs(Macs::Set { dst: Some(MacAddr::BROADCAST), src: Some(B) }, &mut bytes), {
            (MacAddr::BROADCAST, B)
        });
    }
}
