//! MQTT 3.1, 3.1.1 and 5: a message and its acknowledgement are a transaction, of the side that began it.
//!
//! As in Suricata, whatever rules ask of a transaction stands in the direction to the server, also what the broker
//! answered, and can be asked when the transaction is complete.

use super::store::{Pending, Reader, Store};
use super::{Buffer, Event, Number, Step, side};
use crate::flow::Direction;

/// Longest message that is read; longer ones are passed over.
const MOST_MESSAGE: usize = 1 << 20;
/// Messages that wait for their acknowledgement.
const MOST_OPEN: usize = 512;

/// What waits for an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    Publish,
    Subscribe,
    Unsubscribe,
}

/// Reads messages.
#[derive(Debug, Default)]
pub(super) struct Mqtt {
    pending: [Pending; 2],
    skip: [usize; 2],
    version: u8,
    connected: bool,
    connect: Option<u64>,
    open: Vec<(Waits, u16, u64)>,
}

/// Reads fields one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.bytes(1).map(|one| one[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.bytes(2).map(|two| u16::from_be_bytes([two[0], two[1]]))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.bytes(usize::from(length))
    }

    /// MQTT 5's properties, which are passed over.
    fn properties(&mut self, version: u8) -> Option<()> {
        if version >= 5 {
            let (length, used) = variable(self.0)??;
            self.bytes(used)?;
            self.bytes(length)?;
        }
        Some(())
    }
}

/// A length in one to four bytes and how many those are; inner none: it goes on too long; outer none: cut short.
fn variable(bytes: &[u8]) -> Option<Option<(usize, usize)>> {
    let mut length = 0;
    for at in 0..4 {
        let byte = *bytes.get(at)?;
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some(Some((length, at + 1)));
        }
    }
    Some(None)
}

impl Mqtt {
    /// One message.
    fn message(&mut self, store: &mut Store, direction: Direction, first: u8, body: &[u8]) {
        let kind = first >> 4;
        let quality = first >> 1 & 3;
        let id = self.transaction(store, direction, kind, body);
        let direction = Direction::ToServer;
        store.number(id, Number::MqttType, direction, u64::from(kind));
        store.number(id, Number::MqttQos, direction, u64::from(quality));
        store.number(id, Number::MqttFlags, direction, u64::from(first & 15));
        if quality == 3 {
            store.event(id, Event::MqttInvalidQos);
        }
        let introduced = self.connected || matches!(kind, 1 | 2);
        if !introduced {
            store.event(id, Event::MqttUnintroduced);
        }
        let read = match kind {
            1 => self.connect(store, id, direction, body),
            2 => self.connect_answer(store, id, direction, body),
            3 => self.publish(store, id, direction, quality, body),
            4..=7 => self.acknowledge(store, id, direction, kind, body),
            8 | 10 => self.topics(store, id, direction, kind, body),
            9 | 11 => self.topics_answer(store, id, direction, kind, body),
            12 | 13 => {
                store.complete(id);
                Some(())
            }
            14 | 15 if kind == 14 || self.version >= 5 => {
                let code = body.first().copied().unwrap_or(0);
                if self.version >= 5 {
                    store.number(id, Number::MqttReasonCode, direction, u64::from(code));
                }
                store.complete(id);
                Some(())
            }
            _ => {
                store.event(id, Event::MqttUnassignedType);
                store.complete(id);
                Some(())
            }
        };
        if self.version > 0 {
            store.number(id, Number::MqttProtocolVersion, direction, u64::from(self.version));
        }
        if read.is_none() {
            store.event(id, Event::MqttMalformedTraffic);
            store.complete(id);
        }
    }

    /// The transaction that a message belongs to: its own, or that of what it acknowledges.
    fn transaction(&mut self, store: &mut Store, way: Direction, kind: u8, body: &[u8]) -> u64 {
        let number = body.get(..2).map(|two| u16::from_be_bytes([two[0], two[1]]));
        let waits = match kind {
            2 => return self.connect.take().unwrap_or_else(|| store.create(Some(way))),
            4..=7 => Waits::Publish,
            9 => Waits::Subscribe,
            11 => Waits::Unsubscribe,
            _ => return store.create(Some(way)),
        };
        let found = self.open.iter().find(|(what, n, _)| *what == waits && Some(*n) == number);
        found.map_or_else(|| store.create(Some(way)), |(_, _, id)| *id)
    }

    fn wait(&mut self, waits: Waits, number: u16, id: u64) {
        if self.open.len() >= MOST_OPEN {
            self.open.remove(0);
        }
        self.open.push((waits, number, id));
    }

    /// Ends the wait for an acknowledgement. Whether anything waited.
    fn arrived(&mut self, waits: Waits, number: u16, last: bool) -> bool {
        let at = self.open.iter().position(|(what, n, _)| *what == waits && *n == number);
        if let Some(at) = at.filter(|_| last) {
            self.open.remove(at);
        }
        at.is_some()
    }

    fn connect(&mut self, store: &mut Store, id: u64, way: Direction, body: &[u8]) -> Option<()> {
        if self.connected || self.connect.is_some() {
            store.event(id, Event::MqttDoubleConnect);
        }
        self.connect = Some(id);
        let mut fields = Fields(body);
        let protocol = fields.text()?;
        self.version = fields.u8()?;
        let flags = fields.u8()?;
        fields.u16()?;
        fields.properties(self.version)?;
        store.put(id, Buffer::MqttConnectProtocol, way, protocol);
        store.number(id, Number::MqttConnectFlags, way, u64::from(flags));
        let client = fields.text()?;
        store.put(id, Buffer::MqttConnectClientId, way, client);
        store.text(id, "client_id", client);
        if flags & 4 != 0 {
            fields.properties(self.version)?;
            store.put(id, Buffer::MqttConnectWillTopic, way, fields.text()?);
            store.put(id, Buffer::MqttConnectWillMessage, way, fields.text()?);
        }
        if flags & 0x80 != 0 {
            let user = fields.text()?;
            store.put(id, Buffer::MqttConnectUsername, way, user);
            store.text(id, "username", user);
        }
        if flags & 0x40 != 0 {
            store.put(id, Buffer::MqttConnectPassword, way, fields.text()?);
        }
        Some(())
    }

    fn connect_answer(&mut self, store: &mut Store, id: u64, way: Direction, body: &[u8]) -> Option<()> {
        let introduced = self.version > 0;
        if !introduced {
            store.event(id, Event::MqttMissingConnect);
        }
        let mut fields = Fields(body);
        let (session, code) = (fields.u8()?, fields.u8()?);
        store.number(id, Number::MqttSessionPresent, way, u64::from(session & 1));
        store.number(id, Number::MqttReasonCode, way, u64::from(code));
        store.field(id, "return_code", code);
        self.connected = true;
        fields.properties(self.version)?;
        store.complete(id);
        Some(())
    }

    fn publish(
        &mut self,
        store: &mut Store,
        id: u64,
        way: Direction,
        quality: u8,
        body: &[u8],
    ) -> Option<()> {
        let mut fields = Fields(body);
        let topic = fields.text()?;
        let number = if quality > 0 { Some(fields.u16()?) } else { None };
        fields.properties(self.version)?;
        store.put(id, Buffer::MqttPublishTopic, way, topic);
        store.text(id, "topic", topic);
        store.put(id, Buffer::MqttPublishMessage, way, fields.0);
        match number {
            Some(number) => self.wait(Waits::Publish, number, id),
            None => store.complete(id),
        }
        Some(())
    }

    fn acknowledge(
        &mut self,
        store: &mut Store,
        id: u64,
        way: Direction,
        kind: u8,
        body: &[u8],
    ) -> Option<()> {
        let mut fields = Fields(body);
        let Some(number) = fields.u16() else {
            store.event(id, Event::MqttMissingMsgId);
            return None;
        };
        let last = matches!(kind, 4 | 7);
        if !self.arrived(Waits::Publish, number, last) {
            store.event(id, Event::MqttMissingPublish);
            store.complete(id);
        }
        if self.version >= 5 {
            let code = fields.u8().unwrap_or(0);
            store.number(id, Number::MqttReasonCode, way, u64::from(code));
        }
        if last {
            store.complete(id);
        }
        Some(())
    }

    fn topics(&mut self, store: &mut Store, id: u64, way: Direction, kind: u8, body: &[u8]) -> Option<()> {
        let mut fields = Fields(body);
        let number = fields.u16()?;
        fields.properties(self.version)?;
        while !fields.0.is_empty() {
            let topic = fields.text()?;
            if kind == 8 {
                fields.u8()?;
                store.put(id, Buffer::MqttSubscribeTopic, way, topic);
            } else {
                store.put(id, Buffer::MqttUnsubscribeTopic, way, topic);
            }
        }
        self.wait(if kind == 8 { Waits::Subscribe } else { Waits::Unsubscribe }, number, id);
        Some(())
    }

    fn topics_answer(
        &mut self,
        store: &mut Store,
        id: u64,
        way: Direction,
        kind: u8,
        body: &[u8],
    ) -> Option<()> {
        let mut fields = Fields(body);
        let number = fields.u16()?;
        let (waits, missing) = match kind {
            9 => (Waits::Subscribe, Event::MqttMissingSubscribe),
            _ => (Waits::Unsubscribe, Event::MqttMissingUnsubscribe),
        };
        if !self.arrived(waits, number, true) {
            store.event(id, missing);
        }
        fields.properties(self.version)?;
        for code in fields.0 {
            store.number(id, Number::MqttReasonCode, way, u64::from(*code));
        }
        store.complete(id);
        Some(())
    }
}

impl Reader for Mqtt {
    fn data(&mut self, store: &mut Store, direction: Direction, bytes: &[u8]) -> Step {
        let at = side(direction);
        let all = self.pending[at].with(bytes);
        let mut rest = &all[..];
        loop {
            let skipped = self.skip[at].min(rest.len());
            self.skip[at] -= skipped;
            rest = &rest[skipped..];
            let Some((first, after)) = rest.split_first() else { break };
            let Some(read) = variable(after) else { break };
            let Some((length, used)) = read else {
                let id = store.create(Some(direction));
                store.event(id, Event::MqttMalformedTraffic);
                store.complete(id);
                return Step::Stop;
            };
            if length > MOST_MESSAGE {
                self.skip[at] = 1 + used + length;
                continue;
            }
            let Some(body) = after.get(used..used + length) else { break };
            self.message(store, direction, *first, body);
            rest = &after[used + length..];
        }
        let rest = rest.len();
        self.pending[at].keep(all, rest);
        Step::Go
    }

    fn memory(&self) -> usize {
        self.pending.iter().map(Pending::memory).sum::<usize>() + self.open.capacity() * 16
    }
}
