//! The events of the control thread, and who handles which.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use onvm_lib::protocol::{Answer, Error, InstanceId, Line, PROTOCOL_VERSION, Request, Say};
use rustix::event::epoll;
use rustix::event::{EventfdFlags, eventfd};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};

use super::Server;
use super::phase::Phase;

pub(super) const LISTENER: u64 = 0;
const NEWS: u64 = 1;
const SIGNALS: u64 = 2;
const CHILDREN: u64 = 3;
pub(super) const FIRST_PEER: u64 = 16;
/// Set in the token of an instance's pidfd; the rest is the instance id.
pub(super) const DEATH: u64 = 1 << 63;

/// Most connections that are not those of NFs.
const MOST_STRANGERS: usize = 128;
/// Messages of one peer that are read before the others are looked at.
const MOST_MESSAGES: usize = 32;

/// A connection.
pub(super) struct Peer {
    pub(super) line: Line,
    /// The instance, once it has been welcomed.
    pub(super) instance: Option<InstanceId>,
    /// It is of our own user, or of root: it may have programs started.
    pub(super) trusted: bool,
    /// It has asked something and has no answer yet.
    pub(super) asking: bool,
}

pub(super) fn watch(epoll: &OwnedFd, fd: BorrowedFd<'_>, token: u64) -> std::io::Result<()> {
    epoll::add(epoll, fd, epoll::EventData::new_u64(token), epoll::EventFlags::IN)?;
    Ok(())
}

/// The bell that the worker rings when there is news: edge-triggered, never read.
pub(super) fn news_bell(epoll: &OwnedFd) -> std::io::Result<impl Fn() + Send + Sync + use<>> {
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(epoll, &bell, epoll::EventData::new_u64(NEWS), flags)?;
    Ok(move || {
        let _ = rustix::io::write(&bell, &1u64.to_ne_bytes());
    })
}

/// A stream that becomes readable at SIGINT and SIGTERM.
pub(super) fn signals(epoll: &OwnedFd) -> std::io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    for signal in [SIGINT, SIGTERM] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    watch(epoll, read.as_fd(), SIGNALS)?;
    Ok(read)
}

/// A stream that becomes readable when a child has ended.
pub(super) fn children(epoll: &OwnedFd) -> std::io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(SIGCHLD, write)?;
    watch(epoll, read.as_fd(), CHILDREN)?;
    Ok(read)
}

/// What a peer said, in the word that stands for it on the line.
fn word(say: &Say) -> &'static str {
    match say {
        Say::Hello(_) => "hello",
        Say::Routed { .. } => "routed",
        Say::Report { .. } => "report",
        Say::Tell { .. } => "tell",
        Say::State => "state",
        Say::TookOver { .. } => "took-over",
        Say::Leaving => "leaving",
        Say::Ask { .. } => "ask",
    }
}

impl Server {
    pub(super) fn handle(&mut self, token: u64) {
        match token {
            LISTENER => self.accept(),
            NEWS => self.hear_worker(),
            SIGNALS => self.hear_signal(),
            CHILDREN => self.hear_children(),
            token if token & DEATH != 0 => {
                self.process_ended(u32::try_from(token & !DEATH).unwrap_or(0));
            }
            token => self.hear_peer(token),
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let line = match listener.accept() {
            Ok(line) => line,
            Err(error) => {
                log::warn!("cannot take a connection: {error}");
                // Out of descriptors, most likely: the connection stays in line, and asking at once would spin.
                std::thread::sleep(std::time::Duration::from_millis(10));
                return;
            }
        };
        let trusted = match self.admit(&line) {
            Ok(trusted) => trusted,
            Err(reason) => {
                let _ = line.send(&Answer::Refused { reason }, &[], false);
                return;
            }
        };
        let strangers = self.peers.values().filter(|p| p.instance.is_none()).count();
        if strangers >= MOST_STRANGERS && !self.make_room() {
            let reason = format!("the manager has {MOST_STRANGERS} connections of clients: try again later");
            let _ = line.send(&Answer::Refused { reason }, &[], false);
            return;
        }
        let token = self.next_token;
        self.next_token += 1;
        if let Err(error) = watch(&self.epoll, line.as_fd(), token) {
            log::warn!("cannot watch a connection: {error}");
            return;
        }
        self.peers.insert(token, Peer { line, instance: None, trusted, asking: false });
    }

    /// Hangs up on the oldest of those who have asked nothing, or have their answer; whether there was one.
    fn make_room(&mut self) -> bool {
        let idle =
            |token: &u64, p: &Peer| p.instance.is_none() && !p.asking && !self.followers.contains_key(token);
        let oldest = self.peers.iter().filter(|(token, p)| idle(token, p)).map(|(token, _)| *token).min();
        if let Some(token) = oldest {
            self.refuse(token, "others want to ask something, and there are too many connections");
        }
        oldest.is_some()
    }

    /// Whether this user may speak to us, and whether it is trusted like our own.
    fn admit(&self, line: &Line) -> Result<bool, String> {
        let peer = line.peer().map_err(|e| e.to_string())?;
        let ours = rustix::process::geteuid().as_raw();
        let trusted = peer.uid == ours || peer.uid == 0;
        if self.options.any_user || trusted {
            return Ok(trusted);
        }
        Err(format!("user {} may not attach to the manager of user {ours} (see --socket-mode)", peer.uid))
    }

    fn hear_signal(&mut self) {
        let mut bytes = [0; 16];
        let n = self.signals.read(&mut bytes).unwrap_or(0);
        for _ in 0..n {
            if matches!(self.phase, Phase::Waiting | Phase::Running) {
                log::info!("signal: draining; a second one stops at once");
                self.drain();
            } else {
                self.stop_nfs();
            }
        }
    }

    fn hear_children(&mut self) {
        let mut bytes = [0; 64];
        while matches!(self.children.read(&mut bytes), Ok(1..)) {}
        self.reap_children();
        let _ = self.start_missing(std::time::Instant::now());
    }

    /// Reads what a peer has said, up to a limit, so that one who never stops talking keeps nobody waiting.
    fn hear_peer(&mut self, token: u64) {
        for _ in 0..MOST_MESSAGES {
            let Some(peer) = self.peers.get_mut(&token) else { return };
            match peer.line.receive::<Say>(false) {
                Ok((say, fds)) => self.heed(token, say, fds),
                Err(Error::WouldBlock) => return,
                Err(Error::Closed) => return self.hang_up(token),
                Err(error) => {
                    self.refuse(token, &error.to_string());
                    return;
                }
            }
        }
    }

    fn heed(&mut self, token: u64, say: Say, fds: Vec<OwnedFd>) {
        let instance = self.peers.get(&token).and_then(|p| p.instance);
        match (say, instance) {
            (Say::Hello(hello), None) => self.welcome(token, hello),
            (Say::Ask { version, request }, None) if version == PROTOCOL_VERSION => {
                self.asked(token, request, fds);
            }
            (Say::Ask { version, .. }, None) => self.refuse(
                token,
                &format!("this manager speaks protocol version {PROTOCOL_VERSION}, the client {version}: use programs of one release"),
            ),
            (Say::Routed { version }, Some(id)) => self.routed(id, version),
            (Say::Report { report }, Some(id)) => {
                if let Some(instance) = self.instances.get_mut(&id) {
                    instance.report = Some(report);
                }
            }
            (Say::Tell { target, topic, body }, Some(id)) => {
                self.pass_message(Some(id), target, topic, body);
            }
            (Say::State, Some(id)) => self.state_came(id, fds.into_iter().next()),
            (Say::TookOver { error }, Some(id)) => self.took_over(id, error),
            (Say::Leaving, Some(id)) => {
                if let Some(instance) = self.instances.get_mut(&id) {
                    instance.leaving = true;
                }
            }
            (say, _) => {
                log::warn!("a peer spoke out of turn: {say:?}");
                self.refuse(token, &format!("{:?} was not expected here", word(&say)));
            }
        }
    }

    /// A client asks; it may ask again when it has its answer.
    fn asked(&mut self, token: u64, request: Request, files: Vec<OwnedFd>) {
        let Some(peer) = self.peers.get_mut(&token) else { return };
        if std::mem::replace(&mut peer.asking, true) {
            return self.refuse(token, "one question at a time: wait for the answer");
        }
        self.answer(token, request, files);
    }

    /// Says why, and ends the connection.
    pub(super) fn refuse(&mut self, token: u64, reason: &str) {
        if let Some(peer) = self.peers.get(&token) {
            let _ = peer.line.send(&Answer::Refused { reason: reason.to_string() }, &[], false);
            if let Some(instance) = peer.instance.and_then(|id| self.instances.get_mut(&id)) {
                let expelled = format!("it was hung up on for what it said: {reason}");
                instance.fault = Some(super::instances::Fault::Expelled(expelled));
            }
        }
        self.hang_up(token);
    }

    /// A connection ends. An instance is gone only when its process is.
    pub(super) fn hang_up(&mut self, token: u64) {
        let Some(peer) = self.peers.remove(&token) else { return };
        self.followers.remove(&token);
        let _ = epoll::delete(&self.epoll, &peer.line);
        peer.line.shut_down();
        if let Some(id) = peer.instance {
            self.line_ended(id);
        }
    }
}
