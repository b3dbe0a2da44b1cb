//! A dedicated core is polled: an NF with `-m` makes no system call while packets flow. strace is the judge.

use std::process::Command;
use std::time::Duration;

use onvm_tests::{LIMIT, Lab};

/// The time that is looked at, once everything runs.
const WINDOW: Duration = Duration::from_millis(1500);

/// Calls in strace's log by a thread between two times: seconds since 1970, with a fraction.
fn calls(log: &str, thread: u32, from: f64, to: f64) -> Vec<&str> {
    let of_thread = |line: &&str| {
        let mut words = line.split_whitespace();
        let is_it = words.next().and_then(|id| id.parse().ok()) == Some(thread);
        let time: Option<f64> = words.next().and_then(|time| time.parse().ok());
        is_it && time.is_some_and(|time| (from..to).contains(&time))
    };
    log.lines().filter(of_thread).collect()
}

fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn an_nf_that_polls_makes_no_system_call() {
    assert!(
        Command::new("strace").arg("-V").output().is_ok(),
        "strace is needed: scripts/setup.sh test installs it"
    );
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    assert!(processors > 1, "two processors are needed: one for the manager, one to be polled");
    let lab = Lab::new();
    let manager =
        lab.manager(&["--poll", "--port", "gen:flows=100", "--port", "null:", "--hang-timeout", "0"]);
    let trace = lab.file("trace");
    let program = onvm_tests::program("nf-forward").display().to_string();
    let socket = lab.socket().display().to_string();
    // The last that this process may use, which is not always 1.
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let core =
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).max().unwrap().to_string();
    let arguments =
        ["-f", "-ttt", "-o", &trace, &program, "-r", "1", "-m", &core, "--json", "--socket", &socket];
    let mut nf = Command::new("strace").args(arguments).stdout(std::process::Stdio::null()).spawn().unwrap();
    let there = manager.wait_until("packets", |l| l.packets("sent") > 10_000);
    let thread = u32::try_from(there.instances()[0].count("pid")).unwrap();
    let (from, before) = (now(), there.packets("sent"));
    std::thread::sleep(WINDOW);
    let to = now();
    let after = manager.stats().packets("sent");
    assert!(after > before + 10_000, "{before} to {after}: no packets flowed");
    let ledger = manager.stop(LIMIT);
    assert!(nf.wait().unwrap().success());
    let log = std::fs::read_to_string(&trace).unwrap();
    let made = calls(&log, thread, from, to);
    assert!(made.is_empty(), "{} calls for {} packets:\n{}", made.len(), after - before, made.join("\n"));
    // The judge sees calls when there are some.
    assert!(!calls(&log, thread, 0.0, from).is_empty(), "strace saw nothing at all");
    ledger.assert_clean();
}
