//! The command line, beside what every network function has.

use std::path::PathBuf;

use clap::Args;

use crate::rules::Format;
use crate::rules::iptables::{Choices, Interface};
use crate::rules::load::Reading;

/// Options of its own.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Rule file: YAML, a ClassBench filter set, or what iptables-save prints
    #[arg(long, value_name = "FILE", help_heading = "Rules")]
    pub(crate) rules: PathBuf,

    /// What the rule file is [default: it says so itself]
    #[arg(long, value_enum, help_heading = "Rules")]
    pub(crate) format: Option<Format>,

    /// Read the rule file anew whenever it changes, as on SIGHUP and on the message `reload`
    #[arg(long, help_heading = "Rules")]
    pub(crate) watch: bool,

    /// Refuse a file with anything that cannot be expressed, or that is probably not what was meant; with --check also
    /// one with rules that decide nothing
    #[arg(long, help_heading = "Rules")]
    pub(crate) strict: bool,

    /// iptables-save: the built-in chain of the table `filter` that packets go through
    #[arg(long, value_name = "NAME", default_value = "FORWARD", help_heading = "Rules")]
    pub(crate) chain: String,

    /// iptables-save: the input port that an interface stands for; may be given for each interface
    #[arg(long = "interface", value_name = "NAME=PORT", help_heading = "Rules")]
    pub(crate) interfaces: Vec<Interface>,

    /// Look for mistakes and for rules that decide nothing, say what the set holds, and end
    #[arg(long, help_heading = "Rules")]
    pub(crate) check: bool,

    /// Say which rule decides on a packet like `tcp 10.0.0.1:1234 > 1.2.3.4:443 flags syn vlan 7`, and why, and end
    #[arg(long, value_name = "PACKET", conflicts_with = "check", help_heading = "Rules")]
    pub(crate) explain: Option<String>,

    /// Print the number of the first matching rule, from 1, for each line of a ClassBench trace, 0 if none does, and end
    #[arg(long, value_name = "TRACE", conflicts_with_all = ["check", "explain"], help_heading = "Rules")]
    pub(crate) lookup: Option<PathBuf>,

    /// Decide on what tunnels carry (IP in IP, GRE, VXLAN, Geneve) instead of on the tunnel
    #[arg(long)]
    pub(crate) inner: bool,

    /// Decisions kept in front of the classifier, one for each direction of a flow; 0 for none
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(0..=16_777_216))]
    pub(crate) cache: u32,

    /// Track connections even if no rule asks for their state
    #[arg(long, help_heading = "Connections")]
    pub(crate) track: bool,

    /// Connections kept at most, 173 bytes each; half-open ones make room for others
    #[arg(long, value_name = "N", default_value_t = 262_144, help_heading = "Connections",
          value_parser = clap::value_parser!(u32).range(1..=67_108_864))]
    pub(crate) connections: u32,

    /// Take TCP connections that were there before the firewall for invalid, instead of new
    #[arg(long, help_heading = "Connections")]
    pub(crate) no_pick_up: bool,

    /// Seconds that an established TCP connection may be silent
    #[arg(long, value_name = "SECONDS", default_value_t = 432_000, help_heading = "Connections",
          value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) tcp_timeout: u32,

    /// Append log lines of rules to this file, as JSON [default: as text to standard error]
    #[arg(long, value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,
}

impl Options {
    /// How rule files are read.
    pub(crate) fn reading(&self) -> Reading {
        Reading {
            format: self.format,
            iptables: Choices {
                chain: self.chain.clone(),
                interfaces: self.interfaces.clone(),
                strict: self.strict,
            },
        }
    }
}
