//! Keywords of application protocols that are not buffers of bytes: numbers, by value or by name, and events.

use super::buffers::{self, modified_buffer, sticky_buffer};
use super::builder::Builder;
use super::compare::Compare;
use super::dates;
use super::interface;
use super::option::unquote;
use super::refusal::Fault;
use super::rule::{TransactionTest, Way};
use super::several::Several;
use super::test::{Content, Place, Test};
use crate::app::transfer::{RETRIEVES, STORES};
use crate::app::{Buffer, Event, Number};

type Names = &'static [(&'static str, u64)];

/// Numbers: keyword, what it is, the largest, names that stand for values.
const NUMBERS: &[(&str, Number, u64, Names)] = &[
    ("dns.opcode", Number::DnsOpcode, 15, &[]),
    ("dns.rcode", Number::DnsRcode, 65535, RCODES),
    ("dns.rrtype", Number::DnsRrtype, 65535, RECORDS),
    ("tls.cert_chain_len", Number::TlsCertChainLen, 0xffff_ffff, &[]),
    ("dcerpc.opnum", Number::DceOpnum, 65535, &[]),
    ("dce_opnum", Number::DceOpnum, 65535, &[]),
    ("dhcp.leasetime", Number::DhcpLeaseTime, u64::MAX, &[]),
    ("dhcp.rebinding_time", Number::DhcpRebindingTime, u64::MAX, &[]),
    ("dhcp.renewal_time", Number::DhcpRenewalTime, u64::MAX, &[]),
    ("krb5_msg_type", Number::Krb5MsgType, 255, &[]),
    ("krb5.msg_type", Number::Krb5MsgType, 255, &[]),
    ("krb5_err_code", Number::Krb5ErrCode, 0xffff_ffff, &[]),
    ("krb5.err_code", Number::Krb5ErrCode, 0xffff_ffff, &[]),
    ("mqtt.type", Number::MqttType, 15, MQTT),
    ("mqtt.protocol_version", Number::MqttProtocolVersion, 255, &[]),
    ("mqtt.qos", Number::MqttQos, 2, &[]),
    ("mqtt.reason_code", Number::MqttReasonCode, 255, &[]),
    ("mqtt.connack.return_code", Number::MqttReasonCode, 255, &[]),
    (
        "mqtt.connack.session_present",
        Number::MqttSessionPresent,
        1,
        &[("true", 1), ("yes", 1), ("false", 0), ("no", 0)],
    ),
    ("rfb.sectype", Number::RfbSecType, 0xffff_ffff, &[]),
    (
        "rfb.secresult",
        Number::RfbSecResult,
        0xffff_ffff,
        &[("ok", 0), ("fail", 1), ("toomany", 2), ("unknown", 3)],
    ),
    ("snmp.version", Number::SnmpVersion, 255, &[]),
    ("snmp.pdu_type", Number::SnmpPduType, 255, &[]),
    ("ldap.request.operation", Number::LdapRequestOperation, 255, LDAP),
    ("ldap.responses.operation", Number::LdapResponsesOperation, 255, LDAP),
    ("ldap.responses.count", Number::LdapResponsesCount, 0xffff_ffff, &[]),
    ("ftp.dynamic_port", Number::FtpDynamicPort, 65535, &[]),
    ("ftpdata_command", Number::FtpDataCommand, 2, &[("retr", RETRIEVES), ("stor", STORES)]),
    (
        "websocket.opcode",
        Number::WebsocketOpcode,
        15,
        &[
            ("continuation", 0),
            ("text", 1),
            ("binary", 2),
            ("connection_close", 8),
            ("ping", 9),
            ("pong", 10),
        ],
    ),
    ("websocket.mask", Number::WebsocketMask, 0xffff_ffff, &[]),
    ("http2.frametype", Number::Http2FrameType, 255, FRAMES),
    ("http2.errorcode", Number::Http2ErrorCode, 0xffff_ffff, H2_ERRORS),
    ("http2.priority", Number::Http2Priority, 255, &[]),
    ("http2.window", Number::Http2Window, 0xffff_ffff, &[]),
    ("http2.size_update", Number::Http2SizeUpdate, u64::MAX, &[]),
];

const VERSIONS: Names = &[
    ("1.0", 0x0301),
    ("1.1", 0x0302),
    ("1.2", 0x0303),
    ("1.3", 0x0304),
    ("sslv2", 2),
    ("sslv3", 0x0300),
    ("tls1.0", 0x0301),
    ("tls1.1", 0x0302),
    ("tls1.2", 0x0303),
    ("tls1.3", 0x0304),
];
const RECORDS: Names = &[
    ("a", 1),
    ("ns", 2),
    ("cname", 5),
    ("soa", 6),
    ("null", 10),
    ("ptr", 12),
    ("hinfo", 13),
    ("mx", 15),
    ("txt", 16),
    ("aaaa", 28),
    ("srv", 33),
    ("naptr", 35),
    ("dname", 39),
    ("opt", 41),
    ("ds", 43),
    ("sshfp", 44),
    ("rrsig", 46),
    ("nsec", 47),
    ("dnskey", 48),
    ("nsec3", 50),
    ("tlsa", 52),
    ("svcb", 64),
    ("https", 65),
    ("spf", 99),
    ("any", 255),
    ("uri", 256),
];
const RCODES: Names = &[
    ("noerror", 0),
    ("formerr", 1),
    ("servfail", 2),
    ("nxdomain", 3),
    ("notimp", 4),
    ("refused", 5),
    ("yxdomain", 6),
    ("yxrrset", 7),
    ("nxrrset", 8),
    ("notauth", 9),
    ("notzone", 10),
    ("badvers", 16),
    ("badsig", 16),
    ("badkey", 17),
    ("badtime", 18),
];
const MQTT: Names = &[
    ("connect", 1),
    ("connack", 2),
    ("publish", 3),
    ("puback", 4),
    ("pubrec", 5),
    ("pubrel", 6),
    ("pubcomp", 7),
    ("subscribe", 8),
    ("suback", 9),
    ("unsubscribe", 10),
    ("unsuback", 11),
    ("pingreq", 12),
    ("pingresp", 13),
    ("disconnect", 14),
    ("auth", 15),
    ("unassigned", 0),
];
const LDAP: Names = &[
    ("bind_request", 0),
    ("bind_response", 1),
    ("unbind_request", 2),
    ("search_request", 3),
    ("search_result_entry", 4),
    ("search_result_done", 5),
    ("modify_request", 6),
    ("modify_response", 7),
    ("add_request", 8),
    ("add_response", 9),
    ("del_request", 10),
    ("del_response", 11),
    ("mod_dn_request", 12),
    ("mod_dn_response", 13),
    ("compare_request", 14),
    ("compare_response", 15),
    ("abandon_request", 16),
    ("search_result_reference", 19),
    ("extended_request", 23),
    ("extended_response", 24),
    ("intermediate_response", 25),
];
const FRAMES: Names = &[
    ("data", 0),
    ("headers", 1),
    ("priority", 2),
    ("rst_stream", 3),
    ("settings", 4),
    ("push_promise", 5),
    ("ping", 6),
    ("goaway", 7),
    ("window_update", 8),
    ("continuation", 9),
];
const H2_ERRORS: Names = &[
    ("no_error", 0),
    ("protocol_error", 1),
    ("internal_error", 2),
    ("flow_control_error", 3),
    ("settings_timeout", 4),
    ("stream_closed", 5),
    ("frame_size_error", 6),
    ("refused_stream", 7),
    ("cancel", 8),
    ("compression_error", 9),
    ("connect_error", 10),
    ("enhance_your_calm", 11),
    ("inadequate_security", 12),
    ("http_1_1_required", 13),
    ("http11_required", 13),
];
/// Flags by name: keyword, number, names of bits.
const FLAGS: &[(&str, Number, Names)] = &[
    ("websocket.flags", Number::WebsocketFlags, &[("fin", 0x80), ("comp", 0x40)]),
    ("mqtt.flags", Number::MqttFlags, &[("retain", 1), ("dup", 8)]),
    (
        "mqtt.connect.flags",
        Number::MqttConnectFlags,
        &[("username", 128), ("password", 64), ("will_retain", 32), ("will", 4), ("clean_session", 2)],
    ),
];
const STATES: Names =
    &[("client_hello", 1), ("server_hello", 2), ("client_keyx", 4), ("server_keyx", 8), ("unknown", 16)];

const OTHERS: &[&str] = &[
    "app-layer-event",
    "ssh.protoversion",
    "pkt_data",
    "base64_data",
    "tls.version",
    "ssl_version",
    "ssl_state",
    "tls_cert_notbefore",
    "tls_cert_notafter",
    "tls.cert_notbefore",
    "tls.cert_notafter",
    "tls_cert_expired",
    "tls_cert_valid",
];

/// Every keyword of this room.
pub(crate) fn words() -> impl Iterator<Item = &'static str> {
    let numbers = NUMBERS.iter().map(|(word, ..)| *word).chain(FLAGS.iter().map(|(word, ..)| *word));
    numbers.chain(buffers::words()).chain(OTHERS.iter().copied())
}

/// Takes a keyword of this room; `None` if it is not of it.
pub(crate) fn take(b: &mut Builder, word: &str, value: Option<&str>) -> Option<Result<(), Fault>> {
    if matches!(word, "dcerpc.iface" | "dce_iface") {
        let tests =
            value.ok_or_else(|| Fault::new(word, "has no value")).and_then(|v| interface::tests(word, v));
        let mut put = |test| b.test_of(Buffer::DceInterface, test);
        return Some(tests.and_then(|tests| tests.into_iter().try_for_each(&mut put)));
    }
    if let Some(buffer) = sticky_buffer(word) {
        // `file.data: to_client` and the like name the direction.
        return Some(b.stick(Place::App(buffer)).and_then(|()| direction(b, word, value)));
    }
    if let Some(buffer) = modified_buffer(word) {
        return Some(b.move_content(word, buffer));
    }
    let needed = || value.ok_or_else(|| Fault::new(word, "has no value"));
    if word == "pkt_data" {
        b.unstick();
        return Some(Ok(()));
    }
    if word == "base64_data" {
        let decoded = b.rule.any_test(|t| matches!(t, Test::Base64 { .. }));
        let missing = || Fault::new(word, "has no `base64_decode` before it");
        return Some(if decoded { b.stick(Place::Base64) } else { Err(missing()) });
    }
    if let Some((_, buffer)) = buffers::CONTENTS.iter().find(|(w, _)| *w == word) {
        return Some(needed().and_then(|v| content(b, word, *buffer, v)));
    }
    if word == "ssh.protoversion" {
        return Some(needed().and_then(|v| ssh_version(b, v)));
    }
    let test = if let Some((name, number, most, names)) = NUMBERS.iter().find(|(w, ..)| *w == word) {
        needed().and_then(|v| number_test(name, *number, *most, names, v))
    } else if let Some((name, number, names)) = FLAGS.iter().find(|(w, ..)| *w == word) {
        needed().and_then(|v| flags(name, *number, names, v))
    } else {
        match word {
            "tls.version" => needed().and_then(tls_version),
            "app-layer-event" => needed().and_then(event),
            "ssl_version" => needed().and_then(ssl_version),
            "ssl_state" => needed().and_then(ssl_state),
            "tls_cert_notbefore" | "tls.cert_notbefore" => needed()
                .and_then(|v| dates::compare(word, v))
                .map(|c| TransactionTest::Number(Number::TlsCertNotBefore, c)),
            "tls_cert_notafter" | "tls.cert_notafter" => needed()
                .and_then(|v| dates::compare(word, v))
                .map(|c| TransactionTest::Number(Number::TlsCertNotAfter, c)),
            "tls_cert_expired" => Ok(TransactionTest::CertificateValid(false)),
            "tls_cert_valid" => Ok(TransactionTest::CertificateValid(true)),
            _ => return None,
        }
    };
    Some(test.map(|test| b.rule.transaction.push(test)))
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
    if b.rule.arrow == super::rule::Arrow::Transaction {
        let section = b.section(false)?;
        b.rule.sections[section].way = Some(way);
    } else {
        b.rule.flow.way = Some(way);
    }
    Ok(())
}

fn event(name: &str) -> Result<TransactionTest, Fault> {
    let unknown = || {
        Fault::new("app-layer-event", format!("`{name}` is no event that is raised"))
            .or_nearest(name, Event::names())
    };
    Event::by_name(name).map(TransactionTest::Event).ok_or_else(unknown)
}

fn number_test(
    word: &str,
    number: Number,
    most: u64,
    names: Names,
    value: &str,
) -> Result<TransactionTest, Fault> {
    let value = if value.contains('"') { unquote(word, value)?.0 } else { value };
    if number.is_multiple()
        && let Some(count) = Several::count(word, value)
    {
        return count.map(|count| TransactionTest::Several(number, count));
    }
    // After a comma stands which of several is asked.
    let (value, which) = match value.split_once(',').filter(|_| number.is_multiple()) {
        Some((value, which)) => (value, Some(which).filter(|which| which.trim() != "any")),
        None => (value, None),
    };
    let (sign, name) = value.split_at(value.find(|c: char| c.is_ascii_alphanumeric()).unwrap_or(0));
    let named = names.iter().find(|(n, _)| n.eq_ignore_ascii_case(name.trim()));
    let text = named.map_or_else(|| value.to_string(), |(_, n)| format!("{sign}{n}"));
    let compare = Compare::parse(word, &text, most).map_err(|fault| {
        if names.is_empty() { fault } else { fault.or_nearest(name, names.iter().map(|(n, _)| *n)) }
    })?;
    match which {
        Some(which) => Several::parse(word, compare, which).map(|all| TransactionTest::Several(number, all)),
        None => Ok(TransactionTest::Number(number, compare)),
    }
}

fn flags(word: &str, number: Number, names: Names, value: &str) -> Result<TransactionTest, Fault> {
    let (mut mask, mut set) = (0, 0);
    for part in value.split(',').map(str::trim) {
        let (name, negated) = part.strip_prefix('!').map_or((part, false), |rest| (rest, true));
        let unknown = || {
            Fault::new(word, format!("`{name}` is no flag of it"))
                .or_nearest(name, names.iter().map(|(n, _)| *n))
        };
        let bit = names.iter().find(|(n, _)| *n == name).map(|(_, bit)| *bit).ok_or_else(unknown)?;
        mask |= bit;
        set |= if negated { 0 } else { bit };
    }
    Ok(TransactionTest::Number(number, Compare::Masked(mask, set, true)))
}

/// A version by its name, which for 1.3 is that of its drafts, too; or its number alone.
fn tls_version(value: &str) -> Result<TransactionTest, Fault> {
    let text = if value.contains('"') { unquote("tls.version", value)?.0 } else { value };
    match VERSIONS.iter().find(|(name, _)| *name == text.trim()) {
        Some((_, version)) => Ok(TransactionTest::Versions(vec![*version], Vec::new())),
        None => number_test("tls.version", Number::TlsVersion, 65535, VERSIONS, text),
    }
}

/// A list of versions, of which one must be it; those with `!` must not.
fn ssl_version(value: &str) -> Result<TransactionTest, Fault> {
    const WORD: &str = "ssl_version";
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for part in value.split(',').map(str::trim) {
        let (name, negated) = part.strip_prefix('!').map_or((part, false), |rest| (rest.trim(), true));
        let known = VERSIONS.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| *v);
        let unknown = || {
            Fault::new(WORD, format!("`{name}` is no version"))
                .or_nearest(name, VERSIONS.iter().map(|(n, _)| *n))
        };
        let version = known.ok_or_else(unknown)?;
        if negated { without.push(version) } else { with.push(version) }
    }
    Ok(TransactionTest::Versions(with, without))
}

/// States, joined with `|` or `,`: one of them must have been reached; with `!`, none.
fn ssl_state(value: &str) -> Result<TransactionTest, Fault> {
    const WORD: &str = "ssl_state";
    let (text, negated) = value.strip_prefix('!').map_or((value, false), |rest| (rest, true));
    let mut mask = 0;
    for name in text.split(['|', ',']).map(str::trim) {
        let known = STATES.iter().find(|(n, _)| *n == name).map(|(_, bit)| *bit);
        let unknown = || {
            Fault::new(WORD, format!("`{name}` is no state")).or_nearest(name, STATES.iter().map(|(n, _)| *n))
        };
        mask |= known.ok_or_else(unknown)?;
    }
    Ok(TransactionTest::Number(Number::SslState, Compare::Masked(mask, 0, negated)))
}

/// `ssh.protoversion:2.0`, or `2_compat` for those that speak version 2.
fn ssh_version(b: &mut Builder, value: &str) -> Result<(), Fault> {
    const WORD: &str = "ssh.protoversion";
    let (text, negated) = unquote(WORD, value)?;
    let plain = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    let expression = match text {
        "2_compat" => "^(?:2(?:\\.\\d+)?|1\\.99)\\z".to_string(),
        _ if plain => format!("^{}\\z", text.replace('.', "\\.")),
        _ => return Err(Fault::new(WORD, format!("`{text}` is neither a version nor `2_compat`"))),
    };
    let pcre =
        super::test::Pcre { expression, negated, relative: false, unlimited: false, captures: Vec::new() };
    b.test_of(Buffer::SshProto, Test::Pcre(pcre))
}

/// A `content` under another name. A file's extension is what its name ends with.
fn content(b: &mut Builder, word: &str, buffer: Buffer, value: &str) -> Result<(), Fault> {
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
    let mut content = Content::new(pattern, negated);
    content.nocase = nocase;
    content.ends = extension;
    b.test_of(buffer, Test::Content(content))
}
