//! How protocols begin, in either direction. Each test wants so much that other protocols hardly pass it: a wrong
//! name is worse than none, as the port speaks then.

use super::Id;

/// An application, and whether bytes begin like it.
type Test = (Id, fn(&[u8]) -> bool);

/// The application that a TCP payload begins like.
pub(super) fn of_tcp(bytes: &[u8]) -> Option<Id> {
    let tests: [Test; 18] = [
        (Id::Tls, is_tls),
        (Id::Rtsp, is_rtsp),
        (Id::Sip, is_sip),
        (Id::Http, is_http),
        (Id::Ssh, |bytes| bytes.starts_with(b"SSH-")),
        (Id::Smtp, is_smtp),
        (Id::Ftp, is_ftp),
        (Id::Imap, |bytes| bytes.starts_with(b"* OK") || bytes.starts_with(b"* PREAUTH")),
        (Id::Pop3, |bytes| bytes.starts_with(b"+OK ") || bytes.starts_with(b"+OK\r\n")),
        (Id::Smb, is_smb),
        (Id::Dns, |bytes| bytes.len() > 2 && usize::from(word(bytes, 0)) <= 4096 && is_dns(&bytes[2..])),
        (Id::Bgp, |bytes| bytes.len() >= 19 && bytes[..16] == [0xff; 16]),
        (Id::Mqtt, is_mqtt),
        (Id::Rdp, |bytes| bytes.len() >= 7 && bytes[..3] == [3, 0, 0] && matches!(bytes[5], 0xd0 | 0xe0)),
        (Id::Vnc, |bytes| bytes.starts_with(b"RFB 0")),
        (Id::Mysql, is_mysql),
        (Id::Postgres, is_postgres),
        (Id::Bittorrent, |bytes| bytes.starts_with(b"\x13BitTorrent protocol")),
    ];
    tests.iter().find(|(_, test)| test(bytes)).map(|(id, _)| *id)
}

/// The application that a UDP payload begins like.
pub(super) fn of_udp(bytes: &[u8]) -> Option<Id> {
    let tests: [Test; 10] = [
        (Id::Quic, is_quic),
        (Id::Dhcp, |bytes| bytes.get(236..240) == Some(&[99, 130, 83, 99])),
        (Id::Stun, |bytes| bytes.len() >= 20 && bytes[0] < 0x40 && bytes[4..8] == [0x21, 0x12, 0xa4, 0x42]),
        (Id::Dtls, is_dtls),
        (Id::Sip, is_sip),
        (Id::Ssdp, |bytes| {
            bytes.starts_with(b"M-SEARCH * HTTP/1.1") || bytes.starts_with(b"NOTIFY * HTTP/1.1")
        }),
        (Id::Bittorrent, |bytes| bytes.starts_with(b"d1:ad2:id20:") || bytes.starts_with(b"d1:rd2:id20:")),
        (Id::Wireguard, |bytes| bytes.len() == 148 && bytes[..4] == [1, 0, 0, 0]),
        (Id::Snmp, is_snmp),
        // Name service of NetBIOS, link-local and multicast name services have the same form: their ports tell.
        (Id::Dns, is_dns),
    ];
    tests.iter().find(|(_, test)| test(bytes)).map(|(id, _)| *id)
}

fn word(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |two| u16::from_be_bytes([two[0], two[1]]))
}

/// A handshake record (RFC 8446, 5.1) with a client's or server's hello.
fn is_tls(bytes: &[u8]) -> bool {
    bytes.len() >= 6
        && bytes[0] == 22
        && bytes[1] == 3
        && bytes[2] <= 4
        && (4..=16_384).contains(&word(bytes, 3))
        && matches!(bytes[5], 1 | 2)
}

/// A handshake record of DTLS 1.0 or 1.2 (RFC 6347, 4.1) with a hello or the request to verify one.
fn is_dtls(bytes: &[u8]) -> bool {
    bytes.len() >= 14
        && bytes[0] == 22
        && bytes[1] == 0xfe
        && matches!(bytes[2], 0xff | 0xfd)
        && bytes[13] <= 3
}

fn starts_with_any(bytes: &[u8], words: &[&[u8]]) -> bool {
    words.iter().any(|word| bytes.starts_with(word))
}

/// A request with a method of RFC 9110 or WebDAV, a response, or HTTP/2's preface.
fn is_http(bytes: &[u8]) -> bool {
    let methods: [&[u8]; 15] = [
        b"GET ",
        b"POST ",
        b"HEAD ",
        b"PUT ",
        b"DELETE ",
        b"OPTIONS ",
        b"CONNECT ",
        b"TRACE ",
        b"PATCH ",
        b"PROPFIND ",
        b"REPORT ",
        b"MKCOL ",
        b"COPY ",
        b"MOVE ",
        b"LOCK ",
    ];
    if starts_with_any(bytes, &[b"HTTP/1.", b"PRI * HTTP/2.0"]) {
        return true;
    }
    let target = methods.iter().find_map(|method| bytes.strip_prefix(*method));
    target
        .and_then(<[u8]>::first)
        .is_some_and(|byte| *byte == b'/' || *byte == b'*' || byte.is_ascii_alphanumeric())
}

fn is_rtsp(bytes: &[u8]) -> bool {
    let request =
        |method: &[u8]| bytes.strip_prefix(method).is_some_and(|rest| rest.starts_with(b" rtsp://"));
    bytes.starts_with(b"RTSP/1.0 ")
        || [&b"OPTIONS"[..], b"DESCRIBE", b"SETUP", b"PLAY"].into_iter().any(request)
}

fn is_sip(bytes: &[u8]) -> bool {
    let methods: [&[u8]; 8] =
        [b"INVITE", b"REGISTER", b"OPTIONS", b"ACK", b"BYE", b"CANCEL", b"SUBSCRIBE", b"NOTIFY"];
    let request = |method: &[u8]| bytes.strip_prefix(method).is_some_and(|rest| rest.starts_with(b" sip:"));
    bytes.starts_with(b"SIP/2.0 ") || methods.into_iter().any(request)
}

/// Whether a word stands in the first line, in capitals or not.
fn first_line_has(bytes: &[u8], word: &[u8]) -> bool {
    let end = bytes.iter().take(512).position(|byte| *byte == b'\n').unwrap_or(bytes.len().min(512));
    bytes[..end].windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}

fn is_smtp(bytes: &[u8]) -> bool {
    starts_with_any(bytes, &[b"EHLO ", b"HELO ", b"MAIL FROM:"])
        || bytes.starts_with(b"220") && first_line_has(bytes, b"SMTP")
}

fn is_ftp(bytes: &[u8]) -> bool {
    bytes.starts_with(b"220") && first_line_has(bytes, b"FTP")
}

/// A session message with a header of SMB 1, 2 or 3.
fn is_smb(bytes: &[u8]) -> bool {
    matches!(bytes.get(4..8), Some([0xfd..=0xff, b'S', b'M', b'B']))
}

/// CONNECT with the protocol's name of version 3.1 or later.
fn is_mqtt(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x10)
        && (2..=5).any(|at| matches!(bytes.get(at..at + 6), Some([0, 4, b'M', b'Q', b'T', b'T'])))
}

/// The server's greeting, version 10.
fn is_mysql(bytes: &[u8]) -> bool {
    let length =
        bytes.first().zip(bytes.get(1)).map(|(low, high)| usize::from(*low) | usize::from(*high) << 8);
    length.is_some_and(|length| length + 4 == bytes.len())
        && bytes.get(2..5) == Some(&[0, 0, 10])
        && bytes.get(5).is_some_and(u8::is_ascii_digit)
}

/// A startup message of version 3, or the wish for TLS.
fn is_postgres(bytes: &[u8]) -> bool {
    let length = bytes.first_chunk::<4>().map(|four| u32::from_be_bytes(*four) as usize);
    length == Some(bytes.len())
        && matches!(bytes.get(4..8), Some([0, 3, 0, 0 | 2] | [0x04, 0xd2, 0x16, 0x2f]))
}

/// A long header of version 1, 2 or a draft (RFC 9000, 17.2) with lengths of connection ids that can be.
fn is_quic(bytes: &[u8]) -> bool {
    let Some(head) = bytes.first_chunk::<6>() else { return false };
    let version = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let known = matches!(version, 1 | 0x6b33_43cf) || version >> 8 == 0x00ff_0000;
    head[0] & 0xc0 == 0xc0 && known && head[5] <= 20
}

/// SNMP's outer sequence with a version of 1, 2c or 3, and what follows it there (RFC 3416, RFC 3412).
fn is_snmp(bytes: &[u8]) -> bool {
    if bytes.first() != Some(&0x30) {
        return false;
    }
    let at = match bytes.get(1) {
        Some(0x81) => 3,
        Some(0x82) => 4,
        Some(length) if *length < 0x80 => 2,
        _ => return false,
    };
    matches!(bytes.get(at..at + 4), Some([2, 1, 0 | 1, 4] | [2, 1, 3, 0x30]))
}

/// A message with one question that can be read (RFC 1035, 4.1) and few records.
fn is_dns(bytes: &[u8]) -> bool {
    if bytes.len() < 17 || word(bytes, 4) != 1 || word(bytes, 2) & 0x7840 != 0 {
        return false;
    }
    let answer = word(bytes, 2) & 0x8000 != 0;
    let records = [6, 8, 10].map(|at| word(bytes, at));
    if records.iter().any(|n| *n > 256) || !answer && (records[0] > 0 || records[2] > 2) {
        return false;
    }
    let mut at = 12;
    while let Some(&length) = bytes.get(at) {
        if length == 0 {
            let class = word(bytes, at + 3);
            return bytes.len() >= at + 5
                && word(bytes, at + 1) != 0
                && matches!(class & 0x7fff, 1 | 3 | 255);
        }
        if length > 63 {
            return false;
        }
        at += usize::from(length) + 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dns(flags: u16, name: &[u8], class: u16) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34];
        bytes.extend(flags.to_be_bytes());
        bytes.extend([0, 1, 0, 0, 0, 0, 0, 0]);
        bytes.extend(name);
        bytes.extend([0, 1]);
        bytes.extend(class.to_be_bytes());
        bytes
    }

    #[test]
    fn protocols_are_known_by_how_they_begin() {
        let client_hello = [22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
        let smb = [0, 0, 0, 100, 0xfe, b'S', b'M', b'B', 64, 0];
        let query = dns(0x0100, b"\x04onvm\x04test\0", 1);
        let over_tcp = [&u16::try_from(query.len()).unwrap().to_be_bytes()[..], &query].concat();
        for (bytes, id) in [
            (&client_hello[..], Id::Tls),
            (b"GET / HTTP/1.1\r\n", Id::Http),
            (b"HTTP/1.1 200 OK\r\n", Id::Http),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Id::Http),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Id::Ssh),
            (b"220 mail.example.org ESMTP ready\r\n", Id::Smtp),
            (b"220 (vsFTPd 3.0.3) FTP\r\n", Id::Ftp),
            (b"* OK IMAP4rev1\r\n", Id::Imap),
            (b"OPTIONS rtsp://10.0.0.1/ RTSP/1.0\r\n", Id::Rtsp),
            (b"OPTIONS sip:a@b SIP/2.0\r\n", Id::Sip),
            (b"\x10\x10\x00\x04MQTT\x04\x02", Id::Mqtt),
            (&smb, Id::Smb),
            (&over_tcp, Id::Dns),
        ] {
            assert_eq!(of_tcp(bytes), Some(id), "{bytes:?}");
        }
        let mut initial = vec![0xc3, 0, 0, 0, 1, 8];
        initial.resize(1200, 7);
        let mut stun = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        stun.resize(20, 1);
        for (bytes, id) in [
            (&initial[..], Id::Quic),
            (&query, Id::Dns),
            (&stun, Id::Stun),
            (b"\x30\x26\x02\x01\x01\x04\x06public", Id::Snmp),
            (b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n", Id::Ssdp),
        ] {
            assert_eq!(of_udp(bytes), Some(id), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_only_like_them_is_not_taken_for_them() {
        for bytes in [
            &b"GETTING on"[..],
            b"220 welcome\r\n",
            &[22, 3, 1, 2, 0, 9],
            &[22, 3, 9, 2, 0, 1],
            b"SSL-2.0",
            &[0; 64],
        ] {
            assert_eq!(of_tcp(bytes), None, "{bytes:?}");
        }
        for bytes in [
            &dns(0x0100, b"\x04onvm\x80test\0", 1)[..],
            &dns(0x0100, b"\x04onvm\x04test\0", 99),
            &dns(0x7900, b"\x04onvm\x04test\0", 1),
            &[0xc3, 0, 0, 0, 99, 8, 0],
            &[0; 200],
        ] {
            assert_eq!(of_udp(bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_looked_at(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (of_tcp(&bytes), of_udp(&bytes));
        }

        #[test]
        fn noise_is_hardly_ever_taken_for_a_protocol(bytes in prop::collection::vec(any::<u8>(), 64)) {
            // The weakest test leaves one of some hundred thousand through.
            prop_assert!(of_tcp(&bytes).is_none() && of_udp(&bytes).is_none());
        }
    }
}
