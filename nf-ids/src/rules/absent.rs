//! Keywords of Suricata that are known and not supported, each with its reason: whoever has a rule with one learns more than
//! that the word is unknown.

use super::refusal::Fault;

/// Words, or the beginnings of words where a `.` or `_` ends them, and why not.
const REASONS: &[(&str, &str)] = &[
    ("geoip", "needs a database of countries, which this program does not read"),
    (
        "iprep",
        "needs a reputation list in a configuration, which this program does not have; a `datarep` of `ip.src` does the same",
    ),
    ("lua", "needs a script to be run with each packet, which this program does not do"),
    ("luaxform", "needs a script to be run with each buffer, which this program does not do"),
    ("filemagic", "needs libmagic and its database, which this program does not use"),
    ("file.magic", "needs libmagic and its database, which this program does not use"),
    ("replace", "would change packets, and this program only drops them"),
    ("nfq_set_mark", "is of another way to get packets"),
    ("frame", "frames are not kept apart from transactions"),
    ("config", "changes settings, which are given on the command line"),
    ("flow.elephant", "rates of flows are not measured"),
    ("ndpi-", "is of a plugin with another library"),
    ("modbus", "Modbus is not read"),
    ("dnp3", "DNP3 is not read"),
    ("enip", "EtherNet/IP is not read"),
    ("cip_", "EtherNet/IP is not read"),
    ("ike.", "IKE is recognised and not read"),
    ("nfs", "NFS is not read"),
    ("pgsql.", "PostgreSQL is not read"),
    ("mysql.", "MySQL is not read"),
    ("sdp.", "SDP within SIP is not read"),
    ("tftp.", "TFTP is recognised and not read"),
    ("ntp.", "NTP is recognised and not read"),
    ("pop3.", "POP3 is recognised and not read"),
    ("imap.", "IMAP is recognised and not read"),
    ("mime.", "parts of mails have no buffers of their own but `file.data` and `file.name`"),
    ("template", "is of an example"),
];

/// What is said of a keyword that is known and not supported.
pub(crate) fn reason(word: &str) -> Option<Fault> {
    let known = |(name, _): &&(&str, &str)| {
        word == *name
            || word
                .strip_prefix(name)
                .is_some_and(|rest| name.ends_with(['.', '_', '-']) || rest.starts_with(['.', '_']))
    };
    REASONS.iter().find(known).map(|(_, why)| Fault::new(word, format!("is not supported: {why}")))
}

#[cfg(test)]
mod tests {
    use super::reason;

    #[test]
    fn words_and_families_of_words_are_known() {
        for word in ["geoip", "lua", "dnp3_func", "modbus", "ike.init_spi", "nfs_procedure", "nfs.version"] {
            assert!(reason(word).is_some(), "{word}");
        }
        for word in ["nocsae", "luaa", "configure", "content"] {
            assert!(reason(word).is_none(), "{word}");
        }
    }
}
