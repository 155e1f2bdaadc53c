//! Wakers that are called once a lock is released.
//!
//! A waker is foreign code: it may panic, free memory of the same arena, or drop its task. A task
//! that is dropped ends its own wait, which wakes the next task, and so on. So a panic is kept
//! until every other waker was called. And wakers of wakers nest a few levels deep only: deeper
//! ones are called when the outermost call returns to this file.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::Waker;

use crate::sync::{drop_panic, thread_local};

/// The number of lists that run inside one another on one thread before the next is put off.
const NESTED_MAX: usize = 8;

thread_local! {
    /// The number of lists that run on this thread now.
    #[allow(clippy::missing_const_for_thread_local)] // loom's have no constants
    static DEPTH: Cell<usize> = Cell::new(0);
    /// The wakers of lists that were put off.
    #[allow(clippy::missing_const_for_thread_local)] // as above
    static PUT_OFF: RefCell<VecDeque<Entry>> = RefCell::new(VecDeque::new());
}

/// A list of wakers to call, or to drop, once a lock is released.
#[derive(Default)]
pub(crate) struct WakeList {
    first: Option<Entry>,
    others: Vec<Entry>,
}

/// A waker, with what is to be done with it.
enum Entry {
    Woken(Waker),
    Unneeded(Waker),
}

/// The first panic of foreign code, kept until everything else is done.
#[derive(Default)]
pub(crate) struct Panicked(Option<Box<dyn Any + Send>>);

impl WakeList {
    /// Adds a waker that is to be called.
    pub(crate) fn push_woken(&mut self, waker: Option<Waker>) {
        self.push(waker.map(Entry::Woken));
    }

    /// Adds a waker that is to be dropped: the last waker of a task may take the task with it.
    pub(crate) fn push_unneeded(&mut self, waker: Option<Waker>) {
        self.push(waker.map(Entry::Unneeded));
    }

    fn push(&mut self, entry: Option<Entry>) {
        match self.first {
            None => self.first = entry,
            Some(_) => self.others.extend(entry),
        }
    }

    /// Calls all wakers, or puts that off if many lists run on this thread already.
    ///
    /// The caller holds no lock. `panicked` keeps the first panic of a waker.
    pub(crate) fn run(self, panicked: &mut Panicked) {
        let entries = self.first.into_iter().chain(self.others);
        // A thread that ends has no more locals, and nests as it may.
        let depth = DEPTH.try_with(|depth| depth.replace(depth.get() + 1)).unwrap_or(0);
        if depth >= NESTED_MAX {
            let _ = PUT_OFF.try_with(|put_off| put_off.borrow_mut().extend(entries));
        } else {
            entries.for_each(|entry| panicked.catch(|| entry.run()));
        }
        if depth == 0 {
            while let Ok(Some(entry)) = PUT_OFF.try_with(|put_off| put_off.borrow_mut().pop_front())
            {
                panicked.catch(|| entry.run());
            }
        }
        let _ = DEPTH.try_with(|now| now.set(depth));
    }
}

impl Entry {
    fn run(self) {
        match self {
            Entry::Woken(waker) => waker.wake(),
            Entry::Unneeded(waker) => drop(waker),
        }
    }
}

impl Panicked {
    /// Calls foreign code, and keeps its panic unless there is one already.
    pub(crate) fn catch(&mut self, call: impl FnOnce()) {
        // The caller goes on only with what it owns itself.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(call)) {
            match self.0 {
                None => self.0 = Some(panic),
                Some(_) => drop_panic(panic),
            }
        }
    }

    /// Returns `true` if there was a panic.
    #[cfg(feature = "async-alloc")]
    pub(crate) fn is_any(&self) -> bool {
        self.0.is_some()
    }

    /// Lets the panic go on, unless the thread panics already.
    pub(crate) fn resume(self) {
        match self.0 {
            Some(panic) if !std::thread::panicking() => resume_unwind(panic),
            Some(panic) => drop_panic(panic),
            None => {}
        }
    }
}
