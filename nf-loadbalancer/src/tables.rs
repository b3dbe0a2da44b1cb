//! Maglev tables are made beside the packets: of 65,537 entries one takes a millisecond, and more with many backends.
//!
//! The packets' thread says what is wanted and goes on with the table that it has, turning hashes that fall on someone
//! who is gone; what was made comes back by a channel. Over a capture, where all must come out the same each time,
//! tables are made on the spot.

use std::sync::mpsc::{Receiver, Sender, channel};

use crate::maglev::{Maglev, Member};

/// The number of no order.
pub(crate) const NO_ORDER: u64 = 0;

/// A table that is wanted.
#[derive(Debug)]
pub(crate) struct Order {
    /// Number of the order, by which the service knows its table: its place may be another one by then. An answer to
    /// an older order is of no use.
    pub(crate) number: u64,
    pub(crate) members: Vec<Member>,
    pub(crate) available: Vec<bool>,
    pub(crate) size: u32,
    /// The table of all members, if it is still right.
    pub(crate) base: Option<Maglev>,
}

/// A table that was made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) number: u64,
    pub(crate) members: Vec<Member>,
    pub(crate) base: Maglev,
    pub(crate) table: Maglev,
}

impl Order {
    pub(crate) fn make(self) -> Made {
        let base = self.base.unwrap_or_else(|| Maglev::new(&self.members, self.size));
        let table = base.without(&self.members, |n| self.available.get(n).copied().unwrap_or(false));
        Made { number: self.number, members: self.members, base, table }
    }
}

/// The thread beside, and what it has to know of.
#[derive(Debug)]
pub(crate) struct Tables {
    thread: Option<(Sender<Order>, Receiver<Made>)>,
    changed: bool,
    orders: u64,
    /// Tables under way.
    pending: u64,
}

impl Tables {
    /// Tables are made on the spot.
    pub(crate) fn here() -> Self {
        Self { thread: None, changed: false, orders: 0, pending: 0 }
    }

    /// Tables are made by a thread.
    pub(crate) fn beside() -> std::io::Result<Self> {
        let (to, orders) = channel::<Order>();
        let (made, from) = channel();
        std::thread::Builder::new().name("tables".into()).spawn(move || {
            onvm_lib::cpu::leave_pinned();
            while let Ok(order) = orders.recv() {
                if made.send(order.make()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { thread: Some((to, from)), ..Self::here() })
    }

    /// A backend came, went, or has another weight: tables are to be looked at.
    pub(crate) fn note_change(&mut self) {
        self.changed = true;
    }

    pub(crate) fn take_change(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub(crate) fn next_number(&mut self) -> u64 {
        self.orders += 1;
        self.orders
    }

    /// Orders a table; it comes at once where there is no thread.
    pub(crate) fn order(&mut self, order: Order) -> Option<Made> {
        match &self.thread {
            Some((to, _)) => {
                self.pending += u64::from(to.send(order).is_ok());
                None
            }
            None => Some(order.make()),
        }
    }

    /// A table that has come.
    #[inline]
    pub(crate) fn collect(&mut self) -> Option<Made> {
        if self.pending == 0 {
            return None;
        }
        let made = self.thread.as_ref()?.1.try_recv().ok()?;
        self.pending -= 1;
        Some(made)
    }
}
