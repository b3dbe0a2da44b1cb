//! EVE's `anomaly`: what is wrong in a packet, in a stream, or in what an application says.
//!
//! ```text
//! {"type":"decode","event":"decoder.ipv4.trunc_pkt"}
//! {"type":"stream","event":"stream.3whs_syn_resend_diff_seq_on_syn_recv"}
//! {"app_proto":"http","type":"applayer","event":"MISSING_HOST_HEADER","layer":"proto_parser"}
//! ```
//! Names are those that users' tools know from Suricata: of the decoder and the stream with a word before them, of the protocols
//! that it reads in C in capitals, of the others as rules write them; without the protocol.

use super::{Kind, Record};
use crate::app::{Event, Protocol};
use crate::{decode, stream};
use serde_json::{Value, json};

/// Protocols whose events are written in capitals.
const CAPITALS: &[Protocol] =
    &[Protocol::Http1, Protocol::Tls, Protocol::Smtp, Protocol::Ftp, Protocol::FtpData, Protocol::Modbus];

/// What is wrong in a packet's headers.
pub fn of_packet(event: decode::Event) -> Value {
    json!({"type": "decode", "event": format!("decoder.{}", event.name())})
}

/// What is wrong in a packet's stream.
pub fn of_stream(event: stream::Event) -> Value {
    json!({"type": "stream", "event": format!("stream.{}", event.name())})
}

/// What is wrong in a transaction of a protocol.
pub fn of_protocol(protocol: Protocol, event: Event) -> Value {
    let name = event.name();
    let (layer, name) = match name.split_once('.') {
        Some((_, rest)) => ("proto_parser", rest),
        // Events of the recognition of protocols have no protocol in their name.
        None => ("proto_detect", name),
    };
    let capitals = layer == "proto_detect" || CAPITALS.contains(&protocol);
    let name = if capitals { name.to_ascii_uppercase() } else { name.to_string() };
    json!({"app_proto": protocol.name(), "type": "applayer", "event": name, "layer": layer})
}

impl Record<'_> {
    /// Makes a packet's record one of an anomaly; `what` is of [`of_packet`], [`of_stream`] or [`of_protocol`].
    #[must_use]
    pub fn of_anomaly(mut self, what: Value) -> Self {
        self.kind = Kind::Anomaly;
        // As Suricata writes it: neither the flow's numbers nor the protocol's fields stand with an anomaly.
        self.flow = None;
        self.metadata = None;
        self.matched = None;
        self.more = Some(("anomaly", what));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anomalies_are_named_as_tools_know_them() {
        let packet = decode::Event::from_name("ipv4.trunc_pkt").unwrap();
        assert_eq!(of_packet(packet), json!({"type": "decode", "event": "decoder.ipv4.trunc_pkt"}));
        let stream = stream::Event::from_name("pkt_invalid_ack").unwrap();
        assert_eq!(of_stream(stream), json!({"type": "stream", "event": "stream.pkt_invalid_ack"}));
        assert_eq!(
            of_protocol(Protocol::Http1, Event::HttpMissingHost),
            json!({"app_proto": "http", "type": "applayer", "event": "MISSING_HOST_HEADER", "layer": "proto_parser"})
        );
        assert_eq!(of_protocol(Protocol::Dns, Event::DnsZFlagSet)["event"], "z_flag_set");
    }

    #[test]
    fn a_record_of_an_anomaly_has_only_that() {
        let (from, to) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut record = Record::new(Kind::Alert, 1, from, to, 6);
        record.flow = Some(super::super::Flow::default());
        record.transaction = Some(4);
        let record = record.of_anomaly(of_protocol(Protocol::Ssh, Event::SshInvalidBanner));
        let line: Value = serde_json::from_str(&super::super::eve::line(&record)).unwrap();
        assert_eq!((&line["event_type"], &line["tx_id"]), (&"anomaly".into(), &4.into()));
        assert_eq!(line["anomaly"]["event"], "invalid_banner");
        assert!(line.get("flow").is_none() && line.get("alert").is_none());
    }
}
