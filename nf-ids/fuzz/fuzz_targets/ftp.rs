//! Both sides of FTP's control connection, and what it announces.
#![no_main]

mod sides;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|pieces: Vec<(bool, u8, &[u8])>| {
    let mut all: Vec<(bool, u8, &[u8])> = vec![(true, 0, b"220 FTP\r\n"), (false, 0, b"USER a\r\n")];
    all.extend(pieces);
    sides::talk(false, 21, all);
});
