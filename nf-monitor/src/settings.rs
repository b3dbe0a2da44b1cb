//! What the command line says of counting, in one place.

use std::time::Duration;

use crate::flow::Sort;
use crate::keys::Keys;
use crate::timeouts::Timeouts;

/// How a monitor counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Flows kept at most.
    pub(crate) max_flows: usize,
    pub(crate) timeouts: Timeouts,
    pub(crate) keys: Keys,
    /// What tunnels carry is counted, not the tunnel.
    pub(crate) inner: bool,
    /// Applications are looked for.
    pub(crate) applications: bool,
    /// Records of finished flows are wanted.
    pub(crate) records: bool,
    /// Flows, hosts and such to show.
    pub(crate) top: usize,
    pub(crate) sort: Sort,
    /// Hosts, and flow keys, whose totals are kept at most once their flows are over.
    pub(crate) hosts: usize,
    pub(crate) talks: usize,
    /// Sources whose destinations are counted at most.
    pub(crate) spreaders: usize,
    /// For hashes that nobody can guess.
    pub(crate) seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_flows: 65_536,
            timeouts: Timeouts::new(Duration::from_secs(60)),
            keys: Keys::Connection,
            inner: false,
            applications: true,
            records: false,
            top: 10,
            sort: Sort::Bytes,
            hosts: 65_536,
            talks: 4096,
            spreaders: 256,
            seed: 0,
        }
    }
}
