//! DNS messages (RFC 1035, section 4): header, questions and records, with bounded names.

use crate::app::Event;
use crate::app::event::note;

/// Length of the header.
pub(super) const HEADER: usize = 12;
/// Longest name that is read, in text.
const MOST_NAME: usize = 1025;
/// Labels and pointers followed for one name.
const MOST_LABELS: usize = 255;
/// Records read of one message.
const MOST_RECORDS: usize = 1024;

/// A name asked for, or a record's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// The name in text, with dots, as sent.
    pub(super) name: Vec<u8>,
    /// Type.
    pub(super) kind: u16,
    /// Class.
    pub(super) class: u16,
    /// Seconds it may be kept; 0 in questions.
    pub(super) ttl: u32,
    /// Content in text, where it is known how.
    pub(super) data: Vec<u8>,
}

/// A whole message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) id: u16,
    pub(super) flags: u16,
    pub(super) queries: Vec<Record>,
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
    pub(super) additionals: Vec<Record>,
    /// High bits of the response code, of an OPT record.
    pub(super) extended: u8,
    pub(super) events: Vec<Event>,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]))
}

/// Whether these bytes can be a message that travels in this direction: known operation, few questions, counts that fit.
pub(in crate::app) fn plausible(bytes: &[u8]) -> bool {
    let counts = |at| u16_at(bytes, at).unwrap_or(u16::MAX);
    let Some(flags) = u16_at(bytes, 2).filter(|_| bytes.len() >= HEADER) else { return false };
    let opcode = flags >> 11 & 15;
    let records: u32 = [4, 6, 8, 10].iter().map(|at| u32::from(counts(*at))).sum();
    opcode <= 6 && counts(4) <= 255 && records > 0 && records <= 4096
}

/// What a name was, apart from its text.
enum Name {
    /// Ends at this offset.
    End(usize),
    /// It was cut short there because it is too long or loops.
    Cut(usize, Event),
}

/// Reads a name at `at`; none when the message ends within it.
fn name(message: &[u8], mut at: usize, into: &mut Vec<u8>) -> Option<Name> {
    let mut end = None;
    for _ in 0..MOST_LABELS {
        let length = usize::from(*message.get(at)?);
        match length {
            0 => return Some(Name::End(end.unwrap_or(at + 1))),
            1..=63 => {
                let label = message.get(at + 1..at + 1 + length)?;
                if into.len() + label.len() + 1 > MOST_NAME {
                    return Some(Name::Cut(end.unwrap_or(at + 1 + length), Event::DnsNameTooLong));
                }
                if !into.is_empty() {
                    into.push(b'.');
                }
                into.extend_from_slice(label);
                at += 1 + length;
            }
            _ if length & 0xc0 == 0xc0 => {
                let target = usize::from(u16_at(message, at)? & 0x3fff);
                let after = *end.get_or_insert(at + 2);
                if target == at {
                    return Some(Name::Cut(after, Event::DnsInfiniteLoop));
                }
                at = target;
            }
            _ => return None,
        }
    }
    let event = if end.is_some() { Event::DnsInfiniteLoop } else { Event::DnsTooManyLabels };
    end.map(|end| Name::Cut(end, event))
}

/// Reads a message. None when not even its questions can be read.
pub(super) fn parse(bytes: &[u8]) -> Option<Message> {
    let mut message = Message { id: u16_at(bytes, 0)?, flags: u16_at(bytes, 2)?, ..Message::default() };
    if bytes.len() < HEADER {
        return None;
    }
    let counts = [4, 6, 8, 10].map(|at| u16_at(bytes, at).unwrap_or(0));
    let mut at = HEADER;
    for _ in 0..counts[0] {
        let (record, next) = question(bytes, at, &mut message.events)?;
        message.queries.push(record);
        at = next;
        if message.queries.len() >= MOST_RECORDS {
            break;
        }
    }
    for (section, count) in counts.iter().enumerate().skip(1) {
        for _ in 0..(*count).min(1024) {
            let Some((record, next)) = resource(bytes, at, &mut message.events) else {
                note(
                    &mut message.events,
                    match section {
                        1 => Event::DnsMalformedData,
                        2 => Event::DnsInvalidAuthorities,
                        _ => Event::DnsInvalidAdditionals,
                    },
                );
                return (section > 1).then_some(message);
            };
            if record.kind == 41 {
                message.extended = u8::try_from(record.ttl >> 24).unwrap_or(0);
            }
            match section {
                1 => message.answers.push(record),
                2 => message.authorities.push(record),
                _ => message.additionals.push(record),
            }
            at = next;
        }
    }
    Some(message)
}

fn named(bytes: &[u8], at: usize, events: &mut Vec<Event>) -> Option<(Vec<u8>, usize)> {
    let mut text = Vec::new();
    match name(bytes, at, &mut text)? {
        Name::End(end) => Some((text, end)),
        Name::Cut(end, event) => {
            note(events, event);
            Some((text, end))
        }
    }
}

fn question(bytes: &[u8], at: usize, events: &mut Vec<Event>) -> Option<(Record, usize)> {
    let (name, at) = named(bytes, at, events)?;
    let (kind, class) = (u16_at(bytes, at)?, u16_at(bytes, at + 2)?);
    Some((Record { name, kind, class, ..Record::default() }, at + 4))
}

fn resource(bytes: &[u8], at: usize, events: &mut Vec<Event>) -> Option<(Record, usize)> {
    let (mut record, at) = question(bytes, at, events)?;
    record.ttl = u32::from(u16_at(bytes, at)?) << 16 | u32::from(u16_at(bytes, at + 2)?);
    let length = usize::from(u16_at(bytes, at + 4)?);
    let start = at + 6;
    let data = bytes.get(start..start + length)?;
    record.data = content(bytes, start, data, record.kind);
    Some((record, start + length))
}

/// The content of a record in text.
fn content(message: &[u8], start: usize, data: &[u8], kind: u16) -> Vec<u8> {
    let target = |skip: usize| {
        let mut text = Vec::new();
        let _ = name(message, start + skip, &mut text);
        text
    };
    match (kind, data) {
        (1, [a, b, c, d]) => std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string().into_bytes(),
        (28, _) => match <[u8; 16]>::try_from(data) {
            Ok(octets) => std::net::Ipv6Addr::from(octets).to_string().into_bytes(),
            Err(_) => Vec::new(),
        },
        (2 | 5 | 6 | 12 | 39, _) => target(0),
        (15, _) if data.len() > 2 => target(2),
        (33, _) if data.len() > 6 => target(6),
        (16, [length, text @ ..]) => text[..text.len().min(usize::from(*length))].to_vec(),
        _ => Vec::new(),
    }
}

/// A message with one question, `www.example.com`, and perhaps an answer that points at it.
#[cfg(test)]
pub(in crate::app) fn sample_for_tests(answer: bool) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, if answer { 0x81 } else { 1 }, 0, 0, 1, 0, u8::from(answer), 0, 0, 0, 0];
    bytes.extend(b"\x03www\x07example\x03com\0\0\x01\0\x01");
    if answer {
        bytes.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x01\x02\x03\x04");
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::sample_for_tests as sample;
    use super::*;

    #[test]
    fn questions_and_answers_are_read() {
        let message = parse(&sample(true)).unwrap();
        assert_eq!(message.queries[0].name, b"www.example.com");
        assert_eq!(message.answers[0].name, b"www.example.com");
        assert_eq!(message.answers[0].data, b"1.2.3.4");
        assert_eq!(message.answers[0].ttl, 60);
        assert!(message.events.is_empty());
    }

    #[test]
    fn loops_end() {
        let mut bytes = sample(false);
        bytes.truncate(HEADER);
        bytes.extend(b"\x01a\xc0\x0c\0\x01\0\x01");
        let message = parse(&bytes).unwrap();
        assert!(message.events.contains(&Event::DnsInfiniteLoop));
        assert!(message.queries[0].name.len() <= MOST_NAME);
    }

    #[test]
    fn every_cut_is_read_or_refused() {
        let whole = sample(true);
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_none(), "{length}");
        }
    }
}
