//! Which application a flow belongs to: by its first bytes, or else by its port.
//!
//! The first packets with a payload, [`LOOKS`] of a flow at most, are compared with how protocols begin. What is
//! found there holds (`by: payload`). A flow in which nothing is found goes by the registered port of its
//! receiver, then of its sender (`by: port`), which is a guess; without one it has no application. Ports cost
//! nothing until someone asks; packets of a flow that is settled cost one comparison.

mod payload;

use onvm_lib::wire::{FlowKey, Headers, tcp, udp};
use serde::{Deserialize, Serialize};

use crate::flow::Flow;
use crate::protocols::Count;

/// Payloads of a flow that are looked at.
const LOOKS: u8 = 4;

/// An application protocol.
#[derive(Debug)]
pub(crate) struct Application {
    pub(crate) name: &'static str,
    /// From 1; stands for it in records and states.
    pub(crate) number: u8,
    tcp: &'static [u16],
    udp: &'static [u16],
}

/// The table. Its order is that of the numbers in exported records: new ones go to its end.
macro_rules! applications {
    ($($id:ident $name:literal tcp $tcp:tt udp $udp:tt;)+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Id { $($id,)+ }

        /// All applications that are told apart.
        pub(crate) const APPLICATIONS: &[Application] = &[
            $(Application { name: $name, number: Id::$id as u8 + 1, tcp: &$tcp, udp: &$udp },)+
        ];
    };
}

applications! {
    Tls "tls" tcp [443, 465, 563, 636, 853, 989, 990, 992, 993, 995, 5061, 5671, 8443, 8883] udp [];
    Http "http" tcp [80, 591, 3128, 8000, 8008, 8080, 8888] udp [];
    Dns "dns" tcp [53] udp [53];
    Ssh "ssh" tcp [22] udp [];
    Quic "quic" tcp [] udp [443];
    Dtls "dtls" tcp [] udp [4433];
    Smtp "smtp" tcp [25, 587] udp [];
    Imap "imap" tcp [143] udp [];
    Pop3 "pop3" tcp [110] udp [];
    Ftp "ftp" tcp [21] udp [];
    FtpData "ftp-data" tcp [20] udp [];
    Telnet "telnet" tcp [23] udp [];
    Ntp "ntp" tcp [] udp [123];
    Dhcp "dhcp" tcp [] udp [67, 68];
    Dhcpv6 "dhcpv6" tcp [] udp [546, 547];
    Mdns "mdns" tcp [] udp [5353];
    Llmnr "llmnr" tcp [] udp [5355];
    NetbiosNs "netbios-ns" tcp [] udp [137];
    NetbiosDgm "netbios-dgm" tcp [] udp [138];
    Ssdp "ssdp" tcp [] udp [1900];
    Snmp "snmp" tcp [] udp [161, 162];
    Syslog "syslog" tcp [601] udp [514];
    Tftp "tftp" tcp [] udp [69];
    Radius "radius" tcp [] udp [1645, 1646, 1812, 1813];
    Sip "sip" tcp [5060] udp [5060];
    Rtsp "rtsp" tcp [554, 8554] udp [];
    Stun "stun" tcp [3478] udp [3478];
    Smb "smb" tcp [139, 445] udp [];
    Dcerpc "dcerpc" tcp [135] udp [];
    Rpc "rpc" tcp [111] udp [111];
    Nfs "nfs" tcp [2049] udp [2049];
    Ldap "ldap" tcp [389] udp [389];
    Kerberos "kerberos" tcp [88] udp [88];
    Rdp "rdp" tcp [3389] udp [3389];
    Vnc "vnc" tcp [5900] udp [];
    Mysql "mysql" tcp [3306] udp [];
    Postgres "postgresql" tcp [5432] udp [];
    Redis "redis" tcp [6379] udp [];
    Memcached "memcached" tcp [11211] udp [11211];
    Mqtt "mqtt" tcp [1883] udp [];
    Bgp "bgp" tcp [179] udp [];
    Modbus "modbus" tcp [502] udp [];
    Isakmp "isakmp" tcp [] udp [500, 4500];
    Wireguard "wireguard" tcp [] udp [51820];
    Openvpn "openvpn" tcp [1194] udp [1194];
    Vxlan "vxlan" tcp [] udp [4789];
    Geneve "geneve" tcp [] udp [6081];
    Gtp "gtp" tcp [] udp [2123, 2152];
    Netflow "netflow" tcp [] udp [2055, 9995];
    Ipfix "ipfix" tcp [4739] udp [4739];
    Bittorrent "bittorrent" tcp [6881] udp [6881];
}

/// How an application was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Payload,
    Port,
}

impl By {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Payload => "payload",
            Self::Port => "port",
        }
    }
}

/// What a flow's payload has shown so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finding {
    /// Its number in the table, from 1; 0: nothing yet.
    id: u8,
    /// Payloads that are still to be looked at.
    looks: u8,
}

impl Finding {
    /// For a flow that begins.
    pub(crate) fn of_new(key: &FlowKey) -> Self {
        let looks = if matches!(key.protocol(), Some(tcp::PROTOCOL | udp::PROTOCOL)) { LOOKS } else { 0 };
        Self { id: 0, looks }
    }

    /// Whether a payload may still tell something.
    #[inline]
    pub(crate) fn is_open(self) -> bool {
        self.looks > 0
    }

    /// Looks at a packet.
    #[inline(never)]
    pub(crate) fn look(&mut self, headers: Headers, frame: &[u8]) {
        if headers.is_later_fragment() {
            return;
        }
        let payload = headers.payload(frame);
        if payload.is_empty() {
            return;
        }
        self.looks -= 1;
        let found = match headers.protocol() {
            Some(tcp::PROTOCOL) => payload::of_tcp(payload),
            Some(udp::PROTOCOL) => payload::of_udp(payload),
            _ => None,
        };
        if let Some(found) = found {
            *self = Self { id: found as u8 + 1, looks: 0 };
        }
    }

    /// Whether its number is one of this release.
    pub(crate) fn is_sound(self) -> bool {
        usize::from(self.id) <= APPLICATIONS.len() && self.looks <= LOOKS
    }
}

/// The application of a flow and how it was found. `key` is that of the first packet.
pub(crate) fn of(finding: Finding, key: &FlowKey) -> Option<(&'static Application, By)> {
    let by_payload = usize::from(finding.id).checked_sub(1).and_then(|at| APPLICATIONS.get(at));
    by_payload.map(|known| (known, By::Payload)).or_else(|| by_port(key).map(|known| (known, By::Port)))
}

fn by_port(key: &FlowKey) -> Option<&'static Application> {
    let on = |port: u16| {
        APPLICATIONS.iter().find(|known| match key.protocol() {
            Some(tcp::PROTOCOL) => known.tcp.contains(&port),
            Some(udp::PROTOCOL) => known.udp.contains(&port),
            _ => false,
        })
    };
    on(key.dst_port()).or_else(|| on(key.src_port()))
}

/// Flows and traffic of an application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Share {
    pub(crate) flows: u64,
    pub(crate) traffic: Count,
}

/// Totals by application and by how it was found, as places in a list: [`SHARES`] of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shares(Vec<Share>);

/// Two for each application, and one for the flows without.
const SHARES: usize = APPLICATIONS.len() * 2 + 1;

impl Default for Shares {
    fn default() -> Self {
        Self(vec![Share::default(); SHARES])
    }
}

impl Shares {
    /// Adds a flow.
    pub(crate) fn add(&mut self, key: &FlowKey, flow: &Flow) {
        let found = of(flow.application, &flow.first_key(key));
        let at = found.map_or(SHARES - 1, |(known, by)| {
            usize::from(known.number - 1) * 2 + usize::from(by == By::Port)
        });
        let Some(share) = self.0.get_mut(at) else { return };
        let total = flow.total();
        share.flows += 1;
        share.traffic.packets += total.packets;
        share.traffic.bytes += total.bytes;
    }

    /// Name, how it was found, and totals of those that were seen.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, Option<By>, Share)> {
        self.0.iter().enumerate().filter(|(_, share)| share.flows > 0).map(|(at, share)| {
            let by = if at % 2 == 0 { By::Payload } else { By::Port };
            match APPLICATIONS.get(at / 2) {
                Some(known) => (known.name, Some(by), *share),
                None => ("unknown", None, *share),
            }
        })
    }

    /// Whether it is a table of this release.
    pub(crate) fn is_sound(&self) -> bool {
        self.0.len() == SHARES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn key(src_port: u16, dst_port: u16, protocol: u8) -> FlowKey {
        FlowKey::v4(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2), src_port, dst_port, protocol)
    }

    #[test]
    fn the_receiver_s_port_counts_first() {
        let name = |key: FlowKey| of(Finding::default(), &key).map(|(known, by)| (known.name, by));
        assert_eq!(name(key(50_000, 443, 6)), Some(("tls", By::Port)));
        assert_eq!(name(key(50_000, 443, 17)), Some(("quic", By::Port)));
        assert_eq!(name(key(53, 123, 17)), Some(("ntp", By::Port)));
        assert_eq!(name(key(22, 50_000, 6)), Some(("ssh", By::Port)));
        assert_eq!(name(key(50_000, 50_001, 6)), None);
        assert_eq!(name(key(443, 443, 132)), None);
    }

    #[test]
    fn the_table_is_sound() {
        assert!(APPLICATIONS.len() < 255);
        for (n, known) in APPLICATIONS.iter().enumerate() {
            assert_eq!(usize::from(known.number), n + 1);
            assert!(!APPLICATIONS[..n].iter().any(|other| other.name == known.name));
            for other in &APPLICATIONS[..n] {
                let twice = |a: &[u16], b: &[u16]| a.iter().any(|port| b.contains(port));
                assert!(!twice(known.tcp, other.tcp) && !twice(known.udp, other.udp), "{}", known.name);
            }
        }
    }

    #[test]
    fn only_tcp_and_udp_are_looked_into() {
        assert!(Finding::of_new(&key(1, 2, 6)).is_open() && Finding::of_new(&key(1, 2, 17)).is_open());
        assert!(!Finding::of_new(&key(1, 2, 1)).is_open());
        assert!(!Finding { id: 200, looks: 0 }.is_sound() && !Finding { id: 0, looks: 9 }.is_sound());
    }
}
