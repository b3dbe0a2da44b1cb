use super::*;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};

fn health(probe: Probe, rise: u32, fall: u32) -> Health {
    let (interval, timeout) = (Duration::from_millis(20), Duration::from_millis(20));
    Health { probe, port: None, interval, timeout, rise, fall }
}

fn http(body: Option<&str>) -> Probe {
    let body = body.map(str::to_string);
    Probe::Http { path: "/up".into(), host: None, status: vec![200..=299], body }
}

fn target(port: u16, health: Health) -> Target {
    Target { slot: 3, id: 7, address: Ipv4Addr::LOCALHOST.into(), port, health }
}

/// Waits for the next change; there is no time after which it would be too late.
fn next(checker: &Checker) -> News {
    for _ in 0..3000 {
        if let Some(news) = checker.news() {
            return news;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no news");
}

#[test]
fn thresholds_keep_a_backend_from_flapping() {
    let mut judge = Judge::default();
    let answers = [true, false, false, true, false, false, false, true, false, true, true];
    let said: Vec<bool> = answers.iter().map(|good| judge.take(*good, 2, 3)).collect();
    assert_eq!(said, [true, false, false, false, false, false, true, false, false, false, true]);
    // Who was never well is down at once.
    assert!(Judge::default().take(false, 2, 3));
}

#[test]
fn a_server_comes_and_goes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let checker = Checker::start().unwrap();
    let patient = Health {
        timeout: Duration::from_secs(10),
        interval: Duration::from_secs(10),
        ..health(Probe::Tcp, 1, 1)
    };
    let quick = Health { interval: Duration::from_millis(20), ..patient };
    checker.check(vec![target(port, quick)]);
    let up = next(&checker);
    assert_eq!((up.slot, up.id, up.good, up.what.as_str()), (3, 7, true, "connected"));
    drop(listener);
    let down = next(&checker);
    // A connection that was made and not taken is reset.
    assert!(!down.good && (down.what.contains("refused") || down.what.contains("reset")), "{down:?}");
    // Others may have been given the port for a moment.
    let _again = std::iter::repeat_with(|| TcpListener::bind(("127.0.0.1", port)))
        .inspect(|_| std::thread::sleep(Duration::from_millis(10)))
        .take(3000)
        .find_map(Result::ok)
        .expect("the port once more");
    assert!(next(&checker).good);
}

#[test]
fn a_web_server_is_asked_over_http() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let answers = ["HTTP/1.1 503 Busy\r\n\r\n", "HTTP/1.1 200 OK\r\nX: y\r\n\r\nall is well\n"];
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 500];
            let count = stream.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..count]).into_owned();
            assert!(request.starts_with("GET /up HTTP/1.1\r\nHost: 127.0.0.1:"), "{request}");
            // In two parts, as the network may have it.
            let (a, b) = answer.split_at(answer.len() / 2);
            stream.write_all(a.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(20));
            stream.write_all(b.as_bytes()).unwrap();
        }
    });
    let checker = Checker::start().unwrap();
    let health = Health { timeout: Duration::from_secs(20), ..health(http(Some("is well")), 1, 1) };
    checker.check(vec![target(port, health)]);
    let busy = next(&checker);
    assert_eq!((busy.good, busy.what.as_str()), (false, "status 503"));
    let well = next(&checker);
    assert_eq!((well.good, well.what.as_str()), (true, "status 200, body as wanted"));
    server.join().unwrap();
}

#[test]
fn one_who_does_not_answer_is_down() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let checker = Checker::start().unwrap();
    checker.check(vec![target(listener.local_addr().unwrap().port(), health(http(None), 1, 1))]);
    assert_eq!(next(&checker).what, "no answer within 0.02 s");
}

#[test]
fn echoes_are_asked_where_that_is_permitted() {
    if let Err(error) = probe::ping_socket(Ipv4Addr::LOCALHOST.into()) {
        assert!(std::env::var_os("CI").is_none(), "no ICMP echoes here: {error}");
        eprintln!("SKIPPED: no ICMP echoes here: {error}");
        return;
    }
    let checker = Checker::start().unwrap();
    let health = Health { timeout: Duration::from_secs(10), ..health(Probe::Icmp, 1, 1) };
    checker.check(vec![target(0, health)]);
    assert_eq!(next(&checker).what, "answered");
}

#[test]
fn answers_are_judged_as_soon_as_they_can_be() {
    let judge = |answer: &str, body: Option<&str>, end| probe::judge(answer.as_bytes(), &http(body), end);
    assert_eq!(judge("HTTP/1.1 20", None, false), None);
    assert_eq!(judge("HTTP/1.1 20", None, true), Some(Err("no status line".into())));
    assert_eq!(judge("HTTP/1.0 204 x\r\n", None, false), Some(Ok("status 204".into())));
    assert_eq!(judge("HTTP/1.1 404 x\r\n", Some("y"), false), Some(Err("status 404".into())));
    assert_eq!(judge("SSH-2.0-x\r\n", None, false), Some(Err("\"SSH-2.0-x\" is no status line".into())));
    assert_eq!(judge("HTTP/1.1 200 x\r\nA: good\r\n\r\n", Some("good"), false), None);
    assert!(judge("HTTP/1.1 200 x\r\n\r\nbad", Some("good"), true).unwrap().is_err());
    assert!(judge("HTTP/1.1 200 x\r\n\r\nso good", Some("good"), false).unwrap().is_ok());
}
