//! Numbers of a transaction that rules can compare.

use super::Protocol;

/// A number that rules can compare. Enumerations are given as the protocol numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Number {
    /// Operation code.
    DnsOpcode,
    /// Response code, with the extended bits when there is an OPT record; responses only.
    DnsRcode,
    /// Types of the records asked for and answered; several.
    DnsRrtype,
    /// Version that the hello agreed on, as on the wire: 0x0303 is TLS 1.2; 0x0002 is SSL 2.
    TlsVersion,
    /// Start of the first certificate's validity, seconds since 1970.
    TlsCertNotBefore,
    /// Its end.
    TlsCertNotAfter,
    /// Number of certificates in the chain.
    TlsCertChainLen,
    /// SSL/TLS handshake state bits, as `ssl_state` names them: 1 client hello, 2 server hello, 4 client key exchange,
    /// 8 server key exchange, 16 unknown.
    SslState,
    /// Message type.
    Krb5MsgType,
    /// Error code.
    Krb5ErrCode,
    /// Message types; several.
    MqttType,
    /// Version of the protocol.
    MqttProtocolVersion,
    /// Quality of service; several.
    MqttQos,
    /// Flags of the fixed header: 1 retain, 8 duplicate; several.
    MqttFlags,
    /// Flags of CONNECT, as on the wire.
    MqttConnectFlags,
    /// Reason codes; several.
    MqttReasonCode,
    /// Session present flag of CONNACK.
    MqttSessionPresent,
    /// Port that a command or reply names.
    FtpDynamicPort,
    /// What a data connection was opened for: 1 `RETR`, 2 `STOR`.
    FtpDataCommand,
    /// Version.
    SnmpVersion,
    /// Type of PDU.
    SnmpPduType,
    /// Seconds of an address' lease.
    DhcpLeaseTime,
    /// Seconds until another server is asked.
    DhcpRebindingTime,
    /// Seconds until renewal.
    DhcpRenewalTime,
    /// Type of security chosen.
    RfbSecType,
    /// Result of the security exchange.
    RfbSecResult,
    /// Operation of an LDAP request.
    LdapRequestOperation,
    /// Operations of LDAP responses; several.
    LdapResponsesOperation,
    /// Number of LDAP responses.
    LdapResponsesCount,
    /// DCE/RPC operation number.
    DceOpnum,
    /// Opcode of a WebSocket message.
    WebsocketOpcode,
    /// Its last frame's mask.
    WebsocketMask,
    /// Its flags: 0x80 the last frame, 0x40 deflated.
    WebsocketFlags,
    /// Types of HTTP/2's frames; several.
    Http2FrameType,
    /// Error codes of RST_STREAM and GOAWAY; several.
    Http2ErrorCode,
    /// Weights of streams, one less than what they mean; several.
    Http2Priority,
    /// Sizes of WINDOW_UPDATE; several.
    Http2Window,
    /// Sizes that tables of fields are changed to; several.
    Http2SizeUpdate,
}

const DNS: &[Protocol] = &[Protocol::Dns, Protocol::Doh2, Protocol::Mdns, Protocol::Llmnr];

impl Number {
    /// Whether a transaction can have several.
    pub fn is_multiple(self) -> bool {
        use Number as N;
        matches!(
            self,
            N::DnsRrtype
                | N::MqttType
                | N::MqttQos
                | N::MqttReasonCode
                | N::LdapResponsesOperation
                | N::Http2FrameType
                | N::Http2ErrorCode
                | N::Http2Priority
                | N::Http2Window
                | N::Http2SizeUpdate
        )
    }

    /// The protocols that have it.
    pub fn protocols(self) -> &'static [Protocol] {
        use Number as N;
        match self {
            N::DnsOpcode | N::DnsRcode | N::DnsRrtype => DNS,
            N::TlsVersion | N::TlsCertNotBefore | N::TlsCertNotAfter | N::TlsCertChainLen | N::SslState => {
                &[Protocol::Tls]
            }
            N::Krb5MsgType | N::Krb5ErrCode => &[Protocol::Krb5],
            N::MqttType
            | N::MqttProtocolVersion
            | N::MqttQos
            | N::MqttFlags
            | N::MqttConnectFlags
            | N::MqttReasonCode
            | N::MqttSessionPresent => &[Protocol::Mqtt],
            N::FtpDynamicPort => &[Protocol::Ftp],
            N::FtpDataCommand => &[Protocol::FtpData],
            N::SnmpVersion | N::SnmpPduType => &[Protocol::Snmp],
            N::DhcpLeaseTime | N::DhcpRebindingTime | N::DhcpRenewalTime => &[Protocol::Dhcp],
            N::RfbSecType | N::RfbSecResult => &[Protocol::Rfb],
            N::LdapRequestOperation | N::LdapResponsesOperation | N::LdapResponsesCount => &[Protocol::Ldap],
            N::Http2FrameType
            | N::Http2ErrorCode
            | N::Http2Priority
            | N::Http2Window
            | N::Http2SizeUpdate => &[Protocol::Http2, Protocol::Doh2],
            N::WebsocketOpcode | N::WebsocketMask | N::WebsocketFlags => &[Protocol::Websocket],
            N::DceOpnum => &[Protocol::Dcerpc, Protocol::Smb],
        }
    }
}
