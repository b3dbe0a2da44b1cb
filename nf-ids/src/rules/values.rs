//! Tests whose answer does not stand in the bytes alone: sets of values, hashes of files, and what BER says of lengths.

use std::collections::HashSet;
use std::sync::Arc;

use super::compare::Compare;
use crate::sets::Set;

/// `asn1`: what of elements in BER is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asn1 {
    /// A bit string with more unused bits than it has.
    pub bit_string: bool,
    /// A decimal number of more than 256 bytes.
    pub double: bool,
    /// An element longer than this.
    pub longest: Option<u32>,
    /// Where they begin; whether counted from the last match.
    pub offset: Option<(i32, bool)>,
}

/// What is asked of a set, or done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetCommand {
    /// The value is added; it must be new.
    Set,
    /// It is taken out; it must have been there.
    Unset,
    /// It must be in it.
    IsSet,
    /// It must not be.
    IsNotSet,
    /// It must be in it, with such a reputation.
    Reputed(Compare),
}

/// `dataset`, `datarep`: the buffer is the value.
#[derive(Clone, Debug)]
pub struct SetTest {
    /// The set.
    pub set: Arc<Set>,
    /// What is asked or done.
    pub command: SetCommand,
}

impl PartialEq for SetTest {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.set, &other.set) && self.command == other.command
    }
}

impl SetTest {
    /// Whether it changes the set.
    #[must_use]
    pub fn changes(&self) -> bool {
        matches!(self.command, SetCommand::Set | SetCommand::Unset)
    }

    /// Asks the set for a value, or changes it.
    #[must_use]
    pub fn holds(&self, value: &[u8]) -> bool {
        match self.command {
            SetCommand::Set => self.set.add(value),
            SetCommand::Unset => self.set.remove(value),
            SetCommand::IsSet => self.set.reputation(value).is_some(),
            SetCommand::IsNotSet => self.set.reputation(value).is_none(),
            SetCommand::Reputed(compare) => {
                self.set.reputation(value).is_some_and(|found| compare.holds(u64::from(found)))
            }
        }
    }
}

/// Hashes of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashKind {
    /// 16 bytes.
    Md5,
    /// 20 bytes.
    Sha1,
    /// 32 bytes.
    Sha256,
}

impl HashKind {
    /// Bytes of a hash.
    #[must_use]
    pub fn length(self) -> usize {
        match self {
            HashKind::Md5 => 16,
            HashKind::Sha1 => 20,
            HashKind::Sha256 => 32,
        }
    }
}

/// `filemd5`, `filesha1`, `filesha256`: the file's hash is in the list, or is not.
#[derive(Clone, Debug, PartialEq)]
pub struct FileHash {
    /// Which hash.
    pub kind: HashKind,
    /// It must not be in the list.
    pub negated: bool,
    /// The list.
    pub list: Arc<HashSet<Box<[u8]>>>,
}
