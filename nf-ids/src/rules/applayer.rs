//! Keywords of application protocols that are not buffers of bytes: numbers, words, events.

use super::buffers::{modified_buffer, sticky_buffer};
use super::builder::Builder;
use super::compare::Compare;
use super::option::unquote;
use super::refusal::Fault;
use super::rule::{TransactionTest, Way};
use super::test::{Content, Place, Test};

/// A keyword whose value is a comparison with a number.
#[derive(Debug)]
pub(crate) struct NumberWord {
    /// The keyword, and the name that the application layer knows the number by.
    pub name: &'static str,
    /// Another keyword for it.
    pub alias: &'static str,
    /// Protocol that has it.
    pub protocol: &'static str,
    /// Where it stands.
    pub way: Option<Way>,
    most: u64,
}

const fn number(
    name: &'static str,
    alias: &'static str,
    protocol: &'static str,
    way: Option<Way>,
    most: u64,
) -> NumberWord {
    NumberWord { name, alias, protocol, way, most }
}

const DOWN: Option<Way> = Some(Way::ToClient);
const LONG: u64 = u64::MAX;

/// Numbers of transactions.
pub(crate) static NUMBERS: &[NumberWord] = &[
    number("dns.opcode", "", "dns", None, 15),
    number("dns.rcode", "", "dns", DOWN, 65535),
    number("dns.rrtype", "", "dns", None, 65535),
    number("tls.cert_chain_len", "", "tls", DOWN, 0xffff_ffff),
    number("http2.priority", "", "http2", None, 255),
    number("http2.window", "", "http2", None, 0xffff_ffff),
    number("http2.size_update", "", "http2", None, 0xffff_ffff),
    number("dcerpc.opnum", "dce_opnum", "dcerpc", None, 65535),
    number("dhcp.leasetime", "", "dhcp", None, LONG),
    number("dhcp.rebinding_time", "", "dhcp", None, LONG),
    number("dhcp.renewal_time", "", "dhcp", None, LONG),
    number("krb5_msg_type", "krb5.msg_type", "krb5", None, 255),
    number("mqtt.protocol_version", "", "mqtt", None, 255),
    number("mqtt.qos", "", "mqtt", None, 2),
    number("mqtt.reason_code", "mqtt.connack.return_code", "mqtt", None, 255),
    number("rfb.sectype", "", "rfb", None, 0xffff_ffff),
    number("snmp.version", "", "snmp", None, 255),
    number("ldap.responses.count", "", "ldap", DOWN, 0xffff_ffff),
    number("websocket.mask", "", "websocket", None, 0xffff_ffff),
    number("smtp.data_len", "", "smtp", None, LONG),
    number("filesize", "file.size", "http", None, LONG),
];

/// Keywords whose value is a word that the application layer understands, and their protocols.
pub(crate) static WORD_TESTS: &[(&str, &str, Option<Way>)] = &[
    ("tls.version", "tls", None),
    ("ssl_version", "tls", None),
    ("ssl_state", "tls", None),
    ("tls_cert_notbefore", "tls", DOWN),
    ("tls_cert_notafter", "tls", DOWN),
    ("tls_cert_expired", "tls", DOWN),
    ("tls_cert_valid", "tls", DOWN),
    ("ssh.protoversion", "ssh", None),
    ("mqtt.type", "mqtt", None),
    ("mqtt.flags", "mqtt", None),
    ("mqtt.connect.flags", "mqtt", None),
    ("http2.frametype", "http2", None),
    ("http2.errorcode", "http2", None),
    ("http2.settings", "http2", None),
    ("ldap.request.operation", "ldap", Some(Way::ToServer)),
    ("ldap.responses.operation", "ldap", DOWN),
    ("rfb.secresult", "rfb", None),
    ("dcerpc.iface", "dcerpc", None),
    ("krb5_err_code", "krb5", None),
    ("snmp.pdu_type", "snmp", None),
    ("ftpdata_command", "ftp-data", None),
    ("websocket.opcode", "websocket", None),
    ("websocket.flags", "websocket", None),
];

/// Older words for some of them.
const SAME: &[(&str, &str)] = &[
    ("tls.cert_notbefore", "tls_cert_notbefore"),
    ("tls.cert_notafter", "tls_cert_notafter"),
    ("dce_iface", "dcerpc.iface"),
    ("ssh.proto_version", "ssh.protoversion"),
    ("krb5.err_code", "krb5_err_code"),
];

/// Older words that are a `content` of a buffer: `tls.subject:"…"`.
const CONTENTS: &[(&str, &str)] = &[
    ("tls.subject", "tls.cert_subject"),
    ("tls.issuerdn", "tls.cert_issuer"),
    ("tls.fingerprint", "tls.cert_fingerprint"),
    ("ssh.softwareversion", "ssh.software"),
    ("filename", "file.name"),
    ("fileext", "file.name"),
];

/// Every keyword of this room.
pub(crate) fn words() -> impl Iterator<Item = &'static str> {
    let numbers = NUMBERS.iter().flat_map(|n| [n.name, n.alias]).filter(|w| !w.is_empty());
    let words = WORD_TESTS.iter().map(|(w, ..)| *w).chain(SAME.iter().map(|(w, _)| *w));
    let buffers = super::buffers::BUFFERS.iter().flat_map(|b| {
        std::iter::once(b.name).chain(b.aliases.iter().copied()).chain(b.modifiers.iter().copied())
    });
    let others = ["app-layer-event", "pkt_data", "base64_data"];
    numbers.chain(words).chain(CONTENTS.iter().map(|(w, _)| *w)).chain(buffers).chain(others)
}

/// Takes a keyword of this room; `None` if it is not of it.
pub(crate) fn take(b: &mut Builder, word: &str, value: Option<&str>) -> Option<Result<(), Fault>> {
    if let Some(buffer) = sticky_buffer(word) {
        // `file.data: to_client` and the like name the direction.
        return Some(b.stick(Place::App(buffer)).and_then(|()| direction(b, word, value)));
    }
    if let Some(buffer) = modified_buffer(word) {
        return Some(b.move_content(word, buffer));
    }
    let needed = || value.ok_or_else(|| Fault::new(word, "has no value"));
    match word {
        "pkt_data" => {
            b.unstick();
            return Some(Ok(()));
        }
        "base64_data" => {
            if !b.rule.any_test(|t| matches!(t, Test::Base64 { .. })) {
                return Some(Err(Fault::new(word, "has no `base64_decode` before it")));
            }
            return Some(b.stick(Place::Base64));
        }
        "app-layer-event" => {
            return Some(needed().map(|v| b.rule.transaction.push(TransactionTest::Event(v.to_string()))));
        }
        _ => {}
    }
    if let Some((_, buffer)) = CONTENTS.iter().find(|(w, _)| *w == word) {
        return Some(needed().and_then(|v| content(b, word, buffer, v)));
    }
    if let Some(known) = NUMBERS.iter().find(|n| n.name == word || n.alias == word && !word.is_empty()) {
        return Some(needed().and_then(|v| number_test(b, known, v)));
    }
    let word = SAME.iter().find(|(w, _)| *w == word).map_or(word, |(_, w)| w);
    let (name, ..) = WORD_TESTS.iter().find(|(w, ..)| *w == word)?;
    let bare = matches!(*name, "tls_cert_expired" | "tls_cert_valid");
    let value = if bare { Ok(value.unwrap_or_default()) } else { needed() };
    Some(value.and_then(|v| word_test(b, name, v)))
}

fn direction(b: &mut Builder, word: &str, value: Option<&str>) -> Result<(), Fault> {
    let way = match value {
        None => return Ok(()),
        Some("to_client" | "toclient") => Way::ToClient,
        Some("to_server" | "toserver") => Way::ToServer,
        Some(other) => {
            let fault = Fault::new(word, format!("`{other}` is neither `to_client` nor `to_server`"));
            return Err(fault.or_nearest(other, ["to_client", "to_server"]));
        }
    };
    if b.rule.flow.way.is_some_and(|before| before != way) {
        return Err(Fault::new(word, "names the direction that `flow` does not"));
    }
    b.rule.flow.way = Some(way);
    Ok(())
}

fn number_test(b: &mut Builder, known: &'static NumberWord, value: &str) -> Result<(), Fault> {
    let value = if value.contains('"') { unquote(known.name, value)?.0 } else { value };
    // Record types of DNS may be given by their names.
    let text = match record_type(value.trim_start_matches('!')).filter(|_| known.name == "dns.rrtype") {
        Some(n) if value.starts_with('!') => format!("!{n}"),
        Some(n) => n.to_string(),
        None => value.to_string(),
    };
    let compare = Compare::parse(known.name, &text, known.most)?;
    b.rule.transaction.push(TransactionTest::Number(known.name, compare));
    Ok(())
}

fn record_type(name: &str) -> Option<u16> {
    const TYPES: &[(&str, u16)] = &[
        ("A", 1),
        ("NS", 2),
        ("CNAME", 5),
        ("SOA", 6),
        ("PTR", 12),
        ("HINFO", 13),
        ("MX", 15),
        ("TXT", 16),
        ("AAAA", 28),
        ("SRV", 33),
        ("NAPTR", 35),
        ("DNAME", 39),
        ("DS", 43),
        ("SSHFP", 44),
        ("RRSIG", 46),
        ("NSEC", 47),
        ("DNSKEY", 48),
        ("NSEC3", 50),
        ("TLSA", 52),
        ("SVCB", 64),
        ("HTTPS", 65),
        ("SPF", 99),
        ("ANY", 255),
        ("URI", 256),
        ("NULL", 10),
    ];
    TYPES.iter().find(|(n, _)| n.eq_ignore_ascii_case(name.trim())).map(|(_, n)| *n)
}

fn word_test(b: &mut Builder, name: &'static str, value: &str) -> Result<(), Fault> {
    let value = if value.contains('"') { unquote(name, value)?.0 } else { value };
    let (text, negated) = value.strip_prefix('!').map_or((value, false), |rest| (rest, true));
    b.rule.transaction.push(TransactionTest::Word(name, text.trim().to_ascii_lowercase(), negated));
    Ok(())
}

/// A `content` under another name. A file's extension is what its name ends with.
fn content(b: &mut Builder, word: &str, buffer: &str, value: &str) -> Result<(), Fault> {
    let (text, negated) = unquote(word, value)?;
    let mut pattern = super::option::pattern(word, text)?;
    let extension = word == "fileext";
    if extension {
        pattern.insert(0, b'.');
    }
    let nocase = extension || word == "tls.fingerprint" || word == "filename";
    if nocase {
        pattern.make_ascii_lowercase();
    }
    let buffer = sticky_buffer(buffer).ok_or_else(|| Fault::new(word, "has no buffer"))?;
    let content = Content {
        pattern,
        nocase,
        negated,
        offset: None,
        depth: None,
        distance: None,
        within: None,
        starts: false,
        ends: extension,
    };
    b.test_of(buffer, Test::Content(content))
}
