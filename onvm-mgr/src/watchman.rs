//! Watches over the threads of NFs that have packets in their hands, and tells of their deaths.
//!
//! The kernel says that a *process* has died when it has taken its memory apart, which takes the longer the more of the
//! pool the process has touched. That its *thread* has died it says before, by a futex in the NF's page
//! (`onvm_lib::node::vital`). A futex cannot be waited for together with descriptors, hence these threads: each sleeps in
//! `futex_waitv(2)` over the words of up to [`GROUP`] NFs. Those who have a successor are looked at by the worker instead
//! (`worker/succession.rs`). Kernels before 5.16 have no such call; there deaths show by the end of the process alone, as they do
//! for an NF that writes its word again and again to keep a thread busy.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use onvm_lib::node::{NodePage, Vital, vital};
use onvm_lib::protocol::InstanceId;
use rustix::io::Errno;
use rustix::thread::ClockId;
use rustix::thread::futex::{Flags, Wait, WaitFlags, WaitPtr, WaitvFlags, waitv, wake};

use crate::worker::News;

/// NFs that a thread watches over: the kernel takes 128 words at a time, one is our own.
const GROUP: usize = 127;
/// Changes of a word that are looked at: once it is registered, once it is taken back, and some to spare.
const MOST_CHANGES: u32 = 8;
/// When it is tried again after the kernel had no memory for it.
const AGAIN: Duration = Duration::from_millis(100);

/// An NF that is watched.
struct Watched {
    page: NodePage,
    /// The value last seen, and how often that was a new one.
    seen: u32,
    changes: u32,
}

/// What a thread watches.
#[derive(Default)]
struct Group {
    watched: Mutex<BTreeMap<InstanceId, Watched>>,
    /// Goes up when that changes.
    call: AtomicU32,
}

impl Group {
    fn change(&self, change: impl FnOnce(&mut BTreeMap<InstanceId, Watched>)) {
        change(&mut self.watched.lock().unwrap_or_else(PoisonError::into_inner));
        self.call.fetch_add(1, Ordering::Release);
        // Of the kind that the words of NFs are, which other processes share.
        let _ = wake(&self.call, Flags::empty(), 1);
    }

    fn len(&self) -> usize {
        self.watched.lock().map_or(GROUP, |watched| watched.len())
    }

    /// Takes the dead out; what is to be waited for, and the pages that must stay for that.
    fn look(&self, dead: &mut Vec<InstanceId>) -> (Vec<Wait>, Vec<NodePage>) {
        let mut waits = vec![on(&self.call, self.call.load(Ordering::Acquire))];
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|id, w| {
            let now = w.page.life().load(Ordering::Acquire);
            if now != w.seen {
                (w.seen, w.changes) = (now, w.changes + 1);
            }
            if vital(now) == Vital::Died {
                dead.push(*id);
                return false;
            }
            w.changes <= MOST_CHANGES
        });
        waits.extend(watched.values().map(|w| on(w.page.life(), w.seen)));
        (waits, watched.values().map(|w| w.page.clone()).collect())
    }
}

/// A wait for a word to change.
fn on(word: &AtomicU32, value: u32) -> Wait {
    let mut wait = Wait::new();
    wait.val = u64::from(value);
    wait.uaddr = WaitPtr::new(word.as_ptr().cast());
    wait.flags = WaitFlags::SIZE_U32;
    wait
}

/// Those who watch.
pub(crate) struct Watchman {
    groups: Vec<Arc<Group>>,
    news: Sender<News>,
    bell: Arc<dyn Fn() + Send + Sync>,
}

impl Watchman {
    /// `bell` is called whenever there is news.
    pub(crate) fn new(news: Sender<News>, bell: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { groups: Vec::new(), news, bell }
    }

    /// Watches over an NF until it dies.
    pub(crate) fn watch(&mut self, id: InstanceId, page: NodePage) {
        let group = match self.groups.iter().find(|group| group.len() < GROUP) {
            Some(group) => Arc::clone(group),
            None => match self.start_group() {
                Ok(group) => group,
                Err(error) => return log::warn!("nobody watches over instance {id}: {error}"),
            },
        };
        group.change(|watched| {
            watched.insert(id, Watched { seen: 0, changes: 0, page });
        });
    }

    /// Forgets an NF.
    pub(crate) fn forget(&self, id: InstanceId) {
        let knows = |group: &&Arc<Group>| group.watched.lock().is_ok_and(|w| w.contains_key(&id));
        if let Some(group) = self.groups.iter().find(knows) {
            group.change(|watched| {
                watched.remove(&id);
            });
        }
    }

    fn start_group(&mut self) -> std::io::Result<Arc<Group>> {
        let group = Arc::new(Group::default());
        let (theirs, news, bell) = (Arc::clone(&group), self.news.clone(), Arc::clone(&self.bell));
        std::thread::Builder::new()
            .name("watchman".into())
            .spawn(move || keep_watch(&theirs, &news, bell.as_ref()))?;
        self.groups.push(Arc::clone(&group));
        Ok(group)
    }
}

/// Watches until nobody listens, or the kernel does not help.
fn keep_watch(group: &Group, news: &Sender<News>, bell: &(dyn Fn() + Send + Sync)) {
    let mut dead = Vec::new();
    loop {
        let (waits, pages) = group.look(&mut dead);
        for instance in dead.drain(..) {
            if news.send(News::Died { instance }).is_err() {
                return;
            }
            bell();
        }
        match waitv(&waits, WaitvFlags::empty(), None, ClockId::Monotonic) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error @ (Errno::NOSYS | Errno::PERM)) => {
                return log::debug!("deaths show by the end of processes alone: {error}");
            }
            Err(error) => {
                log::warn!("cannot watch over NFs now: {error}");
                std::thread::sleep(AGAIN);
            }
        }
        drop(pages);
    }
}
