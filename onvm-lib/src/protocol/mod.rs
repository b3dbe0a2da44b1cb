//! What the manager and its peers say to each other over the control socket.
//!
//! # The line
//! A Unix socket of type `SOCK_SEQPACKET`: one message a packet, JSON, at most [`MAX_MESSAGE`] bytes,
//! descriptors of shared memory riding along (`SCM_RIGHTS`). [`PROTOCOL_VERSION`] is in the first message from
//! either side; a mismatch is answered with [`Answer::Refused`] and the connection ends.
//!
//! # Two kinds of peers
//! ```text
//! NF       Hello ──▶            ◀── Welcome (pool, node page, rings) or Refused
//!          Routed, Report ──▶   ◀── Route (rings of direct edges), Message, Pause, Resume, Stop
//!          State (a file) ──▶   ◀── HandOver
//!          TookOver ──▶         ◀── TakeOver (a file)
//!          Leaving ──▶          (the connection ends: the reaper does the rest)
//! client   Ask ──▶              ◀── Told; a body longer than a message is in the file that comes with it;
//!                                   to `Events` with `follow` one for each lot of events
//! ```
//! | State of an NF's line | Who may speak | What |
//! |---|---|---|
//! | new | NF | `Hello`; anything else is refused |
//! | welcomed | both | NF: `Routed`, `Report`, `Tell`, `State`, `TookOver`, `Leaving`; manager: the others |
//! | leaving | nobody | the NF has published its last turn; packets that still wait go to a sibling |
//!
//! Sources: `unix(7)`, `seq_packet` and `SCM_RIGHTS`.

mod line;
mod messages;
mod socket_path;

pub use line::{Error, Line, Listener, MAX_MESSAGE, Peer};
pub use messages::{
    Answer, ChainHop, Edge, EdgeId, Hello, InstanceId, Message, MessageError, Next, PARENT, PROTOCOL_VERSION,
    Request, RingGrant, Route, START_TOKEN, Say, ServiceId, Slots, Target, Welcome,
};
pub use socket_path::{default_socket, socket_from};
