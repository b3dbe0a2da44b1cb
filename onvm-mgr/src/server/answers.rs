//! Answers to clients. What only the worker knows is asked of it, and told when it has answered.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use onvm_lib::protocol::{Answer, Error, Request, ServiceId, Target};
use serde_json::{Value, json};

use super::Server;
use crate::plan::DEFAULT_CHAIN;
use crate::worker::{AuditReport, Command, Totals};

/// Something that waits for the worker.
pub(super) enum Pending {
    Totals { reply: Receiver<Totals>, then: Then },
    Audit { reply: Receiver<AuditReport>, token: u64 },
}

/// What to do with the totals.
pub(super) enum Then {
    Tell { token: u64, request: Request },
    Print,
}

/// An answer that no message can carry: it rides along as a file without a name.
fn in_a_file(body: &Value) -> std::io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("onvm-answer", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(body.to_string().as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// Whether a request can make the manager start programs.
fn starts_programs(request: &Request) -> bool {
    matches!(
        request,
        Request::NfStart { .. }
            | Request::NfRestart { .. }
            | Request::NfReplace { .. }
            | Request::NfScale { .. }
            | Request::PlanApply { .. }
    )
}

impl Server {
    pub(super) fn answer(&mut self, token: u64, request: Request, files: Vec<OwnedFd>) {
        let trusted = self.peers.get(&token).is_some_and(|peer| peer.trusted);
        if !trusted && starts_programs(&request) {
            let error = "programs are started only for the manager's own user and for root";
            return self.tell(token, json!({ "error": error }), false);
        }
        match request {
            Request::Status | Request::NfList | Request::Stats => {
                self.order_totals(Then::Tell { token, request });
            }
            Request::Audit => {
                let (sender, reply) = channel();
                self.worker.give(Command::Audit { reply: sender });
                self.pending.push(Pending::Audit { reply, token });
            }
            Request::NfStop { target } => {
                self.stop_instances(token, target);
            }
            Request::NfPause { target } => self.pause(token, target),
            Request::NfResume { target } => self.resume(token, target),
            Request::NfDrain { target } => self.drain_instances(token, target),
            Request::NfKill { target } => self.kill_instances(token, target),
            Request::NfScale { service, instances } => self.scale(token, service, instances),
            Request::NfRestart { target } => self.restart(token, target),
            Request::NfReplace { target, command, directory, fresh } => {
                self.replace_instances(token, target, Some((command, directory)), fresh);
            }
            Request::NfStart { service } => self.start_one(token, service),
            Request::Events { after, follow } => self.tell_events(token, after, follow),
            Request::Logs { target } => self.tell_logs(token, target),
            Request::PlanShow => {
                let body = serde_json::to_value(&self.plan).unwrap_or_default();
                self.tell(token, body, true);
            }
            Request::PlanApply { plan } => self.apply(token, plan, files),
            Request::NfTell { target, topic, body } => {
                let n = self.pass_message(None, target, topic, body);
                self.tell_count(token, target, n);
            }
            Request::ChainShow => self.tell(token, self.chain_body(), true),
            Request::ChainSet { chain } => {
                self.plan.chains.insert(DEFAULT_CHAIN.into(), chain);
                self.plan.default_chain = Some(DEFAULT_CHAIN.into());
                self.routes_changed();
                self.tell_when_in_force(token, self.chain_body());
            }
            Request::Shutdown => {
                self.tell(token, json!({ "stopping": true }), true);
                self.drain();
            }
        }
    }

    pub(super) fn tell(&mut self, token: u64, body: Value, ok: bool) {
        if let Err(error) = self.try_to_tell(token, body, ok) {
            log::debug!("cannot answer a client: {error}");
        }
    }

    /// The same, for those to whom it matters whether it was told.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn try_to_tell(&mut self, token: u64, body: Value, ok: bool) -> Result<(), Error> {
        let Some(peer) = self.peers.get_mut(&token) else { return Err(Error::Closed) };
        peer.asking = false;
        match peer.line.send(&Answer::Told { body: body.clone(), ok }, &[], false) {
            Err(Error::TooLong { .. }) => match in_a_file(&body) {
                Ok(file) => peer.line.send(&Answer::Told { body: Value::Null, ok }, &[file.as_fd()], false),
                Err(error) => {
                    let body = json!({ "error": format!("the answer is too long, and there is no memory for it: {error}") });
                    peer.line.send(&Answer::Told { body, ok: false }, &[], false)
                }
            },
            other => other,
        }
    }

    pub(super) fn tell_count(&mut self, token: u64, target: Target, n: usize) {
        if n > 0 {
            return self.tell(token, json!({ "instances": n }), true);
        }
        let error = match target {
            Target::Service(id) => format!("service {id} has no instance"),
            Target::Instance(id) => format!("there is no instance {id}"),
        };
        self.tell(token, json!({ "error": error }), false);
    }

    fn chain_body(&self) -> Value {
        let chain = self.default_chain();
        let missing: Vec<_> = chain.iter().filter(|s| !self.services.contains_key(s)).collect();
        json!({ "chain": chain, "without_instance": missing, "given": self.plan.default_chain.is_some() })
    }

    /// The services that packets pass which no flow rule matches.
    pub(super) fn default_chain(&self) -> Vec<ServiceId> {
        let chain = self
            .plan
            .default_chain
            .as_ref()
            .map(|name| self.plan.chains.get(name).cloned().unwrap_or_default());
        chain.unwrap_or_else(|| vec![self.options.default_service])
    }

    pub(super) fn order_totals(&mut self, then: Then) {
        let (sender, reply) = channel();
        self.worker.give(Command::Totals { reply: sender });
        self.pending.push(Pending::Totals { reply, then });
    }

    pub(super) fn order_print(&mut self) {
        self.order_totals(Then::Print);
    }

    /// Passes on what the worker has answered.
    pub(super) fn answer_pending(&mut self) {
        let mut open = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Totals { reply, then } => match reply.try_recv() {
                    Ok(totals) => self.use_totals(&totals, then),
                    Err(TryRecvError::Empty) => open.push(Pending::Totals { reply, then }),
                    Err(TryRecvError::Disconnected) => {}
                },
                Pending::Audit { reply, token } => match reply.try_recv() {
                    Ok(report) => {
                        let ok = report.packets.balances && report.pool.balances;
                        let body = serde_json::to_value(&report).unwrap_or_default();
                        self.tell(token, body, ok);
                    }
                    Err(TryRecvError::Empty) => open.push(Pending::Audit { reply, token }),
                    Err(TryRecvError::Disconnected) => {}
                },
            }
        }
        open.append(&mut self.pending);
        self.pending = open;
    }

    fn use_totals(&mut self, totals: &Totals, then: Then) {
        let body = self.stats_body(totals);
        match then {
            Then::Tell { token, request } => {
                let body = match request {
                    Request::NfList => json!({ "instances": body["instances"] }),
                    _ => body,
                };
                self.tell(token, body, true);
            }
            Then::Print => self.print(&body),
        }
    }
}
