//! What is done while time passes, and not for a packet: expiry, news of health, tables, questions about addresses.

use std::collections::VecDeque;

use onvm_lib::prelude::Verdict;
use onvm_lib::wire::Headers;

use crate::balancer::{Balancer, OwnPackets};
use crate::connections::{Carry, ends};
use crate::frame::{Frame, Frames};
use crate::health::News;
use crate::neighbours::question;
use crate::servers::Checked;
use crate::services::Running;
use crate::source_ports::Scope;
use crate::tables::{Made, Order};

/// Flows looked at in the search for silent ones, from one tick to the next, and after one burst of those between them.
const SWEEP: usize = 8192;
const PART: usize = 256;
/// Questions about addresses that are asked at a time.
const QUESTIONS: usize = 16;

/// The last things that happened, for the report.
#[derive(Clone, Debug, Default)]
pub(crate) struct History(VecDeque<(u64, String)>);

impl History {
    const MOST: usize = 32;

    /// Something happened; it is logged, too.
    pub(crate) fn note(&mut self, now_ns: u64, what: String) {
        log::info!("{what}");
        if self.0.len() == Self::MOST {
            self.0.pop_front();
        }
        self.0.push_back((now_ns, what));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &str)> {
        self.0.iter().map(|(at, what)| (*at, what.as_str()))
    }
}

impl Balancer {
    /// To be called before a burst: takes in what was made beside.
    #[inline]
    pub fn refresh(&mut self, now_ns: u64) {
        if let Some(made) = self.tables.collect() {
            self.install(made);
        }
        if self.tables.take_change() {
            self.want_tables(true, now_ns);
        }
    }

    /// To be called after a burst, where packets wait for what is done in ticks: looks at a few flows. Without it the whole part
    /// of the table that is due is looked at in each tick.
    #[inline]
    pub fn step(&mut self, now_ns: u64) {
        self.bursts = true;
        if self.to_look_at > 0 {
            self.to_look_at = self.to_look_at.saturating_sub(PART);
            self.connections.sweep(PART, now_ns);
            if self.connections.has_over() {
                self.settle();
            }
        }
    }

    /// Time passes; `frames` is where packets can be made.
    pub fn tick<F: Frames>(&mut self, frames: &mut F, now_ns: u64) {
        self.own.errors_left = OwnPackets::ERRORS;
        // Where bursts come they have looked at most of it by now, and packets wait for little; else none wait.
        let left = std::mem::replace(&mut self.to_look_at, SWEEP);
        let flows = if std::mem::take(&mut self.bursts) { left.min(PART) } else { SWEEP };
        self.connections.sweep(flows, now_ns);
        self.settle();
        self.fragments.sweep(now_ns);
        if self.neighbours.expire(now_ns) {
            self.resolve(now_ns);
        }
        self.ask(frames, now_ns);
        self.forgive(now_ns);
        for gone in self.servers.free_left() {
            self.targets_changed = true;
            self.history.note(now_ns, format!("{gone} has left"));
        }
        self.want_tables(false, now_ns);
        self.say_changes(now_ns);
        self.refresh(now_ns);
    }

    /// News of active checks.
    pub fn health(&mut self, news: &News, now_ns: u64) {
        let Some(server) = self.servers.get_mut(news.slot).filter(|server| server.id == news.id) else {
            return;
        };
        let checked = if news.good { Checked::Good } else { Checked::Bad };
        let comes_up = news.good && server.checked == Checked::Bad;
        server.checked = checked;
        if comes_up {
            server.up_since_ns = now_ns;
        }
        let what = format!("check of {}/{}: {}", server.service, server.backend.name, news.what);
        self.history.note(now_ns, what);
        self.tables.note_change();
        self.say_changes(now_ns);
    }

    /// Takes down connections that are over.
    #[cold]
    pub(crate) fn settle(&mut self) {
        for over in self.connections.take_over_list() {
            self.counts.over += 1;
            let Some(server) = self.servers.get_mut(over.flow.server) else { continue };
            server.open = server.open.saturating_sub(1);
            if let Some(service) = server.index.and_then(|index| self.services.get_mut(index)) {
                service.open = service.open.saturating_sub(1);
            }
            let source = ends(&over.key).map(|(source, _)| source);
            if over.flow.carry == Carry::Nat && source != Some(over.flow.source) {
                let protocol = over.key.protocol().unwrap_or(0);
                let scope = Scope { source: over.flow.source.ip, backend: over.flow.destination, protocol };
                self.source_ports.give_back(scope, over.flow.source.port);
            }
        }
    }

    /// Those that passive checks took out are tried again; one more failure takes them out again.
    fn forgive(&mut self, now_ns: u64) {
        for (_, server) in self.servers.iter_mut() {
            if server.shunned_until_ns.take_if(|until| *until <= now_ns).is_some() {
                let passive = server.passive;
                let but_one = |most: Option<u32>| most.unwrap_or(1).saturating_sub(1);
                server.refused_in_a_row = but_one(passive.map(|p| p.resets));
                server.silent_in_a_row = but_one(passive.map(|p| p.silence));
                server.up_since_ns = now_ns;
                self.tables.note_change();
            }
        }
    }

    /// Notes who is in another state than when it was last told.
    pub(crate) fn say_changes(&mut self, now_ns: u64) {
        for (_, server) in self.servers.iter_mut() {
            let word = server.word();
            if word != server.said {
                let first = server.said.is_empty();
                server.said = word;
                if !first || word != "up" {
                    let what = format!("{}/{} is {word}", server.service, server.backend.name);
                    self.history.note(now_ns, what);
                }
            }
        }
    }

    /// Gives servers the Ethernet addresses that are known.
    pub(crate) fn resolve(&mut self, now_ns: u64) {
        for (_, server) in self.servers.iter_mut() {
            if server.needs_mac && server.backend.mac.is_none() {
                let mac = self.neighbours.mac(server.backend.neighbour());
                let changed = mac.is_some() != server.mac.is_some();
                server.mac = mac;
                if changed {
                    self.tables.note_change();
                }
            }
        }
        self.say_changes(now_ns);
    }

    /// Asks for Ethernet addresses.
    fn ask<F: Frames>(&mut self, frames: &mut F, now_ns: u64) {
        let Some(own_mac) = self.gear.mac else { return };
        for _ in 0..QUESTIONS {
            let Some((ip, _)) = self.neighbours.due(now_ns) else { return };
            let own = self.config.own_address(ip);
            let Some(asked) = own.and_then(|own| question(ip, own, own_mac)) else { continue };
            let Some(mut frame) = frames.make(asked.len()) else { return };
            frame.bytes_mut().copy_from_slice(&asked);
            frame.set_hash(Headers::parse(&asked).flow_hash(&asked));
            frame.set_verdict(self.gear.to_backends.map_or(Verdict::Next, Verdict::Out));
        }
    }

    /// Asks for the tables of services whose backends have changed; without `all` only of those whose weights change by
    /// themselves.
    pub(crate) fn want_tables(&mut self, all: bool, now_ns: u64) {
        for index in 0..self.services.len() {
            let service = &mut self.services[index];
            if !all && service.config.slow_start.is_none() {
                continue;
            }
            let members = Running::shares_of(&service.config, &service.members, &self.servers, now_ns);
            let lives = |slot: &u32| self.servers.get(*slot).is_some_and(|server| server.has_part());
            let available: Vec<bool> = service.members.iter().map(lives).collect();
            if service.wanted.0 == members && service.wanted.1 == available {
                continue;
            }
            let right = service.shares == members && service.base.entries().next().is_some();
            let base = right.then(|| service.base.clone());
            service.wanted = (members.clone(), available.clone());
            let (number, size) = (self.tables.next_number(), service.config.table_size);
            service.asked = number;
            let order = Order { number, members, available, size, base };
            if let Some(made) = self.tables.order(order) {
                self.install(made);
            }
        }
    }

    /// A table has come.
    fn install(&mut self, made: Made) {
        if let Some(service) = self.services.iter_mut().find(|service| service.asked == made.number) {
            service.shares = made.members;
            service.base = made.base;
            service.table = made.table;
        }
    }
}
