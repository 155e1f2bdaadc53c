//! The life of a runtime that borrows slots.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
#[cfg(any(feature = "tokio-uring", feature = "compio"))]
use std::task::{Context, Poll};
#[cfg(any(feature = "compio", feature = "monoio"))]
use std::thread::LocalKey;

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

    /// Counts a buffer that the kernel may use until the value is dropped.
    pub(super) fn begin_loan(self: Rc<Self>) -> OpenLoan {
        self.open_loans.set(self.open_loans.get() + 1);
        OpenLoan { liveness: self }
    }

    fn end_loan(&self) {
        self.open_loans.set(self.open_loans.get() - 1);
        if self.open_loans.get() == 0 {
            // Taken first: a waker may run anything.
            let draining = self.draining.take();
            draining.into_iter().for_each(Waker::wake);
        }
    }

    /// Waits until the kernel uses no buffer.
    #[cfg(any(feature = "tokio-uring", feature = "compio"))]
    pub(super) fn poll_drained(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.open_loans.get() == 0 {
            return Poll::Ready(());
        }
        let waker = context.waker();
        let mut draining = self.draining.borrow_mut();
        if !draining.iter().any(|known| known.will_wake(waker)) {
            draining.push(waker.clone());
        }
        Poll::Pending
    }
}

/// A buffer that the kernel may be using, as a runtime's life counts it.
#[derive(Debug)]
pub(super) struct OpenLoan {
    liveness: Rc<RuntimeLiveness>,
}

impl OpenLoan {
    /// Returns `true` if the runtime certainly exists.
    pub(super) fn is_alive(&self) -> bool {
        self.liveness.is_alive()
    }
}

impl Drop for OpenLoan {
    fn drop(&mut self) {
        self.liveness.end_loan();
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
    /// Ends the liveness, however `block_on` is left.
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
