//! The load balancer before real servers: nginx in network namespaces, real clients, the kernel's own TCP at both ends.
//!
//! ```text
//! namespace c ── cl │ onvm-mgr, nf-loadbalancer (lb) │ bk ── bridge (namespace sw) ─┬ b1 nginx
//!                                                                                   ├ b2 nginx   …
//!                                                                                   └ d  a client beside them
//! ```
//! Needs root, nginx, curl and iproute2; says so where something is missing.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A download: large enough to be in the middle when something happens.
const BIG: usize = 4 << 20;
/// What a server sends a second, so that it takes some seconds.
const RATE: &str = "512k";
const BACKENDS: usize = 4;
const LIMIT: Duration = Duration::from_secs(120);

/// Whether all that is needed is there.
fn can_run(test: &str) -> bool {
    let there = |program: &str| {
        let dirs = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&dirs)
            .chain(["/usr/sbin".into(), "/sbin".into()])
            .any(|d: PathBuf| d.join(program).is_file())
    };
    let missing: Vec<&str> = ["ip", "nginx", "curl"].into_iter().filter(|p| !there(p)).collect();
    let probe = format!("lb{}{test}-probe", std::process::id());
    let namespaces =
        || Command::new("ip").args(["netns", "add", &probe]).output().is_ok_and(|o| o.status.success());
    let root = rustix::process::geteuid().is_root();
    if missing.is_empty() && root && namespaces() {
        let _ = Command::new("ip").args(["netns", "del", &probe]).output();
        return true;
    }
    assert!(std::env::var("CI").is_err(), "cannot run in CI: root {root}, missing {missing:?}");
    eprintln!("skipped: root and network namespaces are needed ({root}), and {missing:?}");
    false
}

fn run(words: &str) -> String {
    let mut parts = words.split_whitespace();
    let program = parts.next().unwrap();
    let output = Command::new(program).args(parts).output().unwrap_or_else(|e| panic!("{words}: {e}"));
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Namespaces with their wires; gone with it.
struct Net {
    prefix: String,
    folder: tempfile::TempDir,
    servers: Vec<Option<Child>>,
}

impl Net {
    fn new(test: &str) -> Self {
        let prefix = format!("lb{}{test}-", std::process::id());
        let net = Self {
            prefix,
            folder: tempfile::tempdir().unwrap(),
            servers: (0..BACKENDS).map(|_| None).collect(),
        };
        let ns = |name: &str| net.ns(name);
        let backends: Vec<String> = (1..=BACKENDS).map(|n| format!("b{n}")).collect();
        for name in ["lb", "c", "sw", "d"].into_iter().chain(backends.iter().map(String::as_str)) {
            // One of a run that was killed, and whose process had the same number.
            let _ = Command::new("ip").args(["netns", "del", &ns(name)]).output();
            run(&format!("ip netns add {}", ns(name)));
            run(&format!("ip -n {} link set lo up", ns(name)));
        }
        run(&format!("ip -n {} link add br0 type bridge", ns("sw")));
        run(&format!("ip -n {} link set br0 up", ns("sw")));
        run(&format!("ip -n {} link add cl type veth peer name eth0 netns {}", ns("lb"), ns("c")));
        run(&format!("ip -n {} link add bk type veth peer name lb netns {}", ns("lb"), ns("sw")));
        run(&format!("ip -n {} link set lb master br0 up", ns("sw")));
        for name in backends.iter().map(String::as_str).chain(["d"]) {
            run(&format!(
                "ip -n {} link add name {name} type veth peer name eth0 netns {}",
                ns("sw"),
                ns(name)
            ));
            run(&format!("ip -n {} link set dev {name} master br0 up", ns("sw")));
        }
        for (name, device) in [("lb", "cl"), ("lb", "bk"), ("c", "eth0"), ("d", "eth0")]
            .into_iter()
            .chain(backends.iter().map(|name| (name.as_str(), "eth0")))
        {
            run(&format!("ip -n {} link set {device} up", ns(name)));
        }
        net.address("c", &["198.51.100.2/24", "2001:db8:1::2/64"]);
        net.address("lb bk", &["10.1.0.253/24", "fd00::fd/64"]);
        net.address("d", &["10.1.0.100/24"]);
        run(&format!("ip -n {} route add 192.0.2.1 dev eth0", ns("c")));
        run(&format!("ip -n {} -6 route add 2001:db8::1 dev eth0", ns("c")));
        for (n, name) in (1..).zip(&backends) {
            net.address(name, &[&format!("10.1.0.{n}/24"), &format!("fd00::{n}/64")]);
            run(&format!("ip -n {} route add default via 10.1.0.254", ns(name)));
            run(&format!("ip -n {} -6 route add default via fd00::fe", ns(name)));
        }
        net
    }

    fn ns(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Gives addresses to a device of a namespace, `eth0` if none is named.
    fn address(&self, place: &str, addresses: &[&str]) {
        let (name, device) = place.split_once(' ').unwrap_or((place, "eth0"));
        for address in addresses {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            run(&format!("ip -n {} addr add {address} dev {device} {nodad}", self.ns(name)));
        }
    }

    /// A command in a namespace.
    fn command(&self, name: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.ns(name), program]);
        command
    }

    /// Starts the web server of backend `n`, from 1.
    fn serve(&mut self, n: usize) {
        let folder = self.folder.path().join(format!("b{n}"));
        let root = folder.join("root");
        std::fs::create_dir_all(&root).unwrap();
        std::fs::write(root.join("big"), big()).unwrap();
        std::fs::write(root.join("who"), format!("b{n}")).unwrap();
        std::fs::write(root.join("up"), "all is well").unwrap();
        let at = folder.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"))
            .concat();
        let config = format!(
            "user root;\nworker_processes 1;\ndaemon off;\npid {at}/pid;\nerror_log {at}/error.log;\n\
             events {{ worker_connections 256; }}\nhttp {{\naccess_log off;\n{temporary}\
             server {{ listen 80; listen [::]:80; root {at}/root; add_header X-Backend b{n};\n\
             location /big {{ limit_rate {RATE}; }} }} }}\n"
        );
        std::fs::write(folder.join("conf"), config).unwrap();
        let mut command = self.command(&format!("b{n}"), "nginx");
        command
            .arg("-p")
            .arg(&folder)
            .arg("-c")
            .arg(folder.join("conf"))
            .arg("-e")
            .arg(folder.join("error.log"));
        self.servers[n - 1] = Some(command.stderr(Stdio::null()).spawn().unwrap());
        let up = || {
            let mut curl = self.command(&format!("b{n}"), "curl");
            curl.args(["-s", "-o", "/dev/null", "http://127.0.0.1/up"]).status().is_ok_and(|s| s.success())
        };
        wait_for("nginx", up);
    }

    /// Kills the web server of a backend, workers and all, as a crash would.
    fn kill(&mut self, n: usize) {
        let Some(mut server) = self.servers[n - 1].take() else { return };
        for pid in run(&format!("ip netns pids {}", self.ns(&format!("b{n}")))).split_whitespace() {
            let _ = Command::new("kill").args(["-9", pid]).status();
        }
        let _ = server.wait();
    }

    /// Asks who answers.
    fn who(&self, from: &str, url: &str) -> Option<String> {
        let output =
            self.command(from, "curl").args(["-s", "-m", "20", &format!("{url}/who")]).output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn download(&self, from: &str, url: &str, number: usize) -> Download {
        let path = |what: &str| self.folder.path().join(format!("{from}{number}.{what}"));
        for what in ["headers", "data"] {
            // That of an earlier download.
            let _ = std::fs::remove_file(path(what));
        }
        let mut command = self.command(from, "curl");
        command.args(["-s", "-m", "100", "-D"]).arg(path("headers")).arg("-o").arg(path("data"));
        command.arg(format!("{url}/big"));
        Download { child: command.spawn().unwrap(), headers: path("headers"), data: path("data") }
    }

    /// Starts downloads, and more until each of these backends has one, which may be up to a hash; waits until all are in the
    /// middle.
    fn downloads(&self, from: &str, url: &str, count: usize, backends: &[&str]) -> Vec<Download> {
        let mut all: Vec<Download> = Vec::new();
        let has_one = |all: &[Download], name: &str| all.iter().any(|d| d.backend() == name);
        while all.len() < count || !backends.iter().all(|name| has_one(&all, name)) {
            let more = count.saturating_sub(all.len()).max(1);
            let first = all.len();
            all.extend((first..first + more).map(|number| self.download(from, url, number)));
            wait_for("downloads under way", || all.iter().all(|d| d.has() > 0 && !d.backend().is_empty()));
            assert!(all.len() < 60, "none of {} downloads is with one of {backends:?}", all.len());
        }
        assert!(
            all.iter().all(|download| download.has() < BIG),
            "they were over before anything could happen"
        );
        all
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        (1..=BACKENDS).for_each(|n| self.kill(n));
        let all = ["lb", "c", "sw", "d"].into_iter().map(str::to_string);
        for name in all.chain((1..=BACKENDS).map(|n| format!("b{n}"))) {
            let _ = Command::new("ip").args(["netns", "del", &self.ns(&name)]).output();
        }
    }
}

struct Download {
    child: Child,
    headers: PathBuf,
    data: PathBuf,
}

impl Download {
    fn has(&self) -> usize {
        std::fs::metadata(&self.data).map_or(0, |m| usize::try_from(m.len()).unwrap_or(0))
    }

    /// The backend that serves it.
    fn backend(&self) -> String {
        let headers = std::fs::read_to_string(&self.headers).unwrap_or_default();
        headers
            .lines()
            .find_map(|line| line.strip_prefix("X-Backend: "))
            .unwrap_or_default()
            .trim()
            .to_string()
    }

    /// Waits for its end; whether all of it came, and is right.
    fn is_whole(&mut self) -> bool {
        let done = self.child.wait().unwrap().success();
        done && std::fs::read(&self.data).unwrap() == big()
    }
}

fn big() -> Vec<u8> {
    let mut dice = onvm_tests::Dice::from_seed(7);
    (0..BIG / 8).flat_map(|_| dice.any().to_le_bytes()).collect()
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LIMIT, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A manager with the balancer as its only NF, in their namespace.
struct Balancer {
    manager: Child,
    nf: Child,
    folder: PathBuf,
}

impl Balancer {
    fn start(net: &Net, file: &Path) -> Self {
        let folder = net.folder.path().to_path_buf();
        let start = |program: &str, arguments: &[&str], out: &str| {
            let mut command = net.command("lb", &onvm_tests::program(program).display().to_string());
            command.args(arguments).arg("--socket").arg(folder.join("onvm.sock"));
            command.stdin(Stdio::null()).stdout(std::fs::File::create(folder.join(out)).unwrap());
            command.stderr(Stdio::null()).spawn().unwrap()
        };
        let ports = ["--port", "afpacket:cl", "--port", "afpacket:bk", "--chain", "1", "--json"];
        let manager = start("onvm-mgr", &ports, "ledger");
        wait_for("the manager", || folder.join("onvm.sock").exists());
        let services = file.display().to_string();
        let nf =
            start("nf-loadbalancer", &["-r", "1", "--services", &services, "-p", "0.1", "--json"], "reports");
        let mut balancer = Self { manager, nf, folder };
        wait_for("its first report", || balancer.report().is_some());
        balancer
    }

    /// Tells the NF something, as an operator does.
    fn tell(&mut self, topic: &str, body: &Value) {
        let mut client = Command::new(onvm_tests::program("onvm-mgr"));
        client.args(["nf", "tell", "1", "--topic", topic, "--body", &body.to_string(), "--socket"]);
        let end = client.arg(self.folder.join("onvm.sock")).output().unwrap();
        assert!(end.status.success(), "{topic}: {}", String::from_utf8_lossy(&end.stderr));
    }

    /// The last whole report that the NF has printed.
    fn report(&mut self) -> Option<Value> {
        assert!(self.nf.try_wait().unwrap().is_none(), "the balancer has ended");
        let text = std::fs::read_to_string(self.folder.join("reports")).unwrap_or_default();
        let lines = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.map(|line| line["report"].clone()).next()
    }

    fn state(&mut self, backend: &str) -> String {
        let report = self.report().unwrap_or_default();
        let all = report["services"][0]["backends"].as_array().cloned().unwrap_or_default();
        let found = all.iter().find(|b| b["name"] == backend).map(|b| b["state"].to_string());
        found.map_or_else(|| "not there".into(), |state| state.trim_matches('"').to_string())
    }

    fn wait_until(&mut self, backend: &str, state: &str) {
        wait_for(&format!("{backend} to be {state}"), || self.state(backend) == state);
    }

    /// Ends both in order; the NF's last report. Not a packet is unaccounted for.
    fn stop(mut self) -> Value {
        let mut client = Command::new(onvm_tests::program("onvm-mgr"));
        assert!(
            client
                .args(["stop", "--socket"])
                .arg(self.folder.join("onvm.sock"))
                .output()
                .unwrap()
                .status
                .success()
        );
        assert!(self.nf.wait().unwrap().success() && self.manager.wait().unwrap().success());
        let text = std::fs::read_to_string(self.folder.join("ledger")).unwrap();
        let ledger: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(ledger["audit"]["packets"]["balances"], true, "{}", ledger["audit"]);
        assert_eq!(ledger["audit"]["pool"]["balances"], true, "{}", ledger["audit"]);
        let reports = std::fs::read_to_string(self.folder.join("reports")).unwrap();
        serde_json::from_str::<Value>(reports.lines().last().unwrap()).unwrap()["report"].clone()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        for child in [&mut self.nf, &mut self.manager] {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_file(self.folder.join("onvm.sock"));
    }
}

/// A services file; backends' Ethernet addresses are for the balancer to find.
fn file(net: &Net, six: bool, backends: &[usize], service: &str) -> PathBuf {
    let vip = if six { "2001:db8::1" } else { "192.0.2.1" };
    let address = |n: usize| if six { format!("fd00::{n}") } else { format!("10.1.0.{n}") };
    let backends: String =
        backends.iter().map(|n| format!("      b{n}: {{address: '{}'}}\n", address(*n))).collect();
    let text = format!(
        "mac: 02:00:00:00:00:01\naddresses: [10.1.0.254, 'fd00::fe']\nports: {{clients: 0, backends: 1}}\nservices:\n  web:\n    \
         address: '{vip}'\n    port: 80\n    health: {{type: http, path: /up, body: well, interval: 2s, timeout: 2s, fall: 3, rise: 1}}\n    \
         {service}\n    backends:\n{backends}"
    );
    let path = net.folder.path().join("services.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

/// Every download is whole.
fn assert_whole(mut all: Vec<Download>) {
    for download in &mut all {
        let backend = download.backend();
        assert!(download.is_whole(), "a download of {backend} broke after {} bytes", download.has());
    }
}

#[test]
fn no_download_breaks_when_backends_are_added_and_drained() {
    if !can_run("a") {
        return;
    }
    let mut net = Net::new("a");
    (1..=4).for_each(|n| net.serve(n));
    for (six, service) in [(false, "scheduler: round-robin"), (true, "scheduler: maglev")] {
        let path = file(&net, six, &[1, 2, 3], service);
        let mut balancer = Balancer::start(&net, &path);
        (1..=3).for_each(|n| balancer.wait_until(&format!("b{n}"), "up"));
        let url = if six { "http://[2001:db8::1]" } else { "http://192.0.2.1" };
        wait_for("the service", || net.who("c", url).is_some());
        let downloads = net.downloads("c", url, 12, &["b1", "b2"]);
        // In the middle: a fourth one by the file, the first one drained, the second one removed by command.
        file(&net, six, &[1, 2, 3, 4], service);
        balancer.tell("reload", &Value::Null);
        balancer.wait_until("b4", "up");
        balancer.tell("drain", &json!({"service": "web", "backend": "b1"}));
        balancer.tell("remove", &json!({"service": "web", "backend": "b2"}));
        let served: Vec<String> = (0..24).map(|_| net.who("c", url).expect("an answer")).collect();
        assert!(served.iter().all(|name| name == "b3" || name == "b4"), "{served:?}");
        assert!(served.iter().any(|name| name == "b4"), "the new one got nothing: {served:?}");
        let backends: std::collections::BTreeSet<String> = downloads.iter().map(Download::backend).collect();
        assert!(backends.contains("b1") && backends.contains("b2"), "nothing was at stake: {backends:?}");
        assert_whole(downloads);
        let report = balancer.stop();
        assert_eq!(report["services"][0]["counts"]["adopted"], 0, "{report}");
    }
}

#[test]
fn a_server_that_is_killed_takes_its_own_downloads_and_no_other() {
    if !can_run("k") {
        return;
    }
    let mut net = Net::new("k");
    (1..=3).for_each(|n| net.serve(n));
    let path = file(&net, false, &[1, 2, 3], "source-nat: always");
    let mut balancer = Balancer::start(&net, &path);
    (1..=3).for_each(|n| balancer.wait_until(&format!("b{n}"), "up"));
    let url = "http://192.0.2.1";
    wait_for("the service", || net.who("c", url).is_some());
    let (lost, kept): (Vec<Download>, Vec<Download>) = net
        .downloads("c", url, 15, &["b1", "b2"])
        .into_iter()
        .partition(|download| download.backend() == "b2");
    assert!(!lost.is_empty() && !kept.is_empty(), "nothing was at stake");
    net.kill(2);
    balancer.wait_until("b2", "down");
    for _ in 0..20 {
        let name = net.who("c", url).expect("an answer without the dead one");
        assert_ne!(name, "b2");
    }
    assert_whole(kept);
    assert!(lost.into_iter().all(|mut download| !download.is_whole()), "a dead server went on serving");
    net.serve(2);
    balancer.wait_until("b2", "up");
    wait_for("a request to the one that is back", || net.who("c", url).as_deref() == Some("b2"));
}

#[test]
fn direct_return_leaves_answers_to_the_servers() {
    if !can_run("d") {
        return;
    }
    let mut net = Net::new("d");
    (1..=3).for_each(|n| net.serve(n));
    for n in 1..=3 {
        let ns = net.ns(&format!("b{n}"));
        for setting in ["arp_ignore=1", "arp_announce=2"] {
            run(&format!("ip netns exec {ns} sysctl -q -w net.ipv4.conf.all.{setting}"));
        }
        run(&format!("ip -n {ns} addr add 10.1.0.200/32 dev lo"));
    }
    let path = file(&net, false, &[1, 2, 3], "mode: dsr\n    scheduler: round-robin");
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replace("192.0.2.1", "10.1.0.200").replace("clients: 0", "clients: 1");
    // Echoes this time, which are a privilege of groups.
    let text = text.replace("type: http, path: /up, body: well", "type: icmp");
    let permit = ["net.ipv4.ping_group_range=0 2147483647"];
    assert!(net.command("lb", "sysctl").args(["-q", "-w"]).args(permit).status().unwrap().success());
    std::fs::write(&path, text).unwrap();
    let mut balancer = Balancer::start(&net, &path);
    (1..=3).for_each(|n| balancer.wait_until(&format!("b{n}"), "up"));
    let url = "http://10.1.0.200";
    wait_for("the service", || net.who("d", url).is_some());
    let downloads = net.downloads("d", url, 9, &["b1", "b2", "b3"]);
    balancer.tell("drain", &json!({"service": "web", "backend": "b3"}));
    let backends: std::collections::BTreeSet<String> = downloads.iter().map(Download::backend).collect();
    assert_eq!(backends.len(), 3, "{backends:?}");
    assert_whole(downloads);
    // One that is cut off from the network does not answer echoes any more.
    run(&format!("ip -n {} link set dev b2 down", net.ns("sw")));
    balancer.wait_until("b2", "down");
    let report = balancer.stop();
    for backend in report["services"][0]["backends"].as_array().unwrap() {
        assert_eq!(backend["counts"]["packets_from"], 0, "an answer came by the balancer");
    }
}
