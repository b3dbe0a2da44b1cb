//! The flow table: bounded, quick, and not to be slowed down by someone who picks the flows.
//!
//! ```text
//! hash ─▶ bucket: one cache line   8 hashes │ 8 places ─▶ flows: a slab, one entry a flow
//! ```
//! A look-up reads one bucket and, where a hash is equal, one flow. The packet brings its hash along; it has
//! no secret seed, so one can choose flows that share a bucket. They cost eight comparisons at most, and push
//! out each other: a new flow that finds no place takes that of the flow in its bucket that has been silent
//! for longest. There are four times as many places as flows, so that honest flows hardly ever do.

use std::time::Duration;

use onvm_lib::wire::FlowKey;
use serde::{Deserialize, Serialize};

use crate::ended::Ended;
use crate::flow::{Flow, Seen, Sort};

/// Flows in a bucket.
const WAYS: usize = 8;
/// No flow.
const FREE: u32 = u32::MAX;
/// Places for every flow that there may be.
const PLACES_PER_FLOW: usize = 4;
/// Flows looked at in a search for silent ones, which packets must wait for.
const SWEEP: usize = 8192;

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket {
    hashes: [u32; WAYS],
    flows: [u32; WAYS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

const EMPTY: Bucket = Bucket { hashes: [0; WAYS], flows: [FREE; WAYS] };

/// What became of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FlowCounts {
    /// Begun, those refused not included.
    pub(crate) seen: u64,
    /// Silent for the timeout, or ended and begun anew.
    pub(crate) expired: u64,
    /// Made room for another before that.
    pub(crate) evicted: u64,
    /// Packets whose flow found no room at all.
    pub(crate) refused: u64,
}

/// Flows by key.
#[derive(Debug)]
pub(crate) struct Table {
    buckets: Vec<Bucket>,
    /// Flows; an entry without is on the free list.
    flows: Vec<Option<Flow>>,
    free: Vec<u32>,
    most: usize,
    timeout_ns: u64,
    /// Where the search for silent flows goes on.
    swept: usize,
    pub(crate) counts: FlowCounts,
    pub(crate) ended: Ended,
}

impl Table {
    pub(crate) fn new(most: usize, timeout: Duration, top: usize, sort: Sort) -> Self {
        let buckets = (most * PLACES_PER_FLOW / WAYS).next_power_of_two().max(1);
        Self {
            buckets: vec![EMPTY; buckets],
            flows: Vec::with_capacity(most),
            free: Vec::new(),
            most,
            timeout_ns: u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX),
            swept: 0,
            counts: FlowCounts::default(),
            ended: Ended::new(most, top, sort),
        }
    }

    /// Counts a packet of the flow with this key, in this direction.
    #[inline]
    pub(crate) fn count(&mut self, hash: u32, key: FlowKey, seen: Seen) {
        let shared = key.symmetric();
        let reversed = shared != key;
        let timeout_ns = self.timeout_ns;
        if let Some(flow) = self.find(hash, &shared) {
            let silent = seen.now_ns.saturating_sub(flow.last_ns) >= timeout_ns;
            let reopened = seen.flags.0 != 0 && flow.is_reopened_by(seen.flags);
            if !(silent || reopened) {
                return flow.add(reversed, seen);
            }
            let over = std::mem::replace(flow, Flow::new(hash, shared, reversed, seen));
            self.ended.take(&over);
            self.counts.expired += 1;
            self.counts.seen += 1;
            return;
        }
        self.insert(Flow::new(hash, shared, reversed, seen));
    }

    #[inline]
    fn bucket(&self, hash: u32) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    #[inline]
    fn find(&mut self, hash: u32, key: &FlowKey) -> Option<&mut Flow> {
        let bucket = &self.buckets[self.bucket(hash)];
        let mut found = None;
        for (place, at) in bucket.hashes.iter().zip(bucket.flows) {
            if *place == hash && at != FREE {
                let same = self.flows[at as usize].as_ref().is_some_and(|flow| flow.key() == key);
                if same {
                    found = Some(at);
                    break;
                }
            }
        }
        self.flows[found? as usize].as_mut()
    }

    #[cold]
    #[inline(never)]
    fn insert(&mut self, flow: Flow) {
        let bucket = self.bucket(flow.hash);
        let full = self.free.is_empty() && self.flows.len() == self.most;
        let mut way = self.buckets[bucket].flows.iter().position(|at| *at == FREE);
        if full || way.is_none() {
            way = self.evict(bucket);
        }
        let Some(way) = way else {
            self.counts.refused += 1;
            return;
        };
        let at = self.free.pop().unwrap_or_else(|| {
            self.flows.push(None);
            u32::try_from(self.flows.len() - 1).unwrap_or(FREE)
        });
        let hash = flow.hash;
        self.flows[at as usize] = Some(flow);
        self.buckets[bucket].hashes[way] = hash;
        self.buckets[bucket].flows[way] = at;
        self.counts.seen += 1;
    }

    /// Ends the flow of a bucket that has been silent for longest; its way. None in an empty bucket.
    fn evict(&mut self, bucket: usize) -> Option<usize> {
        let silent_since = |at: u32| self.flows.get(at as usize)?.as_ref().map(|flow| flow.last_ns);
        let ways = self.buckets[bucket].flows.into_iter().enumerate();
        let (_, way) = ways.filter_map(|(way, at)| Some((silent_since(at)?, way))).min()?;
        self.end(bucket, way);
        self.counts.evicted += 1;
        Some(way)
    }

    /// Takes a flow out.
    fn end(&mut self, bucket: usize, way: usize) {
        let at = std::mem::replace(&mut self.buckets[bucket].flows[way], FREE);
        if let Some(flow) = self.flows.get_mut(at as usize).and_then(Option::take) {
            self.ended.take(&flow);
            self.free.push(at);
        }
    }

    /// Ends flows that have been silent for the timeout; looks at a part of the table.
    pub(crate) fn sweep(&mut self, now_ns: u64) {
        for _ in 0..SWEEP.min(self.flows.len()) {
            self.swept = if self.swept + 1 < self.flows.len() { self.swept + 1 } else { 0 };
            let Some(flow) = &self.flows[self.swept] else { continue };
            if now_ns.saturating_sub(flow.last_ns) < self.timeout_ns {
                continue;
            }
            let bucket = self.bucket(flow.hash);
            let way = self.buckets[bucket].flows.iter().position(|at| *at as usize == self.swept);
            if let Some(way) = way {
                self.end(bucket, way);
                self.counts.expired += 1;
            }
        }
    }

    /// Flows in the order of their places: put into a table of the same size one by one they have the same
    /// neighbours.
    pub(crate) fn by_place(&self) -> impl Iterator<Item = &Flow> {
        let places = self.buckets.iter().flat_map(|bucket| bucket.flows);
        places.filter_map(|at| self.flows.get(at as usize)?.as_ref())
    }

    /// Goes on from where another has come to. In a smaller table flows that find no place end.
    pub(crate) fn restore(&mut self, flows: &[Flow], counts: FlowCounts) {
        for flow in flows {
            let refused = self.counts.refused;
            self.insert(*flow);
            if self.counts.refused > refused {
                self.ended.take(flow);
                self.counts.evicted += 1;
            }
        }
        self.counts = FlowCounts { evicted: counts.evicted + self.counts.evicted, ..counts };
    }

    /// Flows that are in the table.
    pub(crate) fn flows(&self) -> impl Iterator<Item = &Flow> {
        self.flows.iter().flatten()
    }

    /// Number of flows in the table.
    pub(crate) fn len(&self) -> usize {
        self.flows.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onvm_lib::wire::tcp::Flags;
    use std::net::Ipv4Addr;

    const SECOND: u64 = 1_000_000_000;

    fn table(most: usize) -> Table {
        Table::new(most, Duration::from_secs(10), 10, Sort::Bytes)
    }

    fn key(n: u16) -> FlowKey {
        FlowKey::v4(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2), n, 80, 17)
    }

    fn seen(now_ns: u64) -> Seen {
        Seen { bytes: 100, now_ns, flags: Flags(0) }
    }

    fn count(table: &mut Table, key: FlowKey, now_ns: u64) {
        table.count(key.hash32(), key, seen(now_ns));
    }

    fn sum(table: &Table) -> u64 {
        table.flows().map(|flow| flow.total().packets).sum()
    }

    #[test]
    fn both_directions_are_one_flow() {
        let mut table = table(4);
        count(&mut table, key(1), SECOND);
        count(&mut table, key(1).reversed(), SECOND);
        count(&mut table, key(2), SECOND);
        assert_eq!((table.len(), table.counts.seen, sum(&table)), (2, 2, 3));
        let flow = table.flows().next().unwrap();
        assert_eq!(flow.ways.map(|way| way.count.packets), [1, 1]);
        assert_eq!(flow.first_key(), key(1));
    }

    #[test]
    fn silent_flows_end_by_the_sweep_or_by_the_next_packet() {
        let mut table = table(4);
        count(&mut table, key(1), SECOND);
        count(&mut table, key(2), 5 * SECOND);
        table.sweep(11 * SECOND);
        assert_eq!((table.len(), table.counts.expired), (1, 1));
        count(&mut table, key(2), 15 * SECOND);
        assert_eq!((table.len(), table.counts.expired, table.counts.seen), (1, 2, 3));
        assert_eq!(sum(&table), 1);
        assert_eq!(table.ended.hosts().map(|(_, host)| host.sent.packets).sum::<u64>(), 2);
    }

    #[test]
    fn a_full_table_gives_the_place_of_the_longest_silent() {
        let mut table = table(64);
        for n in 0..1000u16 {
            count(&mut table, key(n), u64::from(n) + 1);
        }
        let counts = table.counts;
        assert!(table.len() <= 64);
        assert_eq!(counts.seen + counts.refused, 1000);
        assert_eq!(counts.evicted, counts.seen - table.len() as u64);
        assert!(counts.evicted > 800, "{counts:?}");
    }

    #[test]
    fn colliding_flows_push_out_each_other_only() {
        let mut table = table(1024);
        count(&mut table, key(60_000), 1);
        for n in 0..100u16 {
            table.count(0x1234_5678, key(n), seen(u64::from(n) + 2));
        }
        assert_eq!((table.len(), table.counts.evicted), (WAYS + 1, 100 - WAYS as u64));
        assert!(table.flows().any(|flow| flow.first_key() == key(60_000)));
    }

    #[test]
    fn a_sweep_of_a_large_table_takes_turns() {
        let mut table = table(4 * SWEEP);
        for n in 0..20_000u16 {
            count(&mut table, key(n), SECOND);
        }
        let before = table.len();
        table.sweep(60 * SECOND);
        assert_eq!(table.len(), before - SWEEP);
        (0..3).for_each(|_| table.sweep(60 * SECOND));
        assert_eq!(table.len(), 0);
        count(&mut table, key(1), 61 * SECOND);
        assert_eq!(table.len(), 1);
    }
}
