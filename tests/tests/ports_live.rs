//! Ports come and go while packets run: numbers stay, every buffer comes back, and the ledger balances.

use onvm_lib::packet::DropReason;
use onvm_lib::protocol::{Request, Target};
use onvm_tests::wire::{SERVER, Wire};
use onvm_tests::{Dice, LIMIT, Lab, Ledger, Manager, read_capture, wait_until};
use serde_json::Value;

fn add(lab: &Lab, spec: &str, number: Option<u8>) -> Result<u64, String> {
    let (body, ok) = lab.ask(Request::PortAdd { spec: spec.into(), number })?;
    assert_eq!(ok, body["error"].is_null(), "{body}");
    body["port"].as_u64().ok_or_else(|| body["error"].as_str().unwrap_or_default().to_string())
}

fn remove(lab: &Lab, port: &str) -> Result<Value, String> {
    let (body, ok) = lab.ask(Request::PortRemove { port: port.into() })?;
    if ok { Ok(body) } else { Err(body["error"].as_str().unwrap_or_default().to_string()) }
}

fn list(lab: &Lab) -> Vec<Value> {
    lab.ask(Request::PortList).unwrap().0["ports"].as_array().cloned().unwrap()
}

fn audited(manager: &Manager<'_>) {
    let (audit, balanced) = manager.audit();
    assert!(balanced, "{audit}");
}

#[test]
fn a_hundred_ports_come_and_go_under_traffic() {
    let lab = Lab::new();
    let manager = lab.manager(&[
        "--port",
        "gen:rate=20k,flows=64",
        "--port",
        "null:",
        "--chain",
        "1",
        "--buffers",
        "4096",
    ]);
    let mut nf = lab.nf("nf-forward", &["-r", "1"]);
    lab.wait_for_running(1, 1);
    let mut dice = Dice::new("ports");
    let faults = ["", ",fault=delay:1ms/1ms;drop:1%;duplicate:1%", ",fault=reorder:5%"];
    for round in 0..100 {
        let source = format!("gen:rate=30k,flows=9{}", faults[round % 3]);
        let sink = match round % 4 {
            0 => format!("pcap:out={}", lab.file("out.pcap")),
            1 => "null:fault=tx:delay:2ms".into(),
            2 => "null:rate=tx:10k".into(),
            _ => "gen:rate=1k".into(),
        };
        // The partner first or the source first; which of them leaves first, as chance has it.
        let (first, second) = if round % 2 == 0 { (2, 3) } else { (3, 2) };
        let text = |number: u8| if number == 2 { &source } else { &sink };
        assert_eq!(add(&lab, text(first), Some(first)), Ok(u64::from(first)));
        assert_eq!(add(&lab, text(second), Some(second)), Ok(u64::from(second)));
        let seen = manager.wait_until("packets", |l| l.port(2, "rx_packets") > 30);
        assert_eq!(seen.0["ports"][2]["name"], source.as_str());
        let (first, second) = if dice.below(2) == 0 { ("2", "3") } else { ("3", "2") };
        for number in [first, second] {
            let body = remove(&lab, number).unwrap();
            assert_eq!(body["port"].to_string(), number);
        }
        let states: Vec<Value> = list(&lab).iter().map(|port| port["state"].clone()).collect();
        assert_eq!(states, ["open", "finished", "empty", "empty"]);
        if round % 10 == 0 {
            audited(&manager);
        }
    }
    audited(&manager);
    let events = lab.events(0);
    let count = |kind: &str| events.iter().filter(|e| e["event"] == kind && e["port"].is_u64()).count();
    assert_eq!((count("port-added"), count("port-removed")), (200, 200));
    let ledger = manager.stop(LIMIT);
    ledger.assert_clean();
    let reasons = [DropReason::NoSuchPort, DropReason::InjectedFault, DropReason::RateLimited];
    let known: u64 = reasons.iter().map(|reason| ledger.drops(*reason)).sum();
    let others = [DropReason::Shutdown, DropReason::Backpressure, DropReason::NoBuffer];
    let others: u64 = others.iter().map(|reason| ledger.drops(*reason)).sum();
    assert_eq!(ledger.packets("dropped"), known + others, "{}", ledger.0["drops"]);
    let _ = nf.wait(LIMIT).good();
}

#[test]
fn what_is_inside_still_goes_out_of_a_port_that_leaves() {
    let lab = Lab::new();
    let out = lab.file("out.pcap");
    let manager = lab.manager(&["--port", "none:", "--port", "null:", "--chain", "1", "--stay"]);
    let mut nf = lab.nf("nf-forward", &["-r", "1"]);
    lab.wait_for_running(1, 1);
    for round in 1..=10 {
        let before = manager.stats();
        assert!(remove(&lab, "1").is_ok());
        assert_eq!(add(&lab, &format!("pcap:out={out},fault=tx:delay:30ms"), Some(1)), Ok(1));
        assert_eq!(add(&lab, "gen:rate=10k,flows=8", Some(0)), Ok(0));
        let _ = manager.wait_until("packets", |l| l.port(0, "rx_packets") > 500);
        // The source first: what it brought is on its way through the chain, and in the line of those that are delayed.
        let source = remove(&lab, "0").unwrap();
        let sink = remove(&lab, "1").unwrap();
        assert_eq!(source["rx_packets"], sink["tx_packets"], "round {round}");
        assert_eq!(read_capture(&lab.path("out.pcap")).len() as u64, sink["tx_packets"].as_u64().unwrap());
        let after = manager.stats();
        let more = |what: &str| after.packets(what) - before.packets(what);
        assert_eq!((more("received"), more("dropped")), (more("sent"), 0), "{}", after.0["drops"]);
        assert_eq!(add(&lab, "null:", Some(1)), Ok(1));
    }
    audited(&manager);
    manager.stop(LIMIT).assert_clean();
    let _ = nf.wait(LIMIT).good();
}

#[test]
fn what_waits_too_long_finds_no_port() {
    let lab = Lab::new();
    let manager = lab.manager(&["--port", "gen:rate=10k", "--port", "null:", "--chain", "1"]);
    let mut nf = lab.nf("nf-forward", &["-r", "1"]);
    lab.wait_for_running(1, 1);
    let _ = manager.wait_until("packets", |l| l.packets("sent") > 100);
    assert!(lab.ask(Request::NfPause { target: Target::Service(1) }).unwrap().1);
    let inside = |l: &Ledger| l.packets("received") - l.packets("sent") - l.packets("dropped");
    let _ = manager.wait_until("packets wait", |l| inside(l) > 300);
    assert!(remove(&lab, "0").is_ok() && remove(&lab, "null:").is_ok());
    let inside = manager.audit().0["packets"]["inside"].as_u64().unwrap();
    assert!(inside >= 200, "{inside}");
    assert!(lab.ask(Request::NfResume { target: Target::Service(1) }).unwrap().1);
    let ledger = manager
        .wait_until("nothing inside", |l| l.packets("received") == l.packets("sent") + l.packets("dropped"));
    assert_eq!(ledger.drops(DropReason::NoSuchPort), inside);
    manager.stop(LIMIT).assert_clean();
    let _ = nf.wait(LIMIT).good();
}

#[test]
fn numbers_are_kept_and_given_again_only_when_asked_for() {
    let lab = Lab::new();
    let manager = lab.manager(&["--port", "gen:rate=1k", "--port", "null:", "--chain", "none"]);
    assert_eq!((add(&lab, "gen:rate=1k,seed=1", None), add(&lab, "null:", None)), (Ok(2), Ok(3)));
    assert!(remove(&lab, "1").is_ok());
    let pairs = |lab: &Lab| list(lab).iter().map(|p| p["pair"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(pairs(&lab), [1, 0, 3, 2]);
    // The partner's number is empty: what is sent there has nowhere to go, and does not turn back.
    let _ = manager.wait_until("drops", |l| l.drops(DropReason::NoSuchPort) > 50);
    assert_eq!(manager.stats().port(0, "tx_packets"), 0);
    assert_eq!(add(&lab, "null:", None), Ok(4), "a removed number stays empty");
    assert_eq!(add(&lab, "null:", Some(1)), Ok(1));
    assert_eq!(add(&lab, "null:rate=5", Some(9)), Ok(9));
    assert_eq!(list(&lab).iter().filter(|port| port["state"] == "empty").count(), 4);
    let plan = lab.ask(Request::PlanShow).unwrap().0["ports"].to_string();
    assert_eq!(
        plan,
        r#"["gen:rate=1k","null:","gen:rate=1k,seed=1","null:","null:","none:","none:","none:","none:","null:rate=5"]"#
    );
    for (spec, number, why) in [
        ("null:", Some(1), "port 1 is null:: remove it first"),
        ("null:", Some(127), "port 127 is out of range 0..=126"),
        ("none:", None, "none: is no port"),
        ("nil:", None, "unknown kind \"nil\""),
        ("pcap:in=/nowhere/x.pcap", None, "/nowhere/x.pcap"),
    ] {
        let told = add(&lab, spec, number).unwrap_err();
        assert!(told.contains(why), "{spec}: {told}");
    }
    for (which, why) in [
        ("5", "there is no port 5"),
        ("null:", "ports 1, 3, 4 are \"null:\""),
        ("gen:rate=2k", "there is no port"),
    ] {
        let told = remove(&lab, which).unwrap_err();
        assert!(told.starts_with(why), "{which}: {told}");
    }
    assert_eq!(lab.ask(Request::PlanShow).unwrap().0["ports"].to_string(), plan);
    manager.stop(LIMIT).assert_clean();
}

#[test]
fn operators_have_commands_for_it() {
    let lab = Lab::new();
    let manager = lab.manager(&["--port", "gen:rate=1k", "--port", "null:", "--chain", "none"]);
    let out = lab.file("out.pcap");
    let told = lab.client(&["port", "add", &format!("pcap:out={out}")]).good().out;
    assert_eq!(told, format!("port 2: pcap:out={out}\n"));
    let told = lab.client(&["port", "list"]).good().out;
    assert!(told.contains("STATE") && told.lines().count() == 4, "{told}");
    let json = lab.client(&["port", "list", "--json"]).good().json();
    assert_eq!((&json["ports"][2]["kind"], &json["ports"][2]["pair"]), (&"pcap".into(), &2.into()));
    assert!(json["ports"][2]["link"]["up"].is_null(), "{json}");
    let told = lab.client(&["port", "remove", &out]).good().out;
    assert!(told.starts_with("port 2 removed: pcap:out="), "{told}");
    let end = lab.client(&["port", "remove", "2"]).with_code(1);
    assert!(end.err.contains("there is no port 2"), "{end}");
    let end = lab.client(&["port", "add", "nlul:"]).with_code(2);
    assert!(end.err.contains("unknown kind \"nlul\""), "{end}");
    let told = lab.client(&["events"]).good().out;
    assert!(told.contains("port-added") && told.contains("port-removed"), "{told}");
    manager.stop(LIMIT).assert_clean();
}

/// A chain file with these ports.
fn file(ports: &[&str]) -> String {
    let ports: Vec<String> = ports.iter().map(|port| format!("  - {port:?}\n")).collect();
    format!(
        "ports:\n{}services:\n  forward: {{command: [nf-forward]}}\nchains:\n  main: [forward]\n",
        ports.concat()
    )
}

#[test]
fn another_plan_brings_its_ports() {
    let lab = Lab::new();
    let manager = lab.up(&file(&["gen:rate=5k", "null:"]), &[]);
    let _ = manager.wait_until("packets", |l| l.packets("sent") > 100);
    let apply = |ports: &[&str]| {
        let path = lab.write("edited.yaml", &file(ports));
        (lab.client(&["apply", &path]), path)
    };
    let same = |path: &str| assert_eq!(lab.client(&["diff", path]).good().out, "");
    let out = lab.file("out.pcap");
    let sink = format!("pcap:out={out}");

    // More, fewer, others; the same file again under another number.
    let (end, path) = apply(&["gen:rate=5k", "null:", "gen:rate=2k", &sink]);
    assert!(end.good().out.starts_with("ports: gen:rate=5k null: -> gen:rate=5k null: gen:rate=2k pcap:"));
    same(&path);
    let _ = manager.wait_until("packets", |l| l.port(3, "tx_packets") > 50);
    let (end, path) = apply(&["gen:rate=5k", &sink, "none:", "null:"]);
    let _ = end.good();
    same(&path);
    let ledger = manager.wait_until("packets", |l| l.port(1, "tx_packets") > 50);
    assert!(ledger.port(0, "rx_packets") > 100, "port 0 was not touched");
    let (end, path) = apply(&["gen:rate=5k"]);
    let _ = end.good();
    same(&path);
    assert_eq!(list(&lab).len(), 1);
    // The only port is its own partner.
    let _ = manager.wait_until("packets", |l| l.port(0, "tx_packets") > 50);

    // What cannot be opened: nothing is touched, as long as nothing has to be closed before.
    let (end, _) = apply(&["gen:rate=5k", "null:", "pcap:in=/nowhere/x.pcap"]);
    assert!(end.with_code(1).err.contains("port 2 cannot be opened, and the plan is not in force"));
    assert_eq!(lab.ask(Request::PlanShow).unwrap().0["ports"].to_string(), r#"["gen:rate=5k"]"#);
    assert_eq!(list(&lab).len(), 1);
    let (end, path) = apply(&["pcap:in=/nowhere/x.pcap", "null:"]);
    let end = end.with_code(1);
    assert!(end.err.contains("in force, but port 0 cannot be opened, and its number is empty"), "{end}");
    let _ = lab.client(&["diff", &path]).with_code(1);
    let states: Vec<Value> = list(&lab).iter().map(|port| port["state"].clone()).collect();
    assert_eq!(states, ["empty", "finished"]);
    audited(&manager);
    manager.stop(LIMIT).assert_clean();
}

#[test]
fn interfaces_are_taken_out_and_put_back_under_a_connection() {
    let Some(wire) = Wire::new(1500) else { return };
    let lab = Lab::new();
    let manager = lab.manager(&["--port", "afpacket:m0", "--port", "afpacket:m1", "--chain", "1"]);
    let mut nf = lab.nf("nf-forward", &["-r", "1"]);
    lab.wait_for_running(1, 1);
    let reaches =
        || wire.at_client(&["ping", "-c", "1", "-W", "2", SERVER]).output().unwrap().status.success();
    wait_until("the server", reaches);
    let capture = lab.file("wire.pcapng");
    for options in ["", ",rate=1Gbit;tx:1Gbit", ",fault=delay:1ms;reorder:1%", &format!(",capture={capture}")]
    {
        assert!(remove(&lab, "m1").is_ok());
        assert!(!reaches(), "the port is gone");
        assert_eq!(add(&lab, &format!("afpacket:m1{options}"), Some(1)), Ok(1));
        wait_until("the server", reaches);
    }
    // A thread writes it.
    manager.wait_until("what was captured", |l| l.port(1, "captured") >= 2);
    let link = &list(&lab)[1]["link"];
    assert_eq!((&link["up"], &link["mtu"]), (&true.into(), &1500.into()), "{link}");
    audited(&manager);
    manager.stop(LIMIT).assert_clean();
    let _ = nf.wait(LIMIT).good();
}
