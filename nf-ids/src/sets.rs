//! Sets of values that rules ask, and fill: `dataset` and `datarep`.
//!
//! A set is known by its name, whichever rules use it. One that is read from a file (`load`) is read anew with the rules; one
//! that rules fill stays when they change, and is written to its file (`save`, `state`) at the end. The values of a set
//! and its bytes are bounded (`memcap`): what finds no room is not added, and a file that is too large is refused.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::detect::from_base64;

/// Bytes of a set that says no `memcap`.
const MOST_BYTES: usize = 64 << 20;
/// What a value costs beside its bytes.
const COST: usize = 64;
/// Sets that there may be.
const MOST_SETS: usize = 4096;

/// What a set's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes; base64 in files.
    Text,
    /// An MD5, 16 bytes; hexadecimal in files.
    Md5,
    /// A SHA-256, 32 bytes; hexadecimal in files.
    Sha256,
    /// An IPv4 address.
    Ipv4,
    /// An address of either version.
    Ip,
}

/// Names of kinds.
pub(crate) const KINDS: [(&str, Kind); 5] = [
    ("string", Kind::Text),
    ("md5", Kind::Md5),
    ("sha256", Kind::Sha256),
    ("ipv4", Kind::Ipv4),
    ("ip", Kind::Ip),
];

impl Kind {
    /// A value as it is kept; none if these bytes are none of the kind.
    fn key(self, bytes: &[u8]) -> Option<&[u8]> {
        const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        match (self, bytes.len()) {
            (Kind::Text, _) | (Kind::Md5, 16) | (Kind::Sha256, 32) | (Kind::Ipv4 | Kind::Ip, 4) => {
                Some(bytes)
            }
            (Kind::Ip, 16) => Some(bytes.strip_prefix(&MAPPED).unwrap_or(bytes)),
            _ => None,
        }
    }

    /// The value that a line of a file stands for.
    fn read(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Kind::Text => from_base64(text.as_bytes()),
            Kind::Md5 | Kind::Sha256 => from_hex(text),
            Kind::Ipv4 => text.parse::<Ipv4Addr>().ok().map(|a| a.octets().to_vec()),
            Kind::Ip => text.parse::<IpAddr>().ok().map(|a| match a {
                IpAddr::V4(a) => a.octets().to_vec(),
                IpAddr::V6(a) => a.octets().to_vec(),
            }),
        }
    }

    fn write(self, value: &[u8]) -> String {
        match (self, value.len()) {
            (Kind::Text, _) => to_base64(value),
            (Kind::Ipv4 | Kind::Ip, 4) => Ipv4Addr::new(value[0], value[1], value[2], value[3]).to_string(),
            (Kind::Ip, 16) => {
                let mut octets = [0; 16];
                octets.copy_from_slice(value);
                IpAddr::from(octets).to_string()
            }
            _ => value.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            }),
        }
    }
}

/// The bytes of a number in hexadecimal.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.bytes().map(|b| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|two| two[0] << 4 | two[1]).collect())
}

fn to_base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let all = group.iter().fold(0u32, |all, byte| all << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = ALPHABET[(all >> (18 - 6 * place)) as usize & 63];
            out.push(if place > group.len() { '=' } else { char::from(digit) });
        }
    }
    out
}

#[derive(Debug, Default)]
struct Content {
    /// Each value, with its reputation; 0 where there is none.
    values: HashMap<Box<[u8]>, u16>,
    bytes: usize,
}

/// A set.
#[derive(Debug)]
pub struct Set {
    kind: Kind,
    most: usize,
    /// It is read from a file, and not changed.
    fixed: bool,
    /// Where it is written to at the end.
    file: Option<PathBuf>,
    content: RwLock<Content>,
}

impl Set {
    fn add_to(&self, content: &mut Content, value: &[u8], reputation: u16) -> bool {
        let cost = value.len() + COST;
        if content.values.contains_key(value) || content.bytes + cost > self.most {
            return false;
        }
        content.bytes += cost;
        content.values.insert(value.into(), reputation);
        true
    }

    /// Adds a value; whether it is new, and there was room.
    pub fn add(&self, bytes: &[u8]) -> bool {
        let Some(value) = self.kind.key(bytes) else { return false };
        // Nearly always it is there already, and readers do not wait for each other.
        if self.reputation(bytes).is_some() {
            return false;
        }
        let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
        self.add_to(&mut content, value, 0)
    }

    /// Takes a value out; whether it was there.
    pub fn remove(&self, bytes: &[u8]) -> bool {
        let Some(value) = self.kind.key(bytes) else { return false };
        let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
        let there = content.values.remove(value).is_some();
        content.bytes -= if there { value.len() + COST } else { 0 };
        there
    }

    /// The reputation of a value that is in it.
    #[must_use]
    pub fn reputation(&self, bytes: &[u8]) -> Option<u16> {
        let value = self.kind.key(bytes)?;
        let content = self.content.read().unwrap_or_else(PoisonError::into_inner);
        content.values.get(value).copied()
    }

    /// Reads a file: a value a line, with a comma and its reputation if `reputed`.
    fn load(&self, path: &Path, reputed: bool) -> Result<(), String> {
        let text =
            std::fs::read_to_string(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
        let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let place = || format!("{}:{}", path.display(), number + 1);
            let (value, reputation) = line.split_once(',').unwrap_or((line, ""));
            let known = self.kind.read(value.trim()).filter(|value| self.kind.key(value).is_some());
            let value =
                known.ok_or_else(|| format!("{}: `{value}` is no value of the set's type", place()))?;
            let reputation = match reputation.trim().parse() {
                Ok(reputation) if reputed => reputation,
                Err(_) if reputed => return Err(format!("{}: `{line}` is not VALUE,REPUTATION", place())),
                _ => 0,
            };
            let key = self.kind.key(&value).unwrap_or_default();
            if !content.values.contains_key(key) && !self.add_to(&mut content, key, reputation) {
                return Err(format!("{}: the set has more than its {} bytes (memcap)", place(), self.most));
            }
        }
        Ok(())
    }

    fn save(&self) -> Result<(), String> {
        let Some(path) = &self.file else { return Ok(()) };
        let content = self.content.read().unwrap_or_else(PoisonError::into_inner);
        let mut lines: Vec<String> = content.values.keys().map(|value| self.kind.write(value)).collect();
        lines.sort_unstable();
        // Whoever reads it while it is written, or after a crash, has the whole of it or what was there before.
        let beside = path.with_extension("new");
        let text = lines.into_iter().fold(String::new(), |text, line| text + &line + "\n");
        let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path));
        written.map_err(|e| format!("{} cannot be written: {e}", path.display()))
    }
}

/// What a rule says of a set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Definition {
    pub(crate) kind: Option<Kind>,
    /// Read, and not changed.
    pub(crate) load: Option<PathBuf>,
    /// Read if it is there.
    pub(crate) restore: Option<PathBuf>,
    /// Written at the end.
    pub(crate) save: Option<PathBuf>,
    pub(crate) most: Option<usize>,
    /// Its values have a reputation.
    pub(crate) reputed: bool,
}

/// All sets, by name. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Sets(Arc<Mutex<HashMap<String, Arc<Set>>>>);

impl Sets {
    /// Forgets the sets that were read from files, before rules are read anew. Rules in force keep theirs.
    pub fn refresh(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, set| !set.fixed);
    }

    /// The set of a name: the one that is there, or a new one as it is defined.
    pub(crate) fn get(&self, name: &str, wanted: &Definition) -> Result<Arc<Set>, String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = all.get(name) {
            return match wanted.kind {
                Some(kind) if kind != set.kind => Err(format!("`{name}` is of another type in another rule")),
                _ => Ok(set.clone()),
            };
        }
        let kind =
            wanted.kind.ok_or_else(|| format!("`{name}` has no `type`, nor has it in a rule before"))?;
        if all.len() >= MOST_SETS {
            return Err(format!("more than {MOST_SETS} sets"));
        }
        let set = Set {
            kind,
            most: wanted.most.unwrap_or(MOST_BYTES),
            fixed: wanted.load.is_some(),
            file: wanted.save.clone(),
            content: RwLock::default(),
        };
        if let Some(path) = &wanted.load {
            set.load(path, wanted.reputed)?;
        }
        if let Some(path) = wanted.restore.as_ref().filter(|path| path.exists()) {
            set.load(path, false)?;
        }
        let set = Arc::new(set);
        all.insert(name.to_string(), set.clone());
        Ok(set)
    }

    /// Writes the sets that have a file; what could not be written.
    #[must_use]
    pub fn save(&self) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().filter_map(|set| set.save().err()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: Kind) -> Definition {
        Definition { kind: Some(kind), ..Definition::default() }
    }

    #[test]
    fn values_are_added_once_and_taken_out() {
        let sets = Sets::default();
        let set = sets.get("a", &of(Kind::Text)).unwrap();
        assert!(set.add(b"x") && !set.add(b"x") && set.reputation(b"x").is_some());
        assert!(set.remove(b"x") && !set.remove(b"x") && set.reputation(b"x").is_none());
        assert!(Arc::ptr_eq(&set, &sets.get("a", &Definition::default()).unwrap()));
        assert!(sets.get("a", &of(Kind::Md5)).is_err() && sets.get("b", &Definition::default()).is_err());
        assert!(!sets.get("m", &of(Kind::Md5)).unwrap().add(b"short"));
    }

    #[test]
    fn a_set_has_a_bound() {
        let set =
            Sets::default().get("a", &Definition { most: Some(3 * (COST + 2)), ..of(Kind::Text) }).unwrap();
        let added = (0..9u16).filter(|n| set.add(&n.to_be_bytes())).count();
        assert_eq!(added, 3);
        assert!(set.remove(&[0, 0]) && set.add(&[9, 9]));
    }

    #[test]
    fn files_are_read_and_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let definition =
            Definition { restore: Some(path.clone()), save: Some(path.clone()), ..of(Kind::Text) };
        let sets = Sets::default();
        for text in ["", "a", "ab", "abc", "abcd"] {
            sets.get("s", &definition).unwrap().add(text.as_bytes());
        }
        assert!(sets.save().is_empty());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "\nYQ==\nYWI=\nYWJj\nYWJjZA==\n");
        let again = Sets::default().get("s", &definition).unwrap();
        assert!(!again.add(b"abcd") && again.add(b"x"));
        std::fs::write(&path, "1.2.3.4,7\n# no\n::ffff:1.2.3.5, 9\n").unwrap();
        let load = Definition { load: Some(path.clone()), reputed: true, ..of(Kind::Ip) };
        let set = sets.get("r", &load).unwrap();
        assert_eq!((set.reputation(&[1, 2, 3, 4]), set.reputation(&[1, 2, 3, 5])), (Some(7), Some(9)));
        sets.refresh();
        assert_eq!(sets.0.lock().unwrap().len(), 1);
        for wrong in ["zz\n", "1.2.3.4\n"] {
            std::fs::write(&path, wrong).unwrap();
            assert!(sets.get("w", &load).unwrap_err().contains("state:1"));
        }
    }

    #[test]
    fn addresses_of_either_form_are_one() {
        let set = Sets::default().get("a", &of(Kind::Ip)).unwrap();
        let mapped = Ipv4Addr::new(1, 2, 3, 4).to_ipv6_mapped().octets();
        assert!(set.add(&mapped) && set.reputation(&[1, 2, 3, 4]).is_some());
        assert_eq!(Kind::Ip.write(&mapped[12..]), "1.2.3.4");
        assert_eq!(Kind::Md5.write(&from_hex(&"0a".repeat(16)).unwrap()), "0a".repeat(16));
    }
}
