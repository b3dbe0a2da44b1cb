//! What the program is told on its command line.

mod compile;
mod variables;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::engine::{Mode, Settings};
use crate::stream::Policy;

pub use compile::{Rules, check, compile, read_rules};

/// Whether checksums are verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Checksums {
    /// TCP segments with a wrong checksum are in no stream.
    #[default]
    All,
    /// None is verified: captures of a host that leaves them to its card have wrong ones.
    None,
}

/// Which data counts where segments or fragments overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "each is told by its name and the manual")]
pub enum Overlap {
    #[default]
    Bsd,
    Linux,
    OldLinux,
    Solaris,
    Hpux11,
    Macos,
    Windows,
    Vista,
    First,
    Last,
}

impl From<Overlap> for Policy {
    fn from(overlap: Overlap) -> Self {
        match overlap {
            Overlap::Bsd => Self::Bsd,
            Overlap::Linux => Self::Linux,
            Overlap::OldLinux => Self::OldLinux,
            Overlap::Solaris => Self::Solaris,
            Overlap::Hpux11 => Self::Hpux11,
            Overlap::Macos => Self::Macos,
            Overlap::Windows => Self::Windows,
            Overlap::Vista => Self::Vista,
            Overlap::First => Self::First,
            Overlap::Last => Self::Last,
        }
    }
}

/// Options of its own.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Rule files, plain or gzip; may be given more than once
    #[arg(long, value_name = "FILE", required = true, num_args = 1.., help_heading = "Rules")]
    pub rules: Vec<PathBuf>,

    /// Variables of the rules.
    #[arg(
        short = 'S',
        long = "set",
        value_name = "VAR=VALUE",
        help_heading = "Rules",
        help = "Define a variable of the rules, as HOME_NET=[10.0.0.0/8,!10.1.0.0/16] or HTTP_PORTS=[80,8080]"
    )]
    pub set: Vec<String>,

    /// Define variables by a YAML file with address-groups and port-groups, as in suricata.yaml
    #[arg(long, value_name = "FILE", help_heading = "Rules")]
    pub vars: Option<PathBuf>,

    /// Read classes and priorities from a classification.config [default: those of usual rule sets]
    #[arg(long, value_name = "FILE", help_heading = "Rules")]
    pub classification: Option<PathBuf>,

    /// Read limits of rules from a threshold.config: suppress, threshold (event_filter), rate_filter
    #[arg(long, value_name = "FILE", help_heading = "Rules")]
    pub threshold_file: Option<PathBuf>,

    /// Keep the sets that rules fill (`dataset` with `save` or `state`) in this folder; without it such rules are refused
    #[arg(long, value_name = "FOLDER", help_heading = "Rules")]
    pub data: Option<PathBuf>,

    /// Refuse rule files with a rule that cannot be used, instead of naming it and going on without it
    #[arg(long, help_heading = "Rules")]
    pub strict: bool,

    /// Read the rules anew whenever a file changes, as on SIGHUP and on the message `reload`
    #[arg(long, help_heading = "Rules")]
    pub watch: bool,

    /// Read the rules, say what cannot be used and why, and end
    #[arg(long, help_heading = "Rules")]
    pub check: bool,

    /// Write alerts and what is known of their protocols as JSON, a line each; `-` is standard output
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub eve: Option<PathBuf>,

    /// What --eve writes: alert, http, dns, tls, ssh, fileinfo, drop, flow, anomaly, stats, or all; a list
    #[arg(long, value_name = "KINDS", default_value = "alert", help_heading = "Output")]
    pub eve_types: String,

    /// Write alerts as one line of text each; `-` is standard output
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub fast: Option<PathBuf>,

    /// Which checksums are verified
    #[arg(short = 'k', long, value_enum, default_value_t = Checksums::All, help_heading = "Streams")]
    pub checksums: Checksums,

    /// Follow TCP sessions whose beginning was not seen
    #[arg(long, help_heading = "Streams")]
    pub midstream: bool,

    /// Follow TCP sessions of which only one side is seen
    #[arg(long = "async", help_heading = "Streams")]
    pub asynchronous: bool,

    /// In a replay: inspect data as it arrives and drop what rules drop, as live; without it, data is inspected when it
    /// is acknowledged
    #[arg(long, conflicts_with = "passive", help_heading = "Streams")]
    pub inline: bool,

    /// Live: look on only; nothing is dropped, and data is inspected when it is acknowledged
    #[arg(long, help_heading = "Streams")]
    pub passive: bool,

    /// What counts where segments or fragments overlap with different content: what the hosts behind would make of it
    #[arg(long, value_enum, value_name = "POLICY", default_value_t = Overlap::Bsd, help_heading = "Streams")]
    pub overlap: Overlap,

    /// Bytes of each direction of a TCP session that are put in order, in KiB; 0 for all
    #[arg(long, value_name = "KIB", default_value_t = 1024, help_heading = "Streams")]
    pub depth: u32,

    /// Bytes of each HTTP body that are kept and looked at, in KiB; of what is longer there is no hash
    #[arg(long, value_name = "KIB", default_value_t = 100, help_heading = "Streams",
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub body: u32,

    /// Decode HTTP/1 bodies in LZMA, which browsers do not
    #[arg(long, help_heading = "Streams")]
    pub lzma: bool,

    /// Flows that are followed at most
    #[arg(long, value_name = "N", default_value_t = 262_144, help_heading = "Streams",
          value_parser = clap::value_parser!(u32).range(1..=67_108_864))]
    pub flows: u32,

    /// Memory for streams that wait and for transactions, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256, help_heading = "Streams",
          value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub stream_memory: u32,
}

impl Options {
    /// When data is inspected, and whether verdicts count.
    #[must_use]
    pub fn mode(&self, replay: bool) -> Mode {
        let inline = if replay { self.inline } else { !self.passive };
        if inline { Mode::Inline } else { Mode::Ids }
    }

    /// All files that the rules are made of.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let further = self.vars.iter().chain(&self.classification).chain(&self.threshold_file);
        self.rules.iter().chain(further).cloned().collect()
    }

    /// How the engine is set.
    #[must_use]
    pub fn settings(&self, replay: bool) -> Settings {
        let mut settings = Settings::of(self.mode(replay));
        settings.stream.midstream = self.midstream;
        settings.stream.asynchronous = self.asynchronous;
        settings.stream.policy = self.overlap.into();
        settings.defrag.policy = self.overlap.into();
        settings.stream.depth = u64::from(self.depth) << 10;
        settings.ignore_checksums = self.checksums == Checksums::None;
        let body = (self.body as usize) << 10;
        (settings.app.request_body, settings.app.response_body) = (body, body);
        settings.app.lzma = self.lzma;
        settings.bounds.flows = self.flows as usize;
        settings.bounds.stream_memory = (self.stream_memory as usize) << 20;
        settings
    }
}
