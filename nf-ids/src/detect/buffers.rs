//! Which rules a transaction can match, by what is in its buffers.

use std::collections::HashMap;

use super::compile::{Compiled, choose};
use super::groups::Prefilter;
use super::transform;
use crate::app::{Buffer, Protocol};
use crate::flow::Direction;
use crate::rules::{Place, Transform};

/// The rules whose fast pattern is in one buffer, as it is or transformed.
#[derive(Debug)]
pub(crate) struct BufferTable {
    pub(crate) buffer: Buffer,
    pub(crate) transforms: Vec<transform::Step>,
    pub(crate) prefilter: Prefilter,
}

/// By direction: tables of buffers, and rules without a fast pattern.
#[derive(Debug, Default)]
pub(crate) struct BufferTables {
    tables: [Vec<BufferTable>; 2],
    /// For each protocol, which of the tables are of it.
    by_protocol: [HashMap<Protocol, Vec<u16>>; 2],
    always: [HashMap<Protocol, Vec<u32>>; 2],
}

/// The protocols that a rule of transactions can be about.
fn protocols(rule: &Compiled) -> Vec<Protocol> {
    let mut all: Vec<Protocol> = Vec::new();
    if rule.applications.is_empty() {
        for section in &rule.sections {
            if let Place::App(buffer) = section.place {
                all.extend(buffer.protocols());
            }
        }
        for test in &rule.rule.transaction {
            use crate::app::Number;
            use crate::rules::TransactionTest as T;
            match test {
                T::Number(number, _) | T::Several(number, _) => all.extend(number.protocols()),
                T::Versions(..) => all.extend(Number::TlsVersion.protocols()),
                T::FtpBounce => all.push(Protocol::Ftp),
                T::CertificateValid(_) => all.extend(Number::TlsCertNotAfter.protocols()),
                T::Event(event) => {
                    let name = event.name().split('.').next().unwrap_or_default();
                    all.extend(Protocol::by_rule_name(name));
                }
            }
        }
    } else {
        all.extend(rule.applications);
    }
    all.sort_unstable();
    all.dedup();
    all
}

impl BufferTables {
    pub(crate) fn new(rules: &[Compiled]) -> Self {
        let mut result = BufferTables::default();
        for direction in [Direction::ToServer, Direction::ToClient] {
            result.direction(rules, direction);
        }
        result
    }

    fn direction(&mut self, rules: &[Compiled], direction: Direction) {
        let way = direction.index();
        type Key = (Buffer, String);
        type Patterns = (Vec<Transform>, Vec<(u32, Vec<u8>, bool)>);
        let mut places: HashMap<Key, Patterns> = HashMap::new();
        for (index, rule) in rules.iter().enumerate().filter(|(_, r)| r.is_of_transactions()) {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let ways = rule.rule.ways;
            if !(if way == 0 { ways.to_server } else { ways.to_client }) {
                continue;
            }
            let fast = choose(&rule.rule);
            let section = fast.as_ref().map(|f| &rule.rule.sections[f.section]);
            match (fast.as_ref(), section.map(|s| (s, s.place))) {
                (Some(fast), Some((section, Place::App(buffer)))) => {
                    if !buffer.is_in(direction) {
                        continue;
                    }
                    let key = (buffer, format!("{:?}", section.transforms));
                    let entry = places.entry(key).or_insert_with(|| (section.transforms.clone(), Vec::new()));
                    entry.1.push((index, fast.bytes.clone(), fast.nocase));
                }
                _ => {
                    for protocol in protocols(rule) {
                        self.always[way].entry(protocol).or_default().push(index);
                    }
                }
            }
        }
        let mut places: Vec<_> = places.into_iter().collect();
        places.sort_by(|a, b| a.0.cmp(&b.0));
        for ((buffer, _), (transforms, patterns)) in places {
            let steps: Vec<_> = transforms.iter().filter_map(|t| transform::Step::new(t).ok()).collect();
            let borrowed = patterns.iter().map(|(rule, bytes, nocase)| (*rule, bytes.as_slice(), *nocase));
            let number = u16::try_from(self.tables[way].len()).unwrap_or(u16::MAX);
            for protocol in buffer.protocols() {
                self.by_protocol[way].entry(*protocol).or_default().push(number);
            }
            let table = BufferTable { buffer, transforms: steps, prefilter: Prefilter::new(borrowed) };
            self.tables[way].push(table);
        }
    }

    /// The tables of a protocol, with their numbers.
    pub(crate) fn of(
        &self,
        protocol: Protocol,
        direction: Direction,
    ) -> impl Iterator<Item = (u16, &BufferTable)> {
        let way = direction.index();
        let numbers = self.by_protocol[way].get(&protocol).map(Vec::as_slice).unwrap_or_default();
        numbers.iter().map(move |n| (*n, &self.tables[way][usize::from(*n)]))
    }

    /// Rules of a protocol that are asked of each transaction.
    pub(crate) fn always(&self, protocol: Protocol, direction: Direction) -> &[u32] {
        self.always[direction.index()].get(&protocol).map(Vec::as_slice).unwrap_or_default()
    }

    pub(crate) fn memory(&self) -> usize {
        self.tables.iter().flatten().map(|t| t.prefilter.memory()).sum()
    }
}
