use super::*;

const MAC: &str = "mac: 02:00:00:00:00:01\naddresses: [10.0.0.1, 'fd00::1']\n";

fn wrong(text: &str) -> String {
    let (config, report) = from_text(text, "s.yaml");
    assert!(config.is_none(), "{text} was taken");
    report
}

fn right(text: &str) -> Config {
    let (config, report) = from_text(text, "s.yaml");
    config.unwrap_or_else(|| panic!("{report}"))
}

fn service(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("{MAC}services:\n  web:\n    address: 192.0.2.1\n    port: 80\n{lines}")
}

#[test]
fn the_least_that_can_be_said() {
    let config = right(
        "services:\n  web:\n    address: 192.0.2.1\n    port: 80\n    backends:\n      a:\n        address: 10.0.0.5\n",
    );
    let service = &config.services[0];
    assert_eq!((service.mode, service.scheduler, service.table_size), (Mode::Nat, Scheduler::Maglev, 65_537));
    assert_eq!((service.protocol, &service.ports[..]), (Protocol::Tcp, &[80..=80][..]));
    assert_eq!(service.source_nat.when, When::Never);
    assert_eq!((service.backends[0].weight, service.backends[0].port), (1, None));
    assert_eq!((config.mtu, config.mac, config.limits), (1500, None, Limits::default()));
}

#[test]
fn all_keys() {
    let config = right(
        "mac: 02:00:00:00:00:01\naddresses: [10.0.0.1, 'fd00::1']\nports: {clients: 0, backends: 1}\nmtu: 9000\n\
         timeouts: {half-open: 5s, established: 1h, closed: 1s, other: 30s, fragment: 2s}\n\
         limits: {connections: 1000, fragments: 10, clients: 20}\n\
         services:\n  dns:\n    address: 198.51.100.0/24\n    protocol: both\n    port: [53, 8000-8100]\n    mode: nat\n    \
         scheduler: random\n    table-size: 251\n    sticky: 10m\n    source-nat: {when: always, addresses: [10.0.0.9], ports: 2000-3000}\n    \
         max-connections: 5\n    slow-start: 10s\n    passive: {resets: 3, silence: 0, retry: 5s}\n    \
         health: {type: http, port: 81, path: /up, host: x.test, status: [200, 300-302], body: ok, interval: 1s, timeout: 500ms, rise: 1, fall: 1}\n    \
         backends:\n      a: {address: 10.0.0.5, port: 5353, weight: 10, mac: 02:00:00:00:00:05, max-connections: 7, drain: true}\n      \
         b: {address: 10.0.0.6, next-hop: 10.0.0.254}\n",
    );
    let service = &config.services[0];
    assert_eq!(service.source_nat.ports, 2000..=3000);
    assert_eq!(service.backends[1].neighbour(), IpAddr::from([10, 0, 0, 254]));
    assert!(matches!(&service.health.as_ref().unwrap().probe,
        Probe::Http { path, status, .. } if path == "/up" && status == &[200..=200, 300..=302]));
    assert_eq!(config.timeouts.established, Duration::from_secs(3600));
    assert_eq!(service.passive.unwrap().silence, 0);
}

#[test]
fn every_mistake_has_its_place_and_the_right_word() {
    let report = wrong(
        "services:\n  web:\n    adress: 192.0.2.1\n    port: 99999\n    scheduler: magle\n    mode: tunnel\n    backends:\n      \
         a: {address: 10.0.0.300, wieght: 3}\n",
    );
    let lines: Vec<&str> = report.lines().collect();
    assert_eq!(lines[1], "s.yaml:3:5: services.web: the key \"address\" is missing");
    assert_eq!(lines[0], "s.yaml:3:5: services.web.adress: unknown key; did you mean \"address\"?");
    assert!(lines[2].starts_with("s.yaml:4:11: services.web.port: \"99999\" is no port"), "{report}");
    assert!(lines[3].ends_with("\"magle\" is not a choice; did you mean \"maglev\"?"), "{report}");
    assert!(lines[4].contains("it is one of nat, dsr, ipip, gue"), "{report}");
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let a = "backends: {a: {address: 10.0.0.5}}";
    for (lines, says) in [
        (
            "table-size: 65536\nbackends: {a: {address: 10.0.0.5}}",
            "65536 is not prime; the next prime number is 65537",
        ),
        ("backends: {a: {address: 'fd00::5'}}", "fd00::5 is of the other IP version than the service"),
        ("backends: {a: {address: 10.0.0.1}}", "10.0.0.1 is the balancer's own address"),
        ("backends: {a: {address: 10.0.0.5}, b: {address: 10.0.0.5}}", "it is the same server as \"a\""),
        ("backends: {}", "at least one backend is needed"),
        ("mode: dsr\nbackends: {a: {address: 10.0.0.5, port: 81}}", "only mode nat changes ports"),
        ("mode: gue\npassive: {}\nbackends: {a: {address: 10.0.0.5}}", "answers are not seen in this mode"),
        ("health: {type: icmp, port: 3}\nbackends: {a: {address: 10.0.0.5}}", "an ICMP echo has no port"),
        ("health: {type: tcp, path: /}\nbackends: {a: {address: 10.0.0.5}}", "health.path: unknown key"),
        (
            "health: {type: tcp, timeout: 3s}\nbackends: {a: {address: 10.0.0.5}}",
            "timeout, 3 s, is more than interval, 2 s",
        ),
        (
            "source-nat: {ports: 9-3}\nbackends: {a: {address: 10.0.0.5}}",
            "the range 9-3 ends before it begins",
        ),
        ("sticky: 0s\nbackends: {a: {address: 10.0.0.5}}", "more than 0 is needed"),
        ("backends: {a: {address: 10.0.0.5, weight: 1001}}", "1001 is out of range 0..=1000"),
        ("backends: {'a b': {address: 10.0.0.5}}", "a name has 1 to 64 letters"),
        ("backends: {a: {address: 224.0.0.1}}", "224.0.0.1 is not the address of one host"),
        ("backends: {a: {address: 10.0.0.5, mac: 01:00:00:00:00:01}}", "is not the address of one station"),
    ] {
        let report = wrong(&service(lines));
        assert!(report.contains(says), "{lines}: {report}");
    }
    let two = |second: &str| format!("{}  two: {{address: 192.0.2.1, port: {second}, {a}}}\n", service(a));
    assert!(wrong(&two("70-90")).contains("it has packets in common with \"web\""));
    right(&two("81-90"));
    assert!(wrong("services: {w: {address: 10.0.0.1/8, port: 1}}").contains("10.0.0.0/8 is meant"));
    let bare = "services: {w: {address: 10.9.0.1, port: 1, mode: dsr, backends: {a: {address: 10.0.0.5}}}}";
    assert!(wrong(bare).contains("`mac` at the top"));
    let tunnel = bare.replace("dsr", "ipip");
    assert!(wrong(&tunnel).contains("a tunnel to 10.0.0.5 needs an IPv4 address among `addresses`"));
}

#[test]
fn a_file_that_is_no_text_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.yaml");
    assert!(load(&path).unwrap_err().contains("x.yaml: No such file"));
    std::fs::write(&path, b"services:\n  \xff").unwrap();
    assert!(load(&path).unwrap_err().ends_with("x.yaml:2:1: this is no UTF-8"));
}

#[test]
fn warnings_do_not_stop_it() {
    let (config, report) = from_text(&service("backends: {a: {address: 10.0.0.5, drain: true}}"), "s.yaml");
    assert!(
        config.is_some() && report.contains("warning: services.web.backends: none of them takes"),
        "{report}"
    );
    let (config, report) = from_text(&service("table-size: 7\nbackends: {a: {address: 10.0.0.5}}"), "s.yaml");
    assert!(config.is_some() && report.contains("7 entries for 1 backends"), "{report}");
}

#[test]
fn the_balancer_answers_for_nobody_else() {
    let backends = "backends:\n  a: {address: 10.0.0.5, next-hop: 10.0.0.254}\n";
    right(&service(backends));
    for (vip, nat, named) in [
        ("10.0.0.5", "never", "10.0.0.5"),
        ("10.0.0.254", "never", "10.0.0.254"),
        ("192.0.2.1", "{addresses: [10.0.0.5]}", "10.0.0.5"),
    ] {
        let text = service(&format!("source-nat: {nat}\n{backends}")).replace("192.0.2.1", vip);
        let report = wrong(&text);
        assert!(report.contains(&format!("{named} is also an address of backend web/a")), "{report}");
    }
    // Addresses in a prefix are those of no host but the balancer's, whoever is in it.
    right(&service(backends).replace("192.0.2.1", "10.0.0.0/24"));
    let report = wrong(&service("backends:\n  a: {address: 10.0.0.5, next-hop: 10.0.0.1}\n"));
    assert!(report.contains("next-hop: 10.0.0.1 is the balancer's own address"), "{report}");
}
