//! Both sides of a connection that speaks HTTP/2 from its first byte on, DNS over it included.
#![no_main]

mod sides;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|pieces: Vec<(bool, u8, &[u8])>| {
    let mut all: Vec<(bool, u8, &[u8])> = vec![(false, 0, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")];
    all.extend(pieces);
    sides::talk(false, 80, all);
});
