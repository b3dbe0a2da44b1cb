//! Both sides of a connection that has changed to WebSocket, with messages that may be deflated.
#![no_main]

mod sides;

use libfuzzer_sys::fuzz_target;

const ASKED: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
const GRANTED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";

fuzz_target!(|pieces: Vec<(bool, u8, &[u8])>| {
    let mut all: Vec<(bool, u8, &[u8])> = vec![(false, 0, ASKED), (true, 0, GRANTED)];
    all.extend(pieces);
    sides::talk(false, 80, all);
});
