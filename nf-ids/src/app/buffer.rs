//! What rules can look at in a transaction: buffers (bytes) and numbers, with their keywords.
//!
//! A buffer belongs to one direction or to both. It is complete at a [`Progress`] of that direction: before, what it
//! holds may still grow (bodies, files) or is not there at all (everything else), and "it does not contain" cannot be
//! said of it.

use super::Protocol;
use crate::flow::Direction;

/// How far one direction of a transaction has come; each step says that what it names is *complete*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    /// Nothing is complete.
    #[default]
    Start,
    /// The request or status line; a TLS hello; an SSH banner; an FTP or SMTP command.
    Line,
    /// All headers; a TLS certificate chain.
    Headers,
    /// The body or file.
    Body,
    /// Everything.
    Complete,
}

/// What is known of a buffer.
#[derive(Debug)]
struct Entry {
    buffer: Buffer,
    /// The sticky keyword first, then older names.
    names: &'static [&'static str],
    protocols: &'static [Protocol],
    to_server: Option<Progress>,
    to_client: Option<Progress>,
    multiple: bool,
}

const HTTP: &[Protocol] = &[Protocol::Http1, Protocol::Http2, Protocol::Doh2];
const HTTP1: &[Protocol] = &[Protocol::Http1];
const HTTP2: &[Protocol] = &[Protocol::Http2, Protocol::Doh2];
const DNS: &[Protocol] = &[Protocol::Dns, Protocol::Doh2];
const MDNS: &[Protocol] = &[Protocol::Mdns];
const LLMNR: &[Protocol] = &[Protocol::Llmnr];
const TLS: &[Protocol] = &[Protocol::Tls];
const QUIC: &[Protocol] = &[Protocol::Quic];
const HELLO: &[Protocol] = &[Protocol::Tls, Protocol::Quic];
const SSH: &[Protocol] = &[Protocol::Ssh];
const SIP: &[Protocol] = &[Protocol::Sip];
const SMTP: &[Protocol] = &[Protocol::Smtp];
const FTP: &[Protocol] = &[Protocol::Ftp];
const MQTT: &[Protocol] = &[Protocol::Mqtt];
const SMB: &[Protocol] = &[Protocol::Smb];
const KRB5: &[Protocol] = &[Protocol::Krb5];
const SNMP: &[Protocol] = &[Protocol::Snmp];
const RFB: &[Protocol] = &[Protocol::Rfb];
const WEBSOCKET: &[Protocol] = &[Protocol::Websocket];
const RPC: &[Protocol] = &[Protocol::Dcerpc, Protocol::Smb];
const FILES: &[Protocol] =
    &[Protocol::Http1, Protocol::Http2, Protocol::Doh2, Protocol::Smtp, Protocol::FtpData, Protocol::Smb];

/// One line a buffer: variant, names, protocols, progress towards server and client, one or several a transaction.
macro_rules! buffers {
    ($($(#[$doc:meta])* $name:ident = [$($word:literal),+] $protocols:ident ($($server:ident)?) ($($client:ident)?) $many:ident;)+) => {
        /// A buffer that rules can look at.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Buffer { $($(#[$doc])* $name,)+ }

        const ENTRIES: &[Entry] = &[$(Entry {
            buffer: Buffer::$name,
            names: &[$($word),+],
            protocols: $protocols,
            to_server: buffers!(@progress $($server)?),
            to_client: buffers!(@progress $($client)?),
            multiple: buffers!(@$many),
        },)+];
    };
    (@progress $step:ident) => { Some(Progress::$step) };
    (@progress) => { None };
    (@one) => { false };
    (@many) => { true };
}

buffers! {
    /// Decoded and normalised path with the decoded query.
    HttpUri = ["http.uri", "http_uri", "uricontent"] HTTP (Line) () one;
    /// The URI as it was sent.
    HttpUriRaw = ["http.uri.raw", "http_raw_uri"] HTTP (Line) () one;
    /// Method.
    HttpMethod = ["http.method", "http_method"] HTTP (Line) () one;
    /// The protocol, as `HTTP/1.1`, of either side.
    HttpProtocol = ["http.protocol", "http_protocol"] HTTP (Line) (Line) one;
    /// The request line without its end.
    HttpRequestLine = ["http.request_line", "http_request_line"] HTTP (Line) () one;
    /// The status line without its end.
    HttpResponseLine = ["http.response_line", "http_response_line"] HTTP () (Line) one;
    /// All headers, `name: value\r\n` each, without cookies.
    HttpHeader = ["http.header", "http_header"] HTTP (Headers) (Headers) one;
    /// All headers as they were sent, with the empty line.
    HttpHeaderRaw = ["http.header.raw", "http_raw_header"] HTTP (Headers) (Headers) one;
    /// `\r\nName\r\nName\r\n\r\n`.
    HttpHeaderNames = ["http.header_names", "http_header_names"] HTTP (Headers) (Headers) one;
    /// Header `User-Agent`.
    HttpUserAgent = ["http.user_agent", "http_user_agent"] HTTP (Headers) () one;
    /// `Cookie` of requests, `Set-Cookie` of responses.
    HttpCookie = ["http.cookie", "http_cookie"] HTTP (Headers) (Headers) one;
    /// The host name in lower case, without port.
    HttpHost = ["http.host", "http_host"] HTTP (Headers) () one;
    /// The host name as it was sent.
    HttpHostRaw = ["http.host.raw", "http_raw_host"] HTTP (Headers) () one;
    /// Header `Referer`.
    HttpReferer = ["http.referer", "http_referer"] HTTP (Headers) () one;
    /// Header `Accept`.
    HttpAccept = ["http.accept", "http_accept"] HTTP (Headers) () one;
    /// Header `Accept-Language`.
    HttpAcceptLang = ["http.accept_lang", "http_accept_lang"] HTTP (Headers) () one;
    /// Header `Accept-Encoding`.
    HttpAcceptEnc = ["http.accept_enc", "http_accept_enc"] HTTP (Headers) () one;
    /// Header `Connection`.
    HttpConnection = ["http.connection", "http_connection"] HTTP (Headers) () one;
    /// Header `Content-Type`.
    HttpContentType = ["http.content_type", "http_content_type"] HTTP (Headers) (Headers) one;
    /// Header `Content-Length`.
    HttpContentLen = ["http.content_len", "http_content_len"] HTTP (Headers) (Headers) one;
    /// First line and headers as they were sent.
    HttpStart = ["http.start", "http_start"] HTTP1 (Headers) (Headers) one;
    /// Status code.
    HttpStatCode = ["http.stat_code", "http_stat_code"] HTTP () (Line) one;
    /// Reason phrase.
    HttpStatMsg = ["http.stat_msg", "http_stat_msg"] HTTP () (Line) one;
    /// Header `Server`.
    HttpServer = ["http.server"] HTTP () (Headers) one;
    /// Header `Location`.
    HttpLocation = ["http.location"] HTTP () (Headers) one;
    /// Body of the request.
    HttpRequestBody = ["http.request_body", "http_client_body"] HTTP (Body) () one;
    /// Body of the response, decoded.
    HttpResponseBody = ["http.response_body", "http_server_body"] HTTP () (Body) one;
    /// Each header of the request, `name: value`.
    HttpRequestHeader = ["http.request_header"] HTTP (Headers) () many;
    /// Each header of the response, `name: value`.
    HttpResponseHeader = ["http.response_header"] HTTP () (Headers) many;
    /// Each field's name, of HTTP/2.
    Http2HeaderName = ["http2.header_name"] HTTP2 (Headers) (Headers) many;
    /// Content of what is transferred.
    FileData = ["file.data", "file_data"] FILES (Body) (Body) many;
    /// Name of what is transferred.
    FileName = ["file.name", "filename"] FILES (Body) (Body) many;
    /// Names that are asked for.
    DnsQuery = ["dns.query", "dns_query"] DNS (Complete) () many;
    /// Names that are asked for, of queries and answers.
    DnsQueriesName = ["dns.queries.rrname", "dns.query.name"] DNS (Complete) (Complete) many;
    /// Names of answers.
    DnsAnswersName = ["dns.answers.rrname", "dns.answer.name"] DNS (Complete) (Complete) many;
    /// Names of authorities.
    DnsAuthoritiesName = ["dns.authorities.rrname"] DNS (Complete) (Complete) many;
    /// Names of additional records.
    DnsAdditionalsName = ["dns.additionals.rrname"] DNS (Complete) (Complete) many;
    /// Names of a response's questions and records, whichever section, and those that records lead to.
    DnsResponseName = ["dns.response.rrname"] DNS () (Complete) many;
    /// Names that are asked for by multicast.
    MdnsQueriesName = ["mdns.queries.rrname"] MDNS (Complete) (Complete) many;
    /// Names of multicast answers.
    MdnsAnswersName = ["mdns.answers.rrname"] MDNS (Complete) (Complete) many;
    /// Names of multicast authorities.
    MdnsAuthoritiesName = ["mdns.authorities.rrname"] MDNS (Complete) (Complete) many;
    /// Names of multicast additional records.
    MdnsAdditionalsName = ["mdns.additionals.rrname"] MDNS (Complete) (Complete) many;
    /// Names of a multicast response's records.
    MdnsResponseName = ["mdns.response.rrname"] MDNS (Complete) (Complete) many;
    /// Names that are asked for by LLMNR.
    LlmnrQueriesName = ["llmnr.queries.rrname"] LLMNR (Complete) (Complete) many;
    /// Names of LLMNR answers.
    LlmnrAnswersName = ["llmnr.answers.rrname"] LLMNR (Complete) (Complete) many;
    /// Names of LLMNR authorities.
    LlmnrAuthoritiesName = ["llmnr.authorities.rrname"] LLMNR (Complete) (Complete) many;
    /// Names of LLMNR additional records.
    LlmnrAdditionalsName = ["llmnr.additionals.rrname"] LLMNR (Complete) (Complete) many;
    /// Names of an LLMNR response's records.
    LlmnrResponseName = ["llmnr.response.rrname"] LLMNR (Complete) (Complete) many;
    /// Server name of the client's hello.
    TlsSni = ["tls.sni", "tls_sni"] TLS (Line) () one;
    /// Application protocols that are offered or chosen.
    TlsAlpn = ["tls.alpn"] TLS (Line) (Line) many;
    /// 32 random bytes of a hello.
    TlsRandom = ["tls.random"] TLS (Line) (Line) one;
    /// The first 4 of them.
    TlsRandomTime = ["tls.random_time"] TLS (Line) (Line) one;
    /// The other 28.
    TlsRandomBytes = ["tls.random_bytes"] TLS (Line) (Line) one;
    /// Subject of the first certificate.
    TlsCertSubject = ["tls.cert_subject", "tls_cert_subject", "tls.subject"] TLS (Headers) (Headers) one;
    /// Its issuer.
    TlsCertIssuer = ["tls.cert_issuer", "tls_cert_issuer", "tls.issuerdn"] TLS (Headers) (Headers) one;
    /// Its serial number.
    TlsCertSerial = ["tls.cert_serial", "tls_cert_serial"] TLS (Headers) (Headers) one;
    /// Its SHA-1, in lower-case hexadecimal with colons.
    TlsCertFingerprint = ["tls.cert_fingerprint", "tls_cert_fingerprint", "tls.fingerprint"] TLS (Headers) (Headers) one;
    /// Its alternative names.
    TlsSubjectAltName = ["tls.subjectaltname"] TLS () (Headers) many;
    /// Every certificate, as it was sent.
    TlsCerts = ["tls.certs"] TLS (Headers) (Headers) many;
    /// Fingerprint of the client's hello.
    Ja3Hash = ["ja3.hash", "ja3_hash"] HELLO (Line) () one;
    /// What it is made of.
    Ja3String = ["ja3.string", "ja3_string"] HELLO (Line) () one;
    /// Fingerprint of the server's hello.
    Ja3sHash = ["ja3s.hash"] HELLO () (Line) one;
    /// What it is made of.
    Ja3sString = ["ja3s.string"] HELLO () (Line) one;
    /// JA4 of the client's hello.
    Ja4Hash = ["ja4.hash"] HELLO (Line) () one;
    /// Protocol of the banner, `2.0`.
    SshProto = ["ssh.proto", "ssh_proto"] SSH (Line) (Line) one;
    /// Software of the banner.
    SshSoftware = ["ssh.software", "ssh_software"] SSH (Line) (Line) one;
    /// HASSH of the client.
    SshHassh = ["ssh.hassh"] SSH (Headers) () one;
    /// What it is made of.
    SshHasshString = ["ssh.hassh.string"] SSH (Headers) () one;
    /// HASSH of the server.
    SshHasshServer = ["ssh.hassh.server"] SSH () (Headers) one;
    /// What it is made of.
    SshHasshServerString = ["ssh.hassh.server.string"] SSH () (Headers) one;
    /// Command.
    FtpCommand = ["ftp.command"] FTP (Line) () one;
    /// What follows the command.
    FtpCommandData = ["ftp.command_data"] FTP (Line) () one;
    /// Text of replies.
    FtpReply = ["ftp.reply"] FTP () (Complete) many;
    /// Codes of replies.
    FtpCompletionCode = ["ftp.completion_code"] FTP () (Complete) many;
    /// Argument of `HELO` or `EHLO`.
    SmtpHelo = ["smtp.helo"] SMTP (Line) () one;
    /// Sender of the envelope.
    SmtpMailFrom = ["smtp.mail_from"] SMTP (Line) () one;
    /// Recipients of the envelope.
    SmtpRcptTo = ["smtp.rcpt_to"] SMTP (Line) () many;
    /// Header `From` of the mail.
    EmailFrom = ["email.from"] SMTP (Headers) () one;
    /// Header `To`.
    EmailTo = ["email.to"] SMTP (Headers) () one;
    /// Header `Cc`.
    EmailCc = ["email.cc"] SMTP (Headers) () one;
    /// Header `Subject`.
    EmailSubject = ["email.subject"] SMTP (Headers) () one;
    /// Header `Date`.
    EmailDate = ["email.date"] SMTP (Headers) () one;
    /// Header `Message-Id`.
    EmailMessageId = ["email.message_id"] SMTP (Headers) () one;
    /// Header `X-Mailer`.
    EmailXMailer = ["email.x_mailer"] SMTP (Headers) () one;
    /// Each `Received` header.
    EmailReceived = ["email.received"] SMTP (Headers) () many;
    /// Each address of a web page in the mail.
    EmailUrl = ["email.url"] SMTP (Body) () many;
    /// Method.
    SipMethod = ["sip.method"] SIP (Line) () one;
    /// URI of the request.
    SipUri = ["sip.uri"] SIP (Line) () one;
    /// Request line.
    SipRequestLine = ["sip.request_line"] SIP (Line) () one;
    /// Status code.
    SipStatCode = ["sip.stat_code"] SIP () (Line) one;
    /// Reason phrase.
    SipStatMsg = ["sip.stat_msg"] SIP () (Line) one;
    /// Status line.
    SipResponseLine = ["sip.response_line"] SIP () (Line) one;
    /// Protocol.
    SipProtocol = ["sip.protocol"] SIP (Line) (Line) one;
    /// Each `From`.
    SipFrom = ["sip.from"] SIP (Headers) (Headers) many;
    /// Each `To`.
    SipTo = ["sip.to"] SIP (Headers) (Headers) many;
    /// Each `Via`.
    SipVia = ["sip.via"] SIP (Headers) (Headers) many;
    /// Each `User-Agent`.
    SipUserAgent = ["sip.user_agent"] SIP (Headers) (Headers) many;
    /// Each `Content-Type`.
    SipContentType = ["sip.content_type"] SIP (Headers) (Headers) many;
    /// Each `Content-Length`.
    SipContentLength = ["sip.content_length"] SIP (Headers) (Headers) many;
    /// Topic of a message.
    MqttPublishTopic = ["mqtt.publish.topic"] MQTT (Complete) (Complete) one;
    /// Content of a message.
    MqttPublishMessage = ["mqtt.publish.message"] MQTT (Complete) (Complete) one;
    /// Client's name.
    MqttConnectClientId = ["mqtt.connect.clientid"] MQTT (Complete) () one;
    /// User.
    MqttConnectUsername = ["mqtt.connect.username"] MQTT (Complete) () one;
    /// Password.
    MqttConnectPassword = ["mqtt.connect.password"] MQTT (Complete) () one;
    /// Protocol's name.
    MqttConnectProtocol = ["mqtt.connect.protocol_string"] MQTT (Complete) () one;
    /// Topic of the last will.
    MqttConnectWillTopic = ["mqtt.connect.willtopic"] MQTT (Complete) () one;
    /// The last will.
    MqttConnectWillMessage = ["mqtt.connect.willmessage"] MQTT (Complete) () one;
    /// Topics subscribed to.
    MqttSubscribeTopic = ["mqtt.subscribe.topic"] MQTT (Complete) () many;
    /// Topics no longer subscribed to.
    MqttUnsubscribeTopic = ["mqtt.unsubscribe.topic"] MQTT (Complete) () many;
    /// Client's name.
    Krb5Cname = ["krb5.cname", "krb5_cname"] KRB5 () (Complete) many;
    /// Service's name.
    Krb5Sname = ["krb5.sname", "krb5_sname"] KRB5 () (Complete) many;
    /// Community.
    SnmpCommunity = ["snmp.community"] SNMP (Complete) (Complete) one;
    /// User.
    SnmpUsm = ["snmp.usm"] SNMP (Complete) (Complete) one;
    /// Name of the desktop.
    RfbName = ["rfb.name"] RFB () (Complete) one;
    /// Pipe that is opened.
    SmbNamedPipe = ["smb.named_pipe", "smb_named_pipe"] SMB (Line) (Line) one;
    /// Share that is connected to.
    SmbShare = ["smb.share", "smb_share"] SMB (Line) (Line) one;
    /// User of NTLMSSP.
    SmbNtlmUser = ["smb.ntlmssp_user"] SMB (Line) () one;
    /// Domain of NTLMSSP.
    SmbNtlmDomain = ["smb.ntlmssp_domain"] SMB (Line) () one;
    /// Version of a packet.
    QuicVersion = ["quic.version"] QUIC (Complete) (Complete) one;
    /// Server name of the client's hello.
    QuicSni = ["quic.sni"] QUIC (Complete) () one;
    /// Program that the client says it is.
    QuicUa = ["quic.ua"] QUIC (Complete) () one;
    /// Fingerprint of Google's client hello.
    QuicCyuHash = ["quic.cyu.hash"] QUIC (Complete) () one;
    /// What it is made of.
    QuicCyuString = ["quic.cyu.string"] QUIC (Complete) () one;
    /// What a message carries.
    WebsocketPayload = ["websocket.payload"] WEBSOCKET (Complete) (Complete) one;
    /// Each interface that was accepted before a call: its number in the order of its text, and two bytes of version.
    DceInterface = ["dcerpc.iface", "dce_iface"] RPC (Complete) (Complete) many;
    /// Stub data of a request or response.
    DceStubData = ["dcerpc.stub_data", "dce_stub_data"] RPC (Complete) (Complete) one;
}

impl Buffer {
    fn entry(self) -> &'static Entry {
        &ENTRIES[self as usize]
    }

    /// The buffer of a keyword, sticky (`http.uri`) or of the older forms (`http_uri`).
    pub fn by_keyword(word: &str) -> Option<Buffer> {
        ENTRIES.iter().find(|entry| entry.names.contains(&word)).map(|entry| entry.buffer)
    }

    /// Every keyword, for suggestions.
    pub fn keywords() -> impl Iterator<Item = &'static str> {
        ENTRIES.iter().flat_map(|entry| entry.names.iter().copied())
    }

    /// All buffers.
    pub fn all() -> impl Iterator<Item = Buffer> {
        ENTRIES.iter().map(|entry| entry.buffer)
    }

    /// The sticky keyword.
    pub fn keyword(self) -> &'static str {
        self.entry().names[0]
    }

    /// The protocols that have it.
    pub fn protocols(self) -> &'static [Protocol] {
        self.entry().protocols
    }

    /// Whether a direction can have it.
    pub fn is_in(self, direction: Direction) -> bool {
        self.complete_at(direction).is_some()
    }

    /// The progress at which it can no longer change; none when that direction never has it.
    pub fn complete_at(self, direction: Direction) -> Option<Progress> {
        match direction {
            Direction::ToServer => self.entry().to_server,
            Direction::ToClient => self.entry().to_client,
        }
    }

    /// Whether a transaction can have several, numbered from 0.
    pub fn is_multiple(self) -> bool {
        self.entry().multiple
    }

    /// Whether it can be looked at while it still grows.
    pub fn grows(self) -> bool {
        matches!(self, Buffer::FileData)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_keyword_names_one_buffer() {
        let mut seen = std::collections::BTreeSet::new();
        for word in Buffer::keywords() {
            assert!(seen.insert(word), "{word} twice");
        }
        for buffer in Buffer::all() {
            assert_eq!(Buffer::by_keyword(buffer.keyword()), Some(buffer));
            assert!(buffer.is_in(Direction::ToServer) || buffer.is_in(Direction::ToClient), "{buffer:?}");
        }
        assert_eq!(Buffer::by_keyword("http_client_body"), Some(Buffer::HttpRequestBody));
        assert_eq!(Buffer::by_keyword("http.urri"), None);
    }

    #[test]
    fn directions_and_progress_are_as_documented() {
        assert_eq!(Buffer::HttpUri.complete_at(Direction::ToServer), Some(Progress::Line));
        assert_eq!(Buffer::HttpUri.complete_at(Direction::ToClient), None);
        assert!(Buffer::HttpHeader.is_in(Direction::ToClient));
        assert!(Buffer::DnsQuery.is_multiple() && !Buffer::TlsSni.is_multiple());
    }
}
