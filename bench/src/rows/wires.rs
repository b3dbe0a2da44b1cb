//! Two wires in a network namespace for whoever forwards between them, and frames into one of their ends as fast as they go.
//!
//! ```text
//! flood ─▶ c0 ──veth── m0 ─▶ who is measured ─▶ m1 ──veth── s0     counts what comes
//! ping at a host ─▶ c0 ──veth── m0 ─▶ who is measured ─▶ m1 ──veth── s0 ─▶ a host that answers
//! ```

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::measure::Error;
use crate::platform::program;

/// Tries until an interface is there, 20 ms apart.
const TRIES: u32 = 200;
/// Address of the host that answers.
pub(super) const FAR: &str = "10.77.0.2";

pub(super) fn ip(arguments: &[&str]) -> Result<String, Error> {
    let end = Command::new("ip").args(arguments).output()?;
    if end.status.success() {
        return Ok(String::from_utf8_lossy(&end.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&end.stderr).trim().to_string();
    Err(Error::new(format!("ip {}: {why}", arguments.join(" "))))
}

/// Network namespaces; they go with this.
pub(super) struct Wires {
    /// Where both wires are, and who forwards.
    name: String,
    /// Those of the two hosts, if there are any.
    hosts: Vec<String>,
}

impl Wires {
    /// Both wires, all ends in one namespace.
    pub(super) fn new() -> Result<Self, Error> {
        let name = format!("onvm-bench-{}", std::process::id());
        ip(&["netns", "add", &name])?;
        let wires = Self { name, hosts: Vec::new() };
        let n = wires.name.as_str();
        let quiet = "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6";
        ip(&["netns", "exec", n, "sh", "-c", quiet])?;
        for (far, near) in [("c0", "m0"), ("s0", "m1")] {
            ip(&["-n", n, "link", "add", far, "type", "veth", "peer", "name", near])?;
            ip(&["-n", n, "link", "set", far, "up"])?;
            ip(&["-n", n, "link", "set", near, "up"])?;
        }
        Ok(wires)
    }

    /// The same, with a host at either end.
    pub(super) fn between_hosts() -> Result<Self, Error> {
        let mut wires = Self::new()?;
        for (end, address) in [("c0", "10.77.0.1"), ("s0", FAR)] {
            let host = format!("{}-{end}", wires.name);
            ip(&["netns", "add", &host])?;
            wires.hosts.push(host.clone());
            ip(&["-n", &wires.name, "link", "set", end, "netns", &host])?;
            ip(&["-n", &host, "addr", "add", &format!("{address}/24"), "dev", end])?;
            ip(&["-n", &host, "link", "set", end, "up"])?;
        }
        Ok(wires)
    }

    /// Joins the two wires by the kernel's bridge.
    pub(super) fn bridge(&self) -> Result<(), Error> {
        let n = self.name.as_str();
        ip(&["-n", n, "link", "add", "br0", "type", "bridge"])?;
        for port in ["m0", "m1"] {
            ip(&["-n", n, "link", "set", port, "master", "br0"])?;
        }
        ip(&["-n", n, "link", "set", "br0", "up"]).map(|_| ())
    }

    /// What starts a program beside who forwards.
    pub(super) fn enter(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.name]
    }

    /// What starts a program at the host that asks.
    pub(super) fn enter_host(&self) -> Result<[&str; 4], Error> {
        let host = self.hosts.first().ok_or_else(|| Error::new("there are no hosts"))?;
        Ok(["ip", "netns", "exec", host])
    }

    /// Packets that have come out.
    pub(super) fn arrived(&self) -> Result<u64, Error> {
        let text = ip(&["netns", "exec", &self.name, "cat", "/proc/net/dev"])?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("s0:"));
        let packets = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|n| n.parse().ok());
        packets.ok_or_else(|| Error::new("s0 counts nothing"))
    }

    fn wait_for(&self, interface: &str) -> Result<(), Error> {
        let mut tries = 0;
        while let Err(error) = ip(&["-n", &self.name, "link", "set", interface, "up"]) {
            tries += 1;
            if tries == TRIES {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        for name in self.hosts.iter().chain([&self.name]) {
            if let Err(error) = ip(&["netns", "del", name]) {
                eprintln!("onvm-bench: a network namespace is left behind: {error}");
            }
        }
    }
}

/// A generator on processor 1, into an end.
pub(super) struct Flood {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Flood {
    /// Starts one, once the interface is there.
    pub(super) fn start(wires: &Wires, interface: &str) -> Result<Self, Error> {
        wires.wait_for(interface)?;
        let directory = tempfile::tempdir()?;
        let enter = wires.enter();
        let child = Command::new(enter[0])
            .args(&enter[1..])
            .arg(program("onvm-mgr")?)
            .args(["-m", "1", "--no-huge", "--poll", "--chain", "none", "--port", "gen:size=64,flows=16"])
            .args(["--port", &format!("afpacket:{interface},promiscuous=no")])
            .env("ONVM_SOCKET", directory.path().join("s"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, _directory: directory })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
