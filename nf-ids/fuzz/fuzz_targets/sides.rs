//! What both sides of a connection say, in any pieces, with gaps.

use nf_ids::app::{Hints, Limits, State};
use nf_ids::flow::Direction;

/// Gives pieces to whatever they look like: whether from the server, a gap before them if above 240, and their bytes.
pub(crate) fn talk(udp: bool, server_port: u16, pieces: Vec<(bool, u8, &[u8])>) {
    let hints = Hints { udp, client_port: 40_000, server_port, midstream: false };
    let mut state = State::new(hints, &Limits { lzma: true, ..Limits::default() });
    for (to_client, gap, bytes) in pieces {
        let direction = if to_client { Direction::ToClient } else { Direction::ToServer };
        let gap = if gap > 240 { usize::from(gap) } else { 0 };
        state.data(direction, bytes, gap, false);
        assert!(state.memory() < 16 << 20);
        let _ = state.announced();
        for id in state.transactions().take(3) {
            let _ = (state.progress(id, direction), state.describe(id));
        }
    }
    for direction in [Direction::ToServer, Direction::ToClient] {
        state.data(direction, &[], 0, true);
    }
}
