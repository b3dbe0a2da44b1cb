//! The manager: owns ports and packet memory, routes packets between network functions.
//!
//! Two threads. The worker (`worker`) touches packets; the control thread (`server`, this one) talks to NFs,
//! clients and the kernel, and tells the worker what to do between two bursts. They share nothing but two channels.
#![forbid(unsafe_code)]

mod cli;
mod client;
mod cores;
mod events;
mod life;
mod plan;
mod ports;
mod server;
mod slots;
mod supervisor;
mod tables;
mod worker;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let cli = cli::Cli::parse();
    let outcome = match cli.command {
        Some(command) => {
            let (common, request) = command.request();
            client::ask(&common, &request)
        }
        None => server::run(&cli.start, plan::Plan::from_command_line(&cli.start)),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("onvm-mgr: {error}");
            ExitCode::FAILURE
        }
    }
}
