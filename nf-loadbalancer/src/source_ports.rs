//! Ports for translated clients.
//!
//! A port may be in use towards several backends at once, since what comes back is told apart by who sends it; so
//! there is one set of ports for each source address, protocol and backend. The next free port is found from where
//! the last one was, so that a port that was given back rests for as long as possible.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::connections::Endpoint;

/// Where ports must differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    pub(crate) source: IpAddr,
    pub(crate) backend: Endpoint,
    pub(crate) protocol: u8,
}

/// Ports in use, a bit each, and the port given last.
#[derive(Clone, Debug)]
struct Used {
    bits: Box<[u64]>,
    last: u16,
    count: u32,
}

impl Used {
    fn new(last: u16) -> Self {
        Self { bits: vec![0; 1024].into_boxed_slice(), last, count: 0 }
    }

    fn has(&self, port: u16) -> bool {
        self.bits[usize::from(port / 64)] >> (port % 64) & 1 == 1
    }

    fn set(&mut self, port: u16, used: bool) {
        if self.has(port) == used {
            return;
        }
        self.bits[usize::from(port / 64)] ^= 1 << (port % 64);
        self.count = if used { self.count + 1 } else { self.count - 1 };
    }

    /// The first free port from `first` to `last`.
    fn free_in(&self, first: u16, last: u16) -> Option<u16> {
        if first > last {
            return None;
        }
        let mut word = usize::from(first / 64);
        let mut free = !self.bits[word] & (u64::MAX << (first % 64));
        loop {
            if free != 0 {
                let port = word * 64 + free.trailing_zeros() as usize;
                return u16::try_from(port).ok().filter(|port| *port <= last);
            }
            word += 1;
            if word > usize::from(last / 64) {
                return None;
            }
            free = !self.bits[word];
        }
    }
}

/// All ports in use.
#[derive(Debug, Default)]
pub(crate) struct SourcePorts {
    scopes: HashMap<Scope, Used>,
}

impl SourcePorts {
    /// A free port of a range, in use from now on; none when all are.
    pub(crate) fn take(&mut self, scope: Scope, range: &RangeInclusive<u16>) -> Option<u16> {
        let (first, last) = (*range.start(), *range.end());
        let used = self.scopes.entry(scope).or_insert_with(|| Used::new(first.saturating_sub(1)));
        let next = used.last.checked_add(1).filter(|next| range.contains(next)).unwrap_or(first);
        let port = used.free_in(next, last).or_else(|| used.free_in(first, next))?;
        used.set(port, true);
        used.last = port;
        Some(port)
    }

    /// A port is in use: what a predecessor says.
    pub(crate) fn occupy(&mut self, scope: Scope, port: u16) {
        self.scopes.entry(scope).or_insert_with(|| Used::new(port)).set(port, true);
    }

    /// A port is free again.
    pub(crate) fn give_back(&mut self, scope: Scope, port: u16) {
        if let Some(used) = self.scopes.get_mut(&scope) {
            used.set(port, false);
        }
    }

    /// Ports in use, over all.
    pub(crate) fn in_use(&self) -> u64 {
        self.scopes.values().map(|used| u64::from(used.count)).sum()
    }

    /// Forgets sets of which no port is in use.
    pub(crate) fn tidy(&mut self) {
        self.scopes.retain(|_, used| used.count > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(n: u8) -> Scope {
        let backend = Endpoint { ip: [10, 0, 0, n].into(), port: 80 };
        Scope { source: [10, 9, 9, 9].into(), backend, protocol: 6 }
    }

    #[test]
    fn every_port_of_a_range_is_given_once_and_then_none() {
        let mut ports = SourcePorts::default();
        for range in [65_530..=65_535, 1..=3, 60..=70] {
            let mut given: Vec<u16> = std::iter::from_fn(|| ports.take(scope(1), &range)).collect();
            given.sort_unstable();
            assert_eq!(given, range.clone().collect::<Vec<_>>());
            // Another backend has ports of its own.
            assert_eq!(ports.take(scope(2), &range), Some(*range.start()));
            ports.give_back(scope(1), *range.end());
            assert_eq!(ports.take(scope(1), &range), Some(*range.end()));
        }
    }

    #[test]
    fn a_port_given_back_rests() {
        let mut ports = SourcePorts::default();
        assert_eq!(ports.take(scope(1), &(100..=103)), Some(100));
        ports.give_back(scope(1), 100);
        let next: Vec<_> = (0..4).map(|_| ports.take(scope(1), &(100..=103)).unwrap()).collect();
        assert_eq!(next, [101, 102, 103, 100]);
        assert_eq!(ports.in_use(), 4);
    }

    #[test]
    fn what_a_predecessor_used_is_not_given() {
        let mut ports = SourcePorts::default();
        ports.occupy(scope(1), 5);
        ports.occupy(scope(1), 5);
        assert_eq!(ports.take(scope(1), &(5..=5)), None);
        ports.give_back(scope(1), 5);
        ports.tidy();
        assert_eq!((ports.scopes.len(), ports.in_use()), (0, 0));
    }
}
