//! The life of an NF as its manager steers it: pause, hand-over, messages. The manager is a mock.

use std::time::Duration;

use onvm_lib::node::Counter;
use onvm_lib::protocol::Answer;
use onvm_tests::{LIMIT, Lab, Mock};

const MOMENT: Duration = Duration::from_millis(100);

#[test]
fn a_paused_nf_leaves_its_packets_where_they_are() {
    let lab = Lab::new();
    let mut mock = Mock::new(&lab);
    let mut process = lab.nf("probe_nf", &["-r", "1"]);
    let mut nf = mock.take_in(1);
    mock.give(&mut nf, 10);
    assert_eq!(mock.take(&mut nf, 10, LIMIT), 10);
    nf.say(&Answer::Pause);
    std::thread::sleep(MOMENT);
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
    std::thread::sleep(Duration::from_millis(20));
    nf.say(&Answer::Pause);
    assert_eq!(mock.take(&mut nf, 10, LIMIT), 10, "time passes for it");
    mock.give(&mut nf, 5);
    assert_eq!(nf.stop()["packets"], 10, "five still wait");
    let _ = process.wait(LIMIT).good();
}
