//! Options of IPv4 (RFC 791 §3.1, RFC 1108, RFC 2113, RFC 4782), and what can be wrong with them.

use super::{Event, Events};

/// An option, by what `ipopts` calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the rows below tell the names")]
#[repr(u16)]
pub enum OptionKind {
    End = 1,
    NoOperation = 1 << 1,
    RecordRoute = 1 << 2,
    Timestamp = 1 << 3,
    Security = 1 << 4,
    ExtendedSecurity = 1 << 5,
    LooseRoute = 1 << 6,
    StrictRoute = 1 << 7,
    StreamId = 1 << 8,
    QuickStart = 1 << 9,
    RouterAlert = 1 << 10,
    /// Commercial security (FIPS 188); `ipopts` has no name for it.
    Cipso = 1 << 11,
}

impl OptionKind {
    /// All of them, as `ipopts` names them.
    pub const NAMES: &'static [(&'static str, OptionKind)] = &[
        ("eol", OptionKind::End),
        ("nop", OptionKind::NoOperation),
        ("rr", OptionKind::RecordRoute),
        ("ts", OptionKind::Timestamp),
        ("sec", OptionKind::Security),
        ("esec", OptionKind::ExtendedSecurity),
        ("lsrr", OptionKind::LooseRoute),
        ("ssrr", OptionKind::StrictRoute),
        ("satid", OptionKind::StreamId),
        ("qs", OptionKind::QuickStart),
        ("rtralt", OptionKind::RouterAlert),
    ];
}

/// The options that a header has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options(u16);

impl Options {
    /// Whether there is any (`ipopts:any`).
    #[must_use]
    pub fn any(self) -> bool {
        self.0 != 0
    }

    /// Whether it is there.
    #[must_use]
    pub fn has(self, kind: OptionKind) -> bool {
        self.0 & kind as u16 != 0
    }

    /// Reads options; what is odd goes to `events`.
    ///
    /// # Errors
    /// What makes the header useless: lengths that cannot be trusted, an option that contradicts itself.
    pub(super) fn read(mut rest: &[u8], events: &mut Events) -> Result<Self, Event> {
        let mut found = Self::default();
        if !rest.len().is_multiple_of(8) {
            events.set(Event::Ipv4OptionPadding);
        }
        while let Some((&kind, after)) = rest.split_first() {
            match kind {
                0 => {
                    found.0 |= OptionKind::End as u16;
                    return Ok(found);
                }
                1 => {
                    found.0 |= OptionKind::NoOperation as u16;
                    rest = after;
                    continue;
                }
                _ => {}
            }
            let Some(&length) = after.first() else {
                events.set(Event::Ipv4OptionEnd);
                return Ok(found);
            };
            let length = usize::from(length);
            let option = rest.get(..length).filter(|option| option.len() >= 2);
            found.one(kind, option.ok_or(Event::Ipv4OptionLength)?, events)?;
            rest = &rest[length..];
        }
        Ok(found)
    }

    /// Notes an option of two bytes and more.
    fn one(&mut self, number: u8, option: &[u8], events: &mut Events) -> Result<(), Event> {
        let (kind, fault) = match number {
            7 => (OptionKind::RecordRoute, route(option)),
            25 => (OptionKind::QuickStart, at_least(option, 8)),
            68 => (OptionKind::Timestamp, timestamp(option)),
            130 => (OptionKind::Security, at_least(option, 3)),
            131 => (OptionKind::LooseRoute, route(option)),
            133 => (OptionKind::ExtendedSecurity, at_least(option, 3)),
            134 => (OptionKind::Cipso, labels(option)),
            136 => (OptionKind::StreamId, exactly(option, 4)),
            137 => (OptionKind::StrictRoute, route(option)),
            148 => (OptionKind::RouterAlert, exactly(option, 4)),
            _ => {
                events.set(Event::Ipv4OptionInvalid);
                return Ok(());
            }
        };
        if self.has(kind) {
            events.set(Event::Ipv4OptionDuplicate);
            return Ok(());
        }
        fault.map_or(Ok(()), Err)?;
        self.0 |= kind as u16;
        Ok(())
    }
}

fn at_least(option: &[u8], length: usize) -> Option<Event> {
    (option.len() < length).then_some(Event::Ipv4OptionLength)
}

fn exactly(option: &[u8], length: usize) -> Option<Event> {
    (option.len() != length).then_some(Event::Ipv4OptionLength)
}

/// Routes: the pointer counts from 1, points past the pointer itself, and at whole addresses.
fn route(option: &[u8]) -> Option<Event> {
    let Some(&pointer) = option.get(2) else { return Some(Event::Ipv4OptionLength) };
    let wrong = pointer < 4 || !pointer.is_multiple_of(4) || usize::from(pointer) > option.len() + 1;
    wrong.then_some(Event::Ipv4OptionMalformed)
}

/// Security labels (FIPS 188): a domain of four bytes, then tags with their lengths. Of the known ones the byte that aligns
/// is 0, but for tag 7, which has none.
fn labels(option: &[u8]) -> Option<Event> {
    let Some(mut rest) = option.get(6..) else { return Some(Event::Ipv4OptionLength) };
    while !rest.is_empty() {
        let tag = rest.get(1).and_then(|length| rest.get(..usize::from(*length)));
        match tag {
            Some(&[1 | 2 | 5 | 6, _, 0, _, ..] | &[7, _, _, _, ..]) => {}
            _ => return Some(Event::Ipv4OptionMalformed),
        }
        rest = &rest[tag.map_or(0, <[u8]>::len)..];
    }
    None
}

/// Timestamps: likewise, by entries of four bytes, or eight where addresses are recorded.
fn timestamp(option: &[u8]) -> Option<Event> {
    let (Some(&pointer), Some(&flags), true) = (option.get(2), option.get(3), option.len() >= 5) else {
        return Some(Event::Ipv4OptionLength);
    };
    let each = if matches!(flags & 0x0f, 1 | 3) { 8 } else { 4 };
    let wrong = pointer < 5 || !(pointer - 5).is_multiple_of(each) || usize::from(pointer) > option.len() + 1;
    wrong.then_some(Event::Ipv4OptionMalformed)
}
