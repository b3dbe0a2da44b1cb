//! Which station is behind which port: bounded, and forgetful.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use onvm_lib::wire::MacAddr;
use serde::{Deserialize, Serialize};

/// What came of learning an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learned {
    New,
    Known,
    /// It was behind another port.
    Moved,
    /// The table is full.
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Station {
    port: u8,
    seen_ns: u64,
}

/// Stations by address.
#[derive(Debug)]
pub(crate) struct MacTable {
    stations: HashMap<u64, Station, Seeded>,
    most: usize,
    age_ns: u64,
}

impl MacTable {
    /// A table of at most `most` stations, each forgotten `age` after it last sent.
    pub(crate) fn new(most: usize, age: Duration) -> Self {
        let stations = HashMap::with_capacity_and_hasher(most, Seeded::new());
        Self { stations, most, age_ns: u64::try_from(age.as_nanos()).unwrap_or(u64::MAX) }
    }

    pub(crate) fn len(&self) -> usize {
        self.stations.len()
    }

    /// The station has sent a packet that came in by this port.
    #[inline]
    pub(crate) fn learn(&mut self, mac: MacAddr, port: u8, now_ns: u64) -> Learned {
        let full = self.stations.len() >= self.most;
        match self.stations.entry(number(mac)) {
            Entry::Occupied(mut known) => {
                let moved = known.get().port != port;
                *known.get_mut() = Station { port, seen_ns: now_ns };
                if moved { Learned::Moved } else { Learned::Known }
            }
            Entry::Vacant(_) if full => Learned::Refused,
            Entry::Vacant(place) => {
                place.insert(Station { port, seen_ns: now_ns });
                Learned::New
            }
        }
    }

    /// The port that the station is behind, if it has sent recently.
    #[inline]
    pub(crate) fn find(&self, mac: MacAddr, now_ns: u64) -> Option<u8> {
        let station = self.stations.get(&number(mac))?;
        (now_ns.saturating_sub(station.seen_ns) < self.age_ns).then_some(station.port)
    }

    /// All stations, in no order.
    pub(crate) fn stations(&self) -> Vec<(u64, Station)> {
        self.stations.iter().map(|(number, station)| (*number, *station)).collect()
    }

    /// Goes on with these stations, as far as their ports are below `ports` and there is room: those that were
    /// silent for longest are left out.
    pub(crate) fn restore(&mut self, mut stations: Vec<(u64, Station)>, ports: usize) {
        stations.retain(|(_, station)| usize::from(station.port) < ports);
        stations.sort_unstable_by_key(|(_, station)| std::cmp::Reverse(station.seen_ns));
        stations.truncate(self.most);
        self.stations.clear();
        self.stations.extend(stations);
    }

    /// Forgets the silent; returns how many.
    pub(crate) fn expire(&mut self, now_ns: u64) -> usize {
        let before = self.stations.len();
        self.stations.retain(|_, station| now_ns.saturating_sub(station.seen_ns) < self.age_ns);
        before - self.stations.len()
    }
}

#[inline]
fn number(mac: MacAddr) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// Hashes one number with a multiplication, several times as fast as the standard hasher. The seed keeps
/// someone who can choose addresses from choosing ones that collide.
#[derive(Clone, Copy, Debug)]
struct Seeded(u64);

impl Seeded {
    fn new() -> Self {
        Self(RandomState::new().hash_one(0u8))
    }
}

impl BuildHasher for Seeded {
    type Hasher = Folded;

    #[inline]
    fn build_hasher(&self) -> Folded {
        Folded(self.0)
    }
}

#[derive(Debug)]
struct Folded(u64);

impl Hasher for Folded {
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "the halves of the product are folded")]
    fn write_u64(&mut self, number: u64) {
        let product = u128::from(number ^ self.0) * 0x9e37_79b9_7f4a_7c15;
        let product = (product as u64) ^ ((product >> 64) as u64);
        self.0 = product ^ self.0.rotate_left(32);
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn mac(n: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, n])
    }

    #[test]
    fn finds_what_it_learned_until_that_is_old() {
        let mut table = MacTable::new(8, Duration::from_secs(5));
        assert_eq!(table.learn(mac(1), 0, SECOND), Learned::New);
        assert_eq!(table.learn(mac(1), 0, 2 * SECOND), Learned::Known);
        assert_eq!(table.find(mac(1), 6 * SECOND), Some(0));
        assert_eq!(table.find(mac(1), 7 * SECOND), None);
        assert_eq!(table.find(mac(2), 2 * SECOND), None);
        assert_eq!(table.learn(mac(1), 1, 8 * SECOND), Learned::Moved);
        assert_eq!(table.find(mac(1), 8 * SECOND), Some(1));
        assert_eq!(table.expire(9 * SECOND), 0);
        assert_eq!(table.expire(13 * SECOND), 1);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_full_table_refuses_the_new_and_keeps_the_known() {
        let mut table = MacTable::new(2, Duration::from_secs(5));
        assert_eq!(table.learn(mac(1), 0, 0), Learned::New);
        assert_eq!(table.learn(mac(2), 0, 0), Learned::New);
        assert_eq!(table.learn(mac(3), 0, 0), Learned::Refused);
        assert_eq!(table.learn(mac(1), 1, 0), Learned::Moved);
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn neighbouring_addresses_spread() {
        let hasher = Seeded::new();
        let mut buckets = [0u32; 256];
        for n in 0..65_536u64 {
            buckets[usize::try_from(hasher.hash_one(0x0200_0000_0000 + n) >> 56).unwrap()] += 1;
        }
        assert!(buckets.iter().all(|n| (64..1024).contains(n)), "{buckets:?}");
    }
}
