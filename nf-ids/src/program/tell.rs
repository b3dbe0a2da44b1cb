//! From alerts, transactions and flows to lines of EVE and fast.log.

use std::path::Path;

use crate::app;
use crate::decode::{Decoded, Transport};
use crate::detect::{Alert, FlowState, Sink};
use crate::engine::{Inspection, Kept};
use crate::flow::{self, Direction, FlowView};
use crate::output::{
    Done, Flow, Kind, Kinds, Matched, Record, Target, Writer, anomaly, dropped, eve, fast, fileinfo,
};
use crate::rules::Action;

/// Where lines go, and which.
#[derive(Debug)]
pub(super) struct Tell {
    eve: Option<Writer>,
    fast: Option<Writer>,
    kinds: Kinds,
    inline: bool,
    replay: bool,
    stdout: bool,
    /// A successor has the flows: it tells of their ends.
    pub(super) succeeded: bool,
    /// Alerts told.
    pub(super) alerts: u64,
}

impl Tell {
    /// Opens what is asked for.
    ///
    /// # Errors
    /// A file that cannot be opened, a kind that is none.
    pub(super) fn open(
        eve: Option<&Path>,
        fast: Option<&Path>,
        kinds: &str,
        inline: bool,
        replay: bool,
    ) -> Result<Self, String> {
        let open = |path: Option<&Path>| {
            let target = |path: &std::path::Path| Target::parse(&path.to_string_lossy());
            // A capture waits for who reads; packets on the wire do not.
            path.map(
                |path| if replay { Writer::open(target(path)) } else { Writer::open_beside(target(path)) },
            )
            .transpose()
            .map_err(|error| error.to_string())
        };
        let kinds = Kinds::parse(kinds).map_err(|error| format!("--eve-types: {error}"))?;
        let stdout = [eve, fast].into_iter().flatten().any(|path| path.as_os_str() == "-");
        Ok(Self {
            eve: open(eve)?,
            fast: open(fast)?,
            kinds,
            inline,
            replay,
            stdout,
            succeeded: false,
            alerts: 0,
        })
    }

    /// Whether lines go to standard output, so that nothing else should.
    #[must_use]
    pub(super) fn takes_stdout(&self) -> bool {
        self.stdout
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self) {
        for writer in [&mut self.eve, &mut self.fast].into_iter().flatten() {
            writer.flush();
        }
    }

    /// Lines that could not be written.
    #[must_use]
    pub(super) fn lost(&self) -> u64 {
        [&self.eve, &self.fast].into_iter().flatten().map(Writer::lost).sum()
    }

    /// Writes counters as an event, if they are asked for.
    pub(super) fn counters(&mut self, now_ns: u64, counters: serde_json::Value) {
        if !self.kinds.has(Kind::Stats) {
            return;
        }
        let nowhere = std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        let mut record = Record::new(Kind::Stats, now_ns, nowhere, nowhere, 0);
        record.more = Some(("stats", counters));
        self.write_eve(&record);
    }

    fn write_eve(&mut self, record: &Record<'_>) {
        if let Some(writer) = &mut self.eve {
            writer.line(&eve::line(record));
        }
    }

    fn done(&self, action: Action) -> Done {
        match action {
            Action::Alert | Action::Pass => Done::Allowed,
            Action::Drop | Action::Reject(_) if self.inline => Done::Blocked,
            Action::Drop | Action::Reject(_) => Done::WouldBlock,
        }
    }

    /// The rule that has alerted.
    fn matched<'a>(&self, alert: &'a Alert) -> Matched<'a> {
        let rule = &alert.rule;
        Matched {
            done: self.done(alert.action),
            gid: rule.gid,
            sid: rule.sid,
            rev: rule.rev,
            message: &rule.msg,
            category: &rule.category,
            severity: rule.priority,
            metadata: &rule.metadata,
        }
    }

    /// Tells of the files of a transaction, each from who sent it to who got it.
    fn files(&mut self, seen: &Inspection<'_>, state: &app::State, id: u64) {
        let own = seen.flow.map_or(Direction::ToServer, |flow| flow.direction);
        for direction in [Direction::ToServer, Direction::ToClient] {
            for file in fileinfo::of_transaction(state, id, direction) {
                let mut record = self.record(Kind::FileInfo, seen);
                (record.flow, record.to_server) = (None, None);
                if direction != own {
                    turn(&mut record, seen.packet);
                }
                describe(&mut record, state, Some(id));
                record.transaction = None;
                record.more = Some(("fileinfo", file));
                self.write_eve(&record);
            }
        }
    }

    /// What every record of a packet says.
    fn record<'a>(&self, kind: Kind, seen: &Inspection<'a>) -> Record<'a> {
        let packet = seen.packet;
        let protocol = packet.protocol.unwrap_or(0);
        let mut record = Record::new(kind, seen.now_ns, packet.source, packet.destination, protocol);
        record.vlans = packet.vlan_ids();
        if matches!(protocol, 6 | 17 | 132) {
            record.source_port = Some(packet.source_port);
            record.destination_port = Some(packet.destination_port);
        }
        if let Transport::Icmp4(_) | Transport::Icmp6(_) = packet.transport {
            record.icmp = packet.icmp_fields.map(|fields| (fields.kind, fields.code));
        }
        record.packet_source = match (packet.pseudo, packet.defragmented) {
            (true, _) => "stream (flow timeout)",
            (_, true) => "defrag",
            _ if self.replay => "wire/pcap",
            _ => "wire/onvm",
        };
        if let Some(view) = seen.flow {
            record.flow_id = Some(view.id);
            record.to_server = Some(view.direction == Direction::ToServer);
            record.flow = Some(numbers(view));
        }
        record
    }
}

fn numbers(view: &FlowView) -> Flow {
    Flow {
        packets: view.packets,
        bytes: view.bytes,
        start_ns: view.start_ns,
        end_ns: None,
        state: None,
        alerted: false,
    }
}

/// The protocol, and what is known of a transaction under its name.
fn describe(record: &mut Record<'_>, state: &app::State, transaction: Option<u64>) {
    if state.protocol().is_known() {
        record.app_protocol = Some(state.protocol().name());
    }
    if let Some(id) = transaction {
        record.transaction = Some(id);
        let name = state.protocol_of(id).name();
        let fields = state.describe(id);
        if !fields.is_empty() {
            record.metadata = Some((name, fields));
        }
    }
}

/// Ends of a record of a flow or a transaction: the client first.
fn turn<'a>(record: &mut Record<'a>, packet: &Decoded<'a>) {
    record.source = packet.destination;
    record.destination = packet.source;
    std::mem::swap(&mut record.source_port, &mut record.destination_port);
}

impl Sink for Tell {
    fn alert(&mut self, alert: &Alert, seen: &Inspection<'_>) {
        self.alerts += 1;
        if self.eve.is_none() && self.fast.is_none() {
            return;
        }
        let mut record = self.record(Kind::Alert, seen);
        record.matched = Some(self.matched(alert));
        if let Some(state) = seen.app {
            // A match in raw content is told with the transaction that is under way.
            let transaction = alert.transaction.or_else(|| state.transactions().last());
            describe(&mut record, state, transaction);
        }
        if let Some(line) = fast::line(&record)
            && let Some(writer) = &mut self.fast
        {
            writer.line(&line);
        }
        if self.kinds.has(Kind::Alert) {
            self.write_eve(&record);
        }
    }

    fn inspected(&mut self, seen: &Inspection<'_>, _alerts: &[Alert]) {
        if self.eve.is_none() || !self.kinds.has(Kind::Anomaly) {
            return;
        }
        let of_packet = seen.packet.events.iter().map(anomaly::of_packet);
        let of_stream = seen.stream_events.iter().map(anomaly::of_stream);
        for what in of_packet.chain(of_stream) {
            let record = self.record(Kind::Anomaly, seen).of_anomaly(what);
            self.write_eve(&record);
        }
    }

    fn dropped(&mut self, seen: &Inspection<'_>, alerts: &[Alert], refused: bool) {
        if self.eve.is_none() || !self.inline || !self.kinds.has(Kind::Drop) || seen.packet.pseudo {
            return;
        }
        let why = if refused { dropped::Why::Stream } else { dropped::Why::Rules };
        let mut record = self.record(Kind::Drop, seen).of_drop(dropped::of_packet(seen.packet, why));
        let by = alerts.iter().find(|alert| matches!(alert.action, Action::Drop | Action::Reject(_)));
        record.matched = by.map(|alert| self.matched(alert));
        self.write_eve(&record);
    }

    fn transaction_ended(&mut self, seen: &Inspection<'_>, id: u64) {
        let Some(state) = seen.app.filter(|_| self.eve.is_some()) else { return };
        if self.kinds.has(Kind::Anomaly) {
            for event in state.events(id) {
                let what = anomaly::of_protocol(state.protocol_of(id), *event);
                let mut record = self.record(Kind::Anomaly, seen).of_anomaly(what);
                record.transaction = Some(id);
                self.write_eve(&record);
            }
        }
        if self.kinds.has(Kind::FileInfo) {
            self.files(seen, state, id);
        }
        let kind = Kind::of_protocol(state.protocol_of(id).name());
        if !self.kinds.has(kind) {
            return;
        }
        let mut record = self.record(kind, seen);
        record.flow = None;
        if record.to_server == Some(false) {
            turn(&mut record, seen.packet);
        }
        record.to_server = None;
        describe(&mut record, state, Some(id));
        self.write_eve(&record);
    }

    fn flow_ended(&mut self, flow: &flow::Flow<Kept<FlowState>>) {
        if self.eve.is_none() || !self.kinds.has(Kind::Flow) || self.succeeded {
            return;
        }
        let (client, server) = (flow.client, flow.server);
        let mut record = Record::new(Kind::Flow, flow.last_ns, client.address, server.address, flow.protocol);
        if matches!(flow.protocol, 6 | 17 | 132) {
            record.source_port = Some(client.port);
            record.destination_port = Some(server.port);
        }
        record.vlans = &flow.vlans[..usize::from(flow.vlan_count)];
        record.flow_id = Some(flow.id);
        if let Some(state) = &flow.kept.app {
            describe(&mut record, state, None);
        }
        let state = match flow.state {
            flow::State::New => "new",
            flow::State::Established => "established",
            flow::State::Closed => "closed",
        };
        record.flow = Some(Flow {
            packets: flow.packets,
            bytes: flow.bytes,
            start_ns: flow.start_ns,
            end_ns: Some(flow.last_ns),
            state: Some(state),
            alerted: flow.kept.alerted,
        });
        self.write_eve(&record);
    }
}
