//! How long a connection lives without a packet: netfilter's defaults (`nf_conntrack_*_timeout_*`).

use super::Connection;
use super::tcp::Phase;

/// Ticks of a second.
const SECOND: u32 = 10;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const UDP: u8 = 17;
const UDP_LITE: u8 = 136;

/// Times, in tenths of a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    syn_sent: u32,
    syn_received: u32,
    established: u32,
    fin_wait: u32,
    close_wait: u32,
    last_ack: u32,
    time_wait: u32,
    closed: u32,
    /// While data is sent again and again, or not acknowledged.
    unanswered: u32,
    udp: u32,
    udp_stream: u32,
    icmp: u32,
    others: u32,
}

impl Timeouts {
    /// Netfilter's, but for this of established TCP connections, in seconds.
    pub(crate) fn new(established_s: u32) -> Self {
        Self {
            syn_sent: 120 * SECOND,
            syn_received: 60 * SECOND,
            established: established_s.saturating_mul(SECOND),
            fin_wait: 120 * SECOND,
            close_wait: 60 * SECOND,
            last_ack: 30 * SECOND,
            time_wait: 120 * SECOND,
            closed: 10 * SECOND,
            unanswered: 300 * SECOND,
            udp: 30 * SECOND,
            udp_stream: 120 * SECOND,
            icmp: 30 * SECOND,
            others: 600 * SECOND,
        }
    }

    /// Ticks that a connection may be silent now.
    pub(super) fn of(&self, connection: &Connection, protocol: Option<u8>) -> u32 {
        let Some(tcp) = &connection.tcp else {
            return match protocol {
                Some(UDP | UDP_LITE) if connection.stream => self.udp_stream,
                Some(UDP | UDP_LITE) => self.udp,
                Some(ICMP | ICMPV6) => self.icmp,
                _ => self.others,
            };
        };
        let usual = match tcp.phase {
            Phase::SynSent | Phase::SynSent2 => self.syn_sent,
            Phase::SynReceived => self.syn_received,
            Phase::Established => self.established,
            Phase::FinWait => self.fin_wait,
            Phase::CloseWait => self.close_wait,
            Phase::LastAck => self.last_ack,
            Phase::TimeWait => self.time_wait,
            Phase::Closed => self.closed,
        };
        if tcp.is_unanswered() || tcp.is_unacknowledged() { usual.min(self.unanswered) } else { usual }
    }
}
