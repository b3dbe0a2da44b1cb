//! What of a TCP segment tells of its connection.

use onvm_lib::wire::Headers;
use onvm_lib::wire::tcp::Flags;
use onvm_lib::wire::tcp_option::TcpOption;

/// Greatest window scale (RFC 7323 §2.3).
const MOST_SCALE: u8 = 14;

/// What a segment is, by its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Kind {
    Syn,
    SynAck,
    Fin,
    Ack,
    Rst,
}

impl Kind {
    /// By the flags; none for combinations that no TCP sends. ECN's bits and PSH may stand with any.
    pub(crate) fn of(flags: Flags) -> Option<Self> {
        let has = |flag| flags.contains(flag);
        let (syn, ack, fin, rst, urg) =
            (has(Flags::SYN), has(Flags::ACK), has(Flags::FIN), has(Flags::RST), has(Flags::URG));
        match (syn, ack, fin, rst) {
            (true, false, false, false) => Some(Self::Syn),
            (true, true, false, false) if !urg => Some(Self::SynAck),
            (false, true, true, false) => Some(Self::Fin),
            (false, true, false, false) => Some(Self::Ack),
            (false, _, false, true) if !urg => Some(Self::Rst),
            _ => None,
        }
    }
}

/// The window options of a SYN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SynOptions {
    pub(crate) scale: Option<u8>,
    pub(crate) sack: bool,
}

/// A segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) kind: Kind,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) has_ack: bool,
    /// As it stands in the header.
    pub(crate) window: u32,
    /// Sequence number after its last byte; SYN and FIN count one each.
    pub(crate) end: u32,
    /// Of a SYN.
    pub(crate) options: SynOptions,
    /// Highest right edge of its SACK blocks.
    pub(crate) sacked: Option<u32>,
}

impl Segment {
    /// The segment of a packet; none if it is no TCP, or no TCP sends its flags.
    pub(crate) fn of(headers: &Headers, frame: &[u8]) -> Option<Self> {
        let tcp = headers.tcp(frame)?;
        let flags = tcp.flags();
        let kind = Kind::of(flags)?;
        let (mut options, mut sacked) = (SynOptions::default(), None::<u32>);
        if tcp.header_len() > onvm_lib::wire::tcp::MIN_HEADER_LEN {
            for option in tcp.options() {
                match option {
                    TcpOption::WindowScale(scale) => options.scale = Some(scale.min(MOST_SCALE)),
                    TcpOption::SackPermitted => options.sack = true,
                    TcpOption::Sack(blocks) => {
                        for (_, right) in blocks.iter() {
                            if sacked.is_none_or(|highest| after(right, highest)) {
                                sacked = Some(right);
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        let length = u32::try_from(wire_payload(headers, frame)).unwrap_or(0);
        let counts = u32::from(flags.contains(Flags::SYN)) + u32::from(flags.contains(Flags::FIN));
        Some(Self {
            kind,
            seq: tcp.seq(),
            ack: tcp.ack(),
            has_ack: flags.contains(Flags::ACK),
            window: u32::from(tcp.window()),
            end: tcp.seq().wrapping_add(length).wrapping_add(counts),
            options,
            sacked,
        })
    }
}

/// Bytes of payload by the IP length: in a capture that was cut there are fewer.
fn wire_payload(headers: &Headers, frame: &[u8]) -> usize {
    if !headers.is_cut() {
        return headers.payload_len();
    }
    let l3 = headers.l3_offset().unwrap_or(0);
    let end = match (headers.ipv4(frame), headers.ipv6(frame)) {
        (Some(ip), _) => l3 + usize::from(ip.total_len()),
        (_, Some(ip)) => l3 + onvm_lib::wire::ipv6::HEADER_LEN + usize::from(ip.payload_len()),
        _ => headers.end(),
    };
    end.saturating_sub(headers.payload_offset())
}

/// Whether `a` comes after `b` in the circle of sequence numbers (RFC 9293 §3.4).
#[inline]
pub(crate) fn after(a: u32, b: u32) -> bool {
    let distance = a.wrapping_sub(b);
    distance != 0 && distance < 1 << 31
}

/// Whether `a` comes before `b`.
#[inline]
pub(crate) fn before(a: u32, b: u32) -> bool {
    after(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_nobody_sends_are_refused() {
        let kind = |bits| Kind::of(Flags(bits));
        assert_eq!(kind(0x02), Some(Kind::Syn));
        assert_eq!(kind(0xc2), Some(Kind::Syn), "with ECN");
        assert_eq!(kind(0x12), Some(Kind::SynAck));
        assert_eq!(kind(0x18), Some(Kind::Ack));
        assert_eq!(kind(0x11), Some(Kind::Fin));
        assert_eq!(kind(0x14), Some(Kind::Rst));
        for bits in [0x00, 0x01, 0x03, 0x06, 0x07, 0x29, 0x3f, 0x15, 0x13, 0x24] {
            assert_eq!(kind(bits), None, "{bits:#x}");
        }
    }

    #[test]
    fn sequence_numbers_go_round() {
        assert!(after(1, u32::MAX) && before(u32::MAX, 1) && !after(5, 5) && !before(5, 5));
    }
}
