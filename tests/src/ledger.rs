//! What a manager counts, read by name.

use onvm_lib::packet::DropReason;
use serde_json::Value;

/// Statistics of a manager: an answer to `stats`, or the ledger at its end.
#[derive(Clone, Debug)]
pub struct Ledger(pub Value);

/// Figures of one instance.
#[derive(Clone, Copy, Debug)]
pub struct Instance<'a>(&'a Value);

fn number(value: &Value, what: &str) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{what} is {value}, not a number"))
}

impl Ledger {
    /// One of the sums over packets: `received`, `generated`, `copied`, `sent`, `dropped`.
    #[must_use]
    pub fn packets(&self, name: &str) -> u64 {
        number(&self.0["packets"][name], name)
    }

    /// Packets dropped for a reason.
    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.0["drops"][reason.name()].as_u64().unwrap_or(0)
    }

    /// Descriptors that the worker refused.
    #[must_use]
    pub fn bad_descriptors(&self) -> u64 {
        number(&self.0["bad_descriptors"], "bad_descriptors")
    }

    /// A counter of a port.
    #[must_use]
    pub fn port(&self, port: usize, counter: &str) -> u64 {
        number(&self.0["ports"][port][counter], counter)
    }

    /// The phase that the manager is in.
    #[must_use]
    pub fn phase(&self) -> &str {
        self.0["phase"].as_str().unwrap_or_default()
    }

    /// All instances, those that have gone first.
    #[must_use]
    pub fn instances(&self) -> Vec<Instance<'_>> {
        ["departed", "instances"]
            .iter()
            .filter_map(|list| self.0[*list].as_array())
            .flatten()
            .map(Instance)
            .collect()
    }

    /// Those that are there.
    #[must_use]
    pub fn present(&self) -> Vec<Instance<'_>> {
        self.0["instances"].as_array().into_iter().flatten().map(Instance).collect()
    }

    /// The first instance of a service.
    ///
    /// # Panics
    /// When there was none.
    #[must_use]
    pub fn of_service(&self, service: u16) -> Instance<'_> {
        let all = self.instances();
        *all.iter()
            .find(|i| i.service() == u64::from(service))
            .unwrap_or_else(|| panic!("no service {service}: {}", self.0))
    }

    /// Nothing is lost: both sums balance, nothing is inside any more, and no drop is without a cause.
    ///
    /// # Panics
    /// When that is not so.
    pub fn assert_balanced(&self) {
        let audit = if self.0["audit"].is_null() { &self.0 } else { &self.0["audit"] };
        assert_eq!(audit["packets"]["balances"], true, "packets: {audit}");
        assert_eq!(audit["pool"]["balances"], true, "pool: {audit}");
    }

    /// The sums balance, and no buffer had to be searched for: right wherever no NF is hostile.
    ///
    /// # Panics
    /// When that is not so.
    pub fn assert_clean(&self) {
        self.assert_balanced();
        if !self.0["audit"].is_null() {
            assert_eq!(
                self.0["audit"]["packets"]["inside"], 0,
                "still inside at the end: {}",
                self.0["audit"]
            );
        }
        assert_eq!(self.drops(DropReason::Lost), 0, "buffers went missing: {}", self.0);
        assert_eq!(self.bad_descriptors(), 0, "bad descriptors: {}", self.0);
    }
}

impl Instance<'_> {
    /// Its service.
    #[must_use]
    pub fn service(&self) -> u64 {
        number(&self.0["service"], "service")
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> u64 {
        number(&self.0["instance"], "instance")
    }

    /// What it calls itself.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0["name"].as_str().unwrap_or_default()
    }

    /// A counter: `received`, `next`, `dropped`, …
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        number(&self.0[name], name)
    }

    /// A figure that is measured: `busy`, `cost_ns`, …
    #[must_use]
    pub fn figure(&self, name: &str) -> f64 {
        self.0[name].as_f64().unwrap_or_else(|| panic!("{name} is {}, not a figure", self.0[name]))
    }

    /// Its own report.
    #[must_use]
    pub fn report(&self) -> &Value {
        &self.0["report"]
    }

    /// `running`, `left`, `died`, …
    #[must_use]
    pub fn state(&self) -> &str {
        self.0["state"].as_str().unwrap_or_default()
    }
}
