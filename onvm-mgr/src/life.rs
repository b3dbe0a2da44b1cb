//! The states of an instance, and which may follow which.
//!
//! ```text
//! Starting ──set up──▶ Ready ──gets flows──▶ Running ⇄ Paused
//!     │                  │                      │        │
//!     │                  │                      ▼        │
//!     └──────────────────┴─────────────────▶ Draining ◀──┘
//!                                                 │  ▲
//!             a replacement that failed: Running ◀┘
//! any state ──the kernel says that its packet thread, or the process, is gone──▶ Gone
//! ```
//! | State | Means |
//! |---|---|
//! | Starting | it has attached and sets itself up: reads its rules, makes its tables |
//! | Ready | it has said that it follows its routes; it stands by, or waits for its share of the flows |
//! | Running | it owns flows |
//! | Paused | it owns flows and takes no packets; they wait |
//! | Draining | its flows are taken from it; it finishes what is inside, and leaves |
//! | Gone | it works no more, and others have its flows; its process ends |
//!
//! | Prohibited | Why |
//! |---|---|
//! | Starting to Running, Paused | who is not set up can own no flow |
//! | Ready to Paused | there is nothing that it could stop taking |
//! | Draining to Ready, Paused | it must work off what is inside |
//! | Gone to anything | an id is never used again |
//! | back to Starting; Running or Paused to Ready | a process attaches once; who stood by and took over stays |

use std::time::{Duration, Instant};

/// A state of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Starting,
    Ready,
    Running,
    Paused,
    Draining,
    Gone,
}

impl State {
    /// Its name in tables and events.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Gone => "gone",
        }
    }

    /// Whether `to` may follow.
    pub(crate) fn allows(self, to: Self) -> bool {
        use State::{Draining, Gone, Paused, Ready, Running, Starting};
        match (self, to) {
            (Gone, _) => false,
            (_, Gone) => true,
            (Starting, to) => matches!(to, Ready | Draining),
            (Ready, to) => matches!(to, Running | Draining),
            (Running, to) => matches!(to, Paused | Draining),
            (Paused, to) => matches!(to, Running | Draining),
            (Draining, to) => to == Running,
        }
    }
}

/// A step from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) from: State,
    pub(crate) to: State,
    /// How long the first had lasted.
    pub(crate) after: Duration,
}

/// A step that no instance may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prohibited {
    pub(crate) from: State,
    pub(crate) to: State,
}

impl std::fmt::Display for Prohibited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an instance that is {} cannot be {}", self.from.name(), self.to.name())
    }
}

/// The life of one instance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    state: State,
    since: Instant,
}

impl Life {
    /// It has attached.
    pub(crate) fn new() -> Self {
        Self { state: State::Starting, since: Instant::now() }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Takes a step.
    ///
    /// # Errors
    /// [`Prohibited`], and nothing has changed.
    pub(crate) fn go(&mut self, to: State) -> Result<Change, Prohibited> {
        let from = self.state;
        if !from.allows(to) {
            return Err(Prohibited { from, to });
        }
        let now = Instant::now();
        let after = now.duration_since(self.since);
        *self = Self { state: to, since: now };
        Ok(Change { from, to, after })
    }
}

#[cfg(test)]
mod tests {
    use super::State::{self, Draining, Gone, Paused, Ready, Running, Starting};
    use super::*;

    const ALL: [State; 6] = [Starting, Ready, Running, Paused, Draining, Gone];

    #[test]
    fn every_step_is_allowed_or_prohibited_as_drawn() {
        let drawn = [
            (Starting, Ready),
            (Starting, Draining),
            (Ready, Running),
            (Ready, Draining),
            (Running, Paused),
            (Paused, Running),
            (Running, Draining),
            (Paused, Draining),
            (Draining, Running),
        ];
        for from in ALL {
            for to in ALL {
                let expected = drawn.contains(&(from, to)) || to == Gone && from != Gone;
                assert_eq!(from.allows(to), expected, "{from:?} to {to:?}");
            }
        }
    }

    #[test]
    fn a_prohibited_step_changes_nothing() {
        let mut life = Life::new();
        let error = life.go(Paused).unwrap_err();
        assert_eq!(error.to_string(), "an instance that is starting cannot be paused");
        assert_eq!(life.state(), Starting);
        assert_eq!(life.go(Ready).map(|c| (c.from, c.to)), Ok((Starting, Ready)));
    }
}
