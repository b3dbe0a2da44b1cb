//! Commands that steer network functions.

use clap::{Args, Subcommand};
use onvm_lib::protocol::{InstanceId, Request, ServiceId, Target};

use super::{Common, Service};
use crate::client::Failure;

#[derive(Subcommand, Debug)]
pub(crate) enum NfCommand {
    /// List all instances
    List(Common),
    /// Start one more instance of a service whose command the manager knows
    Start {
        /// Id or name of the service
        service: Service,
        #[command(flatten)]
        common: Common,
    },
    /// Ask instances to leave at once; what waits for them goes to their siblings, or waits for the next
    Stop(Those),
    /// Replace instances by new ones of the same command, without losing a packet, and wait until that is done
    Restart(Those),
    /// Let instances take no packets until they are resumed; those wait in their rings
    Pause(Those),
    /// Let paused instances go on
    Resume(Those),
    /// Take the flows from instances; they leave when nothing of theirs is inside any more
    Drain(Those),
    /// Kill instances at once
    Kill(Those),
    /// Have so many instances of a service whose command the manager knows
    Scale {
        /// Id or name of the service
        service: Service,
        /// How many
        #[arg(value_name = "N")]
        instances: u32,
        #[command(flatten)]
        common: Common,
    },
    /// Replace instances by new ones of another command, without losing a packet, and wait until that is done
    Replace {
        #[command(flatten)]
        those: Those,
        /// The new ones begin without the state of those that they replace: for another program that cannot read it
        #[arg(long)]
        fresh: bool,
        /// Program and arguments, without -r, -d, -m, -s and --socket, which the manager adds; it starts here, in this directory
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Send a message to instances
    Tell {
        #[command(flatten)]
        those: Those,
        /// What it is about
        #[arg(long)]
        topic: String,
        /// What it says, as JSON
        #[arg(long, default_value = "null", value_parser = json)]
        body: serde_json::Value,
    },
}

/// Some instances and where to ask.
#[derive(Args, Debug)]
pub(crate) struct Those {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// All instances of this service, by its id or name
    #[arg(value_name = "SERVICE")]
    service: Option<Service>,
    /// This instance
    #[arg(short = 'n', long)]
    instance: Option<InstanceId>,
}

/// Says which service is meant.
pub(crate) type Resolve<'a> = &'a dyn Fn(&Service) -> Result<ServiceId, Failure>;

impl Which {
    /// What it means to the manager.
    ///
    /// # Errors
    /// When there is no service of that name.
    pub(crate) fn target(&self, id_of: Resolve<'_>) -> Result<Target, Failure> {
        Ok(match (&self.service, self.instance) {
            (_, Some(instance)) => Target::Instance(instance),
            (Some(service), None) => Target::Service(id_of(service)?),
            (None, None) => return Err("neither a service nor an instance is named".into()),
        })
    }
}

impl NfCommand {
    pub(super) fn common(&self) -> &Common {
        match self {
            Self::List(common) | Self::Start { common, .. } | Self::Scale { common, .. } => common,
            Self::Stop(those)
            | Self::Restart(those)
            | Self::Pause(those)
            | Self::Resume(those)
            | Self::Drain(those)
            | Self::Kill(those)
            | Self::Replace { those, .. }
            | Self::Tell { those, .. } => &those.common,
        }
    }

    pub(super) fn request(&self, id_of: Resolve<'_>) -> Result<Request, Failure> {
        let target = |those: &Those| those.which.target(id_of);
        Ok(match self {
            Self::List(_) => Request::NfList,
            Self::Start { service, .. } => Request::NfStart { service: id_of(service)? },
            Self::Stop(those) => Request::NfStop { target: target(those)? },
            Self::Restart(those) => Request::NfRestart { target: target(those)? },
            Self::Pause(those) => Request::NfPause { target: target(those)? },
            Self::Resume(those) => Request::NfResume { target: target(those)? },
            Self::Drain(those) => Request::NfDrain { target: target(those)? },
            Self::Kill(those) => Request::NfKill { target: target(those)? },
            Self::Scale { service, instances, .. } => {
                Request::NfScale { service: id_of(service)?, instances: *instances }
            }
            Self::Replace { those, fresh, command } => Request::NfReplace {
                target: target(those)?,
                command: command.clone(),
                directory: here()?,
                fresh: *fresh,
            },
            Self::Tell { those, topic, body } => {
                Request::NfTell { target: target(those)?, topic: topic.clone(), body: body.clone() }
            }
        })
    }
}

/// The directory in which the user is: a command's relative paths are seen from there.
fn here() -> Result<String, Failure> {
    let directory = std::env::current_dir().map_err(|error| format!("the current directory: {error}"))?;
    match directory.into_os_string().into_string() {
        Ok(directory) => Ok(directory),
        Err(directory) => Err(format!(
            "the manager cannot be told of the directory {}: it is no UTF-8",
            directory.display()
        )
        .into()),
    }
}

fn json(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))
}
