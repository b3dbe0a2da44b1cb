//! Kerberos 5 (RFC 4120): message types and names. Each message is a transaction.

use super::asn1::{find, item, items, number};
use super::store::{Pending, Reader, Store};
use super::{Buffer, Event, Number, Progress, Step, side};
use crate::flow::Direction;

/// Longest message over TCP.
const MOST_MESSAGE: usize = 128 << 10;

/// Reads messages.
#[derive(Debug)]
pub(super) struct Krb5 {
    udp: bool,
    pending: [Pending; 2],
}

/// A principal's name, its parts with slashes.
fn name(principal: &[u8]) -> Option<Vec<u8>> {
    let (sequence, _) = item(principal)?;
    let (strings, _) = item(find(sequence.value, 0xa1)?)?;
    Some(items(strings.value).map(|part| part.value).collect::<Vec<_>>().join(&b'/'))
}

impl Krb5 {
    /// Over UDP or TCP.
    pub(super) fn new(udp: bool) -> Krb5 {
        Krb5 { udp, pending: Default::default() }
    }

    fn message(store: &mut Store, direction: Direction, bytes: &[u8]) {
        let id = store.create(Some(direction));
        let read = item(bytes).and_then(|(message, _)| {
            let (fields, _) = item(message.value)?;
            Some((u64::from(message.tag & 0x1f), fields.value))
        });
        match read {
            Some((kind, fields)) => {
                store.number(id, Number::Krb5MsgType, direction, kind);
                store.field(id, "msg_type", kind);
                // Client and service stand in replies, and the service also in an error.
                let (client, service) = match kind {
                    11 | 13 => (0xa4, ticket_service(fields)),
                    30 => (0xa8, find(fields, 0xaa).and_then(name)),
                    _ => (0, None),
                };
                if let Some(client) = find(fields, client).and_then(name) {
                    store.put(id, Buffer::Krb5Cname, direction, &client);
                    store.text(id, "cname", &client);
                }
                if let Some(service) = service {
                    store.put(id, Buffer::Krb5Sname, direction, &service);
                    store.text(id, "sname", &service);
                }
                if kind == 30
                    && let Some(code) =
                        find(fields, 0xa6).and_then(item).and_then(|(code, _)| number(code.value))
                {
                    store.number(id, Number::Krb5ErrCode, direction, code);
                    store.field(id, "error_code", code);
                }
            }
            None => store.event(id, Event::Krb5MalformedData),
        }
        store.reach(id, direction, Progress::Complete);
    }
}

/// The service that a reply's ticket is for.
fn ticket_service(fields: &[u8]) -> Option<Vec<u8>> {
    let (ticket, _) = item(find(fields, 0xa5)?)?;
    let (parts, _) = item(ticket.value)?;
    name(find(parts.value, 0xa2)?)
}

impl Reader for Krb5 {
    fn data(&mut self, store: &mut Store, direction: Direction, bytes: &[u8]) -> Step {
        if self.udp {
            Krb5::message(store, direction, bytes);
            return Step::Go;
        }
        let at = side(direction);
        let all = self.pending[at].with(bytes);
        let mut rest = &all[..];
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            if length > MOST_MESSAGE {
                return Step::Stop;
            }
            let Some((message, after)) = after.split_at_checked(length) else { break };
            if !message.is_empty() {
                Krb5::message(store, direction, message);
            }
            rest = after;
        }
        let rest = rest.len();
        self.pending[at].keep(all, rest);
        Step::Go
    }

    fn memory(&self) -> usize {
        self.pending.iter().map(Pending::memory).sum()
    }
}
