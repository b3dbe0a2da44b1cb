use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::plan::{Affinity, Policy};

fn read(text: &str) -> ChainFile {
    from_text(text, Path::new("/"), Report::new("c.yaml"))
}

/// What is wrong with a file, without its name.
fn told(text: &str) -> String {
    read(text).report.to_string().replace("c.yaml:", "")
}

const WHOLE: &str = r#"
manager: {buffers: 8192, mtu: 9000, no-huge: true, wait: [forward, 7], interval: 500ms}
ports:
  - pcap:in=web.pcap,out=out.pcap
  - "null:"
services:
  forward:
    command: /bin/sh -c 'exit 0'
    environment: {RUST_LOG: info, N: 5}
    scale: {min: 2, max: 4, target-load: 0.5}
    standby: 1
    core: 1
    shared-core: true
    policy: bypass
    restart: {give-up: 3, delay: 50ms}
    wait: 2s
    isolated: true
    affinity: flow
    destination: monitor
  monitor: {id: 1, restart: never}
  last: {id: 7}
chains:
  web: [forward, monitor, last]
  straight: []
rules:
  - {priority: 10, protocol: tcp, source: 10.0.0.0/8, destination: [192.168.0.0/16, "fd00::/8", 1.2.3.4],
     destination-port: [80, 443, 8000-8999], input-port: 1, chain: web, both-directions: true}
  - {protocol: icmpv6, chain: straight}
default-chain: web
"#;

#[test]
fn a_whole_file_becomes_a_plan() {
    let file = read(WHOLE);
    assert_eq!(
        file.report.to_string(),
        "c.yaml:20:29: warning: services.monitor.restart: without effect: this service has no command, its NFs are \
         started elsewhere\n"
    );
    let plan = &file.plan;
    assert_eq!(plan.ports, ["pcap:in=/web.pcap,out=/out.pcap", "null:"]);
    let names: Vec<_> = plan.services.iter().map(|(id, s)| (*id, s.name.as_str())).collect();
    assert_eq!(names, [(1, "monitor"), (2, "forward"), (7, "last")]);
    let forward = &plan.services[&2];
    assert_eq!(forward.command, ["/bin/sh", "-c", "exit 0"].map(|w| w.replace("/bin/sh", &shell())));
    assert_eq!((forward.directory.as_str(), forward.environment["N"].as_str()), ("/", "5"));
    let scale = forward.scale.unwrap();
    assert_eq!((scale.min, scale.max, scale.target_load, forward.instances), (2, 4, 0.5, 2));
    assert_eq!((forward.standby, forward.core, forward.shared_core), (1, Some(1), true));
    assert_eq!((forward.policy, forward.affinity, forward.isolated), (Policy::Bypass, Affinity::Flow, true));
    assert_eq!((forward.restart.give_up, forward.restart.delay), (3, Duration::from_millis(50)));
    assert_eq!((forward.wait, forward.destination), (Some(Duration::from_secs(2)), Some(1)));
    assert_eq!(plan.services[&1].restart.give_up, 0);
    assert_eq!((&plan.chains["web"][..], &plan.chains["straight"][..]), (&[2, 1, 7][..], &[][..]));
    assert_eq!(plan.default_chain.as_deref(), Some("web"));
    let rule = &plan.rules[0];
    assert_eq!((rule.priority, rule.protocol, rule.input_port), (10, Some(6), Some(1)));
    assert_eq!((rule.source.len(), rule.destination[2].to_string()), (1, "1.2.3.4/32".into()));
    assert_eq!(rule.destination_port, [(80, 80), (443, 443), (8000, 8999)]);
    assert_eq!((plan.rules[1].protocol, rule.both_directions), (Some(58), true));
    let arguments: Vec<_> = file.options.iter().map(|o| o.argument().into_string().unwrap()).collect();
    assert_eq!(
        arguments,
        [
            "--buffers=8192",
            "--mtu=9000",
            "--no-huge",
            "--wait=2",
            "--wait=7",
            "--interval=500ms",
            "--port=pcap:in=/web.pcap,out=/out.pcap",
            "--port=null:"
        ]
    );
    let json = serde_json::to_value(plan).unwrap();
    assert_eq!(serde_json::from_value::<Plan>(json).unwrap(), *plan);
}

/// `/bin/sh` as the file reader names it: its directory may be a link.
fn shell() -> String {
    paths::resolve(Path::new("/"), "/bin/sh").display().to_string()
}

#[test]
fn the_reference_is_valid_and_its_defaults_are_the_defaults() {
    let text = include_str!("reference.yaml");
    let file = from_text(text, Path::new("/"), Report::new("r"));
    assert!(!file.report.has_errors(), "{}", file.report);
    let firewall = &file.plan.services[&1];
    let default = crate::plan::Service {
        name: firewall.name.clone(),
        command: firewall.command.clone(),
        directory: firewall.directory.clone(),
        environment: firewall.environment.clone(),
        core: Some(1),
        wait: Some(Duration::from_secs(5)),
        destination: Some(2),
        ..Default::default()
    };
    assert_eq!(*firewall, default);
    let with_scale = text.replace("    # scale:", "    scale:").replace("    instances: 1 ", "    # 1 ");
    let file = from_text(&with_scale, Path::new("/"), Report::new("r"));
    assert!(!file.report.has_errors(), "{}", file.report);
    assert_eq!(file.plan.services[&1].scale.unwrap().max, 4);
}

#[test]
fn mistakes_in_services_are_told() {
    let text = "services:
  firewall: {id: 1, instnces: 2, policy: bypas}
  2nd: {id: 1}
  scaled: {command: [/bin/sh, -r, 5], scale: {min: 4, max: 2}, instances: 1}
  big: {id: 4096, destination: firewal}
  open: {command: \"/bin/sh 'x\", directory: /nowhere/at/all, wait: soon}
  slow: {command: /bin/sh, restart: always}
  worn: {command: /bin/sh, restart: {delay: 5, longest-delay: 1}, scale: {target-load: 0}}
";
    assert_eq!(
        told(text).replace("warning: ", "W "),
        "2:21: services.firewall.instnces: unknown key; did you mean \"instances\"?
2:42: services.firewall.policy: \"bypas\" is not a choice; did you mean \"bypass\"?
3:8: services.2nd: \"2nd\" is no name: names begin with a letter, and have letters, digits, - _ and .
3:13: services.2nd.id: 1 is the id of \"firewall\" already
4:11: W services.scaled: this service stands in no chain and is no destination: no packet comes to it
4:21: services.scaled.command: the manager itself gives -r: see the keys id, destination and core
4:46: services.scaled.scale: min 4 is more than max 2
4:46: services.scaled.scale: a service has either instances or scale: the manager chooses the number within scale
5:8: W services.big: this service stands in no chain and is no destination: no packet comes to it
5:13: services.big.id: 4096 is out of range 1..=4095
5:32: services.big.destination: \"firewal\" is not a service; did you mean \"firewall\"?
6:9: W services.open: this service stands in no chain and is no destination: no packet comes to it
6:19: services.open.command: a quote is not closed, or a backslash stands at the end
6:44: services.open.directory: /nowhere/at/all is no directory
6:67: services.open.wait: a duration like 0.1 (seconds), 100ms, 5s or 2m is needed, not soon
7:9: W services.slow: this service stands in no chain and is no destination: no packet comes to it
7:37: services.slow.restart: `never`, or a mapping with give-up, delay, longest-delay and healthy, is needed
8:9: W services.worn: this service stands in no chain and is no destination: no packet comes to it
8:37: services.worn.restart: delay, 5 s, is more than longest-delay, 1 s
8:74: services.worn.scale: the key \"max\" is missing
"
    );
}

#[test]
fn mistakes_in_chains_and_rules_are_told() {
    let long = ["a"; 65].join(", ");
    let text = format!(
        "ports: [\"null:\", pacp:x]
services: {{a: {{}}}}
chains:
  web: [a, b]
  long: [{long}]
rules:
  - {{protocol: tpc, chain: wbe}}
  - {{protocol: icmp, source-port: 5, chain: web}}
  - {{source: 10.0.0.1/8, destination: \"::/0\", chain: web}}
  - {{source: home, destination-port: [90-80, 70000, 1-x, -1], input-port: 3, chain: web}}
  - {{priority: 1}}
  - chain
default-chain: wed
"
    );
    assert_eq!(
        told(&text).replace("warning: ", "W "),
        "1:18: ports[1]: port \"pacp:x\": unknown kind \"pacp\", kinds are pcap, gen, null, afpacket, tap, vxlan, xdp, dpdk
4:12: chains.web[1]: \"b\" is not a service; did you mean \"a\"?
5:9: chains.long: a chain of 65 hops is longer than 64
5:9: W chains.long: no rule names this chain, and it is not the default chain: no packet takes it
7:16: rules[0].protocol: \"tpc\" is not a protocol; did you mean \"tcp\"?
7:28: rules[0].chain: \"wbe\" is not a chain; did you mean \"web\"?
8:35: rules[1].source-port: protocol icmp has no ports
9:5: rules[2]: source and destination are of different IP versions: no packet matches
9:14: W rules[2].source: 10.0.0.1/8 is the same as 10.0.0.0/8
10:14: rules[3].source: \"home\" is no prefix: it is like 10.0.0.0/8, 192.168.1.1 or fd00::/8
10:39: rules[3].destination-port[0]: 90 is more than 80: a range goes up
10:46: rules[3].destination-port[1]: 70000 is out of range 0..=65535
10:53: rules[3].destination-port[2]: \"1-x\" is no range of ports: it is like 80 or 8000-8999, at most 65535
10:58: rules[3].destination-port[3]: -1 is out of range 0..=65535
10:75: rules[3].input-port: there is no port 3: ports are numbered from 0 to 0
11:5: rules[4]: the key \"chain\" is missing
12:5: rules[5]: a mapping (key: value) is needed, not chain
13:16: default-chain: \"wed\" is not a chain; did you mean \"web\"?
"
    );
}

#[test]
fn manager_options_are_judged_by_the_command_lines_parser() {
    let text = "manager:
  mtuu: 9000
  mtu: 99999
  ring-size: 100
  no-huge: maybe
  port: x
  chain: [1]
  default-service: nobody
  stay: false
  core: [one]
  buffers: [100, 200]
";
    assert_eq!(
        told(text),
        "2:3: manager.mtuu: unknown key; did you mean \"mtu\"?
3:8: manager.mtu: 99999 is not in 68..=9216
4:14: manager.ring-size: 100 is not a power of two in 64..=1048576
5:12: manager.no-huge: true or false is needed, not maybe
6:3: manager.port: ports stand under `ports`
7:3: manager.chain: chains stand under `chains`, and the chain of packets that no rule matches is the `default-chain`
8:20: manager.default-service: \"nobody\" is not a service; services are named under `services`
10:9: manager.core: invalid digit found in string
11:12: manager.buffers: the argument '--buffers <N>' cannot be used multiple times
"
    );
}

#[test]
fn a_single_chain_is_the_default_one() {
    let wrong = told;
    let plan = read("services: {a: {}}\nchains: {web: [a]}\n").plan;
    assert_eq!(plan.default_chain.as_deref(), Some("web"));
    let told = wrong("services: {a: {id: 2}}\nchains: {web: [a]}\nrules: [{protocol: tcp, chain: web}]\n");
    assert!(told.starts_with("1:1: warning: no default-chain"), "{told}");
    assert_eq!(wrong("services: 5\n"), "1:11: services: a mapping (key: value) is needed, not 5\n");
    assert_eq!(
        wrong("ports: [pcap:in=a,out=b]\n"),
        "1:19: ports[1]: port \"out=b\": unknown kind \"out=b\", kinds are pcap, gen, null, afpacket, tap, vxlan, xdp, dpdk; in brackets, a port with a \
         comma stands in quotes\n"
    );
    assert_eq!(read("").plan, Plan::default());
    assert!(!read("").report.has_errors());
    assert!(load(Path::new("/nowhere.yaml")).report.to_string().starts_with("/nowhere.yaml: No such file"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Changes a good file at random: it is read or refused, with places, and never a panic.
    #[test]
    fn no_file_makes_it_panic(edits in proptest::collection::vec((any::<prop::sample::Index>(), ".{0,3}", 0usize..4), 1..6)) {
        let mut text: Vec<char> = WHOLE.chars().collect();
        for (at, insert, cut) in edits {
            let at = at.index(text.len());
            let end = (at + cut).min(text.len());
            text.splice(at..end, insert.chars());
        }
        let file = read(&text.iter().collect::<String>());
        if !file.report.has_errors() {
            prop_assert_eq!(file.plan.check(), Ok(()));
        }
    }
}
