//! NFs that are paused, and what others must not notice of it.

use std::time::{Duration, Instant};

use onvm_lib::prelude::DropReason;
use onvm_lib::protocol::{Request, Target};
use onvm_tests::{LIMIT, Lab, Manager, wait_until};

fn wait_for_more(manager: &Manager<'_>, packets: u64) {
    let before = manager.stats().packets("sent");
    manager.wait_until("traffic", |l| l.packets("sent") > before + packets);
}

#[test]
fn a_chain_is_changed_while_an_nf_on_it_is_paused() {
    let lab = Lab::new();
    let manager = lab.manager(&["--port", "gen:rate=100k,flows=64", "--port", "null:", "--chain", "1,2"]);
    let nfs = [lab.nf("nf-forward", &["-r", "1"]), lab.nf("nf-monitor", &["-r", "2"])];
    manager.wait_until("traffic", |l| l.packets("sent") > 100);
    let _ = lab.client(&["nf", "pause", "2"]).good();
    manager.wait_until("a full chain", |l| l.drops(DropReason::Backpressure) > 1000);
    for chain in ["2,1", "2", "1,2"] {
        let _ = lab.client(&["chain", "set", chain]).good();
    }
    let _ = lab.client(&["nf", "resume", "2"]).good();
    wait_for_more(&manager, 2000);
    manager.stop(LIMIT).assert_clean();
    drop(nfs);
}

#[test]
fn changes_under_a_paused_nf_leave_other_chains_their_packets() {
    let lab = Lab::new();
    let manager = lab.up(
        "ports: [\"gen:rate=200k,flows=64\", \"null:\", \"gen:rate=10k,flows=8\", \"null:\"]\n\
         services:\n  one: {id: 1, command: [nf-forward]}\n  two: {id: 2, command: [nf-monitor]}\n  three: {id: 3, command: [nf-forward]}\n\
         chains: {main: [one, two], other: [three]}\nrules: [{priority: 1, input-port: 2, chain: other}]\ndefault-chain: main\n",
        &[],
    );
    manager.wait_until("traffic", |l| l.packets("sent") > 1000);
    let _ = lab.client(&["nf", "pause", "2"]).good();
    manager.wait_until("a full chain", |l| l.drops(DropReason::Backpressure) > 1000);
    for chain in ["2,1", "1,2", "2,1", "1,2"] {
        let _ = lab.client(&["chain", "set", chain]).good();
    }
    let before = manager.stats().port(3, "tx_packets");
    manager.wait_until("the other chain's packets", |l| l.port(3, "tx_packets") > before + 5000);
    let _ = lab.client(&["nf", "resume", "2"]).good();
    wait_for_more(&manager, 2000);
    manager.stop(LIMIT).assert_clean();
}

#[test]
fn what_a_paused_nf_does_not_take_holds_up_nothing_for_others() {
    let lab = Lab::new();
    let manager = lab.up(
        "manager: {fair: off}\nports: [\"gen:rate=20k,flows=64\", \"null:\", \"gen:rate=5k,flows=8\", \"null:\"]\n\
         services:\n  one: {id: 1, command: [nf-forward], isolated: true}\n  two: {id: 2, command: [nf-forward]}\n  \
         three: {id: 3, command: [nf-forward]}\n\
         chains: {main: [one, two], other: [one, three]}\nrules: [{priority: 1, input-port: 2, chain: other}]\ndefault-chain: main\n",
        &[],
    );
    manager.wait_until("traffic", |l| l.packets("sent") > 1000);
    let _ = lab.ask(Request::NfPause { target: Target::Service(2) }).unwrap();
    manager.wait_until("what it does not take", |l| l.drops(DropReason::Backpressure) > 100);
    let before = manager.stats().port(3, "tx_packets");
    // 64 of them would come in a second if each of the others had to wait for its own.
    let began = Instant::now();
    wait_until("the other chain's packets", || {
        let came = manager.stats().port(3, "tx_packets") - before;
        assert!(began.elapsed() < Duration::from_secs(40), "{came} packets");
        came > 3000
    });
    let _ = lab.ask(Request::NfResume { target: Target::Service(2) }).unwrap();
    manager.stop(LIMIT).assert_balanced();
}
