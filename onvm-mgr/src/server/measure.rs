//! Once a second: how busy each instance is, and what follows from that.

use std::collections::BTreeMap;
use std::time::Instant;

use onvm_lib::node::Counter;
use onvm_lib::protocol::{InstanceId, ServiceId};

use super::Server;
use super::instances::Instance;
use super::phase::Phase;
use crate::autoscale::{Controller, DEEP};
use crate::fair::{Choice, Fair, Sharer};
use crate::load::{self, Load, Meter, Reading};
use crate::plan::Scale;

/// What is known of the instances' load, and what steers by it.
pub(super) struct Measures {
    last: Instant,
    meters: BTreeMap<InstanceId, Meter>,
    controllers: BTreeMap<ServiceId, Controller>,
    pub(super) fair: Fair,
    /// Packets that were turned away for a service, in all.
    turned_away: BTreeMap<ServiceId, u64>,
}

impl Measures {
    pub(super) fn new(now: Instant, fair: Choice) -> Self {
        Self {
            last: now,
            meters: BTreeMap::new(),
            controllers: BTreeMap::new(),
            fair: Fair::new(fair),
            turned_away: BTreeMap::new(),
        }
    }

    /// How busy an instance is.
    pub(super) fn load(&self, id: InstanceId) -> Load {
        self.meters.get(&id).map(|meter| meter.load).unwrap_or_default()
    }
}

impl Server {
    /// When the next measurement is due.
    pub(super) fn next_measurement(&self) -> Option<Instant> {
        (!self.instances.is_empty()).then(|| self.measures.last + load::INTERVAL)
    }

    /// Measures, when it is time.
    pub(super) fn measure_loads(&mut self, now: Instant) {
        let passed = now.duration_since(self.measures.last);
        if passed < load::INTERVAL {
            return;
        }
        self.measures.last = now;
        self.measures.meters.retain(|id, _| self.instances.contains_key(id));
        let waiting = self.edges.waiting();
        let turned_away = self.turned_away_each();
        for (id, instance) in &self.instances {
            let counters = instance.page.counters();
            let meter = self.measures.meters.entry(*id).or_default();
            let received = counters.get(Counter::Received);
            let reading = Reading {
                received,
                sampled_ns: counters.get(Counter::SampledNs),
                sampled_packets: counters.get(Counter::SampledPackets),
                // Only of those that work: it is the dearest of these figures.
                cpu_ns: instance.pid_number().filter(|_| received > 0).and_then(load::cpu_ns),
                waiting: instance.inbound.occupancy() + waiting.get(id).copied().unwrap_or(0),
                ring: instance.inbound.capacity(),
                turned_away: turned_away.get(&instance.service()).copied().unwrap_or(0),
            };
            meter.look(reading, passed);
        }
        self.divide_processors();
        self.scale_by_load();
    }

    /// Packets that were turned away since the last measurement, for each instance of a service.
    fn turned_away_each(&mut self) -> BTreeMap<ServiceId, u64> {
        let mut members: BTreeMap<ServiceId, u64> = BTreeMap::new();
        for instance in self.instances.values() {
            *members.entry(instance.service()).or_default() += 1;
        }
        for (service, members) in &mut members {
            let now = self.worker.turned_away.of(*service);
            let last = self.measures.turned_away.insert(*service, now).unwrap_or(now);
            *members = (now - last) / *members;
        }
        members
    }

    /// Gives instances that share a processor their parts of it.
    fn divide_processors(&mut self) {
        let sharer = |(id, instance): (&InstanceId, &Instance)| {
            let (core, pid) = (instance.core?, instance.pid_number()?);
            Some(Sharer { instance: *id, pid, core, busy: self.measures.load(*id).busy })
        };
        let sharers: Vec<Sharer> = self.instances.iter().filter_map(sharer).collect();
        self.measures.fair.divide(&sharers);
    }

    /// Gives services whose number of instances the manager chooses as many as they need.
    fn scale_by_load(&mut self) {
        if self.phase != Phase::Running {
            return;
        }
        let services = &self.plan.services;
        self.measures.controllers.retain(|id, _| services.get(id).is_some_and(|s| s.scale.is_some()));
        let scaled: Vec<(ServiceId, Scale, u32)> =
            services.iter().filter_map(|(id, s)| Some((*id, s.scale?, s.instances))).collect();
        for (service, scale, n) in scaled {
            let loads: Vec<Load> =
                self.shares(service).into_iter().map(|id| self.measures.load(id)).collect();
            // Those that are still starting, or have died, would be counted as idle.
            if u32::try_from(loads.len()).unwrap_or(0) < n {
                continue;
            }
            let busy = loads.iter().map(|l| l.busy).sum();
            let deep = loads.iter().any(|l| l.queue >= DEEP);
            let controller = self.measures.controllers.entry(service).or_default();
            if let Some(wanted) = controller.look(&scale, n, busy, deep)
                && let Err(error) = self.supervisor_scales(service, wanted, "load")
            {
                log::debug!("service {service} is not scaled: {error}");
            }
        }
    }
}
