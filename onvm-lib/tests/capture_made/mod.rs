//! Captures made byte by byte, for the tests: independent of the writer under test.
#![allow(dead_code, unreachable_pub, reason = "each test that includes this uses its own part")]

use onvm_lib::capture::{Error, Frame, LinkType, Reader};

/// How a number of 16, 32 or 64 bits is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Order(bool);
pub const LITTLE: Order = Order(false);
pub const BIG: Order = Order(true);

impl Order {
    pub fn put16(self, out: &mut Vec<u8>, value: u16) {
        out.extend(if self.0 { value.to_be_bytes() } else { value.to_le_bytes() });
    }
    pub fn put32(self, out: &mut Vec<u8>, value: u32) {
        out.extend(if self.0 { value.to_be_bytes() } else { value.to_le_bytes() });
    }
    pub fn put32s(self, out: &mut Vec<u8>, values: &[u32]) {
        values.iter().for_each(|&value| self.put32(out, value));
    }
}

/// What is kept of a frame after the reader moved on.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    pub timestamp_ns: u64,
    pub original_len: u32,
    pub link_type: LinkType,
    pub interface: u32,
    pub data: Vec<u8>,
}

impl From<&Frame<'_>> for Kept {
    fn from(frame: &Frame<'_>) -> Self {
        let Frame { timestamp_ns, original_len, link_type, interface, data } = *frame;
        Self { timestamp_ns, original_len, link_type, interface, data: data.to_vec() }
    }
}

impl Kept {
    pub fn frame(&self) -> Frame<'_> {
        let Self { timestamp_ns, original_len, link_type, interface, ref data } = *self;
        Frame { timestamp_ns, original_len, link_type, interface, data }
    }
}

/// All frames, and the error at the end if there is one.
pub fn drain(mut reader: Reader) -> (Vec<Kept>, Option<Error>) {
    let mut frames = Vec::new();
    loop {
        match reader.next_frame() {
            Ok(Some(frame)) => frames.push(Kept::from(&frame)),
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}

/// A pcap file header with snap length 96.
pub fn pcap(order: Order, magic: u32, link: u32) -> Vec<u8> {
    let mut out = Vec::new();
    order.put32(&mut out, magic);
    order.put16(&mut out, 2);
    order.put16(&mut out, 4);
    order.put32s(&mut out, &[0, 0, 96, link]);
    out
}

pub fn pcap_record(order: Order, seconds: u32, fraction: u32, data: &[u8], original_len: u32) -> Vec<u8> {
    let mut out = Vec::new();
    order.put32s(&mut out, &[seconds, fraction, u32::try_from(data.len()).unwrap(), original_len]);
    out.extend(data);
    out
}

/// A pcapng file in the making.
pub struct Made {
    order: Order,
    pub bytes: Vec<u8>,
}

/// A pcapng file with its section header.
pub fn pcapng(order: Order) -> Made {
    let mut made = Made { order, bytes: Vec::new() };
    made.section(order);
    made
}

impl Made {
    pub fn block(&mut self, kind: u32, body: &[u8]) -> &mut Self {
        let length = u32::try_from(12 + body.len().next_multiple_of(4)).unwrap();
        self.order.put32s(&mut self.bytes, &[kind, length]);
        self.bytes.extend(body);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.order.put32(&mut self.bytes, length);
        self
    }

    pub fn section(&mut self, order: Order) -> &mut Self {
        self.order = order;
        let mut body = Vec::new();
        order.put32(&mut body, 0x1a2b_3c4d);
        order.put16(&mut body, 1);
        order.put16(&mut body, 0);
        order.put32s(&mut body, &[u32::MAX, u32::MAX]);
        self.block(0x0a0d_0d0a, &body)
    }

    pub fn interface(&mut self, link: u16, snap_length: u32, options: &[(u16, Vec<u8>)]) -> &mut Self {
        let mut body = Vec::new();
        self.order.put16(&mut body, link);
        self.order.put16(&mut body, 0);
        self.order.put32(&mut body, snap_length);
        for (code, value) in options {
            self.order.put16(&mut body, *code);
            self.order.put16(&mut body, u16::try_from(value.len()).unwrap());
            body.extend(value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        self.block(1, &body)
    }

    pub fn enhanced(&mut self, interface: u32, time: u64, data: &[u8], original_len: u32) -> &mut Self {
        let mut body = Vec::new();
        self.order.put32(&mut body, interface);
        self.rest(body, time, data, original_len, 6)
    }

    pub fn obsolete(&mut self, interface: u16, time: u64, data: &[u8], original_len: u32) -> &mut Self {
        let mut body = Vec::new();
        self.order.put16(&mut body, interface);
        self.order.put16(&mut body, 77); // frames dropped before this one
        self.rest(body, time, data, original_len, 2)
    }

    fn rest(&mut self, mut body: Vec<u8>, time: u64, data: &[u8], original_len: u32, kind: u32) -> &mut Self {
        let half = |bits: u64| u32::try_from(bits).unwrap();
        let (high, low) = (half(time >> 32), half(time & 0xffff_ffff));
        self.order.put32s(&mut body, &[high, low, u32::try_from(data.len()).unwrap(), original_len]);
        body.extend(data);
        self.block(kind, &body)
    }

    pub fn simple(&mut self, data: &[u8], original_len: u32) -> &mut Self {
        let mut body = Vec::new();
        self.order.put32(&mut body, original_len);
        body.extend(data);
        self.block(3, &body)
    }
}
