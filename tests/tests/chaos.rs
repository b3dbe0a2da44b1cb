//! NFs die, hang and leave at random instants, under load, hundreds of times: nothing may be lost.
//!
//! `ONVM_CHAOS_KILLS=N` makes it longer or shorter, `ONVM_SEED=N` repeats the choices of a run.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use onvm_lib::packet::DropReason;
use onvm_tests::{
    Dice, LIMIT, Lab, Ledger, Manager, Packet, Process, made_capture, read_capture, wait_until,
};
use rustix::process::Signal;

/// Most packets that an NF has in its hands.
const BURST: u64 = 64;

/// What runs as each service.
type Cast = [(&'static str, &'static [&'static str]); 3];
const WRITERS: Cast = [
    ("nf-forward", &["-r", "1"]),
    ("nf-forward", &["-r", "2", "--mac-swap"]),
    ("nf-forward", &["-r", "3", "--decrement-ttl"]),
];
const READERS: Cast =
    [("nf-monitor", &["-r", "1"]), ("nf-monitor", &["-r", "2"]), ("nf-monitor", &["-r", "3"])];
const MIXED: Cast =
    [("nf-monitor", &["-r", "1"]), ("nf-forward", &["-r", "2", "--mac-swap"]), ("nf-monitor", &["-r", "3"])];

fn kills_wanted(default: u64) -> u64 {
    std::env::var("ONVM_CHAOS_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// The running NFs, and what has been done to them.
struct Chaos<'a> {
    lab: &'a Lab,
    cast: Cast,
    dice: Dice,
    running: Vec<(usize, Process)>,
    stopped: Vec<(Instant, u32)>,
    /// Told to leave. They may have to wait for one that is stopped, so nobody waits for them before the end.
    leaving: Vec<Process>,
    kills: u64,
    most: usize,
}

impl<'a> Chaos<'a> {
    fn new(lab: &'a Lab, cast: Cast, most: usize, what: &str) -> Self {
        let mut chaos = Self {
            lab,
            cast,
            dice: Dice::new(what),
            running: Vec::new(),
            stopped: Vec::new(),
            leaving: Vec::new(),
            kills: 0,
            most,
        };
        for service in 0..3 {
            chaos.add(service);
        }
        chaos
    }

    fn add(&mut self, service: usize) {
        let (name, arguments) = self.cast[service];
        self.running.push((service, self.lab.nf(name, arguments)));
    }

    /// Does something to one of them, and sees to it that every service has an instance.
    fn strike(&mut self) {
        let (victim, fate) = (self.dice.index(self.running.len()), self.dice.below(10));
        match fate {
            // Hangs for a while; what is to be killed may also be hung.
            0 => {
                let pause = Duration::from_millis(self.dice.below(40));
                self.running[victim].1.signal(Signal::STOP);
                self.stopped.push((Instant::now() + pause, self.running[victim].1.pid()));
            }
            1 | 2 => {
                let (service, mut process) = self.running.swap_remove(victim);
                process.signal(Signal::TERM);
                process.signal(Signal::CONT);
                self.replace(service);
                self.leaving.push(process);
            }
            _ => {
                let (service, mut process) = self.running.swap_remove(victim);
                process.signal(Signal::KILL);
                self.kills += 1;
                let _ = process.wait(LIMIT);
                self.replace(service);
            }
        }
        self.wake(false);
        std::thread::sleep(Duration::from_micros(self.dice.below(20_000)));
    }

    fn replace(&mut self, service: usize) {
        let left = self.running.iter().filter(|(s, _)| *s == service).count();
        let wanted = 1 + self.dice.index(self.most);
        for _ in left..wanted {
            self.add(service);
        }
    }

    /// Lets those run again whose time has come.
    fn wake(&mut self, all: bool) {
        let now = Instant::now();
        for (_, process) in &mut self.running {
            let pid = process.pid();
            if self.stopped.iter().any(|(until, p)| *p == pid && (all || *until <= now)) {
                process.signal(Signal::CONT);
            }
        }
        self.stopped.retain(|(until, _)| !all && *until > now);
    }

    fn strike_until(&mut self, kills: u64, manager: &mut Manager<'_>) {
        let mut audited = 0;
        while self.kills < kills {
            self.strike();
            assert!(manager.process.is_running(), "the manager died: {}", manager.process.errors());
            if self.kills >= audited + 100 {
                audited = self.kills;
                let (audit, balanced) = manager.audit();
                assert!(balanced, "after {} kills: {audit}", self.kills);
            }
        }
        self.wake(true);
    }

    /// Waits until all have attached: one that has not finds no manager when that one ends.
    fn gather(&mut self) {
        self.wake(true);
        for (service, _) in self.cast.iter().enumerate() {
            let pids = self.running.iter().filter(|(s, _)| *s == service).map(|(_, p)| u64::from(p.pid()));
            let wanted: Vec<u64> = pids.collect();
            wait_until("all to attach", || {
                let there = self.lab.pids(u16::try_from(service + 1).unwrap_or(0));
                wanted.iter().all(|pid| there.contains(pid))
            });
        }
    }

    /// All leave well when the manager says so.
    fn finish(mut self) {
        for (_, process) in &mut self.running {
            let _ = process.wait(LIMIT).good();
        }
        for process in &mut self.leaving {
            // One that has hardly been started dies of the signal, as any program does.
            let end = process.wait(LIMIT);
            assert!(end.code == Some(0) || end.signal == Some(15), "{end}");
        }
    }
}

/// Packets that were lost: in the hands of one that died, or set aside because they were so twice in a row, which
/// chance brings about now and then.
fn lost(ledger: &Ledger) -> u64 {
    ledger.drops(DropReason::Reaped) + ledger.drops(DropReason::Quarantined)
}

fn assert_causes(ledger: &Ledger, kills: u64) {
    ledger.assert_clean();
    let reaped = ledger.drops(DropReason::Reaped);
    println!("{kills} kills: {} packets, {reaped} reaped", ledger.packets("received"));
    assert!(reaped <= kills * BURST, "{reaped} reaped at {kills} kills");
    assert!(ledger.drops(DropReason::Quarantined) <= 1 + kills / 20, "{}", ledger.0["drops"]);
    assert_eq!(ledger.packets("dropped"), lost(ledger), "other drops: {}", ledger.0["drops"]);
    assert_eq!(ledger.packets("received"), ledger.packets("sent") + lost(ledger));
}

fn storm(cast: Cast, most: usize, port: &str, kills: u64, what: &str) -> Ledger {
    let lab = Lab::new();
    let mut manager = lab.manager(&[
        "--port",
        port,
        "--port",
        "null:",
        "--chain",
        "1,2,3",
        "--stay",
        "--wait-for-instance",
        "100",
        "--buffers",
        // A source with a rate does not wait: what comes while nobody is there has room in a quarter of them.
        if port.contains("rate") { "131072" } else { "32768" },
    ]);
    let mut chaos = Chaos::new(&lab, cast, most, what);
    manager.wait_until("traffic", |l| l.packets("sent") > 0);
    chaos.strike_until(kills, &mut manager);
    let before = manager.stats().packets("sent");
    manager.wait_until("traffic after the storm", |l| l.packets("sent") > before);
    chaos.gather();
    let kills = chaos.kills;
    let ledger = manager.stop(LIMIT);
    assert_causes(&ledger, kills);
    chaos.finish();
    ledger
}

#[test]
fn writers_die_at_full_load() {
    let _ = storm(WRITERS, 2, "gen:flows=64", kills_wanted(150), "writers");
}

#[test]
fn writers_die_at_a_steady_rate() {
    let _ = storm(WRITERS, 1, "gen:flows=64,rate=5k", kills_wanted(60), "steady");
}

#[test]
fn readers_lose_nothing_when_they_die() {
    let ledger = storm(READERS, 2, "gen:flows=64", kills_wanted(100), "readers");
    assert_eq!(ledger.drops(DropReason::Reaped), 0, "{}", ledger.0["drops"]);
}

/// Every packet of a capture whose packets all differ.
fn run_capture(
    cast: Cast,
    most: usize,
    count: u32,
    pps: u32,
    what: &str,
) -> (Vec<Packet>, Vec<Packet>, Ledger, u64) {
    let lab = Lab::new();
    let packets = made_capture(&lab.path("in.pcap"), count, 16);
    let port = format!("pcap:in={},out={},pps={pps}", lab.file("in.pcap"), lab.file("out.pcap"));
    let patience = ["--wait-for-instance", "100", "--buffers", "131072"];
    let manager = lab.manager(&[&["--port", &port, "--chain", "1,2,3", "--stay"][..], &patience].concat());
    let mut chaos = Chaos::new(&lab, cast, most, what);
    while manager.stats().packets("received") < u64::from(count) {
        chaos.strike();
    }
    chaos.wake(true);
    // The source has ended: the sums balance while the manager lives on, and nothing is inside any more.
    manager.wait_until("the last packet", |l| l.packets("sent") + l.packets("dropped") == u64::from(count));
    let end = lab.client(&["audit", "--json"]).good();
    assert_eq!(end.json()["packets"]["inside"], 0, "{end}");
    chaos.gather();
    let kills = chaos.kills;
    let ledger = manager.stop(LIMIT);
    assert_causes(&ledger, kills);
    chaos.finish();
    let out = read_capture(&lab.path("out.pcap"));
    (packets, out, ledger, kills)
}

/// Number and flow stand in the payload.
fn number_and_flow(packet: &Packet) -> (u32, u32) {
    let word = |at: usize| u32::from_be_bytes(packet.data[at..at + 4].try_into().unwrap());
    (word(42), word(46))
}

fn out_of_order(packets: &[Packet]) -> usize {
    let mut last: HashMap<u32, u32> = HashMap::new();
    packets
        .iter()
        .filter(|p| {
            let (number, flow) = number_and_flow(p);
            last.insert(flow, number).is_some_and(|before| before > number)
        })
        .count()
}

#[test]
fn every_packet_past_readers_comes_out_exactly_once_and_unharmed() {
    let (mut packets, mut out, ledger, kills) = run_capture(READERS, 2, 40_000, 4_000, "exactly once");
    // Order is kept while NFs live; around a death packets overtake those that wait for the next instance.
    println!("{kills} kills, {} out of order", out_of_order(&out));
    out.sort();
    let set_aside = usize::try_from(ledger.drops(DropReason::Quarantined)).unwrap();
    assert_eq!(packets.len(), out.len() + set_aside, "{}", ledger.0["drops"]);
    packets.retain(|packet| set_aside == 0 || out.binary_search(packet).is_ok());
    assert!(out == packets, "{} packets out that did not come in like that", out.len());
}

#[test]
fn packets_past_writers_come_out_at_most_once_and_whole() {
    let (packets, out, ledger, kills) = run_capture(MIXED, 2, 40_000, 4_000, "at most once");
    let mut wanted: BTreeMap<u32, Vec<u8>> = packets
        .into_iter()
        .map(|p| {
            let swapped = [&p.data[6..12], &p.data[..6], &p.data[12..]].concat();
            (number_and_flow(&p).0, swapped)
        })
        .collect();
    for packet in &out {
        let number = number_and_flow(packet).0;
        assert_eq!(
            wanted.remove(&number).as_ref(),
            Some(&packet.data),
            "packet {number}, after {kills} kills"
        );
    }
    assert_eq!(wanted.len() as u64, lost(&ledger));
}
