//! Log lines of rules: to a file as JSON, one object a line, or as text to standard error.
//!
//! Every rule that logs has a bucket of lines; what goes beyond it is counted and told with the next line that may be.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::engine::buckets::Single;
use crate::engine::checks::Facts;
use crate::rules::{Action, Rule, UNTAGGED};

/// What one line says.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) now_ns: u64,
    pub(crate) rule: &'a Rule,
    pub(crate) facts: &'a Facts,
    pub(crate) bytes: usize,
}

/// Where log lines go.
#[derive(Debug)]
pub(crate) struct Logging {
    file: Option<BufWriter<File>>,
    /// By rule, for those that log; with the lines that were left out since the last.
    rules: Vec<Option<(Single, u64)>>,
    pub(crate) lines: u64,
    /// Lines left out because there were too many.
    pub(crate) suppressed: u64,
    /// Lines that could not be written.
    pub(crate) failed: u64,
}

impl Logging {
    /// To this file, at its end; without one to standard error.
    ///
    /// # Errors
    /// Why the file cannot be opened.
    pub(crate) fn new(path: Option<&Path>, rules: &[Rule]) -> Result<Self, String> {
        let file = match path {
            None => None,
            Some(path) => {
                let file = File::options().create(true).append(true).open(path);
                Some(BufWriter::new(file.map_err(|error| format!("{}: {error}", path.display()))?))
            }
        };
        let mut logging = Self { file, rules: Vec::new(), lines: 0, suppressed: 0, failed: 0 };
        logging.set_rules(rules);
        Ok(logging)
    }

    /// Other rules are in force.
    pub(crate) fn set_rules(&mut self, rules: &[Rule]) {
        self.rules = if rules.iter().any(|rule| rule.log.is_some()) {
            rules.iter().map(|rule| rule.log.as_ref().map(|log| (Single::new(log.limit), 0))).collect()
        } else {
            Vec::new()
        };
    }

    /// Writes a line for a packet that a rule matched, if the rule logs and may.
    pub(crate) fn matched(&mut self, index: u32, line: &Line<'_>) {
        let Some(Some((bucket, left_out))) = self.rules.get_mut(index as usize) else { return };
        if !bucket.take(line.now_ns) {
            *left_out += 1;
            self.suppressed += 1;
            return;
        }
        let left_out = std::mem::take(left_out);
        self.lines += 1;
        let written = match &mut self.file {
            Some(file) => writeln!(file, "{}", json(line, left_out)),
            None => writeln!(std::io::stderr().lock(), "{}", text(line, left_out)),
        };
        if written.is_err() {
            self.failed += 1;
        }
    }

    /// Time has passed: what was written becomes visible.
    pub(crate) fn flush(&mut self) {
        if let Some(file) = &mut self.file
            && file.flush().is_err()
        {
            self.failed += 1;
        }
    }
}

fn prefix(rule: &Rule) -> &str {
    rule.log.as_ref().map_or("", |log| &log.prefix)
}

fn json(line: &Line<'_>, left_out: u64) -> serde_json::Value {
    let Line { now_ns, rule, facts, bytes } = line;
    let header = &facts.header;
    let mut object = serde_json::json!({
        "time_ns": now_ns,
        "rule": rule.name,
        "line": rule.line,
        "action": rule.action.to_string(),
        "from": header.source(),
        "to": header.destination(),
        "protocol": header.protocol(),
        "state": facts.state.to_string(),
        "bytes": bytes,
    });
    let mut set = |key: &str, value: serde_json::Value| object[key] = value;
    if header.source_port() != 0 || header.destination_port() != 0 {
        set("from_port", header.source_port().into());
        set("to_port", header.destination_port().into());
    }
    match header.protocol() {
        6 => set("flags", facts.flags.into()),
        1 | 58 => {
            set("icmp_type", (facts.icmp >> 8).into());
            set("icmp_code", (facts.icmp & 255).into());
        }
        _ => {}
    }
    if facts.vlan != UNTAGGED {
        set("vlan", facts.vlan.into());
    }
    if facts.in_port != crate::packet::NO_PORT {
        set("in_port", facts.in_port.into());
    }
    if facts.mark != 0 {
        set("mark", facts.mark.into());
    }
    if !prefix(rule).is_empty() {
        set("prefix", prefix(rule).into());
    }
    if left_out > 0 {
        set("left_out", left_out.into());
    }
    object
}

fn text(line: &Line<'_>, left_out: u64) -> String {
    let Line { rule, facts, bytes, .. } = line;
    let mut text = format!(
        "nf-firewall: {}{}: {}: {:?}, {bytes} bytes",
        prefix(rule),
        rule.name,
        told(rule.action),
        facts.header
    );
    if left_out > 0 {
        let _ = write!(text, " ({left_out} lines left out)");
    }
    text
}

fn told(action: Action) -> String {
    if action == Action::Continue { "seen".into() } else { action.to_string() }
}
