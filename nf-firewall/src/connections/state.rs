//! What a firewall hands to its successor: its connections.

use onvm_lib::wire::FlowKey;
use serde::{Deserialize, Serialize};

use super::{Connection, Connections, Counts, TICK_NS};

/// All connections, and the time that they are kept in.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Saved {
    base_ns: Option<u64>,
    counts: Counts,
    /// Place, hash, key, connection.
    all: Vec<(u32, u32, FlowKey, Connection)>,
}

impl Saved {
    pub(crate) fn of(connections: &Connections) -> Self {
        let all = connections.table.placed().map(|p| (p.place, p.hash, *p.key, *p.value));
        Self { base_ns: connections.base_ns, counts: connections.counts, all: all.collect() }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Lets connections go on here; what finds no room in a smaller table is counted as evicted.
    ///
    /// # Errors
    /// Why they are not taken: there are some here already, or they contradict themselves.
    pub(crate) fn restore(self, into: &mut Connections) -> Result<(), String> {
        if into.len() > 0 {
            return Err(format!("{} connections are here already", into.len()));
        }
        let sound = |(_, hash, key, _): &(u32, u32, FlowKey, Connection)| {
            *key == key.symmetric() && *hash == key.hash32()
        };
        let odd = self.base_ns.is_none() && !self.all.is_empty();
        if odd || !self.all.iter().all(sound) || self.base_ns.is_some_and(|base| base > u64::MAX - TICK_NS) {
            return Err("the connections contradict themselves".into());
        }
        into.base_ns = self.base_ns;
        into.counts = self.counts;
        for (place, hash, key, connection) in self.all {
            if into.table.put_back(place, hash, key, connection).is_err() {
                into.counts.evicted = into.counts.evicted.saturating_add(1);
            }
        }
        Ok(())
    }
}
