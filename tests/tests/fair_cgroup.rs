//! Shares as weights of real control groups, where there is a cgroup v2 that has the cpu controller and that we may divide.

use std::path::{Path, PathBuf};
use std::process::Command;

use onvm_lib::protocol::{Request, Target};
use onvm_tests::{LIMIT, Lab, Ledger, program};
use serde_json::Value;

/// A group for the manager, which is delegated to it; removed at the end.
struct Delegated(PathBuf);

impl Delegated {
    /// Makes one; else why there can be none.
    fn make() -> Result<Self, String> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").map_err(|e| e.to_string())?;
        let mut points = mounts.lines().filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            after.starts_with("cgroup2 ").then(|| before.split(' ').nth(4)).flatten()
        });
        let root = PathBuf::from(points.next().ok_or("no cgroup v2 is mounted")?);
        let has_cpu = |path: &Path| {
            let controllers = std::fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
            controllers.split_ascii_whitespace().any(|controller| controller == "cpu")
        };
        if !has_cpu(&root) {
            return Err(format!("{} has no cpu controller{}", root.display(), where_it_is(&mounts)));
        }
        // Only the root may have processes of its own beside groups below.
        let _ = std::fs::write(root.join("cgroup.subtree_control"), "+cpu");
        let path = root.join(format!("onvm-test-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let group = Self(path);
        if !has_cpu(&group.0) {
            return Err(format!("{} does not pass the cpu controller on", root.display()));
        }
        let (flags, said) = (rustix::fs::XattrFlags::empty(), b"1");
        rustix::fs::setxattr(&group.0, "trusted.delegate", said, flags)
            .or_else(|_| rustix::fs::setxattr(&group.0, "user.delegate", said, flags))
            .map_err(|e| format!("{} cannot be marked as delegated: {e}", group.0.display()))?;
        Ok(group)
    }

    /// A script that moves itself into the group and becomes the program.
    fn script(&self, lab: &Lab, program: &Path) -> PathBuf {
        let procs = self.0.join("cgroup.procs");
        let text = format!("#!/bin/sh\necho $$ > {} && exec {} \"$@\"\n", procs.display(), program.display());
        let script = lab.write("inside.sh", &text);
        assert!(Command::new("chmod").args(["755", &script]).status().unwrap().success());
        script.into()
    }

    /// Groups below it.
    fn below(&self) -> Vec<PathBuf> {
        let all = std::fs::read_dir(&self.0).into_iter().flatten().filter_map(Result::ok);
        all.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for path in self.below().into_iter().chain([self.0.clone()]) {
            let _ = std::fs::remove_dir(path);
        }
    }
}

/// Where the cpu controller is instead: it can be in one hierarchy only.
fn where_it_is(mounts: &str) -> String {
    let v1 = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let options = after.strip_prefix("cgroup ")?.rsplit(' ').next()?;
        options.split(',').any(|option| option == "cpu").then(|| before.split(' ').nth(4)).flatten()
    });
    v1.map_or_else(String::new, |point| format!(": it is bound to the hierarchy of cgroup v1 at {point}"))
}

fn of(ledger: &Ledger, service: u64) -> Value {
    let all = ledger.0["instances"].as_array().unwrap();
    all.iter().find(|i| i["service"] == service).cloned().unwrap_or_default()
}

/// The group of a process.
fn group_of(instance: &Value) -> String {
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", instance["pid"])).unwrap();
    text.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_string()
}

#[test]
fn weights_of_real_groups_follow_what_comes_and_are_taken_back() {
    let delegated = match Delegated::make() {
        Ok(delegated) => delegated,
        Err(why) => {
            eprintln!("SKIPPED: no weights of control groups here: {why}");
            return;
        }
    };
    let lab = Lab::new();
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let core = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).max().unwrap();
    let core = core.to_string();
    let manager = delegated.script(&lab, &program("onvm-mgr"));
    let socket = lab.file("onvm.sock");
    let mut manager = Command::new(manager)
        .args(["--json", "--no-pin", "--no-huge", "-t", "150", "--stay", "--socket", &socket])
        .args(["--port", "gen:rate=400000,flows=8", "--chain", "1"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    onvm_tests::wait_until("a manager", || lab.ask(Request::Status).is_ok());
    // NFs may come from anywhere: the manager moves them.
    let inside = |service: &str, cycles: &str| {
        lab.nf("cost_nf", &["-r", service, "--cycles", cycles, "-m", &core, "-s"])
    };
    let (mut busy, mut idle) = (inside("1", "10000"), inside("2", "100"));
    let stats = || Ledger(lab.ask(Request::Stats).unwrap().0);
    onvm_tests::wait_until("both", || stats().present().len() == 2);
    assert_eq!(stats().0["fair"], "cgroup", "{}", stats().0);
    onvm_tests::wait_until("shares", || {
        of(&stats(), 1)["cpu_share"].as_u64().is_some_and(|weight| weight > 100)
    });
    let divided = stats();
    for service in [1, 2] {
        let instance = of(&divided, service);
        let group = group_of(&instance);
        let own = delegated.0.join(group.rsplit('/').next().unwrap());
        let weight = std::fs::read_to_string(own.join("cpu.weight")).unwrap();
        assert_eq!(Some(weight.trim().parse().unwrap()), instance["cpu_share"].as_u64(), "{group}");
    }
    let _ = lab.ask(Request::NfStop { target: Target::Service(2) }).unwrap();
    let _ = idle.wait(LIMIT).good();
    onvm_tests::wait_until("its share taken back", || of(&stats(), 1)["cpu_share"].is_null());
    let group = group_of(&of(&stats(), 1));
    assert!(group.ends_with(".mgr"), "{group}");
    let _ = lab.ask(Request::Shutdown);
    let _ = busy.wait(LIMIT).good();
    assert!(manager.wait().unwrap().success());
    let limit = std::time::Instant::now() + LIMIT;
    while delegated.below().len() > 1 {
        assert!(std::time::Instant::now() < limit, "groups are left over: {:?}", delegated.below());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
