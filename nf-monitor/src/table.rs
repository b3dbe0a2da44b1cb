//! Flows that go on, and the end of each.
//!
//! A flow ends when it has been silent for its timeout (found by a sweep or by its next packet), when it has lasted
//! for the active timeout, when a connection begins anew between the same ports, or when it makes room for another.
//! Whoever wants records of flows gets each that ended exactly once, in [`Table::finished`].

use std::sync::Arc;

use onvm_lib::flow_table::{FlowTable, Inserted};
use onvm_lib::wire::{FlowKey, Headers};
use serde::{Deserialize, Serialize};

use crate::application::Finding;
use crate::ended::Ended;
use crate::flow::{Flow, Keyed, Origin, Seen, State};
use crate::heavy::Spreaders;
use crate::keys::Keys;
use crate::settings::Settings;
use crate::survey::{Past, Survey};
use crate::timeouts::Timeouts;

/// Flows looked at in a search for silent ones, from one tick to the next.
pub(crate) const SWEEP: usize = 8192;
/// Flows from which on a burst fetches its flows before it counts them.
const MANY: usize = 16_384;

/// What became of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FlowCounts {
    /// Begun, those refused not included.
    pub(crate) seen: u64,
    /// Of these, flows of IP.
    pub(crate) ip: u64,
    /// Silent for the timeout, or ended and begun anew, or cut by the active timeout.
    pub(crate) expired: u64,
    /// Of these, cut by the active timeout.
    pub(crate) cut: u64,
    /// Made room for another before that.
    pub(crate) evicted: u64,
    /// Packets whose flow found no room at all.
    pub(crate) refused: u64,
}

/// Why a flow ended, by the numbers of IPFIX's flowEndReason (RFC 5102, 5.11.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reason {
    Idle = 1,
    Active = 2,
    /// The connection was closed or reset.
    End = 3,
    /// The monitor ends.
    Forced = 4,
    /// It made room for another.
    NoRoom = 5,
}

impl Reason {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::End => "end",
            Self::Forced => "forced",
            Self::NoRoom => "no-room",
        }
    }
}

/// A flow that is over, or a part of it that is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finished {
    pub(crate) key: FlowKey,
    pub(crate) flow: Flow,
    pub(crate) reason: Reason,
}

/// A packet and its headers. Passed by value to what is seldom called, as keys are: what others may point to could not
/// stay in registers for those who are called for every packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) headers: Headers,
    pub(crate) bytes: &'a [u8],
}

impl Frame<'_> {
    fn origin(&self) -> Origin {
        let four = self.headers.ipv4(self.bytes).map(|ip| ip.tos());
        let six = || self.headers.ipv6(self.bytes).map(|ip| ip.traffic_class().to_be_bytes()[1]);
        let vlan = self.headers.vlan_ids().next().unwrap_or(0);
        Origin { tos: four.or_else(six).unwrap_or(0), vlan }
    }
}

/// Flows by key.
#[derive(Debug)]
pub(crate) struct Table {
    flows: FlowTable<Flow>,
    timeouts: Timeouts,
    keys: Keys,
    /// Applications are looked for.
    applications: bool,
    /// Records of flows are wanted.
    records: bool,
    pub(crate) counts: FlowCounts,
    pub(crate) ended: Past,
    /// The survey that is under way, if one is.
    survey: Option<Survey>,
    last_survey: u8,
    pub(crate) spreaders: Spreaders,
    /// Flows that ended since somebody took them from here; empty unless records are wanted.
    pub(crate) finished: Vec<Finished>,
}

impl Table {
    pub(crate) fn new(settings: &Settings) -> Self {
        let Settings { max_flows, hosts, top, sort, .. } = *settings;
        Self {
            flows: FlowTable::new(max_flows),
            timeouts: settings.timeouts,
            keys: settings.keys,
            applications: settings.applications,
            records: settings.records,
            counts: FlowCounts::default(),
            ended: Past::new(Ended::new(hosts, settings.talks, top, sort)),
            survey: None,
            last_survey: 0,
            spreaders: Spreaders::new(settings.spreaders, settings.seed),
            finished: Vec::new(),
        }
    }

    /// Fetches the flows of these hashes from memory, all at once, if there are so many that it helps.
    #[inline]
    pub(crate) fn fetch(&self, hashes: &[u32], room: &mut [onvm_lib::flow_table::Guess]) {
        if self.is_large() {
            self.flows.locate(hashes, room);
            self.flows.touch(&room[..hashes.len().min(room.len())]);
        }
    }

    /// Whether its flows are hardly in a cache.
    #[inline]
    pub(crate) fn is_large(&self) -> bool {
        self.flows.len() > MANY
    }

    /// Counts a packet of the flow with this key, in this direction. `RECORDS`: for those who want records,
    /// or flows cut by the active timeout.
    #[inline]
    pub(crate) fn count<const RECORDS: bool>(
        &mut self,
        hash: u32,
        key: FlowKey,
        seen: Seen,
        frame: Frame<'_>,
    ) {
        let shared = key.symmetric();
        let reversed = shared != key;
        let Some(flow) = self.flows.find(hash, &shared) else {
            return self.begin(hash, shared, reversed, seen, frame);
        };
        let over = if seen.now_ns.saturating_sub(flow.last_ns) >= self.timeouts.shortest
            || RECORDS && seen.now_ns.saturating_sub(flow.first_ns) >= self.timeouts.active()
            || seen.flags.0 != 0 && flow.is_reopened_by(seen.flags)
        {
            why_over(&self.timeouts, self.keys, shared, flow, seen)
        } else {
            None
        };
        let Some(reason) = over else {
            flow.add::<RECORDS>(reversed, seen);
            if flow.application.is_open() {
                flow.application.look(frame.headers, frame.bytes);
            }
            return;
        };
        let next = match reason {
            Reason::Active => flow.next_part(reversed, seen),
            _ => begun(self.applications, shared, reversed, seen, frame),
        };
        let over = std::mem::replace(flow, next);
        self.replaced(shared, over, reason, reversed);
    }

    /// A flow has taken the place of another of the same key.
    #[cold]
    #[inline(never)]
    fn replaced(&mut self, key: FlowKey, over: Flow, reason: Reason, reversed: bool) {
        self.end(&key, &over, reason);
        self.counts.expired += 1;
        self.counts.cut += u64::from(reason == Reason::Active);
        self.begun(&key, reason == Reason::Active, reversed);
    }

    /// A flow has begun: counts it, and who speaks to whom.
    fn begun(&mut self, key: &FlowKey, part: bool, reversed: bool) {
        self.counts.seen += 1;
        if let (Some(src), Some(dst)) = (key.src(), key.dst()) {
            self.counts.ip += 1;
            if !part {
                let (src, dst) = if reversed { (dst, src) } else { (src, dst) };
                self.spreaders.add(src, dst);
            }
        }
    }

    /// Puts a new flow in.
    #[cold]
    #[inline(never)]
    fn begin(&mut self, hash: u32, key: FlowKey, reversed: bool, seen: Seen, frame: Frame<'_>) {
        let flow = begun(self.applications, key, reversed, seen, frame);
        match self.flows.insert(hash, key, flow, longest_silent) {
            // It was looked for before.
            Inserted::New | Inserted::Replaced(_) => {}
            Inserted::Evicted(other, over) => {
                self.end(&other, &over, Reason::NoRoom);
                self.counts.evicted += 1;
            }
            Inserted::Refused(_) => {
                self.counts.refused += 1;
                return;
            }
        }
        self.begun(&key, false, reversed);
    }

    /// A flow is over.
    fn end(&mut self, key: &FlowKey, flow: &Flow, reason: Reason) {
        if let Some(survey) = &mut self.survey {
            survey.take(key, flow);
        }
        self.ended.take(key, flow);
        if self.records {
            self.finished.push(Finished { key: *key, flow: *flow, reason });
        }
    }

    /// Ends flows that have been silent for their timeout, and shows flows to a survey that is under way; looks at the next
    /// `slots` places of the table. A flow that has lasted for the active timeout is cut by its next packet, which is part of
    /// what follows.
    pub(crate) fn look(&mut self, slots: usize, now_ns: u64) {
        let Self { flows, timeouts, ended, finished, records, counts, survey, .. } = self;
        flows.sweep(slots, |key, flow| {
            if let Some(survey) = survey {
                survey.see(key, flow);
            }
            let silent = now_ns.saturating_sub(flow.last_ns);
            if silent < timeouts.shortest || silent < timeouts.inactive(key, flow) {
                return true;
            }
            ended.take(key, flow);
            if *records {
                finished.push(Finished { key: *key, flow: *flow, reason: over_by_silence(flow) });
            }
            counts.expired += 1;
            false
        });
        if let Some(survey) = survey {
            survey.looked(slots);
        }
    }

    /// Begins a survey: from here on every flow that is in the table now will be in it once.
    pub(crate) fn begin_survey(&mut self) {
        // 255 of them, cut short and in a row, would be needed for two marks to be taken for one.
        self.last_survey = self.last_survey % u8::MAX + 1;
        self.survey = Some(Survey::new(self.last_survey, self.flows.len(), self.flows.capacity()));
        self.ended.lend();
    }

    /// Whether one is under way.
    pub(crate) fn is_surveyed(&self) -> bool {
        self.survey.is_some()
    }

    /// The flows of a survey that is complete, and what was over when it began, which is only read until
    /// [`Past::returned`].
    pub(crate) fn surveyed(&mut self) -> Option<(Vec<Keyed>, Arc<Ended>)> {
        let survey = self.survey.take_if(|survey| survey.is_complete())?;
        Some((survey.flows, self.ended.shared()))
    }

    /// Cuts a survey short: all that is over is where it belongs.
    pub(crate) fn end_survey(&mut self) {
        self.survey = None;
        let _ = self.ended.all();
    }

    /// Flows in the order of their places, with their places and hashes.
    pub(crate) fn placed(&self) -> Vec<(u32, u32, Keyed)> {
        let all = self.flows.placed();
        all.map(|flow| (flow.place, flow.hash, Keyed { key: *flow.key, flow: *flow.value })).collect()
    }

    /// Goes on from where another has come to. In a smaller table flows that find no place end.
    pub(crate) fn restore(&mut self, flows: &[(u32, u32, Keyed)], counts: FlowCounts) {
        for (place, hash, known) in flows {
            if self.flows.put_back(*place, *hash, known.key, known.flow).is_err() {
                self.end(&known.key, &known.flow, Reason::NoRoom);
                self.counts.evicted += 1;
            }
        }
        self.counts = FlowCounts { evicted: counts.evicted + self.counts.evicted, ..counts };
    }

    /// Flows that are in the table.
    pub(crate) fn flows(&self) -> impl Iterator<Item = (&FlowKey, &Flow)> {
        self.flows.iter()
    }

    /// Number of flows in the table.
    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    pub(crate) fn keys(&self) -> Keys {
        self.keys
    }
}

/// A flow with all that its first packet says.
fn begun(applications: bool, key: FlowKey, reversed: bool, seen: Seen, frame: Frame<'_>) -> Flow {
    let mut flow = Flow::new(reversed, seen);
    flow.origin = frame.origin();
    if applications {
        flow.application = Finding::of_new(&key);
        if flow.application.is_open() {
            flow.application.look(frame.headers, frame.bytes);
        }
    }
    flow
}

/// Who has been silent for longest goes first.
#[allow(clippy::unnecessary_wraps, reason = "nobody is protected")]
fn longest_silent(_: &FlowKey, flow: &Flow) -> Option<u64> {
    Some(flow.last_ns)
}

/// How a flow ended that says nothing any more.
fn over_by_silence(flow: &Flow) -> Reason {
    match flow.state() {
        Some(State::Closed | State::Reset) => Reason::End,
        _ => Reason::Idle,
    }
}

/// Why a flow was over before this packet, if it was.
#[cold]
#[inline(never)]
fn why_over(timeouts: &Timeouts, keys: Keys, key: FlowKey, flow: &Flow, seen: Seen) -> Option<Reason> {
    if seen.now_ns.saturating_sub(flow.last_ns) >= timeouts.inactive(&key, flow) {
        return Some(over_by_silence(flow));
    }
    if keys == Keys::Connection && flow.is_reopened_by(seen.flags) {
        return Some(Reason::End);
    }
    (seen.now_ns.saturating_sub(flow.first_ns) >= timeouts.active()).then_some(Reason::Active)
}

#[cfg(test)]
mod tests {
    use super::*;
    use onvm_lib::flow_table::CANDIDATES;
    use onvm_lib::wire::tcp::Flags;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    const SECOND: u64 = 1_000_000_000;

    fn table(most: usize) -> Table {
        let timeouts = Timeouts::new(Duration::from_secs(10));
        Table::new(&Settings { max_flows: most, timeouts, ..Settings::default() })
    }

    fn key(n: u16) -> FlowKey {
        FlowKey::v4(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2), n, 80, 17)
    }

    fn seen(now_ns: u64) -> Seen {
        Seen { bytes: 100, octets: 86, now_ns, flags: Flags(0) }
    }

    fn count_as(table: &mut Table, hash: u32, key: FlowKey, seen: Seen) {
        let headers = Headers::parse(&[]);
        table.count::<true>(hash, key, seen, Frame { headers, bytes: &[] });
    }

    fn count(table: &mut Table, key: FlowKey, now_ns: u64) {
        count_as(table, key.hash32(), key, seen(now_ns));
    }

    fn sum(table: &Table) -> u64 {
        table.flows().map(|(_, flow)| flow.total().packets).sum()
    }

    #[test]
    fn both_directions_are_one_flow() {
        let mut table = table(4);
        count(&mut table, key(1), SECOND);
        count(&mut table, key(1).reversed(), SECOND);
        count(&mut table, key(2), 2 * SECOND);
        assert_eq!((table.len(), table.counts.seen, sum(&table)), (2, 2, 3));
        let (shared, flow) = table.flows().find(|(_, flow)| flow.first_ns == SECOND).unwrap();
        assert_eq!(flow.ways.map(|way| way.count.packets), [1, 1]);
        assert_eq!(flow.first_key(shared), key(1));
    }

    #[test]
    fn silent_flows_end_by_the_sweep_or_by_the_next_packet() {
        let mut table = table(4);
        count(&mut table, key(1), SECOND);
        count(&mut table, key(2), 5 * SECOND);
        table.look(SWEEP, 11 * SECOND);
        assert_eq!((table.len(), table.counts.expired), (1, 1));
        count(&mut table, key(2), 15 * SECOND);
        assert_eq!((table.len(), table.counts.expired, table.counts.seen), (1, 2, 3));
        assert_eq!(sum(&table), 1);
        assert_eq!(table.ended.hosts.iter().map(|host| host.facts.sent.packets).sum::<u64>(), 2);
    }

    #[test]
    fn a_full_table_gives_the_place_of_the_longest_silent() {
        let mut table = table(64);
        for n in 0..1000u16 {
            count(&mut table, key(n), u64::from(n) + 1);
        }
        let counts = table.counts;
        assert!(table.len() <= 64);
        assert_eq!(counts.seen + counts.refused, 1000);
        assert_eq!(counts.evicted, counts.seen - table.len() as u64);
        assert!(counts.evicted > 800, "{counts:?}");
    }

    #[test]
    fn colliding_flows_push_out_each_other_only() {
        let mut table = table(1024);
        count(&mut table, key(60_000), 1);
        for n in 0..100u16 {
            count_as(&mut table, 0x1234_5678, key(n), seen(u64::from(n) + 2));
        }
        assert_eq!((table.len(), table.counts.evicted), (CANDIDATES + 1, 100 - CANDIDATES as u64));
        assert!(table.flows().any(|(shared, flow)| flow.first_key(shared) == key(60_000)));
    }

    #[test]
    fn a_sweep_of_a_large_table_takes_turns() {
        let mut table = table(4 * SWEEP);
        for n in 0..20_000u16 {
            count(&mut table, key(n), SECOND);
        }
        let before = table.len();
        table.look(SWEEP, 60 * SECOND);
        assert_eq!(table.len(), before - SWEEP);
        (0..3).for_each(|_| table.look(SWEEP, 60 * SECOND));
        assert_eq!(table.len(), 0);
        count(&mut table, key(1), 61 * SECOND);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn records_say_why_a_flow_ended_and_lose_no_packet() {
        let timeouts = Timeouts::new(Duration::from_secs(10)).with_active(25);
        let settings = Settings { max_flows: 14, timeouts, records: true, ..Settings::default() };
        let mut table = Table::new(&settings);
        // Lasts longer than it may; then silent; then many come.
        (0..6).for_each(|n| count(&mut table, key(1), (1 + n * 9) * SECOND));
        count(&mut table, key(1).reversed(), 70 * SECOND);
        (10..40u16).for_each(|n| count(&mut table, key(n), 71 * SECOND));
        table.look(SWEEP, 90 * SECOND);
        let reasons: Vec<Reason> = table.finished.iter().map(|over| over.reason).collect();
        assert_eq!(reasons[..2], [Reason::Active, Reason::Idle]);
        assert_eq!(reasons.iter().filter(|reason| **reason == Reason::NoRoom).count(), 31 - 14);
        assert_eq!(reasons.iter().filter(|reason| **reason == Reason::Idle).count(), 1 + 14);
        let packets: u64 = table.finished.iter().map(|over| over.flow.total().packets).sum();
        assert_eq!((packets, table.len()), (37, 0));
        assert_eq!(table.finished[1].flow.first_key(&table.finished[1].key), key(1));
        assert_eq!((table.counts.cut, table.counts.seen, table.counts.ip), (1, 33, 33));
        assert_eq!(table.counts.expired + table.counts.evicted, 33);
    }

    #[test]
    fn a_new_connection_ends_the_old_one_but_not_for_netflow() {
        for (keys, flows) in [(Keys::Connection, 2), (Keys::Netflow, 1)] {
            let mut table =
                Table::new(&Settings { max_flows: 4, keys, records: true, ..Settings::default() });
            let key = FlowKey::v4(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2), 1, 80, 6);
            for (n, flags) in [(1, Flags::SYN.0), (2, Flags::RST.0), (3, Flags::SYN.0)] {
                count_as(&mut table, 1, key, Seen { flags: Flags(flags), ..seen(n) });
            }
            assert_eq!(table.counts.seen, flows);
            assert!(table.finished.iter().all(|over| over.reason == Reason::End));
        }
    }
}
