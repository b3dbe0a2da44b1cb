//! What rules ask of files beside their content: how large they are, and whether they are on a list.

use sha1::Digest as _;

use crate::rules::{Compare, FileHash, HashKind};

/// What is known of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Nothing of it follows, and all of it was kept.
    pub(crate) whole: bool,
}

impl Known {
    /// Whether a file of which so many bytes are known has such a size. Of one that is not whole, only that it is larger is
    /// known.
    pub(crate) fn size_holds(self, compare: Compare, length: usize) -> bool {
        let larger = matches!(compare, Compare::Greater(_) | Compare::AtLeast(_));
        (self.whole || larger) && compare.holds(length as u64)
    }

    /// Whether the hash of a whole file is on a list, or is not.
    pub(crate) fn hash_holds(self, asked: &FileHash, bytes: &[u8]) -> bool {
        if !self.whole {
            return false;
        }
        let there = match asked.kind {
            HashKind::Md5 => asked.list.contains(&md5::Md5::digest(bytes)[..]),
            HashKind::Sha1 => asked.list.contains(&sha1::Sha1::digest(bytes)[..]),
            HashKind::Sha256 => asked.list.contains(&sha2::Sha256::digest(bytes)[..]),
        };
        there != asked.negated
    }
}
