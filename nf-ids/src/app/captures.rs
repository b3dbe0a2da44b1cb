//! The application layer on captures made by others.

use super::{Buffer, Protocol};
use crate::engine::{Detection, Engine, Inspection, Judgement, Mode, Settings};
use crate::flow::Direction;
use onvm_lib::wire::LinkType;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Keeps the longest form of every buffer that was seen.
#[derive(Debug, Default)]
struct Keeper {
    seen: BTreeMap<(u16, u64, Buffer, usize), Vec<u8>>,
    protocols: BTreeMap<Protocol, usize>,
}

impl Detection for Keeper {
    type FlowState = ();

    fn wants_raw(&self) -> bool {
        false
    }

    fn inspect(&mut self, seen: &Inspection<'_>, _: Option<&mut ()>) -> Judgement {
        let (Some(app), Some(flow)) = (seen.app, seen.flow) else { return Judgement::default() };
        *self.protocols.entry(app.protocol()).or_default() += 1;
        let direction = flow.direction;
        let port = match direction {
            Direction::ToServer => seen.packet.source_port,
            Direction::ToClient => seen.packet.destination_port,
        };
        for id in app.transactions() {
            for buffer in Buffer::all().filter(|buffer| buffer.protocols().contains(&app.protocol_of(id))) {
                for index in 0..64 {
                    let Some(bytes) = app.buffer(id, buffer, direction, index) else { break };
                    let kept = self.seen.entry((port, id, buffer, index)).or_default();
                    if kept.len() <= bytes.len() {
                        *kept = bytes.to_vec();
                    }
                }
            }
        }
        Judgement::default()
    }
}

impl Keeper {
    /// Whether a buffer of any transaction has this in it.
    fn has(&self, buffer: Buffer, text: &[u8]) -> bool {
        self.all(buffer).any(|bytes| memchr::memmem::find(bytes, text).is_some())
    }

    fn all(&self, buffer: Buffer) -> impl Iterator<Item = &[u8]> {
        self.seen.iter().filter(move |((_, _, one, _), _)| *one == buffer).map(|(_, bytes)| &bytes[..])
    }
}

/// The folder of cases, when it is there.
fn cases() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("ONVM_TEST_DATA").map_or(beside, PathBuf::from).join("ids");
    if !folder.is_dir() {
        eprintln!("skipped: no ../shared/data and no ONVM_TEST_DATA");
        return None;
    }
    Some(folder)
}

/// Gives every frame of a capture (classic pcap) to an engine.
fn read(capture: &Path, mode: Mode) -> Keeper {
    let mut engine =
        Engine::new(Settings { ignore_checksums: true, ..Settings::of(mode) }, Keeper::default());
    let file = std::fs::read(capture).unwrap();
    let big = file[0] == 0xa1;
    let number = |at: usize| {
        let four = <[u8; 4]>::try_from(&file[at..at + 4]).unwrap();
        if big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) }
    };
    let link = LinkType::from_number(number(20) & 0xffff);
    let (mut at, mut now) = (24, 0);
    while at + 16 <= file.len() {
        let length = number(at + 8) as usize;
        let Some(frame) = file.get(at + 16..at + 16 + length) else { break };
        now += 1_000_000;
        engine.frame(frame, link, now);
        at += 16 + length;
    }
    engine.finish();
    engine.detection
}

#[test]
fn evasions_in_captures_do_not_hide_the_file() {
    let Some(folder) = cases() else { return };
    let mut hidden = Vec::new();
    for entry in std::fs::read_dir(folder.join("T5e")).unwrap() {
        let path = entry.unwrap().path();
        for mode in [Mode::Ids, Mode::Inline] {
            let kept = read(&path.join("input.pcap"), mode);
            let found = kept.has(Buffer::FileData, b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE")
                && kept.has(Buffer::FileData, b"X5O!P%@AP[4");
            if !found {
                hidden.push(format!("{mode:?} {} {:?}", path.display(), kept.all(Buffer::FileData).next()));
            }
        }
    }
    assert!(hidden.is_empty(), "{hidden:#?}");
}

#[test]
fn buffers_of_captures_are_what_rules_look_for() {
    let Some(folder) = cases() else { return };
    let expected: &[(&str, Buffer, &[u8])] = &[
        ("T5/from_base64-02", Buffer::HttpUri, b"/?arg=Zm 9v Ym Fy"),
        ("T5/http-missing-protocol", Buffer::HttpHeaderNames, b"User-Agent"),
        ("T5/http-not09-file", Buffer::HttpResponseLine, b"HTTP/1.1 400"),
        ("T5/prefilter-multibuf-multipkts", Buffer::HttpResponseHeader, b"first"),
        ("T6/ssh-hassh", Buffer::SshHassh, b"2dd6531c7e89d3c925db9214711be76a"),
        ("T6/ssh-hassh", Buffer::SshHasshServer, b"6832f1ce43d4397c2c0a3e2f8c94334e"),
        (
            "T6/tls__tls-fingerprint-alert",
            Buffer::TlsCertFingerprint,
            b"90:86:a4:3b:f5:cf:1b:2e:4e:f7:97:96:f9:de:ba:b9:66:35:86:3f",
        ),
        ("T6/tls__tls-glupteba", Buffer::TlsSubjectAltName, b"server15.xn--j1ahhq.xn--p1ai"),
        (
            "T6/tls__tls-subject-zero",
            Buffer::TlsCertSubject,
            b"C=US, ST=WA, L=Redmond, O=Microsoft Corporat\0on, OU=Microsoft Corporation, CN=go.microsoft.com",
        ),
        ("T6/tls__tls-random", Buffer::TlsRandomTime, b"\x54\xf9\xfc\x15"),
        ("T6/tls__tls-random-6989", Buffer::TlsRandomTime, b"\x54\xb8\xf7\x73"),
        ("T6/dns__dns-query__dns-detect-query-02", Buffer::DnsQuery, b"google.com"),
        ("T7/sip-uri", Buffer::SipUri, b"sip:sip.cybercity.dk"),
        ("T7/sip-compact-form", Buffer::SipContentLength, b"272"),
        ("T7/sip-response-line", Buffer::SipResponseLine, b"SIP/2.0 200 OK"),
        ("T7/detect-email-x-mailer", Buffer::EmailXMailer, b"Microsoft Office Outlook, Build 11.0.5510"),
        ("T7/snmp-community", Buffer::SnmpCommunity, b"[R0_C@cti!]"),
        ("T7/ftp-retr-bypass-realserver", Buffer::FtpCommand, b"RETR"),
        ("T7/mqtt-unsub-rules", Buffer::MqttUnsubscribeTopic, b"topicX"),
        ("T7/mqtt-binary-message", Buffer::MqttPublishMessage, b"\xff\xd8\xff\xe0"),
        ("T7/llmnr__llmnr-tcp", Buffer::LlmnrAnswersName, b"workstation"),
        ("T7/llmnr__llmnr-authority-additional", Buffer::LlmnrAdditionalsName, b"ns.local"),
    ];
    let mut wrong = Vec::new();
    for (case, buffer, text) in expected {
        let capture = folder.join(case).join("input.pcap");
        if capture.is_file() {
            let kept = read(&capture, Mode::Ids);
            if !kept.has(*buffer, text) {
                let first: Vec<String> =
                    kept.all(*buffer).take(3).map(|b| String::from_utf8_lossy(b).into_owned()).collect();
                wrong.push(format!("{case} {buffer:?}: {first:?} {:?}", kept.protocols));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
