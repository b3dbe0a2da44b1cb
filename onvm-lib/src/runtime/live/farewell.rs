//! The reports of an NF, and its good-bye.

use super::Live;
use crate::node::{Counter, Counters};
use crate::protocol::{InstanceId, Say, ServiceId};
use crate::runtime::{Common, NetworkFunction, Report};

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
        let report = self.print("at the end");
        // A report that is too long for a message is not worth looking like a crash.
        for last in [Say::Report { report: report.json }, Say::Leaving] {
            if let Err(error) = self.line.send(&last, &[], true) {
                log::debug!("cannot say good-bye: {error}");
            }
        }
        self.lifeline = None;
    }

    /// Prints a report and returns it.
    pub(super) fn print(&self, when: &str) -> Report {
        let totals = self.before.and(&self.page.counters());
        let facts = Facts { instance: self.instance, received: self.received, totals };
        print(&self.nf, self.common, facts, when)
    }
}

/// Prints an NF's report and returns it.
pub(super) fn print<N: NetworkFunction>(nf: &N, common: &Common, facts: Facts, when: &str) -> Report {
    let report = nf.report();
    let Facts { instance, received, totals: Totals { sent, made, dropped } } = facts;
    let service: ServiceId = common.service_id.unwrap_or(0);
    let facts = serde_json::json!({
        "service": service,
        "instance": instance,
        "packets": received,
        "sent": sent,
        "made": made,
        "dropped": dropped,
    });
    let heading = format!(
        "service {service}, instance {instance}, {when}: {received} packets in, {sent} on, {dropped} dropped"
    );
    crate::runtime::print_report(common, N::NAME, &facts, &heading, &report);
    report
}
