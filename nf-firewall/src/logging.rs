//! Log lines of rules: to a file as JSON, one object a line, or as text to standard error. A thread writes them
//! (`writer`).
//!
//! Every rule that logs has a bucket of lines; what goes beyond it is counted and told with the next line that may be.

mod writer;

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use crate::engine::buckets::Single;
use crate::engine::checks::Facts;
use crate::rules::{Action, Rule, UNTAGGED};
use writer::Writer;

/// What one line says.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) now_ns: u64,
    pub(crate) rule: &'a Rule,
    pub(crate) facts: &'a Facts,
    pub(crate) bytes: usize,
    /// The rule's limit drops it.
    pub(crate) limited: bool,
}

/// Where log lines go.
#[derive(Debug)]
pub(crate) struct Logging {
    writer: Writer,
    /// As objects; else for people.
    json: bool,
    /// By rule, for those that log; with the lines that were left out since the last.
    rules: Vec<Option<(Single, u64)>>,
    pub(crate) lines: u64,
    /// Lines left out because there were too many.
    pub(crate) suppressed: u64,
}

impl Logging {
    /// To this file, at its end; without one to standard error. A `patient` one waits for a slow reader.
    ///
    /// # Errors
    /// Why the file cannot be opened, or the thread not be started.
    pub(crate) fn new(path: Option<&Path>, patient: bool) -> Result<Self, String> {
        let writer = Writer::open(path, patient)?;
        let json = path.is_some();
        Ok(Self { writer, json, rules: Vec::new(), lines: 0, suppressed: 0 })
    }

    /// Other rules are in force, of which those at the indices `logged` log.
    pub(crate) fn set_rules(&mut self, rules: &[Arc<Rule>], logged: &[u32]) {
        let entry = |rule: &Arc<Rule>| rule.log.as_ref().map(|log| (Single::new(log.limit), 0));
        self.rules.clear();
        for index in logged.iter().map(|index| *index as usize) {
            self.rules.resize(index, None);
            self.rules.push(rules.get(index).and_then(entry));
        }
    }

    /// A rule was put at this index.
    pub(crate) fn inserted(&mut self, index: usize, rule: &Rule) {
        let entry = rule.log.as_ref().map(|log| (Single::new(log.limit), 0));
        if entry.is_some() && index > self.rules.len() {
            self.rules.resize(index, None);
        }
        if index <= self.rules.len() {
            self.rules.insert(index, entry);
        }
    }

    /// The rule at this index was taken out.
    pub(crate) fn removed(&mut self, index: usize) {
        if index < self.rules.len() {
            self.rules.remove(index);
        }
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
        let written = if self.json { json(line, left_out).to_string() } else { text(line, left_out) };
        self.writer.write(written + "\n");
    }

    /// Lines that were lost because the reader does not keep up.
    pub(crate) fn lost(&self) -> u64 {
        self.writer.lost
    }

    /// Lines that could not be written.
    pub(crate) fn failed(&self) -> u64 {
        self.writer.failed()
    }

    /// Waits for the last lines to be written; for a reader that does not read not for long.
    pub(crate) fn close(&mut self) {
        self.writer.close();
    }
}

fn prefix(rule: &Rule) -> &str {
    rule.log.as_ref().map_or("", |log| &log.prefix)
}

fn json(line: &Line<'_>, left_out: u64) -> serde_json::Value {
    let Line { now_ns, rule, facts, bytes, limited } = line;
    let header = &facts.header;
    let mut object = serde_json::json!({
        "time_ns": now_ns,
        "rule": rule.name,
        "line": rule.line,
        "action": told(rule.action, *limited),
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
    let Line { rule, facts, bytes, limited, .. } = line;
    let mut text = format!(
        "nf-firewall: {}{}: {}: {:?}, {bytes} bytes",
        prefix(rule),
        rule.name,
        told(rule.action, *limited),
        facts.header
    );
    if left_out > 0 {
        let _ = write!(text, " ({left_out} lines left out)");
    }
    text
}

fn told(action: Action, limited: bool) -> String {
    match action {
        _ if limited => "deny (over its limit)".into(),
        Action::Continue => "seen".into(),
        action => action.to_string(),
    }
}
