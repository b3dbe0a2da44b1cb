//! State from an NF to its successor, as the manager asks for it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::Live;
use crate::protocol::Say;
use crate::runtime::{NetworkFunction, hand_over};

impl<N: NetworkFunction> Live<'_, N> {
    /// Hands over the state, and takes no more packets: it would have them, and its successor not.
    pub(super) fn hand_over(&mut self) {
        self.paused = true;
        let state = if N::STATE_VERSION > 0 { self.nf.hand_over() } else { None };
        let file = state.and_then(|state| {
            hand_over::write(N::NAME, N::STATE_VERSION, &state)
                .inspect_err(|error| log::error!("nothing is handed over: {error}"))
                .ok()
        });
        log::info!(
            "the manager says hand over: {}",
            if file.is_some() { "done" } else { "there is nothing" }
        );
        let files: Vec<BorrowedFd<'_>> = file.iter().map(AsFd::as_fd).collect();
        if let Err(error) = self.line.send(&Say::State, &files, true) {
            log::debug!("cannot hand over: {error}");
        }
    }

    /// Takes over the state of its predecessor.
    pub(super) fn take_over(&mut self, file: Option<OwnedFd>) {
        let outcome = match file {
            _ if N::STATE_VERSION == 0 => Err(format!("{} takes over no state", N::NAME)),
            None => Err("no state came".into()),
            Some(file) => hand_over::read(N::NAME, N::STATE_VERSION, file)
                .map_err(|error| error.to_string())
                .and_then(|state| self.nf.take_over(state)),
        };
        match &outcome {
            Ok(()) => log::info!("took over the predecessor's state"),
            Err(reason) => log::warn!("the predecessor's state is not taken over: {reason}"),
        }
        if let Err(error) = self.line.send(&Say::TookOver { error: outcome.err() }, &[], true) {
            log::debug!("cannot say what became of the state: {error}");
        }
    }
}
