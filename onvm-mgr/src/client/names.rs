//! Names of services, which only the plan of a running manager knows.

use std::path::Path;

use onvm_lib::document::nearest;
use onvm_lib::protocol::{Request, ServiceId};

use super::{Failure, exchange};
use crate::cli::Service;
use crate::plan::Plan;

/// The id of a service.
///
/// # Errors
/// When the manager has none of that name, or does not answer.
pub(super) fn id_of(socket: &Path, service: &Service) -> Result<ServiceId, Failure> {
    match service {
        Service::Id(id) => Ok(*id),
        Service::Name(name) => {
            let (plan, _) = exchange(socket, &Request::PlanShow)?;
            Ok(find(&serde_json::from_value(plan)?, name)?)
        }
    }
}

fn find(plan: &Plan, name: &str) -> Result<ServiceId, String> {
    if let Some((id, _)) = plan.services.iter().find(|(_, service)| service.name == name) {
        return Ok(*id);
    }
    let known: Vec<&str> =
        plan.services.values().map(|service| service.name.as_str()).filter(|name| !name.is_empty()).collect();
    let hint = match nearest(name, known.iter().copied()) {
        Some(nearest) => format!("; did you mean {nearest:?}?"),
        None if known.is_empty() => "; none has a name".into(),
        None => format!("; there is {}", known.join(", ")),
    };
    Err(format!("there is no service {name:?}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_are_met_with_those_that_are_known() {
        let mut plan = Plan::default();
        assert_eq!(find(&plan, "web"), Err("there is no service \"web\"; none has a name".into()));
        for (id, name) in [(3, "firewall"), (7, "monitor")] {
            let service = crate::plan::Service { name: name.into(), ..Default::default() };
            plan.services.insert(id, service);
        }
        assert_eq!(find(&plan, "monitor"), Ok(7));
        let typo = "there is no service \"fierwall\"; did you mean \"firewall\"?";
        assert_eq!(find(&plan, "fierwall"), Err(typo.into()));
        let other = "there is no service \"x-ray-eyes\"; there is firewall, monitor";
        assert_eq!(find(&plan, "x-ray-eyes"), Err(other.into()));
    }
}
