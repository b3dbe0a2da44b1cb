//! Putting TCP segments in order, with an event for everything that is wrong in them.
//!
//! ```text
//!            SYN             SYN+ACK            ACK
//! no session ───▶ SynSent ─────────▶ SynReceived ───▶ Established ──FIN of the server──▶ FinWait1 ─▶ FinWait2 ─┐
//!                                                          │                                └─▶ Closing ───────┤
//!                                                          └────FIN of the client──▶ CloseWait ─▶ LastAck      ▼
//!                                                                                                  └──▶ TimeWait, Closed
//! ```
//! A session looks at each segment twice. Its *state* decides whether the receiver would take the segment at all: a wrong
//! sequence number, an acknowledgement of what was never sent, an old timestamp make it one that is reported
//! ([`Event`]) and has no say. The data of what is taken is put in order by its *side* ([`Assembler`]).
//!
//! Two readers follow each side: the application layer and the rules for raw content ([`Session::app_chunk`],
//! [`Session::window`]). When only looking on, they see what the receiver has acknowledged; in line, what is in order.
//! Bytes that both have read are forgotten.

mod anew;
mod assembler;
mod checks;
mod closing;
mod established;
mod event;
mod hand_over;
mod handshake;
mod pickup;
mod readers;
mod segment;
mod session;
mod side;
mod window;

pub use assembler::{Assembler, Policy, Put, Span};
pub use event::{Event, Events};
pub use hand_over::Carried;
pub use readers::Chunk;
pub use session::{Session, State, Taken};
pub use side::Side;
pub use window::Window;

/// How sessions are followed.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Sessions whose beginning was not seen are followed.
    pub midstream: bool,
    /// Sessions of which only one side is seen are followed.
    pub asynchronous: bool,
    /// Data is read as it arrives, not when it is acknowledged.
    pub inline: bool,
    /// Which data counts where segments overlap.
    pub policy: Policy,
    /// Bytes of each side that are put in order; 0: all.
    pub depth: u64,
    /// Unless something is due, raw content is inspected when there are so many new bytes.
    pub chunk: u64,
    /// Bytes around what is new that are inspected with it once more, so that a match may begin or end there. All of them
    /// are searched again: it costs as much as so many new ones.
    pub keep: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            midstream: false,
            asynchronous: false,
            inline: false,
            policy: Policy::Bsd,
            depth: 1 << 20,
            chunk: 2560,
            keep: 1024,
        }
    }
}
