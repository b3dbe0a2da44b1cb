//! What can be wrong in a protocol, with the names that `app-layer-event:` uses.
//!
//! Only events that a parser here raises are named: a rule that asks for another is refused, not silently never matched.

/// Defines [`Event`] from one list of names.
macro_rules! events {
    ($($name:ident = $word:literal,)+) => {
        /// Something wrong or noteworthy that a parser or the recognition of protocols met.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum Event { $($name,)+ }

        const NAMES: &[(Event, &str)] = &[$((Event::$name, $word),)+];
    };
}

events! {
    HttpGzipFailed = "http.gzip_decompression_failed",
    HttpRequestFieldMissingColon = "http.request_field_missing_colon",
    HttpResponseFieldMissingColon = "http.response_field_missing_colon",
    HttpInvalidRequestChunkLen = "http.invalid_request_chunk_len",
    HttpInvalidResponseChunkLen = "http.invalid_response_chunk_len",
    HttpInvalidRequestTransferEncoding = "http.invalid_transfer_encoding_value_in_request",
    HttpInvalidRequestContentLength = "http.invalid_content_length_field_in_request",
    HttpInvalidResponseContentLength = "http.invalid_content_length_field_in_response",
    HttpDuplicateRequestContentLength = "http.duplicate_content_length_field_in_request",
    HttpDuplicateResponseContentLength = "http.duplicate_content_length_field_in_response",
    HttpContinueAlreadySeen = "http.100_continue_already_seen",
    HttpUnmatchedResponse = "http.unable_to_match_response_to_request",
    HttpInvalidServerPort = "http.invalid_server_port_in_request",
    HttpRequestHeaderInvalid = "http.request_header_invalid",
    HttpResponseHeaderInvalid = "http.response_header_invalid",
    HttpMissingHost = "http.missing_host_header",
    HttpHostAmbiguous = "http.host_header_ambiguous",
    HttpInvalidRequestFolding = "http.invalid_request_field_folding",
    HttpInvalidResponseFolding = "http.invalid_response_field_folding",
    HttpRequestFieldTooLong = "http.request_field_too_long",
    HttpResponseFieldTooLong = "http.response_field_too_long",
    HttpResponseLineInvalid = "http.response_invalid_protocol",
    HttpResponseStatusInvalid = "http.response_invalid_status",
    HttpRequestLineMissingProtocol = "http.request_line_missing_protocol",
    HttpUriDelimNonCompliant = "http.uri_delim_non_compliant",
    HttpMethodDelimNonCompliant = "http.method_delim_non_compliant",
    HttpRequestLineLeadingWhitespace = "http.request_line_leading_whitespace",
    HttpTooManyEncodingLayers = "http.too_many_encoding_layers",
    HttpAbnormalContentEncoding = "http.abnormal_ce_header",
    HttpRequestAuthUnrecognized = "http.request_auth_unrecognized",
    HttpRequestHeaderRepetition = "http.request_header_repetition",
    HttpResponseHeaderRepetition = "http.response_header_repetition",
    HttpRequestBodyUnexpected = "http.request_body_unexpected",
    HttpResponseBodyUnexpected = "http.response_body_unexpected",
    HttpResponseAbnormalTransferEncoding = "http.response_abnormal_transfer_encoding",
    HttpResponseChunkedOldProto = "http.response_chunked_old_proto",
    HttpRequestChunkExtension = "http.request_chunk_extension",
    HttpResponseChunkExtension = "http.response_chunk_extension",
    HttpInvalidResponseTransferEncoding = "http.invalid_transfer_encoding_value_in_response",
    HttpUriHostInvalid = "http.request_uri_host_invalid",
    HttpHeaderHostInvalid = "http.request_header_host_invalid",
    HttpRequestLineIncomplete = "http.request_line_incomplete",
    HttpRequestTooManyHeaders = "http.request_too_many_headers",
    HttpResponseTooManyHeaders = "http.response_too_many_headers",
    HttpRangeInvalid = "http.range_invalid",
    HttpPortMismatch = "http.request_server_port_tcp_port_mismatch",
    Http2InvalidFrameHeader = "http2.invalid_frame_header",
    Http2InvalidClientMagic = "http2.invalid_client_magic",
    Http2InvalidFrameData = "http2.invalid_frame_data",
    Http2InvalidHeader = "http2.invalid_header",
    Http2LongFrameData = "http2.long_frame_data",
    Http2StreamIdReuse = "http2.stream_id_reuse",
    Http2FailedDecompression = "http2.failed_decompression",
    Http2HeaderOverflow = "http2.header_integer_overflow",
    Http2AuthorityMismatch = "http2.authority_host_mismatch",
    Http2UserinfoInUri = "http2.userinfo_in_uri",
    Http2DataStreamZero = "http2.data_stream_zero",
    DnsMalformedData = "dns.malformed_data",
    DnsNotRequest = "dns.not_a_request",
    DnsNotResponse = "dns.not_a_response",
    DnsZFlagSet = "dns.z_flag_set",
    DnsInvalidOpcode = "dns.invalid_opcode",
    DnsNameTooLong = "dns.name_too_long",
    DnsInfiniteLoop = "dns.infinite_loop",
    DnsTooManyLabels = "dns.too_many_labels",
    DnsInvalidAdditionals = "dns.invalid_additionals",
    DnsInvalidAuthorities = "dns.invalid_authorities",
    DnsFlooded = "dns.flooded",
    MdnsMalformedData = "mdns.malformed_data",
    LlmnrMalformedData = "llmnr.malformed_data",
    TlsInvalidSslv2Header = "tls.invalid_sslv2_header",
    TlsInvalidHeader = "tls.invalid_tls_header",
    TlsInvalidRecordVersion = "tls.invalid_record_version",
    TlsInvalidRecordType = "tls.invalid_record_type",
    TlsInvalidRecordLength = "tls.invalid_record_length",
    TlsInvalidHandshake = "tls.invalid_handshake_message",
    TlsInvalidCertificate = "tls.invalid_certificate",
    TlsCertificateInvalidLength = "tls.certificate_invalid_length",
    TlsCertificateInvalidVersion = "tls.certificate_invalid_version",
    TlsCertificateInvalidSerial = "tls.certificate_invalid_serial",
    TlsCertificateInvalidAlgorithm = "tls.certificate_invalid_algorithmidentifier",
    TlsCertificateInvalidName = "tls.certificate_invalid_x509name",
    TlsCertificateInvalidDate = "tls.certificate_invalid_date",
    TlsCertificateInvalidExtensions = "tls.certificate_invalid_extensions",
    TlsCertificateInvalidDer = "tls.certificate_invalid_der",
    TlsHeartbeat = "tls.heartbeat_message",
    TlsInvalidHeartbeat = "tls.invalid_heartbeat_message",
    TlsHeartbeatMismatch = "tls.dataleak_heartbeat_mismatch",
    TlsOverflowHeartbeat = "tls.overflow_heartbeat_message",
    TlsHandshakeInvalidLength = "tls.handshake_invalid_length",
    TlsMultipleSni = "tls.multiple_sni_extensions",
    TlsInvalidSniType = "tls.invalid_sni_type",
    TlsInvalidSniLength = "tls.invalid_sni_length",
    SshInvalidBanner = "ssh.invalid_banner",
    SshLongBanner = "ssh.long_banner",
    SshInvalidRecord = "ssh.invalid_record",
    FtpRequestTooLong = "ftp.request_command_too_long",
    FtpResponseTooLong = "ftp.response_command_too_long",
    FtpTooManyTransactions = "ftp.too_many_transactions",
    SmtpMaxCommandLine = "smtp.max_command_line_len_exceeded",
    SmtpMimeMalformed = "smtp.mime_malformed_msg",
    SmtpMimeInvalidBase64 = "smtp.mime_invalid_base64",
    SmtpMimeLongHeaderValue = "smtp.mime_long_header_value",
    SmtpMimeLongBoundary = "smtp.mime_long_boundary",
    SipInvalidData = "sip.invalid_data",
    MqttMissingConnect = "mqtt.missing_connect",
    MqttMissingPublish = "mqtt.missing_publish",
    MqttMissingSubscribe = "mqtt.missing_subscribe",
    MqttMissingUnsubscribe = "mqtt.missing_unsubscribe",
    MqttDoubleConnect = "mqtt.double_connect",
    MqttUnintroduced = "mqtt.unintroduced_message",
    MqttInvalidQos = "mqtt.invalid_qos_level",
    MqttMissingMsgId = "mqtt.missing_msg_id",
    MqttUnassignedType = "mqtt.unassigned_msg_type",
    MqttMalformedTraffic = "mqtt.malformed_traffic",
    Krb5MalformedData = "krb5.malformed_data",
    SmbMalformedData = "smb.malformed_data",
    SmbMalformedNtlmRequest = "smb.malformed_ntlmssp_request",
    SnmpMalformedData = "snmp.malformed_data",
    DhcpMalformedOptions = "dhcp.malformed_options",
    DhcpTruncatedOptions = "dhcp.truncated_options",
    RfbUnimplementedSecurity = "rfb.unimplemented_security_type",
    RfbUnknownSecurityResult = "rfb.unknown_security_result",
    RfbMalformedMessage = "rfb.malformed_message",
    RfbConfusedState = "rfb.confused_state",
    WebsocketSkipEnd = "websocket.skip_end_of_payload",
    WebsocketReassemblyLimit = "websocket.reassembly_limit_reached",
    QuicFailedDecrypt = "quic.failed_decrypt",
    QuicErrorOnData = "quic.error_on_data",
    LdapTooManyTransactions = "ldap.too_many_transactions",
    LdapInvalidData = "ldap.invalid_data",
    LdapRequestNotFound = "ldap.request_not_found",
}

impl Event {
    /// The event of a name; names without a protocol are of the recognition itself.
    pub fn by_name(name: &str) -> Option<Event> {
        NAMES.iter().find(|(_, word)| *word == name).map(|(event, _)| *event)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        NAMES[self as usize].1
    }

    /// All names, for suggestions.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(_, word)| *word)
    }
}

/// Adds an event once; a transaction's list stays short however often it happens.
pub(crate) fn note(events: &mut Vec<Event>, event: Event) {
    if !events.contains(&event) {
        events.push(event);
    }
}

#[cfg(test)]
mod tests {
    use super::Event;

    #[test]
    fn names_and_events_are_one_to_one() {
        let mut seen = std::collections::BTreeSet::new();
        for name in Event::names() {
            assert!(seen.insert(name), "{name} twice");
            assert_eq!(Event::by_name(name).unwrap().name(), name);
        }
        assert_eq!(Event::by_name("http.no_such_thing"), None);
    }
}
