//! Both sides of a connection to port 443.
#![no_main]

mod sides;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|pieces: Vec<(bool, u8, &[u8])>| sides::talk(false, 443, pieces));
