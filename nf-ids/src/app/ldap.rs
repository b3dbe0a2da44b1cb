//! LDAP (RFC 4511): operations. A request and its responses are a transaction.

use super::asn1::{find, item, items, number};
use super::store::{Pending, Reader, Store};
use super::{Event, Number, Progress, Step, side};
use crate::flow::Direction;

/// Longest message.
const MOST_MESSAGE: usize = 1 << 20;
/// Requests that wait for their last response.
const MOST_OPEN: usize = 256;

/// Reads messages.
#[derive(Debug, Default)]
pub(super) struct Ldap {
    pending: [Pending; 2],
    /// Message id, transaction, responses so far.
    open: Vec<(u64, u64, u64)>,
}

impl Ldap {
    /// One message: the value of its outermost sequence.
    fn message(&mut self, store: &mut Store, direction: Direction, message: &[u8]) {
        let mut parts = items(message);
        let own = parts.next().filter(|one| one.tag == 2).and_then(|one| number(one.value));
        let operation = parts.next().map(|one| u64::from(one.tag & 0x1f));
        let (Some(own), Some(operation)) = (own, operation) else {
            let id = store.create(Some(direction));
            store.event(id, Event::LdapInvalidData);
            store.reach(id, direction, Progress::Complete);
            return;
        };
        if direction == Direction::ToServer {
            let id = store.create(None);
            store.number(id, Number::LdapRequestOperation, direction, operation);
            store.field(id, "operation", operation);
            store.field(id, "message_id", own);
            store.reach(id, direction, Progress::Complete);
            // Unbind and abandon have no response.
            if matches!(operation, 2 | 16) {
                store.complete(id);
            } else if self.open.len() >= MOST_OPEN {
                store.event(id, Event::LdapTooManyTransactions);
            } else {
                self.open.push((own, id, 0));
            }
            return;
        }
        let Some(at) = self.open.iter().position(|(number, _, _)| *number == own) else {
            let id = store.create(Some(direction));
            store.event(id, Event::LdapRequestNotFound);
            store.number(id, Number::LdapResponsesOperation, direction, operation);
            store.reach(id, direction, Progress::Complete);
            return;
        };
        let (_, id, count) = &mut self.open[at];
        *count += 1;
        store.number(*id, Number::LdapResponsesOperation, direction, operation);
        // Entries, references and intermediate responses are followed by others.
        if !matches!(operation, 4 | 19 | 25) {
            store.number(*id, Number::LdapResponsesCount, direction, *count);
            store.complete(*id);
            self.open.remove(at);
        }
    }
}

impl Reader for Ldap {
    fn data(&mut self, store: &mut Store, direction: Direction, bytes: &[u8]) -> Step {
        let at = side(direction);
        let all = self.pending[at].with(bytes);
        let mut rest = &all[..];
        while let Some((message, after)) = item(rest) {
            if message.tag != 0x30 {
                return Step::Stop;
            }
            self.message(store, direction, message.value);
            // StartTLS granted: what follows is TLS (RFC 4511, section 4.14).
            let extended = items(message.value).nth(1).filter(|one| one.tag == 0x78);
            let granted =
                extended.is_some_and(|one| find(one.value, 0x8a) == Some(b"1.3.6.1.4.1.1466.20037"));
            rest = after;
            if granted && direction == Direction::ToClient {
                return Step::Change(Some(super::Protocol::Tls), rest.len());
            }
        }
        if rest.len() > MOST_MESSAGE {
            return Step::Stop;
        }
        let rest = rest.len();
        self.pending[at].keep(all, rest);
        Step::Go
    }

    fn memory(&self) -> usize {
        self.pending.iter().map(Pending::memory).sum::<usize>() + self.open.capacity() * 24
    }
}
