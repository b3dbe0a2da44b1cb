//! Datagrams to and from port 443.
#![no_main]

mod sides;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|pieces: Vec<(bool, u8, &[u8])>| sides::talk(true, 443, pieces));
