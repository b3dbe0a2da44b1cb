//! Tests of bytes: the buffers that rules look into, and what they ask of them.

use std::sync::Arc;

use super::compare::Compare;
use super::values::{Asn1, FileHash, SetTest};

/// Bytes of a packet, of its stream or of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The payload of the packet, or the stream's window.
    Payload,
    /// What `base64_decode` made.
    Base64,
    /// A header of the packet.
    Header(HeaderBytes),
    /// A buffer of a transaction.
    App(crate::app::Buffer),
}

/// Headers as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderBytes {
    /// `ether.hdr`.
    Ethernet,
    /// `ipv4.hdr`.
    Ipv4,
    /// `ipv6.hdr`, with its extension headers.
    Ipv6,
    /// `tcp.hdr`, with its options.
    Tcp,
    /// `udp.hdr`.
    Udp,
    /// `icmpv4.hdr`.
    Icmpv4,
    /// `icmpv6.hdr`.
    Icmpv6,
    /// `igmp.hdr`.
    Igmp,
    /// `ip.src`: the source address, 4 or 16 bytes.
    Source,
    /// `ip.dst`.
    Destination,
}

/// The tests of one buffer, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// Which buffer.
    pub place: Place,
    /// What is made of it first, in order.
    pub transforms: Vec<Transform>,
    /// What is asked.
    pub tests: Vec<Test>,
    /// In a rule of both directions (`=>`): the direction that it is looked for in, where the buffer has both.
    pub way: Option<super::rule::Way>,
    /// Which test's content is searched for by the prefilter, with the part of it that is.
    pub fast: Option<Fast>,
}

/// The part of a content that the prefilter searches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fast {
    /// Index of the test in its section.
    pub test: usize,
    /// First byte of the pattern.
    pub from: usize,
    /// Bytes of it.
    pub length: usize,
    /// The rule said so (`fast_pattern`).
    pub asked: bool,
    /// The prefilter's hit is all that there is to know (`fast_pattern:only`).
    pub only: bool,
}

/// A constant, or a variable that an earlier test set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A constant.
    Is(i64),
    /// The variable of this index.
    Of(usize),
}

/// `content`.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    /// The bytes; folded to lower case with `nocase`.
    pub pattern: Vec<u8>,
    /// Case does not matter.
    pub nocase: bool,
    /// It must not be there.
    pub negated: bool,
    /// `offset`.
    pub offset: Option<Value>,
    /// `depth`, from the offset.
    pub depth: Option<Value>,
    /// `distance`, from the end of the last match.
    pub distance: Option<Value>,
    /// `within`, from the end of the last match and the distance.
    pub within: Option<Value>,
    /// It must be at the start of the buffer.
    pub starts: bool,
    /// It must be at the end of the buffer.
    pub ends: bool,
}

impl Content {
    /// A pattern that may be anywhere.
    #[must_use]
    pub fn new(pattern: Vec<u8>, negated: bool) -> Self {
        Content {
            pattern,
            nocase: false,
            negated,
            offset: None,
            depth: None,
            distance: None,
            within: None,
            starts: false,
            ends: false,
        }
    }

    /// Whether it counts from the last match.
    #[must_use]
    pub fn is_relative(&self) -> bool {
        self.distance.is_some() || self.within.is_some()
    }
}

/// Byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endian {
    /// Network order.
    Big,
    /// The other.
    Little,
    /// As the header of the DCE/RPC call says.
    Dce,
}

/// How a number is written in the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    /// As it is, in this order.
    Binary(Endian),
    /// Digits of this base; 0 for one that the digits tell (`0x`, `0`).
    Digits(u32),
}

/// Where and how a number is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number {
    /// How many bytes.
    pub bytes: Value,
    /// Where.
    pub offset: Value,
    /// Counted from the last match.
    pub relative: bool,
    /// How it is written.
    pub notation: Notation,
    /// `bitmask`: the bits that count, moved down to bit 0.
    pub mask: Option<u32>,
}

/// `byte_test`'s operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `<`.
    Less,
    /// `<=`.
    AtMost,
    /// `=`.
    Equal,
    /// `>`.
    Greater,
    /// `>=`.
    AtLeast,
    /// `&`: any bit in common.
    And,
    /// `^`: any bit that differs.
    Xor,
}

/// `byte_math`'s operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// `+`.
    Add,
    /// `-`.
    Subtract,
    /// `*`.
    Multiply,
    /// `/`.
    Divide,
    /// `<<`.
    Left,
    /// `>>`.
    Right,
}

/// `byte_jump`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jump {
    /// The number read; its count of bytes may be 0: then only `post_offset` counts.
    pub number: Number,
    /// It is multiplied by this.
    pub multiplier: u32,
    /// It is rounded up to the next multiple of 4.
    pub align: bool,
    /// The jump starts at the beginning of the buffer.
    pub from_beginning: bool,
    /// The jump starts at the end of the buffer.
    pub from_end: bool,
    /// What is added last.
    pub post_offset: Value,
}

/// Rules of base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base64Mode {
    /// Nothing but the alphabet, in whole groups.
    Strict,
    /// Decoding ends at what is not of the alphabet.
    Rfc4648,
    /// What is not of the alphabet is skipped.
    Rfc2045,
}

/// A test.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// `content`.
    Content(Content),
    /// `isdataat`: how far; relative; negated.
    DataAt(Value, bool, bool),
    /// `bsize`, `urilen`.
    Size(Compare),
    /// `pcre`.
    Pcre(Pcre),
    /// `byte_test`: the number, the operator, negated, the value.
    ByteTest(Number, Operator, bool, Value),
    /// `byte_jump`.
    ByteJump(Jump),
    /// `byte_extract`: the number, the multiplier, of what it is rounded up to a multiple, the variable.
    ByteExtract(Number, u32, u32, usize),
    /// `byte_math`: the number, the operator, the right value, the variable.
    ByteMath(Number, Arithmetic, Value, usize),
    /// `base64_decode`: how many bytes at most (0: all), from where, relative. The sections of `base64_data` that
    /// follow are asked about what comes out.
    Base64 {
        /// At most so many bytes of the encoded form.
        bytes: usize,
        /// From here on.
        offset: usize,
        /// Counted from the last match.
        relative: bool,
    },
    /// `absent`.
    Absent(Absence),
    /// `entropy`: bytes (0: all), offset, and what is asked of the bits a byte.
    Entropy(usize, usize, FloatCompare),
    /// `asn1`.
    Asn1(Asn1),
    /// `dataset`, `datarep`.
    Set(SetTest),
    /// `filesize`.
    FileSize(Compare),
    /// `filemd5` and its kin.
    FileHash(FileHash),
}

/// What `absent` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// The buffer is not there.
    Only,
    /// It is not there, or what follows holds (`or_else`).
    OrElse,
    /// A transform could make nothing of it (`must_error`).
    MustError,
    /// A transform could make nothing of it, or what follows holds (`error_or`).
    ErrorOr,
}

/// A comparison of `entropy`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FloatCompare {
    /// The same.
    Equal(f64),
    /// Another.
    NotEqual(f64),
    /// Less.
    Less(f64),
    /// Less or the same.
    AtMost(f64),
    /// More.
    Greater(f64),
    /// More or the same.
    AtLeast(f64),
    /// Between, ends left out.
    Between(f64, f64),
    /// Not between.
    NotBetween(f64, f64),
}

impl FloatCompare {
    /// Whether `value` is as asked. "The same" means to within what a division can lose.
    #[must_use]
    pub fn holds(self, value: f64) -> bool {
        match self {
            FloatCompare::Equal(n) => (value - n).abs() < 1e-9,
            FloatCompare::NotEqual(n) => (value - n).abs() >= 1e-9,
            FloatCompare::Less(n) => value < n,
            FloatCompare::AtMost(n) => value <= n,
            FloatCompare::Greater(n) => value > n,
            FloatCompare::AtLeast(n) => value >= n,
            FloatCompare::Between(low, high) => low < value && value < high,
            FloatCompare::NotBetween(low, high) => value <= low || high <= value,
        }
    }
}

/// `pcre`.
#[derive(Clone, Debug, PartialEq)]
pub struct Pcre {
    /// The expression as PCRE2 takes it, its flags in it.
    pub expression: String,
    /// It must not match.
    pub negated: bool,
    /// It starts at the end of the last match.
    pub relative: bool,
    /// The match limit is not lowered.
    pub unlimited: bool,
    /// What is kept of a match.
    pub captures: Vec<Capture>,
}

/// What a group of an expression has matched is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// The group.
    pub group: Group,
    /// With the flow; else for this packet.
    pub of_flow: bool,
    /// Its name for `flowvar` and `pktvar`.
    pub name: Arc<str>,
}

/// A group of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Group {
    /// By its place, from 1.
    Number(usize),
    /// By its name.
    Name(String),
}

/// What makes other bytes of a buffer.
#[derive(Clone, Debug, PartialEq)]
pub enum Transform {
    /// `strip_whitespace`.
    StripWhitespace,
    /// `compress_whitespace`.
    CompressWhitespace,
    /// `to_lowercase`.
    ToLowercase,
    /// `to_uppercase`.
    ToUppercase,
    /// `to_md5`.
    Md5,
    /// `to_sha1`.
    Sha1,
    /// `to_sha256`.
    Sha256,
    /// `dotprefix`.
    DotPrefix,
    /// `domain`: the registered name.
    Domain,
    /// `tld`: the last label.
    Tld,
    /// `url_decode`.
    UrlDecode,
    /// `xor` with this key.
    Xor(Vec<u8>),
    /// `xor` with a key that stands in the buffer: start of the data, bytes of the key, where it stands.
    XorExtract(usize, usize, usize),
    /// `header_lowercase`.
    HeaderLowercase,
    /// `strip_pseudo_headers`.
    StripPseudoHeaders,
    /// `pcrexform`: the first group of this expression.
    Pcre(String),
    /// `from_base64`: bytes (0: all), offset, rules.
    FromBase64(usize, usize, Base64Mode),
    /// `subslice`: offset, length (`None`: to the end), cut to what is there instead of nothing.
    Subslice(i64, Option<i64>, bool),
    /// `gunzip`: at most so many bytes come out.
    Gunzip(usize),
    /// `zlib_deflate`: at most so many bytes come out.
    ZlibDeflate(usize),
}
