//! A wire between two hosts that the test's manager bridges, in network namespaces of its own.
//!
//! ```text
//! client namespace          namespace of the test's thread           server namespace
//! c0 10.77.0.1 ──veth── m0   onvm-mgr, NFs   m1 ──veth── s0 10.77.0.2
//! ```
//! All ends are the kernel's, with every offload that veth has. Programs that the thread starts run where the thread is.

use std::fs::File;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Address of the server.
pub const SERVER: &str = "10.77.0.2";
/// The same by IPv6.
pub const SERVER_V6: &str = "fd77::2";

/// The namespaces; they are removed with it, and what runs in them is ended.
#[derive(Debug)]
pub struct Wire {
    client: String,
    middle: String,
    server: String,
    /// Others that a test has made.
    more: Vec<String>,
}

fn run(program: &str, arguments: &[&str]) {
    let end = Command::new(program).args(arguments).output();
    let end = end.unwrap_or_else(|e| panic!("{program} cannot be started: {e}"));
    assert!(end.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&end.stderr));
}

impl Wire {
    /// A new one with this MTU, and the calling thread moved into its middle. None, and said so aloud, without the rights for
    /// that; in CI that is a failure.
    ///
    /// # Panics
    /// When the kernel does not do it, and without rights in CI.
    #[must_use]
    pub fn new(mtu: u32) -> Option<Self> {
        let wire = Self::unwired()?;
        wire.connect_client(mtu);
        wire.connect_server(mtu);
        Some(wire)
    }

    /// The same without its two halves.
    ///
    /// # Panics
    /// As [`Wire::new`].
    #[must_use]
    pub fn unwired() -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "network namespaces need root");
            eprintln!("SKIPPED: network namespaces need root");
            return None;
        }
        let id = format!("onvm-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let name = |what: &str| format!("{id}-{what}");
        let wire =
            Self { client: name("client"), middle: name("middle"), server: name("server"), more: Vec::new() };
        for space in [&wire.client, &wire.middle, &wire.server] {
            // One of a run that was killed, and whose process had the same number.
            let _ = Command::new("ip").args(["netns", "del", space]).output();
            run("ip", &["netns", "add", space]);
            run("ip", &["-n", space, "link", "set", "lo", "up"]);
        }
        let middle = File::open(format!("/run/netns/{}", wire.middle)).expect("the namespace was just made");
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&middle), Some(LinkNameSpaceType::Network))
            .expect("root may move");
        // The kernel of the middle has nothing to say on the wire.
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").expect("a namespace of our own");
        Some(wire)
    }

    /// Makes the client's half: c0 and m0.
    pub fn connect_client(&self, mtu: u32) {
        self.connect("c0", "m0", &self.client, "1", mtu);
    }

    /// Makes the server's half: s0 and m1.
    pub fn connect_server(&self, mtu: u32) {
        self.connect("s0", "m1", &self.server, "2", mtu);
    }

    /// Gives an interface of the middle to the client, as c0.
    pub fn give_to_client(&self, interface: &str) {
        Self::give(interface, &self.client, "c0", "1");
    }

    /// Gives an interface of the middle to the server, as s0.
    pub fn give_to_server(&self, interface: &str) {
        Self::give(interface, &self.server, "s0", "2");
    }

    fn give(interface: &str, space: &str, name: &str, host: &str) {
        run("ip", &["link", "set", interface, "netns", space, "name", name]);
        Self::settle(space, name, host);
    }

    /// Gives an interface its addresses.
    fn settle(space: &str, name: &str, host: &str) {
        // The kernel turns IPv6 off for interfaces that were made in the middle. Neighbours that are known are not asked again
        // in the middle of a test; and what is on the way at once fits into every ring, however late the manager empties it.
        let settings = format!(
            "cd /proc/sys/net; echo 0 > ipv6/conf/{name}/disable_ipv6\n\
             for v in 4 6; do echo 3600000 > ipv$v/neigh/{name}/base_reachable_time_ms; done\n\
             echo 4096 131072 1048576 > ipv4/tcp_rmem"
        );
        run("ip", &["netns", "exec", space, "sh", "-ec", &settings]);
        run("ip", &["-n", space, "addr", "add", &format!("10.77.0.{host}/24"), "dev", name]);
        run("ip", &["-n", space, "addr", "add", &format!("fd77::{host}/64"), "dev", name, "nodad"]);
        run("ip", &["-n", space, "link", "set", name, "up"]);
    }

    /// Makes one more namespace.
    #[must_use]
    pub fn add_space(&mut self, what: &str) -> String {
        let name = self.client.replace("client", what);
        run("ip", &["netns", "add", &name]);
        run("ip", &["-n", &name, "link", "set", "lo", "up"]);
        self.more.push(name.clone());
        name
    }

    /// Does something in a namespace; processes that it starts stay there.
    ///
    /// # Panics
    /// When there is no such namespace.
    pub fn within<T>(&self, space: &str, what: impl FnOnce() -> T) -> T {
        let enter = |path: &str| {
            let space = File::open(path).expect("a namespace");
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&space), Some(LinkNameSpaceType::Network))
                .expect("root may move");
        };
        enter(&format!("/run/netns/{space}"));
        let done = what();
        enter(&format!("/run/netns/{}", self.middle));
        done
    }

    /// The namespaces of client, middle and server.
    #[must_use]
    pub fn spaces(&self) -> [&str; 3] {
        [&self.client, &self.middle, &self.server]
    }

    /// Makes one half of the wire.
    fn connect(&self, far: &str, near: &str, space: &str, host: &str, mtu: u32) {
        let mtu = mtu.to_string();
        run("ip", &["link", "add", far, "mtu", &mtu, "type", "veth", "peer", "name", near, "mtu", &mtu]);
        run("ip", &["link", "set", far, "netns", space]);
        Self::settle(space, far, host);
        run("ip", &["link", "set", near, "up"]);
    }

    /// Takes the client's half away.
    pub fn cut(&self) {
        run("ip", &["link", "del", "m0"]);
    }

    /// Makes the client's half anew.
    pub fn mend(&self, mtu: u32) {
        self.connect_client(mtu);
    }

    /// `up` or `down`: both halves at the manager's end.
    pub fn set_link(&self, state: &str) {
        run("ip", &["link", "set", "m0", state]);
        run("ip", &["link", "set", "m1", state]);
    }

    /// A command that runs at the client.
    #[must_use]
    pub fn at_client(&self, arguments: &[&str]) -> Command {
        at(&self.client, arguments)
    }

    /// A command that runs at the server.
    #[must_use]
    pub fn at_server(&self, arguments: &[&str]) -> Command {
        at(&self.server, arguments)
    }

    /// Runs a command at the client, which must succeed.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn client(&self, arguments: &[&str]) -> String {
        good(&self.at_client(arguments).output().expect("a command"), arguments)
    }

    /// Starts a command at the server, in the background.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn serve(&self, arguments: &[&str]) -> Background {
        let child = self.at_server(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Background(child.expect("a command"))
    }
}

fn at(space: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", space]).args(arguments).stdin(Stdio::null());
    command
}

fn good(end: &Output, what: &[&str]) -> String {
    let (out, err) = (String::from_utf8_lossy(&end.stdout), String::from_utf8_lossy(&end.stderr));
    assert!(end.status.success(), "{what:?}: {:?}\n{out}{err}", end.status);
    out.into_owned()
}

/// What runs until it is dropped.
#[derive(Debug)]
pub struct Background(pub Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for space in [&self.client, &self.middle, &self.server].into_iter().chain(&self.more) {
            let _ = Command::new("ip").args(["netns", "del", space]).output();
        }
    }
}
