//! How the command line names a service: by its id, or by the name that the plan gives it.

use std::str::FromStr;

use onvm_lib::protocol::ServiceId;

use crate::plan::MAX_CHAIN;

/// A service as the user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Id(ServiceId),
    /// Only the manager knows whose it is.
    Name(String),
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        // Names begin with a letter: what begins otherwise is meant as a number.
        if text.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Ok(Self::Name(text.into()));
        }
        match text.parse() {
            Ok(id @ 1..=4095) => Ok(Self::Id(id)),
            Ok(id) => Err(format!("service id {id} is out of range 1..=4095")),
            Err(_) => Err(format!("{text:?} is neither the id nor the name of a service")),
        }
    }
}

/// The services of a chain, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hops(pub(crate) Vec<Service>);

impl FromStr for Hops {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(Vec::new()));
        }
        let services = text.split(',').map(str::parse).collect::<Result<Vec<_>, _>>()?;
        if services.len() > MAX_CHAIN {
            return Err(format!("a chain of {} hops is longer than {MAX_CHAIN}", services.len()));
        }
        Ok(Self(services))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_have_ids_or_names() {
        assert_eq!("12".parse(), Ok(Service::Id(12)));
        assert_eq!("web-1".parse(), Ok(Service::Name("web-1".into())));
        assert_eq!("4096".parse::<Service>(), Err("service id 4096 is out of range 1..=4095".into()));
        for wrong in ["", "-1", "0", "65536", "1x", "é"] {
            assert!(wrong.parse::<Service>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn chains_are_of_both() {
        let hops = Hops(vec![Service::Id(1), Service::Name("web".into())]);
        assert_eq!("1, web".parse(), Ok(hops));
        assert_eq!("none".parse(), Ok(Hops(vec![])));
        assert!("1,,2".parse::<Hops>().is_err() && "".parse::<Hops>().is_err());
        assert!(["1"; 65].join(",").parse::<Hops>().is_err());
    }
}
