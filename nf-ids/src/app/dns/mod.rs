//! DNS over UDP and TCP; mDNS and LLMNR, which have the same messages.
//!
//! A query is a transaction of its own, and so is a response: rules for `to_server` look at the one, those for
//! `to_client` at the other. Over TCP each message has its length before it (RFC 1035, section 4.2.2).

mod message;

#[cfg(test)]
pub(super) use message::sample_for_tests;

use super::event::note;
use super::{Buffer, Event, Number, Parser, Progress, Protocol, Step, side};
use crate::flow::Direction;
use message::{Message, Record};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::ops::Range;

/// Transactions after which a flow counts as flooded.
const FLOODED: usize = 500;

/// Whether these bytes can be a message.
pub(super) fn plausible(bytes: &[u8]) -> bool {
    message::plausible(bytes)
}

/// Whether these bytes say that they are a response.
pub(super) fn is_response(bytes: &[u8]) -> bool {
    bytes.get(2).is_some_and(|flags| flags & 0x80 != 0)
}

#[derive(Debug)]
struct Tx {
    direction: Direction,
    message: Message,
}

/// The parser of one flow.
#[derive(Debug)]
pub(super) struct Dns {
    protocol: Protocol,
    udp: bool,
    txs: VecDeque<Tx>,
    first: u64,
    pending: [Vec<u8>; 2],
    /// Bytes of a lost or unreadable message still to come.
    skip: [bool; 2],
}

impl Dns {
    /// With ids from `first`.
    pub(super) fn new(first: u64, protocol: Protocol, udp: bool) -> Dns {
        Dns { protocol, udp, txs: VecDeque::new(), first, pending: Default::default(), skip: [false; 2] }
    }

    fn tx(&self, id: u64) -> Option<&Tx> {
        self.txs.get(usize::try_from(id.checked_sub(self.first)?).ok()?)
    }

    /// One message.
    fn message(&mut self, direction: Direction, bytes: &[u8]) {
        let malformed = match self.protocol {
            Protocol::Mdns => Event::MdnsMalformedData,
            Protocol::Llmnr => Event::LlmnrMalformedData,
            _ => Event::DnsMalformedData,
        };
        let mut message = message::parse(bytes).unwrap_or_else(|| Message {
            events: vec![malformed],
            flags: u16::from_be_bytes([
                bytes.get(2).copied().unwrap_or(0),
                bytes.get(3).copied().unwrap_or(0),
            ]),
            ..Message::default()
        });
        let response = message.flags & 0x8000 != 0;
        if self.protocol == Protocol::Dns {
            if response && direction == Direction::ToServer {
                note(&mut message.events, Event::DnsNotRequest);
            }
            if !response && direction == Direction::ToClient {
                note(&mut message.events, Event::DnsNotResponse);
            }
        }
        if message.flags & 0x40 != 0 {
            note(&mut message.events, Event::DnsZFlagSet);
        }
        if message.flags >> 11 & 15 >= 7 {
            note(&mut message.events, Event::DnsInvalidOpcode);
        }
        if self.txs.len() >= FLOODED {
            note(&mut message.events, Event::DnsFlooded);
        }
        self.txs.push_back(Tx { direction, message });
    }
}

/// The `index`th name that a buffer is.
fn name(message: &Message, buffer: Buffer, index: usize) -> Option<&[u8]> {
    use Buffer as B;
    let section = match buffer {
        B::DnsQuery | B::DnsQueriesName | B::MdnsQueriesName | B::LlmnrQueriesName => &message.queries,
        B::DnsAnswersName | B::MdnsAnswersName | B::LlmnrAnswersName => &message.answers,
        B::DnsAuthoritiesName | B::MdnsAuthoritiesName | B::LlmnrAuthoritiesName => &message.authorities,
        B::DnsAdditionalsName | B::MdnsAdditionalsName | B::LlmnrAdditionalsName => &message.additionals,
        B::DnsResponseName | B::MdnsResponseName | B::LlmnrResponseName if message.flags & 0x8000 != 0 => {
            return names(message).nth(index);
        }
        _ => return None,
    };
    section.get(index).map(|record| &record.name[..])
}

/// All names in a response: of questions and records, and those that records lead to.
fn names(message: &Message) -> impl Iterator<Item = &[u8]> {
    let records = message.answers.iter().chain(&message.authorities).chain(&message.additionals);
    let both = |record: &'_ Record| -> bool {
        // NS, CNAME, SOA (its first), PTR and MX.
        matches!(record.kind, 2 | 5 | 6 | 12 | 15) && !record.data.is_empty()
    };
    let of_records = records.flat_map(move |record| {
        std::iter::once(&record.name[..]).chain(both(record).then_some(&record.data[..]))
    });
    message.queries.iter().map(|query| &query.name[..]).chain(of_records)
}

/// A message that another protocol carries.
#[derive(Debug)]
pub(super) struct Carried(Message);

impl Carried {
    /// Reads it; none when it is no message.
    pub(super) fn parse(bytes: &[u8]) -> Option<Carried> {
        message::parse(bytes).map(Carried)
    }

    /// The `index`th name that a buffer is.
    pub(super) fn name(&self, buffer: Buffer, index: usize) -> Option<&[u8]> {
        if buffer == Buffer::DnsQuery && self.0.flags & 0x8000 != 0 {
            return None;
        }
        name(&self.0, buffer, index)
    }

    /// A number.
    pub(super) fn number(&self, number: Number, index: usize) -> Option<u64> {
        number_of(&self.0, number, index)
    }

    /// EVE's `dns` fields.
    pub(super) fn describe(&self) -> Map<String, Value> {
        describe(&self.0)
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        records_size(&self.0)
    }
}

/// A number of a message.
fn number_of(message: &Message, number: Number, index: usize) -> Option<u64> {
    match number {
        Number::DnsOpcode if index == 0 => Some(u64::from(message.flags >> 11 & 15)),
        Number::DnsRcode if index == 0 && message.flags & 0x8000 != 0 => {
            Some(u64::from(message.flags & 15) | u64::from(message.extended) << 4)
        }
        Number::DnsRrtype => {
            let all = message.queries.iter().chain(&message.answers);
            let all = all.chain(&message.authorities).chain(&message.additionals);
            all.map(|record| u64::from(record.kind)).nth(index)
        }
        _ => None,
    }
}

/// Bytes that a message's records hold.
fn records_size(message: &Message) -> usize {
    let all = [&message.queries, &message.answers, &message.authorities, &message.additionals];
    let one = |record: &Record| record.name.len() + record.data.len() + size_of::<Record>();
    all.iter().flat_map(|section| section.iter()).map(one).sum()
}

impl Parser for Dns {
    fn data(&mut self, direction: Direction, bytes: &[u8]) -> Step {
        if self.udp {
            self.message(direction, bytes);
            return Step::Go;
        }
        let at = side(direction);
        if self.skip[at] {
            return Step::Go;
        }
        let mut pending = std::mem::take(&mut self.pending[at]);
        pending.extend_from_slice(bytes);
        let mut rest = &pending[..];
        while let [high, low, after @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let Some(message) = after.get(..length) else { break };
            if !message.is_empty() {
                self.message(direction, message);
            }
            rest = &after[length..];
        }
        self.pending[at] = rest.to_vec();
        Step::Go
    }

    fn gap(&mut self, direction: Direction, _: usize) -> Step {
        // Where the next message begins is not known any more.
        let at = side(direction);
        self.skip[at] = true;
        self.pending[at] = Vec::new();
        if self.skip == [true, true] { Step::Stop } else { Step::Go }
    }

    fn end(&mut self, _: Direction) {}

    fn ids(&self) -> Range<u64> {
        self.first..self.first + self.txs.len() as u64
    }

    fn progress(&self, _: u64, _: Direction) -> Progress {
        Progress::Complete
    }

    fn buffer(&self, id: u64, buffer: Buffer, direction: Direction, index: usize) -> Option<&[u8]> {
        let tx = self.tx(id).filter(|tx| tx.direction == direction)?;
        name(&tx.message, buffer, index)
    }

    fn number(&self, id: u64, number: Number, direction: Direction, index: usize) -> Option<u64> {
        let tx = self.tx(id).filter(|tx| tx.direction == direction)?;
        number_of(&tx.message, number, index)
    }

    fn events(&self, id: u64) -> &[Event] {
        self.tx(id).map_or(&[], |tx| &tx.message.events)
    }

    fn describe(&self, id: u64) -> Map<String, Value> {
        self.tx(id).map(|tx| describe(&tx.message)).unwrap_or_default()
    }

    fn only(&self, id: u64) -> Option<Direction> {
        self.tx(id).map(|tx| tx.direction)
    }

    fn release(&mut self, below: u64) {
        while self.first < below && self.txs.pop_front().is_some() {
            self.first += 1;
        }
    }

    fn memory(&self) -> usize {
        self.pending.iter().map(Vec::capacity).sum::<usize>()
            + self.txs.iter().map(|tx| size_of::<Tx>() + records_size(&tx.message)).sum::<usize>()
    }
}

/// The name of a record type.
fn kind_name(kind: u16) -> String {
    let name = match kind {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        12 => "PTR",
        13 => "HINFO",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        33 => "SRV",
        35 => "NAPTR",
        41 => "OPT",
        43 => "DS",
        46 => "RRSIG",
        47 => "NSEC",
        48 => "DNSKEY",
        64 => "SVCB",
        65 => "HTTPS",
        252 => "AXFR",
        255 => "ANY",
        _ => return format!("UNKNOWN({kind})"),
    };
    name.to_string()
}

/// Names of response codes.
const CODES: &[&str] = &[
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET",
    "NOTAUTH", "NOTZONE",
];

/// EVE's `dns` fields, in their third version.
fn describe(message: &Message) -> Map<String, Value> {
    let text = super::text::readable;
    let response = message.flags & 0x8000 != 0;
    let mut fields = Map::new();
    fields.insert("version".into(), 3.into());
    fields.insert("type".into(), if response { "response" } else { "request" }.into());
    fields.insert("id".into(), message.id.into());
    fields.insert("flags".into(), format!("{:x}", message.flags).into());
    for (name, bit) in
        [("qr", 0x8000), ("aa", 0x400), ("tc", 0x200), ("rd", 0x100), ("ra", 0x80), ("z", 0x40)]
    {
        if message.flags & bit != 0 {
            fields.insert(name.into(), true.into());
        }
    }
    fields.insert("opcode".into(), (message.flags >> 11 & 15).into());
    let code = usize::from(message.flags & 15) | usize::from(message.extended) << 4;
    let code = CODES.get(code).map_or_else(|| code.to_string(), |name| (*name).to_string());
    fields.insert("rcode".into(), code.into());
    let queries: Vec<Value> = message
        .queries
        .iter()
        .map(|query| json!({"rrname": text(&query.name), "rrtype": kind_name(query.kind)}))
        .collect();
    fields.insert("queries".into(), queries.into());
    let records = |section: &[Record]| -> Vec<Value> {
        let one = |record: &Record| {
            let name = text(&record.name);
            json!({"rrname": name, "rrtype": kind_name(record.kind), "ttl": record.ttl, "rdata": text(&record.data)})
        };
        section.iter().map(one).collect()
    };
    for (name, section) in [
        ("answers", &message.answers),
        ("authorities", &message.authorities),
        ("additionals", &message.additionals),
    ] {
        if !section.is_empty() {
            fields.insert(name.into(), records(section).into());
        }
    }
    let mut grouped: Map<String, Value> = Map::new();
    for answer in message.answers.iter().filter(|answer| !answer.data.is_empty()) {
        let list = grouped.entry(kind_name(answer.kind)).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(text(&answer.data).into());
        }
    }
    if !grouped.is_empty() {
        fields.insert("grouped".into(), grouped.into());
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{ToClient, ToServer};

    #[test]
    fn a_query_and_its_response_are_two_transactions() {
        let mut dns = Dns::new(7, Protocol::Dns, true);
        dns.data(ToServer, &message::sample_for_tests(false));
        dns.data(ToClient, &message::sample_for_tests(true));
        assert_eq!(dns.ids(), 7..9);
        assert_eq!((dns.only(7), dns.only(8)), (Some(ToServer), Some(ToClient)));
        assert_eq!(dns.buffer(7, Buffer::DnsQuery, ToServer, 0), Some(&b"www.example.com"[..]));
        assert_eq!(dns.buffer(7, Buffer::DnsQuery, ToServer, 1), None);
        assert_eq!(dns.buffer(8, Buffer::DnsQuery, ToServer, 0), None);
        assert_eq!(dns.buffer(8, Buffer::DnsAnswersName, ToClient, 0), Some(&b"www.example.com"[..]));
        assert_eq!(dns.number(7, Number::DnsOpcode, ToServer, 0), Some(0));
        assert_eq!(dns.number(7, Number::DnsRcode, ToServer, 0), None);
        assert_eq!(dns.number(8, Number::DnsRcode, ToClient, 0), Some(0));
        assert_eq!(dns.number(8, Number::DnsRrtype, ToClient, 1), Some(1));
        let told = dns.describe(8);
        assert_eq!(told["answers"][0]["rdata"], "1.2.3.4");
        assert_eq!(
            (&told["flags"], &told["rcode"], &told["qr"]),
            (&"8100".into(), &"NOERROR".into(), &true.into())
        );
        assert_eq!(told["grouped"], json!({"A": ["1.2.3.4"]}));
        assert_eq!((&dns.describe(7)["type"], &dns.describe(7)["flags"]), (&"request".into(), &"100".into()));
    }

    #[test]
    fn names_of_a_response_are_also_those_that_records_lead_to() {
        let mut bytes = message::sample_for_tests(true);
        bytes[7] = 2;
        // A mail exchanger of what was asked for: `mx`, at it.
        bytes.extend(b"\xc0\x0c\0\x0f\0\x01\0\0\0\x3c\0\x07\0\x0a\x02mx\xc0\x10");
        let mut dns = Dns::new(0, Protocol::Dns, true);
        dns.data(ToClient, &bytes);
        let name = |index| dns.buffer(0, Buffer::DnsResponseName, ToClient, index);
        assert_eq!((name(0), name(2)), (Some(&b"www.example.com"[..]), Some(&b"www.example.com"[..])));
        assert_eq!(name(3), Some(&b"mx.example.com"[..]));
        assert_eq!(name(4), None);
    }

    #[test]
    fn over_tcp_messages_are_found_however_they_are_cut() {
        let one = message::sample_for_tests(false);
        let length = u16::try_from(one.len()).unwrap().to_be_bytes();
        let stream = [&length[..], &one, &length, &one].concat();
        for piece in 1..stream.len() {
            let mut dns = Dns::new(0, Protocol::Dns, false);
            for part in stream.chunks(piece) {
                dns.data(ToServer, part);
            }
            assert_eq!(dns.ids(), 0..2, "pieces of {piece}");
            assert!(dns.events(1).is_empty());
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let mut dns = Dns::new(0, Protocol::Dns, true);
        dns.data(ToServer, &message::sample_for_tests(true));
        assert_eq!(dns.events(0), [Event::DnsNotRequest]);
        dns.data(ToServer, b"xx");
        assert!(dns.events(1).contains(&Event::DnsMalformedData));
    }
}
