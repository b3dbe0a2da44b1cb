//! `--lookup`: the first matching rule of each line of a ClassBench trace.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use onvm_classifier::classbench;

use super::{failed, print};
use crate::engine::checks::Facts;
use crate::engine::{Compiled, DEFAULT};
use crate::options::Options;
use crate::packet::NO_PORT;
use crate::rules::load::load;
use crate::rules::{State, UNTAGGED};

/// Looks a trace up.
pub(super) fn run(options: &Options, trace: &Path) -> ExitCode {
    match looked_up(options, trace) {
        Ok(text) => print(&text),
        Err(reason) => failed(&reason),
    }
}

fn looked_up(options: &Options, trace: &Path) -> Result<String, String> {
    let loaded = load(&options.rules, &options.reading())?;
    let compiled = Compiled::new(loaded.set);
    let name = trace.display().to_string();
    let text = std::fs::read_to_string(trace).map_err(|error| format!("{name}: {error}"))?;
    let headers = classbench::trace(&name, &text).map_err(|error| error.to_string())?;
    let times = compiled.times(crate::now_ns());
    let mut numbers = String::with_capacity(headers.len() * 6);
    for header in headers {
        // A trace has five fields; the rest is that of a first packet without more to it.
        let facts = Facts {
            header,
            flags: 0x02,
            icmp: 0,
            vlan: UNTAGGED,
            inner_vlan: UNTAGGED,
            in_port: NO_PORT,
            state: State::New,
            mark: 0,
        };
        let (index, _) = compiled.first(&facts, times, 0, |_| true);
        let _ = writeln!(numbers, "{}", if index == DEFAULT { 0 } else { index + 1 });
    }
    Ok(numbers)
}
