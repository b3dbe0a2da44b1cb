//! Classes of rules: names, descriptions, priorities.
//!
//! The ones that every rule set of Snort's tradition refers to are built in; `classification.config` adds and replaces.

use std::collections::BTreeMap;

use super::refusal::Fault;

/// Name to description and priority.
#[derive(Clone, Debug)]
pub struct Classes(BTreeMap<String, (String, u32)>);

const KNOWN: &[(&str, &str, u32)] = &[
    ("not-suspicious", "Not Suspicious Traffic", 3),
    ("unknown", "Unknown Traffic", 3),
    ("bad-unknown", "Potentially Bad Traffic", 2),
    ("attempted-recon", "Attempted Information Leak", 2),
    ("successful-recon-limited", "Information Leak", 2),
    ("successful-recon-largescale", "Large Scale Information Leak", 2),
    ("attempted-dos", "Attempted Denial of Service", 2),
    ("successful-dos", "Denial of Service", 2),
    ("attempted-user", "Attempted User Privilege Gain", 1),
    ("unsuccessful-user", "Unsuccessful User Privilege Gain", 1),
    ("successful-user", "Successful User Privilege Gain", 1),
    ("attempted-admin", "Attempted Administrator Privilege Gain", 1),
    ("successful-admin", "Successful Administrator Privilege Gain", 1),
    ("rpc-portmap-decode", "Decode of an RPC Query", 2),
    ("shellcode-detect", "Executable code was detected", 1),
    ("string-detect", "A suspicious string was detected", 3),
    ("suspicious-filename-detect", "A suspicious filename was detected", 2),
    ("suspicious-login", "An attempted login using a suspicious username was detected", 2),
    ("system-call-detect", "A system call was detected", 2),
    ("tcp-connection", "A TCP connection was detected", 4),
    ("trojan-activity", "A Network Trojan was detected", 1),
    ("unusual-client-port-connection", "A client was using an unusual port", 2),
    ("network-scan", "Detection of a Network Scan", 3),
    ("denial-of-service", "Detection of a Denial of Service Attack", 2),
    ("non-standard-protocol", "Detection of a non-standard protocol or event", 2),
    ("protocol-command-decode", "Generic Protocol Command Decode", 3),
    ("web-application-activity", "access to a potentially vulnerable web application", 2),
    ("web-application-attack", "Web Application Attack", 1),
    ("misc-activity", "Misc activity", 3),
    ("misc-attack", "Misc Attack", 2),
    ("icmp-event", "Generic ICMP event", 3),
    ("inappropriate-content", "Inappropriate Content was Detected", 1),
    ("policy-violation", "Potential Corporate Privacy Violation", 1),
    ("default-login-attempt", "Attempt to login by a default username and password", 2),
    ("targeted-activity", "Targeted Malicious Activity was Detected", 1),
    ("exploit-kit", "Exploit Kit Activity Detected", 1),
    ("external-ip-check", "Device Retrieving External IP Address Detected", 2),
    ("domain-c2", "Domain Observed Used for C2 Detected", 1),
    ("pup-activity", "Possibly Unwanted Program Detected", 2),
    ("credential-theft", "Successful Credential Theft Detected", 1),
    ("social-engineering", "Possible Social Engineering Attempted", 2),
    ("coin-mining", "Crypto Currency Mining Activity Detected", 2),
    ("command-and-control", "Malware Command and Control Activity Detected", 1),
];

impl Default for Classes {
    fn default() -> Self {
        let own = |(name, text, priority): &(&str, &str, u32)| {
            ((*name).to_string(), ((*text).to_string(), *priority))
        };
        Classes(KNOWN.iter().map(own).collect())
    }
}

impl Classes {
    /// The description of a class.
    #[must_use]
    pub fn description(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|(text, _)| text.as_str())
    }

    /// The priority of a class.
    #[must_use]
    pub fn priority(&self, name: &str) -> Option<u32> {
        self.0.get(name).map(|(_, priority)| *priority)
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Takes a line of `classification.config`: `config classification: name,description,priority`.
    ///
    /// # Errors
    ///
    /// A line of another form.
    pub fn take(&mut self, line: &str) -> Result<(), Fault> {
        let wrong = || {
            let why =
                format!("`{line}` is not `config classification: NAME,DESCRIPTION,PRIORITY` with 1..=255");
            Fault::new("classification", why)
        };
        let rest = line.trim().strip_prefix("config").map(str::trim_start).ok_or_else(wrong)?;
        let rest = rest.strip_prefix("classification").map(str::trim_start).ok_or_else(wrong)?;
        let rest = rest.strip_prefix(':').ok_or_else(wrong)?;
        let (name, rest) = rest.split_once(',').ok_or_else(wrong)?;
        let (text, priority) = rest.rsplit_once(',').ok_or_else(wrong)?;
        let priority = priority.trim().parse().ok().filter(|p| (1..=255).contains(p)).ok_or_else(wrong)?;
        self.0.insert(name.trim().to_string(), (text.trim().to_string(), priority));
        Ok(())
    }
}
