//! DHCP (RFC 2131): the times of leases. Each message is a transaction.

use super::store::{Reader, Store};
use super::{Event, Number, Progress, Step};
use crate::flow::Direction;

/// Where the options begin, after the fixed part and the cookie.
const OPTIONS: usize = 240;

/// Reads datagrams.
#[derive(Debug)]
pub(super) struct Dhcp;

impl Reader for Dhcp {
    fn data(&mut self, store: &mut Store, direction: Direction, bytes: &[u8]) -> Step {
        let id = store.create(Some(direction));
        store.field(id, "type", if bytes.first() == Some(&1) { "request" } else { "reply" });
        if let Some(number) = bytes.get(4..8) {
            store.field(id, "id", u32::from_be_bytes([number[0], number[1], number[2], number[3]]));
        }
        let mut rest = bytes.get(OPTIONS..).unwrap_or_default();
        loop {
            match rest {
                [] | [255, ..] => break,
                [0, after @ ..] => rest = after,
                [code, length, after @ ..] => {
                    let Some((value, after)) = after.split_at_checked(usize::from(*length)) else {
                        store.event(id, Event::DhcpTruncatedOptions);
                        break;
                    };
                    option(store, id, direction, *code, value);
                    rest = after;
                }
                [_] => {
                    store.event(id, Event::DhcpTruncatedOptions);
                    break;
                }
            }
        }
        store.reach(id, direction, Progress::Complete);
        Step::Go
    }

    fn memory(&self) -> usize {
        0
    }
}

/// One option (RFC 2132, section 9).
fn option(store: &mut Store, id: u64, way: Direction, code: u8, value: &[u8]) {
    let time = match code {
        51 => (Number::DhcpLeaseTime, "lease_time"),
        58 => (Number::DhcpRenewalTime, "renewal_time"),
        59 => (Number::DhcpRebindingTime, "rebinding_time"),
        12 => return store.text(id, "hostname", value),
        53 => return store.field(id, "dhcp_type", value.first().copied().unwrap_or(0)),
        _ => return,
    };
    match value {
        [a, b, c, d] => {
            let seconds = u32::from_be_bytes([*a, *b, *c, *d]);
            store.number(id, time.0, way, u64::from(seconds));
            store.field(id, time.1, seconds);
        }
        _ => store.event(id, Event::DhcpMalformedOptions),
    }
}
