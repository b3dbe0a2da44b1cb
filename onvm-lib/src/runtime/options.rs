//! The command line that all NFs share.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser};

use super::NetworkFunction;
use crate::arguments::{seconds, seconds_or_none};
use crate::protocol::{InstanceId, ServiceId};

/// For NFs that have no options of their own.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct NoOptions {}

/// Options that every NF has, with the letters that openNetVM gave them.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of every network function")]
pub struct Common {
    /// Service id of this NF, 1 to 4095
    #[arg(short = 'r', long, value_name = "ID", required_unless_present = "replay",
          value_parser = clap::value_parser!(u16).range(1..=4095))]
    pub service_id: Option<ServiceId>,

    /// Service id that packets go to next; without it they follow the chain, and at its end go out
    #[arg(short = 'd', long, value_name = "ID", value_parser = clap::value_parser!(u16).range(1..=4095))]
    pub destination: Option<ServiceId>,

    /// Instance id to ask for; the manager chooses one otherwise
    #[arg(short = 'n', long, value_name = "ID", value_parser = clap::value_parser!(u32).range(1..))]
    pub instance_id: Option<InstanceId>,

    /// Processor to run on; without --shared-core it is polled and never given away
    #[arg(short = 'm', long, value_name = "CPU")]
    pub core: Option<u32>,

    /// Share the processor with other NFs: yield and sleep when idle
    #[arg(short = 's', long)]
    pub shared_core: bool,

    /// Leave after this many seconds
    #[arg(short = 't', long, value_name = "SECONDS", value_parser = seconds)]
    pub time_limit: Option<Duration>,

    /// Leave after this many packets have come in
    #[arg(short = 'l', long, value_name = "N")]
    pub packet_limit: Option<u64>,

    /// Print a report every so many seconds; one at the end is always printed
    #[arg(short = 'p', long, value_name = "SECONDS", value_parser = seconds)]
    pub print_interval: Option<Duration>,

    /// Name in the manager's tables [default: the program's name]
    #[arg(long)]
    pub name: Option<String>,

    /// Control socket of the manager [default: $ONVM_SOCKET, else onvm.sock in $XDG_RUNTIME_DIR, in /run for root, else /tmp/onvm-UID.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Wait this many seconds for a manager that is gone, and go on with the next one; 0: leave at once
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds_or_none)]
    pub reattach: Duration,

    /// Print reports as lines of JSON
    #[arg(long)]
    pub json: bool,

    /// Read options from a YAML file (`destination: 2`); the command line wins
    #[arg(short = 'F', long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Run alone over a pcap or pcapng file, without a manager; - is standard input
    #[arg(long, value_name = "CAPTURE", help_heading = "Replay")]
    pub replay: Option<PathBuf>,

    /// Write what comes out of the replay (.pcap or .pcapng); - is standard output
    #[arg(long, value_name = "CAPTURE", requires = "replay", help_heading = "Replay")]
    pub write: Option<PathBuf>,
}

#[derive(Parser)]
#[command(args_override_self = true)]
struct Cli<O: Args> {
    #[command(flatten)]
    own: O,
    #[command(flatten)]
    common: Common,
}

/// A parsed command line.
pub(super) struct Invocation<O> {
    pub(super) own: O,
    pub(super) common: Common,
    /// The arguments for a child: those of this NF that are not its alone, the options file put in.
    pub(super) for_children: Vec<OsString>,
}

/// The parser of an NF's command line.
pub(super) fn command<N: NetworkFunction>() -> clap::Command {
    let plain = Cli::<N::Options>::command();
    let command = N::ALONE.iter().fold(plain, |command, option| {
        command.mut_arg("service_id", |id| id.required_unless_present(*option))
    });
    command.name(N::NAME).about(N::ABOUT).version(env!("CARGO_PKG_VERSION")).after_help(
        "Run it live between a manager's ports (-r 1 -d 2), or alone over a capture (--replay in.pcap \
         --write out.pcap).\nLogs: RUST_LOG=info. Exit codes: 0 done, 1 failed, 2 wrong command line.",
    )
}

/// Parses a command line and the file that it may name.
pub(super) fn parse<N: NetworkFunction>(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Invocation<N::Options>, ExitCode> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut command = command::<N>();
    let has_file = super::config::named_file(&arguments).is_some();
    let arguments = super::config::with_file(&command, arguments).map_err(|error| {
        eprintln!("{}: {error}", N::NAME);
        ExitCode::from(2)
    })?;
    let for_children = super::children::without(&command, &arguments, &["instance-id", "core", "config"]);
    let parsed =
        command.try_get_matches_from_mut(arguments).and_then(|m| Cli::<N::Options>::from_arg_matches(&m));
    match parsed {
        Ok(Cli { common, .. }) if common.config.is_some() && !has_file => {
            eprintln!("{}: -F FILE must stand by itself, not in a group of letters", N::NAME);
            Err(ExitCode::from(2))
        }
        Ok(Cli { own, common }) => Ok(Invocation { own, common, for_children }),
        Err(error) => {
            // Help and version are no failures, and go to standard output.
            let _ = error.print();
            Err(if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS })
        }
    }
}
