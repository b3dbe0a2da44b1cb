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

/// The text of a file; one that starts as gzip does is unpacked. Bytes that are not UTF-8 become U+FFFD: they may stand
/// in comments and messages.
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
    Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

/// The logical lines of `text` that are neither empty nor comments.
pub(crate) fn lines(text: &str) -> Vec<Line> {
    let mut all = Vec::new();
    let mut open: Option<Line> = None;
    for (number, physical) in text.lines().enumerate() {
        let physical = physical.strip_suffix('\r').unwrap_or(physical);
        let starts = open.is_none();
        if starts && (physical.trim_start().starts_with('#') || physical.trim().is_empty()) {
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
