//! The plan that the command line says, so that there is one form of it inside.

use onvm_lib::protocol::ServiceId;

use super::{DEFAULT_CHAIN, Plan, Service};
use crate::cli::Start;

impl Plan {
    /// The plan of a command line without chain file: its ports and chain, and a service without command for each that it
    /// names. Without `--chain` there is no default chain, and packets go to the default service.
    pub(crate) fn from_command_line(start: &Start) -> Self {
        let mut plan = Self::default().with_command_line(start);
        if plan.default_chain.is_none() {
            plan.service(start.default_service);
        }
        plan
    }

    /// This plan with the ports, the chain and the isolated services of a command line. A chain of the command line is the
    /// default chain.
    pub(crate) fn with_command_line(mut self, start: &Start) -> Self {
        self.ports = start.ports.iter().map(|port| port.text().to_string()).collect();
        if let Some(chain) = &start.chain {
            for id in &chain.0 {
                self.service(*id);
            }
            self.chains.insert(DEFAULT_CHAIN.into(), chain.0.clone());
            self.default_chain = Some(DEFAULT_CHAIN.into());
        }
        for id in &start.isolate {
            self.service(*id).isolated = true;
        }
        self
    }

    /// A service, which the plan has from now on if it did not.
    fn service(&mut self, id: ServiceId) -> &mut Service {
        let new = || Service { name: format!("service-{id}"), ..Service::default() };
        self.services.entry(id).or_insert_with(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::FromArgMatches;

    fn plan(arguments: &[&str]) -> Plan {
        let matches = Start::parser().no_binary_name(true).try_get_matches_from(arguments).unwrap();
        Plan::from_command_line(&Start::from_arg_matches(&matches).unwrap())
    }

    #[test]
    fn a_command_line_is_a_plan() {
        let made = plan(&["--port", "null:", "--chain", "3,5,3", "--isolate", "5,9"]);
        assert_eq!((made.ports.len(), &made.chains["default"][..]), (1, &[3, 5, 3][..]));
        let services: Vec<_> = made.services.iter().map(|(id, s)| (*id, s.isolated)).collect();
        assert_eq!(services, [(3, false), (5, true), (9, true)]);
        assert_eq!(made.default_chain.as_deref(), Some("default"));
        assert!(plan(&["--chain", "none"]).chains["default"].is_empty());
        let bare = plan(&["--default-service", "7"]);
        assert_eq!(
            (bare.default_chain, bare.chains.len(), bare.services[&7].name.as_str()),
            (None, 0, "service-7")
        );
    }
}
