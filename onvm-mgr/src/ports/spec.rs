//! `KIND:KEY=VALUE,KEY=VALUE,…`: how a port is named on the command line.

use std::path::Path;
use std::str::FromStr;

/// Kinds of ports, with their options.
const KINDS: &[(&str, &[&str])] = &[
    ("pcap", &["in", "out", "loop", "speed", "pps", "format"]),
    ("gen", &["size", "flows", "count", "imix", "seed", "sequence"]),
    ("null", &[]),
    ("none", &[]),
    ("afpacket", &["interface", "promiscuous", "timestamps"]),
    ("tap", &["interface", "ip", "mtu"]),
    ("vxlan", &["local", "remote", "vni", "mtu"]),
    ("xdp", &["interface", "mode", "copy", "queue", "queues", "promiscuous", "force"]),
    ("dpdk", &["device"]),
];
/// Options that every port has.
const EVERY: &[&str] = &["capture", "fault", "rate"];

/// A port as the user wrote it.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    text: String,
    kind: String,
    options: Vec<(String, String)>,
}

/// What is wrong with a port as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SpecError {
    UnknownKind { text: String, kind: String },
    UnknownOption { text: String, option: String, known: &'static [&'static str] },
    NoValue { text: String, option: String },
    BadValue { text: String, option: String, value: String, want: String },
    Missing { text: String, want: &'static str },
}

impl std::fmt::Display for SpecError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownKind { text, kind } => {
                let kinds: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
                write!(f, "port {text:?}: unknown kind {kind:?}, kinds are {}", kinds.join(", "))
            }
            Self::UnknownOption { text, option, known } => {
                let mut all = known.to_vec();
                all.extend(EVERY);
                write!(f, "port {text:?}: unknown option {option:?}, options are {}", all.join(", "))
            }
            Self::NoValue { text, option } => write!(f, "port {text:?}: option {option:?} has no value"),
            Self::BadValue { text, option, value, want } => {
                write!(f, "port {text:?}: {option}={value}: {want}")
            }
            Self::Missing { text, want } => write!(f, "port {text:?}: {want}"),
        }
    }
}

impl std::error::Error for SpecError {}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let mut spec = Self { text: text.to_string(), kind: kind.to_string(), options: Vec::new() };
        let Some((_, known)) = KINDS.iter().find(|(name, _)| *name == kind) else {
            return Err(spec.unknown_kind());
        };
        if kind == "dpdk" {
            // What options there are beside every port's, its driver knows.
            let of_every_port =
                |part: &&str| part.split_once('=').is_some_and(|(name, _)| EVERY.contains(&name));
            let (ours, drivers): (Vec<&str>, Vec<&str>) = rest.split(',').partition(of_every_port);
            spec.options.push(("device".to_string(), drivers.join(",")));
            for (option, value) in ours.iter().filter_map(|part| part.split_once('=')) {
                if value.is_empty() {
                    return Err(SpecError::NoValue { text: text.to_string(), option: option.to_string() });
                }
                spec.options.push((option.to_string(), value.to_string()));
            }
            return Ok(spec);
        }
        // `pcap:in.pcap,out.pcap` is short for `pcap:in=in.pcap,out=out.pcap`.
        let places: &[&str] = match kind {
            "pcap" => &["in", "out"],
            "afpacket" | "tap" | "xdp" => &["interface"],
            _ => &[],
        };
        let mut places = places.iter().copied();
        for part in rest.split(',').filter(|part| !part.is_empty()) {
            let (option, value) = match part.split_once('=') {
                Some((option, value)) => (option, value),
                // Said by its name alone.
                None if part == "force" && known.contains(&part) => (part, "yes"),
                None => match places.next() {
                    Some(place) => (place, part),
                    None => return Err(spec.bad_part(part, known)),
                },
            };
            if !known.contains(&option) && !EVERY.contains(&option) {
                let (text, option) = (text.to_string(), option.to_string());
                return Err(SpecError::UnknownOption { text, option, known });
            }
            if value.is_empty() {
                return Err(SpecError::NoValue { text: text.to_string(), option: option.to_string() });
            }
            spec.options.push((option.to_string(), value.to_string()));
        }
        Ok(spec)
    }
}

impl Spec {
    fn bad_part(&self, part: &str, known: &'static [&'static str]) -> SpecError {
        let (text, option) = (self.text.clone(), part.to_string());
        if known.contains(&part) || EVERY.contains(&part) {
            SpecError::NoValue { text, option }
        } else {
            SpecError::UnknownOption { text, option, known }
        }
    }

    /// As the user wrote it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// As text, with the files that it names seen from `directory`.
    ///
    /// # Errors
    /// When the path of a file has a comma, which separates options.
    pub(crate) fn in_directory(&self, directory: &Path) -> Result<String, SpecError> {
        if self.kind == "dpdk" {
            return self.driver_in_directory(directory);
        }
        let is_file =
            |option: &str| option == "capture" || self.kind == "pcap" && ["in", "out"].contains(&option);
        if !self.options.iter().any(|(option, _)| is_file(option)) {
            return Ok(self.text.clone());
        }
        let mut parts = Vec::with_capacity(self.options.len());
        for (option, value) in &self.options {
            let value = match option.as_str() {
                option if is_file(option) => self.seen_from(directory, option, value)?,
                _ => value.clone(),
            };
            parts.push(format!("{option}={value}"));
        }
        Ok(format!("{}:{}", self.kind, parts.join(",")))
    }

    /// The same of a driver's options: captures have names there, too.
    fn driver_in_directory(&self, directory: &Path) -> Result<String, SpecError> {
        let one = |part: &str| match part.split_once('=') {
            Some((option @ ("rx_pcap" | "tx_pcap"), file)) => {
                Ok(format!("{option}={}", self.seen_from(directory, option, file)?))
            }
            _ => Ok(part.to_string()),
        };
        let parts = self.get("device").unwrap_or_default().split(',').map(one);
        let mut parts = parts.collect::<Result<Vec<_>, _>>()?;
        for (option, value) in self.options.iter().filter(|(option, _)| EVERY.contains(&option.as_str())) {
            let value =
                if option == "capture" { self.seen_from(directory, option, value)? } else { value.clone() };
            parts.push(format!("{option}={value}"));
        }
        Ok(format!("{}:{}", self.kind, parts.join(",")))
    }

    /// The path of a file as seen from a directory.
    fn seen_from(&self, directory: &Path, option: &str, value: &str) -> Result<String, SpecError> {
        let file = directory.join(value);
        let parent = file.parent().and_then(|p| p.canonicalize().ok());
        let path = match (parent, file.file_name()) {
            (Some(parent), Some(name)) => parent.join(name).display().to_string(),
            _ => file.display().to_string(),
        };
        if path.contains(',') {
            return Err(self.bad(option, format!("the path {path} has a comma, which separates options")));
        }
        Ok(path)
    }

    /// What stands before the colon.
    pub(crate) fn kind(&self) -> &str {
        &self.kind
    }

    pub(super) fn unknown_kind(&self) -> SpecError {
        SpecError::UnknownKind { text: self.text.clone(), kind: self.kind.clone() }
    }

    pub(super) fn missing(&self, want: &'static str) -> SpecError {
        SpecError::Missing { text: self.text.clone(), want }
    }

    pub(super) fn bad(&self, option: &str, want: impl Into<String>) -> SpecError {
        let value = self.get(option).unwrap_or_default().to_string();
        SpecError::BadValue { text: self.text.clone(), option: option.to_string(), value, want: want.into() }
    }

    /// The value of an option; the last one if it was given twice.
    pub(super) fn get(&self, option: &str) -> Option<&str> {
        self.options.iter().rev().find(|(name, _)| name == option).map(|(_, value)| value.as_str())
    }

    /// The value of an option as a number, with k, M and G for thousands, millions and milliards.
    pub(super) fn number(&self, option: &str) -> Result<Option<u64>, SpecError> {
        let Some(value) = self.get(option) else { return Ok(None) };
        let whole =
            scaled(value).ok_or_else(|| self.bad(option, "a number like 64, 10k or 1.5M is needed"))?;
        if !(0.0..=1e15).contains(&whole) {
            return Err(self.bad(option, "out of range 0..=1e15"));
        }
        // In range and not negative: the conversion only cuts the fraction.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Ok(Some(whole as u64))
    }
}

/// A number, with k, M and G for thousands, millions and milliards.
pub(super) fn scaled(text: &str) -> Option<f64> {
    let (digits, factor) = match text.strip_suffix(['k', 'M', 'G']) {
        Some(digits) if text.ends_with('k') => (digits, 1e3),
        Some(digits) if text.ends_with('M') => (digits, 1e6),
        Some(digits) => (digits, 1e9),
        None => (text, 1.0),
    };
    digits.parse::<f64>().ok().map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<Spec>().unwrap_err().to_string()
    }

    #[test]
    fn options_are_read_by_name_and_by_place() {
        let spec: Spec = "pcap:a.pcap,out=b.pcap,pps=1.5M".parse().unwrap();
        assert_eq!((spec.kind(), spec.get("in"), spec.get("out")), ("pcap", Some("a.pcap"), Some("b.pcap")));
        assert_eq!(spec.number("pps"), Ok(Some(1_500_000)));
        assert_eq!(spec.number("loop"), Ok(None));
        let spec: Spec = "gen:size=64".parse().unwrap();
        assert_eq!(spec.number("size"), Ok(Some(64)));
        assert!("null:".parse::<Spec>().is_ok() && "null".parse::<Spec>().is_ok());
    }

    #[test]
    fn files_of_drivers_are_seen_from_the_directory_of_the_chain_file() {
        let spec: Spec =
            "dpdk:net_pcap0,rx_pcap=in.pcap,tx_pcap=/o.pcap,iface=in.pcap,rxq=2".parse().unwrap();
        let seen = spec.in_directory(Path::new("/")).unwrap();
        assert_eq!(seen, "dpdk:net_pcap0,rx_pcap=/in.pcap,tx_pcap=/o.pcap,iface=in.pcap,rxq=2");
        let refused = spec.in_directory(Path::new("/no,where")).unwrap_err().to_string();
        assert!(refused.contains("the path /no,where/in.pcap has a comma"), "{refused}");
    }

    #[cfg(not(feature = "dpdk"))]
    #[test]
    fn a_manager_without_dpdk_says_how_to_get_one_with_it() {
        let geometry = onvm_lib::pool::Geometry::new(1, 64).unwrap();
        let pool = onvm_lib::pool::Pool::create(geometry, onvm_lib::shm::Pages::Plain).unwrap();
        let refused =
            crate::ports::open(&"dpdk:net_null0".parse().unwrap(), &pool).err().unwrap().to_string();
        assert!(refused.contains("built without DPDK") && refused.contains("--features dpdk"), "{refused}");
    }

    #[test]
    fn files_are_seen_from_a_directory() {
        let seen = |text: &str| text.parse::<Spec>().unwrap().in_directory(Path::new("/")).unwrap();
        assert_eq!(seen("afpacket:eth0,rate=5"), "afpacket:eth0,rate=5");
        assert_eq!(seen("afpacket:eth0,capture=a.pcapng"), "afpacket:interface=eth0,capture=/a.pcapng");
        assert_eq!(seen("pcap:a,out=b,pps=5,capture=c"), "pcap:in=/a,out=/b,pps=5,capture=/c");
        assert_eq!(seen("dpdk:net_null0,capture=c,rxq=2"), "dpdk:net_null0,rxq=2,capture=/c");
        let spec: Spec = "null:capture=a.pcapng".parse().unwrap();
        let refused = spec.in_directory(Path::new("/a,b")).unwrap_err().to_string();
        assert!(refused.contains("has a comma"), "{refused}");
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(
            error("pacp:x"),
            "port \"pacp:x\": unknown kind \"pacp\", kinds are pcap, gen, null, none, afpacket, tap, vxlan, xdp, dpdk"
        );
        assert_eq!(
            error("gen:siez=4"),
            "port \"gen:siez=4\": unknown option \"siez\", options are size, flows, count, imix, seed, sequence, capture, fault, rate"
        );
        assert_eq!(
            error("null:a"),
            "port \"null:a\": unknown option \"a\", options are capture, fault, rate"
        );
        assert_eq!(error("gen:size"), "port \"gen:size\": option \"size\" has no value");
        assert_eq!(error("gen:size="), "port \"gen:size=\": option \"size\" has no value");
        let spec: Spec = "gen:size=big".parse().unwrap();
        let refused = spec.number("size").unwrap_err().to_string();
        assert_eq!(refused, "port \"gen:size=big\": size=big: a number like 64, 10k or 1.5M is needed");
    }
}
