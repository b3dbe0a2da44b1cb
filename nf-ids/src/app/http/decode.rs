//! Content encodings in layers: gzip and deflate as lenient as browsers, and what [`packed`](super::packed) has.
//!
//! Servers say `gzip` and send deflate, say `deflate` and send zlib or gzip, write broken gzip headers, or send the plain
//! text. A layer tries what was said first and the other forms after it as long as nothing came out; when none fits,
//! the bytes are passed on as they are. What was decoded before an error counts.

use super::packed::{Packed, Packing};
use flate2::{Decompress, FlushDecompress, Status};

/// Layers that are decoded; further ones are not.
pub(super) const MOST_LAYERS: usize = 2;
/// Bytes kept to try another form with.
const KEPT: usize = 4096;

/// What a layer can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A gzip header by its flags, then deflate.
    Gzip,
    /// Ten bytes of gzip header, then deflate.
    ShortGzip,
    /// Deflate.
    Raw,
    /// Deflate in zlib's wrapping, whose checksum is not asked.
    Zlib,
    /// Not encoded.
    Plain,
}

const GZIP_FIRST: &[Form] = &[Form::Gzip, Form::ShortGzip, Form::Raw, Form::Zlib, Form::Plain];
const DEFLATE_FIRST: &[Form] = &[Form::Raw, Form::Zlib, Form::Gzip, Form::ShortGzip, Form::Plain];

/// Bytes that an engine holds: its window of 32 KiB and its tables (that of `miniz_oxide` has 43 KiB; rounded up).
const ENGINE: usize = 48 << 10;

#[derive(Debug)]
struct Layer {
    forms: &'static [Form],
    engine: Option<Decompress>,
    /// What has come while the header is not complete or nothing came out.
    kept: Vec<u8>,
    produced: bool,
    done: bool,
}

/// The result of a header's or form's trial.
enum Start {
    At(usize),
    More,
    Wrong,
}

/// Length of a gzip header (RFC 1952, section 2.3). Reserved flags and the checksum are not looked at.
fn gzip_header(bytes: &[u8]) -> Start {
    if bytes.len() < 10 {
        let fits = bytes.iter().zip([0x1f, 0x8b]).all(|(byte, magic)| *byte == magic);
        return if fits { Start::More } else { Start::Wrong };
    }
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Start::Wrong;
    }
    let flags = bytes[3];
    let mut at = 10;
    if flags & 4 != 0 {
        let Some(length) = bytes.get(at..at + 2) else { return Start::More };
        at += 2 + usize::from(u16::from_le_bytes([length[0], length[1]]));
    }
    for flag in [8, 16] {
        if flags & flag != 0 {
            match bytes.get(at..).and_then(|rest| memchr::memchr(0, rest)) {
                Some(end) => at += end + 1,
                None => return Start::More,
            }
        }
    }
    if flags & 2 != 0 {
        at += 2;
    }
    if at <= bytes.len() { Start::At(at) } else { Start::More }
}

impl Form {
    /// Where deflate begins.
    fn start(self, bytes: &[u8]) -> Start {
        let long_enough = |least| if bytes.len() >= least { Start::At(least) } else { Start::More };
        match self {
            Form::Gzip => gzip_header(bytes),
            Form::ShortGzip => {
                if bytes.len() >= 2 && !bytes.starts_with(&[0x1f, 0x8b]) {
                    return Start::Wrong;
                }
                long_enough(10)
            }
            Form::Zlib => match bytes {
                [method, ..] if method & 15 != 8 => Start::Wrong,
                _ => long_enough(2),
            },
            Form::Raw | Form::Plain => Start::At(0),
        }
    }
}

impl Layer {
    fn new(forms: &'static [Form]) -> Layer {
        Layer { forms, engine: None, kept: Vec::new(), produced: false, done: false }
    }

    /// Decodes `input` to `out`, of which at most `limit` bytes are wanted. Whether a form failed after it had begun.
    fn push(&mut self, input: &[u8], out: &mut Vec<u8>, limit: usize, last: bool) -> bool {
        if self.done {
            return false;
        }
        if self.forms[0] == Form::Plain {
            out.extend_from_slice(input);
            return false;
        }
        if self.engine.is_some() && self.produced {
            return self.inflate(input, out, limit);
        }
        // A form that has begun goes on with what is new; the next one begins with all that was kept.
        let mut from = self.engine.is_some().then_some(self.kept.len());
        self.kept.extend_from_slice(input);
        let mut failed = false;
        while self.forms[0] != Form::Plain {
            let begun = out.len();
            let start = from.take().map_or_else(|| self.begin(), Start::At);
            let wrong = match start {
                Start::At(at) => {
                    let kept = std::mem::take(&mut self.kept);
                    let wrong = self.inflate(&kept[at..], out, limit);
                    self.kept = kept;
                    (wrong || (last && !self.done)) && out.len() == begun
                }
                Start::More => last || self.kept.len() > KEPT,
                Start::Wrong => true,
            };
            if !wrong {
                if out.len() > begun || self.done {
                    (self.produced, self.kept) = (true, Vec::new());
                } else if self.kept.len() > KEPT && self.engine.is_some() {
                    // Nothing came out of much: go on with this form.
                    (self.produced, self.kept) = (true, Vec::new());
                }
                return failed;
            }
            failed = true;
            self.done = false;
            self.engine = None;
            self.forms = &self.forms[1..];
        }
        self.engine = None;
        out.append(&mut self.kept);
        true
    }

    /// Bytes held.
    fn memory(&self) -> usize {
        size_of::<Layer>() + self.kept.capacity() + if self.engine.is_some() { ENGINE } else { 0 }
    }

    /// Begins the first form that is left with what was kept.
    fn begin(&mut self) -> Start {
        let start = self.forms[0].start(&self.kept);
        if let Start::At(_) = start {
            self.engine = Some(Decompress::new(false));
        }
        start
    }

    /// Inflates; whether the data is broken.
    fn inflate(&mut self, mut input: &[u8], out: &mut Vec<u8>, limit: usize) -> bool {
        let Some(engine) = &mut self.engine else { return false };
        while !input.is_empty() && out.len() < limit {
            let (before_in, before_out) = (engine.total_in(), engine.total_out());
            out.reserve(8192);
            let status = engine.decompress_vec(input, out, FlushDecompress::None);
            let taken = usize::try_from(engine.total_in() - before_in).unwrap_or(usize::MAX).min(input.len());
            input = &input[taken..];
            match status {
                Ok(Status::StreamEnd) => {
                    // Another member may follow the checksum and length.
                    match input.get(8..).map(gzip_header) {
                        Some(Start::At(at)) => {
                            engine.reset(false);
                            input = &input[8 + at..];
                        }
                        _ => {
                            self.done = true;
                            return false;
                        }
                    }
                }
                Ok(_) if taken == 0 && engine.total_out() == before_out => break,
                Ok(_) => {}
                Err(_) => {
                    self.done = true;
                    return true;
                }
            }
        }
        false
    }
}

/// A layer of either kind.
#[derive(Debug)]
enum Either {
    Deflated(Layer),
    Packed(Packed),
}

/// All layers of a body.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    layers: Vec<Either>,
}

/// Which encodings are decoded beside gzip and deflate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Also {
    pub(super) brotli: bool,
    pub(super) lzma: bool,
}

/// What a `Content-Encoding` says beyond its layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Noticed {
    /// More layers than are decoded.
    pub(super) too_many: bool,
    /// Words around or instead of those that are known.
    pub(super) abnormal: bool,
}

impl Decoder {
    /// For a `Content-Encoding`.
    pub(super) fn new(encoding: &[u8], also: Also) -> (Decoder, Noticed) {
        let mut noticed = Noticed::default();
        let mut decoder = Decoder::default();
        // NUL bytes inside the words are passed over.
        let text: Vec<u8> = encoding.iter().filter(|byte| **byte != 0).map(u8::to_ascii_lowercase).collect();
        for word in text.split(|byte| matches!(byte, b',' | b' ')).filter(|word| !word.is_empty()) {
            let has = |what: &[u8]| memchr::memmem::find(word, what).is_some();
            let layer = if has(b"gzip") {
                noticed.abnormal |= !matches!(word, b"gzip" | b"x-gzip");
                Either::Deflated(Layer::new(GZIP_FIRST))
            } else if has(b"deflate") {
                noticed.abnormal |= !matches!(word, b"deflate" | b"x-deflate");
                Either::Deflated(Layer::new(DEFLATE_FIRST))
            } else if also.brotli && word == b"br" {
                Either::Packed(Packed::new(Packing::Brotli))
            } else if also.lzma && word == b"lzma" {
                Either::Packed(Packed::new(Packing::Lzma))
            } else {
                noticed.abnormal |= !matches!(word, b"identity" | b"none" | b"br" | b"lzma" | b"inflate");
                continue;
            };
            if decoder.layers.len() == MOST_LAYERS {
                noticed.too_many = true;
                break;
            }
            decoder.layers.push(layer);
        }
        (decoder, noticed)
    }

    /// Whether anything is decoded.
    pub(super) fn is_plain(&self) -> bool {
        self.layers.is_empty()
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        let each = |layer: &Either| match layer {
            Either::Deflated(layer) => layer.memory(),
            Either::Packed(layer) => layer.memory(),
        };
        self.layers.iter().map(each).sum()
    }

    /// Decodes more bytes to `out`, of which about `limit` are wanted. Whether a layer failed.
    pub(super) fn push(&mut self, input: &[u8], out: &mut Vec<u8>, limit: usize, last: bool) -> bool {
        let mut failed = false;
        let mut bytes = input.to_vec();
        for layer in &mut self.layers {
            let mut decoded = Vec::new();
            failed |= match layer {
                Either::Deflated(layer) => layer.push(&bytes, &mut decoded, limit, last),
                Either::Packed(layer) => layer.push(&bytes, &mut decoded, limit, last),
            };
            bytes = decoded;
        }
        out.append(&mut bytes);
        failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const TEXT: &[u8] = b"a text that is long enough to be worth its packing, packing, packing";

    fn gzip() -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        writer.write_all(TEXT).unwrap();
        writer.finish().unwrap()
    }

    fn deflate() -> Vec<u8> {
        let mut writer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        writer.write_all(TEXT).unwrap();
        writer.finish().unwrap()
    }

    fn zlib() -> Vec<u8> {
        let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        writer.write_all(TEXT).unwrap();
        writer.finish().unwrap()
    }

    fn decoded(encoding: &str, bytes: &[u8], piece: usize) -> Vec<u8> {
        let (mut decoder, _) = Decoder::new(encoding.as_bytes(), Also::default());
        let mut out = Vec::new();
        for part in bytes.chunks(piece) {
            decoder.push(part, &mut out, 1 << 20, false);
        }
        decoder.push(b"", &mut out, 1 << 20, true);
        out
    }

    #[test]
    fn every_form_is_decoded_whatever_was_said() {
        for encoding in ["gzip", "x-gzip", "deflate", "GZ\0IP", "xgzipx", "identity, gzip"] {
            for bytes in [gzip(), deflate(), zlib()] {
                for piece in [1, 7, 1000] {
                    assert_eq!(decoded(encoding, &bytes, piece), TEXT, "{encoding} {piece} {bytes:02x?}");
                }
            }
        }
    }

    #[test]
    fn nothing_for_long_then_text_is_decoded() {
        // Empty stored blocks before the text: nothing comes out of much.
        for blocks in [1, 50, 2000] {
            let mut bytes = gzip()[..10].to_vec();
            bytes.extend(std::iter::repeat_n([0, 0, 0, 0xff, 0xff], blocks).flatten());
            bytes.extend(&gzip()[10..]);
            for piece in [1, 4, 100_000] {
                assert_eq!(decoded("gzip", &bytes, piece), TEXT, "{blocks} blocks in pieces of {piece}");
            }
        }
    }

    #[test]
    fn plain_text_passes() {
        for piece in [1, 1000] {
            assert_eq!(decoded("gzip", TEXT, piece), TEXT);
            assert_eq!(decoded("gzip, gzip", TEXT, piece), TEXT);
            assert_eq!(decoded("lzma", TEXT, piece), TEXT);
        }
    }

    #[test]
    fn broken_gzip_headers_are_read() {
        for (flags, extra) in [
            (0x80u8, &b""[..]),
            (2, b"xx"),
            (8, b"name\0"),
            (16, b"\0"),
            (4, b"\x01\0z"),
            (31, b"\x01\0zn\0c\0hh"),
        ] {
            let whole = gzip();
            let bytes = [&whole[..3], &[flags], &whole[4..10], extra, &whole[10..]].concat();
            assert_eq!(decoded("gzip", &bytes, 5), TEXT, "flags {flags}");
        }
        // Flags that promise a name that is not there.
        let mut lying = gzip();
        lying[3] = 4;
        assert_eq!(decoded("gzip", &lying, 1000), TEXT);
    }

    #[test]
    fn layers_are_bounded_and_two_are_decoded() {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        writer.write_all(&deflate()).unwrap();
        let both = writer.finish().unwrap();
        assert_eq!(decoded("deflate, gzip", &both, 9), TEXT);
        assert_eq!(decoded("gzip, deflate", &both, 9), TEXT);
        assert!(Decoder::new(b"gzip,gzip,gzip", Also::default()).1.too_many);
    }

    #[test]
    fn what_came_before_an_error_counts_and_members_follow_each_other() {
        let mut broken = gzip();
        let end = broken.len() - 9;
        broken[end] ^= 0xff;
        assert!(TEXT.starts_with(&decoded("gzip", &broken[..end], 1000)[..10]));
        let two = [gzip(), gzip()].concat();
        assert_eq!(decoded("gzip", &two, 1000), [TEXT, TEXT].concat());
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        writer.write_all(&vec![0; 50 << 20]).unwrap();
        let bomb = writer.finish().unwrap();
        let (mut decoder, _) = Decoder::new(b"gzip", Also::default());
        let mut out = Vec::new();
        decoder.push(&bomb, &mut out, 100 << 10, false);
        assert!(out.len() >= 100 << 10 && out.len() < 200 << 10, "{}", out.len());
    }
}
