//! Steering a running manager from a shell: pause, drain, kill, scale, replace, and what it tells of them.

use std::cell::Cell;
use std::time::{Duration, Instant};

use onvm_tests::{LIMIT, Lab, Ledger, Manager, Process, program, wait_until};
use serde_json::{Value, json};

const SHELL: [&str; 6] = ["--port", "gen:rate=5k,flows=64", "--port", "null:", "--chain", "1,2"];
/// Two services; the first is the manager's own, and told of at its start.
const PLANNED: &str = "\
ports: [\"gen:rate=5k,flows=64\", \"null:\"]
services:
  forward: {command: [nf-forward], instances: 1}
  watch: {id: 2}
chains:
  main: [forward, watch]
default-chain: main
";

/// A manager with a chain file, and an NF of the service that the file leaves to a shell.
fn up<'a>(lab: &'a Lab, file: &str) -> (Manager<'a>, Process) {
    let mut manager = lab.up(file, &[]);
    let watch = lab.nf("nf-monitor", &["-r", "2"]);
    let ledger = manager.wait_until("traffic", |l| l.packets("sent") > 100);
    assert!(manager.process.is_running(), "{}", ledger.0);
    (manager, watch)
}

/// Ids of a service's instances that are there, in a state or in any.
fn ids(ledger: &Ledger, service: u64, state: &str) -> Vec<u64> {
    let meant =
        |i: &&onvm_tests::Instance<'_>| i.service() == service && (state.is_empty() || i.state() == state);
    ledger.present().iter().filter(meant).map(onvm_tests::Instance::id).collect()
}

/// Waits until a service has so many instances, all running.
fn wait_for(manager: &Manager<'_>, service: u64, n: usize) -> Vec<u64> {
    let there = |l: &Ledger| ids(l, service, "").len() == n && ids(l, service, "running").len() == n;
    ids(&manager.wait_until(&format!("{n} of service {service}"), there), service, "")
}

fn wait_for_more(manager: &Manager<'_>, packets: u64) {
    let before = manager.stats().packets("sent");
    manager.wait_until("traffic", |l| l.packets("sent") > before + packets);
}

/// What the `events` command tells, as JSON.
fn events(lab: &Lab, arguments: &[&str]) -> Vec<Value> {
    let out = lab.client(&[&["events", "--json"], arguments].concat()).good().out;
    out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Steps that an instance has taken: from, to, by whom.
fn steps(events: &[Value], instance: u64) -> Vec<(String, String, String)> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_string();
    let taken = events.iter().filter(|e| e["instance"] == instance && !e["to"].is_null());
    taken.map(|e| (text(&e["from"]), text(&e["to"]), text(&e["by"]))).collect()
}

fn wait_for_output(process: &mut Process, what: &str) {
    let until = Instant::now() + LIMIT;
    while !process.output().contains(what) {
        assert!(process.is_running() && Instant::now() < until, "no {what:?}: {}", process.output());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn error(lab: &Lab, arguments: &[&str]) -> String {
    lab.client(arguments).with_code(1).err
}

#[test]
fn packets_wait_for_a_paused_nf_and_none_is_lost() {
    let lab = Lab::new();
    let manager = lab.manager(&["--port", "gen:rate=500,flows=8", "--port", "null:", "--chain", "1,2"]);
    let nfs = [lab.nf("nf-forward", &["-r", "1"]), lab.nf("probe_nf", &["-r", "2"])];
    manager.wait_until("traffic", |l| l.packets("sent") > 100);
    assert_eq!(lab.client(&["nf", "pause", "2"]).good().out, "paused 1 instance\n");
    let paused = manager.wait_until("state", |l| ids(l, 2, "paused").len() == 1);
    let id = ids(&paused, 2, "")[0].to_string();
    // What was in the NF's hands comes out.
    let sent = Cell::new(u64::MAX);
    manager.wait_until("rest", |l| {
        let before = sent.replace(l.packets("sent"));
        std::thread::sleep(Duration::from_millis(100));
        before == sent.get()
    });
    let before = manager.stats();
    // Longer than the hang timeout would be for it, were it not paused.
    std::thread::sleep(Duration::from_millis(3500));
    let after = manager.stats();
    assert_eq!(before.packets("sent"), after.packets("sent"), "a paused NF lets packets through");
    assert!(after.packets("received") > before.packets("received") + 1000);
    let (audit, ok) = manager.audit();
    assert!(ok && audit["packets"]["inside"].as_u64() > Some(1000), "{audit}");
    assert!(lab.client(&["status"]).good().out.contains("1 paused"));
    let told = lab.client(&["nf", "resume", "-n", &id, "--json"]).good().json();
    assert_eq!(told, json!({ "instances": 1 }));
    let received = manager.stats().packets("received");
    manager.wait_until("what had waited", |l| l.packets("sent") >= received);
    assert_eq!(lab.client(&["nf", "resume", "1"]).good().out, "resumed 1 instance\n");
    let ledger = manager.stop(LIMIT);
    ledger.assert_clean();
    assert_eq!((ledger.packets("received"), ledger.packets("dropped")), (ledger.packets("sent"), 0));
    drop(nfs);
}

#[test]
fn one_of_two_is_drained_under_load() {
    let lab = Lab::new();
    let manager = lab.manager(&SHELL);
    let mut forwards = [lab.nf("nf-forward", &["-r", "1"]), lab.nf("nf-forward", &["-r", "1"])];
    let _watch = lab.nf("nf-monitor", &["-r", "2"]);
    let both = wait_for(&manager, 1, 2);
    wait_for_more(&manager, 2000);
    let id = both[0].to_string();
    assert_eq!(lab.client(&["nf", "drain", "-n", &id]).good().out, "draining 1 instance\n");
    let left = manager.wait_until("its end", |l| ids(l, 1, "") == both[1..]);
    assert_eq!(left.0["departed"][0]["state"], "left");
    let pid = left.0["departed"][0]["pid"].as_u64().unwrap();
    let gone = forwards.iter_mut().find(|p| u64::from(p.pid()) == pid).unwrap();
    let _ = gone.wait(LIMIT).good();
    wait_for_more(&manager, 2000);
    let all = events(&lab, &[]);
    let words = |from: &str, to: &str, by: &str| (from.to_string(), to.to_string(), by.to_string());
    let taken = steps(&all, both[0]);
    assert_eq!(taken.last().unwrap().1, "gone");
    assert!(taken.contains(&words("running", "draining", "operator")), "{taken:?}");
    let ledger = manager.stop(LIMIT);
    ledger.assert_clean();
    assert_eq!(ledger.packets("dropped"), 0, "{}", ledger.0);
}

#[test]
fn a_killed_nf_is_replaced_by_another_process() {
    let lab = Lab::new();
    let (manager, _watch) = up(&lab, PLANNED);
    let old = wait_for(&manager, 1, 1);
    assert_eq!(lab.client(&["nf", "kill", "forward"]).good().out, "killed 1 instance\n");
    manager.wait_until("the next one", |l| ids(l, 1, "running").iter().any(|id| *id != old[0]));
    wait_for_more(&manager, 1000);
    let all = events(&lab, &[]);
    let crash = all.iter().find(|e| e["event"] == "killed").unwrap_or_else(|| panic!("{all:?}"));
    assert_eq!(
        (&crash["instance"], &crash["why"], &crash["to"]),
        (&json!(old[0]), &json!("nf kill"), &json!("gone"))
    );
    let told = lab.client(&["nf", "kill", "forward", "--json"]).good().json();
    assert_eq!(told, json!({ "instances": 1 }));
    let ledger = manager.stop(LIMIT);
    ledger.assert_balanced();
    assert_eq!(ledger.bad_descriptors(), 0);
}

#[test]
fn a_planned_service_is_scaled_up_and_down() {
    let lab = Lab::new();
    let (manager, _watch) = up(&lab, PLANNED);
    assert_eq!(lab.client(&["nf", "scale", "forward", "3"]).good().out, "service 1: 3 instances\n");
    wait_for(&manager, 1, 3);
    wait_for_more(&manager, 2000);
    let each = manager.wait_until("its share for each", |l| {
        l.present().iter().filter(|i| i.service() == 1).all(|i| i.count("received") > 0)
    });
    let forward = each.0["services"].as_array().unwrap().iter().find(|s| s["service"] == 1).unwrap();
    assert_eq!((&forward["name"], &forward["by_state"]), (&json!("forward"), &json!({ "running": 3 })));
    assert_eq!(lab.client(&["nf", "start", "1"]).good().out, "starting an instance of service 1\n");
    wait_for(&manager, 1, 4);
    let told = lab.client(&["nf", "scale", "1", "1", "--json"]).good().json();
    assert_eq!(told, json!({ "instances": 1 }));
    wait_for(&manager, 1, 1);
    wait_for_more(&manager, 1000);
    assert_eq!(
        error(&lab, &["nf", "scale", "2", "2"]),
        "onvm-mgr: the manager has no command for service 2: its instances are started elsewhere\n"
    );
    let ledger = manager.stop(LIMIT);
    ledger.assert_clean();
    assert_eq!(ledger.packets("dropped"), 0, "{}", ledger.0);
}

#[test]
fn an_nf_from_a_shell_is_replaced_by_another_program() {
    let lab = Lab::new();
    let manager = lab.manager(&SHELL);
    let mut forward = lab.nf("nf-forward", &["-r", "1"]);
    let watch = lab.nf("nf-monitor", &["-r", "2"]);
    let old = wait_for(&manager, 1, 1)[0];
    wait_for_more(&manager, 500);
    let none = error(&lab, &["nf", "restart", "1"]);
    let expected = format!(
        "onvm-mgr: instance {old} is not replaced: the manager has no command for service 1: use nf replace 1 -- COMMAND\n"
    );
    assert_eq!(none, expected);
    let other = ["--", "nf-monitor", "--top", "3"];
    let refused = lab.client_at_socket(&["nf", "replace", "1"], &other).with_code(1).err;
    let why = "its successor cannot use its state: the state is of nf-forward, this is nf-monitor";
    assert!(refused.contains(&format!("instance {old} is not replaced: {why}")), "{refused}");
    wait_for_more(&manager, 500);
    assert_eq!(wait_for(&manager, 1, 1), [old], "it goes on");
    let out = lab.client_at_socket(&["nf", "replace", "1", "--fresh"], &other).good().out;
    let new = wait_for(&manager, 1, 1)[0];
    assert_eq!(out, format!("instance {old} replaced by {new}\n"));
    let _ = forward.wait(LIMIT).good();
    wait_for_more(&manager, 500);
    assert_eq!(manager.stats().present().iter().find(|i| i.id() == new).unwrap().name(), "nf-monitor");
    let told = lab
        .client_at_socket(
            &["nf", "replace", "-n", &new.to_string(), "--json", "--fresh"],
            &["--", "nf-forward"],
        )
        .good()
        .json();
    let third = wait_for(&manager, 1, 1)[0];
    assert_eq!(told, json!({ "instances": 1, "replaced": [{ "instance": new, "by": third }] }));
    let missing = lab.client_at_socket(&["nf", "replace", "1"], &["--", "nf-nowhere"]).with_code(1).err;
    assert!(
        missing.contains(&format!("instance {third} is not replaced: there is no program nf-nowhere")),
        "{missing}"
    );
    wait_for_more(&manager, 500);
    let ledger = manager.stop(LIMIT);
    ledger.assert_clean();
    assert_eq!(ledger.packets("dropped"), 0, "{}", ledger.0);
    drop(watch);
}

#[test]
fn a_service_is_restarted_one_after_the_other_without_loss() {
    let lab = Lab::new();
    let (manager, _watch) = up(&lab, &PLANNED.replace("instances: 1", "instances: 2"));
    let old = wait_for(&manager, 1, 2);
    let told = lab.client(&["nf", "restart", "forward", "--json"]).good().json();
    let new = wait_for(&manager, 1, 2);
    assert!(old.iter().all(|id| !new.contains(id)), "{old:?} {new:?}");
    assert_eq!(
        (&told["instances"], told["replaced"].as_array().map(Vec::len)),
        (&json!(2), Some(2)),
        "{told}"
    );
    wait_for_more(&manager, 1000);
    let out = lab.client(&["nf", "restart", "-n", &new[0].to_string()]).good().out;
    assert!(out.starts_with(&format!("instance {} replaced by ", new[0])), "{out}");
    let ledger = manager.stop(LIMIT);
    ledger.assert_clean();
    assert_eq!(ledger.packets("dropped"), 0, "{}", ledger.0);
}

#[test]
fn what_there_is_not_is_said_clearly() {
    let lab = Lab::new();
    let (manager, _watch) = up(&lab, PLANNED);
    for command in ["stop", "restart", "pause", "resume", "drain", "kill"] {
        assert_eq!(error(&lab, &["nf", command, "-n", "99"]), "onvm-mgr: there is no instance 99\n");
        assert_eq!(error(&lab, &["nf", command, "9"]), "onvm-mgr: service 9 has no instance\n");
        let unknown = "onvm-mgr: there is no service \"forwrad\"; did you mean \"forward\"?\n";
        assert_eq!(error(&lab, &["nf", command, "forwrad"]), unknown);
        let _ = lab.client(&["nf", command]).with_code(2);
        let _ = lab.client(&["nf", command, "1", "-n", "1"]).with_code(2);
    }
    assert_eq!(error(&lab, &["logs", "-n", "99"]), "onvm-mgr: there is no instance 99\n");
    assert_eq!(
        error(&lab, &["logs", "watch"]),
        "onvm-mgr: what is started from a shell writes to that shell, and not to a log of the manager\n"
    );
    assert!(error(&lab, &["nf", "start", "watch"]).contains("has no command for service 2"));
    assert!(lab.client(&["nf", "stop", "4096"]).with_code(2).err.contains("out of range 1..=4095"));
    let _ = lab.client(&["nf", "replace", "1"]).with_code(2);
    assert_eq!(lab.client(&["chain", "set", "watch,forward"]).good().out, "2 -> 1\n");
    let status = lab.client(&["status"]).good().out;
    for part in ["forward", "watch", "1 running", "main: 1 -> 2", "default: 2 -> 1 (default)"] {
        assert!(status.contains(part), "no {part:?}:\n{status}");
    }
    let list = lab.client(&["nf", "list"]).good().out;
    assert!(list.contains("STATE") && list.contains("ROLE") && list.contains("share"), "{list}");
    manager.stop(LIMIT).assert_balanced();
}

#[test]
fn events_tell_the_life_of_an_instance() {
    let lab = Lab::new();
    let (mut manager, _watch) = up(&lab, PLANNED);
    let mut followers =
        [lab.start("onvm-mgr", &["events", "--follow"]), lab.start("onvm-mgr", &["events", "-f", "--json"])];
    let id = wait_for(&manager, 1, 1)[0];
    for follower in &mut followers {
        wait_for_output(follower, "manager-started");
    }
    let last = events(&lab, &[]).last().unwrap()["number"].as_u64().unwrap();
    let _ = lab.client(&["nf", "pause", "forward"]).good();
    wait_for_output(&mut followers[0], "running -> paused by operator: nf pause");
    let _ = lab.client(&["nf", "resume", "forward"]).good();
    let _ = lab.client(&["nf", "drain", "forward"]).good();
    manager.wait_until("its end", |l| ids(l, 1, "").is_empty());
    let since = events(&lab, &["--after", &last.to_string()]);
    assert!(since.iter().all(|e| e["number"].as_u64() > Some(last)));
    let taken: Vec<(String, String)> =
        steps(&events(&lab, &[]), id).into_iter().map(|(from, to, _)| (from, to)).collect();
    let states = ["starting", "ready", "running", "paused", "running", "draining", "gone"];
    let expected: Vec<(String, String)> =
        states.windows(2).map(|pair| (pair[0].to_string(), pair[1].to_string())).collect();
    assert_eq!(taken, expected);
    let text = lab.client(&["events"]).good().out;
    let left = text.lines().find(|l| l.contains(" left ")).unwrap_or_else(|| panic!("{text}"));
    assert!(
        left.contains(&format!("service 1 instance {id} pid ")) && left.contains("draining -> gone"),
        "{left}"
    );
    // One follower is interrupted, the other sees the end of the manager; both end well.
    let [mut people, mut machine] = followers;
    wait_for_output(&mut people, "draining -> gone");
    people.signal(rustix::process::Signal::INT);
    let seen = people.wait(LIMIT).good().out;
    assert!(seen.contains("draining -> gone"), "{seen}");
    let _ = lab.client(&["stop"]).good();
    let _ = manager.ended(LIMIT);
    let seen = machine.wait(LIMIT).good().out;
    let numbers: Vec<u64> = seen
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "each once, in order");
    assert!(seen.contains("manager-stopping"), "{seen}");
}

#[test]
fn logs_show_what_supervised_nfs_write() {
    let lab = Lab::new();
    let script = format!(
        "for n in 1 2 3 4 5; do echo line $n of $$; done; echo said on standard error >&2; exec {} \\\"$@\\\"",
        program("nf-forward").display()
    );
    let command = format!("[sh, -c, \"{script}\", talker]");
    let (mut manager, _watch) = up(&lab, &PLANNED.replace("[nf-forward]", &command));
    let first = wait_for(&manager, 1, 1)[0];
    let text = lab.client(&["logs", "forward"]).good().out;
    assert!(text.starts_with("line 1 of ") && text.contains("\nsaid on standard error\n"), "{text}");
    assert_eq!(lab.client(&["logs", "1", "--lines", "1"]).good().out.lines().count(), 1);
    let line = lab.client(&["logs", "-n", &first.to_string(), "--json"]).good().out;
    let line: Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
    assert!(line["instance"] == first && line["line"].as_str().unwrap().starts_with("line 1 of "), "{line}");
    let mut follower = lab.start("onvm-mgr", &["logs", "forward", "--follow", "--lines", "0"]);
    let (log, files) = (lab.log(1), format!("/proc/{}/fd", follower.pid()));
    wait_until("the follower to read", || {
        let open = std::fs::read_dir(&files).into_iter().flatten().flatten();
        open.map(|file| std::fs::read_link(file.path())).any(|path| path.is_ok_and(|path| path == log))
    });
    let _ = lab.client(&["nf", "scale", "forward", "2"]).good();
    let both = wait_for(&manager, 1, 2);
    let second = both.iter().find(|id| **id != first).unwrap();
    wait_for_output(&mut follower, "line 5 of");
    let text = lab.client(&["logs", "forward"]).good().out;
    for id in &both {
        assert!(text.contains(&format!("[{id}] line 1 of ")), "{text}");
    }
    // A follower of one instance ends with it, and the log is still there.
    let mut of_one = lab.start("onvm-mgr", &["logs", "-n", &second.to_string(), "-f"]);
    wait_for_output(&mut of_one, "line 5 of");
    let _ = lab.client(&["nf", "drain", "-n", &second.to_string()]).good();
    assert!(of_one.wait(LIMIT).good().out.contains("said on standard error"));
    let after = lab.client(&["logs", "-n", &second.to_string()]).good().out;
    assert!(after.starts_with("line 1 of "), "{after}");
    let _ = lab.client(&["stop"]).good();
    let _ = manager.ended(LIMIT);
    let seen = follower.wait(LIMIT).good().out;
    assert!(!seen.contains(&format!("[{first}] line 1")), "{seen}");
}

/// Two that share, and one that stands by.
fn with_standby(lab: &Lab) -> (Manager<'_>, Process) {
    let both = up(lab, &PLANNED.replace("instances: 1", "instances: 2, standby: 1"));
    both.0.wait_until("all", |l| ids(l, 1, "running").len() == 2 && ids(l, 1, "ready").len() == 1);
    both
}

#[test]
fn who_stands_by_is_not_paused_and_takes_over() {
    let lab = Lab::new();
    let (manager, _watch) = with_standby(&lab);
    let standby = ids(&manager.stats(), 1, "ready")[0];
    assert_eq!(
        error(&lab, &["nf", "pause", "-n", &standby.to_string()]),
        format!("onvm-mgr: instance {standby} is ready, and not running\n")
    );
    assert_eq!(lab.client(&["nf", "pause", "forward"]).good().out, "paused 2 instances\n");
    let paused = ids(&manager.stats(), 1, "paused");
    let _ = lab.client(&["nf", "kill", "-n", &paused[0].to_string()]).good();
    manager.wait_until("the heir", |l| ids(l, 1, "running") == [standby]);
    let before = manager.stats();
    let count = |l: &Ledger| l.present().iter().find(|i| i.id() == standby).unwrap().count("received");
    manager.wait_until("packets by the heir", |l| count(l) > count(&before) + 500);
    manager.stop(LIMIT).assert_balanced();
}

#[test]
fn who_is_stopped_leaves_its_flows_to_a_sibling_and_the_standby_alone() {
    let lab = Lab::new();
    let (manager, _watch) = with_standby(&lab);
    let standby = ids(&manager.stats(), 1, "ready");
    let stopped = ids(&manager.stats(), 1, "running")[0];
    let _ = lab.client(&["nf", "stop", "-n", &stopped.to_string()]).good();
    manager.wait_until("one less", |l| ids(l, 1, "").len() == 2);
    wait_for_more(&manager, 1000);
    assert_eq!(ids(&manager.stats(), 1, "ready"), standby);
    manager.stop(LIMIT).assert_balanced();
}

#[test]
fn what_stands_by_is_replaced_by_what_stands_by() {
    let lab = Lab::new();
    let (manager, _watch) = with_standby(&lab);
    let old = ids(&manager.stats(), 1, "");
    let told = lab.client(&["nf", "restart", "forward", "--json"]).good().json();
    assert_eq!(told["instances"], 3, "{told}");
    let new =
        manager.wait_until("new ones", |l| ids(l, 1, "running").len() == 2 && ids(l, 1, "ready").len() == 1);
    assert!(ids(&new, 1, "").iter().all(|id| !old.contains(id)), "{}", new.0);
    wait_for_more(&manager, 1000);
    let ledger = manager.stop(LIMIT);
    ledger.assert_clean();
    assert_eq!(ledger.packets("dropped"), 0, "{}", ledger.0);
}

#[test]
fn a_paused_nf_works_off_what_waits_when_it_is_replaced_let_go_or_stopped() {
    for command in [&["nf", "restart", "forward"][..], &["nf", "scale", "forward", "1"], &["stop"]] {
        let lab = Lab::new();
        let (mut manager, _watch) = up(&lab, &PLANNED.replace("instances: 1", "instances: 2"));
        wait_for(&manager, 1, 2);
        let _ = lab.client(&["nf", "pause", "forward"]).good();
        let before = manager.stats().packets("received");
        manager.wait_until("packets that wait", |l| l.packets("received") > before + 1000);
        let _ = lab.client(command).good();
        if command[0] == "nf" {
            let all = events(&lab, &[]);
            let changes: Vec<&Value> = all.iter().filter(|e| e["event"] == "route-change").collect();
            let left = |e: &&&Value| !e["why"].as_str().unwrap().ends_with(" 0 were left");
            assert!(!changes.iter().any(|e| left(&e)), "{command:?}: {changes:?}");
            let _ = lab.client(&["nf", "resume", "forward"]).good();
            let _ = lab.client(&["stop"]).good();
        }
        let ledger = manager.ended(LIMIT);
        ledger.assert_clean();
        assert_eq!(ledger.packets("dropped"), 0, "{command:?}: {}", ledger.0);
    }
}

#[test]
fn nobody_minds_a_reader_that_goes_away() {
    let lab = Lab::new();
    let (manager, _watch) = up(&lab, PLANNED);
    for command in ["events --follow", "events", "logs forward", "nf list"] {
        let line = format!(
            "{} {command} --socket {} | true; exit ${{PIPESTATUS[0]}}",
            program("onvm-mgr").display(),
            lab.socket().display()
        );
        let mut shell = std::process::Command::new("bash").args(["-c", &line]).spawn().unwrap();
        if command.ends_with("--follow") {
            // It finds out with the next event.
            std::thread::sleep(Duration::from_millis(200));
            let _ = lab.client(&["nf", "scale", "forward", "2"]).good();
        }
        assert!(shell.wait().unwrap().success(), "{command}");
    }
    manager.stop(LIMIT).assert_balanced();
}

/// Every packet is in the books of exactly one monitor of the last generation: each got its predecessor's whole state.
#[test]
fn states_of_several_travel_in_one_restart() {
    const MONITORS: &str = "\
ports: [\"gen:rate=5k,flows=64\", \"null:\"]
services:
  monitor: {command: [nf-monitor, --json], instances: 3}
chains:
  main: [monitor]
default-chain: main
";
    let lab = Lab::new();
    let manager = lab.up(MONITORS, &[]);
    wait_for(&manager, 1, 3);
    for _ in 0..3 {
        wait_for_more(&manager, 2000);
        let told = lab.client(&["nf", "restart", "monitor", "--json"]).good().json();
        assert_eq!(told["instances"], 3, "{told}");
    }
    wait_for_more(&manager, 2000);
    let last = wait_for(&manager, 1, 3);
    let ledger = manager.stop(LIMIT);
    ledger.assert_clean();
    let counted: u64 = ledger
        .instances()
        .iter()
        .filter(|i| last.contains(&i.id()))
        .map(|i| i.report()["packets"].as_u64().unwrap_or_else(|| panic!("{}", i.report())))
        .sum();
    assert_eq!((ledger.packets("dropped"), counted), (0, ledger.packets("received")), "{}", ledger.0);
}
