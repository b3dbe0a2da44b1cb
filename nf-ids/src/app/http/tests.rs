//! Whole exchanges, in any pieces.

use super::Http;
use crate::app::{Buffer, Event, Limits, Parser, Progress};
use crate::flow::Direction::{ToClient, ToServer};

/// Reads both sides in pieces of so many bytes.
fn read(request: &[u8], response: &[u8], piece: usize) -> Http {
    let mut http = Http::new(0, &Limits::default(), 80);
    for part in request.chunks(piece) {
        http.data(ToServer, part);
    }
    for part in response.chunks(piece) {
        http.data(ToClient, part);
    }
    http
}

fn closed(request: &[u8], response: &[u8], piece: usize) -> Http {
    let mut http = read(request, response, piece);
    http.end(ToServer);
    http.end(ToClient);
    http
}

fn get(http: &Http, id: u64, buffer: Buffer) -> String {
    let direction = if buffer.is_in(ToServer) { ToServer } else { ToClient };
    String::from_utf8_lossy(http.buffer(id, buffer, direction, 0).unwrap_or(b"(none)")).into_owned()
}

const REQUEST: &[u8] =
    b"GET /a/../b%20c?d=%41 HTTP/1.1\r\nHost: Www.Example.com:80\r\nUser-Agent: x/1\r\nCookie: k\r\n\r\n";

#[test]
fn a_request_has_its_buffers_however_it_is_cut() {
    for piece in 1..REQUEST.len() + 1 {
        let http = read(REQUEST, b"", piece);
        assert_eq!(http.ids(), 0..1);
        assert_eq!(http.progress(0, ToServer), Progress::Complete);
        assert_eq!(get(&http, 0, Buffer::HttpUri), "/b c?d=A");
        assert_eq!(get(&http, 0, Buffer::HttpUriRaw), "/a/../b%20c?d=%41");
        assert_eq!(get(&http, 0, Buffer::HttpMethod), "GET");
        assert_eq!(get(&http, 0, Buffer::HttpHost), "www.example.com");
        assert_eq!(get(&http, 0, Buffer::HttpHostRaw), "Www.Example.com:80");
        assert_eq!(get(&http, 0, Buffer::HttpHeader), "Host: Www.Example.com:80\r\nUser-Agent: x/1\r\n");
        assert_eq!(get(&http, 0, Buffer::HttpHeaderNames), "\r\nHost\r\nUser-Agent\r\nCookie\r\n\r\n");
        assert_eq!(get(&http, 0, Buffer::HttpCookie), "k");
        assert_eq!(get(&http, 0, Buffer::HttpProtocol), "HTTP/1.1");
        assert_eq!(get(&http, 0, Buffer::HttpRequestLine), "GET /a/../b%20c?d=%41 HTTP/1.1");
        assert_eq!(http.buffer(0, Buffer::HttpStart, ToServer, 0), Some(REQUEST));
        assert_eq!(http.buffer(0, Buffer::HttpRequestHeader, ToServer, 1), Some(&b"User-Agent: x/1"[..]));
        assert!(http.events(0).is_empty(), "{:?}", http.events(0));
    }
}

#[test]
fn bodies_are_found_whatever_says_their_length() {
    let length = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec();
    let chunks =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n 3;x\r\nllo\r\n0\r\n\r\n".to_vec();
    for response in [&length, &chunks] {
        for piece in 1..response.len() + 1 {
            let http = read(REQUEST, response, piece);
            assert_eq!(file(&http), "hello", "pieces of {piece}");
            assert_eq!(http.progress(0, ToClient), Progress::Complete, "pieces of {piece}");
            assert_eq!(get(&http, 0, Buffer::HttpStatCode), "200");
            assert_eq!(get(&http, 0, Buffer::HttpStatMsg), "OK");
        }
    }
    let close = closed(REQUEST, b"HTTP/1.1 200 OK\r\n\r\nhello", 4);
    assert_eq!(file(&close), "hello");
}

/// The first file of the first response.
fn file(http: &Http) -> String {
    String::from_utf8_lossy(http.buffer(0, Buffer::FileData, ToClient, 0).unwrap_or(b"(none)")).into_owned()
}

#[test]
fn evasions_of_responses_do_not_hide_the_body() {
    let head = "HTTP/1.1 200 ok\r\nContent-type: x\r\n";
    let chunked = "4\r\nhell\r\n1\r\no\r\n0\r\n\r\n";
    let cases = [
        format!("HTTP/2.0 200 ok\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"),
        format!("{head}Transfer-Encoding: \r chunked\r\n\r\n{chunked}"),
        format!(
            "{head}Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: y\r\n\r\n{chunked}"
        ),
        format!("{head}X: y\rTransfer-Encoding: chunked\r\n\r\n{chunked}"),
        format!("{head}Transfer-Encoding:chunked\x7f\r\n\r\n{chunked}"),
        format!("HTTP/1.1 200\rTransfer-Encoding:chunked\r\n\r\n{chunked}"),
        format!("HTTP/1.1 200\0 ok\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"),
        format!("{head}Transfer-Encoding: chunked\r\nX: foo\n \n\n{chunked}"),
        format!("\r\n\r\n{head}Transfer-Encoding: chunked\r\n\r\n{chunked}"),
        format!(" \n{head}Transfer-Encoding: chunked\r\n\r\n{chunked}"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n4\r\r\nhell\r\n1\r\r\no\r\n0000000000\r\n\r\n"),
        format!("{head}Connection: close\r\n Transfer-Encoding: chunked\r\nContent-length: 5\r\n\r\nhello"),
        format!("{head}X-Foo: bar\r\n Transfer-Encoding: chunked\r\n\r\nhello"),
        format!("{head}Content-length: 5\n\r\nhello"),
        "HTTP/1.1 200 ok\rContent-type: x\rContent-length: 5\r\n\r\nhello".to_string(),
        format!("{head}Content-Encoding: gzip\r\nContent-Encoding: gzip\r\nContent-length: 5\r\n\r\nhello"),
        "HTTP/1.1 2 ok\r\nContent-length: 5\r\n\r\nhello".to_string(),
        "HTTP/1.1 304 ok\r\nContent-length: 5\r\n\r\nhello".to_string(),
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ok\r\nContent-length: 5\r\n\r\nhello".to_string(),
        "HTTP/0.9 200 ok\r\nContent-length: 3\r\n\r\nhello".to_string(),
        "HTTP/1.1 200 ok\r\nContent-length: none\r\n\r\nhello".to_string(),
        "HTTP/1.1 200 ok\r\nContent-length: 500\r\n\r\nhello".to_string(),
    ];
    for case in cases {
        let http = closed(REQUEST, case.as_bytes(), usize::MAX);
        assert_eq!(file(&http), "hello", "{case:?}");
    }
}

#[test]
fn pipelined_requests_have_their_responses() {
    let mut requests = Vec::new();
    let mut responses = Vec::new();
    for n in 0..5 {
        requests.extend(format!("POST /{n} HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n{n}").bytes());
        responses.extend(format!("HTTP/1.1 20{n} m\r\nContent-Length: 2\r\n\r\nr{n}").bytes());
    }
    for piece in [1, 3, 17, 1000] {
        let http = read(&requests, &responses, piece);
        assert_eq!(http.ids(), 0..5, "pieces of {piece}");
        for n in 0..5 {
            assert_eq!(get(&http, n, Buffer::HttpUri), format!("/{n}"));
            assert_eq!(get(&http, n, Buffer::HttpRequestBody), format!("{n}"));
            assert_eq!(get(&http, n, Buffer::HttpStatCode), format!("20{n}"));
            assert_eq!(get(&http, n, Buffer::HttpResponseBody), format!("r{n}"));
        }
    }
}

#[test]
fn a_request_without_protocol_may_have_headers() {
    let http = read(b"GET /gen.php?x=1\r\nHost: 5.8.88.25\r\nUser-Agent:M\r\n\r\n\r\n", b"xzs$", 1000);
    assert_eq!(get(&http, 0, Buffer::HttpUserAgent), "M");
    assert!(http.events(0).contains(&Event::HttpRequestLineMissingProtocol));
    let http = closed(b"GET /index.html\r\n", b"<html>", 1000);
    assert_eq!(file(&http), "<html>");
    let http = closed(b"\x85\0junk\nmore", b"HTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\nno", 1000);
    assert_eq!(get(&http, 0, Buffer::HttpResponseLine), "HTTP/1.1 400 Bad");
    assert_eq!(file(&http), "no");
}

#[test]
fn a_response_without_request_has_a_transaction() {
    let http = read(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", 5);
    assert_eq!(http.ids(), 0..1);
    assert!(http.events(0).contains(&Event::HttpUnmatchedResponse));
    assert_eq!(file(&http), "no");
}

#[test]
fn the_start_is_written_as_headers_are_read() {
    let odd = b"GET / HTTP/1.1\nhost:a\n  b\r\nX :1\r\nx: 2\r\n\r\n";
    let http = read(odd, b"HTTP/1.1 200 OK\nServer:  s \n\r\n\r\n", 1000);
    assert_eq!(
        http.buffer(0, Buffer::HttpStart, ToServer, 0),
        Some(&b"GET / HTTP/1.1\r\nhost: a  b\r\nX: 1, 2\r\n\r\n"[..])
    );
    assert_eq!(
        http.buffer(0, Buffer::HttpStart, ToClient, 0),
        Some(&b"HTTP/1.1 200 OK\r\nServer: s\r\n\r\n"[..])
    );
}

#[test]
fn the_host_of_the_uri_goes_before_that_of_the_header() {
    let http = read(b"GET http://Other.Org../x HTTP/1.1\r\nHost: first.com:99\r\n\r\n", b"", 1000);
    assert_eq!(get(&http, 0, Buffer::HttpHost), "other.org");
    assert_eq!(get(&http, 0, Buffer::HttpHostRaw), "Other.Org..");
    assert_eq!(http.events(0), [Event::HttpUriHostInvalid, Event::HttpHostAmbiguous]);
    let http = read(b"GET / HTTP/1.1\r\nHost: Good.com:8080\r\n\r\n", b"", 1000);
    assert_eq!(get(&http, 0, Buffer::HttpHostRaw), "Good.com:8080");
    assert_eq!(http.events(0), [Event::HttpPortMismatch]);
    let http = read(b"GET / HTTP/1.1\r\nHost: a..b:x\r\n\r\n", b"", 1000);
    assert!(http.events(0).contains(&Event::HttpHeaderHostInvalid));
}

#[test]
fn what_is_odd_is_told() {
    let many: String = (0..1030).map(|n| format!("h{n}: x\r\n")).collect();
    let odd = [
        ("Transfer-Encoding: gzip\r\n", Event::HttpInvalidResponseTransferEncoding),
        ("Content-Range: bytes 9-3/10\r\n", Event::HttpRangeInvalid),
        ("Content-Length: 1\r\nContent-Length: 2\r\n", Event::HttpDuplicateResponseContentLength),
        (&many, Event::HttpResponseTooManyHeaders),
    ];
    for (header, event) in odd {
        let http = read(REQUEST, format!("HTTP/1.1 200 OK\r\n{header}\r\n").as_bytes(), 1000);
        assert!(http.events(0).contains(&event), "{event:?}: {:?}", http.events(0));
    }
    let fine = "Content-Range: bytes 0-3/10\r\nContent-Length: 01\r\nContent-Length: 1\r\n";
    let http = read(REQUEST, format!("HTTP/1.1 206 OK\r\n{fine}\r\nx").as_bytes(), 1000);
    assert_eq!(http.events(0), [Event::HttpResponseHeaderRepetition]);
    let http = read(REQUEST, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n", 1000);
    assert_eq!(http.events(0), [Event::HttpResponseChunkExtension]);
    assert_eq!(closed(b"GET / HTT", b"", 1000).events(0), [Event::HttpRequestLineIncomplete]);
}

#[test]
fn bodies_and_headers_are_bounded() {
    let mut http = Http::new(0, &Limits::default(), 80);
    http.data(ToServer, b"POST / HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n");
    for _ in 0..1000 {
        http.data(ToServer, &[b'x'; 4096]);
    }
    assert_eq!(http.buffer(0, Buffer::HttpRequestBody, ToServer, 0).map(<[u8]>::len), Some(100 << 10));
    assert!(http.memory() < 400 << 10, "{}", http.memory());
    let mut http = Http::new(0, &Limits::default(), 80);
    http.data(ToServer, b"GET / HTTP/1.1\r\n");
    for n in 0..100_000 {
        http.data(ToServer, format!("header-{n}: value\r\n").as_bytes());
    }
    assert!(http.memory() < 2 << 20, "{}", http.memory());
}
