//! The life of an NF as its manager steers it: pause, hand-over, messages. The manager is a mock.

use std::os::fd::AsFd;
use std::time::Duration;

use onvm_lib::node::Counter;
use onvm_lib::protocol::{Answer, Message, Say};
use onvm_tests::{LIMIT, Lab, Mock, MockNf, read_capture, sample, wait_until};
use serde_json::{Value, json};

const MOMENT: Duration = Duration::from_millis(100);

/// Waits until an NF has dealt with all that was said to it: it answers in order.
fn has_heard(nf: &mut MockNf) {
    nf.say(&Answer::TakeOver);
    assert!(matches!(nf.hear().0, Say::TookOver { error: Some(_) }), "there is no state to take over");
}

#[test]
fn a_paused_nf_leaves_its_packets_where_they_are() {
    let lab = Lab::new();
    let mut mock = Mock::new(&lab);
    let mut process = lab.nf("probe_nf", &["-r", "1"]);
    let mut nf = mock.take_in(1);
    mock.give(&mut nf, 10);
    assert_eq!(mock.take(&mut nf, 10, LIMIT), 10);
    nf.say(&Answer::Pause);
    has_heard(&mut nf);
    mock.give(&mut nf, 10);
    assert_eq!(mock.take(&mut nf, 1, MOMENT), 0, "it takes none");
    nf.say(&Answer::Resume);
    assert_eq!(mock.take(&mut nf, 10, LIMIT), 10, "they waited");
    assert_eq!(nf.stop()["packets"], 20);
    let _ = process.wait(LIMIT).good();
}

#[test]
fn an_nf_tells_what_a_packet_costs() {
    let lab = Lab::new();
    let mut mock = Mock::new(&lab);
    let mut process = lab.nf("probe_nf", &["-r", "1", "--delay-us", "200"]);
    let mut nf = mock.take_in(1);
    for _ in 0..200 {
        mock.give(&mut nf, 1);
        assert_eq!(mock.take(&mut nf, 1, LIMIT), 1);
    }
    let counters = nf.page.counters();
    let (ns, packets) = (counters.get(Counter::SampledNs), counters.get(Counter::SampledPackets));
    assert!((1..=4).contains(&packets), "{packets} of about 200 turns");
    assert!(ns / packets >= 200_000, "{ns} ns for {packets} packets of 200 us each");
    let _ = nf.stop();
    let _ = process.wait(LIMIT).good();
}

#[test]
fn a_paused_nf_lets_go_of_what_it_holds_and_stops_when_told() {
    let lab = Lab::new();
    let mut mock = Mock::new(&lab);
    let mut process = lab.nf("probe_nf", &["-r", "1", "--say", "hold", "--hold-ms", "60"]);
    let mut nf = mock.take_in(1);
    mock.give(&mut nf, 10);
    wait_until("ten in its hands", || nf.page.counters().get(Counter::Received) == 10);
    nf.say(&Answer::Pause);
    has_heard(&mut nf);
    assert_eq!(mock.take(&mut nf, 10, LIMIT), 10, "time passes for it");
    mock.give(&mut nf, 5);
    assert_eq!(nf.stop()["packets"], 10, "five still wait");
    let _ = process.wait(LIMIT).good();
}

/// Everything in a monitor's report that does not depend on when it looked.
fn timeless(report: &Value) -> Value {
    let mut report = report.clone();
    let all = report.as_object_mut().expect("a report");
    all.retain(|name, _| !name.starts_with("rate"));
    let flows = all["top_flows"].as_array_mut().expect("flows");
    for flow in flows.iter_mut() {
        flow.as_object_mut().expect("a flow").retain(|name, _| !name.ends_with("_ns"));
    }
    // Equal ones come in the order in which they began, which depends on what came in one burst.
    flows.sort_by_key(|flow| flow["flow"].to_string());
    report
}

fn give_all(mock: &mut Mock, nf: &mut MockNf, frames: &[Vec<u8>]) {
    for some in frames.chunks(500) {
        mock.give_frames(nf, some.iter().map(Vec::as_slice));
        assert_eq!(mock.take(nf, some.len(), LIMIT), some.len());
    }
}

#[test]
fn a_monitor_that_is_replaced_reports_what_one_that_is_not_does() {
    let lab = Lab::new();
    let mut mock = Mock::new(&lab);
    let frames: Vec<Vec<u8>> = read_capture(&sample()).into_iter().map(|packet| packet.data).collect();
    let (one, other) = frames.split_at(frames.len() / 2);
    let start = |mock: &mut Mock, id| (lab.nf("nf-monitor", &["-r", "1", "--top", "1000"]), mock.take_in(id));
    let (mut whole, mut whole_nf) = start(&mut mock, 1);
    let (mut first, mut first_nf) = start(&mut mock, 2);
    let (mut second, mut second_nf) = start(&mut mock, 3);
    assert!(first_nf.hello.hands_over);
    give_all(&mut mock, &mut whole_nf, &frames);
    give_all(&mut mock, &mut first_nf, one);
    first_nf.say(&Answer::HandOver);
    let (Say::State, files) = first_nf.hear() else { panic!("no state") };
    mock.give(&mut first_nf, 10);
    assert_eq!(mock.take(&mut first_nf, 1, MOMENT), 0, "it takes no more");
    second_nf.say_with(&Answer::TakeOver, &[files[0].as_fd()]);
    assert_eq!(second_nf.hear().0, Say::TookOver { error: None });
    give_all(&mut mock, &mut second_nf, other);
    let (expected, _, replaced) = (whole_nf.stop(), first_nf.stop(), second_nf.stop());
    assert_eq!(timeless(&replaced), timeless(&expected));
    assert_eq!(replaced["packets"], frames.len());
    for process in [&mut whole, &mut first, &mut second] {
        let _ = process.wait(LIMIT).good();
    }
}

#[test]
fn an_nf_whose_successor_fails_goes_on() {
    let lab = Lab::new();
    let mut mock = Mock::new(&lab);
    let mut process = lab.nf("nf-monitor", &["-r", "1"]);
    let mut nf = mock.take_in(1);
    mock.give(&mut nf, 10);
    assert_eq!(mock.take(&mut nf, 10, LIMIT), 10);
    nf.say(&Answer::HandOver);
    assert_eq!((nf.hear().0, nf.page.counters().get(Counter::Received)), (Say::State, 10));
    mock.give(&mut nf, 10);
    nf.say(&Answer::Resume);
    assert_eq!(mock.take(&mut nf, 10, LIMIT), 10);
    assert_eq!(nf.stop()["packets"], 20);
    let _ = process.wait(LIMIT).good();
}

#[test]
fn a_state_that_is_none_is_refused_with_a_reason() {
    let lab = Lab::new();
    let mut mock = Mock::new(&lab);
    let mut processes = [lab.nf("nf-monitor", &["-r", "1"])];
    let mut monitor = mock.take_in(1);
    let mut bridge_process = lab.nf("nf-forward", &["-r", "1", "--bridge"]);
    let mut bridge = mock.take_in(2);
    let mut probe_process = lab.nf("probe_nf", &["-r", "1"]);
    let mut probe = mock.take_in(3);
    assert!(monitor.hello.hands_over && bridge.hello.hands_over && !probe.hello.hands_over);
    let refused = |nf: &mut MockNf, files: &[std::os::fd::BorrowedFd<'_>]| {
        nf.say_with(&Answer::TakeOver, files);
        match nf.hear().0 {
            Say::TookOver { error: Some(reason) } => reason,
            other => panic!("{other:?}"),
        }
    };
    let zero = std::fs::File::open("/dev/zero").unwrap();
    let (pipe, _writer) = rustix::pipe::pipe().unwrap();
    assert_eq!(refused(&mut monitor, &[]), "no state came");
    for file in [zero.as_fd(), pipe.as_fd()] {
        assert_eq!(refused(&mut monitor, &[file]), "the state is not in a sealed memory file");
    }
    bridge.say(&Answer::HandOver);
    let (Say::State, files) = bridge.hear() else { panic!("no state") };
    let reason = refused(&mut monitor, &[files[0].as_fd()]);
    assert_eq!(reason, "the state is of nf-forward, this is nf-monitor");
    assert_eq!(refused(&mut probe, &[files[0].as_fd()]), "probe_nf takes over no state");
    probe.say(&Answer::HandOver);
    assert!(matches!(probe.hear(), (Say::State, files) if files.is_empty()), "it has none");
    mock.give(&mut monitor, 5);
    assert_eq!(mock.take(&mut monitor, 5, LIMIT), 5, "it is as it was");
    for nf in [monitor, bridge, probe] {
        let _ = nf.stop();
    }
    for process in processes.iter_mut().chain([&mut bridge_process, &mut probe_process]) {
        let _ = process.wait(LIMIT).good();
    }
}

#[test]
fn messages_are_typed() {
    let lab = Lab::new();
    let mut mock = Mock::new(&lab);
    let mut process = lab.nf("family_nf", &["-r", "1"]);
    let mut nf = mock.take_in(1);
    let tell = |nf: &MockNf, topic: &str, from, body| {
        nf.say(&Answer::Message(Message { from, topic: topic.into(), body }));
    };
    tell(&nf, "born", Some(9), json!({"instance": 9, "parent": 1}));
    tell(&nf, "anything", None, json!(4_000_000_000u64));
    tell(&nf, "anything", None, json!(5_000_000_000u64));
    tell(&nf, "roll-call", Some(9), json!(0));
    let (Say::Tell { topic, body, .. }, _) = nf.hear() else { panic!("no answer") };
    assert_eq!((topic.as_str(), &body["instance"]), ("here", &json!(1)));
    let report = nf.stop();
    let failures: Vec<&str> =
        report["failures"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(failures.len(), 2, "{report}");
    assert!(failures[0].contains("\"born\"") && failures[0].contains("missing field `pid`"), "{report}");
    assert!(failures[1].contains("5000000000"), "{report}");
    let _ = process.wait(LIMIT).good();
}
