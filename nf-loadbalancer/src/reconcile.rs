//! From one configuration to the next, without a connection that notices.
//!
//! Backends keep their slots, connections, counts and health if they are the same servers as before; those that are
//! gone leave when their last connection ends. Tables that have to be made anew are made beside; until they come, the
//! old ones serve, with the places of those who are gone skipped.

use std::collections::HashMap;

use crate::balancer::{Balancer, Counts, Gear, OwnPackets};
use crate::clients::Clients;
use crate::commands::Overlay;
use crate::config::{Config, Mode, Service};
use crate::connections::Connections;
use crate::fragments::Fragments;
use crate::health::Target;
use crate::maglev::Maglev;
use crate::neighbours::Neighbours;
use crate::servers::{Server, Servers};
use crate::services::{Dice, Directory, Running, ServiceCounts};
use crate::source_ports::SourcePorts;
use crate::tables::{NO_ORDER, Tables};
use crate::upkeep::History;

impl Balancer {
    /// A balancer that makes its tables on the spot and throws the same lots each time: for captures and tests.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::with(config, Tables::here(), 1)
    }

    /// A balancer whose tables are made by a thread beside.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn live(config: Config, seed: u64) -> std::io::Result<Self> {
        let mut balancer = Self::with(config, Tables::here(), seed);
        balancer.tables = Tables::beside()?;
        Ok(balancer)
    }

    fn with(config: Config, tables: Tables, seed: u64) -> Self {
        let mut balancer = Self {
            file: config.clone(),
            overlay: Overlay::default(),
            gear: Gear::new(&config),
            inner: false,
            services: Vec::new(),
            last_service: 0,
            directory: Directory::default(),
            servers: Servers::default(),
            connections: Connections::new(config.limits.connections, &config.timeouts),
            source_ports: SourcePorts::default(),
            clients: Clients::new(config.limits.clients),
            fragments: Fragments::new(config.limits.fragments, config.timeouts.fragment),
            neighbours: Neighbours::default(),
            tables,
            dice: Dice::new(seed),
            counts: Counts::default(),
            history: History::default(),
            own: OwnPackets { datagrams: 0, errors_left: OwnPackets::ERRORS },
            targets_changed: true,
            to_look_at: 0,
            bursts: false,
            looks: Vec::new(),
            config,
        };
        balancer.reconcile(0);
        balancer
    }

    /// Another file is in force; what was said by command stays. Limits are those of the start.
    pub fn replace(&mut self, config: Config, now_ns: u64) {
        if config.limits != self.file.limits {
            log::warn!("limits cannot change while the balancer runs: they stay {:?}", self.file.limits);
        }
        self.file = Config { limits: self.file.limits, ..config };
        self.reconcile(now_ns);
        self.history.note(now_ns, "the services file was read anew".into());
    }

    /// Brings all that is at work in line with the file and the commands.
    pub(crate) fn reconcile(&mut self, now_ns: u64) {
        self.config = self.overlay.applied_to(&self.file);
        self.gear = Gear::new(&self.config);
        self.connections.set_timeouts(&self.config.timeouts);
        self.source_ports.tidy();
        for (_, server) in self.servers.iter_mut() {
            server.leaving = true;
            server.index = None;
        }
        let before = std::mem::take(&mut self.services);
        let numbers: HashMap<String, usize> = before
            .iter()
            .enumerate()
            .map(|(number, service)| (service.config.name.clone(), number))
            .collect();
        let mut old: Vec<Option<Running>> = before.into_iter().map(Some).collect();
        let services = std::mem::take(&mut self.config.services);
        let slots = self.servers.by_name();
        for (index, service) in services.iter().enumerate() {
            let known = numbers.get(&service.name).and_then(|number| old[*number].take());
            let running = self.running(index, service, known, &slots, now_ns);
            self.services.push(running);
        }
        self.config.services = services;
        self.adopt_leaving();
        self.directory = self.new_directory();
        let hops = |server: &Server| server.backend.mac.is_none().then(|| server.backend.neighbour());
        self.neighbours.want(self.servers.iter().filter_map(|(_, server)| hops(server)));
        self.resolve(now_ns);
        self.want_tables(true, now_ns);
        self.targets_changed = true;
        self.say_changes(now_ns);
    }

    /// A service at work, with what is kept of what was there before.
    fn running(
        &mut self,
        index: usize,
        config: &Service,
        known: Option<Running>,
        slots: &HashMap<u64, Vec<u32>>,
        now_ns: u64,
    ) -> Running {
        let started = known.is_some();
        let mut members = Vec::with_capacity(config.backends.len());
        for backend in &config.backends {
            let named = slots.get(&Servers::name_hash(&config.name, &backend.name));
            let same = |slot: &u32| self.servers.get(*slot).is_some_and(|s| s.is(&config.name, backend));
            let found = named.and_then(|slots| slots.iter().copied().find(same));
            let slot = found.unwrap_or_else(|| {
                let mut server = Server::new(&config.name, backend, self.gear.mac.is_some());
                server.up_since_ns = if started { now_ns } else { 0 };
                self.servers.add(server)
            });
            if let Some(server) = self.servers.get_mut(slot) {
                server.leaving = false;
                server.index = Some(index);
                server.draining = backend.drain;
                server.passive = config.passive;
                server.needs_mac = self.gear.mac.is_some();
                server.mac = backend.mac.or_else(|| self.neighbours.mac(backend.neighbour()));
                server.backend = backend.clone();
                if config.passive.is_none() {
                    server.shunned_until_ns = None;
                }
                if config.health.is_none() {
                    server.checked = crate::servers::Checked::NotYet;
                }
            }
            members.push(slot);
        }
        let Some(known) = known else {
            self.last_service += 1;
            return Running::empty(self.last_service, config, members);
        };
        // The old tables name places in the old list.
        let places: HashMap<u32, usize> =
            members.iter().enumerate().map(|(place, slot)| (*slot, place)).collect();
        let numbers: Vec<Option<usize>> =
            known.members.iter().map(|slot| places.get(slot).copied()).collect();
        let same = known.members == members && known.config.table_size == config.table_size;
        let (base, shares) = if same { (known.base, known.shares) } else { (Maglev::default(), Vec::new()) };
        let table = known.table.renumbered(&numbers);
        // A table that is under way is still the right one, and nobody will ask for it again.
        let (wanted, asked) =
            if same { (known.wanted, known.asked) } else { ((Vec::new(), Vec::new()), NO_ORDER) };
        Running {
            base,
            shares,
            table,
            wanted,
            asked,
            open: 0,
            counts: known.counts,
            ..Running::empty(known.id, config, members)
        }
    }

    /// Counts who is open where, those that leave included.
    fn adopt_leaving(&mut self) {
        let names: HashMap<&str, usize> =
            self.services.iter().enumerate().map(|(n, service)| (service.config.name.as_str(), n)).collect();
        let mut open = vec![0u32; self.services.len()];
        for (_, server) in self.servers.iter_mut() {
            server.index = names.get(server.service.as_str()).copied();
            if let Some(index) = server.index {
                open[index] += server.open;
            }
        }
        self.services.iter_mut().zip(open).for_each(|(service, open)| service.open = open);
    }

    fn new_directory(&self) -> Directory {
        let mut directory = Directory::new(self.config.services.iter());
        for (_, server) in self.servers.iter() {
            let service = server.index.and_then(|index| self.services.get(index));
            let translated = service.is_none_or(|service| service.config.mode == Mode::Nat);
            let ports = match (server.backend.port, service) {
                _ if !translated => Vec::new(),
                (Some(port), _) => vec![port..=port],
                (None, Some(service)) => service.config.ports.clone(),
                (None, None) => Vec::new(),
            };
            directory.add_origin(server.backend.address, &ports);
            directory.add_host(server.backend.address);
            directory.add_host(server.backend.neighbour());
        }
        directory
    }

    /// What it says of its work so far.
    #[must_use]
    pub fn report(&self) -> onvm_lib::prelude::Report {
        crate::report::of(self, None)
    }

    /// Whether what is to be checked has changed since this was last asked.
    pub fn take_targets_change(&mut self) -> bool {
        std::mem::take(&mut self.targets_changed)
    }

    /// What is to be checked.
    #[must_use]
    pub fn targets(&self) -> Vec<Target> {
        let mut targets = Vec::new();
        // Those that leave are watched as long as they have connections, which move if they die.
        for (slot, server) in self.servers.iter().filter(|(_, server)| !server.leaving || server.open > 0) {
            let Some(service) = server.index.and_then(|index| self.services.get(index)) else { continue };
            let Some(health) = &service.config.health else { continue };
            let own =
                server.backend.port.or_else(|| service.config.ports.first().map(|range| *range.start()));
            let port = health.port.or(own).unwrap_or(0);
            let (id, address) = (server.id, server.backend.address);
            targets.push(Target { slot, id, address, port, health: health.clone() });
        }
        targets
    }
}

impl Running {
    fn empty(id: u32, config: &Service, members: Vec<u32>) -> Self {
        Self {
            id,
            config: config.without_backends(),
            members,
            shares: Vec::new(),
            base: Maglev::default(),
            wanted: (Vec::new(), Vec::new()),
            table: Maglev::default(),
            asked: NO_ORDER,
            open: 0,
            counts: ServiceCounts::default(),
        }
    }
}
