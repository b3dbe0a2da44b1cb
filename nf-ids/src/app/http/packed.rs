//! Content encodings beside those of deflate: brotli (RFC 7932), which HTTP/2 has, and LZMA, where the user asks for it.
//!
//! Both are known by their name alone, so that there is nothing to try when they fail: what was decoded before counts. A
//! window or dictionary that is larger than servers use is not decoded, and what comes out is bounded however small what went in
//! is.

use brotli_decompressor::DecompressorWriter;
use lzma_rs::decompress::{Options, Stream};
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bits of the largest window of brotli that is decoded: 4 MiB.
const MOST_WINDOW: u32 = 22;
/// Bytes of the largest dictionary of LZMA that is used; Suricata's.
const MOST_DICTIONARY: usize = 1 << 20;
/// What an engine holds beside its window.
const ENGINE: usize = 64 << 10;

/// What has come out, and how much more may.
#[derive(Debug, Default)]
struct Output {
    bytes: Vec<u8>,
    room: usize,
}

/// Takes so many bytes and no more. An engine that fails is lost with all that it owns, so that the bytes are not its own.
#[derive(Clone, Debug, Default)]
struct Bounded(Arc<Mutex<Output>>);

impl Bounded {
    fn output(&self) -> MutexGuard<'_, Output> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut output = self.output();
        let taken = bytes.len().min(output.room);
        if taken == 0 && !bytes.is_empty() {
            return Err(ErrorKind::StorageFull.into());
        }
        output.room -= taken;
        output.bytes.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Brotli,
    Lzma,
}

enum Engine {
    /// Its first byte has not come.
    Waits,
    Brotli(Box<DecompressorWriter<Bounded>>),
    Lzma(Box<Stream<Bounded>>),
    Done,
}

/// Decodes one layer of a body.
pub(super) struct Packed {
    packing: Packing,
    engine: Engine,
    output: Bounded,
    window: usize,
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packed")
            .field("packing", &self.packing)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

/// Bits of the window that a brotli stream begins with (RFC 7932, section 9.1); none if it is no stream.
fn window_bits(first: u8) -> Option<u32> {
    let (small, large) = (u32::from(first >> 4 & 7), u32::from(first >> 1 & 7));
    match (first & 1, large, small) {
        (0, ..) => Some(16),
        (_, 0, 0) => Some(17),
        // Windows beyond what the format began with.
        (_, 0, 1) => None,
        (_, 0, small) => Some(8 + small),
        (_, large, _) => Some(17 + large),
    }
}

impl Packed {
    pub(super) fn new(packing: Packing) -> Self {
        Packed { packing, engine: Engine::Waits, output: Bounded::default(), window: 0 }
    }

    fn begin(&mut self, first: u8) -> Engine {
        match self.packing {
            Packing::Brotli => {
                let Some(bits) = window_bits(first).filter(|bits| *bits <= MOST_WINDOW) else {
                    return Engine::Done;
                };
                self.window = ENGINE + (1 << bits);
                Engine::Brotli(Box::new(DecompressorWriter::new(self.output.clone(), 4096)))
            }
            Packing::Lzma => {
                let options =
                    Options { memlimit: Some(MOST_DICTIONARY), allow_incomplete: true, ..Options::default() };
                self.window = ENGINE + MOST_DICTIONARY;
                Engine::Lzma(Box::new(Stream::new_with_options(&options, self.output.clone())))
            }
        }
    }

    /// Decodes `input` to `out`, of which at most `limit` bytes are wanted. Whether it failed.
    pub(super) fn push(&mut self, input: &[u8], out: &mut Vec<u8>, limit: usize, last: bool) -> bool {
        if let (Engine::Waits, Some(first)) = (&self.engine, input.first()) {
            self.engine = self.begin(*first);
            if matches!(self.engine, Engine::Done) {
                return true;
            }
        }
        self.output.output().room = limit.saturating_sub(out.len());
        let engine = std::mem::replace(&mut self.engine, Engine::Done);
        let (engine, failed) = match engine {
            Engine::Waits | Engine::Done => (engine, false),
            Engine::Brotli(mut engine) => {
                let failed = engine.write_all(input).is_err();
                (Engine::Brotli(engine), failed)
            }
            Engine::Lzma(mut engine) => match engine.write_all(input) {
                Err(_) => (Engine::Done, true),
                // What is in the dictionary comes out at the end.
                Ok(()) if last => (Engine::Done, engine.finish().is_err()),
                Ok(()) => (Engine::Lzma(engine), false),
            },
        };
        out.append(&mut self.output.output().bytes);
        let over = failed || last || out.len() >= limit;
        self.engine = if over { Engine::Done } else { engine };
        self.window = if over { 0 } else { self.window };
        failed && out.len() < limit
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        size_of::<Packed>() + self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sets::from_hex;

    const TEXT: &[u8] = b"a text that is long enough to be worth its packing, packing, packing";
    const BROTLI: &str = "1b4300e88dd45acd1d9b47a8f406099ba393696270e09003c76fcf220daca2e26a86a5ac2d95fe290be2635a93c6b191f402";
    const LZMA: &str = "5d00000100ffffffffffffffff0030880a8694881635a2f1b55a77261754367ad155a6fab981f9cd4c52a6078cb0e438a89dcbf33a3e35f036dca0e9889baa0ff9b40a052ffff9653800";

    fn decoded(packing: Packing, bytes: &[u8], piece: usize, limit: usize) -> (Vec<u8>, bool) {
        let (mut packed, mut out, mut failed) = (Packed::new(packing), Vec::new(), false);
        for part in bytes.chunks(piece) {
            failed |= packed.push(part, &mut out, limit, false);
            assert!(packed.memory() < 6 << 20);
        }
        failed |= packed.push(b"", &mut out, limit, true);
        (out, failed)
    }

    #[test]
    fn both_are_decoded_however_they_come() {
        for (packing, text) in [(Packing::Brotli, BROTLI), (Packing::Lzma, LZMA)] {
            let bytes = from_hex(text).unwrap();
            for piece in [1, 7, 1000] {
                assert_eq!(
                    decoded(packing, &bytes, piece, 1 << 20),
                    (TEXT.to_vec(), false),
                    "{packing:?} {piece}"
                );
            }
            let (out, failed) = decoded(packing, &bytes, 1000, 10);
            assert!(out == TEXT[..10] && !failed, "{packing:?}: {out:?}");
            let cut = decoded(packing, &bytes[..bytes.len() / 2], 1000, 1 << 20).0;
            assert!(TEXT.starts_with(&cut), "{packing:?}: {cut:?}");
            let _ = decoded(packing, b"no such thing, but a text", 3, 1 << 20);
        }
    }

    #[test]
    fn windows_are_bounded() {
        for (first, bits) in [(0u8, 16), (0x01, 17), (0x71, 15), (0x03, 18), (0x0b, 22), (0x0f, 24)] {
            assert_eq!(window_bits(first), Some(bits), "{first:02x}");
        }
        assert_eq!(window_bits(0x11), None);
        assert_eq!(decoded(Packing::Brotli, &[0x0f, 0, 0], 9, 100), (Vec::new(), true));
    }
}
