//! Sessions whose beginning was not seen.

use super::Session;
use super::segment::{FIN, Segment};
use super::session::State;

/// Largest scale of windows (RFC 7323 §2.3); assumed of sessions whose handshake was not seen.
const MOST_SCALE: u8 = 14;

impl Session {
    /// Picks a session up at the answer to its handshake: the sender is the server.
    pub(super) fn from_answer(segment: &Segment<'_>) -> Box<Self> {
        let mut session = Self::fresh(State::SynReceived);
        session.midstream = true;
        let [client, server] = &mut session.sides;
        server.begin(segment.seq);
        client.begin(segment.ack.wrapping_sub(1));
        client.window = segment.window;
        // If the server scales, the client did, too.
        client.scale = segment.scale.unwrap_or(0);
        server.scale = segment.scale.map_or(0, |_| MOST_SCALE);
        client.last_ack = segment.ack;
        server.last_ack = server.isn.wrapping_add(1);
        client.next_window = client.last_ack.wrapping_add(client.window);
        server.next_window = server.last_ack.wrapping_add(server.window);
        server.note_first_stamp(segment);
        session
    }

    /// Picks a session up in its midst: who sends first is taken for the client.
    pub(super) fn from_midst(segment: &Segment<'_>) -> Box<Self> {
        let mut session = Self::fresh(State::Established);
        session.midstream = true;
        session.confirmed = true;
        let [client, server] = &mut session.sides;
        client.begin(segment.seq.wrapping_sub(1));
        client.next_seq = segment.end();
        client.scale = MOST_SCALE;
        server.scale = MOST_SCALE;
        client.last_ack = segment.seq;
        client.window = segment.window << MOST_SCALE;
        client.next_window = client.last_ack.wrapping_add(client.window);
        server.begin(segment.ack.wrapping_sub(1));
        server.last_ack = segment.ack;
        server.window = segment.window << MOST_SCALE;
        server.next_window = server.last_ack.wrapping_add(server.window);
        server.window_unknown = true;
        client.note_first_stamp(segment);
        if let Some((_, echo)) = segment.timestamp {
            // What it echoes is the other side's clock.
            (server.has_stamp, server.zero_stamp, server.last_stamp) = (true, echo == 0, echo);
            server.last_stamp_s = client.last_stamp_s;
        }
        session.timestamps = segment.timestamp.is_some();
        if segment.has(FIN) {
            client.next_seq = segment.end().wrapping_add(1);
            client.end_with(segment.end());
            session.state = State::FinWait1;
        }
        session
    }
}
