//! The application layer as a whole: how a protocol is begun, changed and left, and what a hostile flow may cost.

use super::*;
use Direction::{ToClient, ToServer};

fn state(server_port: u16) -> State {
    let hints = Hints { client_port: 40_000, server_port, ..Hints::default() };
    State::new(hints, &Limits::default())
}

#[test]
fn a_first_piece_longer_than_what_is_kept_loses_nothing() {
    let mut request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n".to_vec();
    request.extend([b'x'; 19_990]);
    request.extend(b"the-end-ok");
    let mut app = state(8080);
    app.data(ToServer, &request, 0, false);
    let body = app.buffer(0, Buffer::HttpRequestBody, ToServer, 0).unwrap();
    assert_eq!(body.len(), 20_000);
    assert!(body.ends_with(b"the-end-ok"));
    // What came before the piece that decided, and had no room, stays lost.
    let mut app = state(8080);
    app.data(ToClient, &[b'?'; 3 * 4096], 0, false);
    app.data(ToServer, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0, false);
    assert_eq!(app.protocol(), Protocol::Http1);
}

#[test]
fn endless_changes_of_protocol_end() {
    let one = b"HTTP/1.1 101 Switching\r\nUpgrade: other\r\n\r\n";
    let many: Vec<u8> = one.iter().copied().cycle().take(one.len() * 100_000).collect();
    let mut app = state(80);
    app.data(ToServer, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0, false);
    app.data(ToClient, &many, 0, false);
    assert!(app.is_stopped());
    assert!(app.memory() < 8 << 20, "{}", app.memory());
}

/// A TLS record of handshake bytes.
fn record(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&[22, 3, 3][..], &length, body].concat()
}

/// A Certificate message with one certificate of so many bytes of junk.
fn certificate(length: usize) -> Vec<u8> {
    let three = |n: usize| u32::try_from(n).unwrap().to_be_bytes()[1..].to_vec();
    [&[11][..], &three(length + 6), &three(length + 3), &three(length), &vec![7; length]].concat()
}

#[test]
fn a_chain_is_read_once_however_often_it_is_sent() {
    let mut app = state(443);
    let long = certificate(100_000);
    for _ in 0..50 {
        for part in long.chunks(16_000) {
            app.data(ToServer, &record(part), 0, false);
        }
    }
    assert_eq!(app.buffer(0, Buffer::TlsCerts, ToServer, 0).map(<[u8]>::len), Some(100_000));
    assert_eq!(app.buffer(0, Buffer::TlsCerts, ToServer, 1), None);
    assert!(app.memory() < 600_000, "{}", app.memory());
}

#[test]
fn messages_in_records_of_one_byte_are_read() {
    let mut app = state(443);
    for byte in certificate(3000) {
        app.data(ToServer, &record(&[byte]), 0, false);
    }
    assert_eq!(app.buffer(0, Buffer::TlsCerts, ToServer, 0).map(<[u8]>::len), Some(3000));
}

#[test]
fn attachments_of_one_mail_are_bounded_together() {
    let mut app = state(25);
    app.data(ToClient, b"220 smtp ready\r\n", 0, false);
    app.data(ToServer, b"EHLO a\r\nMAIL FROM:<a@b>\r\nDATA\r\n", 0, false);
    app.data(ToServer, b"Content-Type: multipart/mixed; boundary=xx\r\n\r\n", 0, false);
    for _ in 0..200 {
        let part = b"--xx\r\nContent-Disposition: attachment; filename=a\r\n\r\n";
        app.data(ToServer, part, 0, false);
        for _ in 0..90 {
            app.data(ToServer, &[&[b'x'; 1000][..], b"\r\n"].concat(), 0, false);
        }
    }
    assert_eq!(app.buffer(0, Buffer::FileData, ToServer, 0).map(<[u8]>::len), Some(90 * 1002 - 2));
    assert!(app.memory() < 5 << 20, "{}", app.memory());
}

#[test]
fn stub_data_of_open_calls_is_bounded_together() {
    let mut app = state(135);
    for call in 0..60u8 {
        for first in [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] {
            let mut fragment = vec![5, 0, 0, first, 0x10, 0, 0, 0];
            fragment.extend(60_024u16.to_le_bytes());
            fragment.extend([0, 0, call, 0, 0, 0]);
            fragment.extend([0; 60_008]);
            app.data(ToServer, &fragment, 0, false);
        }
    }
    assert_eq!(app.protocol(), Protocol::Dcerpc);
    assert!(app.memory() < 4 << 20, "{}", app.memory());
}
