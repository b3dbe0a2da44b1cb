//! Every parser, with its input cut, changed and lost at random: what is read does not depend on how it is cut, and
//! nothing panics, hangs or grows.

use super::{Buffer, Hints, Limits, Progress, State};
use crate::flow::Direction::{self, ToClient, ToServer};

/// A small generator, the same on every run (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % bound
    }
}

/// What two sides say to each other, in turns.
type Talk = Vec<(Direction, Vec<u8>)>;

fn tls_record(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind, 3, 3][..], &length, body].concat()
}

fn handshake(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind][..], &length[1..], body].concat()
}

fn tls() -> Talk {
    let mut client = vec![3, 3];
    client.extend([7; 32]);
    client.extend(
        b"\0\0\x04\x13\x01\xc0\x2f\x01\0\0\x1f\0\0\0\x0c\0\x0a\0\0\x07a.b.com\0\x10\0\x0b\0\x09\x08http/1.1",
    );
    let mut server = vec![3, 3];
    server.extend([8; 32]);
    server.extend(b"\0\xc0\x2f\0");
    let junk = handshake(11, b"\0\0\x08\0\0\x05\x30\x03\x02\x01\x05");
    let whole = handshake(1, &client);
    let halves = [tls_record(22, &whole[..9]), tls_record(22, &whole[9..])].concat();
    let answer = [tls_record(22, &handshake(2, &server)), tls_record(22, &junk)].concat();
    let end = [tls_record(20, b"\x01"), tls_record(23, &[0; 300])].concat();
    vec![(ToServer, halves), (ToClient, answer), (ToServer, end.clone()), (ToClient, end)]
}

fn ssh() -> Talk {
    let mut body = vec![20];
    body.extend([9; 16]);
    for n in 0..10 {
        body.extend([0, 0, 0, 2, b'a', b'0' + n]);
    }
    body.extend([0; 9]);
    let length = u32::try_from(body.len() + 1).unwrap().to_be_bytes();
    let packet = [&length[..], &[4], &body].concat();
    let side = [b"SSH-2.0-Tool_1\r\n".to_vec(), packet].concat();
    vec![(ToClient, side.clone()), (ToServer, side)]
}

fn dns() -> Talk {
    let query = b"\0\x1d\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x07example\x01b\0\0\x01\0\x01".to_vec();
    let mut answer =
        b"\0\x2d\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0\x01a\x07example\x01b\0\0\x01\0\x01".to_vec();
    answer.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x01\x02\x03\x04");
    vec![(ToServer, query.repeat(3)), (ToClient, answer.repeat(3))]
}

fn http() -> Talk {
    let form = "--zz\r\nContent-Disposition: form-data; name=\"f\"; filename=\"n.txt\"\r\n\r\n\
        hello\nthere\r\n--zz--\r\n";
    let post = format!(
        "POST /up?x=%41 HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=zz\r\n\
        Content-Length: {}\r\n\r\n{form}",
        form.len()
    );
    let get = b"GET /b HTTP/1.1\r\nHost: h\r\nX: one\r\n two\r\n\r\n";
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: deflate\r\n\r\n\
        5\r\n\x4b\x4c\x4a\x06\x00\r\n0\r\nTrailer: x\r\n\r\n";
    let plain = b"HTTP/1.1 404 Not\r\nContent-Length: 3\r\n\r\nabc";
    vec![(ToServer, [post.as_bytes(), get].concat()), (ToClient, [&chunked[..], plain].concat())]
}

fn ftp() -> Talk {
    let commands = b"USER x\r\nPORT 10,0,0,1,4,5\r\nQUIT\r\n".to_vec();
    let replies = b"220-a\r\n220 FTP\r\n331 p\r\n150 o\r\n226 d\r\n221 Bye\r\n".to_vec();
    let greeting = replies[..16].to_vec();
    vec![(ToClient, greeting), (ToServer, commands), (ToClient, replies[16..].to_vec())]
}

fn smtp() -> Talk {
    let mail = b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c>\r\nDATA\r\nSubject: s\r\n one\r\n\
        Content-Type: multipart/mixed; boundary=q\r\n\r\n--q\r\nContent-Type: x; name=f\r\n\
        Content-Transfer-Encoding: base64\r\n\r\naGVs\r\nbG8=\r\n--q--\r\n.\r\nMAIL FROM:<d>\r\nBDAT 9 LAST\r\nTo: y\r\n\r\nRSET\r\n";
    vec![
        (ToClient, b"220 ESMTP\r\n".to_vec()),
        (ToServer, mail.to_vec()),
        (ToClient, b"250 ok\r\n354 go\r\n".to_vec()),
    ]
}

fn sip() -> Talk {
    let request = b"INVITE sip:a@b SIP/2.0\r\nf: <x>\r\nTo: y\r\nl: 4\r\n\r\nbody";
    let response = b"SIP/2.0 200 OK\r\nVia: z\r\nContent-Length: 0\r\n\r\n";
    vec![(ToServer, request.repeat(2)), (ToClient, response.repeat(2))]
}

fn mqtt() -> Talk {
    let connect = b"\x10\x12\0\x04MQTT\x04\x80\0\x3c\0\x02id\0\x02me";
    let publish = b"\x32\x09\0\x02to\0\x07txt\x82\x07\0\x08\0\x02to\0";
    let answer = b"\x20\x02\0\0\x40\x02\0\x07\x90\x03\0\x08\0";
    vec![
        (ToServer, connect.to_vec()),
        (ToClient, answer[..4].to_vec()),
        (ToServer, publish.to_vec()),
        (ToClient, answer[4..].to_vec()),
    ]
}

fn krb5() -> Talk {
    let message = b"\0\0\0\x0e\x6a\x0c\x30\x0a\xa1\x03\x02\x01\x05\xa2\x03\x02\x01\x0a";
    vec![(ToServer, message.repeat(3)), (ToClient, message.repeat(2))]
}

fn ldap() -> Talk {
    let request = b"\x30\x05\x02\x01\x02\x63\0\x30\x05\x02\x01\x03\x42\0";
    let answer = b"\x30\x05\x02\x01\x02\x64\0\x30\x05\x02\x01\x02\x65\0";
    vec![(ToServer, request.to_vec()), (ToClient, answer.to_vec())]
}

fn rfb() -> Talk {
    let init = [&[0; 20][..], b"\0\0\0\x04desk"].concat();
    vec![
        (ToClient, b"RFB 003.008\n".to_vec()),
        (ToServer, b"RFB 003.008\n".to_vec()),
        (ToClient, b"\x02\x01\x02".to_vec()),
        (ToServer, b"\x01".to_vec()),
        (ToClient, b"\0\0\0\0".to_vec()),
        (ToServer, b"\x01".to_vec()),
        (ToClient, init),
    ]
}

fn smb() -> Talk {
    let mut write = b"\xffSMB\x2f\0\0\0\0\x18\x01\x28".to_vec();
    write.resize(32, 0);
    write.push(12);
    write.extend([0xff, 0, 0, 0, 2, 0x40]);
    write.resize(33 + 20, 0);
    write.extend([5, 0, 59, 0, 5, 0]);
    write.extend(b"hello");
    let length = u8::try_from(write.len()).unwrap();
    let mut tree = b"\xfeSMB\x40\0\0\0\0\0\0\0\x03\0".to_vec();
    tree.resize(64, 0);
    tree.extend([9, 0, 0, 0, 72, 0, 8, 0]);
    tree.extend(b"I\0P\0C\0$\0");
    vec![(ToServer, [&[0, 0, 0, length][..], &write, &[0, 0, 0, 80], &tree].concat())]
}

fn dcerpc() -> Talk {
    let part = |kind: u8, flags: u8| {
        let mut one = vec![5, 0, kind, flags, 0x10, 0, 0, 0, 28, 0, 0, 0, 7, 0, 0, 0, 4, 0, 0, 0, 0, 0, 9, 0];
        one.extend(b"stub");
        one
    };
    let calls = [part(0, 1), part(0, 2)].concat();
    vec![(ToServer, calls), (ToClient, part(2, 3))]
}

fn http2() -> Talk {
    let frame = |kind: u8, flags: u8, stream: u8, body: &[u8]| {
        [&[0, 0, u8::try_from(body.len()).unwrap(), kind, flags, 0, 0, 0, stream][..], body].concat()
    };
    // RFC 7541, appendix C.4.1, kept in the table; its second request has it from there.
    let first = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
    let second = b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf";
    let client = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, &[0, 1, 0, 0, 16, 0]),
        frame(1, 0, 1, &first[..9]),
        frame(9, 4, 1, &first[9..]),
        frame(0, 9, 1, b"\x02body\0\0"),
        frame(1, 5, 3, second),
        frame(3, 0, 3, &[0, 0, 0, 8]),
    ];
    let server =
        [frame(4, 0, 0, &[]), frame(1, 4, 1, b"\x88"), frame(0, 1, 1, b"answer"), frame(6, 0, 0, &[7; 8])];
    vec![(ToServer, client.concat()), (ToClient, server.concat())]
}

fn websocket() -> Talk {
    let request = b"GET /w HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n";
    let answer = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n\x01\x03Hel\x80\x02lo\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\0";
    vec![
        (ToServer, request.to_vec()),
        (ToClient, answer.to_vec()),
        (ToServer, b"\x89\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".repeat(3)),
    ]
}

/// Name, ports and conversation of each protocol.
fn talks() -> Vec<(&'static str, u16, Talk)> {
    vec![
        ("http", 80, http()),
        ("dns", 53, dns()),
        ("tls", 443, tls()),
        ("ssh", 22, ssh()),
        ("ftp", 21, ftp()),
        ("smtp", 25, smtp()),
        ("sip", 5060, sip()),
        ("mqtt", 1883, mqtt()),
        ("krb5", 88, krb5()),
        ("ldap", 389, ldap()),
        ("rfb", 5900, rfb()),
        ("smb", 445, smb()),
        ("dcerpc", 135, dcerpc()),
        ("http2", 80, http2()),
        ("websocket", 80, websocket()),
    ]
}

fn state(port: u16) -> State {
    let hints = Hints { client_port: 40_000, server_port: port, ..Hints::default() };
    State::new(hints, &Limits::default())
}

/// Everything that can be asked of a state, in text.
fn all(state: &State) -> String {
    let mut text = format!("{:?}", state.protocol());
    for id in state.transactions() {
        text += &format!("\n{id} {:?}", state.describe(id));
        for direction in [ToServer, ToClient] {
            text += &format!("\n {:?}", state.progress(id, direction));
            for buffer in Buffer::all() {
                for index in 0..20 {
                    let Some(bytes) = state.buffer(id, buffer, direction, index) else { break };
                    text += &format!("\n  {buffer:?} {index} {}", bytes.escape_ascii());
                }
            }
        }
    }
    text
}

/// Feeds a conversation in pieces of at most so many bytes.
fn feed(state: &mut State, talk: &Talk, dice: &mut Dice, most: usize) {
    for (direction, bytes) in talk {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((1 + dice.below(most)).min(rest.len()));
            state.data(*direction, piece, 0, false);
            rest = after;
        }
    }
}

#[test]
fn how_bytes_are_cut_does_not_matter() {
    for (name, port, talk) in talks() {
        let mut whole = state(port);
        feed(&mut whole, &talk, &mut Dice(1), 1);
        let expected = all(&whole);
        assert!(expected.to_lowercase().starts_with(name), "{expected}");
        assert!(whole.transactions().count() > 0, "{name}");
        for seed in 1..150 {
            let mut state = state(port);
            let mut dice = Dice(seed);
            let most = [1, 2, 5, 30, 1000][dice.below(5)];
            feed(&mut state, &talk, &mut dice, most);
            assert_eq!(all(&state), expected, "{name} seed {seed} pieces of up to {most}");
        }
    }
}

#[test]
fn broken_input_does_no_harm() {
    for (name, port, talk) in talks() {
        for seed in 1..400u64 {
            let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            let mut state = state(port);
            for (direction, bytes) in &talk {
                let mut bytes = bytes.clone();
                for _ in 0..dice.below(6) {
                    let at = dice.below(bytes.len());
                    match dice.below(4) {
                        0 => bytes[at] = u8::try_from(dice.below(256)).unwrap(),
                        1 => bytes[at] ^= 1 << dice.below(8),
                        2 => bytes.truncate(at.max(1)),
                        _ => {
                            let piece = bytes[at..].to_vec();
                            bytes.extend(piece);
                        }
                    }
                }
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (piece, after) = rest.split_at((1 + dice.below(60)).min(rest.len()));
                    let gap = if dice.below(20) == 0 { 1 + dice.below(2000) } else { 0 };
                    state.data(*direction, piece, gap, false);
                    rest = after;
                }
            }
            let _ = all(&state);
            for direction in [ToServer, ToClient] {
                state.data(direction, &[], 0, true);
                assert!(state.transactions().all(|id| state.progress(id, direction) == Progress::Complete));
            }
            state.release(u64::MAX);
            assert_eq!(state.transactions().count(), 0, "{name} seed {seed}: all are forgotten");
            assert!(state.memory() < 1 << 20, "{name} seed {seed}: {}", state.memory());
        }
    }
}

#[test]
fn endless_streams_are_bounded() {
    for (name, port, talk) in talks() {
        for seed in 1..4u64 {
            let mut dice = Dice(seed);
            let mut state = state(port);
            for (direction, bytes) in &talk {
                state.data(*direction, &bytes[..dice.below(bytes.len()) + 1], 0, false);
            }
            for round in 0..2000 {
                let direction = if round % 2 == 0 { ToServer } else { ToClient };
                let byte = u8::try_from(dice.below(256)).unwrap();
                state.data(direction, &[byte; 1400], 0, false);
            }
            assert!(state.memory() < 8 << 20, "{name}: {}", state.memory());
        }
    }
}
