//! DPDK's librte_acl in a process of its own, asked line by line (`dpdk/acl.c`).

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use ipnet::IpNet;
use onvm_classifier::{Header, Rule5};

use crate::measure::{Error, Span};
use crate::platform::program;
use crate::rules::RuleSet;

/// A process with rules built in, and headers to look up.
pub(crate) struct Acl {
    child: Child,
    asks: ChildStdin,
    says: BufReader<ChildStdout>,
    directory: tempfile::TempDir,
    /// How long building took.
    pub(crate) seconds: f64,
    /// Memory that it takes.
    pub(crate) bytes: f64,
    /// Which of its ways it goes.
    pub(crate) algorithm: String,
}

impl Acl {
    /// Starts it on a processor: with huge pages if there are enough, else without.
    pub(crate) fn start(set: &RuleSet, core: u32) -> Result<Acl, Error> {
        if set.headers.iter().any(Header::is_v6) {
            return Err(Error::new("set up for IPv4 here"));
        }
        Acl::start_with(set, core, "huge").or_else(|_| Acl::start_with(set, core, "plain"))
    }

    fn start_with(set: &RuleSet, core: u32, pages: &str) -> Result<Acl, Error> {
        let path = program("dpdk-acl").map_err(|_| Error::new("libdpdk-dev is missing"))?;
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("set");
        std::fs::write(&file, prepared(set))?;
        let mut command = Command::new("timeout");
        command.args(["--kill-after=1", "300"]).arg(path).arg(file).args([&core.to_string(), pages]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let (Some(asks), Some(says)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::new("no pipes to librte_acl"));
        };
        let says = BufReader::new(says);
        let (seconds, bytes, algorithm) = (0.0, 0.0, String::new());
        let mut acl = Acl { child, asks, says, directory, seconds, bytes, algorithm };
        let built = acl.line()?;
        let words: Vec<&str> = built.split_whitespace().collect();
        let &["built", seconds, bytes, algorithm] = &words[..] else {
            return Err(Error::new(format!("librte_acl says {built:?}")));
        };
        (acl.seconds, acl.bytes) = (number(seconds)?, number(bytes)?);
        acl.algorithm = format!("{algorithm}, {pages} pages");
        Ok(acl)
    }

    fn line(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        if self.says.read_line(&mut line)? == 0 {
            return Err(Error::new("librte_acl gave up"));
        }
        Ok(line.trim().to_string())
    }

    /// Lookups a second.
    pub(crate) fn rate(&mut self, span: Span) -> Result<f64, Error> {
        writeln!(self.asks, "run {}", span.warm.as_millis())?;
        self.line()?;
        writeln!(self.asks, "run {}", span.run.as_millis())?;
        number(&self.line()?)
    }

    /// What it finds for each header.
    pub(crate) fn answers(&mut self) -> Result<Vec<u32>, Error> {
        let out = self.directory.path().join("answers");
        writeln!(self.asks, "answers {}", out.display())?;
        self.line()?;
        let bytes = std::fs::read(out)?;
        Ok(bytes
            .chunks_exact(4)
            .map(|four| u32::from_le_bytes(four.try_into().unwrap_or_default()))
            .collect())
    }
}

impl Drop for Acl {
    fn drop(&mut self) {
        // `timeout` passes the signal on.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

fn number(text: &str) -> Result<f64, Error> {
    text.parse().map_err(|_| Error::new(format!("librte_acl says {text:?}")))
}

/// The set as the program reads it.
fn prepared(set: &RuleSet) -> Vec<u8> {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let mut words = vec![count(set.rules.len()), count(set.headers.len())];
    set.rules.iter().for_each(|rule| words.extend(rule_words(rule)));
    set.headers.iter().for_each(|header| words.extend(header_words(header)));
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn rule_words(rule: &Rule5) -> [u32; 10] {
    let net = |net: Option<IpNet>| match net {
        Some(IpNet::V4(net)) => (net.network().to_bits(), u32::from(net.prefix_len())),
        _ => (0, 0),
    };
    let (source, destination) = (net(rule.source), net(rule.destination));
    [
        source.0,
        source.1,
        destination.0,
        destination.1,
        rule.source_ports.first.into(),
        rule.source_ports.last.into(),
        rule.destination_ports.first.into(),
        rule.destination_ports.last.into(),
        rule.protocol.into(),
        rule.protocol_mask.into(),
    ]
}

fn header_words(header: &Header) -> [u32; 5] {
    let bits = |address| match address {
        std::net::IpAddr::V4(address) => address.to_bits(),
        std::net::IpAddr::V6(_) => 0,
    };
    [
        bits(header.source()),
        bits(header.destination()),
        header.source_port().into(),
        header.destination_port().into(),
        header.protocol().into(),
    ]
}
