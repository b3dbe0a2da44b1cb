//! Rules of packets and of streams.

use super::compile::Compiled;
use super::detector::Detector;
use super::gate;
use super::groups::Prefilter;
use super::headers::{self, direction};
use super::state::FlowState;
use super::tables::Tables;
use super::transform::apply;
use crate::engine::Inspection;
use crate::rules::{Place, Protocol};
use crate::stream::Window;

/// Rules that are remembered for a direction's window; with more, windows are searched as wholes.
const MOST_PENDING: usize = 256;

impl Detector {
    /// Asks the rules that a packet of its protocol, direction and port can match.
    pub(super) fn packet(
        &mut self,
        tables: &Tables,
        seen: &Inspection<'_>,
        mut flow: Option<&mut FlowState>,
    ) {
        let group = tables.groups.of(seen.packet, direction(seen));
        let mut candidates = std::mem::take(&mut self.room.candidates);
        candidates.clear();
        candidates.extend_from_slice(&group.always);
        let payload = if seen.packet.pseudo { &[][..] } else { seen.packet.payload };
        // In line, what a packet brings is in the window with it: one search does for both.
        let within = seen.window.as_ref().is_some_and(|window| holds_new(window, payload));
        if !within {
            group.packet.search(payload, &mut self.room.found, &mut candidates);
        }
        if seen.payload_counts() {
            group.stream.search(payload, &mut self.room.found, &mut candidates);
        }
        if let Some(window) = &seen.window {
            let pending = flow.as_deref_mut().map(|flow| &mut flow.pending[direction(seen).index()]);
            let prefilter = group.both.as_ref().filter(|_| within).unwrap_or(&group.stream);
            self.window(prefilter, tables, window, pending, &mut candidates);
        }
        if candidates.len() > group.always.len() {
            candidates.sort_unstable();
            candidates.dedup();
        }
        for index in &candidates {
            self.ask(*index, tables, seen, flow.as_deref_mut());
        }
        self.room.candidates = candidates;
    }

    /// Searches what of a window is new, with what a pattern across the border needs, and adds the rules whose pattern lies
    /// in the rest: they were found before, and may match with what is new.
    fn window(
        &mut self,
        prefilter: &Prefilter,
        tables: &Tables,
        window: &Window<'_>,
        pending: Option<&mut Vec<(u32, u64)>>,
        candidates: &mut Vec<u32>,
    ) {
        let Some(pending) = pending else {
            prefilter.search(window.bytes, &mut self.room.found, candidates);
            return;
        };
        let full = pending.len() >= MOST_PENDING;
        let old = if full { 0 } else { window.old.min(window.bytes.len()) };
        let from = old.saturating_sub(prefilter.longest);
        let first = candidates.len();
        prefilter.search(&window.bytes[from..], &mut self.room.found, candidates);
        let end = window.offset + window.bytes.len() as u64;
        pending.retain(|(_, until)| !full && *until > window.offset);
        let found = candidates.len();
        candidates.extend(pending.iter().map(|(rule, _)| *rule));
        let of_stream = |rule: &&u32| tables.rules[**rule as usize].rule.of_stream;
        for rule in candidates[first..found].iter().filter(of_stream) {
            if pending.len() >= MOST_PENDING {
                break;
            }
            match pending.iter_mut().find(|(known, _)| known == rule) {
                Some(known) => known.1 = end,
                None => pending.push((*rule, end)),
            }
        }
    }

    fn ask(&mut self, index: u32, tables: &Tables, seen: &Inspection<'_>, flow: Option<&mut FlowState>) {
        let compiled = &tables.rules[index as usize];
        if seen.packet.pseudo && !is_for_pseudo(compiled) || !gate::lets_by(compiled, seen) {
            return;
        }
        if let Some(in_stream) = self.bytes(compiled, seen) {
            self.matched(index, compiled, seen, flow, None, in_stream);
        }
    }

    /// Whether the tests of bytes hold, and if so whether in the stream.
    pub(super) fn bytes(&mut self, compiled: &Compiled, seen: &Inspection<'_>) -> Option<bool> {
        if !compiled.payload {
            return self.sections(compiled, seen, None).then_some(false);
        }
        let rule = &compiled.rule;
        if rule.of_stream
            && let Some(window) = &seen.window
            && self.in_window(compiled, seen, window)
        {
            return Some(true);
        }
        let fallback = !(rule.flow.only_stream || rule.protocol == Protocol::TcpStream);
        let packet = rule.of_packet || !rule.of_stream || seen.payload_counts() && fallback;
        let there = packet && !seen.packet.pseudo && !seen.packet.payload.is_empty();
        (there && self.sections(compiled, seen, Some(seen.packet.payload))).then_some(false)
    }

    /// Whether a rule matches in the stream with something that was not there before.
    fn in_window(&mut self, compiled: &Compiled, seen: &Inspection<'_>, window: &Window<'_>) -> bool {
        if !self.sections(compiled, seen, Some(window.bytes)) {
            return false;
        }
        let finds = compiled.sections.iter().any(|s| s.place == Place::Payload && s.chain.finds);
        if !finds || self.room.work.farthest > window.old {
            return window.bytes.len() > window.old;
        }
        // What was found is old, but the same may be in what is new.
        self.sections(compiled, seen, window.bytes.get(window.old..))
    }

    /// Whether all sections hold, with these bytes as the payload.
    fn sections(&mut self, compiled: &Compiled, seen: &Inspection<'_>, payload: Option<&[u8]>) -> bool {
        let work = &mut self.room.work;
        work.begin(compiled.rule.variables);
        let mut farthest = 0;
        for section in &compiled.sections {
            work.farthest = 0;
            let held = match section.place {
                Place::Payload => payload.is_some_and(|bytes| {
                    let held = work.matches(&section.chain, &compiled.base64, bytes);
                    farthest = farthest.max(work.farthest);
                    held
                }),
                Place::Header(header) => headers::bytes(seen.packet, header).is_some_and(|bytes| {
                    let made = if section.transforms.is_empty() {
                        None
                    } else {
                        Some(apply(bytes, &section.transforms))
                    };
                    let bytes = match &made {
                        None => Some(bytes),
                        Some(made) => made.as_deref(),
                    };
                    bytes.is_some_and(|bytes| work.matches(&section.chain, &compiled.base64, bytes))
                }),
                Place::Base64 | Place::App(_) => true,
            };
            if !held {
                return false;
            }
        }
        work.farthest = farthest;
        true
    }
}

/// Whether what is new in a window begins with these bytes. What came late, was cut or overlaps other data does not.
fn holds_new(window: &Window<'_>, payload: &[u8]) -> bool {
    let new = window.bytes.get(window.old..).unwrap_or_default();
    !payload.is_empty() && new.starts_with(payload)
}

/// Whether a rule is asked of a packet that stands for the end of a flow: only what is of the stream.
fn is_for_pseudo(compiled: &Compiled) -> bool {
    compiled.payload && compiled.rule.of_stream
}
