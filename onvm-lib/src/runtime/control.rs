//! The NF's ears: a thread that reads the control socket and one that hears signals.
//!
//! Neither touches packets. What they hear becomes an [`Event`] for the thread that does, and calls its
//! attention, so the packet path makes no system call to look for news.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::protocol::{Answer, Error, Line, Message, PARENT, Route, START_TOKEN};
use crate::ring::bell::Attention;

/// Something that the packet thread must know of between two turns.
#[derive(Debug)]
pub(super) enum Event {
    Route(Route, Vec<OwnedFd>),
    Message(Message),
    Pause,
    Resume,
    HandOver,
    /// The predecessor's state, if a file came.
    TakeOver(Option<OwnedFd>),
    Stop,
    /// The manager wants to have nothing more to do with this NF.
    Refused(String),
    Signal(i32),
    ManagerGone(Error),
}

/// What the packet thread looks at between two turns.
#[derive(Debug)]
pub(super) struct Ears {
    pub(super) events: Receiver<Event>,
    sender: Sender<Event>,
    pub(super) attention: Arc<Attention>,
    /// Up as soon as the connection has ended, before the event is read.
    pub(super) manager_gone: Arc<AtomicBool>,
}

impl Ears {
    /// Starts to listen to signals.
    pub(super) fn new() -> std::io::Result<Self> {
        let (sender, events) = channel();
        let attention = Arc::new(Attention::default());
        hear_signals(sender.clone(), Arc::clone(&attention))?;
        Ok(Self { events, sender, attention, manager_gone: Arc::default() })
    }

    /// Listens to a manager, until it is gone. Only one at a time: the one before must have ended.
    pub(super) fn listen(&mut self, line: Line) -> std::io::Result<()> {
        let gone = Arc::new(AtomicBool::new(false));
        self.manager_gone = Arc::clone(&gone);
        let (sender, attention) = (self.sender.clone(), Arc::clone(&self.attention));
        std::thread::Builder::new()
            .name("control".into())
            .spawn(move || hear_manager(line, &sender, &attention, &gone))?;
        Ok(())
    }
}

/// Turns SIGINT and SIGTERM into events.
fn hear_signals(sender: Sender<Event>, attention: Arc<Attention>) -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    if std::env::var_os(START_TOKEN).is_some() || std::env::var_os(PARENT).is_some() {
        // If it is stopped when the manager dies, the kernel hangs up on it (setpgid(2)): it is to wait for the next one.
        signal_hook::flag::register(SIGHUP, Arc::default())?;
    }
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if sender.send(Event::Signal(signal)).is_err() {
                return;
            }
            attention.call();
        }
    })?;
    Ok(())
}

fn hear_manager(mut line: Line, sender: &Sender<Event>, attention: &Attention, gone: &AtomicBool) {
    let mut reset = false;
    loop {
        let event = match line.receive::<Answer>(true) {
            Ok((Answer::Route(route), fds)) => Event::Route(route, fds),
            Ok((Answer::Message(message), _)) => Event::Message(message),
            Ok((Answer::Pause, _)) => Event::Pause,
            Ok((Answer::Resume, _)) => Event::Resume,
            Ok((Answer::HandOver, _)) => Event::HandOver,
            Ok((Answer::TakeOver, fds)) => Event::TakeOver(fds.into_iter().next()),
            Ok((Answer::Stop, _)) => Event::Stop,
            Ok((Answer::Refused { reason }, _)) => Event::Refused(reason),
            Ok((other, _)) => {
                log::debug!("the manager said something out of turn: {other:?}");
                continue;
            }
            Err(Error::Garbled { reason }) => {
                log::warn!("message from the manager is not understood: {reason}");
                continue;
            }
            // A reset overtakes what was said before it: a stop, perhaps.
            Err(Error::Closed) if !std::mem::replace(&mut reset, true) => continue,
            Err(error) => Event::ManagerGone(error),
        };
        let last = matches!(event, Event::ManagerGone(_));
        gone.store(last, Ordering::Relaxed);
        if sender.send(event).is_err() {
            return;
        }
        attention.call();
        if last {
            return;
        }
    }
}
