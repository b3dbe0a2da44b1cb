//! A plan that a client sends. It did not pass the reader of chain files, so nothing in it is believed.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use onvm_lib::document::LONGEST_DURATION;
use onvm_lib::protocol::ServiceId;
use serde_json::Value;

use super::{MAX_CHAIN, MAX_HOPS, MAX_INSTANCES, MAX_SERVICE, Plan, Restart, Rule, Scale, Service};
use crate::ports::Spec;

/// Longest plan in a file, in bytes of JSON.
const MAX_BYTES: u64 = 64 << 20;
/// Most chains: their index has 16 bits, of which one value is none.
const MAX_CHAINS: usize = u16::MAX as usize - 1;

impl Plan {
    /// The plan of a request [`onvm_lib::protocol::Request::PlanApply`]: in the message, or, if that says `null`, in the
    /// file that came with it. It is as sound as one from a chain file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn received(plan: Value, files: Vec<OwnedFd>) -> Result<Self, String> {
        let read = match files.into_iter().next() {
            Some(file) if plan.is_null() => serde_json::from_slice(&contents(file)?),
            _ => serde_json::from_value(plan),
        };
        let plan: Self = read.map_err(|error| format!("this is no plan: {error}"))?;
        plan.check()?;
        Ok(plan)
    }

    /// Whether a manager can follow it: the chains that it refers to are there, and all numbers are within their ranges.
    /// Services in chains may be missing: NFs of any service may come from elsewhere.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        let most_ports = usize::from(onvm_lib::ring::MAX_PORT) + 1;
        if self.ports.len() > most_ports {
            return Err(format!("{} ports are more than {most_ports}", self.ports.len()));
        }
        for port in &self.ports {
            port.parse::<Spec>().map_err(|error| error.to_string())?;
        }
        for (id, service) in &self.services {
            check_service(*id, service).map_err(|why| format!("service {id}: {why}"))?;
        }
        if self.chains.len() > MAX_CHAINS {
            return Err(format!("{} chains are more than {MAX_CHAINS}", self.chains.len()));
        }
        for (name, hops) in &self.chains {
            if hops.len() > MAX_CHAIN {
                return Err(format!("chain {name:?}: {} hops are more than {MAX_CHAIN}", hops.len()));
            }
            for hop in hops {
                id_fits(*hop).map_err(|why| format!("chain {name:?}: {why}"))?;
            }
        }
        let hops = self.chains.values().map(Vec::len).sum::<usize>();
        if hops > MAX_HOPS {
            return Err(format!("all chains together have {hops} hops, more than {MAX_HOPS}"));
        }
        for (index, rule) in self.rules.iter().enumerate() {
            self.check_rule(rule).map_err(|why| format!("rule {index}: {why}"))?;
        }
        self.default_chain.as_deref().map_or(Ok(()), |chain| self.chain_known(chain))
    }

    fn chain_known(&self, chain: &str) -> Result<(), String> {
        let known = self.chains.contains_key(chain);
        if known { Ok(()) } else { Err(format!("there is no chain {chain:?}")) }
    }

    fn check_rule(&self, rule: &Rule) -> Result<(), String> {
        let ranges = rule.source_port.iter().chain(&rule.destination_port);
        if let Some((from, to)) = ranges.into_iter().find(|(from, to)| from > to) {
            return Err(format!("ports {from}-{to}: a range goes up"));
        }
        self.chain_known(&rule.chain)
    }
}

fn id_fits(id: ServiceId) -> Result<(), String> {
    let fits = (1..=MAX_SERVICE).contains(&id);
    if fits { Ok(()) } else { Err(format!("service id {id} is out of range 1..={MAX_SERVICE}")) }
}

fn check_service(id: ServiceId, service: &Service) -> Result<(), String> {
    id_fits(id)?;
    let words = service.command.iter().chain(service.environment.values()).chain([&service.directory]);
    if words.chain(service.environment.keys()).any(|word| word.contains('\0')) {
        return Err("a zero byte".into());
    }
    if service.command.first().is_some_and(String::is_empty) {
        return Err("a program without a name".into());
    }
    if service.environment.keys().any(|name| name.is_empty() || name.contains('=')) {
        return Err("a variable without a name, or with a = in it".into());
    }
    let most = service.scale.map_or(service.instances, |scale| scale.max.max(service.instances));
    if most.saturating_add(service.standby) > MAX_INSTANCES {
        return Err(format!(
            "{most} instances and {} on standby are more than {MAX_INSTANCES}",
            service.standby
        ));
    }
    if let Some(Scale { min, max, target_load }) = service.scale {
        if min == 0 || min > max {
            return Err(format!("scale {min} to {max}: 1 <= min <= max is needed"));
        }
        if !(target_load > 0.0 && target_load <= 1.0) {
            return Err(format!("target-load {target_load}: more than 0, at most 1 is needed"));
        }
    }
    let Restart { delay, longest_delay, healthy, .. } = service.restart;
    let times = [delay, longest_delay, healthy, service.wait.unwrap_or_default()];
    if let Some(time) = times.into_iter().find(|time| *time > LONGEST_DURATION) {
        return Err(format!("{} seconds are more than {}", time.as_secs(), LONGEST_DURATION.as_secs()));
    }
    service.destination.map_or(Ok(()), id_fits)
}

/// A plan in a file without a name, for a message that would be too long with it.
///
/// # Errors
/// When there is no memory for it.
pub(crate) fn in_a_file(plan: &Value) -> std::io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("onvm-plan", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(plan.to_string().as_bytes())?;
    Ok(file)
}

/// What is in a file of a client: a plain one, so that reading cannot wait, and not more than there is room for.
fn contents(file: OwnedFd) -> Result<Vec<u8>, String> {
    let file = File::from(file);
    let data = file.metadata().map_err(|error| error.to_string())?;
    if !data.is_file() || data.len() > MAX_BYTES {
        return Err(format!("a plan is in a plain file of at most {MAX_BYTES} bytes"));
    }
    /// Reads from the start, whatever position the client left the file at.
    struct FromStart<'a>(&'a File, u64);
    impl Read for FromStart<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let n = self.0.read_at(into, self.1)?;
            self.1 += n as u64;
            Ok(n)
        }
    }
    let mut bytes = Vec::new();
    FromStart(&file, 0).take(MAX_BYTES).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(plan: Value) -> String {
        Plan::received(plan, Vec::new()).unwrap_err()
    }

    #[test]
    fn plans_come_in_messages_and_in_files() {
        let plan = json!({ "chains": { "web": [1, 2] }, "services": { "1": {}, "2": { "name": "x" } }, "default_chain": "web" });
        let in_message = Plan::received(plan.clone(), Vec::new()).unwrap();
        let file = in_a_file(&plan).unwrap();
        assert_eq!(Plan::received(Value::Null, vec![file.into()]).unwrap(), in_message);
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(Plan::received(Value::Null, vec![reader.into()]).unwrap_err().contains("plain file"));
    }

    #[test]
    fn what_no_chain_file_could_say_is_refused() {
        for (plan, why) in [
            (json!(null), "this is no plan"),
            (json!({ "chain": [] }), "unknown field"),
            (json!({ "services": { "0": {} } }), "service 0: service id 0 is out of range 1..=4095"),
            (json!({ "services": { "5000": {} } }), "service id 5000 is out"),
            (json!({ "services": { "1": { "destination": 0 } } }), "service 1: service id 0 is"),
            (
                json!({ "services": { "1": { "instances": 1000 } } }),
                "1000 instances and 0 on standby are more than 250",
            ),
            (json!({ "services": { "1": { "wait": -1 } } }), "this is no plan"),
            (
                json!({ "services": { "1": { "scale": { "min": 3, "max": 2, "target-load": 1.0 } } } }),
                "scale 3 to 2",
            ),
            (
                json!({ "services": { "1": { "scale": { "min": 1, "max": 2, "target-load": 0.0 } } } }),
                "target-load 0",
            ),
            (json!({ "services": { "1": { "command": ["a\0"] } } }), "zero byte"),
            (json!({ "chains": { "web": [0] } }), "chain \"web\": service id 0 is"),
            (json!({ "services": { "1": { "wait": 2e9 } } }), "2000000000 seconds are more"),
            (
                json!({ "services": { "1": {} }, "chains": { "web": vec![1; 65] } }),
                "65 hops are more than 64",
            ),
            (json!({ "rules": [{ "chain": "web" }] }), "rule 0: there is no chain \"web\""),
            (
                json!({ "chains": { "w": [] }, "rules": [{ "chain": "w", "source-port": [[9, 8]] }] }),
                "ports 9-8",
            ),
            (json!({ "default_chain": "web" }), "there is no chain \"web\""),
            (json!({ "ports": ["x:"] }), "unknown kind"),
        ] {
            let told = refused(plan.clone());
            assert!(told.contains(why), "{plan}: {told}");
        }
    }
}
