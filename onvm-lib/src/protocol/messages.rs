//! The messages themselves.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::pool::Geometry;

/// Changes whenever a message changes in a way that the other side must know of.
pub const PROTOCOL_VERSION: u32 = 2;

/// A kind of NF in this host's chains, 1..=4095.
pub type ServiceId = u16;
/// One running copy of a service; never reused while the manager lives.
pub type InstanceId = u32;
/// One ring between two nodes.
pub type EdgeId = u32;

/// First message of an NF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the sender.
    pub version: u32,
    /// The service that it is an instance of.
    pub service: ServiceId,
    /// The instance id that it asks for; any, if none.
    pub instance: Option<InstanceId>,
    /// What it calls itself.
    pub name: String,
    /// Fixed destination of its packets.
    pub destination: Option<ServiceId>,
    /// It only reads packets.
    pub reads_only: bool,
    /// It makes packets and needs empty buffers.
    pub emits: bool,
    /// The processor that it asks for.
    pub core: Option<u32>,
    /// It shares its processor.
    pub shared_core: bool,
    /// The id that it had with a manager that is gone; it keeps it if it can.
    pub reattached: Option<InstanceId>,
    /// Packets that it has had, from managers that are gone: one that has had some has state.
    pub received: u64,
    /// What the manager that started it called it ([`START_TOKEN`]); none for NFs from a shell.
    pub token: Option<String>,
    /// The instance that started it, if one did ([`PARENT`]).
    pub parent: Option<InstanceId>,
    /// It can hand its state to a successor.
    pub hands_over: bool,
}

/// Environment variable in which a manager tells a process that it starts what it is called.
pub const START_TOKEN: &str = "ONVM_START_TOKEN";
/// Environment variable in which an NF tells a child that it starts its own instance id.
pub const PARENT: &str = "ONVM_PARENT";

/// A ring that an NF gets one end of; the next descriptor of the message is its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingGrant {
    /// The edge's id.
    pub edge: EdgeId,
    /// Entries.
    pub capacity: u32,
}

/// The manager takes the NF in. Descriptors: pool, node page, the ring to the NF, the ring from it, the
/// eventfd that wakes the worker, and the ring of empties if there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`PROTOCOL_VERSION`] of the manager.
    pub version: u32,
    /// The instance id given.
    pub instance: InstanceId,
    /// Sizes of the pool.
    pub pool: Geometry,
    /// From the worker to the NF.
    pub inbound: RingGrant,
    /// From the NF to the worker.
    pub outbound: RingGrant,
    /// Empty buffers from the worker.
    pub empties: Option<RingGrant>,
    /// Processor to run on; any, if none.
    pub core: Option<u32>,
    /// Whether another node runs there too.
    pub shared_core: bool,
}

/// A direct edge that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// The ring; its memory is the next descriptor of the message.
    pub ring: RingGrant,
    /// The instance at the other end.
    pub peer: InstanceId,
}

/// Where a service's packets go: which way for each slot of the flow hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// The service.
    pub service: ServiceId,
    /// The distinct ways: a direct edge, or none for the relay.
    pub ways: Vec<Option<EdgeId>>,
    /// Index into `ways` for each slot; a single one stands for all.
    pub table: Vec<u8>,
}

/// What follows a position in a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChainHop {
    /// The next service; 0 where the chain ends.
    pub service: ServiceId,
    /// The position of that service.
    pub position: u16,
}

/// What follows one of the positions at which chains come to an NF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    /// The position with which packets arrive.
    pub at: u16,
    /// What follows.
    pub hop: ChainHop,
}

/// A route snapshot for one NF. It replaces the one before, between two bursts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Goes up with every snapshot.
    pub version: u64,
    /// What follows for packets in no chain.
    pub after: ChainHop,
    /// What follows each position at which a chain comes here, lowest position first.
    pub next: Vec<Next>,
    /// Direct ways; services that are not listed go by the relay.
    pub services: Vec<Slots>,
    /// Rings that the NF now consumes. It must not take from one before the marker for it has come.
    pub consume: Vec<Edge>,
    /// Rings that the NF now produces into. It first sends a marker for each by the relay.
    pub produce: Vec<Edge>,
    /// Rings that end: their producer is gone or told so; empty what is left, then forget them.
    pub finish: Vec<EdgeId>,
    /// Whether the NF shares its processor now.
    pub shared_core: bool,
}

/// To whom a message between NFs goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// All instances of a service.
    Service(ServiceId),
    /// One instance.
    Instance(InstanceId),
}

/// A message between NFs, or from an operator to an NF.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who sent it; none for an operator.
    pub from: Option<InstanceId>,
    /// What it is about.
    pub topic: String,
    /// What it says.
    pub body: serde_json::Value,
}

/// What a message says is not what was expected of its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageError {
    /// The topic.
    pub topic: String,
    /// What is wrong with the body.
    pub reason: String,
}

impl std::fmt::Display for MessageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "message about {:?} says something else than expected: {}", self.topic, self.reason)
    }
}

impl std::error::Error for MessageError {}

impl Message {
    /// What it says, as a value of the type that its topic stands for.
    ///
    /// # Errors
    /// [`MessageError`] when it says something else.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, MessageError> {
        T::deserialize(&self.body)
            .map_err(|error| MessageError { topic: self.topic.clone(), reason: error.to_string() })
    }
}

/// What a client asks of a running manager.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Request {
    /// Uptime, ports, services, pool.
    Status,
    /// All instances.
    NfList,
    /// Stop instances, by service or instance.
    NfStop {
        /// Which.
        target: Target,
    },
    /// Send a message to instances.
    NfTell {
        /// Which.
        target: Target,
        /// What it is about.
        topic: String,
        /// What it says.
        body: serde_json::Value,
    },
    /// Let instances take no packets until they are resumed; those wait.
    NfPause {
        /// Which.
        target: Target,
    },
    /// Let paused instances go on.
    NfResume {
        /// Which.
        target: Target,
    },
    /// Take the flows from instances, let them finish what is inside, and let them leave.
    NfDrain {
        /// Which.
        target: Target,
    },
    /// Kill instances.
    NfKill {
        /// Which.
        target: Target,
    },
    /// Start instances of a service that the manager knows the command of.
    NfStart {
        /// The service.
        service: ServiceId,
    },
    /// Replace instances by new ones of the same command.
    NfRestart {
        /// Which.
        target: Target,
    },
    /// Replace instances by new ones of another command.
    NfReplace {
        /// Which.
        target: Target,
        /// Program and arguments.
        command: Vec<String>,
        /// Directory in which it is started.
        directory: String,
        /// The new ones begin without the state of those that they replace.
        #[serde(default)]
        fresh: bool,
    },
    /// Have so many instances of a service.
    NfScale {
        /// The service.
        service: ServiceId,
        /// How many.
        instances: u32,
    },
    /// Events after a number, the oldest first; with `follow` also those to come, until the client hangs up.
    Events {
        /// The last one known; 0 for all.
        after: u64,
        /// Whether to stay on the line.
        follow: bool,
    },
    /// Where the output of instances goes.
    Logs {
        /// Which.
        target: Target,
    },
    /// The plan in force.
    PlanShow,
    /// Another plan; only what is different is touched.
    PlanApply {
        /// The plan, as [`Request::PlanShow`] tells it; null when it is in the file that comes with the message.
        plan: serde_json::Value,
    },
    /// The default chain.
    ChainShow,
    /// Another default chain.
    ChainSet {
        /// Services in order; none for straight through from port to port.
        chain: Vec<ServiceId>,
    },
    /// The ports, with their links.
    PortList,
    /// Another port.
    PortAdd {
        /// As on the command line, with absolute paths.
        spec: String,
        /// An empty number for it; none for the one behind all others.
        #[serde(default)]
        number: Option<u8>,
    },
    /// One port less: answered when it is closed.
    PortRemove {
        /// Its number or name.
        port: String,
    },
    /// All counters.
    Stats,
    /// Both conservation sums.
    Audit,
    /// Stop the manager after draining.
    Shutdown,
}

/// What is said to the manager.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum Say {
    /// An NF introduces itself.
    Hello(Hello),
    /// An NF follows a route snapshot.
    Routed {
        /// Its version.
        version: u64,
    },
    /// An NF's own statistics.
    Report {
        /// As the NF prints them with `--json`.
        report: serde_json::Value,
    },
    /// An NF sends a message to others.
    Tell {
        /// To whom.
        target: Target,
        /// What it is about.
        topic: String,
        /// What it says.
        body: serde_json::Value,
    },
    /// An NF hands over its state, in the file that comes with it, or has none; it takes no more packets.
    State,
    /// An NF has read its predecessor's state, or could not.
    TookOver {
        /// Why it could not.
        error: Option<String>,
    },
    /// An NF has done its last turn.
    Leaving,
    /// A client asks.
    Ask {
        /// [`PROTOCOL_VERSION`] of the client.
        version: u32,
        /// What.
        request: Request,
    },
}

/// What the manager says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// An NF is taken in.
    Welcome(Welcome),
    /// A peer is not served; the line ends.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
    /// A new route snapshot for an NF.
    Route(Route),
    /// Something for an NF to read.
    Message(Message),
    /// An NF shall take no packets until further notice.
    Pause,
    /// A paused NF shall go on.
    Resume,
    /// An NF shall say [`Say::State`].
    HandOver,
    /// The state of an NF's predecessor, in the file that comes with it; it answers [`Say::TookOver`].
    TakeOver,
    /// An NF shall leave.
    Stop,
    /// A client's answer.
    Told {
        /// The result; for errors an object with `error`.
        body: serde_json::Value,
        /// Whether the request succeeded.
        ok: bool,
    },
}
