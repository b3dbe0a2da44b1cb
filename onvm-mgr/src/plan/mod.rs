//! What a manager shall run: services, chains, flow rules. Made from a chain file or the command line, told to clients, and
//! changed as a whole.

mod command_line;
pub(crate) mod difference;
pub(crate) mod file;
pub(crate) mod flow_rules;
// The control thread takes plans from it.
pub(crate) mod received;

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use onvm_lib::protocol::ServiceId;
use serde::{Deserialize, Serialize};

/// Most hops of a chain.
pub(crate) const MAX_CHAIN: usize = 64;

/// Largest service id.
pub(crate) const MAX_SERVICE: ServiceId = 4095;
/// Most instances of one service: a route names them by a byte.
pub(crate) const MAX_INSTANCES: u32 = 250;
/// Most hops of all chains together: positions have 12 bits, and there is room for as many chains of the past.
pub(crate) const MAX_HOPS: usize = 2047;

/// Whether packets of an IP protocol have ports: TCP, UDP, DCCP, SCTP, UDP-Lite.
pub(crate) const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 33 | 132 | 136)
}

/// What a manager shall run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Plan {
    /// Ports, as on the command line, in order of their numbers.
    pub(crate) ports: Vec<String>,
    /// Services by id.
    pub(crate) services: BTreeMap<ServiceId, Service>,
    /// Chains by name: services in order.
    pub(crate) chains: BTreeMap<String, Vec<ServiceId>>,
    /// Flow rules; of those that match, the one with the highest priority decides, among equals the first.
    pub(crate) rules: Vec<Rule>,
    /// Chain of packets that no rule matches; without it they go to the default service.
    pub(crate) default_chain: Option<String>,
}

/// Name of the chain that the command line gives.
pub(crate) const DEFAULT_CHAIN: &str = "default";

/// One service of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Service {
    pub(crate) name: String,
    /// Program and arguments, without `-r`, `-d`, `-m`, `-s` and `--socket`, which the manager adds; none for NFs that are started
    /// elsewhere.
    pub(crate) command: Vec<String>,
    /// Directory in which the command is started.
    pub(crate) directory: String,
    /// Variables added to its environment.
    pub(crate) environment: BTreeMap<String, String>,
    /// Fixed destination (`-d`).
    pub(crate) destination: Option<ServiceId>,
    /// Instances that share its flows.
    pub(crate) instances: u32,
    /// Further instances that wait to take over from one that dies.
    pub(crate) standby: u32,
    /// Bounds within which the manager chooses the number of instances.
    pub(crate) scale: Option<Scale>,
    /// Processor (`-m`).
    pub(crate) core: Option<u32>,
    /// Share the processor (`-s`).
    pub(crate) shared_core: bool,
    /// What becomes of its packets while it has no instance.
    pub(crate) policy: Policy,
    /// How its command is started again.
    pub(crate) restart: Restart,
    /// How long packets wait for it at most; none for the manager's default.
    #[serde(with = "seconds::option")]
    pub(crate) wait: Option<Duration>,
    /// Instances get copies of packets, in memory that no other NF shares.
    pub(crate) isolated: bool,
    /// How flows stay where they are.
    pub(crate) affinity: Affinity,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            name: String::new(),
            command: Vec::new(),
            directory: String::new(),
            environment: BTreeMap::new(),
            destination: None,
            instances: 1,
            standby: 0,
            scale: None,
            core: None,
            shared_core: false,
            policy: Policy::default(),
            restart: Restart::default(),
            wait: None,
            isolated: false,
            affinity: Affinity::default(),
        }
    }
}

impl Service {
    /// Whether a process that was started for one is as good as one that is started for the other.
    pub(crate) fn starts_like(&self, other: &Self) -> bool {
        let what = |s: &Self| (s.command.clone(), s.directory.clone(), s.environment.clone());
        let how = |s: &Self| (s.destination, s.core, s.shared_core, s.isolated);
        what(self) == what(other) && how(self) == how(other)
    }
}

/// What becomes of a service's packets while it has no instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Policy {
    /// They wait for the next instance, up to a bound.
    #[default]
    Restart,
    /// They skip the service.
    Bypass,
    /// They are dropped.
    Drop,
}

/// How a command is started again after it died.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Restart {
    /// Deaths in a row, each within `healthy` of its start, after which it is not started again; 0 for never.
    pub(crate) give_up: u32,
    /// Wait before the second start in a row; the first comes at once. It doubles from start to start.
    #[serde(with = "seconds")]
    pub(crate) delay: Duration,
    /// Longest wait.
    #[serde(with = "seconds")]
    pub(crate) longest_delay: Duration,
    /// A process that lived so long counts as healthy: its death starts a new row.
    #[serde(with = "seconds")]
    pub(crate) healthy: Duration,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            give_up: 10,
            delay: Duration::from_millis(100),
            longest_delay: Duration::from_secs(10),
            healthy: Duration::from_secs(10),
        }
    }
}

/// Bounds within which the manager chooses the number of instances.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Scale {
    pub(crate) min: u32,
    pub(crate) max: u32,
    /// Busy fraction of an instance that is aimed at, 0 to 1.
    pub(crate) target_load: f64,
}

/// How flows stay where they are when instances come and go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Affinity {
    /// By slots of the flow hash: a new instance takes its share, known flows among it.
    #[default]
    Slot,
    /// Every known flow stays; a new instance gets new flows only.
    Flow,
}

/// Which packets take a chain. What is not said matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Rule {
    pub(crate) priority: i32,
    pub(crate) chain: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) source: Vec<IpNet>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) destination: Vec<IpNet>,
    /// Inclusive ranges.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) source_port: Vec<(u16, u16)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) destination_port: Vec<(u16, u16)>,
    /// IP protocol number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<u8>,
    /// Number of the port that it came in by; for the other direction of `both_directions` also the port paired with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) input_port: Option<u8>,
    /// It matches the other direction of the flow, too: source and destination exchanged.
    pub(crate) both_directions: bool,
}

/// Durations as seconds, for people and JSON.
mod seconds {
    use super::Duration;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(value.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(from)?).map_err(serde::de::Error::custom)
    }

    pub(super) mod option {
        use super::{Deserialize, Deserializer, Duration, Serializer};

        pub(in super::super) fn serialize<S: Serializer>(
            value: &Option<Duration>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            match value {
                Some(value) => to.serialize_some(&value.as_secs_f64()),
                None => to.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<Duration>, D::Error> {
            let seconds = Option::<f64>::deserialize(from)?;
            seconds.map(|s| Duration::try_from_secs_f64(s).map_err(serde::de::Error::custom)).transpose()
        }
    }
}
