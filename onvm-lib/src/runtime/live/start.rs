//! From the command line to the first turn, and from one manager to the next.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use super::Live;
use super::farewell::Totals;
use super::reattach::Kept;
use crate::cpu;
use crate::protocol::{Error as LineError, ServiceId, socket_from};
use crate::ring::bell::Barriers;
use crate::runtime::attach::{AttachError, Attached, attach, parent};
use crate::runtime::control::Ears;
use crate::runtime::tell::Control;
use crate::runtime::{Common, NetworkFunction, Printer, Setup, SetupError};

/// Why a live NF ended badly.
#[derive(Debug)]
pub(in crate::runtime) enum LiveError {
    Attach(AttachError),
    Setup(SetupError),
    Threads(std::io::Error),
    ManagerGone(LineError),
    NotBack { seconds: f64 },
}

impl From<AttachError> for LiveError {
    fn from(error: AttachError) -> Self {
        Self::Attach(error)
    }
}

impl std::fmt::Display for LiveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Attach(error) => write!(f, "{error}"),
            Self::Setup(error) => write!(f, "{error}"),
            Self::Threads(error) => write!(f, "cannot start a thread: {error}"),
            Self::ManagerGone(error) => write!(f, "the manager is gone: {error}"),
            Self::NotBack { seconds } => {
                write!(f, "the manager is gone and did not come back within {seconds} seconds")
            }
        }
    }
}

impl std::error::Error for LiveError {}

/// Where an NF runs, whoever its manager is.
pub(super) struct Place {
    pub(super) socket: PathBuf,
    /// The processors that it was started with.
    pub(super) allowed: Option<cpu::Allowed>,
    service: Option<ServiceId>,
    json: bool,
    print_interval: Option<Duration>,
}

impl Place {
    /// What the NF is told of it.
    pub(super) fn setup(&self, attached: &Attached, control: &Control) -> Setup {
        Setup {
            service: self.service,
            instance: Some(attached.welcome.instance),
            packet_room: attached.welcome.pool.packet_room() as usize,
            replay: false,
            json: self.json,
            print_interval: self.print_interval,
            parent: parent(),
            control: control.clone(),
        }
    }

    /// Lets the NF's messages go to this manager.
    pub(super) fn tell_of(&self, attached: &Attached, control: &Control) -> Result<(), LiveError> {
        let line = attached.line.try_clone().map_err(AttachError::Line)?;
        control.set_manager(Some(line), attached.welcome.instance);
        Ok(())
    }
}

/// Runs an NF until it is told to stop or is done. Its children are started with these arguments.
pub(in crate::runtime) fn run<N: NetworkFunction>(
    common: &Common,
    own: &N::Options,
    arguments: Vec<OsString>,
) -> Result<(), Box<dyn std::error::Error>> {
    let barriers = Barriers::register();
    let place = Place {
        socket: socket_from(common.socket.as_deref()),
        allowed: cpu::Allowed::now().ok(),
        service: common.service_id,
        json: common.json,
        print_interval: common.print_interval,
    };
    let attached = attach::<N>(&place.socket, common).map_err(LiveError::Attach)?;
    let control = Control::live(arguments, place.allowed.clone());
    place.tell_of(&attached, &control)?;
    let nf = N::setup(own, &place.setup(&attached, &control)).map_err(LiveError::Setup)?;
    let mut ears = Ears::new().map_err(LiveError::Threads)?;
    let line = attached.line.try_clone().map_err(AttachError::Line).map_err(LiveError::Attach)?;
    ears.listen(line).map_err(LiveError::Threads)?;
    let (started, before) = (Instant::now(), Totals::default());
    // Records may be going to standard output: reports then go to standard error.
    let printer = if nf.report().aside { Printer::start(std::io::stderr()) } else { Printer::stdout() };
    let printer = printer.map_err(LiveError::Threads)?;
    let kept = Kept { nf, common, control, ears, barriers, started, received: 0, before, printer };
    let mut live = Live::new(kept, attached);
    loop {
        match live.work() {
            Err(LiveError::ManagerGone(lost)) if !common.reattach.is_zero() => {
                match live.reattach(&place, &lost)? {
                    Some(again) => live = again,
                    None => return Ok(()),
                }
            }
            end => {
                live.leave();
                return end.map_err(Into::into);
            }
        }
    }
}
