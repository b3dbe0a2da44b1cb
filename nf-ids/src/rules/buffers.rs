//! The buffers that rules look into by name: sticky buffers, the older words for them, and the modifiers that came
//! after a `content`.
//!
//! The table says which protocols a buffer belongs to and in which direction it stands, for the checks that a rule is
//! one that can match. What is in a buffer is the application layer's to say.

use super::rule::{Way, Ways};

/// A buffer of transactions.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Buffer {
    /// The name that the application layer knows it by, and the sticky buffer's keyword.
    pub name: &'static str,
    /// Other sticky keywords.
    pub aliases: &'static [&'static str],
    /// Keywords that follow a `content`.
    pub modifiers: &'static [&'static str],
    /// Letter of `pcre` that names it.
    pub letter: Option<char>,
    /// Protocols that have it.
    pub protocols: &'static [&'static str],
    /// Where it stands: to the server, to the client, or in either direction.
    pub way: Option<Way>,
    /// A transaction may have several: each is a buffer of its own.
    pub many: bool,
}

impl Buffer {
    /// Directions that it stands in.
    #[must_use]
    pub fn ways(&self) -> Ways {
        Ways { to_server: self.way != Some(Way::ToClient), to_client: self.way != Some(Way::ToServer) }
    }
}

const HTTP: &[&str] = &["http"];
const TLS: &[&str] = &["tls"];
const JA: &[&str] = &["tls", "quic"];
const DNS: &[&str] = &["dns"];
const NAMES: &[&str] = &["dns", "mdns"];
const LLMNR: &[&str] = &["llmnr"];
const SSH: &[&str] = &["ssh"];
const FILES: &[&str] = &["http", "smtp", "ftp-data", "smb", "nfs"];
const SIP: &[&str] = &["sip"];
const SMB: &[&str] = &["smb"];
const RPC: &[&str] = &["dcerpc", "smb"];
const MQTT: &[&str] = &["mqtt"];
const KRB5: &[&str] = &["krb5"];
const QUIC: &[&str] = &["quic"];
const RFB: &[&str] = &["rfb"];
const FTP: &[&str] = &["ftp"];
const SMTP: &[&str] = &["smtp"];
const LDAP: &[&str] = &["ldap"];
const NONE: &[&str] = &[];
const UP: Option<Way> = Some(Way::ToServer);
const DOWN: Option<Way> = Some(Way::ToClient);

const fn sticky(
    name: &'static str,
    aliases: &'static [&'static str],
    protocols: &'static [&'static str],
    way: Option<Way>,
) -> Buffer {
    Buffer { name, aliases, modifiers: NONE, letter: None, protocols, way, many: false }
}

const fn many(
    name: &'static str,
    aliases: &'static [&'static str],
    protocols: &'static [&'static str],
    way: Option<Way>,
) -> Buffer {
    Buffer { name, aliases, modifiers: NONE, letter: None, protocols, way, many: true }
}

const fn http(
    name: &'static str,
    modifiers: &'static [&'static str],
    letter: Option<char>,
    way: Option<Way>,
) -> Buffer {
    Buffer { name, aliases: NONE, modifiers, letter, protocols: HTTP, way, many: false }
}

/// Every buffer.
pub static BUFFERS: &[Buffer] = &[
    http("http.uri", &["http_uri"], Some('U'), UP),
    http("http.uri.raw", &["http_raw_uri"], Some('I'), UP),
    http("http.method", &["http_method"], Some('M'), UP),
    http("http.header", &["http_header"], Some('H'), None),
    http("http.header.raw", &["http_raw_header"], Some('D'), None),
    http("http.cookie", &["http_cookie"], Some('C'), None),
    http("http.user_agent", &["http_user_agent"], Some('V'), UP),
    http("http.host", &["http_host"], Some('W'), UP),
    http("http.host.raw", &["http_raw_host"], Some('Z'), UP),
    http("http.request_body", &["http_client_body"], Some('P'), UP),
    http("http.response_body", &["http_server_body"], Some('Q'), DOWN),
    http("http.stat_code", &["http_stat_code"], Some('S'), DOWN),
    http("http.stat_msg", &["http_stat_msg"], Some('Y'), DOWN),
    sticky("http.accept", &["http_accept"], HTTP, UP),
    sticky("http.accept_enc", &["http_accept_enc"], HTTP, UP),
    sticky("http.accept_lang", &["http_accept_lang"], HTTP, UP),
    sticky("http.connection", &["http_connection"], HTTP, None),
    sticky("http.content_len", &["http_content_len"], HTTP, None),
    sticky("http.content_type", &["http_content_type"], HTTP, None),
    sticky("http.header_names", &["http_header_names"], HTTP, None),
    sticky("http.location", &[], HTTP, DOWN),
    sticky("http.protocol", &["http_protocol"], HTTP, None),
    sticky("http.referer", &["http_referer"], HTTP, UP),
    sticky("http.request_line", &["http_request_line"], HTTP, UP),
    sticky("http.response_line", &["http_response_line"], HTTP, DOWN),
    sticky("http.server", &[], HTTP, DOWN),
    sticky("http.start", &["http_start"], HTTP, None),
    many("http.request_header", &["http_request_header"], HTTP, UP),
    many("http.response_header", &["http_response_header"], HTTP, DOWN),
    many("file.data", &["file_data"], FILES, None),
    many("file.name", &[], FILES, None),
    many("file.magic", &[], FILES, None),
    many("dns.query", &["dns_query"], DNS, UP),
    many("dns.queries.rrname", &[], DNS, None),
    many("dns.answers.rrname", &["dns.answer.name"], DNS, None),
    many("dns.authorities.rrname", &[], DNS, None),
    many("dns.additionals.rrname", &[], DNS, None),
    many("dns.query.name", &[], DNS, None),
    many("dns.response.rrname", &[], DNS, None),
    many("mdns.queries.rrname", &[], NAMES, None),
    many("mdns.answers.rrname", &[], NAMES, None),
    many("mdns.authorities.rrname", &[], NAMES, None),
    many("mdns.additionals.rrname", &[], NAMES, None),
    many("mdns.response.rrname", &[], NAMES, None),
    many("llmnr.queries.rrname", &[], LLMNR, None),
    many("llmnr.answers.rrname", &[], LLMNR, None),
    many("llmnr.authorities.rrname", &[], LLMNR, None),
    many("llmnr.additionals.rrname", &[], LLMNR, None),
    many("llmnr.response.rrname", &[], LLMNR, None),
    sticky("tls.sni", &["tls_sni"], TLS, UP),
    sticky("tls.cert_subject", &["tls_cert_subject"], TLS, DOWN),
    sticky("tls.cert_issuer", &["tls_cert_issuer"], TLS, DOWN),
    sticky("tls.cert_serial", &["tls_cert_serial"], TLS, DOWN),
    sticky("tls.cert_fingerprint", &["tls_cert_fingerprint"], TLS, DOWN),
    many("tls.certs", &["tls_certs"], TLS, DOWN),
    sticky("tls.random", &[], TLS, None),
    sticky("tls.random_time", &[], TLS, None),
    sticky("tls.random_bytes", &[], TLS, None),
    many("tls.subjectaltname", &[], TLS, DOWN),
    many("tls.alpn", &[], TLS, None),
    sticky("ja3.hash", &["ja3_hash"], JA, UP),
    sticky("ja3.string", &["ja3_string"], JA, UP),
    sticky("ja3s.hash", &["ja3s_hash"], JA, DOWN),
    sticky("ja3s.string", &["ja3s_string"], JA, DOWN),
    sticky("ja4.hash", &["ja4_hash"], JA, UP),
    sticky("ssh.proto", &["ssh_proto"], SSH, None),
    sticky("ssh.software", &["ssh_software"], SSH, None),
    sticky("ssh.hassh", &["ssh_hassh"], SSH, UP),
    sticky("ssh.hassh.string", &["ssh_hassh_string"], SSH, UP),
    sticky("ssh.hassh.server", &["ssh_hassh_server"], SSH, DOWN),
    sticky("ssh.hassh.server.string", &["ssh_hassh_server_string"], SSH, DOWN),
    sticky("sip.method", &[], SIP, UP),
    sticky("sip.uri", &[], SIP, UP),
    sticky("sip.request_line", &[], SIP, UP),
    sticky("sip.stat_code", &[], SIP, DOWN),
    sticky("sip.stat_msg", &[], SIP, DOWN),
    sticky("sip.response_line", &[], SIP, DOWN),
    sticky("sip.protocol", &[], SIP, None),
    many("sip.from", &[], SIP, None),
    many("sip.to", &[], SIP, None),
    many("sip.via", &[], SIP, None),
    many("sip.user_agent", &[], SIP, None),
    many("sip.content_type", &[], SIP, None),
    many("sip.content_length", &[], SIP, None),
    sticky("smb.named_pipe", &["smb_named_pipe"], SMB, None),
    sticky("smb.share", &["smb_share"], SMB, None),
    sticky("smb.ntlmssp_user", &[], SMB, UP),
    sticky("smb.ntlmssp_domain", &[], SMB, UP),
    sticky("dcerpc.stub_data", &["dce_stub_data"], RPC, None),
    sticky("mqtt.connect.clientid", &[], MQTT, None),
    sticky("mqtt.connect.username", &[], MQTT, None),
    sticky("mqtt.connect.password", &[], MQTT, None),
    sticky("mqtt.connect.willtopic", &[], MQTT, None),
    sticky("mqtt.connect.willmessage", &[], MQTT, None),
    sticky("mqtt.connect.protocol_string", &[], MQTT, None),
    sticky("mqtt.publish.topic", &[], MQTT, None),
    sticky("mqtt.publish.message", &[], MQTT, None),
    many("mqtt.subscribe.topic", &[], MQTT, None),
    many("mqtt.unsubscribe.topic", &[], MQTT, None),
    many("krb5.cname", &["krb5_cname"], KRB5, None),
    many("krb5.sname", &["krb5_sname"], KRB5, None),
    sticky("snmp.community", &[], &["snmp"], None),
    sticky("rfb.name", &[], RFB, DOWN),
    many("quic.cyu.hash", &[], QUIC, UP),
    many("quic.cyu.string", &[], QUIC, UP),
    sticky("quic.version", &[], QUIC, None),
    sticky("quic.sni", &[], QUIC, UP),
    sticky("quic.ua", &[], QUIC, UP),
    sticky("ftp.command", &[], FTP, UP),
    sticky("ftp.command_data", &[], FTP, UP),
    many("ftp.reply", &[], FTP, DOWN),
    many("ftp.completion_code", &[], FTP, DOWN),
    sticky("ftp.reply_received", &[], FTP, None),
    sticky("smtp.helo", &[], SMTP, UP),
    sticky("smtp.mail_from", &[], SMTP, UP),
    many("smtp.rcpt_to", &[], SMTP, UP),
    sticky("email.from", &[], SMTP, UP),
    sticky("email.subject", &[], SMTP, UP),
    sticky("email.to", &[], SMTP, UP),
    sticky("email.cc", &[], SMTP, UP),
    sticky("email.date", &[], SMTP, UP),
    sticky("email.message_id", &[], SMTP, UP),
    sticky("email.x_mailer", &[], SMTP, UP),
    many("email.url", &[], SMTP, UP),
    many("email.received", &[], SMTP, UP),
    many("websocket.payload", &[], &["websocket"], None),
    many("http2.header_name", &["http2_header_name"], &["http2"], None),
    sticky("ldap.request.dn", &[], LDAP, UP),
    many("ldap.responses.dn", &[], LDAP, DOWN),
    many("ldap.responses.message", &[], LDAP, DOWN),
];

/// The buffer that a sticky keyword selects.
#[must_use]
pub(crate) fn sticky_buffer(keyword: &str) -> Option<&'static Buffer> {
    BUFFERS.iter().find(|b| b.name == keyword || b.aliases.contains(&keyword))
}

/// The buffer that a modifier moves the `content` before it to.
#[must_use]
pub(crate) fn modified_buffer(keyword: &str) -> Option<&'static Buffer> {
    BUFFERS.iter().find(|b| b.modifiers.contains(&keyword))
}

/// The buffer that a letter of `pcre` means.
#[must_use]
pub(crate) fn lettered_buffer(letter: char) -> Option<&'static Buffer> {
    BUFFERS.iter().find(|b| b.letter == Some(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_keyword_means_one_buffer() {
        let mut seen = std::collections::BTreeSet::new();
        for buffer in BUFFERS {
            for word in [&[buffer.name], buffer.aliases, buffer.modifiers].concat() {
                assert!(seen.insert(word), "{word} twice");
            }
        }
        assert_eq!(modified_buffer("http_uri").unwrap().name, "http.uri");
        assert_eq!(lettered_buffer('P').unwrap().name, "http.request_body");
        assert_eq!(sticky_buffer("dns_query").unwrap().name, "dns.query");
        assert!(sticky_buffer("http_uri").is_none());
    }
}
