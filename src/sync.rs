//! The only way to atomics, locks and the numbers of threads; and the way to run code of the user's
//! in the middle of ours.
//!
//! An ordinary build gets the types of the standard library. A build with `--cfg uring_arena_loom`
//! gets those of loom, so that the models check the code that ships. A test reads the sources for
//! code that goes around this file.

#[cfg(uring_arena_lines)]
pub(crate) mod counted;

#[cfg(not(uring_arena_loom))]
mod inner {
    #[cfg(uring_arena_lines)]
    pub(crate) use super::counted::{
        AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    #[cfg(not(uring_arena_lines))]
    pub(crate) use std::sync::atomic::{
        AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };

    pub(crate) use std::sync::Arc;
    pub(crate) use std::thread_local;

    use std::cell::Cell;
    use std::sync::{MutexGuard, PoisonError};

    /// A lock whose holders never panic half-way: poison means nothing.
    pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) const fn new(value: T) -> Mutex<T> {
            Mutex(std::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// The number of threads seen so far. It only hands out numbers, and publishes nothing.
    static THREADS: AtomicUsize = AtomicUsize::new(0);

    thread_local! {
        static INDEX: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    /// Returns a small number of this thread's own, which spreads threads over words.
    #[inline]
    pub(crate) fn thread_index() -> usize {
        // During thread exit the local may be gone already; any number will do then.
        INDEX
            .try_with(|index| match index.get() {
                usize::MAX => first_thread_index(index),
                known => known,
            })
            .unwrap_or(0)
    }

    /// Returns the number of this thread, which no other thread ever has. Returns `None` when the
    /// thread ends.
    #[inline]
    pub(crate) fn own_thread_number() -> Option<usize> {
        let number = |index: &Cell<usize>| match index.get() {
            usize::MAX => first_thread_index(index),
            known => known,
        };
        INDEX.try_with(number).ok()
    }

    #[cold]
    fn first_thread_index(index: &Cell<usize>) -> usize {
        let new = THREADS.fetch_add(1, Ordering::Relaxed);
        index.set(new);
        new
    }
}

#[cfg(uring_arena_loom)]
mod inner {
    pub(crate) use loom::sync::atomic::{
        AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };

    pub(crate) use loom::thread_local;

    // No race of ours depends on an `Arc`, and loom's has no raw counts.
    pub(crate) use std::sync::Arc;

    use std::cell::Cell;

    use loom::sync::MutexGuard;

    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Mutex<T> {
            Mutex(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("no holder panics")
        }
    }

    loom::thread_local! {
        static INDEX: Cell<usize> = Cell::new(0);
    }

    /// Returns the number of this thread. A model sets it to choose the word to start at.
    pub(crate) fn thread_index() -> usize {
        INDEX.with(Cell::get)
    }

    /// Returns the number of this thread of a model, which has set one for each.
    pub(crate) fn own_thread_number() -> Option<usize> {
        Some(thread_index())
    }

    /// Sets the number that [`thread_index`] returns on this thread of a model.
    #[cfg(test)]
    pub(crate) fn set_thread_index(new: usize) {
        INDEX.with(|index| index.set(new));
    }
}

pub(crate) use inner::*;

/// Runs code of the user's, such as a waker or the drop of a payload, whose panic is to harm nobody
/// else. Returns `false` if the code panicked.
///
/// The panic ends here, with an error in the log. No lock and no cell of ours is held meanwhile.
#[cfg(not(uring_arena_loom))]
pub(crate) fn contain(what: &'static str, code: impl FnOnce()) -> bool {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(code));
    result.map_err(|panic| report(what, panic)).is_ok()
}

/// Runs the code of a model, whose panics are the model's failures.
#[cfg(uring_arena_loom)]
pub(crate) fn contain(_: &'static str, code: impl FnOnce()) -> bool {
    code();
    true
}

#[cfg(not(uring_arena_loom))]
#[cold]
fn report(what: &'static str, panic: Box<dyn std::any::Any + Send>) {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "a panic without a text",
    };
    // It may be the log that panics.
    let tell = || tracing::error!(panic = text, "{what} panicked: nothing else is harmed");
    if let Err(next) = std::panic::catch_unwind(tell) {
        drop_panic(next);
    }
    drop_panic(panic);
}

/// Drops what a panic carries. If that panics too, the second panic ends here, and what it carries
/// is leaked.
pub(crate) fn drop_panic(panic: Box<dyn std::any::Any + Send>) {
    let drop_it = std::panic::AssertUnwindSafe(|| drop(panic));
    if let Err(next) = std::panic::catch_unwind(drop_it) {
        std::mem::forget(next);
    }
}

/// A limit on events of one kind in the log: one a second.
pub(crate) struct EventLimit(AtomicU64);

/// The time between two events of one kind.
const EVENT_EVERY_MS: u64 = 1000;

impl EventLimit {
    pub(crate) fn new() -> EventLimit {
        EventLimit(AtomicU64::new(0))
    }

    /// Returns `true` if an event may be written now: it then counts as written.
    pub(crate) fn is_due(&self) -> bool {
        let now_ms = process_clock_ms();
        // Relaxed: it only limits a number.
        let told_ms = self.0.load(Ordering::Relaxed);
        if told_ms != 0 && now_ms < told_ms + EVENT_EVERY_MS {
            return false;
        }
        self.0.compare_exchange(told_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Returns the milliseconds since a fixed moment of this process, never zero.
pub(crate) fn process_clock_ms() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;

    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64 + 1
}
