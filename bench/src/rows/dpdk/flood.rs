//! Two wires in a network namespace, and frames into one of their ends as fast as they go.
//!
//! ```text
//! flood ─▶ c0 ──veth── m0 ─▶ who is measured ─▶ m1 ──veth── s0     drops what comes
//! ```

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::measure::Error;
use crate::platform::program;

/// How long interfaces may take to come up.
const PATIENCE: u32 = 200;

/// A network namespace; it goes with this.
pub(super) struct Space {
    name: String,
}

fn run(arguments: &[&str]) -> Result<(), Error> {
    let end = Command::new("ip").args(arguments).output()?;
    if end.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&end.stderr).trim().to_string();
    Err(Error::new(format!("ip {}: {why}", arguments.join(" "))))
}

impl Space {
    /// One with both wires.
    pub(super) fn new() -> Result<Self, Error> {
        let name = format!("onvm-bench-{}", std::process::id());
        run(&["netns", "add", &name])?;
        let space = Self { name };
        let n = space.name.as_str();
        let quiet = "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6";
        run(&["netns", "exec", n, "sh", "-c", quiet])?;
        for (far, near) in [("c0", "m0"), ("s0", "m1")] {
            run(&["-n", n, "link", "add", far, "type", "veth", "peer", "name", near])?;
            run(&["-n", n, "link", "set", far, "up"])?;
            run(&["-n", n, "link", "set", near, "up"])?;
        }
        Ok(space)
    }

    /// What starts a program in it.
    pub(super) fn enter(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name].map(String::from).to_vec()
    }

    fn wait_for(&self, interface: &str) -> Result<(), Error> {
        let mut tries = 0;
        while let Err(error) = run(&["-n", &self.name, "link", "set", interface, "up"]) {
            tries += 1;
            if tries == PATIENCE {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if let Err(error) = run(&["netns", "del", &self.name]) {
            eprintln!("onvm-bench: a network namespace is left behind: {error}");
        }
    }
}

/// A generator on processor 1.
pub(super) struct Flood {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Flood {
    /// Starts one into an interface, once that is there.
    pub(super) fn start(space: &Space, interface: &str) -> Result<Self, Error> {
        space.wait_for(interface)?;
        let directory = tempfile::tempdir()?;
        let enter = space.enter();
        let child = Command::new(&enter[0])
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
}

impl Drop for Flood {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
