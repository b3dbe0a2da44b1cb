//! The firewall at work: from a frame to its verdict.

use std::process::ExitCode;
use std::time::Duration;

use onvm_lib::prelude::*;
use onvm_lib::reload::{Reloader, Status, TOPIC};
use onvm_lib::wire::Headers;
use serde::{Deserialize, Serialize};

use crate::carried::{Carried, PART};
use crate::connections::{Connections, Key, Looked, Saved, Ticket, Timeouts};
use crate::counts::{Counts, Hits};
use crate::engine::buckets::Single;
use crate::engine::cache::Cache;
use crate::engine::{Changed, Compiled, DEFAULT, Engine};
use crate::fragments::{Decided, Fragments};
use crate::logging::{Line, Logging};
use crate::options::Options;
use crate::packet::{self, Kind, NO_PORT, Seen};
use crate::reject;
use crate::rules::load::load;
use crate::rules::rate::Limit;
use crate::rules::{Action, RejectWith, read_change};
use crate::tools;

/// Topic of the message that changes one rule.
const RULE: &str = "rule";
/// Answers to rejected packets a second: a sender that does not listen gets no more than that.
const ANSWERS: &str = "1000/s";

/// What is done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Allow,
    Service(u16),
    Reject(RejectWith),
    Drop(DropReason),
}

impl From<Action> for Outcome {
    fn from(action: Action) -> Self {
        match action {
            Action::Allow | Action::Continue | Action::Skip(_) => Self::Allow,
            Action::Service(id) => Self::Service(id),
            Action::Reject(with) => Self::Reject(with),
            Action::Deny => Self::Drop(DropReason::Denied),
        }
    }
}

/// Changes of single rules by messages.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Changes {
    pub(crate) made: u64,
    pub(crate) refused: u64,
    /// Why the last one was refused; none if it was made.
    pub(crate) last_error: Option<String>,
}

/// What is handed to a successor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    connections: Saved,
    counts: Counts,
    /// By name of the rule: the successor may have been started with other rules.
    hits: Vec<(String, Hits)>,
}

/// The network function.
#[derive(Debug)]
pub(crate) struct Firewall {
    pub(crate) engine: Engine,
    reloader: Reloader<Compiled>,
    /// By rule of the set in force.
    pub(crate) hits: Vec<Hits>,
    /// Counts of the set before it.
    carried: Option<Carried>,
    pub(crate) counts: Counts,
    pub(crate) fragments: Fragments,
    pub(crate) connections: Connections,
    /// Connections are tracked whatever the rules ask for.
    always_track: bool,
    /// They are tracked.
    pub(crate) tracking: bool,
    pub(crate) logging: Logging,
    pub(crate) generation: u64,
    pub(crate) changes: Changes,
    answers: Single,
    inner: bool,
    replay: bool,
    /// No packets wait for a report: they come from a capture, or come no more.
    pub(crate) at_leisure: bool,
    /// What the burst's packets are, and which connections they are of.
    seen: Vec<Seen>,
    keys: Vec<Option<Key>>,
}

impl Firewall {
    /// Decides on one packet.
    fn decide(&mut self, place: usize, frame: &[u8], bytes: usize, now_ns: u64) -> Outcome {
        let Some(mut seen) = self.seen.get(place).copied() else { return Outcome::Drop(DropReason::Denied) };
        let policy = |hits: &mut Hits, action: Action| {
            hits.add(bytes);
            action
        };
        let set = &self.engine.compiled.set;
        match seen.kind {
            Kind::NonIp => return policy(&mut self.counts.non_ip, set.non_ip).into(),
            Kind::Malformed => {
                return match policy(&mut self.counts.malformed, set.malformed) {
                    Action::Allow => Outcome::Allow,
                    _ => Outcome::Drop(DropReason::Malformed),
                };
            }
            Kind::LaterFragment(fragment) => {
                let header = &seen.facts.header;
                let Some(decided) = self.fragments.later(header, fragment.id, now_ns) else {
                    return policy(&mut self.counts.stray, set.stray_fragments).into();
                };
                if decided.generation == self.generation {
                    self.count(decided.rule, bytes);
                }
                return decided.action.into();
            }
            Kind::Ip | Kind::FirstFragment(_) => {}
        }
        let mut ticket = Ticket::Nothing;
        if self.tracking {
            let key = self.keys.get(place).copied().flatten();
            let (header, headers) = (&seen.facts.header, &seen.headers);
            let looked = self.connections.look(place, key, header, headers, frame, now_ns);
            let Looked { state, mark, ticket: given } = looked;
            (seen.facts.state, ticket) = (state, given);
            if self.engine.compiled.set.marks_connections() {
                seen.facts.mark = mark;
            }
        }
        let before = seen.facts.mark;
        let (rule, mut outcome) = self.by_rules(place, &mut seen, bytes, now_ns);
        if matches!(outcome, Outcome::Allow | Outcome::Service(_)) {
            let keeps = self.engine.compiled.set.marks_connections();
            let mark = Some(seen.facts.mark).filter(|mark| keeps && *mark != before);
            if !self.connections.allowed(ticket, mark, now_ns) {
                outcome = Outcome::Drop(DropReason::TableFull);
            }
        }
        self.fragments_follow(&seen, frame, rule, outcome, now_ns);
        outcome
    }

    /// Later fragments of the same datagram have the same outcome; in a tunnel those of the datagrams around it, too.
    fn fragments_follow(&mut self, seen: &Seen, frame: &[u8], rule: u32, outcome: Outcome, now_ns: u64) {
        let action = match outcome {
            Outcome::Drop(_) | Outcome::Reject(_) => Action::Deny,
            Outcome::Allow => Action::Allow,
            Outcome::Service(id) => Action::Service(id),
        };
        let decided = Decided { action, rule, generation: self.generation };
        if let Kind::FirstFragment(fragment) = seen.kind {
            self.fragments.first(&seen.facts.header, fragment.id, now_ns, decided);
        }
        if seen.tunnelled {
            for (header, id) in packet::carriers(frame) {
                self.fragments.first(&header, id, now_ns, decided);
            }
        }
    }

    /// What the rules say; the one that decided.
    fn by_rules(&mut self, place: usize, seen: &mut Seen, bytes: usize, now_ns: u64) -> (u32, Outcome) {
        let Self { engine, hits, logging, .. } = self;
        let facts = &mut seen.facts;
        let rule = engine.decide(place, facts, bytes, now_ns, |index, rule, facts| {
            if let Some(hits) = hits.get_mut(index as usize) {
                hits.add(bytes);
            }
            if let Some(mark) = rule.set_mark {
                facts.mark = facts.mark & !mark.mask | mark.value & mark.mask;
            }
            // What a limit may still drop is logged when that is known.
            if rule.log.is_some() && !rule.may_drop() {
                logging.matched(index, &Line { now_ns, rule, facts, bytes, limited: false });
            }
        });
        if rule == DEFAULT {
            self.counts.default.add(bytes);
            return (rule, engine.compiled.set.default.into());
        }
        let limited = !engine.pass_limit(rule, facts, bytes, now_ns);
        if let Some(by) = engine.compiled.rule(rule).filter(|by| by.log.is_some() && by.may_drop()) {
            logging.matched(rule, &Line { now_ns, rule: by, facts, bytes, limited });
        }
        if limited {
            if let Some(hits) = hits.get_mut(rule as usize) {
                hits.limited += 1;
            }
            return (rule, Outcome::Drop(DropReason::RateLimited));
        }
        (rule, engine.compiled.action(rule).into())
    }

    fn count(&mut self, rule: u32, bytes: usize) {
        match self.hits.get_mut(rule as usize) {
            Some(hits) => hits.add(bytes),
            None => self.counts.default.add(bytes),
        }
    }

    /// Makes the answer to a packet that is rejected.
    fn answer(&mut self, with: RejectWith, index: usize, burst: &mut Burst<'_, ReadWrite>, now_ns: u64) {
        let mut room = [0; reject::ROOM];
        let packet = burst.packet(index);
        let port = packet.port();
        // Without the port by which the packet came there is no way back: along the chain it would go on.
        let seen = self.seen.get(index).filter(|_| port.is_some());
        let made = seen.and_then(|seen| reject::answer(with, packet.bytes(), seen, &mut room));
        let sent = made.filter(|_| self.answers.take(now_ns)).is_some_and(|length| {
            let Some(mut reply) = burst.make(length) else { return false };
            reply.bytes_mut().copy_from_slice(&room[..length]);
            let hash = Headers::parse(&room[..length]).flow_hash(&room[..length]);
            reply.set_hash(hash);
            if let Some(port) = port {
                reply.set_verdict(Verdict::Out(port));
            }
            true
        });
        if sent {
            self.counts.answers += 1;
        } else {
            self.counts.unanswered += 1;
        }
    }

    /// Puts a new set in force if there is one. Rules keep their counts by name.
    fn reload(&mut self) {
        let Some(fresh) = self.reloader.take() else { return self.carry(PART) };
        self.carry(usize::MAX);
        let old = self.engine.replace(fresh);
        let compiled = &self.engine.compiled;
        let hits = std::mem::replace(&mut self.hits, vec![Hits::default(); compiled.set.rules.len()]);
        self.logging.set_rules(&compiled.set.rules, &compiled.loaded.logged);
        self.generation += 1;
        self.tracking = self.always_track || compiled.loaded.asks_for_states;
        log::info!("{} rules are in force", compiled.set.rules.len());
        self.carried = Some(Carried::new(old, hits));
        self.carry(if self.replay { usize::MAX } else { PART });
    }

    /// Carries counts of the set before over, of so many rules.
    #[inline]
    fn carry(&mut self, rules: usize) {
        if let Some(carried) = &mut self.carried
            && carried.carry(rules, &self.engine.compiled, &mut self.hits)
            && let Some(done) = self.carried.take()
        {
            self.reloader.retire(done.into_set());
        }
    }

    /// Changes one rule as a message says. What it does holds until the file is read again.
    fn change(&mut self, body: &str) -> Result<(), String> {
        // Counts are carried by the places of the set as it was read.
        self.carry(usize::MAX);
        let (change, schedules) = read_change(body, &self.engine.compiled.set)?;
        let Changed { at, removed, inserted } = self.engine.change(change, schedules)?;
        let mut hits = Hits::default();
        if removed {
            let old = self.hits.remove(at);
            self.logging.removed(at);
            if inserted {
                hits = old;
            }
        }
        if inserted && let Some(rule) = self.engine.compiled.set.rules.get(at) {
            self.hits.insert(at, hits);
            self.logging.inserted(at, rule);
            self.tracking |= self.engine.compiled.set.asks_of(&rule.matches);
        }
        // What was decided on first fragments is no longer by these indices.
        self.generation += 1;
        self.changes.made += 1;
        self.changes.last_error = None;
        Ok(())
    }

    pub(crate) fn reloaded(&self) -> Status {
        self.reloader.status()
    }

    /// Decides on the packets of a burst; what they are is in `seen`.
    fn verdicts(&mut self, burst: &mut Burst<'_, ReadWrite>) {
        let turn_ns = burst.now_ns();
        for index in 0..burst.len() {
            let packet = burst.packet(index);
            // Files without times have 0; the replay's clock then stands still.
            let (bytes, now_ns) = if self.replay {
                let at_ns = Some(packet.timestamp_ns()).filter(|t| *t > 0).unwrap_or(turn_ns);
                (packet.wire_length(), at_ns)
            } else {
                (packet.bytes().len(), turn_ns)
            };
            self.engine.at(now_ns);
            let outcome = self.decide(index, packet.bytes(), bytes, now_ns);
            match outcome {
                Outcome::Allow => self.counts.allowed += 1,
                Outcome::Service(id) => {
                    self.counts.allowed += 1;
                    burst.packet(index).set_verdict(Verdict::ToService(id));
                }
                Outcome::Reject(with) => {
                    self.counts.rejected += 1;
                    self.answer(with, index, burst, now_ns);
                    burst.packet(index).set_verdict(Verdict::Drop(DropReason::Denied));
                }
                Outcome::Drop(reason) => {
                    self.counts.denied += 1;
                    burst.packet(index).set_verdict(Verdict::Drop(reason));
                }
            }
        }
    }
}

impl NetworkFunction for Firewall {
    type Options = Options;
    type Access = ReadWrite;
    type State = State;
    const NAME: &'static str = "nf-firewall";
    const ABOUT: &'static str = "Allows, denies, rejects, limits and counts packets by ordered rules";
    /// Resets and ICMP errors.
    const EMITS: bool = true;
    const STATE_VERSION: u32 = 1;
    const TICK: Duration = Duration::from_millis(100);
    const ALONE: &'static [&'static str] = tools::TOOLS;

    fn alone(options: &Options, json: bool) -> Option<ExitCode> {
        tools::run(options, json)
    }

    fn setup(options: &Options, setup: &Setup) -> Result<Self, SetupError> {
        let reading = options.reading();
        let strict = options.strict;
        // The set of the file as it was read last: the next one mostly differs in a few rules.
        let mut last: Option<Compiled> = None;
        let compile = move |path: &std::path::Path| {
            let loaded = load(path, &reading)?;
            if strict && !loaded.warnings.is_empty() {
                return Err(loaded.warnings.join("\n"));
            }
            loaded.warnings.iter().for_each(|warning| log::warn!("{warning}"));
            let compiled = match last.take() {
                Some(before) => before.followed_by(loaded.set),
                None => Compiled::new(loaded.set),
            };
            last = Some(compiled.clone());
            Ok(compiled)
        };
        let paths = std::slice::from_ref(&options.rules);
        let (compiled, reloader) = Reloader::start(paths, options.watch, compile)?;
        let mut logging = Logging::new(options.log_file.as_deref(), setup.replay)?;
        logging.set_rules(&compiled.set.rules, &compiled.loaded.logged);
        let limit = ANSWERS.parse().map(Limit::of)?;
        let timeouts = Timeouts::new(options.tcp_timeout);
        let connections = Connections::new(options.connections as usize, !options.no_pick_up, timeouts);
        Ok(Self {
            tracking: options.track || compiled.loaded.asks_for_states,
            always_track: options.track,
            connections,
            hits: vec![Hits::default(); compiled.set.rules.len()],
            carried: None,
            engine: Engine::new(compiled, Cache::new(options.cache as usize)),
            reloader,
            counts: Counts::default(),
            fragments: Fragments::new(),
            logging,
            generation: 1,
            changes: Changes::default(),
            answers: Single::new(limit),
            inner: options.inner,
            replay: setup.replay,
            at_leisure: setup.replay,
            seen: Vec::with_capacity(MAX_BURST),
            keys: Vec::with_capacity(MAX_BURST),
        })
    }

    fn burst(&mut self, burst: &mut Burst<'_, ReadWrite>) {
        self.reload();
        self.seen.clear();
        for packet in burst.packets() {
            let port = packet.port().unwrap_or(NO_PORT);
            self.seen.push(Seen::of(packet.bytes(), port, self.inner));
        }
        if self.tracking {
            self.keys.clear();
            for (seen, packet) in self.seen.iter().zip(burst.packets()) {
                let whole = matches!(seen.kind, Kind::Ip | Kind::FirstFragment(_));
                let key = Key::of(&seen.facts.header, &seen.headers, packet.bytes());
                self.keys.push(key.filter(|_| whole));
            }
            self.connections.fetch(&self.keys);
        }
        let asked =
            |seen: &Seen| matches!(seen.kind, Kind::Ip | Kind::FirstFragment(_)).then_some(seen.facts);
        self.engine.foresee(self.seen.iter().map(asked));
        self.verdicts(burst);
        if self.tracking && !self.replay {
            self.connections.step(burst.now_ns());
        }
    }

    fn tick(&mut self, burst: &mut Burst<'_, ReadWrite>) {
        self.reload();
        match (self.tracking, self.replay) {
            (true, true) => self.connections.sweep(burst.now_ns()),
            (true, false) => self.connections.tick_live(burst.now_ns()),
            (false, _) => {}
        }
    }

    fn hand_over(&mut self) -> Option<State> {
        self.carry(usize::MAX);
        let names = self.engine.compiled.set.rules.iter().map(|rule| rule.name.clone());
        Some(State {
            connections: Saved::of(&self.connections),
            counts: self.counts,
            hits: names.zip(self.hits.iter().copied()).collect(),
        })
    }

    fn take_over(&mut self, state: State) -> Result<(), String> {
        let State { connections, counts, hits } = state;
        let number = connections.len();
        connections.restore(&mut self.connections)?;
        self.counts = counts;
        let known: std::collections::HashMap<String, Hits> = hits.into_iter().collect();
        for (rule, hits) in self.engine.compiled.set.rules.iter().zip(&mut self.hits) {
            *hits = known.get(&rule.name).copied().unwrap_or_default();
        }
        log::info!("goes on with {number} connections of the one before");
        Ok(())
    }

    fn message(&mut self, message: &Message) {
        match message.topic.as_str() {
            TOPIC => self.reloader.request(),
            RULE => {
                if let Err(reason) = self.change(&message.body.to_string()) {
                    log::error!("no rule was changed: {reason}");
                    self.changes.refused += 1;
                    self.changes.last_error = Some(reason);
                }
            }
            other => {
                log::warn!(
                    "a message about {other:?} says nothing to a firewall; it knows {TOPIC:?}, {RULE:?}"
                );
            }
        }
    }

    fn report(&self) -> Report {
        crate::report::of(self)
    }

    fn teardown(&mut self, _burst: &mut Burst<'_, ReadWrite>) {
        self.carry(usize::MAX);
        self.at_leisure = true;
        self.logging.close();
    }
}
