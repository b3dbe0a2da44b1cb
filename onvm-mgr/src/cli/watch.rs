//! Commands that read on: what happens, and what network functions write.

use clap::{Args, Subcommand};

use super::Common;
use super::nf::Those;

#[derive(Subcommand, Debug)]
pub(crate) enum WatchCommand {
    /// Show what happened, when, and why: starts, states, ends, changes of routes
    Events(Events),
    /// Show the output of network functions that the manager has started
    Logs(Logs),
}

#[derive(Args, Debug)]
pub(crate) struct Events {
    /// Stay, and show events as they happen, until Ctrl-C or the end of the manager
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Show only events after the one with this number
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) after: u64,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct Logs {
    #[command(flatten)]
    pub(crate) those: Those,
    /// Stay, and show lines as they are written, those of new instances among them, until Ctrl-C, the end of the instance
    /// or the end of the manager
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Begin with so many lines of each instance
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) lines: usize,
}
