//! Header compression of HTTP/2 (RFC 7541).

use super::huffman;
use std::collections::VecDeque;

/// Header and value.
pub(super) type Field = (Vec<u8>, Vec<u8>);

/// Bytes of fields that one message gives at most: an index of one byte can stand for thousands.
const MOST_BYTES: usize = 64 << 10;
/// Fields of one message.
const MOST_FIELDS: usize = 1024;
/// Size of a dynamic table of which nothing was said (RFC 9113, section 6.5.2).
const FIRST_TABLE: usize = 4096;
/// Largest dynamic table.
const MOST_TABLE: usize = 64 << 10;
/// What an entry costs beside its bytes (section 4.1).
const COST: usize = 32;

/// The static table (appendix A).
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// What was met in a block of fields beside the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Noticed {
    /// The block cannot be read: what follows in this direction cannot be either.
    pub(super) invalid: bool,
    /// A number that is too large.
    pub(super) overflow: bool,
    /// Sizes that the table was changed to.
    pub(super) sizes: Vec<u64>,
}

/// One direction's dynamic table.
#[derive(Debug)]
pub(super) struct Table {
    entries: VecDeque<Field>,
    size: usize,
    most: usize,
    /// What the sender may raise `most` to: the largest that the receiver has allowed.
    allowed: usize,
}

impl Default for Table {
    fn default() -> Self {
        Table { entries: VecDeque::new(), size: 0, most: FIRST_TABLE, allowed: FIRST_TABLE }
    }
}

/// A number with a prefix of so many bits (section 5.1), and what follows.
fn number(bytes: &[u8], bits: u32, noticed: &mut Noticed) -> Option<(u64, usize)> {
    let mask = (1u8 << bits) - 1;
    let mut value = u64::from(bytes.first()? & mask);
    if value < u64::from(mask) {
        return Some((value, 1));
    }
    for (place, byte) in bytes[1..].iter().enumerate() {
        if place >= 5 {
            noticed.overflow = true;
            return None;
        }
        value += u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, place + 2));
        }
    }
    None
}

/// A string (section 5.2), and how many bytes it takes.
fn string(bytes: &[u8], noticed: &mut Noticed) -> Option<(Vec<u8>, usize)> {
    let (length, start) = number(bytes, 7, noticed)?;
    let raw = bytes.get(start..start.checked_add(usize::try_from(length).ok()?)?)?;
    let text = if bytes[0] & 0x80 == 0 { raw.to_vec() } else { huffman::decode(raw)? };
    Some((text, start + raw.len()))
}

impl Table {
    fn get(&self, index: u64) -> Option<(&[u8], &[u8])> {
        let index = usize::try_from(index).ok()?.checked_sub(1)?;
        if let Some((name, value)) = STATIC.get(index) {
            return Some((name.as_bytes(), value.as_bytes()));
        }
        let (name, value) = self.entries.get(index - STATIC.len())?;
        Some((name, value))
    }

    fn shrink(&mut self, to: usize) {
        while self.size > to {
            let Some((name, value)) = self.entries.pop_back() else { break };
            self.size -= name.len() + value.len() + COST;
        }
    }

    fn add(&mut self, field: &Field) {
        let size = field.0.len() + field.1.len() + COST;
        self.shrink(self.most.saturating_sub(size));
        if size <= self.most {
            self.size += size;
            self.entries.push_front(field.clone());
        }
    }

    /// The receiver allows this size. A smaller one holds when the sender says so, not before.
    pub(super) fn allow(&mut self, size: u64) {
        self.allowed = self.allowed.max(usize::try_from(size).unwrap_or(usize::MAX).min(MOST_TABLE));
    }

    /// Reads a block of fields.
    pub(super) fn read(&mut self, mut block: &[u8], fields: &mut Vec<Field>) -> Noticed {
        let mut noticed = Noticed::default();
        let mut held: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        while !block.is_empty() {
            let Some((field, used)) = self.field(block, &mut noticed) else {
                noticed.invalid = true;
                break;
            };
            block = &block[used..];
            if let Some(field) = field {
                held += field.0.len() + field.1.len();
                if held <= MOST_BYTES && fields.len() < MOST_FIELDS {
                    fields.push(field);
                }
            }
        }
        noticed
    }

    /// One representation (section 6): a field, or a change of the table.
    fn field(&mut self, block: &[u8], noticed: &mut Noticed) -> Option<(Option<Field>, usize)> {
        let first = *block.first()?;
        if first & 0x80 != 0 {
            let (index, used) = number(block, 7, noticed)?;
            let (name, value) = self.get(index)?;
            return Some((Some((name.to_vec(), value.to_vec())), used));
        }
        if first & 0xe0 == 0x20 {
            let (size, used) = number(block, 5, noticed)?;
            if noticed.sizes.len() < 16 {
                noticed.sizes.push(size);
            }
            self.most = usize::try_from(size).unwrap_or(usize::MAX).min(self.allowed);
            self.shrink(self.most);
            return Some((None, used));
        }
        let kept = first & 0x40 != 0;
        let (index, mut used) = number(block, if kept { 6 } else { 4 }, noticed)?;
        let name = if index > 0 {
            self.get(index)?.0.to_vec()
        } else {
            let (name, length) = string(block.get(used..)?, noticed)?;
            used += length;
            name
        };
        let (value, length) = string(block.get(used..)?, noticed)?;
        let field = (name, value);
        if kept {
            self.add(&field);
        }
        Some((Some(field), used + length))
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(table: &mut Table, block: &[u8]) -> Vec<String> {
        let mut fields = Vec::new();
        assert_eq!(table.read(block, &mut fields), Noticed::default());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields.iter().map(|(name, value)| format!("{}: {}", text(name), text(value))).collect()
    }

    #[test]
    fn requests_of_the_standard_are_read() {
        // RFC 7541, appendix C.4: three requests, one after the other.
        let mut table = Table::default();
        let one = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        let all = [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];
        assert_eq!(read(&mut table, one), all);
        let two = b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf";
        assert_eq!(read(&mut table, two)[3..], [":authority: www.example.com", "cache-control: no-cache"]);
        let three = b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf";
        assert_eq!(read(&mut table, three)[3..], [":authority: www.example.com", "custom-key: custom-value"]);
        assert_eq!(table.size, 164);
    }

    #[test]
    fn tables_and_messages_are_bounded() {
        let mut table = Table::default();
        let mut block = vec![0x40, 1, b'n', 0x7f, 0x81, 0x1e];
        block.extend([b'v'; 3968]);
        let mut fields = Vec::new();
        assert!(!table.read(&block, &mut fields).invalid);
        assert_eq!(table.entries.len(), 1);
        let noticed = table.read(&[0xbe; 60_000], &mut fields);
        assert!(!noticed.invalid);
        assert!(fields.len() <= 17, "{}", fields.len());
        assert_eq!(table.read(&[0x20], &mut fields).sizes, [0]);
        assert!(table.entries.is_empty());
    }

    #[test]
    fn a_table_is_as_large_as_the_receiver_allows() {
        // The sender makes its table 65,536 bytes large, and puts fields of 3,000 bytes into it.
        let grow = [0x3f, 0xe1, 0xff, 3];
        let mut block = vec![0x40, 1, b'n', 0x7f, 0xb9, 0x16];
        block.extend([b'v'; 3000]);
        for (allows, entries) in [(0, 1), (4096, 1), (10_000, 3), (u64::MAX, 20)] {
            let mut table = Table::default();
            table.allow(allows);
            assert_eq!(table.read(&grow, &mut Vec::new()).sizes, [65_536]);
            for _ in 0..20 {
                assert!(!table.read(&block, &mut Vec::new()).invalid);
            }
            assert_eq!(table.entries.len(), entries, "{allows}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        for bad in [&[0x80][..], &[0xbe], &[0x41], &[0x41, 5, b'x'], &[0xff; 9], &[0x40, 0x81, 0xff, 0]] {
            let noticed = Table::default().read(bad, &mut Vec::new());
            assert!(noticed.invalid, "{bad:02x?}");
        }
        assert!(Table::default().read(&[0xff; 9], &mut Vec::new()).overflow);
    }
}
