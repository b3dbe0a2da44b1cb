//! How long an NF may take until it is ready.
//!
//! Between its start and the moment at which it follows its routes an NF reads its rules and makes its tables. Nobody sees
//! from outside whether it gets on with that: it does no turns, and no packets wait for it. One that never gets done (a lock,
//! a name server that does not answer, a FIFO in place of a file) would keep its service down for ever without a word. So there is
//! a limit, `--setup-timeout`: for processes that the manager started until they attach, and for every instance from then on.
//! Who exceeds it is killed, and the restart policy counts a failed start.

use std::time::{Duration, Instant};

use onvm_lib::protocol::InstanceId;

use super::Server;
use super::instances::{Fault, Instance};
use crate::life::State;

/// As good as no limit, and no more than can be added to a point in time: about 31 years.
const FOR_EVER: Duration = Duration::from_secs(1_000_000_000);

impl Server {
    /// How long an instance may take to set itself up.
    pub(super) fn set_up_time(&self) -> Duration {
        self.options.setup_timeout.unwrap_or(FOR_EVER)
    }

    /// What is said of one that takes longer.
    pub(super) fn not_set_up(&self) -> String {
        format!("did not set itself up within {:?} (--setup-timeout)", self.set_up_time())
    }

    /// Whether an instance sets itself up, and nobody has told it to leave meanwhile.
    fn is_awaited(&self, id: InstanceId, instance: &Instance) -> bool {
        let told = instance.kill_at.is_some() || instance.fault.is_some() || instance.leaving;
        instance.life.state() == State::Starting && !told && !self.is_successor(id)
    }

    /// Kills those that are not ready in time.
    pub(super) fn end_the_unready(&mut self, now: Instant) {
        let Some(limit) = self.options.setup_timeout else { return };
        self.supervisor.kill_unattached(limit, now);
        let overdue =
            |(id, i): &(&InstanceId, &Instance)| i.joined + limit <= now && self.is_awaited(**id, i);
        let overdue: Vec<InstanceId> = self.instances.iter().filter(overdue).map(|(id, _)| *id).collect();
        for id in overdue {
            if let Some(instance) = self.instances.get_mut(&id) {
                instance.fault = Some(Fault::Overdue);
            }
            self.kill(id, format!("it {}", self.not_set_up()));
        }
    }

    /// When the first of them has had its time.
    pub(super) fn next_unready(&self) -> Option<Instant> {
        let limit = self.options.setup_timeout?;
        let awaited = self.instances.iter().filter(|(id, i)| self.is_awaited(**id, i));
        awaited.map(|(_, i)| i.joined + limit).chain(self.supervisor.next_unattached(limit)).min()
    }
}
