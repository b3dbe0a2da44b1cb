//! The manager dies, and its NFs wait for the next one: their state is kept, and traffic goes on.

use std::time::{Duration, Instant};

use onvm_lib::node::Counter;
use onvm_lib::protocol::Answer;
use onvm_tests::{LIMIT, Lab, Mock, Process, wait_until};
use rustix::process::Signal;

const CHAIN: [&str; 6] = ["--port", "gen:rate=50k,flows=16", "--port", "null:", "--chain", "1,2"];

fn count(report: &serde_json::Value) -> u64 {
    report["packets"].as_u64().unwrap_or_else(|| panic!("no count in {report}"))
}

/// Ends it, and gives what its own report says and what the runtime says in front of it.
fn leave(mut nf: Process) -> serde_json::Value {
    nf.signal(Signal::TERM);
    nf.wait(LIMIT).good().json()
}

#[test]
fn a_chain_outlives_its_managers() {
    let lab = Lab::new();
    let mut manager = lab.manager(&CHAIN);
    let nfs = [
        lab.nf("nf-forward", &["-r", "1"]),
        lab.nf("nf-monitor", &["-r", "2"]),
        lab.nf("probe_nf", &["-r", "9"]),
    ];
    manager.wait_for_instances(3);
    let mut seen_by_dead = 0;
    for _ in 0..3 {
        let ledger = manager.wait_until("traffic", |l| l.packets("sent") > 2000);
        seen_by_dead += ledger.of_service(2).count("received");
        manager.process.signal(Signal::KILL);
        let _ = manager.process.wait(LIMIT);
        let started = Instant::now();
        manager = lab.manager(&CHAIN);
        manager.wait_for_instances(3);
        println!("all three are back after {:?}", started.elapsed());
    }
    let ledger = manager.wait_until("traffic again", |l| l.packets("sent") > 2000);
    let seen_by_last = ledger.of_service(2).count("received");
    let [forward, monitor, probe] = nfs.map(leave);
    assert!(count(&monitor["report"]) >= seen_by_dead + seen_by_last, "the table is kept: {monitor}");
    assert_eq!(count(&monitor), count(&monitor["report"]));
    assert_eq!(monitor["report"]["flows"]["seen"], 16, "the flows are the same");
    assert!(count(&forward["report"]) >= count(&monitor), "{forward}");
    assert!(forward["sent"].as_u64() >= Some(count(&monitor)), "{forward}");
    assert_eq!((&probe["report"]["lost"], &probe["report"]["found"]), (&3.into(), &3.into()));
    manager.stop(LIMIT).assert_clean();
}

#[test]
fn packets_that_go_round_are_made_again() {
    let lab = Lab::new();
    let mut manager = lab.manager(&[]);
    let mut nf = lab.nf("nf-speedtest", &["-r", "1", "-d", "1", "-c", "16"]);
    for _ in 0..2 {
        manager.wait_for_instances(1);
        manager.wait_until("circling", |l| l.of_service(1).count("received") > 10_000);
        manager.process.signal(Signal::KILL);
        let _ = manager.process.wait(LIMIT);
        manager = lab.manager(&[]);
    }
    manager.wait_for_instances(1);
    manager.wait_until("circling", |l| l.of_service(1).count("received") > 10_000);
    nf.signal(Signal::INT);
    let _ = nf.wait(LIMIT).good();
    manager.stop(LIMIT).assert_clean();
}

#[test]
fn held_packets_are_gone_with_the_manager() {
    let lab = Lab::new();
    let mut process = lab.nf("probe_nf", &["-r", "1", "--say", "hold", "--hold-ms", "300"]);
    let mut first = Mock::new(&lab);
    let mut nf = first.take_in(3);
    assert_eq!(nf.hello.reattached, None);
    first.give(&mut nf, 10);
    wait_until("ten in its hands", || nf.page.counters().get(Counter::Received) == 10);
    drop((nf, first));
    let mut second = Mock::new(&lab);
    let mut nf = second.take_in(1);
    assert_eq!(nf.hello.reattached, Some(3));
    second.give(&mut nf, 10);
    assert_eq!(second.take(&mut nf, 10, LIMIT), 10);
    assert_eq!(second.take(&mut nf, 1, Duration::from_millis(400)), 0, "those of the second only");
    let report = nf.stop();
    assert_eq!((&report["packets"], &report["lost"]), (&20.into(), &1.into()));
    assert_eq!(process.wait(LIMIT).good().json()["instance"], 1);
}

#[test]
fn time_signals_and_refusals_end_the_wait() {
    let lab = Lab::new();
    let mut mock = Mock::new(&lab);
    let mut next = |arguments: &[&str]| {
        let arguments = [&["--json"], arguments].concat();
        let process = lab.start_in("probe_nf", &arguments, &[("RUST_LOG", "warn")]);
        (process, mock.take_in(1))
    };
    let (mut late, a) = next(&["-r", "1", "--reattach", "0.3"]);
    let (mut told, b) = next(&["-r", "1"]);
    let (mut limited, c) = next(&["-r", "1", "-t", "0.5"]);
    let (mut hung_up, d) = next(&["-r", "1"]);
    d.say(&Answer::Refused { reason: "go away".into() });
    let end = hung_up.wait(LIMIT).with_code(1);
    assert!(end.err.contains("the manager refused: go away"), "{end}");
    drop((a, b, c, mock));
    let end = late.wait(LIMIT).with_code(1);
    assert!(end.err.contains("the manager is gone and did not come back within 0.3 seconds"), "{end}");
    assert_eq!(end.json()["report"]["lost"], 1, "it reports all the same");
    told.wait_for_error("the manager is gone", LIMIT);
    told.signal(Signal::INT);
    assert_eq!(told.wait(LIMIT).good().json()["report"]["lost"], 1);
    let _ = limited.wait(LIMIT).good();
    let mut mock = Mock::new(&lab);
    let mut refused = lab.nf("probe_nf", &["-r", "1"]);
    drop(mock.take_in(1));
    mock.refuse("there is no room");
    let end = refused.wait(LIMIT).with_code(1);
    assert!(end.err.contains("the manager refused: there is no room"), "{end}");
}
