//! What NFs say of packets, and where packets then go.

use onvm_lib::packet::DropReason;
use onvm_tests::{LIMIT, Lab, Ledger};

/// Packets from a generator through one test NF to a sink.
fn generate(port: &str, arguments: &[&str], nf: &[&str]) -> Ledger {
    let lab = Lab::new();
    let mut all = vec!["--port", port, "--port", "null:", "--chain", "1"];
    all.extend(arguments);
    let mut manager = lab.manager(&all);
    let mut nf = lab.nf("probe_nf", nf);
    let ledger = manager.ended(LIMIT);
    ledger.assert_clean();
    let _ = nf.wait(LIMIT).good();
    ledger
}

#[test]
fn made_packets_have_the_count_sizes_and_flows_asked_for() {
    let ledger = generate("gen:size=100,count=50k,flows=16", &[], &["-r", "1"]);
    let bytes = (ledger.port(0, "rx_bytes"), ledger.port(1, "tx_bytes"));
    assert_eq!((ledger.packets("sent"), bytes), (50_000, (5_000_000, 5_000_000)));
    assert_eq!(ledger.of_service(1).report()["flows"].as_array().unwrap().len(), 16);
    let ledger = generate("gen:imix=1,count=1200", &[], &["-r", "1"]);
    assert_eq!(ledger.port(1, "tx_bytes"), 100 * (7 * 64 + 4 * 594 + 1518));
    let started = std::time::Instant::now();
    let ledger = generate("gen:rate=2k,count=1000", &[], &["-r", "1"]);
    assert_eq!(ledger.packets("sent"), 1000);
    assert!(started.elapsed().as_millis() >= 450, "1000 packets at 2000 a second came too fast");
}

#[test]
fn limits_end_the_manager() {
    let ledger = generate("gen:", &["-l", "12345"], &["-r", "1"]);
    assert_eq!((ledger.packets("received"), ledger.packets("sent")), (12_345, 12_345));
    // The NF starts meanwhile, too.
    let ledger = generate("gen:rate=10k", &["-t", "3"], &["-r", "1"]);
    assert!((1..=30_100).contains(&ledger.packets("sent")), "{}", ledger.packets("sent"));
}

#[test]
fn an_nf_leaves_at_its_limits_and_the_next_goes_on() {
    for limit in [["-l", "2000"], ["-t", "2"]] {
        let lab = Lab::new();
        // What comes before the next one is there has room in a quarter of the pool.
        let mut manager = lab.manager(&["--port", "gen:rate=4k,count=10k", "--chain", "1"]);
        let mut first = lab.nf("probe_nf", &["-r", "1", limit[0], limit[1]]);
        let left = first.wait(LIMIT).good().json();
        assert!((1..10_000).contains(&left["packets"].as_u64().unwrap()), "{left}");
        let mut second = lab.nf("probe_nf", &["-r", "1"]);
        let ledger = manager.ended(LIMIT);
        ledger.assert_clean();
        assert_eq!((ledger.packets("received"), ledger.packets("sent")), (10_000, 10_000), "{}", ledger.0);
        let _ = second.wait(LIMIT).good();
    }
}

#[test]
fn each_flow_stays_on_one_instance() {
    let lab = Lab::new();
    let mut manager =
        lab.manager(&["--port", "gen:flows=200,count=100k", "--chain", "1,2", "--wait", "1,2,9"]);
    let mut nfs: Vec<_> = ["1", "2", "2", "2"].iter().map(|r| lab.nf("probe_nf", &["-r", r])).collect();
    manager.wait_for_instances(4);
    // The instance that opens the ports.
    nfs.push(lab.nf("probe_nf", &["-r", "9"]));
    let ledger = manager.ended(LIMIT);
    ledger.assert_clean();
    assert_eq!(ledger.packets("sent"), 100_000);
    let (mut seen, mut packets) = (std::collections::BTreeSet::new(), 0);
    for instance in ledger.instances().iter().filter(|i| i.service() == 2) {
        let flows = instance.report()["flows"].as_array().unwrap();
        assert!((30..110).contains(&flows.len()), "a third of 200 flows is not {}", flows.len());
        packets += instance.count("received");
        for flow in flows {
            assert!(seen.insert(flow.as_u64().unwrap()), "flow {flow} was at two instances");
        }
    }
    assert_eq!((seen.len(), packets), (200, 100_000));
}

#[test]
fn verdicts_are_followed() {
    let drop = generate("gen:count=1000", &[], &["-r", "1", "--say", "drop"]);
    assert_eq!((drop.packets("sent"), drop.drops(DropReason::Denied)), (0, 1000));
    assert_eq!(drop.of_service(1).count("dropped"), 1000);
    let out = generate("gen:count=1000", &[], &["-r", "1", "--say", "out=0"]);
    assert_eq!((out.port(0, "tx_packets"), out.port(1, "tx_packets")), (1000, 0));
    let nowhere = generate("gen:count=1000", &[], &["-r", "1", "--say", "out=7"]);
    assert_eq!(nowhere.drops(DropReason::NoSuchPort), 1000);
    let nobody =
        generate("gen:count=1000", &["--wait-for-instance", "0.2"], &["-r", "1", "--say", "service=77"]);
    assert_eq!(nobody.drops(DropReason::NoInstance), 1000);
}

#[test]
fn mirrored_packets_come_out_twice() {
    let mirror = generate("gen:count=1000", &[], &["-r", "1", "--mirror", "out=0"]);
    assert_eq!((mirror.port(0, "tx_packets"), mirror.port(1, "tx_packets")), (1000, 1000));
    assert_eq!((mirror.packets("copied"), mirror.packets("sent")), (1000, 2000));
}

#[test]
fn a_verdict_can_name_a_service() {
    let lab = Lab::new();
    let mut manager = lab.manager(&["--port", "gen:count=5000", "--wait", "1,5"]);
    let _nfs = [lab.nf("probe_nf", &["-r", "5"]), lab.nf("probe_nf", &["-r", "1", "--say", "service=5"])];
    let ledger = manager.ended(LIMIT);
    ledger.assert_clean();
    assert_eq!((ledger.of_service(5).count("received"), ledger.packets("sent")), (5000, 5000));
    assert_eq!(ledger.of_service(1).count("to_service"), 5000);
}

#[test]
fn what_goes_round_in_circles_ends_by_the_hop_limit() {
    let lab = Lab::new();
    let mut manager = lab.manager(&["--port", "gen:count=20k,flows=8", "--wait", "1,2"]);
    let mut nfs =
        [lab.nf("nf-forward", &["-r", "2", "-d", "1"]), lab.nf("nf-forward", &["-r", "1", "-d", "2"])];
    let ledger = manager.ended(LIMIT);
    ledger.assert_clean();
    let (limit, pressed) = (ledger.drops(DropReason::HopLimit), ledger.drops(DropReason::Backpressure));
    assert_eq!((ledger.packets("sent"), limit + pressed), (0, 20_000));
    assert!(limit > 15_000, "{limit} by the hop limit, {pressed} by backpressure");
    for nf in &mut nfs {
        let _ = nf.wait(LIMIT).good();
    }
}
