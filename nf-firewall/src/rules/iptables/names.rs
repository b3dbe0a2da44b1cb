//! Names that lines are made of, and the nearest right ones.

use onvm_lib::document::nearest;
use onvm_lib::wire::protocol_name;

use super::super::State;
use super::super::ranges::Ranges;
use super::super::yaml::protocol_number;

/// Matches whose options are read; `-m` names them.
pub(super) const MODULES: [&str; 16] = [
    "tcp",
    "udp",
    "sctp",
    "dccp",
    "udplite",
    "icmp",
    "icmp6",
    "icmpv6",
    "multiport",
    "state",
    "conntrack",
    "comment",
    "limit",
    "mark",
    "iprange",
    "time",
];
/// Options that are read; the nearest of them is named for one that nobody knows.
pub(super) const OPTIONS: [&str; 31] = [
    "--source",
    "--destination",
    "--protocol",
    "--in-interface",
    "--out-interface",
    "--fragment",
    "--match",
    "--jump",
    "--goto",
    "--sport",
    "--dport",
    "--sports",
    "--dports",
    "--ports",
    "--source-port",
    "--destination-port",
    "--syn",
    "--tcp-flags",
    "--icmp-type",
    "--icmpv6-type",
    "--state",
    "--ctstate",
    "--limit",
    "--limit-burst",
    "--mark",
    "--comment",
    "--src-range",
    "--dst-range",
    "--timestart",
    "--timestop",
    "--weekdays",
];
/// Options of the matches above that have no counterpart.
pub(super) const UNREAD: [&str; 21] = [
    "--tcp-option",
    "--chunk-types",
    "--dccp-types",
    "--dccp-option",
    "--ctproto",
    "--ctorigsrc",
    "--ctorigdst",
    "--ctorigsrcport",
    "--ctorigdstport",
    "--ctreplsrc",
    "--ctrepldst",
    "--ctreplsrcport",
    "--ctrepldstport",
    "--ctstatus",
    "--ctexpire",
    "--ctdir",
    "--datestart",
    "--datestop",
    "--monthdays",
    "-4",
    "-6",
];
/// Targets of the kernel that are no chains.
pub(super) const TARGETS: [&str; 7] = ["ACCEPT", "DROP", "REJECT", "RETURN", "LOG", "NFLOG", "MARK"];

/// A connection state.
///
/// # Errors
/// There is none of this name.
pub(super) fn state(word: &str) -> Result<State, String> {
    let name = word.to_ascii_lowercase();
    if let Some((_, state)) = State::NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*state);
    }
    let known = ["NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED"];
    Err(match nearest(word, known) {
        Some(near) => format!("{word:?} is not a state; did you mean {near:?}?"),
        None => format!("{word:?} is not a state; these are {}", known.join(", ")),
    })
}

/// A protocol by name or number.
///
/// # Errors
/// There is none of this name.
pub(super) fn protocol(name: &str) -> Result<Ranges<u8>, String> {
    match name {
        "all" | "0" => return Ok(Ranges::all()),
        "mh" | "ipv6-mh" => return Ok(Ranges::one(135)),
        _ => {}
    }
    if let Some(number) = name.parse().ok().or_else(|| protocol_number(name)) {
        return Ok(Ranges::one(number));
    }
    let known = (0..=u8::MAX).filter_map(protocol_name).chain(["all", "icmpv6"]);
    Err(match nearest(name, known) {
        Some(near) => format!("{name:?} is not a protocol; did you mean {near:?}?"),
        None => format!("{name:?} is not a protocol"),
    })
}
