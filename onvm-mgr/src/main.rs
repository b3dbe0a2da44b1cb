//! The manager: owns ports and packet memory, routes packets between network functions.
//!
//! Two threads do the work. The worker (`worker`) touches packets; the control thread (`server`, this one) talks to NFs,
//! clients and the kernel, and tells the worker what to do between two bursts. They talk over two channels, and share counters
//! that only one of them writes. Threads beside wait for deaths (`watchman`).
#![deny(unsafe_code)]

mod autoscale;
mod cli;
mod client;
mod cores;
mod events;
mod fair;
mod life;
mod load;
mod plan;
mod ports;
mod server;
mod slots;
mod supervisor;
mod tables;
mod watchman;
mod worker;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let cli = cli::Cli::parse_from(&arguments);
    let outcome = match cli.command {
        Some(cli::Commands::Ask(command)) => client::ask(&command),
        Some(cli::Commands::Watch(command)) => client::watch(&command),
        Some(cli::Commands::Plan(command)) => client::plan(&command, &arguments),
        None => start(&cli, &arguments),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("onvm-mgr: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a manager, with a chain file if the command line names one.
fn start(cli: &cli::Cli, arguments: &[OsString]) -> Result<ExitCode, client::Failure> {
    let Some(file) = &cli.config else {
        return server::run(&cli.start, plan::Plan::from_command_line(&cli.start));
    };
    match cli::with_file(client::load(file)?, arguments) {
        Ok((start, plan)) => server::run(&start, plan),
        Err(error) => error.exit(),
    }
}
