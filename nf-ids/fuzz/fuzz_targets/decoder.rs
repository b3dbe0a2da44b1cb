//! A frame of any link type, and all that is carried in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nf_ids::decode::{Begin, Settings, decode};
use onvm_lib::wire::LinkType;

fuzz_target!(|input: (u8, &[u8])| {
    let (kind, bytes) = input;
    let mut begin = match kind % 5 {
        0 => Begin::Link(LinkType::Ethernet),
        1 => Begin::Link(LinkType::LinuxSll),
        2 => Begin::Ipv4,
        3 => Begin::Ipv6,
        _ => Begin::Ppp,
    };
    let (mut bytes, mut layers) = (bytes, 0);
    loop {
        let (packet, inner) = decode(&Settings::default(), bytes, begin, layers);
        let Some(inner) = inner else { break };
        assert!(packet.layers >= layers);
        (bytes, begin, layers) = (inner.bytes, inner.begin, packet.layers);
    }
});
