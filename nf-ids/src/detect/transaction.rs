//! Rules of transactions.
//!
//! A transaction grows while its flow goes on. Each buffer is searched by the prefilter when it is there, once it is
//! whole for the last time; a rule whose fast pattern is found waits with the transaction, and the sections
//! that have matched are kept as bits, until all have or one no longer can. So a rule alerts once for each
//! transaction and direction, on the packet that completed it.

use super::buffers::BufferTable;
use super::compile::{Asked, Compiled};
use super::detector::Detector;
use super::gate;
use super::headers::direction;
use super::state::{FlowState, MOST_RULES, Seen};
use super::tables::Tables;
use super::transform;
use crate::app::{self, Buffer, Number, Progress};
use crate::engine::Inspection;
use crate::flow::Direction;
use crate::rules::{Absence, Place, TransactionTest};

/// Instances of a buffer that are looked at.
const MOST_INSTANCES: usize = 1024;

/// What is known of a part of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Holds,
    /// It does not, and cannot any more.
    Fails,
    /// It may yet.
    Open,
}

/// Where a rule is asked.
#[derive(Clone, Copy, Debug)]
struct At<'a> {
    app: &'a app::State,
    id: u64,
    direction: Direction,
    progress: Progress,
}

impl Detector {
    /// Asks the rules about all live transactions, in the packet's direction.
    pub(super) fn transactions(&mut self, tables: &Tables, seen: &Inspection<'_>, flow: &mut FlowState) {
        let Some(app) = seen.app else { return };
        let way = direction(seen);
        let elsewhere = |id: &u64| app.only(*id).is_some_and(|only| only != way);
        for id in app.transactions().filter(|id| !elsewhere(id)) {
            let known = flow.transaction(id);
            if known.ways[way.index()].finished {
                continue;
            }
            let at = At { app, id, direction: way, progress: app.progress(id, way) };
            let mut state = std::mem::take(&mut known.ways[way.index()]);
            let mut both = std::mem::take(&mut known.both);
            self.find(tables, &at, &mut state, &mut both);
            // Unless something has come, the answers are those of the last time.
            let bytes = state.partly.iter().map(|(_, length)| *length).sum();
            let now = Some((at.progress, bytes, state.waiting.len() + both.len()));
            let raw = seen.window.is_some() || seen.payload_counts() && !seen.packet.payload.is_empty();
            if !raw && state.asked_at == now {
                let known = flow.transaction(id);
                known.ways[way.index()] = state;
                known.both = both;
                continue;
            }
            state.asked_at = now;
            self.settle(tables, &at, seen, flow, &mut state.waiting, &mut state.done);
            self.settle_both(tables, &at, seen, flow, &mut both, &mut state.done);
            if at.progress == Progress::Complete {
                state = Seen { finished: true, ..Seen::default() };
            }
            let known = flow.transaction(id);
            known.ways[way.index()] = state;
            known.both = both;
        }
        flow.forget_below(app.transactions().next().unwrap_or(0));
    }

    /// Adds the rules that the buffers which are there can match.
    fn find(&mut self, tables: &Tables, at: &At<'_>, state: &mut Seen, both: &mut Vec<(u32, u64)>) {
        let protocol = at.app.protocol_of(at.id);
        let mut found = std::mem::take(&mut self.room.candidates);
        found.clear();
        if !std::mem::replace(&mut state.begun, true) {
            found.extend_from_slice(tables.buffers.always(protocol, at.direction));
        }
        for (number, table) in tables.buffers.of(protocol, at.direction) {
            if state.searched.contains(&(table.buffer, number)) {
                continue;
            }
            let whole = table.buffer.complete_at(at.direction).is_some_and(|step| at.progress >= step);
            self.search_new(table, number, at, whole, &mut state.partly, &mut found);
            if whole {
                state.searched.push((table.buffer, number));
            }
        }
        found.sort_unstable();
        found.dedup();
        for rule in &found {
            let list =
                if tables.rules[*rule as usize].is_of_both_ways() { &mut *both } else { &mut state.waiting };
            if list.len() >= MOST_RULES || state.done.binary_search(rule).is_ok() {
                continue;
            }
            if let Err(place) = list.binary_search_by_key(rule, |(r, _)| *r) {
                list.insert(place, (*rule, 0));
            }
        }
        self.room.candidates = found;
    }

    /// Searches a buffer that may grow: what was not there before, with what a pattern across the border needs.
    fn search_new(
        &mut self,
        table: &BufferTable,
        number: u16,
        at: &At<'_>,
        whole: bool,
        partly: &mut Vec<(u16, usize)>,
        found: &mut Vec<u32>,
    ) {
        let length: usize = instances(at, table.buffer).map(<[u8]>::len).sum();
        let known = partly.iter().position(|(n, _)| *n == number);
        let before = known.map_or(0, |place| partly[place].1);
        if before > 0 && length == before {
            return;
        }
        let several = instances(at, table.buffer).nth(1).is_some();
        if before > 0 && !several && table.transforms.is_empty() {
            let bytes = instances(at, table.buffer).next().unwrap_or_default();
            let from = before.saturating_sub(table.prefilter.longest).min(bytes.len());
            table.prefilter.search(&bytes[from..], &mut self.room.found, found);
        } else {
            self.search(table, at, found);
        }
        match known {
            Some(place) => partly[place].1 = length,
            None if !whole => partly.push((number, length)),
            None => {}
        }
    }

    fn search(&mut self, table: &BufferTable, at: &At<'_>, found: &mut Vec<u32>) {
        for bytes in instances(at, table.buffer) {
            if table.transforms.is_empty() {
                table.prefilter.search(bytes, &mut self.room.found, found);
            } else if let Some(made) = transform::apply(bytes, &table.transforms) {
                table.prefilter.search(&made, &mut self.room.found, found);
            }
        }
    }

    /// Asks the rules that wait; those that match or cannot match go from `waiting` to `done`.
    fn settle(
        &mut self,
        tables: &Tables,
        at: &At<'_>,
        seen: &Inspection<'_>,
        flow: &mut FlowState,
        waiting: &mut Vec<(u32, u64)>,
        done: &mut Vec<u32>,
    ) {
        waiting.retain_mut(|(index, mask)| {
            let compiled = &tables.rules[*index as usize];
            // What changes sets is only done where the header is the rule's.
            let asked = !compiled.fills || gate::lets_by(compiled, seen);
            let answer = if asked { self.rule(compiled, at, seen, mask, false) } else { Answer::Open };
            let settled = match answer {
                Answer::Open => false,
                Answer::Fails => true,
                Answer::Holds => {
                    // What only the packet decides may be otherwise with the next.
                    gate::lets_by(compiled, seen)
                        && self.matched(*index, compiled, seen, Some(&mut *flow), Some(at.id), false)
                        || at.progress == Progress::Complete
                }
            };
            if settled && let Err(place) = done.binary_search(index) {
                done.insert(place, *index);
            }
            !settled
        });
    }

    /// The same for rules of both directions: what one direction has matched is kept for the other.
    fn settle_both(
        &mut self,
        tables: &Tables,
        at: &At<'_>,
        seen: &Inspection<'_>,
        flow: &mut FlowState,
        both: &mut Vec<(u32, u64)>,
        done: &mut Vec<u32>,
    ) {
        both.retain_mut(|(index, mask)| {
            let compiled = &tables.rules[*index as usize];
            match self.rule(compiled, at, seen, mask, true) {
                Answer::Holds if gate::lets_by(compiled, seen) => {
                    self.matched(*index, compiled, seen, Some(&mut *flow), Some(at.id), false);
                    done.push(*index);
                    done.sort_unstable();
                    false
                }
                Answer::Fails => {
                    done.push(*index);
                    done.sort_unstable();
                    false
                }
                _ => true,
            }
        });
    }

    /// What is known of a rule in a transaction. Parts that hold are noted in `mask`.
    fn rule(
        &mut self,
        compiled: &Compiled,
        at: &At<'_>,
        seen: &Inspection<'_>,
        mask: &mut u64,
        both: bool,
    ) -> Answer {
        if compiled.anew && !compiled.fills {
            // What is found does not outlive an evaluation, so that all is asked anew.
            *mask = 0;
        }
        self.room.work.begin(compiled.rule.variables);
        let mut answer = Answer::Holds;
        for (number, section) in compiled.sections.iter().enumerate() {
            let bit = 1u64 << number.min(63);
            if *mask & bit != 0 {
                continue;
            }
            let of_other = both && !is_here(section, at.direction);
            let part = if of_other { Answer::Open } else { self.section(compiled, section, at, seen) };
            match part {
                Answer::Holds => *mask |= bit,
                Answer::Fails => return Answer::Fails,
                Answer::Open => answer = Answer::Open,
            }
        }
        for test in &compiled.rule.transaction {
            match number(test, at, seen) {
                Answer::Holds => {}
                Answer::Fails => return Answer::Fails,
                Answer::Open => answer = Answer::Open,
            }
        }
        answer
    }

    fn section(
        &mut self,
        compiled: &Compiled,
        section: &Asked,
        at: &At<'_>,
        seen: &Inspection<'_>,
    ) -> Answer {
        match section.place {
            Place::App(buffer) => self.buffer(compiled, section, buffer, at),
            Place::Payload => {
                let held = self.payload(compiled, section, seen);
                if held { Answer::Holds } else { open_until_complete(at) }
            }
            Place::Header(header) => {
                let bytes = super::headers::bytes(seen.packet, header);
                let work = &mut self.room.work;
                let held = bytes.is_some_and(|b| work.matches(&section.chain, &compiled.base64, b));
                if held { Answer::Holds } else { open_until_complete(at) }
            }
            Place::Base64 => Answer::Holds,
        }
    }

    /// Raw content of a rule of transactions: in the packet or in the stream.
    fn payload(&mut self, compiled: &Compiled, section: &Asked, seen: &Inspection<'_>) -> bool {
        let work = &mut self.room.work;
        let in_window = seen
            .window
            .as_ref()
            .is_some_and(|window| work.matches(&section.chain, &compiled.base64, window.bytes));
        if in_window {
            return true;
        }
        let counts = !seen.packet.pseudo && (seen.payload_counts() || compiled.rule.of_packet);
        counts
            && !seen.packet.payload.is_empty()
            && work.matches(&section.chain, &compiled.base64, seen.packet.payload)
    }

    fn buffer(&mut self, compiled: &Compiled, section: &Asked, buffer: Buffer, at: &At<'_>) -> Answer {
        let Some(step) = buffer.complete_at(at.direction) else { return Answer::Fails };
        let whole = at.progress >= step;
        let absence = section.chain.absence();
        let mut any = false;
        for (index, bytes) in instances(at, buffer).enumerate() {
            any = true;
            if buffer == Buffer::FileData {
                self.room.work.file.whole = at.app.has_whole_file(at.id, at.direction, index);
            }
            if absence == Some(Absence::Only) {
                return Answer::Fails;
            }
            let work = &mut self.room.work;
            let held = if section.transforms.is_empty() {
                work.matches(&section.chain, &compiled.base64, bytes)
            } else {
                match transform::apply(bytes, &section.transforms) {
                    Some(made) => work.matches(&section.chain, &compiled.base64, &made),
                    // What may yet grow may yet be whole.
                    None => whole && matches!(absence, Some(Absence::MustError | Absence::ErrorOr)),
                }
            };
            if held {
                return Answer::Holds;
            }
        }
        if !whole {
            return Answer::Open;
        }
        let absent = !any && matches!(absence, Some(Absence::Only | Absence::OrElse));
        if absent { Answer::Holds } else { Answer::Fails }
    }
}

/// Whether a section of a rule of both directions is looked for in this one. A buffer that both have is the
/// request's unless the rule says otherwise.
fn is_here(section: &Asked, direction: Direction) -> bool {
    match (section.way, section.place) {
        (Some(way), _) => gate::is_way(way, direction),
        (None, Place::App(buffer)) if buffer.is_in(Direction::ToServer) => direction == Direction::ToServer,
        (None, Place::App(_)) => direction == Direction::ToClient,
        (None, _) => true,
    }
}

fn open_until_complete(at: &At<'_>) -> Answer {
    if at.progress == Progress::Complete { Answer::Fails } else { Answer::Open }
}

/// The instances of a buffer that are there.
fn instances<'a>(at: &At<'a>, buffer: Buffer) -> impl Iterator<Item = &'a [u8]> {
    let most = if buffer.is_multiple() { MOST_INSTANCES } else { 1 };
    let At { app, id, direction, .. } = *at;
    (0..most).map_while(move |index| app.buffer(id, buffer, direction, index))
}

/// The values of a number.
fn values<'a>(at: &At<'a>, number: Number) -> impl Iterator<Item = u64> + use<'a> {
    let At { app, id, direction, .. } = *at;
    (0..MOST_INSTANCES).map_while(move |index| app.number(id, number, direction, index))
}

/// Whether a `PORT` names another host than the one that sends it.
fn bounces(at: &At<'_>, seen: &Inspection<'_>) -> bool {
    let is_port = instances(at, Buffer::FtpCommand).any(|word| word.eq_ignore_ascii_case(b"PORT"));
    let named = instances(at, Buffer::FtpCommandData).next().and_then(app::named_host);
    is_port && named.is_some_and(|host| seen.packet.source != std::net::IpAddr::from(host))
}

/// A version, where drafts of TLS 1.3 (`0x7f12`) are it.
fn version(number: u64) -> u64 {
    if number >> 8 == 0x7f { 0x0304 } else { number }
}

fn number(test: &TransactionTest, at: &At<'_>, seen: &Inspection<'_>) -> Answer {
    let held = match test {
        TransactionTest::Number(number, compare) => values(at, *number).any(|value| compare.holds(value)),
        TransactionTest::Several(number, several) => {
            at.progress == Progress::Complete && several.holds(&values(at, *number).collect::<Vec<_>>())
        }
        TransactionTest::Versions(with, without) => values(at, Number::TlsVersion)
            .map(version)
            .any(|v| (with.is_empty() || with.contains(&v)) && !without.contains(&v)),
        TransactionTest::CertificateValid(valid) => {
            let now = seen.now_ns / 1_000_000_000;
            let begin = values(at, Number::TlsCertNotBefore).next();
            let end = values(at, Number::TlsCertNotAfter).next();
            match (begin, end) {
                (Some(begin), Some(end)) if *valid => begin <= now && now <= end,
                (_, Some(end)) if !*valid => end < now,
                _ => false,
            }
        }
        TransactionTest::FtpBounce => bounces(at, seen),
        TransactionTest::Event(event) => at.app.events_in(at.id, at.direction).contains(event),
    };
    if held { Answer::Holds } else { open_until_complete(at) }
}
