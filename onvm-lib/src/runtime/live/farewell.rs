//! The reports of an NF, and its good-bye.

use std::time::Duration;

use super::Live;
use crate::node::{Counter, Counters};
use crate::protocol::{InstanceId, Say, ServiceId};
use crate::runtime::{Common, NetworkFunction, Printer, Report};

/// How long an NF that ends waits for whoever reads its last report.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// What an NF has done, over all the managers that it had.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    sent: u64,
    made: u64,
    dropped: u64,
}

impl Totals {
    /// With what a page says.
    pub(super) fn and(self, page: &Counters) -> Self {
        Self {
            sent: self.sent.wrapping_add(page.sent()),
            made: self.made.wrapping_add(page.get(Counter::Made)),
            dropped: self.dropped.wrapping_add(page.get(Counter::Dropped)),
        }
    }
}

/// What the runtime says in front of an NF's own report.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) instance: InstanceId,
    pub(super) received: u64,
    pub(super) totals: Totals,
}

impl<N: NetworkFunction> Live<'_, N> {
    /// The last turn, the last report, and the word that lets the manager know that this is no crash.
    pub(super) fn leave(&mut self) {
        self.tick(true);
        self.control.dismiss_children();
        let (facts, report) = (self.facts(), self.nf.report());
        // The manager hears of it before anyone who may be slow to read. A report that is too long for a message is not
        // worth looking like a crash.
        for last in [Say::Report { report: report.json.clone() }, Say::Leaving] {
            if let Err(error) = self.line.send(&last, &[], true) {
                log::debug!("cannot say good-bye: {error}");
            }
        }
        self.lifeline = None;
        print_last(self.common, facts, &report, N::NAME, &mut self.printer);
    }

    fn facts(&self) -> Facts {
        let totals = self.before.and(&self.page.counters());
        Facts { instance: self.instance, received: self.received, totals }
    }

    /// Prints a report, if whoever reads them keeps up; packets wait for nobody.
    pub(super) fn print(&mut self) {
        if !self.printer.has_room() {
            return self.printer.note_lost();
        }
        let text =
            written(self.common, self.facts(), &self.nf.report(), N::NAME, "so far", self.printer.lost());
        self.printer.print(text);
    }
}

/// Prints an NF's last report, and waits for whoever reads it, but not for long.
pub(super) fn print_last(common: &Common, facts: Facts, report: &Report, name: &str, printer: &mut Printer) {
    let text = written(common, facts, report, name, "at the end", printer.lost());
    if !printer.finish(Some(text), LAST_WAIT) {
        log::warn!("nobody reads the last report: it is lost after {} s", LAST_WAIT.as_secs());
    }
}

fn written(common: &Common, facts: Facts, report: &Report, name: &str, when: &str, lost: u64) -> String {
    let Facts { instance, received, totals: Totals { sent, made, dropped } } = facts;
    let service: ServiceId = common.service_id.unwrap_or(0);
    let facts = serde_json::json!({
        "service": service,
        "instance": instance,
        "packets": received,
        "sent": sent,
        "made": made,
        "dropped": dropped,
        "reports_lost": lost,
    });
    let mut heading = format!(
        "service {service}, instance {instance}, {when}: {received} packets in, {sent} on, {dropped} dropped"
    );
    if lost > 0 {
        heading.push_str(&format!(", {lost} reports lost that nobody read in time"));
    }
    crate::runtime::written_report(common, name, &facts, &heading, report)
}
