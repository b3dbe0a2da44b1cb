//! Filter sets of the ClassBench generator as rules: each filter allows, and what none matches is denied.
//!
//! The TCP flags that some sets have are not regarded, as by ClassBench's own lookups and by those whose results are
//! published: the flags that the generator writes are noise.

use ipnet::IpNet;
use onvm_classifier::{Ports, Rule5, classbench};

use super::addresses::Addresses;
use super::ranges::Ranges;
use super::{Action, Format, Match, Rule, RuleSet};

/// Reads a filter set.
///
/// # Errors
/// The first mistake, with its place.
pub(crate) fn read(file: &str, text: &str) -> Result<RuleSet, String> {
    let filters = classbench::filters(file, text).map_err(|error| error.to_string())?;
    let mut set = RuleSet::new(Format::Classbench);
    set.rules.reserve_exact(filters.len());
    for (index, filter) in filters.iter().enumerate() {
        let mut rule = Rule::new(format!("{}", index + 1), filter.line, Action::Allow);
        rule.matches = matches(&filter.rule);
        set.rules.push(std::sync::Arc::new(rule));
    }
    Ok(set)
}

fn matches(rule: &Rule5) -> Match {
    let addresses = |net: Option<IpNet>| net.map_or_else(Addresses::all, Addresses::prefix);
    let ports = |ports: Ports| Ranges::of([(ports.first, ports.last)]);
    // Masks other than none and all are rare; they are sets like any other.
    let protocols = (0..=u8::MAX).filter(|n| (n ^ rule.protocol) & rule.protocol_mask == 0);
    Match {
        source: addresses(rule.source),
        destination: addresses(rule.destination),
        source_ports: ports(rule.source_ports),
        destination_ports: ports(rule.destination_ports),
        protocols: match rule.protocol_mask {
            0 => Ranges::all(),
            u8::MAX => Ranges::one(rule.protocol),
            _ => Ranges::of(protocols.map(|n| (n, n))),
        },
        ..Match::any()
    }
}

/// Whether a line could be a filter: no other kind of file has lines that begin so (YAML keeps the sign for itself).
pub(crate) fn looks_like(line: &str) -> bool {
    line.trim_start().starts_with('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_become_rules() {
        let text = "@10.0.0.0/8\t1.2.3.4/32\t0 : 65535\t80 : 81\t0x06/0xFF\t0x0000/0x0200\n\
                    @0.0.0.0/0 0.0.0.0/0 0 : 65535 0 : 65535 0x00/0x00\n";
        let set = read("x", text).unwrap();
        assert_eq!(set.rules.len(), 2);
        let first = &set.rules[0].matches;
        assert_eq!(
            (first.source.to_string(), first.destination_ports.to_string()),
            ("10.0.0.0/8".into(), "80-81".into())
        );
        assert_eq!(set.rules[1].matches.protocols, Ranges::all());
        assert!(set.rules[1].matches.source.v6.is_empty(), "a prefix of IPv4 is no prefix of IPv6");
        assert!(looks_like("@10.0.0.0/8 ...") && !looks_like("- name: x"));
        let error = read("set", "@10.0.0.0/8 1.2.3.4/32 0 : 65536 0 : 1 0x06/0xFF\n").unwrap_err();
        assert!(error.starts_with("set:1:"), "{error}");
    }
}
