//! What detection is shown of a packet.

use crate::app;
use crate::decode::Decoded;
use crate::flow::{FlowView, Presence};
use crate::stream::{self, Window};

/// A packet with everything that rules may ask about. The engine calls detection once for each packet, also for inner ones,
/// for datagrams put together of fragments, and for the pseudo packets at the end of a flow (`packet.pseudo`: no payload and no
/// header of its own is to be inspected, only `window` and `app`).
#[derive(Clone, Copy, Debug)]
pub struct Inspection<'a> {
    /// Headers, payload, decoder events.
    pub packet: &'a Decoded<'a>,
    /// Stream events of this packet.
    pub stream_events: &'a stream::Events,
    /// Its flow; none if it has none.
    pub flow: Option<&'a FlowView>,
    /// Reassembled bytes of the packet's direction that are due now: rules for raw content (`tcp`, not `tcp-pkt`).
    pub window: Option<Window<'a>>,
    /// Application layer of the flow; none before there is data.
    pub app: Option<&'a app::State>,
    /// Time of the packet in nanoseconds since 1970.
    pub now_ns: u64,
}

impl Inspection<'_> {
    /// Whether raw content of rules for streams is to be looked for in the packet's own payload: it is in no stream.
    #[must_use]
    pub fn payload_counts(&self) -> bool {
        !self.packet.pseudo && self.flow.is_none_or(|flow| flow.presence == Presence::Packet)
    }
}
