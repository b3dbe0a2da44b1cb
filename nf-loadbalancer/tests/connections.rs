//! Who gets a connection, and that it stays there.

mod site;

use onvm_lib::prelude::{DropReason, Verdict};
use onvm_lib::wire::tcp::Flags;
use serde_json::json;
use site::{CLIENT, OWN, SECOND, Site, answer, assert_sound, backend_of, config, file, key, mac, to_service};

const N: u32 = 2000;

/// Opens connections, answered and established; the backend of each.
fn establish(site: &mut Site, connections: std::ops::Range<u32>) -> Vec<u8> {
    connections
        .map(|n| {
            let there = site.pass(&to_service(n, Flags::SYN));
            site.pass(&answer(&there, Flags::SYN | Flags::ACK));
            let again = site.pass(&to_service(n, Flags::ACK));
            assert_eq!(backend_of(&there), backend_of(&again));
            backend_of(&there)
        })
        .collect()
}

/// Where the packets of connections go now.
fn now(site: &mut Site, connections: std::ops::Range<u32>) -> Vec<u8> {
    connections.map(|n| backend_of(&site.pass(&to_service(n, Flags::ACK)))).collect()
}

#[test]
fn a_connection_is_translated_there_and_back() {
    for six in [false, true] {
        let mut site = Site::new(&file(six, 3, ""));
        let (client, vip) =
            if six { ("2001:db8:9::1", "2001:db8::1") } else { ("198.51.100.7", "192.0.2.1") };
        let base = onvm_lib::wire::build::Packet::ethernet(CLIENT, OWN).vlan(42);
        let ip = match (client.parse().unwrap(), vip.parse().unwrap()) {
            (std::net::IpAddr::V4(a), std::net::IpAddr::V4(b)) => base.ipv4(a, b),
            (std::net::IpAddr::V6(a), std::net::IpAddr::V6(b)) => base.ipv6(a, b),
            _ => unreachable!(),
        };
        let request = ip.tcp(5555, 80).flags(Flags::SYN).to_vec().unwrap();
        let out = site.send(&request);
        let (verdict, there) = &out[0];
        assert_eq!(*verdict, Verdict::Out(1));
        assert_sound(there);
        let n = backend_of(there);
        assert_eq!(
            (&there[..6], &there[6..12], &there[12..16]),
            (&mac(n).0[..], &OWN.0[..], &[0x81, 0, 0, 42][..])
        );
        assert_eq!(key(there).src().unwrap().to_string(), client);
        let back = site.send_all(&[answer(there, Flags::SYN | Flags::ACK)], 1);
        let (verdict, back) = &back[0];
        assert_eq!(*verdict, Verdict::Out(0));
        assert_sound(back);
        assert_eq!(key(back), key(&request).reversed());
        assert_eq!((&back[..6], &back[6..12]), (&CLIENT.0[..], &OWN.0[..]));
    }
}

#[test]
fn no_established_connection_moves_when_a_backend_is_added_or_drained_or_removed() {
    for scheduler in ["maglev", "round-robin", "least-connections", "random"] {
        let text = |backends| file(false, backends, &format!("scheduler: {scheduler}"));
        let mut site = Site::new(&text(3));
        let before = establish(&mut site, 0..N);
        site.balancer.replace(config(&text(4)), site.now_ns);
        assert_eq!(now(&mut site, 0..N), before, "{scheduler}: added in the file");
        site.tell("drain", json!({"service": "web", "backend": "b1"}));
        assert_eq!(now(&mut site, 0..N), before, "{scheduler}: drained");
        let body =
            json!({"service": "web", "backend": "b5", "address": "10.1.0.5", "mac": mac(5).to_string()});
        site.tell("add", body);
        site.tell("weight", json!({"service": "web", "backend": "b2", "weight": 7}));
        site.tell("remove", json!({"service": "web", "backend": "b3"}));
        assert_eq!(now(&mut site, 0..N), before, "{scheduler}: added, weighed and removed by command");
        let new = establish(&mut site, N..2 * N);
        assert!(
            !new.contains(&1) && !new.contains(&3),
            "{scheduler}: a drained or removed one got a connection"
        );
        assert!(new.contains(&4) && new.contains(&5), "{scheduler}");
        assert_eq!(site.report()["commands"]["refused"], 0);
    }
}

#[test]
fn only_connections_of_the_dead_move() {
    let service = "health: {type: tcp}";
    let mut site = Site::v4(10, service);
    let before = establish(&mut site, 0..N);
    let targets = site.balancer.targets();
    assert_eq!(targets.len(), 10);
    let dead = &targets[3];
    let news =
        nf_loadbalancer::health::News { slot: dead.slot, id: dead.id, good: false, what: "gone".into() };
    site.balancer.health(&news, site.now_ns);
    let after = now(&mut site, 0..N);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before == after, *before != 4);
    }
    assert_eq!(site.report()["services"][0]["backends"][3]["state"], "down");
    assert!(site.balancer.report().text.contains("b4"));
    // It comes back; those that moved stay where they are.
    site.balancer.health(&nf_loadbalancer::health::News { good: true, ..news }, site.now_ns);
    assert_eq!(now(&mut site, 0..N), after);
    assert!(establish(&mut site, N..2 * N).contains(&4));
}

#[test]
fn new_connections_keep_their_backends_without_the_table_too() {
    // What was forgotten, or came to another balancer, is found again by consistent hashing.
    let (mut one, mut other) = (Site::v4(20, ""), Site::v4(20, ""));
    let before = establish(&mut one, 0..N);
    assert_eq!(now(&mut other, 0..N), before);
    assert_eq!(other.counts()["adopted"], N);
}

#[test]
fn shares_follow_weights() {
    for scheduler in ["maglev", "round-robin", "least-connections", "random"] {
        let text = file(false, 3, &format!("scheduler: {scheduler}")).replace("b3: {", "b3: {weight: 2, ");
        let mut site = Site::new(&text);
        establish(&mut site, 0..4000);
        let open = site.open();
        let slack = if matches!(scheduler, "round-robin" | "least-connections") { 1 } else { 200 };
        for (open, wanted) in open.iter().zip([1000u64, 1000, 2000]) {
            assert!(open.abs_diff(wanted) <= slack, "{scheduler}: {open:?} {wanted}");
        }
    }
}

#[test]
fn a_full_backend_is_passed_over_and_a_full_service_drops() {
    let text = file(false, 2, "max-connections: 30").replace("b1: {", "b1: {max-connections: 10, ");
    let mut site = Site::new(&text);
    establish(&mut site, 0..30);
    assert_eq!(site.open(), [10, 20]);
    assert_eq!(site.refuse(&to_service(40, Flags::SYN)), DropReason::TableFull);
    assert_eq!(site.counts()["full"], 1);
    // One that ends makes room.
    let there = site.pass(&to_service(0, Flags::FIN | Flags::ACK));
    site.pass(&answer(&there, Flags::FIN | Flags::ACK));
    site.pass_time(11);
    assert_eq!(site.open().iter().sum::<u64>(), 29);
    site.pass(&to_service(40, Flags::SYN));
}

#[test]
fn a_client_comes_back_to_his_backend() {
    let mut site = Site::v4(10, "scheduler: round-robin\nsticky: 60s");
    // One address, many ports; then another address.
    let first = establish(&mut site, 0..100);
    assert!(first.iter().all(|n| *n == first[0]), "{first:?}");
    let second = establish(&mut site, 256..266);
    assert_ne!(first[0], second[0]);
    assert_eq!(site.counts()["sticky"], 99 + 9);
    // Drained, it gets none of his new ones.
    site.tell("drain", json!({"service": "web", "backend": format!("b{}", first[0])}));
    assert_eq!(now(&mut site, 0..100), first);
    assert!(!establish(&mut site, 100..110).contains(&first[0]));
}

#[test]
fn connections_end_by_their_timeouts() {
    let mut site = Site::v4(2, "");
    site.pass(&to_service(1, Flags::SYN)); // half-open: 30 s
    establish(&mut site, 2..3); // established: 900 s
    let there = site.pass(&to_service(2, Flags::ACK));
    establish(&mut site, 3..4);
    let reset = site.pass(&to_service(3, Flags::RST)); // closed: 10 s
    assert_eq!(backend_of(&reset), backend_of(&reset));
    site.pass_time(12);
    assert_eq!(site.report()["connections"]["open"], 2);
    site.pass_time(20);
    assert_eq!(site.report()["connections"]["open"], 1);
    // What only the backend says keeps it, too.
    site.pass_time(800);
    site.pass(&answer(&there, Flags::ACK));
    site.pass_time(800);
    assert_eq!(site.report()["connections"]["open"], 1);
    site.pass_time(200);
    assert_eq!((site.report()["connections"]["flows"].clone(), site.open()), (json!(0), vec![0, 0]));
    // An answer that is late is dropped, not let through untranslated.
    assert_eq!(site.refuse(&answer(&there, Flags::ACK)), DropReason::NoRoute);
}

#[test]
fn a_flood_of_half_open_connections_pushes_out_none_that_is_established() {
    let text = file(false, 4, "").replace("connections: 10000", "connections: 2000");
    let mut site = Site::new(&text);
    let before = establish(&mut site, 0..500);
    for n in 10_000..40_000 {
        site.send(&to_service(n, Flags::SYN));
    }
    assert_eq!(now(&mut site, 0..500), before);
    assert_eq!(site.counts()["adopted"], 0);
    let open: u64 = site.open().iter().sum();
    assert!(open <= 2000, "{open}");
}

#[test]
fn a_port_used_again_is_another_connection() {
    let mut site = Site::v4(5, "scheduler: round-robin");
    let first = establish(&mut site, 1..2);
    let there = site.pass(&to_service(1, Flags::FIN | Flags::ACK));
    site.pass(&answer(&there, Flags::FIN | Flags::ACK));
    let second = establish(&mut site, 1..2);
    assert_ne!(first, second);
    assert_eq!(site.open().iter().sum::<u64>(), 1);
    // A repeated SYN of one that is under way is not.
    let same = site.pass(&to_service(1, Flags::SYN));
    assert_eq!(backend_of(&same), second[0]);
}

#[test]
fn without_a_backend_packets_are_dropped_and_counted() {
    let mut site = Site::v4(1, "");
    site.tell("drain", json!({"service": "web", "backend": "b1"}));
    assert_eq!(site.refuse(&to_service(1, Flags::SYN)), DropReason::NoRoute);
    assert_eq!(site.counts()["no_backend"], 1);
    assert_eq!(site.refuse(&to_service(1, Flags::RST)), DropReason::NoRoute);
    site.tell("reset", json!(null));
    site.pass(&to_service(1, Flags::SYN));
}

#[test]
fn passive_checks_see_refusals_and_silence() {
    let mut site = Site::v4(2, "scheduler: round-robin\npassive: {resets: 3, silence: 2, retry: 5s}");
    // b1 refuses, b2 answers.
    for n in 0..6 {
        let there = site.pass(&to_service(n, Flags::SYN));
        let flags = if backend_of(&there) == 1 { Flags::RST | Flags::ACK } else { Flags::SYN | Flags::ACK };
        site.pass(&answer(&there, flags));
    }
    assert_eq!(site.report()["services"][0]["backends"][0]["state"], "shunned");
    assert!(establish(&mut site, 10..20).iter().all(|n| *n == 2));
    // After the time it is tried again, and out again at the first refusal.
    site.pass_time(6);
    assert_eq!(site.report()["services"][0]["backends"][0]["state"], "up");
    for n in 20..24 {
        let there = site.pass(&to_service(n, Flags::SYN));
        let flags = if backend_of(&there) == 1 { Flags::RST | Flags::ACK } else { Flags::SYN | Flags::ACK };
        site.pass(&answer(&there, flags));
    }
    assert_eq!(site.report()["services"][0]["backends"][0]["state"], "shunned");
    // b2 says nothing any more: two connections asked for again, a second later.
    for _ in 0..2 {
        (30..32).for_each(|n| drop(site.send(&to_service(n, Flags::SYN))));
        site.now_ns += SECOND;
    }
    assert_eq!(site.report()["services"][0]["backends"][1]["state"], "shunned");
}

#[test]
fn clients_keep_their_backends_when_services_come_and_go() {
    let web = file(false, 4, "scheduler: round-robin\nsticky: 60s");
    let other = "services:\n  another:\n    address: 192.0.2.9\n    port: 80\n    sticky: 60s\n    backends:\n      \
                 b1: {address: 10.1.0.1, mac: '02:00:00:00:01:01'}\n";
    let both = web.replace("services:\n", other);
    let mut site = Site::new(&web);
    // Forty clients, each time from other ports: other connections.
    let open = |site: &mut Site, port: u32| -> Vec<u8> {
        (0..40).map(|n| backend_of(&site.pass(&to_service(n * 256 + port, Flags::SYN)))).collect()
    };
    let before = open(&mut site, 0);
    site.balancer.replace(config(&both), site.now_ns);
    assert_eq!(open(&mut site, 1), before);
    site.balancer.replace(config(&web), site.now_ns);
    assert_eq!(open(&mut site, 2), before);
    // Whose backend is gone is nobody's client, even if another one gets its slot.
    for n in [3, 4] {
        site.balancer.replace(config(&file(false, n, "scheduler: round-robin\nsticky: 60s")), site.now_ns);
        site.pass_time(1);
    }
    let after = open(&mut site, 3);
    let kept = |n: usize| before[n] == 4 || before[n] == after[n];
    assert!((0..40).all(kept), "{before:?} {after:?}");
}

#[test]
fn a_burst_of_questions_says_nothing_of_a_backend() {
    let mut site = Site::v4(2, "passive: {}");
    let twice: Vec<Vec<u8>> =
        (0..64).flat_map(|n| [to_service(n, Flags::SYN), to_service(n, Flags::SYN)]).collect();
    for part in twice.chunks(32) {
        assert_eq!(site.send_all(part, 0).len(), part.len());
        site.now_ns += SECOND / 1000;
    }
    let report = site.report();
    for backend in report["services"][0]["backends"].as_array().unwrap() {
        assert_eq!(backend["state"], "up");
    }
}

#[test]
fn where_all_are_shunned_nobody_is() {
    for scheduler in ["maglev", "round-robin", "least-connections", "random"] {
        let mut site = Site::v4(2, &format!("scheduler: {scheduler}\npassive: {{}}"));
        for n in 0..100 {
            let there = site.send(&to_service(n, Flags::SYN));
            assert_eq!(there.len(), 1, "{scheduler}: connection {n} goes to someone");
            site.send_all(&[answer(&there[0].1, Flags::RST | Flags::ACK)], 1);
        }
        let states = |site: &Site| {
            let report = site.report();
            let backends = report["services"][0]["backends"].as_array().cloned().unwrap();
            backends.iter().map(|backend| backend["state"].to_string()).collect::<Vec<_>>()
        };
        assert_eq!(states(&site), ["\"shunned\"", "\"shunned\""], "{scheduler}");
        let mut got = establish(&mut site, 100..300);
        got.sort_unstable();
        got.dedup();
        assert_eq!(got, [1, 2], "{scheduler}: both get their part");
        // One that is down stays out, and so does a drained one.
        site.tell("drain", json!({"service": "web", "backend": "b1"}));
        assert!(establish(&mut site, 300..400).iter().all(|n| *n == 2), "{scheduler}");
    }
}

#[test]
fn a_table_under_way_is_not_lost_to_the_next_reload() {
    let backends = |n| config(&file(false, n, ""));
    let balancer = nf_loadbalancer::Balancer::live(backends(2), 1).unwrap();
    let mut site = Site { balancer, now_ns: 1_700_000_000 * SECOND };
    // The table that these want is collected between bursts only, so that all come before it.
    site.balancer.replace(backends(3), site.now_ns);
    site.balancer.replace(backends(3), site.now_ns);
    site.tell("drain", json!({"service": "web", "backend": "b1"}));
    site.tell("undrain", json!({"service": "web", "backend": "b1"}));
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let mut n = 0;
    while !site.open().iter().all(|open| *open > 0) {
        assert!(std::time::Instant::now() < patience, "{:?} of {n} connections", site.open());
        (n..n + 50).for_each(|n| drop(site.send(&to_service(n % 9000, Flags::SYN))));
        n += 50;
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
fn a_backend_that_comes_up_starts_slowly() {
    let text = |n| file(false, n, "slow-start: 100s");
    let mut site = Site::new(&text(1));
    site.balancer.replace(config(&text(2)), site.now_ns);
    let part = |site: &mut Site, from: u32| {
        let got = establish(site, from..from + 1000);
        got.iter().filter(|n| **n == 2).count()
    };
    let early = part(&mut site, 0);
    site.pass_time(55);
    let half = part(&mut site, 1000);
    site.pass_time(60);
    let full = part(&mut site, 2000);
    assert!(
        (50..150).contains(&early) && (250..400).contains(&half) && (430..570).contains(&full),
        "{early} {half} {full}"
    );
}

#[test]
fn a_successor_goes_on_with_every_connection() {
    let mut first = Site::v4(3, "sticky: 60s\nsource-nat: always");
    let before = establish(&mut first, 0..200);
    first.tell("drain", json!({"service": "web", "backend": "b1"}));
    let state = nf_loadbalancer::State::of(&first.balancer);
    let bytes = postcard::to_allocvec(&state).unwrap();
    let state: nf_loadbalancer::State = postcard::from_bytes(&bytes).unwrap();
    // Its file has one backend less.
    let mut second = Site::new(&file(false, 2, "sticky: 60s\nsource-nat: always"));
    second.now_ns = first.now_ns + SECOND;
    state.clone().restore(&mut second.balancer, second.now_ns).unwrap();
    assert_eq!(now(&mut second, 0..200), before);
    let report = second.report();
    assert_eq!(report["services"][0]["counts"]["adopted"], 0);
    assert_eq!(report["source_ports_in_use"], 200);
    assert_eq!(report["services"][0]["backends"][2]["state"], "leaving");
    assert_eq!(report["services"][0]["backends"][0]["state"], "draining");
    assert!(establish(&mut second, 300..340).iter().all(|n| *n == 2));
    // One that has worked does not take it.
    assert!(
        state.restore(&mut second.balancer, second.now_ns).unwrap_err().contains("packets have come here")
    );
}

#[test]
fn commands_that_make_no_sense_change_nothing() {
    let mut site = Site::v4(2, "");
    for (topic, body, says) in [
        ("drain", json!({"service": "wep", "backend": "b1"}), "did you mean \"web\"?"),
        ("drain", json!({"service": "web", "backend": "b3"}), "did you mean"),
        ("drain", json!({"service": "web"}), "\"service\" and \"backend\" are needed"),
        ("drain", json!({"service": "web", "backend": "b1", "wieght": 3}), "unknown key"),
        (
            "weight",
            json!({"service": "web", "backend": "b1", "weight": 5000}),
            "5000 is out of range 0..=1000",
        ),
        ("weight", json!({"service": "web", "backend": "b1"}), "the key \"weight\" is missing"),
        (
            "add",
            json!({"service": "web", "backend": "b1", "address": "10.1.0.9"}),
            "has a backend \"b1\" already",
        ),
        ("add", json!({"service": "web", "backend": "b9", "address": "fd00::9"}), "of the other IP version"),
        (
            "add",
            json!({"service": "web", "backend": "b9", "address": "10.1.0.1"}),
            "the same server as \"b1\"",
        ),
        ("reset", json!({"service": "web", "backend": "b1"}), "nothing was said of web/b1"),
        ("drain", json!([1, 2]), "are needed"),
    ] {
        site.tell(topic, body.clone());
        let error = site.report()["commands"]["last_error"].clone();
        assert!(error.as_str().unwrap().contains(says), "{topic} {body}: {error}");
    }
    assert_eq!(site.report()["commands"]["refused"], 11);
    assert_eq!(site.report()["commands"]["in_force"], json!([]));
}
