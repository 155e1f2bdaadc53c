//! The life of a runtime that borrows slots: how it is known, and what is on loan meanwhile.
//!
//! A runtime gives no notice of its end. A runtime of compio or tokio-uring ends its tasks first,
//! before its ring and before the buffers of abandoned operations. So the end of a task that never
//! finishes, the guard task, is the notice. monoio's notice is in its own file.

#[cfg(any(feature = "tokio-uring", feature = "compio"))]
use crate::region::Process;
#[cfg(any(feature = "tokio-uring", feature = "compio"))]
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::{Future, poll_fn},
    os::fd::RawFd,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    thread::LocalKey,
};

#[cfg(any(feature = "tokio-uring", feature = "compio"))]
use crate::sync::contain;

/// A proof that a runtime exists.
///
/// | a buffer that the runtime drops | belongs to |
/// |---|---|
/// | while the life lasts | the program: a live runtime drops a buffer after its completion |
/// | after that | the kernel, maybe: a runtime that ends waits for no completion |
pub(super) trait Life {
    /// Returns `true` if the runtime certainly exists.
    fn lasts(&self) -> bool;
}

/// The buffers that the kernel uses through one runtime, and what goes on there without an owner.
#[cfg(any(feature = "tokio-uring", feature = "compio"))]
pub(super) struct RuntimeLiveness {
    alive: Cell<bool>,
    /// The process whose ring the runtime has: a forked child's copy of the runtime has none.
    process: Process,
    /// Buffers that the kernel may be using.
    open_loans: Cell<usize>,
    /// The loans among them, which are in operations of the runtime's own.
    lent: Cell<usize>,
    /// The waits for the last of them, by their numbers.
    drains: RefCell<BTreeMap<u64, Waker>>,
    next_drain: Cell<u64>,
    abandoned: RefCell<Vec<Abandoned>>,
    /// The waker of the guard task.
    task: Cell<Option<Waker>>,
}

/// An operation that goes on without its future.
#[cfg(any(feature = "tokio-uring", feature = "compio"))]
pub(super) struct Abandoned {
    operation: Pin<Box<dyn Future<Output = ()>>>,
    /// The descriptor to cancel it by, until it is cancelled.
    #[cfg_attr(not(feature = "tokio-uring"), allow(dead_code, reason = "compio cancels by drop"))]
    descriptor: Option<RawFd>,
}

#[cfg(any(feature = "tokio-uring", feature = "compio"))]
impl RuntimeLiveness {
    pub(super) fn new() -> Rc<RuntimeLiveness> {
        Rc::new(RuntimeLiveness {
            alive: Cell::new(true),
            process: Process::current(),
            open_loans: Cell::new(0),
            lent: Cell::new(0),
            drains: RefCell::default(),
            next_drain: Cell::new(0),
            abandoned: RefCell::default(),
            task: Cell::default(),
        })
    }

    /// Returns whether this process built the runtime, and is not a forked child.
    pub(super) fn is_ours(&self) -> bool {
        self.process.is_current()
    }

    /// Counts a buffer that the kernel may use, until the value is dropped.
    #[inline]
    pub(super) fn begin_loan(self: Rc<Self>) -> LoanCount {
        let mut count = LoanCount::new(self);
        count.begin();
        count
    }

    /// Counts a loan in an operation of the runtime's own, until the value is dropped.
    pub(super) fn begin_lent(self: Rc<Self>) -> LoanCount {
        self.lent.set(self.lent.get() + 1);
        let mut count = self.begin_loan();
        count.is_lent = true;
        count
    }

    fn end_loan(&self, is_lent: bool) {
        self.lent.set(self.lent.get() - usize::from(is_lent));
        self.open_loans.set(self.open_loans.get() - 1);
        if self.open_loans.get() == 0 && self.is_draining() {
            self.wake_task();
        }
    }

    /// Returns `true` if an operation of ours is in the runtime's hands, or a loan.
    #[cfg(feature = "compio")]
    pub(super) fn is_in_use(&self) -> bool {
        self.open_loans.get() > 0
    }

    /// Returns the number of loans in operations of the runtime's own.
    #[cfg(feature = "tokio-uring")]
    pub(super) fn lent(&self) -> usize {
        self.lent.get()
    }

    /// Keeps an operation that lost its future: the guard task polls it to its end.
    pub(super) fn adopt(&self, operation: Pin<Box<dyn Future<Output = ()>>>, descriptor: RawFd) {
        let abandoned = Abandoned { operation, descriptor: Some(descriptor) };
        self.abandoned.borrow_mut().push(abandoned);
        self.wake_task();
    }

    /// Polls every abandoned operation once, and keeps the ones that are still running.
    pub(super) fn poll_abandoned(&self, context: &mut Context<'_>) {
        // Taken out meanwhile: the drop of an operation's result may abandon another operation.
        let mut running = self.abandoned.take();
        running.retain_mut(|abandoned| {
            let mut is_running = false;
            // The result, and the memory in it, are dropped in there.
            contain("the drop of a payload", || {
                is_running = abandoned.operation.as_mut().poll(context).is_pending();
            });
            is_running
        });
        self.abandoned.borrow_mut().append(&mut running);
    }

    /// Returns the descriptors of the abandoned operations that are not cancelled yet, and records
    /// that they are.
    #[cfg(feature = "tokio-uring")]
    pub(super) fn to_cancel(&self) -> Vec<RawFd> {
        let mut abandoned = self.abandoned.borrow_mut();
        abandoned.iter_mut().filter_map(|abandoned| abandoned.descriptor.take()).collect()
    }

    /// Drops the abandoned operations.
    pub(super) fn drop_abandoned(&self) {
        // Taken first: the drop may run anything.
        let abandoned = self.abandoned.take();
        drop(abandoned);
    }

    /// Returns `true` if the kernel uses no buffer, and nothing goes on without an owner.
    fn is_drained(&self) -> bool {
        self.open_loans.get() == 0 && self.abandoned.borrow().is_empty()
    }

    pub(super) fn is_draining(&self) -> bool {
        !self.drains.borrow().is_empty()
    }

    /// Returns the number of waits that have begun.
    #[cfg(feature = "tokio-uring")]
    pub(super) fn drain_count(&self) -> u64 {
        self.next_drain.get()
    }

    /// Waits until the kernel uses no buffer. The guard task cancels what was abandoned, before
    /// and meanwhile.
    pub(super) async fn drained(&self) {
        /// A guard that gives up the wait with its future.
        struct Drain<'a>(&'a RuntimeLiveness, u64);

        impl Drop for Drain<'_> {
            fn drop(&mut self) {
                let waker = self.0.drains.borrow_mut().remove(&self.1);
                drop(waker);
            }
        }

        let number = self.next_drain.get();
        self.next_drain.set(number + 1);
        let drain = Drain(self, number);
        poll_fn(|context| drain.0.poll_drained(number, context)).await;
    }

    fn poll_drained(&self, number: u64, context: &mut Context<'_>) -> Poll<()> {
        if self.is_drained() || !self.lasts() {
            return Poll::Ready(());
        }
        // Cloned before, and dropped after the cell is borrowed: a waker may run anything.
        let waker = context.waker().clone();
        let replaced = self.drains.borrow_mut().insert(number, waker);
        if replaced.is_none() {
            self.wake_task();
        }
        drop(replaced);
        Poll::Pending
    }

    fn wake_drains(&self) {
        let drains = self.drains.take();
        for waker in drains.into_values() {
            contain("the waker of a drain", || waker.wake());
        }
    }

    /// Wakes the guard task. A completion ends a loan while the runtime's driver is busy, so the
    /// guard task wakes the waits of users.
    fn wake_task(&self) {
        if let Some(task) = self.task.take() {
            task.wake_by_ref();
            self.task.set(Some(task));
        }
    }
}

#[cfg(any(feature = "tokio-uring", feature = "compio"))]
impl Life for RuntimeLiveness {
    fn lasts(&self) -> bool {
        self.alive.get() && self.is_ours()
    }
}

/// A buffer that the kernel may use from `begin` to the drop, in the count of its runtime.
#[cfg(any(feature = "tokio-uring", feature = "compio"))]
pub(super) struct LoanCount {
    liveness: Rc<RuntimeLiveness>,
    is_open: bool,
    is_lent: bool,
}

#[cfg(any(feature = "tokio-uring", feature = "compio"))]
impl LoanCount {
    /// Makes a count that has not begun.
    pub(super) fn new(liveness: Rc<RuntimeLiveness>) -> LoanCount {
        LoanCount { liveness, is_open: false, is_lent: false }
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
}

#[cfg(any(feature = "tokio-uring", feature = "compio"))]
impl Drop for LoanCount {
    #[inline]
    fn drop(&mut self) {
        if self.is_open {
            self.liveness.end_loan(self.is_lent);
        }
    }
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

    /// Cancels the operations that were abandoned, because a `drain` waits for their end.
    fn cancel_abandoned(&self);

    /// Runs when the runtime ends its tasks, before it drops the operations that were abandoned.
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
        let liveness = self.guard.liveness();
        liveness.task.set(Some(context.waker().clone()));
        liveness.poll_abandoned(context);
        if liveness.is_draining() {
            self.guard.cancel_abandoned();
        }
        if liveness.is_drained() {
            liveness.wake_drains();
        }
        Poll::Pending
    }
}

#[cfg(any(feature = "tokio-uring", feature = "compio"))]
impl<G: Guard> Drop for GuardTask<G> {
    fn drop(&mut self) {
        let liveness = self.guard.liveness();
        liveness.alive.set(false);
        // The thread's list may be gone already when the thread ends.
        let _ = G::guards().try_with(|guards| {
            guards.borrow_mut().retain(|guard| !Rc::ptr_eq(guard, &self.guard));
        });
        self.guard.on_end();
        liveness.drop_abandoned();
        liveness.wake_drains();
    }
}
