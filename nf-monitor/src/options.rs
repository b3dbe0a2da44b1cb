//! The command line, and what it means together.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use onvm_lib::prelude::*;

use crate::export::{Destination, Octets, Shape};
use crate::flow::Sort;
use crate::keys::Keys;
use crate::records::{Format, Wanted};
use crate::settings::Settings;
use crate::timeouts::{Named, Timeouts};

/// How long a flow may last before a record of it is made, in seconds, if nothing is said.
const ACTIVE: u64 = 1800;

/// Options of its own.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Flows, hosts and such to show
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=1000))]
    top: u16,

    /// What makes a flow or host large
    #[arg(long, value_enum, default_value_t = Sort::Bytes)]
    sort: Sort,

    /// A flow that is silent for this many seconds is over
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    flow_timeout: u32,

    /// Flows kept at most; a new one then takes the place of one that was silent for longer
    #[arg(long, value_name = "N", default_value_t = 65_536,
          value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    max_flows: u32,

    /// What makes packets one flow [default: netflow with --export, else connection]
    #[arg(long, value_enum, value_name = "KEYS")]
    flow_keys: Option<Keys>,

    /// Another timeout for some flows: tcp, tcp.rst, tcp.fin, udp, icmp, general (silence) or maxlife (the active timeout), as softflowd's -t
    #[arg(long, value_name = "NAME=SECONDS", value_delimiter = ',')]
    timeout: Vec<Named>,

    /// A flow that has lasted for this many seconds is cut: what follows is another record [default: 1800 if records are made, else never]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    active_timeout: Option<u32>,

    /// Count what tunnels carry (IP in IP, GRE, VXLAN, Geneve) instead of the tunnel
    #[arg(long)]
    inner: bool,

    /// Do not look for applications in the first bytes of flows
    #[arg(long)]
    no_applications: bool,

    /// Hosts, and flow keys, whose totals are kept at most; more push out the lightest, with a stated error
    #[arg(long, value_name = "N", default_value_t = 65_536,
          value_parser = clap::value_parser!(u32).range(2..=16_777_216))]
    heavy: u32,

    /// Sources whose destinations are counted at most; 0: none
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    spreaders: u32,

    /// Draw a table over the terminal every so many seconds; without a terminal, print a line
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) live: Option<u32>,

    /// Write a line of JSON for every finished flow; - is standard output
    #[arg(long, value_name = "FILE", help_heading = "Records of flows")]
    json_lines: Option<PathBuf>,

    /// Write a line of comma-separated values for every finished flow; - is standard output
    #[arg(long, value_name = "FILE", help_heading = "Records of flows")]
    csv: Option<PathBuf>,

    /// Export finished flows: ipfix://HOST:PORT, netflow9://HOST:PORT, or file:PATH (IPFIX messages); can be given several times
    #[arg(long, value_name = "TO", help_heading = "Records of flows")]
    export: Vec<Destination>,

    /// Messages that are exported a second at most; 0: no bound
    #[arg(long, value_name = "N", default_value_t = 5000, help_heading = "Records of flows",
          value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    export_rate: u32,

    /// What exported octets count
    #[arg(long, value_enum, default_value_t = Octets::Ip, help_heading = "Records of flows")]
    export_octets: Octets,

    /// Export flows of what is not IP, too, by MAC address and EtherType
    #[arg(long, help_heading = "Records of flows")]
    export_other: bool,

    /// Export one record for both directions (RFC 5103; IPFIX only)
    #[arg(long, help_heading = "Records of flows")]
    biflow: bool,

    /// Export applicationId in every record, and the names of applications (RFC 6759)
    #[arg(long, help_heading = "Records of flows")]
    export_applications: bool,

    /// Observation domain of exports (NetFlow: source id) [default: the instance id, 1 in a replay]
    #[arg(long, value_name = "N", help_heading = "Records of flows")]
    observation_domain: Option<u32>,
}

impl Options {
    fn records(&self) -> bool {
        !self.export.is_empty() || self.json_lines.is_some() || self.csv.is_some()
    }

    fn keys(&self) -> Keys {
        let usual = if self.export.is_empty() { Keys::Connection } else { Keys::Netflow };
        self.flow_keys.unwrap_or(usual)
    }

    /// How to count.
    pub(crate) fn settings(&self) -> Settings {
        let mut timeouts = Timeouts::new(Duration::from_secs(u64::from(self.flow_timeout)));
        if let Some(active) = self.active_timeout.map(u64::from).or(self.records().then_some(ACTIVE)) {
            timeouts = timeouts.with_active(active);
        }
        Settings {
            max_flows: self.max_flows as usize,
            timeouts: timeouts.with(&self.timeout),
            keys: self.keys(),
            inner: self.inner,
            applications: !self.no_applications,
            records: self.records(),
            top: usize::from(self.top),
            sort: self.sort,
            hosts: self.heavy as usize,
            talks: self.heavy as usize,
            spreaders: self.spreaders as usize,
            seed: RandomState::new().build_hasher().finish(),
        }
    }

    /// What to write and export.
    ///
    /// # Errors
    /// Options that contradict each other.
    pub(crate) fn wanted(&self, setup: &Setup) -> Result<Wanted, String> {
        let dash = |path: &Option<PathBuf>| path.as_ref().is_some_and(|path| path.as_os_str() == "-");
        if dash(&self.json_lines) && dash(&self.csv) {
            return Err("--json-lines and --csv cannot both have standard output".into());
        }
        if self.live.is_some() && (dash(&self.json_lines) || dash(&self.csv)) {
            return Err("--live draws on standard output: give records a file".into());
        }
        self.differ()?;
        let json = self.json_lines.clone().map(|path| (Format::Json, path));
        let csv = self.csv.clone().map(|path| (Format::Csv, path));
        Ok(Wanted {
            exports: self.export.clone(),
            lines: json.into_iter().chain(csv).collect(),
            shape: Shape {
                keys: self.keys(),
                biflow: self.biflow,
                octets: self.export_octets,
                applications: self.export_applications,
                rate: self.export_rate,
                patient: setup.replay,
            },
            domain: self.observation_domain.unwrap_or_else(|| setup.instance.map_or(1, u32::from)),
            fixed_domain: self.observation_domain.is_some(),
            other: self.export_other,
        })
    }

    /// Every output has a file of its own: one would empty that of the other.
    fn differ(&self) -> Result<(), String> {
        let lines = [("--json-lines", &self.json_lines), ("--csv", &self.csv)];
        let lines = lines.into_iter().filter_map(|(option, path)| Some((option, path.as_deref()?)));
        let lines = lines.filter(|(_, path)| path.as_os_str() != "-");
        let exports = self.export.iter().filter_map(|to| Some(("--export", to.file()?)));
        let mut known: Vec<(&str, &Path, PathBuf)> = Vec::new();
        for (option, path) in lines.chain(exports) {
            let Some(place) = place(path) else { continue };
            if let Some((other, its, _)) = known.iter().find(|(.., at)| *at == place) {
                return Err(format!(
                    "{other} {} and {option} {} are the same file: each needs one of its own",
                    its.display(),
                    path.display()
                ));
            }
            known.push((option, path, place));
        }
        Ok(())
    }
}

/// What names a file whatever links and dots lead to it; none for what is no file (pipes, devices), and can have many
/// writers.
fn place(path: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    match std::fs::metadata(path) {
        Ok(file) if file.is_file() => Some(PathBuf::from(format!("{}:{}", file.dev(), file.ino()))),
        Ok(_) => None,
        // It is yet to be made: its folder is there, or opening it will say so.
        Err(_) => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new(".")).canonicalize().ok()?;
            Some(folder.join(path.file_name()?))
        }
    }
}
