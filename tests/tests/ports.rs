//! What every port can have around it: faults, rates. The ledger balances whatever they do.

use onvm_lib::packet::DropReason;
use onvm_tests::{LIMIT, Lab};

/// The ledger's figure for a port, 0 if it has none of this name.
fn extra(ledger: &onvm_tests::Ledger, port: usize, name: &str) -> u64 {
    ledger.0["ports"][port][name].as_u64().unwrap_or(0)
}

#[test]
fn the_ledger_knows_of_every_fault() {
    let lab = Lab::new();
    let faults = "rx:drop:5%;rx:duplicate:5%;tx:drop:3%;corrupt:1%;reorder:1%;delay:3ms/1ms;seed:11";
    let out = lab.file("out.pcap");
    let mut manager = lab.manager(&[
        "--port",
        &format!("gen:count=40000,flows=50,fault={faults}"),
        "--port",
        &format!("pcap:out={out},fault=tx:drop:3%;tx:duplicate:2%/2;tx:delay:2ms"),
        "--chain",
        "1",
    ]);
    let mut nf = lab.nf("nf-forward", &["-r", "1"]);
    let ledger = manager.ended(LIMIT);
    let _ = nf.wait(LIMIT).good();
    ledger.assert_clean();
    let dropped = extra(&ledger, 0, "rx_faulted") + extra(&ledger, 1, "tx_faulted");
    assert_eq!(ledger.drops(DropReason::InjectedFault), dropped);
    let copied = extra(&ledger, 0, "rx_duplicated") + extra(&ledger, 1, "tx_duplicated");
    assert_eq!(ledger.packets("copied"), copied);
    assert!(dropped > 2000 && copied > 2000, "{}", ledger.0);
    assert_eq!((ledger.packets("received"), ledger.port(0, "rx_packets")), (40_000, 40_000));
    assert_eq!(ledger.packets("sent"), 40_000 + copied - dropped);
    assert_eq!(onvm_tests::read_capture(&lab.path("out.pcap")).len() as u64, ledger.packets("sent"));
}

#[test]
fn what_is_over_a_rate_is_dropped_by_its_name() {
    let lab = Lab::new();
    let mut manager =
        lab.manager(&["--port", "gen:count=30000", "--port", "null:rate=tx:1k;tx:5Mbit", "--chain", "none"]);
    let ledger = manager.ended(LIMIT);
    ledger.assert_clean();
    let limited = ledger.drops(DropReason::RateLimited);
    assert_eq!(limited, extra(&ledger, 1, "tx_rate_limited"));
    assert_eq!(ledger.packets("sent"), 30_000 - limited);
    assert!(limited > 10_000 && ledger.packets("sent") >= 64, "{}", ledger.0);
}

#[test]
fn a_manager_that_stops_lets_go_of_what_is_delayed() {
    let lab = Lab::new();
    let manager = lab.manager(&[
        "--port",
        "gen:rate=20k,fault=rx:delay:300ms",
        "--port",
        "null:fault=tx:delay:300ms",
        "--chain",
        "none",
    ]);
    let _ = manager.wait_until("packets", |l| l.packets("sent") > 2000);
    let (audit, balanced) = manager.audit();
    assert!(balanced && audit["packets"]["inside"].as_u64().unwrap() > 1000, "{audit}");
    manager.stop(LIMIT).assert_clean();
}
