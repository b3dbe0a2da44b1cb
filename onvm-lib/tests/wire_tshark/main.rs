//! The header library against tshark: every field of every layer of real captures, whole, cut and mutated.
//!
//! Needs the captures (`ONVM_TEST_DATA`, else `../shared/data` from the workspace) and `tshark`; without
//! them it says that it was skipped, and under `CI` a missing tshark is a failure.

mod capture;
mod fields;
mod tshark;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use capture::Record;
use fields::FIELDS;
use onvm_lib::wire::{Headers, LinkType, describe_as, flow_hash};
use tshark::Row;

/// Frames taken from one capture, so that no large one crowds out the others.
const WHOLE_PER_FILE: usize = 800;
const MUTATED_PER_FILE: usize = 100;
const MUTANTS: u32 = 6;

/// Layers that are followed here too. What tshark finds after any other layer is beyond this library.
const FOLLOWED: &[&str] = &[
    "eth",
    "ethertype",
    "vlan",
    "ieee8021ad",
    "qinq",
    "llc",
    "snap",
    "sll",
    "raw",
    "ip",
    "ipv6",
    "arp",
    "tcp",
    "udp",
    "icmp",
    "icmpv6",
    "gre",
    "vxlan",
    "geneve",
    "mpls",
    "pwethheuristic",
    "pppoes",
    "ppp",
    "erspan",
    "ipv6.hopopts",
    "ipv6.routing",
    "ipv6.fraghdr",
    "ipv6.dstopts",
    "ah",
    "udplite",
    "sctp",
    "dccp",
    "data",
];
/// Layers that have fields which are compared.
const COMPARED: &[&str] =
    &["eth", "vlan", "ip", "ipv6", "arp", "tcp", "udp", "icmp", "icmpv6", "gre", "vxlan"];

/// Says aloud that a test was skipped: past the harness, which keeps what a passing test prints to itself.
fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED wire_tshark: {why}");
}

fn test_data() -> Option<PathBuf> {
    let folder = std::env::var_os("ONVM_TEST_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from);
    let found = folder.join("pcaps").is_dir();
    if !found {
        skipped(&format!("no captures at {} (set ONVM_TEST_DATA)", folder.display()));
    }
    found.then_some(folder)
}

/// Whether the two can be compared; says why not.
fn ready() -> Option<PathBuf> {
    if !tshark::is_installed() {
        assert!(std::env::var_os("CI").is_none(), "tshark is not installed");
        skipped("tshark is not installed");
        return None;
    }
    test_data()
}

/// Records by link type, at most `limit` of a file.
fn collect(data: &std::path::Path, limit: usize) -> BTreeMap<u32, Vec<Record>> {
    let mut all: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
    for path in capture::files(&data.join("pcaps")) {
        let records = capture::read(&path);
        // Spread over the file: its beginning is often all of one kind.
        let step = records.len().div_ceil(limit).max(1);
        for record in records.into_iter().step_by(step) {
            for link in [101, 113, 276] {
                all.entry(link).or_default().extend(capture::relink(&record, link));
            }
            if !matches!(LinkType::from_number(record.link), LinkType::Other(_)) {
                all.entry(record.link).or_default().push(record);
            }
        }
    }
    all
}

/// Whether tshark went through a layer that is not followed here to one that is compared.
fn goes_beyond(protocols: &str) -> bool {
    let mut layers = protocols.split(':').skip_while(|layer| FOLLOWED.contains(layer));
    layers.any(|layer| COMPARED.contains(&layer))
}

/// Whether tshark entered a UDP tunnel because of the *source* port. The tunnels' RFCs want the port as
/// destination; what comes from such a port is an answer to something else.
fn is_tunnel_by_source_port(own: &fields::Values) -> bool {
    let is_tunnel = |port: &String| ["4789", "8472", "4790", "6081"].contains(&port.as_str());
    own.get("udp.srcport")
        .iter()
        .zip(own.get("udp.dstport"))
        .any(|(src, dst)| is_tunnel(src) && !is_tunnel(dst))
}

/// What tshark reads and this library, with reason, does not; each case as narrow as it can be. What both
/// have must still agree.
fn is_exempt(own: &fields::Values, row: &Row) -> bool {
    // GRE of versions that do not exist, which RFC 2784 §2.3.1 wants discarded, and version 1 without PPP,
    // which RFC 2637 §4.1 does not know.
    let mut gre = row.get("gre.flags.version").iter().zip(row.get("gre.proto"));
    let no_gre = gre.any(|(version, carried)| !(version == "0" || version == "1" && carried == "0x880b"));
    // Tunnels with what their specification forbids in the header, which tshark enters all the same: another
    // version of ERSPAN or PPPoE, VXLAN without its "I" flag, PPP with another control byte than 3.
    let forbidden = [":erspan", ":pppoes", ":vxlan", ":gre:ppp"];
    let deeper = ["eth.dst", "ip.version"].iter().any(|field| row.get(field).len() > own.get(field).len());
    let no_tunnel = deeper && forbidden.iter().any(|layer| row.protocols.contains(layer));
    // Operations of ARP that RFC 826 does not have: tshark names some of the addresses otherwise.
    let no_arp = row.get("arp.opcode").iter().any(|operation| operation != "1" && operation != "2");
    // Geneve of a version that does not exist.
    let no_geneve = row.expert.contains("Unknown version");
    // IPv6's extension headers and ICMPv6 in IPv4, and ICMP in IPv6: tshark asks the number alone, but they
    // are defined for the other version only (RFC 4443 §1, RFC 8200 §4).
    let pairs =
        [":ip:ipv6.", ":ip:icmpv6", ":ip:mipv6", ":ipv6:icmp:", "ipv6.fraghdr:icmp:", "ipv6.dstopts:icmp:"];
    let protocols = format!(":{}:", row.protocols);
    let no_mixture = pairs.iter().any(|pair| protocols.contains(pair));
    no_gre || no_tunnel || no_arp || no_mixture || no_geneve || own.partial || is_tunnel_by_source_port(own)
}

/// What differs between the two, in words.
fn differences(record: &Record, row: &Row) -> Vec<String> {
    // Of Cisco FabricPath tshark shows the inner Ethernet header in place of the outer one.
    // In raw IP it looks for PPP, and takes a type of service of 255 for it.
    if row.protocols.starts_with("eth:cfp") || row.protocols.starts_with("raw:ppp") {
        return Vec::new();
    }
    let own = fields::of(LinkType::from_number(record.link), &record.bytes, record.wire_len as usize);
    let whole = !row.is_doubtful() && !goes_beyond(&row.protocols) && !is_exempt(&own, row);
    let mut found = Vec::new();
    for (name, theirs) in FIELDS.iter().zip(&row.values) {
        let ours = own.get(name);
        // Where tshark gave up, or went where we do not follow, what both have must agree.
        let agree = if whole { ours == *theirs } else { ours.iter().zip(theirs).all(|(a, b)| a == b) };
        if !agree {
            found.push(format!("{name}: ours {ours:?}, tshark {theirs:?}"));
        }
    }
    found
}

/// Compares records of one link type; returns the number of those compared to the full.
fn compare(link: u32, records: &[Record]) -> usize {
    let rows = tshark::dissect(link, records);
    assert_eq!(rows.len(), records.len(), "tshark's answer for link type {link}");
    let mut report = String::new();
    // A few examples of each kind of difference tell more than a thousand of one.
    let mut examples: BTreeMap<String, usize> = BTreeMap::new();
    let (mut wrong, mut full) = (0, 0);
    for (record, row) in records.iter().zip(&rows) {
        full += usize::from(!row.is_doubtful() && !goes_beyond(&row.protocols));
        let found = differences(record, row);
        if !found.is_empty() {
            wrong += 1;
            let kind = found.iter().filter_map(|line| line.split(':').next()).collect();
            let seen = examples.entry(kind).or_default();
            *seen += 1;
            if *seen <= 3 {
                report += &format!(
                    "{} frame {} [{}] {}\n",
                    record.origin, record.number, row.protocols, row.expert
                );
                report += &format!("  {}\n", describe_as(LinkType::from_number(record.link), &record.bytes));
                report += &format!("  {}\n", record.hex());
                found.iter().for_each(|line| report += &format!("  {line}\n"));
            }
        }
    }
    assert_eq!(wrong, 0, "of {} frames these differ:\n{report}", records.len());
    full
}

#[test]
fn whole_captures_have_the_same_fields() {
    let Some(data) = ready() else { return };
    let mut total = 0;
    for (link, records) in collect(&data, WHOLE_PER_FILE) {
        let full = compare(link, &records);
        println!("link type {link}: {} frames, {full} without doubt", records.len());
        let enough = records.len() < 10 || full * 2 > records.len();
        assert!(enough, "little of link type {link} is compared to the full");
        total += full;
    }
    assert!(total > 2000, "only {total} frames compared");
}

#[test]
fn mutated_captures_have_the_same_fields() {
    let Some(data) = ready() else { return };
    for (link, records) in collect(&data, MUTATED_PER_FILE) {
        let mutants: Vec<Record> = records
            .iter()
            .flat_map(|record| (0..MUTANTS).map(move |kind| capture::mutate(record, kind)))
            .collect();
        let full = compare(link, &mutants);
        println!("link type {link}: {} mutants, {full} without doubt", mutants.len());
    }
}

#[test]
fn no_cut_of_any_frame_panics_or_changes_what_is_before_it() {
    let Some(data) = test_data() else { return };
    for record in collect(&data, 20).into_values().flatten() {
        let link = LinkType::from_number(record.link);
        let whole = Headers::parse_as(link, &record.bytes);
        for len in 0..record.bytes.len().min(200) {
            let cut = &record.bytes[..len];
            let headers = Headers::parse_as(link, cut);
            assert!(headers.end() <= len);
            if let (Some(l3), Some(found)) = (whole.l3_offset(), headers.l3_offset()) {
                assert_eq!(l3, found, "{} frame {} cut at {len}", record.origin, record.number);
            }
            let _ = (headers.inner(cut), headers.original(cut), headers.flow_key(cut), flow_hash(cut));
            let _ = describe_as(link, cut).to_string();
        }
    }
}
