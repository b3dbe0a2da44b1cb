//! NFs that take their time to set themselves up, and what others must not notice of it.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use onvm_lib::prelude::DropReason;
use onvm_tests::{LIMIT, Lab, Ledger, Manager, program, runs, signal_pid, wait_until};
use rustix::process::Signal;

/// Rules that are there when somebody writes them: a firewall that reads them sets itself up for as long.
struct Slow(PathBuf);

impl Slow {
    fn new(lab: &Lab) -> Self {
        let path = lab.path("slow.yaml");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        Self(path)
    }

    fn command(&self) -> String {
        format!("[nf-firewall, --rules, {:?}]", self.0.display().to_string())
    }

    /// Somebody who waits for the rules has them now.
    fn come(&self) {
        let mut rules = std::fs::OpenOptions::new().write(true).open(&self.0).unwrap();
        rules.write_all(b"default: allow\nrules: []\n").unwrap();
    }
}

/// A command of which the first process is quick; the second waits for its rules, and all others fail.
fn first_is_quick(lab: &Lab, slow: &Slow) -> String {
    let rules = lab.write("open.yaml", "default: allow\nrules: []\n");
    let (first, firewall) = (lab.file("first"), program("nf-firewall"));
    let script = lab.write(
        "wall.sh",
        &format!(
            "if mkdir {first} 2>/dev/null; then rules={rules}\nelif mkdir {first}2 2>/dev/null; then sleep 1; rules={}\n\
             else exit 1; fi\nexec {} --rules $rules \"$@\"\n",
            slow.0.display(),
            firewall.display()
        ),
    );
    format!("[sh, {script:?}]")
}

fn states(ledger: &Ledger, service: u64) -> Vec<String> {
    let ours = ledger.present().into_iter().filter(|i| i.service() == service).map(|i| i.state().to_string());
    ours.collect()
}

/// Packets that an instance was given by the manager, and all that it was given.
fn by_relay(manager: &Manager<'_>, service: u16) -> (u64, u64) {
    let stats = manager.stats().0;
    let all = stats["instances"].as_array().unwrap();
    let ours = all.iter().find(|i| i["service"] == service).unwrap();
    (ours["by_relay"]["given"].as_u64().unwrap(), ours["received"].as_u64().unwrap())
}

/// Waits until most packets come to the second service by a direct edge: it is granted while they flow.
fn wait_for_direct_edge(manager: &Manager<'_>) {
    let until = Instant::now() + LIMIT;
    loop {
        let before = by_relay(manager, 2);
        wait_for_more(manager, 2000);
        let after = by_relay(manager, 2);
        let (relayed, received) = (after.0 - before.0, after.1 - before.1);
        if relayed * 4 < received {
            return;
        }
        assert!(Instant::now() < until, "{relayed} of {received} by the relay");
    }
}

fn wait_for_more(manager: &Manager<'_>, packets: u64) {
    let before = manager.stats().packets("sent");
    manager.wait_until("traffic", |l| l.packets("sent") > before + packets);
}

#[test]
fn neighbours_use_direct_edges_whoever_came_first_and_after_a_replacement() {
    for reader_first in [true, false] {
        let lab = Lab::new();
        let manager = lab.manager(&["--port", "gen:rate=20k,flows=16", "--port", "null:", "--chain", "1,2"]);
        let names = [("nf-forward", "1"), ("nf-monitor", "2")];
        let order = if reader_first { [1, 0] } else { [0, 1] };
        let mut nfs = Vec::new();
        for place in order {
            nfs.push(lab.nf(names[place].0, &["-r", names[place].1]));
            manager.wait_for_instances(nfs.len());
        }
        wait_for_direct_edge(&manager);
        let monitor = program("nf-monitor").display().to_string();
        let _ = lab.client_at_socket(&["nf", "replace", "2"], &["--", &monitor]).good();
        let replaced = |l: &Ledger| states(l, 2) == ["running"];
        manager.wait_until("the successor alone", replaced);
        wait_for_direct_edge(&manager);
        manager.stop(LIMIT).assert_clean();
    }
}

#[test]
fn who_was_waited_for_too_long_gets_all_packets_once_ready() {
    let lab = Lab::new();
    let slow = Slow::new(&lab);
    let manager = lab.up(
        &format!(
            "manager: {{wait-for-instance: 0.2}}\nports: [\"gen:flows=8\", \"null:\"]\nservices:\n  slow: {{id: 1, command: {}}}\n\
             chains: {{main: [slow]}}\ndefault-chain: main\n",
            first_is_quick(&lab, &slow)
        ),
        &[],
    );
    manager.wait_until("traffic", |l| l.packets("sent") > 1000);
    signal_pid(lab.pids(1)[0], Signal::KILL);
    manager.wait_until("another one", |l| states(l, 1) == ["starting"]);
    manager.wait_until("patience to end", |l| l.drops(DropReason::NoInstance) > 0);
    slow.come();
    wait_for_more(&manager, 1000);
    let dropped = manager.stats().drops(DropReason::NoInstance);
    wait_for_more(&manager, 200_000);
    assert_eq!(manager.stats().drops(DropReason::NoInstance), dropped);
    manager.stop(LIMIT).assert_clean();
}

#[test]
fn one_that_never_sets_itself_up_is_replaced_by_one_that_does() {
    for fresh in [true, false] {
        let lab = Lab::new();
        let slow = Slow::new(&lab);
        let manager = lab.up(
            &format!(
                "ports: [\"gen:rate=10k,flows=8\", \"null:\"]\nservices:\n  slow: {{id: 1, command: {}}}\n\
                 chains: {{main: [slow]}}\ndefault-chain: main\n",
                slow.command()
            ),
            &[],
        );
        manager.wait_until("one that sets itself up", |l| states(l, 1) == ["starting"]);
        let mut words = vec!["nf", "replace"];
        if fresh {
            words.push("--fresh");
        }
        let rules = lab.write("open.yaml", "default: allow\nrules: []\n");
        let firewall = program("nf-firewall").display().to_string();
        words.push("1");
        let told = lab.client_at_socket(&words, &["--", &firewall, "--rules", &rules]).good().out;
        assert!(told.contains("replaced by"), "{told}");
        manager.wait_until("the successor alone", |l| states(l, 1) == ["running"]);
        wait_for_more(&manager, 1000);
        let ledger = manager.stop(LIMIT);
        ledger.assert_balanced();
    }
}

#[test]
fn one_that_is_to_stand_by_takes_over_when_it_is_ready_at_last() {
    let lab = Lab::new();
    let slow = Slow::new(&lab);
    let manager = lab.up(
        &format!(
            "ports: [\"gen:rate=10k,flows=8\", \"null:\"]\nservices:\n  wall: {{id: 1, command: {}, \
             instances: 1, standby: 1, restart: {{give-up: 2, delay: 0.01}}}}\nchains: {{main: [wall]}}\ndefault-chain: main\n",
            first_is_quick(&lab, &slow)
        ),
        &[],
    );
    manager.wait_until("both", |l| {
        let mut states = states(l, 1);
        states.sort();
        states == ["running", "starting"]
    });
    wait_for_more(&manager, 100);
    let before = lab.last_event();
    let running = lab.instances(1).into_iter().find(|i| i["state"] == "running").unwrap();
    signal_pid(running["pid"].as_u64().unwrap(), Signal::KILL);
    let _ = lab.wait_for_event("gave-up", before);
    slow.come();
    manager.wait_until("the other one", |l| states(l, 1) == ["running"]);
    wait_for_more(&manager, 1000);
    manager.stop(LIMIT).assert_balanced();
}

#[test]
fn a_script_that_goes_on_after_its_nf_has_left_does_not_keep_the_manager() {
    let lab = Lab::new();
    let script = format!("{} \"$@\"\nexec sleep 100\n", program("nf-forward").display());
    let script = lab.write("forward.sh", &script);
    let manager = lab.up(
        &format!(
            "ports: [\"gen:rate=1k\", \"null:\"]\nservices:\n  one: {{id: 1, command: [sh, {script:?}], instances: 2}}\n\
             chains: {{main: [one]}}\ndefault-chain: main\n"
        ),
        &[],
    );
    manager.wait_until("both", |l| states(l, 1) == ["running", "running"]);
    let _ = lab.client(&["nf", "scale", "1", "1"]).good();
    manager.wait_until("one", |l| states(l, 1) == ["running"]);
    manager.stop(LIMIT).assert_balanced();
}

#[test]
fn one_more_is_started_although_another_still_sets_itself_up() {
    let lab = Lab::new();
    let slow = Slow::new(&lab);
    let manager = lab.up(
        &format!(
            "ports: [\"null:\"]\nservices:\n  slow: {{id: 1, command: {}}}\nchains: {{main: [slow]}}\ndefault-chain: main\n",
            slow.command()
        ),
        &[],
    );
    manager.wait_until("one that sets itself up", |l| states(l, 1) == ["starting"]);
    let told = lab.client(&["nf", "start", "1", "--json"]).good().json();
    assert_eq!(told["instances"], 1, "{told}");
    manager.wait_until("a second one", |l| states(l, 1) == ["starting"; 2]);
    assert_eq!(lab.client(&["nf", "start", "slow"]).good().out, "starting an instance of service 1\n");
    manager.wait_until("a third one", |l| states(l, 1) == ["starting"; 3]);
    manager.stop(LIMIT).assert_balanced();
}

#[test]
fn what_is_not_started_is_not_said_to_be() {
    let lab = Lab::new();
    let manager = lab.up(
        "ports: [\"null:\"]\nservices:\n  \
         gone: {id: 1, command: [no-such-nf], instances: 3, restart: {give-up: 1, delay: 0.01}}\n  \
         dead: {id: 2, command: [sh, -c, exit 3], instances: 2, restart: {give-up: 1, delay: 0.01}}\n\
         chains: {main: []}\ndefault-chain: main\n",
        &["--stay"],
    );
    let refused = lab.client(&["nf", "start", "gone"]).with_code(1).err;
    assert!(
        refused.contains("nothing was started") && refused.contains("no program no-such-nf"),
        "{refused}"
    );
    let _ = lab.wait_for_event("gave-up", 0);
    let told = lab.client(&["nf", "start", "dead"]).good().out;
    assert_eq!(
        told, "starting 2 instances of service 2\n",
        "a service that was given up gets all that it lacks"
    );
    manager.stop(LIMIT).assert_balanced();
}

/// How events tell of starts that took too long, until the service is given up.
fn failed_starts(lab: &Lab, command: &str, arguments: &[&str]) -> Vec<serde_json::Value> {
    let manager = lab.up(
        &format!(
            "ports: [\"null:\"]\nservices:\n  slow: {{id: 1, command: {command}, \
             restart: {{give-up: 2, delay: 0.01, healthy: 0.1}}}}\nchains: {{main: [slow]}}\ndefault-chain: main\n",
        ),
        arguments,
    );
    let _ = lab.wait_for_event("gave-up", 0);
    let events = lab.events(0);
    let starts = events.iter().filter(|e| e["event"] == "start").count();
    assert_eq!(starts, 3, "longer than what is healthy, and yet in a row: {events:?}");
    manager.stop(LIMIT).assert_balanced();
    events.into_iter().filter(|e| e["event"] == "start-failed").collect()
}

#[test]
fn one_that_never_gets_ready_has_failed_to_start() {
    let lab = Lab::new();
    let slow = Slow::new(&lab);
    let failed = failed_starts(&lab, &slow.command(), &["--setup-timeout", "0.4"]);
    assert_eq!(failed.len(), 3, "{failed:?}");
    for event in &failed {
        assert_eq!(event["why"], "it did not set itself up within 400ms (--setup-timeout)", "{event}");
        assert!(event["instance"].is_u64() && event["service"] == 1, "{event}");
    }
}

#[test]
fn a_process_that_never_attaches_has_failed_to_start() {
    let lab = Lab::new();
    let child = lab.file("child");
    let script = lab.write("sleep.sh", &format!("sleep 1000 &\necho $! > {child}\nwait\n"));
    let failed = failed_starts(&lab, &format!("[sh, {script:?}]"), &["--setup-timeout", "0.3"]);
    assert_eq!(failed.len(), 3, "{failed:?}");
    for event in &failed {
        assert_eq!(event["why"], "it did not attach within 300ms (--setup-timeout)", "{event}");
    }
    let sleeper = std::fs::read_to_string(child).unwrap().trim().parse().unwrap();
    wait_until("the end of what the script had started", || !runs(sleeper));
}

#[test]
fn an_nf_from_a_shell_and_a_successor_have_no_more_time_than_others() {
    let lab = Lab::new();
    let slow = Slow::new(&lab);
    let manager = lab.manager(&["--port", "null:", "--stay", "--setup-timeout", "1"]);
    let forward = lab.nf("nf-forward", &["-r", "1"]);
    lab.wait_for_running(1, 1);
    let slow_rules = slow.0.display().to_string();
    let mut firewall = lab.nf("nf-firewall", &["-r", "2", "--rules", &slow_rules]);
    let event = lab.wait_for_event("start-failed", 0);
    assert_eq!((&event["service"], firewall.wait(LIMIT).signal), (&2.into(), Some(9)), "{event}");
    let command = program("nf-firewall").display().to_string();
    let refused =
        lab.client_at_socket(&["nf", "replace", "1", "--fresh"], &["--", &command, "--rules", &slow_rules]);
    let refused = refused.with_code(1).err;
    assert!(refused.contains("its successor did not set itself up within 1s (--setup-timeout)"), "{refused}");
    manager.wait_until("the old one alone", |l| states(l, 1) == ["running"]);
    manager.stop(LIMIT).assert_balanced();
    drop(forward);
}
