//! What an NF can do beside its packets: tell other NFs something, and start children.

use std::ffi::OsString;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::children::Children;
use crate::cpu::Allowed;
use crate::protocol::{Error as LineError, InstanceId, Line, Say, Target};

/// Why something could not be told, or a child not be started.
#[derive(Debug)]
#[non_exhaustive]
pub enum ControlError {
    /// The NF runs over a capture, alone.
    Replay,
    /// The manager is gone, and the next one has not come yet.
    NoManager,
    /// The manager is slow to read; it can be tried again later.
    Busy,
    /// What is to be told cannot be said in JSON.
    Body {
        /// Why.
        reason: String,
    },
    /// It is longer than a message may be.
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The control socket failed.
    Line(LineError),
    /// A child cannot be started.
    Child(std::io::Error),
}

impl std::fmt::Display for ControlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Replay => f.write_str("there is no manager in a replay, and nobody else"),
            Self::NoManager => f.write_str("the manager is gone, and the next one has not come yet"),
            Self::Busy => f.write_str("the manager is slow to read: try again later"),
            Self::Body { reason } => write!(f, "this cannot be said in JSON: {reason}"),
            Self::TooLong { length } => {
                let most = crate::protocol::MAX_MESSAGE;
                write!(f, "a message of {length} bytes is longer than the {most} allowed")
            }
            Self::Line(error) => write!(f, "{error}"),
            Self::Child(error) => write!(f, "cannot start a child: {error}"),
        }
    }
}

impl std::error::Error for ControlError {}

#[derive(Debug)]
struct Shared {
    /// None while there is no manager.
    line: Mutex<Option<Line>>,
    instance: AtomicU32,
    children: Children,
}

/// What an NF can do beside its packets, from any thread.
#[derive(Clone, Debug)]
pub struct Control(Option<Arc<Shared>>);

impl Control {
    /// In a replay: nothing.
    pub(super) fn of_replay() -> Self {
        Self(None)
    }

    /// Of a live NF. Children are started with these arguments, on these processors.
    pub(super) fn live(arguments: Vec<OsString>, allowed: Option<Allowed>) -> Self {
        let children = Children::new(arguments, allowed);
        Self(Some(Arc::new(Shared { line: Mutex::new(None), instance: AtomicU32::new(0), children })))
    }

    /// There is a manager, or there is none any more.
    pub(super) fn set_manager(&self, line: Option<Line>, instance: InstanceId) {
        if let Some(shared) = &self.0 {
            *shared.line() = line;
            shared.instance.store(instance, Ordering::Relaxed);
        }
    }

    /// The NF leaves in order, and its children with it.
    pub(super) fn dismiss_children(&self) {
        if let Some(shared) = &self.0 {
            shared.children.dismiss();
        }
    }

    fn shared(&self) -> Result<&Shared, ControlError> {
        self.0.as_deref().ok_or(ControlError::Replay)
    }

    /// Sends a message to one instance, or to all of a service; the NF itself may be among them. They get it by
    /// [`NetworkFunction::message`](super::NetworkFunction::message), and read it with
    /// [`Message::read`](crate::protocol::Message::read). Messages from one NF to another keep their order. Nobody
    /// is told when there is no such instance, and one that does not read loses messages.
    ///
    /// Does not wait.
    ///
    /// # Errors
    /// [`ControlError`]; after [`ControlError::Busy`] and [`ControlError::NoManager`] it can be tried again.
    pub fn tell(&self, target: Target, topic: &str, body: &impl Serialize) -> Result<(), ControlError> {
        let shared = self.shared()?;
        let body = serde_json::to_value(body).map_err(|e| ControlError::Body { reason: e.to_string() })?;
        let line = shared.line();
        let line = line.as_ref().ok_or(ControlError::NoManager)?;
        line.send(&Say::Tell { target, topic: topic.into(), body }, &[], false).map_err(|error| match error {
            LineError::WouldBlock => ControlError::Busy,
            LineError::Closed => ControlError::NoManager,
            LineError::TooLong { length } => ControlError::TooLong { length },
            error => ControlError::Line(error),
        })
    }

    /// Starts another instance of the NF's own service: the same program with the same arguments, apart from
    /// `--instance-id` and `--core`, and with these after them. It is an NF like any other, and finds its parent's
    /// instance id in [`Setup::parent`](super::Setup::parent). When the NF leaves in order its children are told to
    /// leave (SIGTERM); when it crashes they live on. Returns the child's process id.
    ///
    /// # Errors
    /// [`ControlError::Replay`], [`ControlError::Child`].
    pub fn spawn_child<S: AsRef<std::ffi::OsStr>>(&self, extra: &[S]) -> Result<u32, ControlError> {
        let shared = self.shared()?;
        let extra: Vec<OsString> = extra.iter().map(|argument| argument.as_ref().to_os_string()).collect();
        let parent = shared.instance.load(Ordering::Relaxed);
        shared.children.start(&extra, parent).map_err(ControlError::Child)
    }
}

impl Shared {
    fn line(&self) -> MutexGuard<'_, Option<Line>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_has_nobody_to_talk_to() {
        let control = Control::of_replay();
        assert!(matches!(control.tell(Target::Service(1), "x", &1), Err(ControlError::Replay)));
        assert!(matches!(control.spawn_child::<&str>(&[]), Err(ControlError::Replay)));
    }

    #[test]
    fn without_a_manager_nothing_is_told() {
        let control = Control::live(Vec::new(), None);
        assert!(matches!(control.tell(Target::Instance(1), "x", &1), Err(ControlError::NoManager)));
        let no_json: std::collections::HashMap<[u8; 2], u8> = [([1, 2], 3)].into();
        assert!(matches!(control.tell(Target::Instance(1), "x", &no_json), Err(ControlError::Body { .. })));
    }
}
