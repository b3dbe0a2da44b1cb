//! Streams in any pieces, and what a hostile peer may send.

use super::*;
use Direction::{ToClient, ToServer};

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), body].concat()
}

/// Fields as literals that are not kept.
fn fields(all: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    all.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

fn request() -> Vec<u8> {
    let all = [
        (":method", "POST"),
        (":path", "/x?y"),
        (":authority", "Me@Host.com:8080"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("user-agent", "curl"),
    ];
    let block = fields(&all);
    let (one, two) = block.split_at(20);
    let padded = [&[3], one, &[0; 3]].concat();
    [
        PREFACE.to_vec(),
        frame(4, 0, 0, &[0, 1, 0, 0, 16, 0]),
        frame(1, PADDED, 1, &padded),
        frame(9, END_HEADERS, 1, two),
        frame(0, 0, 1, b"hel"),
        frame(0, END_STREAM, 1, b"lo"),
    ]
    .concat()
}

fn response() -> Vec<u8> {
    let block = fields(&[(":status", "200"), ("server", "s"), ("set-cookie", "c")]);
    [frame(4, 0, 0, &[]), frame(1, END_HEADERS, 1, &block), frame(0, END_STREAM, 1, b"world")].concat()
}

#[test]
fn a_request_and_its_response_are_read_however_they_are_cut() {
    for piece in [1, 2, 7, 50, 1000] {
        let mut h2 = Http2::new(5, &Limits::default(), false);
        for part in request().chunks(piece) {
            h2.data(ToServer, part);
        }
        for part in response().chunks(piece) {
            h2.data(ToClient, part);
        }
        assert_eq!(h2.ids(), 5..8);
        let get = |buffer, way, index| {
            h2.buffer(6, buffer, way, index).map(|b| String::from_utf8_lossy(b).into_owned())
        };
        let expect =
            |buffer, way, text: &str| assert_eq!(get(buffer, way, 0).as_deref(), Some(text), "{piece}");
        expect(Buffer::HttpMethod, ToServer, "POST");
        expect(Buffer::HttpUri, ToServer, "/x?y");
        expect(Buffer::HttpHost, ToServer, "host.com");
        expect(Buffer::HttpHostRaw, ToServer, "Me@Host.com:8080");
        expect(Buffer::HttpCookie, ToServer, "a=1, b=2");
        expect(Buffer::HttpRequestLine, ToServer, "POST /x?y HTTP/2\r\n");
        expect(Buffer::HttpRequestBody, ToServer, "hello");
        expect(Buffer::FileData, ToClient, "world");
        expect(Buffer::HttpStatCode, ToClient, "200");
        expect(Buffer::HttpHeader, ToClient, ":status: 200\r\nserver: s\r\n");
        expect(Buffer::HttpHeaderNames, ToClient, "\r\n:status\r\nserver\r\nset-cookie\r\n\r\n");
        assert_eq!(get(Buffer::Http2HeaderName, ToServer, 5).as_deref(), Some("user-agent"));
        assert_eq!(get(Buffer::HttpResponseHeader, ToClient, 1).as_deref(), Some("server: s"));
        assert_eq!(h2.number(5, Number::Http2FrameType, ToServer, 0), Some(4));
        assert_eq!(h2.events(6), [Event::Http2UserinfoInUri]);
        assert_eq!((h2.only(5), h2.only(6), h2.only(7)), (Some(ToServer), None, Some(ToClient)));
        for way in [ToServer, ToClient] {
            assert_eq!(h2.progress(6, way), Progress::Complete);
        }
        assert_eq!(h2.describe(6)["status"], 200);
    }
}

#[test]
fn dns_in_paths_and_bodies_has_its_buffers() {
    let message = crate::app::dns::sample_for_tests(true);
    let mut h2 = Http2::new(0, &Limits::default(), false);
    h2.data(ToServer, PREFACE);
    let path = "/dns-query?dns=EjQBAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB";
    let block = fields(&[(":method", "GET"), (":path", path), ("accept", "application/dns-message")]);
    h2.data(ToServer, &frame(1, END_HEADERS | END_STREAM, 1, &block));
    assert_eq!(h2.buffer(0, Buffer::DnsQuery, ToServer, 0), Some(&b"www.example.com"[..]));
    assert_eq!(h2.renamed(), Some(Protocol::Doh2));
    let block = fields(&[(":status", "200"), ("content-type", "application/dns-message")]);
    h2.data(ToClient, &frame(1, END_HEADERS, 1, &block));
    h2.data(ToClient, &frame(0, END_STREAM, 1, &message));
    assert_eq!(h2.buffer(0, Buffer::DnsAnswersName, ToClient, 0), Some(&b"www.example.com"[..]));
    assert_eq!(h2.number(0, Number::DnsRcode, ToClient, 0), Some(0));
}

#[test]
fn what_is_wrong_is_told_and_ends_what_it_must() {
    let mut h2 = Http2::new(0, &Limits::default(), false);
    h2.data(ToServer, PREFACE);
    h2.data(ToServer, &frame(0, 0, 0, b"x"));
    assert_eq!(h2.events(0), [Event::Http2DataStreamZero]);
    h2.data(ToServer, &frame(3, 0, 9, &[0, 0, 0, 2]));
    assert_eq!(h2.number(1, Number::Http2ErrorCode, ToServer, 0), Some(2));
    assert_eq!((h2.progress(1, ToServer), h2.progress(1, ToClient)), (Progress::Complete, Progress::Start));
    h2.data(ToServer, &frame(2, 0, 11, &[0; 3]));
    assert_eq!(h2.events(2), [Event::Http2InvalidFrameData]);
    h2.data(ToServer, &frame(1, END_HEADERS, 13, &[0xff, 0xff]));
    assert_eq!(h2.events(3), [Event::Http2InvalidHeader]);
    h2.data(ToServer, &frame(1, END_HEADERS, 15, &[0x82]));
    assert_eq!(h2.ids(), 0..4, "the table is lost");
}

#[test]
fn floods_of_frames_and_streams_are_bounded() {
    let mut h2 = Http2::new(0, &Limits::default(), false);
    h2.data(ToServer, PREFACE);
    let block = fields(&[(":path", "/"), ("x", &"y".repeat(100))]);
    for stream in 0..3000 {
        h2.data(ToServer, &frame(1, END_HEADERS, 2 * stream + 1, &block));
        h2.data(ToServer, &frame(6, 0, 0, &[0; 8]));
    }
    assert!(h2.ids().end - h2.ids().start <= crate::app::MOST_TRANSACTIONS);
    assert!(h2.memory() < 4 << 20, "{}", h2.memory());
    // A frame too long to be read is passed over, and the next one found.
    let mut long = frame(0, 0, 1, b"");
    long[..3].copy_from_slice(&[2, 0, 0]);
    h2.data(ToServer, &long);
    h2.data(ToServer, &vec![7; 2 << 16]);
    h2.data(ToServer, &frame(6, 0, 0, &[0; 8]));
    let last = h2.ids().end - 1;
    assert_eq!(h2.number(last, Number::Http2FrameType, ToServer, 0), Some(6));
}

#[test]
fn fields_of_one_stream_are_bounded_over_all_its_blocks() {
    let mut h2 = Http2::new(0, &Limits::default(), false);
    h2.data(ToClient, &frame(4, 0, 0, &[0, TABLE_SIZE, 0, 1, 0, 0]));
    h2.data(ToServer, PREFACE);
    // A field of 60,000 bytes goes into the table once; after that one byte stands for it, again and again.
    let mut block = vec![0x3f, 0xe1, 0xff, 3, 0x40, 1, b'n', 0x7f, 0xe1, 0xd3, 3];
    block.extend([b'v'; 60_000]);
    h2.data(ToServer, &frame(1, END_HEADERS, 1, &block));
    let once = h2.memory();
    for _ in 0..500 {
        h2.data(ToServer, &frame(1, END_HEADERS, 1, &[0xbe]));
    }
    assert!(once > 120_000 && h2.memory() <= once + 1000, "{once} bytes, then {}", h2.memory());
    let fields = &h2.txs[1].sides[0].fields;
    let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(bytes > 60_000 && bytes <= tx::MOST_FIELD_BYTES, "{bytes}");
}

#[test]
fn a_stream_keeps_its_transaction_until_it_is_forgotten() {
    let mut h2 = Http2::new(0, &Limits::default(), false);
    h2.data(ToServer, PREFACE);
    for stream in [1, 3, 5, 3, 1] {
        h2.data(ToServer, &frame(0, 0, stream, b"x"));
    }
    assert_eq!((h2.ids(), h2.streams.len()), (0..3, 3));
    h2.release(2);
    assert_eq!((h2.ids(), h2.streams.len()), (2..3, 1));
    h2.data(ToServer, &frame(0, 0, 5, b"x"));
    h2.data(ToServer, &frame(0, 0, 1, b"x"));
    assert_eq!((h2.ids(), h2.txs[1].stream), (2..4, 1));
    for stream in 0..3000 {
        h2.data(ToServer, &frame(0, 0, 2 * stream + 7, b"x"));
    }
    assert_eq!(h2.streams.len() as u64, crate::app::MOST_TRANSACTIONS);
}
