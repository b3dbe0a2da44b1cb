//! EVE's `http` fields of a transaction.

use super::tx::Tx;
use serde_json::{Map, Value};

/// Text for JSON.
fn text(bytes: &[u8]) -> Value {
    Value::String(crate::app::text::readable(bytes))
}

/// The fields.
pub(super) fn describe(tx: &Tx) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Option<&[u8]>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            fields.insert(name.into(), text(value));
        }
    };
    set("hostname", tx.host.as_deref());
    set("url", Some(&tx.uri_raw));
    set("http_user_agent", tx.request.headers.get(b"user-agent"));
    set("xff", tx.request.headers.get(b"x-forwarded-for"));
    let kind = tx.response.headers.get(b"content-type");
    set("http_content_type", kind.map(|kind| kind.split(|byte| *byte == b';').next().unwrap_or(kind)));
    set("http_refer", tx.request.headers.get(b"referer"));
    set("http_method", Some(&tx.method));
    set(
        "protocol",
        Some(if tx.request.protocol.is_empty() { &tx.response.protocol } else { &tx.request.protocol }),
    );
    if let Some(port) = tx.port {
        fields.insert("http_port".into(), port.into());
    }
    if let Some(status) = tx.status_number {
        fields.insert("status".into(), status.into());
        if (300..400).contains(&status)
            && let Some(location) = tx.response.headers.get(b"location")
        {
            fields.insert("redirect".into(), text(location));
        }
    }
    fields.insert("length".into(), tx.response.body.received.into());
    fields
}
