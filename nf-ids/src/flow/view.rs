//! What rules may ask about the flow of a packet.

/// Which way a packet, or data, goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// From who began the flow.
    #[default]
    ToServer,
    /// To who began the flow.
    ToClient,
}

impl Direction {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::ToServer => Self::ToClient,
            Self::ToClient => Self::ToServer,
        }
    }

    /// 0 to the server, 1 to the client: place in arrays of two.
    #[inline]
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

/// What became of a packet's payload in the reassembly of its stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// It is in no stream: not TCP, no session, or it did not fit. Rules inspect the packet's own payload.
    #[default]
    Packet,
    /// It was added to its stream: rules for streams find it in the stream's [`Window`](crate::stream::Window), when
    /// that is due, and not in the packet.
    Stream,
}

/// The flow of a packet, with the packet counted in.
#[derive(Clone, Copy, Debug, Default)]
pub struct FlowView {
    /// Number of the flow; of two flows at the same time never the same, and stable in repeated runs.
    pub id: u64,
    /// Direction of the packet.
    pub direction: Direction,
    /// TCP: the handshake is complete (or the session was picked up in its midst). Others: both sides have sent.
    pub established: bool,
    /// Packets came in both directions.
    pub both_ways: bool,
    /// First packet of this direction: rules that ask for addresses alone are asked once for each.
    pub first_in_direction: bool,
    /// What became of the payload.
    pub presence: Presence,
    /// Time of the first packet, in nanoseconds since 1970.
    pub start_ns: u64,
    /// Time of this packet.
    pub now_ns: u64,
    /// Packets to the server and to the client.
    pub packets: [u64; 2],
    /// Bytes of them, from the link layer on.
    pub bytes: [u64; 2],
    /// TCP: sequence numbers used by client and server, for `stream_size`; none without a session.
    pub stream_bytes: Option<[u64; 2]>,
    /// The flow ends with this (pseudo) packet.
    pub last: bool,
}

impl FlowView {
    /// Whole seconds since the flow's first packet, for `flow.age`.
    #[must_use]
    pub fn age_seconds(&self) -> u64 {
        self.now_ns.saturating_sub(self.start_ns) / 1_000_000_000
    }
}
