//! A file that grows, read line by line. It may be cut short or replaced by another meanwhile.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Bytes that are read at once.
const BLOCK: u64 = 64 << 10;
/// Longest line; what is longer is cut into several.
const LONGEST: usize = 64 << 10;

/// A file and how far it has been read.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    file: File,
    at: u64,
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
}

impl Tail {
    /// Begins with the last `lines` lines.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn open(path: &Path, lines: usize) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let at = start_of_last(&file, lines)?;
        Ok(Self { path: path.to_path_buf(), file, at, begun: Vec::new() })
    }

    /// Whole lines that have come since.
    pub(super) fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        self.read_on(&mut lines);
        if let Some(next) = self.successor() {
            // What was written to the old file after it was read is there still.
            self.read_on(&mut lines);
            lines.extend(self.rest());
            self.file = next;
            self.at = 0;
            self.read_on(&mut lines);
        }
        lines
    }

    /// The beginning of a line whose end has not come.
    pub(super) fn rest(&mut self) -> Option<String> {
        let begun = std::mem::take(&mut self.begun);
        (!begun.is_empty()).then(|| String::from_utf8_lossy(&begun).into_owned())
    }

    fn read_on(&mut self, lines: &mut Vec<String>) {
        if self.file.metadata().is_ok_and(|m| m.len() < self.at) {
            // It was cut short: what comes now stands at its beginning.
            lines.extend(self.rest());
            self.at = 0;
        }
        let mut bytes = Vec::new();
        // A read that fails is tried again at the next look.
        if self.file.seek(SeekFrom::Start(self.at)).is_err() || self.file.read_to_end(&mut bytes).is_err() {
            return;
        }
        self.at += bytes.len() as u64;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(piece);
            if self.begun.last() == Some(&b'\n') {
                self.begun.pop();
                lines.push(String::from_utf8_lossy(&std::mem::take(&mut self.begun)).into_owned());
            } else if self.begun.len() > LONGEST {
                lines.extend(self.rest());
            }
        }
    }

    /// The file that has the path now, if it is another.
    fn successor(&self) -> Option<File> {
        let next = File::open(&self.path).ok()?;
        let identity = |file: &File| file.metadata().map(|m| (m.dev(), m.ino())).ok();
        (identity(&next)? != identity(&self.file)?).then_some(next)
    }
}

/// Where the last `lines` lines of a file begin. A last line without an end counts.
fn start_of_last(file: &File, lines: usize) -> std::io::Result<u64> {
    let end = file.metadata()?.len();
    if lines == 0 {
        return Ok(end);
    }
    let mut block = vec![0; usize::try_from(BLOCK).unwrap_or(usize::MAX)];
    let mut left = lines;
    let mut from = end;
    while from > 0 {
        let length = from.min(BLOCK);
        from -= length;
        let bytes = &mut block[..usize::try_from(length).unwrap_or(usize::MAX)];
        file.read_exact_at(bytes, from)?;
        for (index, _) in bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let next = from + index as u64 + 1;
            // Nothing follows the end of the last line.
            if next == end {
                continue;
            }
            left -= 1;
            if left == 0 {
                return Ok(next);
            }
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    struct Place {
        _directory: tempfile::TempDir,
        path: PathBuf,
    }

    fn place(text: &str) -> Place {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        std::fs::write(&path, text).unwrap();
        Place { _directory: directory, path }
    }

    fn append(path: &Path, text: &str) {
        File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn last(text: &str, lines: usize) -> (Vec<String>, Option<String>) {
        let place = place(text);
        let mut tail = Tail::open(&place.path, lines).unwrap();
        (tail.lines(), tail.rest())
    }

    #[test]
    fn it_begins_with_the_last_lines() {
        for (text, lines, expected, rest) in [
            ("", 5, &[][..], None),
            ("a\nb\nc\n", 2, &["b", "c"], None),
            ("a\nb\nc\n", 3, &["a", "b", "c"], None),
            ("a\nb\nc\n", 9, &["a", "b", "c"], None),
            ("a\nb\nc", 2, &["b"], Some("c")),
            ("a\nb\nc", 1, &[], Some("c")),
            ("a\n\n\n", 2, &["", ""], None),
            ("a\nb\n", 0, &[], None),
            ("a\nb", 0, &[], None),
        ] {
            let (got, got_rest) = last(text, lines);
            assert_eq!(
                (&got[..], got_rest.as_deref()),
                (&expected.iter().map(ToString::to_string).collect::<Vec<_>>()[..], rest),
                "{text:?} {lines}"
            );
        }
    }

    #[test]
    fn it_finds_them_across_blocks() {
        let text: String = (0..50_000).map(|n| format!("line {n}\n")).collect();
        let (lines, _) = last(&text, 20_000);
        assert_eq!((lines.len(), lines[0].as_str()), (20_000, "line 30000"));
        assert_eq!(last(&text, usize::MAX).0.len(), 50_000);
    }

    #[test]
    fn lines_come_when_they_have_ended() {
        let place = place("a\nb");
        let mut tail = Tail::open(&place.path, 10).unwrap();
        assert_eq!(tail.lines(), ["a"]);
        append(&place.path, "c\nd\n");
        assert_eq!(tail.lines(), ["bc", "d"]);
        append(&place.path, &"x".repeat(LONGEST + 1));
        assert_eq!(tail.lines()[0].len(), LONGEST + 1);
    }

    #[test]
    fn a_file_may_be_cut_short_or_replaced() {
        let place = place("a\nb\n");
        let mut tail = Tail::open(&place.path, 10).unwrap();
        assert_eq!(tail.lines().len(), 2);
        File::options().write(true).open(&place.path).unwrap().set_len(0).unwrap();
        append(&place.path, "c\n");
        assert_eq!(tail.lines(), ["c"]);
        append(&place.path, "late");
        std::fs::rename(&place.path, place.path.with_extension("old")).unwrap();
        assert_eq!(tail.lines(), [""; 0], "there is none in its place yet");
        append(&place.path, "new\n");
        assert_eq!(tail.lines(), ["late", "new"]);
    }
}
