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
use crate::rules::load::{load, text_of};
use crate::rules::{State, UNTAGGED};

/// Looks a trace up.
pub(super) fn run(options: &Options, trace: &Path, json: bool) -> ExitCode {
    match looked_up(options, trace) {
        Ok(numbers) if json => print(&format!("{}\n", serde_json::json!({ "ok": true, "rules": numbers }))),
        Ok(numbers) => {
            let mut text = String::with_capacity(numbers.len() * 6);
            for number in numbers {
                let _ = writeln!(text, "{number}");
            }
            print(&text)
        }
        Err(reason) => failed(&reason, json),
    }
}

/// For each line of the trace the number of its rule, from 1; 0 for none.
fn looked_up(options: &Options, trace: &Path) -> Result<Vec<u32>, String> {
    let loaded = load(&options.rules, &options.reading())?;
    let compiled = Compiled::new(loaded.set);
    let name = trace.display().to_string();
    let text = text_of(trace)?;
    let headers = classbench::trace(&name, &text).map_err(|error| error.to_string())?;
    let times = compiled.times(crate::now_ns());
    let mut numbers = Vec::with_capacity(headers.len());
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
        numbers.push(if index == DEFAULT { 0 } else { index + 1 });
    }
    Ok(numbers)
}
