//! Fragments follow their first: only that one has the ports, so what was decided on it holds for the others.
//!
//! The table is bounded, of buckets of four; the oldest makes room. A datagram's entry holds for the time that receivers
//! wait for its parts. What was decided is kept as an action, so that a change of the rules between two fragments does
//! not tear a datagram apart.

use std::net::IpAddr;

use onvm_classifier::Header;
use onvm_lib::wire::FlowKey;

use crate::rules::Action;

const WAYS: usize = 4;
/// Datagrams that are followed at once.
const MOST: usize = 8192;
/// As receivers keep parts (RFC 1122 §3.3.2: 60 to 120 s; Linux: 30 s).
const LIFE_NS: u64 = 30_000_000_000;

/// Which datagram a fragment is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Datagram {
    source: IpAddr,
    destination: IpAddr,
    id: u32,
    /// 0 for IPv6, whose later fragments do not say it (RFC 8200 §4.5).
    protocol: u8,
}

impl Datagram {
    fn of(header: &Header, id: u32) -> Self {
        let protocol = if header.is_v6() { 0 } else { header.protocol() };
        Self { source: header.source(), destination: header.destination(), id, protocol }
    }

    fn bucket(&self) -> usize {
        let key = match (self.source, self.destination) {
            (IpAddr::V4(a), IpAddr::V4(b)) => FlowKey::v4(a, b, 0, 0, 0),
            (IpAddr::V6(a), IpAddr::V6(b)) => FlowKey::v6(a, b, 0, 0, 0),
            _ => return 0,
        };
        let hash = (key.hash32() ^ self.id.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
        (hash >> 8) as usize % (MOST / WAYS) * WAYS
    }
}

/// What was decided on a first fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decided {
    pub(crate) action: Action,
    pub(crate) rule: u32,
    /// Number of the set that the rule is of.
    pub(crate) generation: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    datagram: Datagram,
    at_ns: u64,
    decided: Decided,
}

/// Datagrams whose first fragment has been seen.
#[derive(Debug)]
pub(crate) struct Fragments {
    entries: Vec<Option<Entry>>,
    /// Fragments that came without their first.
    pub(crate) stray: u64,
    pub(crate) followed: u64,
}

impl Fragments {
    pub(crate) fn new() -> Self {
        Self { entries: Vec::new(), stray: 0, followed: 0 }
    }

    /// Remembers what was decided on a first fragment.
    pub(crate) fn first(&mut self, header: &Header, id: u32, now_ns: u64, decided: Decided) {
        if self.entries.is_empty() {
            self.entries = vec![None; MOST];
        }
        let datagram = Datagram::of(header, id);
        let at = datagram.bucket();
        let bucket = &mut self.entries[at..at + WAYS];
        let same = bucket.iter().position(|e| e.is_some_and(|e| e.datagram == datagram));
        let place = same.unwrap_or_else(|| {
            let age = |way: &usize| bucket[*way].map_or(0, |entry| entry.at_ns + 1);
            (0..WAYS).min_by_key(age).unwrap_or(0)
        });
        bucket[place] = Some(Entry { datagram, at_ns: now_ns, decided });
    }

    /// What was decided on the first fragment of this one's datagram.
    pub(crate) fn later(&mut self, header: &Header, id: u32, now_ns: u64) -> Option<Decided> {
        let datagram = Datagram::of(header, id);
        let at = datagram.bucket();
        let bucket = self.entries.get(at..at + WAYS).unwrap_or(&[]);
        let is_it = |e: &&Entry| e.datagram == datagram && now_ns.saturating_sub(e.at_ns) < LIFE_NS;
        let found = bucket.iter().flatten().find(is_it).map(|entry| entry.decided);
        if found.is_some() {
            self.followed += 1;
        } else {
            self.stray += 1;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECIDED: Decided = Decided { action: Action::Allow, rule: 3, generation: 1 };

    fn header(n: u8) -> Header {
        Header::v4([10, 0, 0, n].into(), [10, 0, 0, 2].into(), 0, 0, 17)
    }

    #[test]
    fn later_fragments_follow_their_first_for_a_while() {
        let mut fragments = Fragments::new();
        assert_eq!(fragments.later(&header(1), 7, 1), None);
        fragments.first(&header(1), 7, 1, DECIDED);
        assert_eq!(fragments.later(&header(1), 7, 2), Some(DECIDED));
        assert_eq!(fragments.later(&header(1), 8, 2), None);
        assert_eq!(fragments.later(&header(2), 7, 2), None);
        assert_eq!(fragments.later(&header(1), 7, LIFE_NS + 1), None);
        assert_eq!((fragments.followed, fragments.stray), (1, 4));
        let denied = Decided { action: Action::Deny, ..DECIDED };
        fragments.first(&header(1), 7, LIFE_NS + 5, denied);
        assert_eq!(fragments.later(&header(1), 7, LIFE_NS + 6), Some(denied), "an id is used again");
    }

    #[test]
    fn a_flood_pushes_out_the_oldest_of_its_bucket_only() {
        let mut fragments = Fragments::new();
        for n in 0..100_000u32 {
            fragments.first(&header(1), n, u64::from(n), DECIDED);
        }
        assert_eq!(fragments.entries.len(), MOST);
        let kept =
            (90_000..100_000u32).filter(|n| fragments.later(&header(1), *n, 100_000).is_some()).count();
        assert!(kept > MOST / 2, "{kept}");
    }
}
