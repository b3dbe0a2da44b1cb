//! onvm-bench: how fast the platform is, against the plainest rings that can be and against DPDK.
//!
//! All figures of a line are of one run, measured in turn, and medians: the machine may be busy, so ratios say
//! more than figures. `scripts/bench.sh` sets up what it needs.
#![deny(unsafe_code)]

mod acl;
mod bare;
mod machine;
mod measure;
mod platform;
mod rows;
mod rules;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use measure::{Effort, Span};
use rows::{ROWS, Row};

/// Measures the platform against bare rings and DPDK
#[derive(Parser, Debug)]
#[command(name = "onvm-bench", version)]
struct Cli {
    /// Rows to measure [default: all]; see --list
    rows: Vec<String>,

    /// List the rows
    #[arg(long)]
    list: bool,

    /// Fewer and shorter rounds
    #[arg(long)]
    quick: bool,

    /// Rounds to take the median of
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    rounds: Option<u8>,

    /// Print lines of JSON
    #[arg(long)]
    json: bool,

    /// Do not ask for priority over what else runs on the machine
    #[arg(long)]
    no_priority: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|a| a == "bare") {
        return match bare::child(&arguments[2..]) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("onvm-bench: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let cli = Cli::parse();
    if cli.list {
        ROWS.iter().for_each(|row| println!("{:<10} {}", row.name, row.about));
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = cli.rows.iter().find(|name| ROWS.iter().all(|row| row.name != **name)) {
        eprintln!("onvm-bench: there is no row {unknown:?}; --list shows all");
        return ExitCode::from(2);
    }
    if machine::cores() < 2 {
        eprintln!("onvm-bench: two processors are needed");
        return ExitCode::FAILURE;
    }
    measure_all(&cli);
    ExitCode::SUCCESS
}

fn measure_all(cli: &Cli) {
    let span = if cli.quick {
        Span { warm: Duration::from_millis(300), run: Duration::from_millis(400) }
    } else {
        Span { warm: Duration::from_secs(1), run: Duration::from_secs(1) }
    };
    let rounds = cli.rounds.map_or(if cli.quick { 3 } else { 5 }, usize::from);
    let effort = Effort { rounds, span, quick: cli.quick };
    let priority = (!cli.no_priority).then(machine::Priority::raise);
    if !cli.json {
        let raised =
            if priority.as_ref().is_some_and(machine::Priority::raised) { "raised" } else { "normal" };
        println!(
            "{}, {} cores, load {}, priority {raised}; medians of {rounds} alternating rounds\n",
            machine::processor(),
            machine::cores(),
            machine::load()
        );
        table::print_heading();
    }
    let wanted = |row: &&Row| cli.rows.is_empty() || cli.rows.iter().any(|name| name == row.name);
    for row in ROWS.iter().filter(wanted) {
        for line in (row.run)(effort) {
            if cli.json {
                println!("{}", table::as_json(row.name, &line));
            } else {
                table::print_line(&line);
            }
        }
    }
}
