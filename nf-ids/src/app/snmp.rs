//! SNMP 1 to 3 (RFC 1157, 3416, 3412), each message a transaction.

use super::asn1::{find, item, items, number};
use super::store::{Reader, Store};
use super::{Buffer, Event, Number, Progress, Step};
use crate::flow::Direction;

/// Reads datagrams.
#[derive(Debug)]
pub(super) struct Snmp;

/// Version, community or user, and the PDU's tag.
fn parse(bytes: &[u8]) -> Option<(u64, &[u8], Option<u8>)> {
    let (message, _) = item(bytes).filter(|(one, _)| one.tag == 0x30)?;
    let mut parts = items(message.value);
    let version = number(parts.next().filter(|one| one.tag == 2)?.value)?;
    if version < 2 {
        let community = parts.next().filter(|one| one.tag == 4)?.value;
        return Some((version + 1, community, parts.next().map(|pdu| pdu.tag)));
    }
    parts.next()?;
    let security = parts.next().filter(|one| one.tag == 4)?.value;
    let user =
        find(security, 0x30).and_then(|fields| items(fields).nth(3)).map_or(&[][..], |user| user.value);
    let pdu = parts.next().and_then(|scoped| items(scoped.value).nth(2)).map(|pdu| pdu.tag);
    Some((version, user, pdu))
}

impl Reader for Snmp {
    fn data(&mut self, store: &mut Store, direction: Direction, bytes: &[u8]) -> Step {
        let id = store.create(Some(direction));
        match parse(bytes) {
            Some((version, name, pdu)) => {
                store.number(id, Number::SnmpVersion, direction, version);
                store.field(id, "version", version);
                let (buffer, field) = if version == 3 {
                    (Buffer::SnmpUsm, "usm")
                } else {
                    (Buffer::SnmpCommunity, "community")
                };
                store.put(id, buffer, direction, name);
                store.text(id, field, name);
                if let Some(tag) = pdu {
                    store.number(id, Number::SnmpPduType, direction, u64::from(tag & 0x1f));
                }
            }
            None => store.event(id, Event::SnmpMalformedData),
        }
        store.reach(id, direction, Progress::Complete);
        Step::Go
    }

    fn memory(&self) -> usize {
        0
    }
}
