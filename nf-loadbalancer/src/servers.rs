//! Backends as they are: who lives, who takes new connections, what each did.
//!
//! A server keeps its slot as long as any connection names it, so that slots in flows always mean what they meant.
//! It is known again after a reload by its service's and its own name, address and port; then its connections, counts
//! and health go on. One that is gone from the file is *leaving*: its connections stay until they end.
//!
//! ```text
//!                  check failed                         gone from the file
//!   up ◀────────────────────────────▶ down        any ─────────────────────▶ leaving ──last connection over──▶ free
//!    │          rise good checks
//!    └─ drain, weight 0, unresolved, full, shunned: up for what is established, nothing new
//! ```

use std::collections::HashMap;
use std::time::Duration;

use onvm_lib::wire::MacAddr;
use serde::{Deserialize, Serialize};

use crate::config::{Backend, Passive};
use crate::maglev::seed;

/// What active checks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Checked {
    /// Nothing yet, or there are none: it is believed to live.
    NotYet,
    Good,
    Bad,
}

/// What a server did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Connections given to it.
    pub(crate) connections: u64,
    /// Packets to it.
    pub(crate) packets_to: u64,
    /// Bytes to it, as frames came in.
    pub(crate) bytes_to: u64,
    /// Packets from it; none are seen in modes without translation.
    pub(crate) packets_from: u64,
    /// Bytes from it.
    pub(crate) bytes_from: u64,
    /// Connections that it refused.
    pub(crate) refused: u64,
    /// Connections taken from it because it was down.
    pub(crate) moved_away: u64,
    /// Packets dropped because its Ethernet address is not known.
    pub(crate) unresolved: u64,
}

/// A backend at work.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// A number that no other has, not even one that has its slot later.
    pub(crate) id: u64,
    pub(crate) service: String,
    pub(crate) backend: Backend,
    /// What its permutation of a Maglev table is made from.
    pub(crate) seed: u64,
    /// Place of its service; none once that is gone from the file.
    pub(crate) index: Option<usize>,
    pub(crate) passive: Option<Passive>,
    /// Longest packet that a router on the way has asked for, and when; in tunnels.
    pub(crate) path_mtu: Option<(u16, u64)>,
    /// Ethernet address that its packets go to; none: not known (yet), or not needed.
    pub(crate) mac: Option<MacAddr>,
    /// An Ethernet address is needed.
    pub(crate) needs_mac: bool,
    pub(crate) checked: Checked,
    /// Nothing new by passive checks until then.
    pub(crate) shunned_until_ns: Option<u64>,
    /// Connections refused, or not answered, in a row.
    pub(crate) refused_in_a_row: u32,
    pub(crate) silent_in_a_row: u32,
    /// Drained by the file or by a command.
    pub(crate) draining: bool,
    /// No longer in the file.
    pub(crate) leaving: bool,
    /// Connections at the moment.
    pub(crate) open: u32,
    /// When it came up, for the slow start; 0: at the start of the program, which needs none.
    pub(crate) up_since_ns: u64,
    /// What was last said of it.
    pub(crate) said: &'static str,
    /// Account of smooth weighted round robin.
    pub(crate) credit: i64,
    pub(crate) counts: Counts,
}

impl Server {
    pub(crate) fn new(service: &str, backend: &Backend, needs_mac: bool) -> Self {
        let named = format!("{} {} {}", backend.name, backend.address, backend.port.unwrap_or(0));
        Self {
            id: 0,
            seed: seed(named.as_bytes()),
            service: service.to_string(),
            index: None,
            passive: None,
            path_mtu: None,
            mac: backend.mac,
            needs_mac,
            checked: Checked::NotYet,
            shunned_until_ns: None,
            refused_in_a_row: 0,
            silent_in_a_row: 0,
            draining: backend.drain,
            leaving: false,
            open: 0,
            up_since_ns: 0,
            said: "",
            credit: 0,
            counts: Counts::default(),
            backend: backend.clone(),
        }
    }

    /// Whether it is this backend of this service.
    pub(crate) fn is(&self, service: &str, backend: &Backend) -> bool {
        self.service == service && self.backend.is_same_server(backend)
    }

    /// Whether established connections stay with it. One that refuses new connections, or does not answer them, may
    /// well serve its old ones: only an active check takes these away.
    #[inline(always)]
    pub(crate) fn lives(&self) -> bool {
        self.checked != Checked::Bad
    }

    /// Whether packets can be sent to it.
    #[inline(always)]
    pub(crate) fn is_reachable(&self) -> bool {
        !self.needs_mac || self.mac.is_some()
    }

    /// Whether it has a part of the Maglev table: all that changes seldom.
    pub(crate) fn has_part(&self) -> bool {
        self.is_willing() && self.shunned_until_ns.is_none()
    }

    /// Whether it could have a part of the Maglev table, if passive checks had nothing against it.
    pub(crate) fn is_willing(&self) -> bool {
        self.lives() && self.is_reachable() && !self.draining && !self.leaving && self.backend.weight > 0
    }

    /// Whether it has as many connections as it may.
    pub(crate) fn is_full(&self) -> bool {
        self.backend.max_connections.is_some_and(|most| self.open >= most)
    }

    /// Whether it takes one more connection.
    pub(crate) fn takes_new(&self) -> bool {
        self.has_part() && !self.is_full()
    }

    /// Its weight, in tenths, with the slow start counted in: a tenth at first, all of it at the end.
    pub(crate) fn weight(&self, slow_start: Option<Duration>, now_ns: u64) -> u32 {
        let full = self.backend.weight * 10;
        let Some(length) = slow_start.filter(|_| self.up_since_ns > 0) else { return full };
        let length_ns = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX).max(1);
        let since = now_ns.saturating_sub(self.up_since_ns);
        let tenths = u128::from(since) * 10 / u128::from(length_ns);
        let tenths = u32::try_from(tenths.clamp(1, 10)).unwrap_or(10);
        self.backend.weight * tenths
    }

    /// One word for people.
    pub(crate) fn word(&self) -> &'static str {
        match () {
            () if self.leaving => "leaving",
            () if self.checked == Checked::Bad => "down",
            () if self.shunned_until_ns.is_some() => "shunned",
            () if !self.is_reachable() => "unresolved",
            () if self.draining => "draining",
            () => "up",
        }
    }

    /// A connection was refused, or asked for again without an answer. Whether that is one too many.
    pub(crate) fn observe_failure(&mut self, passive: &Passive, refused: bool, now_ns: u64) -> bool {
        let (count, most) = if refused {
            (&mut self.refused_in_a_row, passive.resets)
        } else {
            (&mut self.silent_in_a_row, passive.silence)
        };
        *count += 1;
        let over = most > 0 && *count >= most && self.shunned_until_ns.is_none();
        if over {
            let retry_ns = u64::try_from(passive.retry.as_nanos()).unwrap_or(u64::MAX);
            self.shunned_until_ns = Some(now_ns.saturating_add(retry_ns));
        }
        over
    }

    /// It answered.
    #[inline]
    pub(crate) fn observe_success(&mut self) {
        (self.refused_in_a_row, self.silent_in_a_row) = (0, 0);
    }
}

/// All servers by slot.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    slots: Vec<Option<Server>>,
    last_id: u64,
}

impl Servers {
    /// Puts one into a slot; its number.
    pub(crate) fn add(&mut self, mut server: Server) -> u32 {
        self.last_id += 1;
        server.id = self.last_id;
        let free = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if free == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[free] = Some(server);
        u32::try_from(free).unwrap_or(u32::MAX)
    }

    #[inline(always)]
    pub(crate) fn get(&self, slot: u32) -> Option<&Server> {
        self.slots.get(slot as usize)?.as_ref()
    }

    #[inline(always)]
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Server> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// The slots of all backends by the hash of their service's and their own name; whoever looks one up compares the
    /// names.
    pub(crate) fn by_name(&self) -> HashMap<u64, Vec<u32>> {
        let mut all: HashMap<u64, Vec<u32>> = HashMap::new();
        for (slot, server) in self.iter() {
            all.entry(Self::name_hash(&server.service, &server.backend.name)).or_default().push(slot);
        }
        all
    }

    /// The hash under which [`Servers::by_name`] has a backend.
    pub(crate) fn name_hash(service: &str, backend: &str) -> u64 {
        seed(service.as_bytes()).rotate_left(1) ^ seed(backend.as_bytes())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Server)> {
        (0..).zip(&self.slots).filter_map(|(slot, server)| Some((slot, server.as_ref()?)))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Server)> {
        (0..).zip(&mut self.slots).filter_map(|(slot, server)| Some((slot, server.as_mut()?)))
    }

    /// Frees the slots of those that left and have no connection any more; their names.
    pub(crate) fn free_left(&mut self) -> Vec<String> {
        let mut gone = Vec::new();
        for slot in &mut self.slots {
            if let Some(server) = slot.take_if(|server| server.leaving && server.open == 0) {
                gone.push(format!("{}/{}", server.service, server.backend.name));
            }
        }
        gone
    }
}
