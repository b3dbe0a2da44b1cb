//! What the rest of the program asks of a TLS flow.

use super::{Certificate, Hello, Tls};
use crate::app::{Buffer, Event, Number, Parser, Progress, Step, side};
use crate::flow::Direction;
use serde_json::{Map, Value};
use std::ops::Range;

impl Parser for Tls {
    fn data(&mut self, direction: Direction, bytes: &[u8]) -> Step {
        let at = side(direction);
        self.begun = true;
        if self.sides[at].lost {
            return Step::Go;
        }
        let mut kept = std::mem::take(&mut self.sides[at].pending);
        let mut rest = if kept.is_empty() {
            bytes
        } else {
            kept.extend_from_slice(bytes);
            &kept[..]
        };
        while !rest.is_empty() && !self.sides[at].lost {
            let skipped = self.sides[at].skip.min(rest.len());
            self.sides[at].skip -= skipped;
            rest = &rest[skipped..];
            match self.record(direction, rest) {
                Some(used) => rest = &rest[used.min(rest.len())..],
                None => break,
            }
        }
        if !self.sides[at].lost {
            self.sides[at].pending = rest.to_vec();
        }
        Step::Go
    }

    fn gap(&mut self, direction: Direction, length: usize) -> Step {
        let side = &mut self.sides[side(direction)];
        match side.skip.checked_sub(length) {
            Some(left) => side.skip = left,
            None => {
                side.lost = true;
                side.pending = Vec::new();
                side.handshake = Vec::new();
            }
        }
        Step::Go
    }

    fn end(&mut self, direction: Direction) {
        self.ended[side(direction)] = true;
        self.reach(direction, Progress::Complete);
    }

    fn ids(&self) -> Range<u64> {
        // The transaction stays as long as the flow does: what is wrong in later records is still told.
        self.first..self.first + u64::from(self.begun && !self.released)
    }

    fn progress(&self, _: u64, direction: Direction) -> Progress {
        self.sides[side(direction)].progress
    }

    fn buffer(&self, _: u64, buffer: Buffer, direction: Direction, index: usize) -> Option<&[u8]> {
        let side = &self.sides[side(direction)];
        let hello = self.hello_of(direction);
        let certificate = side.certificate.as_ref();
        match buffer {
            Buffer::TlsCerts => return side.chain.get(index).map(Vec::as_slice),
            Buffer::TlsAlpn => return hello?.alpn.get(index).map(Vec::as_slice),
            Buffer::TlsSubjectAltName => return certificate?.names.get(index).map(Vec::as_slice),
            _ if index > 0 || !buffer.is_in(direction) => return None,
            _ => {}
        }
        match buffer {
            Buffer::TlsSni => self.client.as_ref()?.sni.as_deref(),
            Buffer::TlsRandom => hello.map(|hello| &hello.random[..]),
            Buffer::TlsRandomTime => hello.map(|hello| &hello.random[..4]),
            Buffer::TlsRandomBytes => hello.map(|hello| &hello.random[4..]),
            Buffer::TlsCertSubject => certificate.map(|certificate| &certificate.subject[..]),
            Buffer::TlsCertIssuer => certificate.map(|certificate| &certificate.issuer[..]),
            Buffer::TlsCertSerial => certificate.map(|certificate| &certificate.serial[..]),
            Buffer::TlsCertFingerprint => Some(&side.fingerprint[..]).filter(|text| !text.is_empty()),
            Buffer::Ja3Hash => self.ja3(0),
            Buffer::Ja3String => self.ja3(1),
            Buffer::Ja3sHash => self.ja3s(0),
            Buffer::Ja3sString => self.ja3s(1),
            Buffer::Ja4Hash => {
                let hello = self.client.as_ref()?;
                Some(self.made.ja4.get_or_init(|| hello.ja4('t').into_bytes()))
            }
            _ => None,
        }
    }

    fn number(&self, _: u64, number: Number, direction: Direction, index: usize) -> Option<u64> {
        if index > 0 {
            return None;
        }
        let side = &self.sides[side(direction)];
        let time = |time: i64| u64::try_from(time).unwrap_or(0);
        match number {
            Number::TlsVersion => {
                let version = self.hello_of(direction).map(Hello::preferred_version).or(self.old);
                version.map(u64::from)
            }
            Number::TlsCertNotBefore => side.certificate.as_ref().map(|c| time(c.not_before)),
            Number::TlsCertNotAfter => side.certificate.as_ref().map(|c| time(c.not_after)),
            Number::TlsCertChainLen => Some(side.chain.len() as u64).filter(|count| *count > 0),
            Number::SslState => Some(self.state),
            _ => None,
        }
    }

    fn events(&self, _: u64) -> &[Event] {
        &self.events
    }

    fn events_in(&self, _: u64, direction: Direction) -> &[Event] {
        &self.side_events[side(direction)]
    }

    fn describe(&self, _: u64) -> Map<String, Value> {
        let mut fields = Map::new();
        let text = |bytes: &[u8]| Value::String(crate::app::text::readable(bytes));
        let server = &self.sides[1];
        if let Some(certificate) = &server.certificate {
            describe_certificate(certificate, &mut fields);
        } else if !server.fingerprint.is_empty() {
            fields.insert("fingerprint".into(), text(&server.fingerprint));
        }
        if let Some(name) = self.client.as_ref().and_then(|hello| hello.sni.as_deref()) {
            fields.insert("sni".into(), text(name));
        }
        let version = match self.version() {
            Some(2) => "SSLv2",
            Some(0x0300) => "SSLv3",
            Some(0x0301) => "TLSv1",
            Some(0x0302) => "TLS 1.1",
            Some(0x0303) => "TLS 1.2",
            Some(0x0304) => "TLS 1.3",
            _ => "UNDETERMINED",
        };
        fields.insert("version".into(), version.into());
        for (name, hash, string) in [("ja3", self.ja3(0), self.ja3(1)), ("ja3s", self.ja3s(0), self.ja3s(1))]
        {
            if let (Some(hash), Some(string)) = (hash, string) {
                fields.insert(name.into(), serde_json::json!({"hash": text(hash), "string": text(string)}));
            }
        }
        if let Some(ja4) = self.buffer(self.first, Buffer::Ja4Hash, Direction::ToServer, 0) {
            fields.insert("ja4".into(), text(ja4));
        }
        fields
    }

    fn release(&mut self, below: u64) {
        if below > self.first && self.ended == [true, true] {
            self.released = true;
        }
    }

    fn memory(&self) -> usize {
        let side = |side: &super::Side| {
            side.pending.capacity()
                + side.handshake.capacity()
                + side.chain.iter().map(Vec::capacity).sum::<usize>()
        };
        self.sides.iter().map(side).sum::<usize>() + size_of::<Tls>()
    }
}

fn describe_certificate(certificate: &Certificate, fields: &mut Map<String, Value>) {
    let text = |bytes: &[u8]| Value::String(crate::app::text::readable(bytes));
    fields.insert("subject".into(), text(&certificate.subject));
    fields.insert("issuerdn".into(), text(&certificate.issuer));
    fields.insert("serial".into(), text(&certificate.serial));
    fields.insert("fingerprint".into(), text(&certificate.fingerprint));
    for (name, time) in [("notbefore", certificate.not_before), ("notafter", certificate.not_after)] {
        let day = x509_parser::time::ASN1Time::from_timestamp(time).ok();
        if let Some(day) = day.map(|day| day.to_datetime()) {
            let (hour, minute, second) = day.time().as_hms();
            let month = u8::from(day.month());
            let written =
                format!("{:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}", day.year(), day.day());
            fields.insert(name.into(), written.into());
        }
    }
    if !certificate.names.is_empty() {
        fields.insert("subjectaltname".into(), certificate.names.iter().map(|name| text(name)).collect());
    }
}
