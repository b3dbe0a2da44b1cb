//! Rule text: files (plain or gzip), logical lines, and the way back from a byte of a logical line to its place.
//!
//! A rule may be continued with a backslash at the end of a line. The parser works on the joined text; a fault's place
//! is found again through the list of joints, so that an editor jumps to the right line.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// No rule file is longer once unpacked; a small gzip file could else fill the memory.
const LONGEST_FILE: u64 = 512 << 20;

/// One rule's text with the way back to its place.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) text: String,
    /// For each physical line: where it starts in `text`, and its number.
    joints: Vec<(usize, usize)>,
}

impl Line {
    /// Line and column, both from 1, of byte `at` of the text.
    pub(crate) fn place(&self, at: usize) -> (usize, usize) {
        let index = self.joints.partition_point(|(start, _)| *start <= at).saturating_sub(1);
        let (start, number) = self.joints.get(index).copied().unwrap_or((0, 1));
        (number, at.saturating_sub(start) + 1)
    }
}

/// What stands for byte 0 of those that are not UTF-8: characters of a private area.
const PRIVATE: u32 = 0xf700;

/// The text of a file; one that starts as gzip does is unpacked. Bytes that are not UTF-8 become characters of a private
/// area, from which [`raw_byte`] makes them again: a pattern is of bytes, whatever they mean.
pub(crate) fn read(path: &Path) -> std::io::Result<String> {
    let mut reader = BufReader::new(File::open(path)?);
    let gzip = std::io::BufRead::fill_buf(&mut reader)?.starts_with(&[0x1f, 0x8b]);
    let mut bytes = Vec::new();
    if gzip {
        flate2::bufread::MultiGzDecoder::new(reader).take(LONGEST_FILE + 1).read_to_end(&mut bytes)?;
    } else {
        reader.take(LONGEST_FILE + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > LONGEST_FILE {
        return Err(std::io::Error::other(format!("longer than {LONGEST_FILE} bytes")));
    }
    Ok(text_of(&bytes))
}

/// Bytes as text, without a byte order mark.
fn text_of(bytes: &[u8]) -> String {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().filter_map(|byte| char::from_u32(PRIVATE + u32::from(*byte))));
    }
    text
}

/// The byte that a character stands for because it was not UTF-8.
pub(crate) fn raw_byte(c: char) -> Option<u8> {
    u32::from(c).checked_sub(PRIVATE).and_then(|byte| u8::try_from(byte).ok()).filter(|byte| *byte >= 0x80)
}

/// The bytes that a text was made of.
pub(crate) fn bytes_of(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match raw_byte(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// Number and text of the logical lines, for files that are not of rules.
pub(crate) fn logical_lines(text: &str) -> impl Iterator<Item = (usize, String)> {
    lines(text).into_iter().map(|line| (line.place(0).0, line.text))
}

/// The logical lines of `text` that are neither empty nor comments.
pub(crate) fn lines(text: &str) -> Vec<Line> {
    let mut all = Vec::new();
    let mut open: Option<Line> = None;
    for (number, physical) in text.lines().enumerate() {
        let physical = physical.strip_suffix('\r').unwrap_or(physical);
        let starts = open.is_none();
        // A `;` begins a comment, too.
        if starts && (physical.trim_start().starts_with(['#', ';']) || physical.trim().is_empty()) {
            continue;
        }
        let line = open.get_or_insert_with(|| Line { text: String::new(), joints: Vec::new() });
        line.joints.push((line.text.len(), number + 1));
        let trimmed = physical.trim_end();
        match trimmed.strip_suffix('\\') {
            Some(rest) => line.text.push_str(rest),
            None => {
                line.text.push_str(physical);
                all.extend(open.take());
            }
        }
    }
    all.extend(open);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continued_lines_are_joined_and_places_found_again() {
        let all = lines("# no\n\nalert a \\\n  b\nnext\\");
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].text, "alert a   b");
        assert_eq!(all[0].place(0), (3, 1));
        assert_eq!(all[0].place(10), (4, 3));
        assert_eq!(all[1].text, "next");
        assert_eq!(all[1].place(2), (5, 3));
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_kept() {
        let text = text_of(b"\xef\xbb\xbfcaf\xe9 \xc3\xa9");
        assert_eq!(bytes_of(&text), b"caf\xe9 \xc3\xa9");
        assert_eq!(lines("; no\n  # no\n").len(), 0);
    }

    #[test]
    fn a_gzip_file_is_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.gz");
        let file = File::create(&path).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, b"alert tcp\n").unwrap();
        encoder.finish().unwrap();
        assert_eq!(read(&path).unwrap(), "alert tcp\n");
    }
}
