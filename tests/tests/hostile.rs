//! A hostile NF beside a good chain: the good packets come out complete and unharmed, and the manager lives on.

use std::time::Duration;

use onvm_tests::{LIMIT, Lab, Ledger, Process, made_capture, read_capture, same_by_flow};
use rustix::process::Signal;

/// How long an attack lasts.
const TIME: Duration = Duration::from_millis(1500);
const PACKETS: u32 = 30_000;

/// A manager with a good chain of two, and attackers as service 66.
struct Siege {
    lab: Lab,
    isolated: bool,
    mirror_to_attackers: bool,
}

impl Siege {
    fn new(isolated: bool) -> Self {
        Self { lab: Lab::new(), isolated, mirror_to_attackers: false }
    }

    fn attacker(&self, attack: &str, seed: u32, more: &[&str]) -> Process {
        let (socket, time) = (self.lab.socket().display().to_string(), TIME.as_millis().to_string());
        let seed = seed.to_string();
        let mut arguments = vec![socket.as_str(), "66", attack, &time, &seed];
        arguments.extend(more);
        self.lab.bare("hostile_nf", &arguments)
    }

    /// Runs it; returns the statistics while the attackers were there, and the ledger at the end.
    fn hold(self, attack: &str, more: &[&str]) -> (Ledger, Ledger) {
        let lab = &self.lab;
        let packets = made_capture(&lab.path("in.pcap"), PACKETS, 20);
        // Paced to last longer than the attack; a rate that a slow machine keeps up with.
        let port = format!("pcap:in={},out={},pps=12k", lab.file("in.pcap"), lab.file("out.pcap"));
        let isolate: &[&str] = if self.isolated { &["--isolate", "66"] } else { &[] };
        let wait = [
            "--chain",
            "1,2",
            "--wait",
            "1,2,66",
            "--stay",
            "--port",
            "null:",
            "--port",
            "null:",
            "--buffers",
            "131072",
        ];
        let mut arguments = vec!["--port", port.as_str()];
        arguments.extend(wait.iter().chain(isolate));
        let mut manager = lab.manager(&arguments);
        let mirror: &[&str] =
            if self.mirror_to_attackers { &["--mirror", "service=66"] } else { &["--say", "out=0"] };
        let mut last = vec!["-r", "2"];
        last.extend(mirror);
        if self.mirror_to_attackers {
            // Port 1 is the pair of port 0: packets shall come out of port 0 all the same.
            last.extend(["--say", "out=0"]);
        }
        let mut good = [lab.nf("nf-forward", &["-r", "1"]), lab.nf("probe_nf", &last)];
        lab.wait_for_running(1, 1);
        lab.wait_for_running(2, 1);
        let mut attackers = [self.attacker(attack, 1, more), self.attacker(attack, 2, more)];
        manager.wait_until("the whole capture", |l| l.packets("received") >= u64::from(PACKETS));
        let during = manager.stats();
        for attacker in &mut attackers {
            attacker.signal(Signal::KILL);
            let end = attacker.wait(LIMIT);
            assert!(end.signal == Some(9) && end.out.contains("attached"), "it failed of itself: {end}");
        }
        manager.wait_until("the attackers' end", |l| l.present().len() == 2);
        for nf in &mut good {
            assert!(nf.is_running(), "a good NF died: {}", nf.errors());
        }
        let (audit, balanced) = manager.audit();
        assert!(balanced, "{audit}");
        assert!(manager.process.is_running());
        let ledger = manager.stop(LIMIT);
        let out = read_capture(&lab.path("out.pcap"));
        // Packets that an attacker made of buffers which it was given may come out too.
        let ours: Vec<_> = out.into_iter().filter(|p| packets.binary_search(p).is_ok()).collect();
        assert_eq!(ours.len(), packets.len(), "packets of the good chain are missing or changed");
        assert!(same_by_flow(&ours, &packets), "the good chain's flows are out of order");
        for nf in &mut good {
            let _ = nf.wait(LIMIT).good();
        }
        (during, ledger)
    }
}

/// Descriptors that were refused while the attack went on.
fn refused(stats: &Ledger) -> u64 {
    stats.bad_descriptors()
}

#[test]
fn garbage_in_ring_headers() {
    for isolated in [true, false] {
        let _ = Siege::new(isolated).hold("rings", &[]);
    }
}

#[test]
fn garbage_in_slots() {
    for isolated in [true, false] {
        let (during, _) = Siege::new(isolated).hold("slots", &[]);
        assert!(refused(&during) > 1000, "{}", during.0);
    }
}

#[test]
fn guessed_descriptors() {
    let (during, _) = Siege::new(true).hold("guess", &[]);
    assert!(refused(&during) > 10_000, "{}", during.0);
}

#[test]
fn orders_for_others() {
    for isolated in [true, false] {
        let (during, _) = Siege::new(isolated).hold("orders", &[]);
        assert!(refused(&during) > 100, "{}", during.0);
    }
}

#[test]
fn buffers_given_back_twice() {
    let mut siege = Siege::new(true);
    siege.mirror_to_attackers = true;
    let (during, _) = siege.hold("twice", &[]);
    assert!(refused(&during) > 100, "{}", during.0);
}

#[test]
fn garbage_in_the_node_page() {
    let (_, ledger) = Siege::new(true).hold("page", &[]);
    assert_eq!(ledger.instances().len(), 4);
}

#[test]
fn deaths_that_are_lies() {
    let _ = Siege::new(false).hold("life", &[]);
}

#[test]
fn garbage_in_the_pool() {
    let mut siege = Siege::new(true);
    siege.mirror_to_attackers = true;
    let _ = siege.hold("pool", &[]);
}

#[test]
fn a_read_only_pool_stays_read_only() {
    let _ = Siege::new(false).hold("orders", &["reads-only"]);
}

#[test]
fn doorbells_that_would_block() {
    let _ = Siege::new(false).hold("doorbell", &[]);
}

#[test]
fn lines_that_never_listen() {
    let _ = Siege::new(true).hold("flood", &[]);
}

#[test]
fn lines_that_talk_nonsense() {
    let _ = Siege::new(true).hold("babble", &[]);
}

#[test]
fn a_line_that_ends_while_its_process_lives() {
    let _ = Siege::new(true).hold("hang-up", &[]);
}

#[test]
fn events_say_for_what_an_nf_was_hung_up_on() {
    let lab = Lab::new();
    let manager = lab.manager(&["--port", "null:"]);
    for (attack, what) in [
        ("nonsense", "message on the control socket makes no sense"),
        ("out-of-turn", "\"ask\" was not expected here"),
        ("hang-up", "it ended its connection"),
    ] {
        let before = lab.last_event();
        let socket = lab.socket().display().to_string();
        // It goes on without end, so that it has to be killed.
        let mut attacker = lab.bare("hostile_nf", &[&socket, "66", attack, "600000", "1"]);
        let event = lab.wait_for_event("crashed", before);
        let why = event["why"].as_str().unwrap_or_default();
        assert!(why.contains(what) && why.contains("its process went on"), "{event}");
        assert_eq!((&event["by"], &event["service"]), (&"manager".into(), &66.into()), "{event}");
        assert_eq!(attacker.wait(LIMIT).signal, Some(9));
    }
    manager.stop(LIMIT).assert_balanced();
}
