//! The application protocols that can be told apart, with the names that rules use for them.

/// An application protocol of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// Not yet recognised.
    #[default]
    Unknown,
    /// Not recognised, and no longer looked for.
    Failed,
    /// HTTP/0.9 to 1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// DNS over HTTP/2.
    Doh2,
    /// TLS and SSL.
    Tls,
    /// DNS over UDP or TCP.
    Dns,
    /// Link-local multicast name resolution.
    Llmnr,
    /// Multicast DNS.
    Mdns,
    /// SSH.
    Ssh,
    /// FTP's control connection.
    Ftp,
    /// FTP's data connections.
    FtpData,
    /// SMTP.
    Smtp,
    /// SMB 1 to 3.
    Smb,
    /// DCE/RPC over TCP or UDP.
    Dcerpc,
    /// SIP.
    Sip,
    /// MQTT.
    Mqtt,
    /// Kerberos 5.
    Krb5,
    /// SNMP.
    Snmp,
    /// DHCP.
    Dhcp,
    /// LDAP.
    Ldap,
    /// Remote framebuffer (VNC).
    Rfb,
    /// WebSocket.
    Websocket,
    /// QUIC.
    Quic,
    /// IMAP.
    Imap,
    /// POP3.
    Pop3,
    /// Remote desktop.
    Rdp,
    /// Network file system.
    Nfs,
    /// Trivial FTP.
    Tftp,
    /// Internet key exchange.
    Ike,
    /// Network time.
    Ntp,
    /// Modbus.
    Modbus,
    /// DNP3.
    Dnp3,
    /// EtherNet/IP.
    Enip,
    /// PostgreSQL.
    Pgsql,
    /// Telnet.
    Telnet,
    /// Bittorrent's hash table.
    BittorrentDht,
}

/// Every protocol with its names; the first is the one that is written into EVE.
const NAMES: &[(Protocol, &[&str])] = &[
    (Protocol::Unknown, &["unknown"]),
    (Protocol::Failed, &["failed"]),
    (Protocol::Http1, &["http", "http1"]),
    (Protocol::Http2, &["http2"]),
    (Protocol::Doh2, &["doh2"]),
    (Protocol::Tls, &["tls", "ssl"]),
    (Protocol::Dns, &["dns"]),
    (Protocol::Llmnr, &["llmnr"]),
    (Protocol::Mdns, &["mdns"]),
    (Protocol::Ssh, &["ssh"]),
    (Protocol::Ftp, &["ftp"]),
    (Protocol::FtpData, &["ftp-data"]),
    (Protocol::Smtp, &["smtp"]),
    (Protocol::Smb, &["smb"]),
    (Protocol::Dcerpc, &["dcerpc"]),
    (Protocol::Sip, &["sip"]),
    (Protocol::Mqtt, &["mqtt"]),
    (Protocol::Krb5, &["krb5"]),
    (Protocol::Snmp, &["snmp"]),
    (Protocol::Dhcp, &["dhcp"]),
    (Protocol::Ldap, &["ldap"]),
    (Protocol::Rfb, &["rfb"]),
    (Protocol::Websocket, &["websocket"]),
    (Protocol::Quic, &["quic"]),
    (Protocol::Imap, &["imap"]),
    (Protocol::Pop3, &["pop3"]),
    (Protocol::Rdp, &["rdp"]),
    (Protocol::Nfs, &["nfs"]),
    (Protocol::Tftp, &["tftp"]),
    (Protocol::Ike, &["ike", "ikev2"]),
    (Protocol::Ntp, &["ntp"]),
    (Protocol::Modbus, &["modbus"]),
    (Protocol::Dnp3, &["dnp3"]),
    (Protocol::Enip, &["enip"]),
    (Protocol::Pgsql, &["pgsql"]),
    (Protocol::Telnet, &["telnet"]),
    (Protocol::BittorrentDht, &["bittorrent-dht"]),
];

impl Protocol {
    /// The protocols that a rule means when it says `name`: `http` is HTTP/1 and HTTP/2, `dns` includes DNS over
    /// HTTP/2, `http2` as well; `dcerpc` is also in SMB's pipes. Empty: no such protocol.
    pub fn by_rule_name(name: &str) -> &'static [Protocol] {
        match name {
            "http" => &[Protocol::Http1, Protocol::Http2, Protocol::Doh2],
            "http2" => &[Protocol::Http2, Protocol::Doh2],
            "dcerpc" => &[Protocol::Dcerpc, Protocol::Smb],
            "dns" => &[Protocol::Dns, Protocol::Doh2],
            _ => NAMES
                .iter()
                .find(|(_, names)| names.contains(&name))
                .map_or(&[], |(protocol, _)| std::slice::from_ref(protocol)),
        }
    }

    /// All names that rules may use, for suggestions.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().flat_map(|(_, names)| names.iter().copied())
    }

    /// The name that is written into EVE's `app_proto`.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(protocol, _)| *protocol == self).map_or("unknown", |(_, names)| names[0])
    }

    /// Whether it is a real protocol, neither unknown nor failed.
    pub fn is_known(self) -> bool {
        !matches!(self, Protocol::Unknown | Protocol::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::Protocol;

    #[test]
    fn every_protocol_has_its_own_name_and_is_found_by_it() {
        let mut seen = std::collections::BTreeSet::new();
        for name in Protocol::names() {
            assert!(seen.insert(name), "{name} twice");
            assert!(!Protocol::by_rule_name(name).is_empty(), "{name}");
        }
        assert_eq!(Protocol::by_rule_name("ssl"), [Protocol::Tls]);
        assert_eq!(Protocol::by_rule_name("http1"), [Protocol::Http1]);
        assert!(Protocol::by_rule_name("http").contains(&Protocol::Http2));
        assert!(Protocol::by_rule_name("htpp").is_empty());
        assert_eq!(Protocol::FtpData.name(), "ftp-data");
    }
}
