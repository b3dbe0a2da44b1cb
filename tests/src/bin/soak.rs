//! Has NFs killed, hung, scaled, replaced and steered at random under traffic, and managers die: see `onvm_tests::soak`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use onvm_tests::soak;

/// NFs are killed, hung, scaled, replaced and steered at random under traffic, and managers die. Exit code 1 when anything
/// happened that must not.
#[derive(Parser, Debug)]
struct Options {
    /// How long, in seconds
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Repeats the choices of an earlier run
    #[arg(long)]
    seed: Option<u64>,
    /// Numbered packets per second
    #[arg(long, default_value_t = 20_000)]
    rate: u64,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Print what is done on standard error
    #[arg(long)]
    verbose: bool,
    /// Leave an operation out, by its name in the report; may be given again
    #[arg(long, value_name = "OPERATION")]
    without: Vec<String>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seed = options.seed.unwrap_or(u64::from(since.subsec_nanos()));
    eprintln!("soak: {} seconds, --seed {seed}", options.seconds);
    let Options { seconds, rate, verbose, without, .. } = options;
    match soak::run(&soak::Options { seconds, seed, rate, verbose, without }) {
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
        Ok(report) => {
            if options.json {
                println!("{}", report.json());
            } else {
                print!("{}", report.text());
            }
            if report.violation.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
    }
}
