//! The NF's ears: a thread that reads the control socket and one that hears signals.
//!
//! Neither touches packets. What they hear becomes an [`Event`] for the thread that does, and calls its
//! attention, so the packet path makes no system call to look for news.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::protocol::{Answer, Error, Line, Message, Route};
use crate::ring::bell::Attention;

/// Something that the packet thread must know of between two turns.
#[derive(Debug)]
pub(super) enum Event {
    Route(Route, Vec<OwnedFd>),
    Message(Message),
    Pause,
    Resume,
    Stop,
    Signal(i32),
    ManagerGone(Error),
}

/// What the packet thread looks at between two turns.
#[derive(Debug)]
pub(super) struct Ears {
    pub(super) events: Receiver<Event>,
    pub(super) attention: Arc<Attention>,
    /// Up as soon as the connection has ended, before the event is read.
    pub(super) manager_gone: Arc<AtomicBool>,
}

/// Starts both threads.
pub(super) fn listen(line: Line) -> std::io::Result<Ears> {
    let (sender, events) = channel();
    let attention = Arc::new(Attention::default());
    let manager_gone = Arc::new(AtomicBool::new(false));
    hear_signals(sender.clone(), Arc::clone(&attention))?;
    let (to_call, gone) = (Arc::clone(&attention), Arc::clone(&manager_gone));
    std::thread::Builder::new()
        .name("control".into())
        .spawn(move || hear_manager(line, &sender, &to_call, &gone))?;
    Ok(Ears { events, attention, manager_gone })
}

/// Turns SIGINT and SIGTERM into events.
fn hear_signals(sender: Sender<Event>, attention: Arc<Attention>) -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
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
    loop {
        let event = match line.receive::<Answer>(true) {
            Ok((Answer::Route(route), fds)) => Event::Route(route, fds),
            Ok((Answer::Message(message), _)) => Event::Message(message),
            Ok((Answer::Pause, _)) => Event::Pause,
            Ok((Answer::Resume, _)) => Event::Resume,
            Ok((Answer::Stop, _)) => Event::Stop,
            Ok((other, _)) => {
                log::debug!("the manager said something out of turn: {other:?}");
                continue;
            }
            Err(Error::Garbled { reason }) => {
                log::warn!("message from the manager is not understood: {reason}");
                continue;
            }
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
