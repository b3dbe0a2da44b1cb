//! Commands about the ports of a running manager.

use clap::Subcommand;
use onvm_lib::protocol::Request;

use super::Common;
use crate::client::Failure;
use crate::ports::Spec;

#[derive(Subcommand, Debug)]
pub(crate) enum PortCommand {
    /// List the ports: state, partner, link, counters
    List(Common),
    /// Add a port
    Add {
        /// The port, as of --port; file names are seen from here
        spec: Spec,
        /// An empty number for it [default: the one behind all others]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..=i64::from(onvm_lib::ring::MAX_PORT)))]
        number: Option<u8>,
        #[command(flatten)]
        common: Common,
    },
    /// Remove a port: what is inside still goes out of it, up to a second long; its number stays empty
    Remove {
        /// Its number, or its name as in `afpacket:eth0` or `eth0`
        #[arg(value_name = "PORT")]
        port: String,
        #[command(flatten)]
        common: Common,
    },
}

impl PortCommand {
    pub(super) fn common(&self) -> &Common {
        match self {
            Self::List(common) | Self::Add { common, .. } | Self::Remove { common, .. } => common,
        }
    }

    pub(super) fn request(&self) -> Result<Request, Failure> {
        Ok(match self {
            Self::List(_) => Request::PortList,
            Self::Add { spec, number, .. } => {
                let here =
                    std::env::current_dir().map_err(|error| format!("the current directory: {error}"))?;
                Request::PortAdd { spec: spec.in_directory(&here)?, number: *number }
            }
            Self::Remove { port, .. } => Request::PortRemove { port: port.clone() },
        })
    }
}
