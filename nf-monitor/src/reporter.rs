//! Puts what reports show together beside the packets, on a thread of its own, from surveys (`survey.rs`).

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::ended::Ended;
use crate::flow::Keyed;
use crate::monitor::Monitor;
use crate::report::{From, Picked, TopSpreader, top_spreaders};
use crate::settings::Settings;

/// Flows, and hosts and keys of flows that are over, up to which a report is quicker made than a survey.
const FEW: usize = 2048;
/// Age at which what was picked is picked anew, where reports come less often than that.
const OLDEST: Duration = Duration::from_secs(1);

/// All that is needed of a monitor.
struct Survey {
    flows: Vec<Keyed>,
    ended: Arc<Ended>,
    spreaders: Vec<TopSpreader>,
}

/// The thread, and what it found last.
#[derive(Debug)]
pub(crate) struct Reporter {
    /// None once it is closed.
    surveys: Option<SyncSender<Survey>>,
    picked: Receiver<Picked>,
    thread: Option<JoinHandle<()>>,
    /// A survey is with the thread.
    reading: bool,
    /// When the survey that is under way began.
    began: Instant,
    latest: Option<(Picked, Instant)>,
    every: Duration,
}

impl Reporter {
    /// For reports that come so often.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(settings: Settings, interval: Duration) -> std::io::Result<Self> {
        let (surveys, from) = sync_channel::<Survey>(1);
        let (to, picked) = sync_channel(1);
        let thread = std::thread::Builder::new().name("reporter".into()).spawn(move || {
            onvm_lib::cpu::leave_pinned();
            for Survey { flows, ended, spreaders } in from {
                let all = || flows.iter().map(|known| (&known.key, &known.flow));
                let found = Picked::from(&From { settings: &settings, ended: &ended, flows: all }, spreaders);
                // The monitor may add to what is over from here on.
                drop(ended);
                if to.send(found).is_err() {
                    return;
                }
            }
        })?;
        let (began, every) = (Instant::now(), interval.min(OLDEST));
        let (surveys, thread) = (Some(surveys), Some(thread));
        Ok(Self { surveys, picked, thread, reading: false, began, latest: None, every })
    }

    /// Time has passed: perhaps a survey is due, or not worth its while.
    pub(crate) fn tick(&mut self, monitor: &mut Monitor) {
        self.step(monitor);
        let (ended, now) = (&monitor.table.ended, Instant::now());
        if monitor.table.len() + ended.hosts.len() + ended.talks.len() <= FEW {
            self.latest = None;
        } else if !self.reading
            && !monitor.table.is_surveyed()
            && (self.latest.is_none() || now.duration_since(self.began) >= self.every)
        {
            self.began = now;
            monitor.table.begin_survey();
        }
    }

    /// A part of a survey is done, perhaps the last.
    #[inline]
    pub(crate) fn step(&mut self, monitor: &mut Monitor) {
        if self.reading
            && let Ok(picked) = self.picked.try_recv()
        {
            self.reading = false;
            self.latest = Some((picked, self.began));
            monitor.table.ended.returned();
        }
        if let Some((flows, ended)) = monitor.table.surveyed()
            && let Some(surveys) = &self.surveys
        {
            let survey = Survey { flows, ended, spreaders: top_spreaders(monitor) };
            self.reading = surveys.try_send(survey).is_ok();
        }
    }

    /// What was picked last, and how long ago; none when there are so few flows that it is done at once.
    pub(crate) fn latest(&self) -> Option<(&Picked, Duration)> {
        self.latest.as_ref().map(|(picked, began)| (picked, began.elapsed()))
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.surveys = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
