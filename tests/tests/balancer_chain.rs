//! The load balancer in a chain: connections stay where they are through a new file, commands and a replacement.

use std::path::Path;

use onvm_tests::{LIMIT, wait_until};

/// The file for a chain that runs over a capture: who sends to whom does not matter there, only who gets what.
fn chain_services(backends: &[usize]) -> String {
    let backends: String =
        backends.iter().map(|n| format!("      b{n}: {{address: 10.1.0.{n}}}\n")).collect();
    format!(
        "services:\n  web:\n    address: 192.0.2.1\n    port: 80\n    scheduler: round-robin\n    backends:\n{backends}"
    )
}

/// A capture of so many connections, whose packets alternate.
fn connections(path: &Path, count: u16, rounds: u16) {
    use onvm_lib::capture::{Frame, LinkType, Writer};
    use onvm_lib::wire::{build::Packet, tcp::Flags};
    let mut writer = Writer::create(path).unwrap();
    writer.add_interface(LinkType::Ethernet, "clients").unwrap();
    let mut timestamp_ns = 1_700_000_000_000_000_000;
    for round in 0..rounds {
        for connection in 0..count {
            let base = Packet::ethernet(Default::default(), Default::default())
                .ipv4([172, 16, 0, 1].into(), [192, 0, 2, 1].into())
                .tcp(10_000 + connection, 80);
            let packet = if round == 0 { base.flags(Flags::SYN) } else { base.seq(round.into()) };
            let data = packet.to_vec().unwrap();
            let original_len = u32::try_from(data.len()).unwrap();
            timestamp_ns += 1_000_000;
            let frame = Frame {
                timestamp_ns,
                original_len,
                link_type: LinkType::Ethernet,
                interface: 0,
                data: &data,
            };
            writer.write_frame(&frame).unwrap();
        }
    }
    writer.finish().unwrap();
}

#[test]
fn in_a_chain_connections_stay_through_a_new_file_commands_and_a_replacement() {
    const CONNECTIONS: u16 = 100;
    const ROUNDS: u16 = 60;
    let lab = onvm_tests::Lab::new();
    let (input, output, services) = (lab.path("in.pcap"), lab.path("out.pcap"), lab.path("services.yaml"));
    connections(&input, CONNECTIONS, ROUNDS);
    std::fs::write(&services, chain_services(&[1, 2, 3])).unwrap();
    let chain = format!(
        "ports: [\"pcap:in={},pps=1000,out={}\"]\nservices: {{lb: {{id: 1, command: [nf-loadbalancer, --json, --watch, --services, {}]}}}}\n\
         chains: {{main: [lb]}}\n",
        input.display(),
        output.display(),
        services.display()
    );
    let manager = lab.up(&chain, &["--stay"]);
    let tell = |topic: &str, body: &str| {
        let _ = lab.client(&["nf", "tell", "lb", "--topic", topic, "--body", body]).good();
    };
    manager.wait_until("traffic", |l| l.packets("received") >= 500);
    std::fs::write(&services, chain_services(&[1, 2, 3, 4])).unwrap();
    manager.wait_until("traffic", |l| l.packets("received") >= 1000);
    tell("drain", r#"{"service": "web", "backend": "b1"}"#);
    tell("weight", r#"{"service": "web", "backend": "b9", "weight": 2}"#);
    manager.wait_until("traffic", |l| l.packets("received") >= 1500);
    let _ = lab.client(&["nf", "restart", "lb"]).good();
    manager.wait_until("traffic", |l| l.packets("received") >= 3000);
    std::fs::write(&services, "services: {web: {adress: 1}}").unwrap();
    tell("reload", "null");
    let log = lab.log(1);
    wait_until("the mistake", || std::fs::read_to_string(&log).unwrap().contains("services.web.adress"));
    let all = u64::from(CONNECTIONS) * u64::from(ROUNDS);
    manager.wait_until("all packets", |l| l.packets("sent") == all);
    manager.stop(LIMIT).assert_clean();
    let report = onvm_tests::last_report(&log);
    let service = &report["services"][0];
    assert_eq!(service["counts"]["connections"], CONNECTIONS, "{report}");
    assert_eq!(service["counts"]["adopted"], 0, "{report}");
    assert_eq!(service["backends"][0]["state"], "draining", "what was said went along to the successor");
    assert_eq!(service["backends"][3]["name"], "b4");
    let wrong = report["reload"]["last_error"].as_str().unwrap_or_default();
    assert!(wrong.contains("services.yaml:1:18: services.web.adress: unknown key"), "{report}");
    let mut backends = std::collections::BTreeMap::new();
    let all = onvm_tests::read_capture(&output);
    assert_eq!(all.len(), usize::from(CONNECTIONS) * usize::from(ROUNDS));
    for packet in all {
        let key = onvm_lib::wire::Headers::parse(&packet.data).flow_key(&packet.data);
        let first = *backends.entry(key.src_port()).or_insert(key.dst());
        assert_eq!(first, key.dst(), "a connection moved");
    }
    assert_eq!(backends.len(), usize::from(CONNECTIONS));
}
