//! The one place that switches the model checker on: `RUSTFLAGS="--cfg loom"` replaces the atomics.

#[cfg(not(loom))]
pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub(super) use loom::sync::atomic::{Ordering, fence};

#[cfg(loom)]
pub(super) use mortal::{AtomicU32, AtomicU64};

/// The checker's atomics, and a life for each thread that can end before any of its stores.
///
/// Loads leave no trace, so a thread that dies before each store in turn, and after the last, has died at every
/// instruction as far as others can see.
#[cfg(loom)]
pub(super) mod mortal {
    use std::cell::Cell;
    use std::panic::resume_unwind;

    use loom::sync::atomic::Ordering;

    loom::thread_local! {
        /// Stores that this thread may still make; threads are immortal until told otherwise.
        static LIFE: Cell<u32> = Cell::new(u32::MAX);
    }

    struct Dead;

    /// Runs `work` in the calling thread until it ends or is about to make its store number `stores` (from 0).
    /// Returns none if it died.
    #[cfg(test)]
    pub(in crate::ring) fn live<T>(stores: u32, work: impl FnOnce() -> T) -> Option<T> {
        use std::panic::{AssertUnwindSafe, catch_unwind};
        LIFE.with(|life| life.set(stores));
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(value) => Some(value),
            Err(cause) if cause.is::<Dead>() => None,
            Err(cause) => resume_unwind(cause),
        }
    }

    /// Called before every store.
    pub(in crate::ring) fn age() {
        LIFE.with(|life| match life.get() {
            u32::MAX => {}
            0 => resume_unwind(Box::new(Dead)),
            left => life.set(left - 1),
        });
    }

    macro_rules! mortal_atomic {
        ($name:ident, $value:ty) => {
            #[derive(Debug)]
            pub(in crate::ring) struct $name(loom::sync::atomic::$name);

            impl $name {
                pub(in crate::ring) fn new(value: $value) -> Self {
                    Self(loom::sync::atomic::$name::new(value))
                }

                pub(in crate::ring) fn load(&self, order: Ordering) -> $value {
                    self.0.load(order)
                }

                pub(in crate::ring) fn store(&self, value: $value, order: Ordering) {
                    age();
                    self.0.store(value, order);
                }
            }
        };
    }

    mortal_atomic!(AtomicU32, u32);
    mortal_atomic!(AtomicU64, u64);

    impl AtomicU32 {
        pub(in crate::ring) fn swap(&self, value: u32, order: Ordering) -> u32 {
            age();
            self.0.swap(value, order)
        }
    }
}
