//! Transfers of FTP: a control connection says which connection will carry a file, and what file.
//!
//! ```text
//! control:  PASV / EPSV ◀ 227, 229 port      PORT / EPRT port       then RETR name / STOR name ─▶ Transfer
//! data:     the first bytes of a flow between the same hosts to that port are the file
//! ```
//! A client often connects before it says what it wants, so that a flow is asked for when its first data come, not when it
//! begins. The engine keeps what is announced, for a bounded time and a bounded number.

use super::store::{Reader, Store};
use super::{Buffer, Number, Progress, Step, opposite};
use crate::flow::Direction;

/// Bytes of a file that are kept.
const MOST_FILE: usize = 2 << 20;
/// Number of `RETR` among those that `ftpdata_command` knows.
pub(crate) const RETRIEVES: u64 = 1;
/// Number of `STOR`.
pub(crate) const STORES: u64 = 2;

/// A file that another connection will carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Port that the connection goes to.
    pub port: u16,
    /// The client sends the file (`STOR`); else it gets it (`RETR`).
    pub stores: bool,
    /// Its name, as the command says it.
    pub name: Vec<u8>,
}

/// Reads the connection that a transfer was announced for: one transaction, in the direction of its bytes.
#[derive(Debug)]
pub(super) struct Data {
    transfer: Transfer,
    /// The transaction and its direction, once there were bytes.
    begun: Option<(u64, Direction)>,
}

impl Data {
    /// Of an announced transfer.
    pub(super) fn new(transfer: Transfer) -> Self {
        Data { transfer, begun: None }
    }

    fn begin(&mut self, store: &mut Store, direction: Direction) -> (u64, Direction) {
        let id = store.create(None);
        let Transfer { stores, name, .. } = &self.transfer;
        // As Suricata has it: what is fetched is asked for in the client's direction, what is stored in the server's,
        // whoever has opened the connection.
        let (way, number, word) = if *stores {
            (Direction::ToServer, STORES, "STOR")
        } else {
            (Direction::ToClient, RETRIEVES, "RETR")
        };
        store.number(id, Number::FtpDataCommand, way, number);
        store.field(id, "command", word);
        store.text(id, "filename", name);
        store.put(id, Buffer::FileName, direction, name);
        store.put(id, Buffer::FileData, direction, b"");
        store.reach(id, opposite(direction), Progress::Complete);
        self.begun = Some((id, direction));
        (id, direction)
    }
}

impl Reader for Data {
    fn data(&mut self, store: &mut Store, direction: Direction, bytes: &[u8]) -> Step {
        let (id, own) = self.begun.unwrap_or_else(|| self.begin(store, direction));
        if own == direction {
            store.extend(id, Buffer::FileData, direction, bytes, MOST_FILE);
        }
        Step::Go
    }

    fn gap(&mut self, _: &mut Store, _: Direction, _: usize) -> bool {
        // What follows a gap would stand at another place of the file.
        false
    }

    fn memory(&self) -> usize {
        self.transfer.name.capacity()
    }
}
