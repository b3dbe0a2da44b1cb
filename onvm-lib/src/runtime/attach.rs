//! The handshake with the manager.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Common, NetworkFunction};
use crate::cpu;
use crate::node::NodePage;
use crate::packet::Access as _;
use crate::pool::Pool;
use crate::protocol::{
    Answer, Error as LineError, Hello, InstanceId, Line, PARENT, PROTOCOL_VERSION, RingGrant, START_TOKEN,
    Say, Welcome,
};
use crate::ring::{Consumer, Error as RingError, Producer, Ring};
use crate::shm::{Access, Error as ShmError};

/// How long a manager may take to open its socket.
const MANAGER_MAY_START: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(5);

/// Why an NF could not attach.
#[derive(Debug)]
pub(super) enum AttachError {
    Line(LineError),
    Refused(String),
    Version { ours: u32, theirs: u32 },
    Descriptors { got: usize, want: usize },
    Pool,
    Memory(ShmError),
    Ring(RingError),
    Core { core: u32, errno: rustix::io::Errno },
}

impl std::fmt::Display for AttachError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(error) => write!(f, "{error}"),
            Self::Refused(reason) => write!(f, "the manager refused: {reason}"),
            Self::Version { ours, theirs } => write!(
                f,
                "the manager speaks protocol version {theirs}, this program {ours}: use programs of one release"
            ),
            Self::Descriptors { got, want } => {
                write!(f, "the manager sent {got} descriptors instead of {want} (limit of open files?)")
            }
            Self::Pool => f.write_str("the manager's pool has sizes that cannot be"),
            Self::Memory(error) => write!(f, "{error}"),
            Self::Ring(error) => write!(f, "{error}"),
            Self::Core { core, errno } => write!(f, "cannot run on processor {core}: {errno}"),
        }
    }
}

impl From<LineError> for AttachError {
    fn from(error: LineError) -> Self {
        Self::Line(error)
    }
}

impl From<ShmError> for AttachError {
    fn from(error: ShmError) -> Self {
        Self::Memory(error)
    }
}

impl From<RingError> for AttachError {
    fn from(error: RingError) -> Self {
        Self::Ring(error)
    }
}

/// Everything that an NF gets from the manager.
pub(super) struct Attached {
    pub(super) line: Line,
    pub(super) welcome: Welcome,
    pub(super) pool: Pool,
    pub(super) page: NodePage,
    pub(super) inbound: Consumer,
    pub(super) outbound: Producer,
    pub(super) empties: Option<Consumer>,
    pub(super) doorbell: OwnedFd,
}

/// Attaches for the first time.
pub(super) fn attach<N: NetworkFunction>(path: &Path, common: &Common) -> Result<Attached, AttachError> {
    let mut line = connect(path)?;
    greet::<N>(&line, common, None, 0)?;
    let (welcome, fds) = answer(&mut line, true)?;
    open::<N>(line, welcome, fds, None)
}

/// Says hello; `reattached` is the id that the NF had with a manager that is gone, `received` what it has had so far.
pub(super) fn greet<N: NetworkFunction>(
    line: &Line,
    common: &Common,
    reattached: Option<InstanceId>,
    received: u64,
) -> Result<(), AttachError> {
    let hello = Hello {
        version: PROTOCOL_VERSION,
        service: common.service_id.unwrap_or(0),
        instance: common.instance_id,
        name: common.name.clone().unwrap_or_else(|| N::NAME.to_string()),
        destination: common.destination,
        reads_only: !N::Access::WRITES,
        emits: N::EMITS,
        core: common.core,
        shared_core: common.shared_core,
        reattached,
        received,
        token: std::env::var(START_TOKEN).ok(),
        parent: parent(),
        hands_over: N::STATE_VERSION > 0,
    };
    line.send(&Say::Hello(hello), &[], true).map_err(Into::into)
}

/// The instance that started this one, if one did.
pub(super) fn parent() -> Option<InstanceId> {
    std::env::var(PARENT).ok().and_then(|id| id.parse().ok())
}

/// What the manager says to the hello. With `wait` false also [`LineError::WouldBlock`], and then it can be asked
/// again.
pub(super) fn answer(line: &mut Line, wait: bool) -> Result<(Welcome, Vec<OwnedFd>), AttachError> {
    let (answer, fds) = line.receive::<Answer>(wait)?;
    let welcome = match answer {
        Answer::Welcome(welcome) => welcome,
        Answer::Refused { reason } => return Err(AttachError::Refused(reason)),
        other => return Err(AttachError::Refused(format!("it answered {other:?}"))),
    };
    if welcome.version != PROTOCOL_VERSION {
        return Err(AttachError::Version { ours: PROTOCOL_VERSION, theirs: welcome.version });
    }
    Ok((welcome, fds))
}

/// Connects. Manager and NFs are often started by one script, side by side: a manager that is just starting is
/// waited for.
fn connect(path: &Path) -> Result<Line, LineError> {
    let until = Instant::now() + MANAGER_MAY_START;
    loop {
        match Line::connect(path) {
            Err(LineError::NobodyThere { .. }) if Instant::now() < until => std::thread::sleep(RETRY),
            other => return other,
        }
    }
}

/// Maps what came with the welcome, and goes to its processor: without one, to those that were allowed `before`.
pub(super) fn open<N: NetworkFunction>(
    line: Line,
    welcome: Welcome,
    fds: Vec<OwnedFd>,
    before: Option<&cpu::Allowed>,
) -> Result<Attached, AttachError> {
    let want = 5 + usize::from(welcome.empties.is_some());
    let got = fds.len();
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or(AttachError::Descriptors { got, want });
    let (pool, page, to, from, doorbell) = (next()?, next()?, next()?, next()?, next()?);
    if !welcome.pool.is_sound() {
        return Err(AttachError::Pool);
    }
    let access = if N::Access::WRITES { Access::ReadWrite } else { Access::Read };
    let empties = match welcome.empties {
        Some(grant) => Some(open_ring(grant, next()?)?.consumer()),
        None => None,
    };
    match (welcome.core, before) {
        (Some(core), _) => cpu::pin(core).map_err(|errno| AttachError::Core { core, errno })?,
        (None, Some(allowed)) => drop(allowed.restore()),
        (None, None) => {}
    }
    cpu::be_prompt();
    Ok(Attached {
        pool: Pool::open(pool, welcome.pool, access)?,
        page: NodePage::open(page)?,
        inbound: open_ring(welcome.inbound, to)?.consumer(),
        outbound: open_ring(welcome.outbound, from)?.producer(),
        empties,
        doorbell,
        line,
        welcome,
    })
}

pub(super) fn open_ring(grant: RingGrant, fd: OwnedFd) -> Result<Ring, RingError> {
    Ring::open(&format!("onvm-edge-{}", grant.edge), fd, grant.capacity)
}
