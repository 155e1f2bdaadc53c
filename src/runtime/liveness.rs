//! The life of a runtime that borrows slots: how it is known, and what is on loan meanwhile.
//!
//! A runtime gives no notice of its end. A runtime of monoio or compio certainly exists while a
//! `block_on` of ours borrows it. A runtime of compio or tokio-uring drops its tasks first, before
//! its ring and before the buffers of abandoned operations. So the drop of a task that never
//! finishes, the guard task, is the notice.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::thread::LocalKey;
#[cfg(any(feature = "tokio-uring", feature = "compio"))]
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use crate::sync::contain;

/// A stretch of a runtime's life during which the runtime certainly exists.
///
/// | a buffer that the runtime drops | belongs to |
/// |---|---|
/// | while the stretch lasts | the program: a live runtime drops a buffer after its completion |
/// | after [`end`](Self::end) | the kernel, maybe: a runtime that ends waits for no completion |
#[derive(Debug)]
pub(super) struct RuntimeLiveness {
    alive: Cell<bool>,
    /// Buffers that the kernel may be using.
    open_loans: Cell<usize>,
    /// The tasks that wait for the last of them.
    draining: RefCell<Vec<Waker>>,
}

impl RuntimeLiveness {
    pub(super) fn new() -> Rc<RuntimeLiveness> {
        Rc::new(RuntimeLiveness {
            alive: Cell::new(true),
            open_loans: Cell::new(0),
            draining: RefCell::default(),
        })
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive.get()
    }

    /// Ends the stretch: from here on nothing is certain.
    pub(super) fn end(&self) {
        self.alive.set(false);
    }

    /// Counts a buffer that the kernel may use, until the value is dropped.
    #[inline]
    pub(super) fn begin_loan(self: Rc<Self>) -> LoanCount {
        let mut count = LoanCount::new(self);
        count.begin();
        count
    }

    #[inline]
    fn end_loan(&self) {
        self.open_loans.set(self.open_loans.get() - 1);
        if self.open_loans.get() == 0 && !self.draining.borrow().is_empty() {
            // Taken first: a waker may run anything.
            let draining = self.draining.take();
            for waker in draining {
                contain("the waker of a drain", || waker.wake());
            }
        }
    }

    /// Waits until the kernel uses no buffer.
    #[cfg(any(feature = "tokio-uring", feature = "compio"))]
    pub(super) fn poll_drained(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.open_loans.get() == 0 {
            return Poll::Ready(());
        }
        let waker = context.waker();
        if !self.draining.borrow().iter().any(|known| known.will_wake(waker)) {
            // Cloned with no cell borrowed: a waker may run anything.
            let new = waker.clone();
            self.draining.borrow_mut().push(new);
        }
        Poll::Pending
    }
}

/// A buffer that the kernel may use from `begin` to the drop, in the count of its runtime.
#[derive(Debug)]
pub(super) struct LoanCount {
    liveness: Rc<RuntimeLiveness>,
    is_open: bool,
}

impl LoanCount {
    /// Makes a count that has not begun.
    pub(super) fn new(liveness: Rc<RuntimeLiveness>) -> LoanCount {
        LoanCount { liveness, is_open: false }
    }

    /// Counts the buffer, once.
    #[inline]
    pub(super) fn begin(&mut self) {
        if !std::mem::replace(&mut self.is_open, true) {
            self.liveness.open_loans.set(self.liveness.open_loans.get() + 1);
        }
    }

    /// Returns `true` if the kernel may use the buffer.
    #[cfg(feature = "compio")]
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Returns `true` if the runtime certainly exists.
    pub(super) fn is_alive(&self) -> bool {
        self.liveness.is_alive()
    }
}

impl Drop for LoanCount {
    #[inline]
    fn drop(&mut self) {
        if self.is_open {
            self.liveness.end_loan();
        }
    }
}

/// A call of our `block_on`, which keeps its runtime alive by borrowing it.
#[cfg(any(feature = "compio", feature = "monoio"))]
pub(super) struct BlockOn {
    pub(super) liveness: Rc<RuntimeLiveness>,
    /// The address of the runtime: to be compared only.
    #[cfg_attr(not(feature = "compio"), allow(dead_code, reason = "monoio shows no address"))]
    pub(super) runtime: *const (),
}

/// The innermost `block_on` of a thread, for one kind of runtime.
#[cfg(any(feature = "compio", feature = "monoio"))]
pub(super) type CurrentBlockOn = RefCell<Option<BlockOn>>;

/// Runs `run`, during which the caller's borrow keeps `runtime` alive.
#[cfg(any(feature = "compio", feature = "monoio"))]
pub(super) fn block_on<T>(
    current: &'static LocalKey<CurrentBlockOn>,
    runtime: *const (),
    run: impl FnOnce() -> T,
) -> T {
    /// A guard that ends the liveness, however `block_on` is left.
    struct Scope {
        current: &'static LocalKey<CurrentBlockOn>,
        liveness: Rc<RuntimeLiveness>,
        outer: Option<BlockOn>,
    }

    impl Drop for Scope {
        fn drop(&mut self) {
            self.liveness.end();
            self.current.set(self.outer.take());
        }
    }

    let liveness = RuntimeLiveness::new();
    let outer = current.replace(Some(BlockOn { liveness: Rc::clone(&liveness), runtime }));
    let _scope = Scope { current, liveness, outer };
    run()
}

/// The guards of one thread's runtimes, of one kind.
#[cfg(any(feature = "tokio-uring", feature = "compio"))]
pub(super) type Guards<G> = RefCell<Vec<Rc<G>>>;

/// The record of one runtime, from its first use of an arena to its end.
#[cfg(any(feature = "tokio-uring", feature = "compio"))]
pub(super) trait Guard: Sized + 'static {
    /// Returns the guards of this thread.
    fn guards() -> &'static LocalKey<Guards<Self>>;

    fn liveness(&self) -> &Rc<RuntimeLiveness>;

    /// Runs whenever the guard task is polled.
    fn poll(&self, _: &mut Context<'_>) {}

    /// Runs once the liveness has ended.
    fn on_end(&self) {}

    /// Finds the guard of a runtime that exists.
    fn find(is_it: impl Fn(&Self) -> bool) -> Option<Rc<Self>> {
        Self::guards().with_borrow(|guards| guards.iter().find(|guard| is_it(guard)).cloned())
    }

    /// Enters a guard into the list. Returns it, and the task that the runtime must run.
    fn start(self) -> (Rc<Self>, GuardTask<Self>) {
        let guard = Rc::new(self);
        Self::guards().with_borrow_mut(|guards| guards.push(Rc::clone(&guard)));
        (Rc::clone(&guard), GuardTask { guard })
    }
}

/// The task that ends with its runtime, and ends the liveness then.
#[cfg(any(feature = "tokio-uring", feature = "compio"))]
pub(super) struct GuardTask<G: Guard> {
    guard: Rc<G>,
}

#[cfg(any(feature = "tokio-uring", feature = "compio"))]
impl<G: Guard> Future for GuardTask<G> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.guard.poll(context);
        Poll::Pending
    }
}

#[cfg(any(feature = "tokio-uring", feature = "compio"))]
impl<G: Guard> Drop for GuardTask<G> {
    fn drop(&mut self) {
        self.guard.liveness().end();
        // The thread's list may be gone already when the thread ends.
        let _ = G::guards().try_with(|guards| {
            guards.borrow_mut().retain(|guard| !Rc::ptr_eq(guard, &self.guard));
        });
        self.guard.on_end();
    }
}
