//! The manager's command line.

mod nf;
mod plan;
mod port;
mod service;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use onvm_lib::arguments::{seconds, seconds_or_none};
use onvm_lib::protocol::{Request, ServiceId};

use crate::client::Failure;
use crate::plan::MAX_CHAIN;
use crate::ports::Spec;

pub(crate) use nf::{NfCommand, Resolve};
pub(crate) use plan::{Commands, IN_BACKGROUND, OfFile, PlanCommand, Up, socket, with_file};
pub(crate) use port::PortCommand;
pub(crate) use service::{Hops, Service};
pub(crate) use watch::{Events, Logs, WatchCommand};

/// Owns ports and packet memory, and routes packets between network functions
///
/// Without a command it starts a manager. The commands speak to a running one.
#[derive(Parser, Debug)]
#[command(
    name = "onvm-mgr",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  \
        onvm-mgr --port pcap:in=web.pcap,out=out.pcap --chain 1,2\n  \
        onvm-mgr --port gen:size=64,rate=1M --port null:\n  \
        onvm-mgr validate chains/web.yaml\n  \
        onvm-mgr up chains/web.yaml\n  \
        onvm-mgr audit\n\n\
        Logs: RUST_LOG=info. Exit codes: 0 done and balanced, 1 failed or not balanced, 2 wrong command line."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Commands>,

    /// Read ports, services, chains and options from a chain file, as `up` does; the command line wins
    #[arg(short = 'F', long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) start: Start,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// Control socket [default: $ONVM_SOCKET, else onvm.sock in $XDG_RUNTIME_DIR, in /run for root, else /tmp/onvm-UID.sock]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const PORT_HELP: &str = "A port; may be given again, ports are numbered from 0 and paired 0-1, 2-3, …, where `none:` leaves a number empty: \
    pcap:in=FILE,out=FILE[,loop=N (0: endless)][,speed=X|,pps=N][,format=pcap|pcap-us|pcapng], \
    gen:[size=64|imix=1][,flows=1][,count=N][,seed=N][,sequence=1 (number the packets)], null:, \
    afpacket:INTERFACE[,promiscuous=no][,timestamps=hardware], \
    xdp:INTERFACE[,mode=native|generic][,copy=zero|copy][,queue=N|queues=A-B][,promiscuous=no][,force], \
    tap:INTERFACE[,ip=ADDRESS/LENGTH][,mtu=N], \
    vxlan:local=IP[:PORT],remote=IP[:PORT],vni=N[,mtu=N], \
    dpdk:DEVICE[,rxq=N][,mtu=N][,promiscuous=no][,checksums=no][,OPTION-OF-ITS-DRIVER=VALUE…]. \
    Every port also takes capture=FILE (pcapng), rate=LIMIT[;tx:LIMIT][;burst:10ms] \
    (100k or 50Mbit a second) and fault=drop:1%;corrupt:1%/BITS;duplicate:1%/COPIES;reorder:1%/BY;delay:5ms/JITTER;seed:N \
    (rx: or tx: before an item for one direction)";

/// Options of a new manager.
#[derive(Args, Debug)]
pub(crate) struct Start {
    #[command(flatten)]
    pub(crate) common: Common,

    /// A port; may be given again
    #[arg(long = "port", value_name = "SPEC", help = PORT_HELP)]
    pub(crate) ports: Vec<Spec>,

    /// Services that packets from the ports pass, in order; `none` for straight from port to port
    #[arg(long, value_name = "IDS", value_parser = chain)]
    pub(crate) chain: Option<Chain>,

    /// Service that packets from the ports go to when there is no --chain
    #[arg(long, value_name = "ID", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4095))]
    pub(crate) default_service: ServiceId,

    /// Services that must have an instance before the ports open [default: those of --chain, else the default service]
    #[arg(long, value_name = "IDS", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=4095))]
    pub(crate) wait: Vec<ServiceId>,

    /// Keep running when every capture has been replayed
    #[arg(long)]
    pub(crate) stay: bool,

    /// Stop after receiving this many packets
    #[arg(short = 'l', long, value_name = "N")]
    pub(crate) packet_limit: Option<u64>,

    /// Stop after this many seconds
    #[arg(short = 't', long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) time_limit: Option<Duration>,

    /// Print statistics every so many seconds; the ledger at the end is always printed
    #[arg(short = 'i', long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) interval: Option<Duration>,

    /// Packet buffers
    #[arg(long, value_name = "N", default_value_t = 32_768)]
    pub(crate) buffers: u32,

    /// Longest IP packet, in bytes; buffers grow with it beyond 2048
    #[arg(long, value_name = "BYTES", default_value_t = 1500, value_parser = clap::value_parser!(u32).range(68..=9216))]
    pub(crate) mtu: u32,

    /// Entries in each ring, a power of two
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = ring_size)]
    pub(crate) ring_size: u32,

    /// Use plain pages even if there are huge ones
    #[arg(long)]
    pub(crate) no_huge: bool,

    /// How long packets wait for a service that has no instance, before they are dropped
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(crate) wait_for_instance: Duration,

    /// Kill an instance that has made no progress for so long while packets wait for it; 0 for never
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds_or_none)]
    pub(crate) hang_timeout: Duration,

    /// Kill an NF that has not set itself up (read its rules, made its tables) after so long; 0 for never
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds_or_none)]
    pub(crate) setup_timeout: Duration,

    /// Directory for the output of NFs that the manager starts [default: beside the control socket, ending in .logs]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) log_dir: Option<PathBuf>,

    /// Services whose instances get copies of packets, in memory that no other NF shares
    #[arg(long, value_name = "IDS", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=4095))]
    pub(crate) isolate: Vec<ServiceId>,

    /// Processor of the worker [default: the first]
    #[arg(short = 'm', long, value_name = "CPU")]
    pub(crate) core: Option<u32>,

    /// Never let the worker sleep: for a processor that nobody else needs
    #[arg(long)]
    pub(crate) poll: bool,

    /// Leave it to the kernel which node runs where
    #[arg(long)]
    pub(crate) no_pin: bool,

    /// Divide a processor that NFs share by what comes for each and what it costs, and turn packets away at the entry of a
    /// chain that has too much to do
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub(crate) fair: crate::fair::Choice,

    /// Mode of the control socket, octal; with more than 600 other users may attach
    #[arg(long, value_name = "MODE", default_value = "600", value_parser = mode)]
    pub(crate) socket_mode: u32,
}

impl Start {
    /// The parser of these options alone.
    pub(crate) fn parser() -> clap::Command {
        Self::augment_args(clap::Command::new("onvm-mgr"))
    }
}

/// What to ask of a running manager.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Show what a running manager has: ports, services, memory
    Status(Common),
    /// List or steer network functions
    Nf {
        #[command(subcommand)]
        command: NfCommand,
    },
    /// List, add or remove ports
    Port {
        #[command(subcommand)]
        command: PortCommand,
    },
    /// Show or change the chain
    Chain {
        #[command(subcommand)]
        command: ChainCommand,
    },
    /// Show all counters
    Stats(Common),
    /// Check that no packet and no buffer is lost; exit code 1 if one is
    Audit(Common),
    /// Stop a running manager: packets inside come out first
    Stop(Common),
}

#[derive(Subcommand, Debug)]
pub(crate) enum ChainCommand {
    /// Show the chain
    Show(Common),
    /// Set the chain, as `1,2,3`, with names of services as `firewall,2`, or `none`
    Set {
        chain: Hops,
        #[command(flatten)]
        common: Common,
    },
}

impl Command {
    /// The options of a client command.
    pub(crate) fn common(&self) -> &Common {
        match self {
            Self::Status(common) | Self::Stats(common) | Self::Audit(common) | Self::Stop(common) => common,
            Self::Nf { command } => command.common(),
            Self::Port { command } => command.common(),
            Self::Chain { command: ChainCommand::Show(common) | ChainCommand::Set { common, .. } } => common,
        }
    }

    /// What it asks.
    ///
    /// # Errors
    /// When it names a service that there is not.
    pub(crate) fn request(&self, id_of: Resolve<'_>) -> Result<Request, Failure> {
        Ok(match self {
            Self::Status(_) => Request::Status,
            Self::Stats(_) => Request::Stats,
            Self::Audit(_) => Request::Audit,
            Self::Stop(_) => Request::Shutdown,
            Self::Nf { command } => command.request(id_of)?,
            Self::Port { command } => command.request()?,
            Self::Chain { command: ChainCommand::Show(_) } => Request::ChainShow,
            Self::Chain { command: ChainCommand::Set { chain, .. } } => {
                Request::ChainSet { chain: chain.0.iter().map(id_of).collect::<Result<_, _>>()? }
            }
        })
    }
}

/// Services in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain(pub(crate) Vec<ServiceId>);

fn chain(text: &str) -> Result<Chain, String> {
    if text == "none" {
        return Ok(Chain(Vec::new()));
    }
    let one = |part: &str| match part.trim().parse::<u16>() {
        Ok(id @ 1..=4095) => Ok(id),
        Ok(id) => Err(format!("service id {id} is out of range 1..=4095")),
        Err(_) => Err(format!("{part:?} is not a service id; a chain is like 1,2,3, or none")),
    };
    let services = text.split(',').map(one).collect::<Result<Vec<_>, _>>()?;
    if services.len() > MAX_CHAIN {
        return Err(format!("a chain of {} hops is longer than {MAX_CHAIN}", services.len()));
    }
    Ok(Chain(services))
}

fn mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|m| *m <= 0o777)
        .ok_or_else(|| format!("{text:?} is not an octal mode like 660"))
}

fn ring_size(text: &str) -> Result<u32, String> {
    let size: u32 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if size.is_power_of_two() && (64..=onvm_lib::ring::MAX_CAPACITY).contains(&size) {
        Ok(size)
    } else {
        Err(format!("{size} is not a power of two in 64..={}", onvm_lib::ring::MAX_CAPACITY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parser_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn chains_are_read() {
        assert_eq!(chain("1,2, 3"), Ok(Chain(vec![1, 2, 3])));
        assert_eq!(chain("none"), Ok(Chain(vec![])));
        assert_eq!(chain("1,0"), Err("service id 0 is out of range 1..=4095".into()));
        assert!(chain("1,,2").is_err() && chain("").is_err());
        assert!(chain(&["1"; 65].join(",")).is_err());
    }
}
