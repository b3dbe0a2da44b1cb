//! The reports of an NF, and its good-bye.

use super::Live;
use crate::node::Counter;
use crate::protocol::{Say, ServiceId};
use crate::runtime::{NetworkFunction, Report};

impl<N: NetworkFunction> Live<'_, N> {
    /// The last turn, the last report, and the word that lets the manager know that this is no crash.
    pub(super) fn leave(&mut self) {
        self.tick(true);
        let report = self.print("at the end");
        // A report that is too long for a message is not worth looking like a crash.
        for last in [Say::Report { report: report.json }, Say::Leaving] {
            if let Err(error) = self.line.send(&last, &[], true) {
                log::debug!("cannot say good-bye: {error}");
            }
        }
    }

    /// Prints a report and returns it.
    pub(super) fn print(&self, when: &str) -> Report {
        let report = self.nf.report();
        let counters = self.page.counters();
        let service: ServiceId = self.common.service_id.unwrap_or(0);
        let facts = serde_json::json!({
            "service": service,
            "instance": self.instance,
            "packets": self.received,
            "sent": counters.sent(),
            "made": counters.get(Counter::Made),
            "dropped": counters.get(Counter::Dropped),
        });
        let heading = format!(
            "service {service}, instance {}, {when}: {} packets in, {} on, {} dropped",
            self.instance,
            self.received,
            counters.sent(),
            counters.get(Counter::Dropped)
        );
        crate::runtime::print_report(self.common, N::NAME, &facts, &heading, &report);
        report
    }
}
