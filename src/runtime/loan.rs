//! A slot lent to a runtime's own operations.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use bytes::Bytes;

use super::liveness::Session;
use crate::buffer::{ArenaBytes, Buffer};

/// What can be lent to a runtime: [`Buffer`] for reading into and writing from, [`ArenaBytes`] and
/// [`Bytes`] for writing from. Nobody else implements it.
pub trait Lend: sealed::Lent + AsRef<[u8]> + Unpin + 'static {}

impl Lend for Buffer {}
impl Lend for ArenaBytes {}
impl Lend for Bytes {}

pub(super) mod sealed {
    use bytes::Bytes;

    use crate::arena::FixedArena;
    use crate::buffer::{ArenaBytes, Buffer};

    /// What a loan needs of what is lent.
    pub trait Lent: AsRef<[u8]> + Sized {
        /// Never frees the memory: the kernel may still use it.
        fn quarantine(self);

        /// Bytes that an operation may use, from the first on.
        fn extent(&self) -> usize {
            self.as_ref().len()
        }

        /// Which slot of `arena` holds the bytes.
        fn slot_in(&self, arena: &FixedArena) -> Option<u32> {
            arena.locate(self.as_ref()).map(|location| location.slot_index)
        }
    }

    impl Lent for Buffer {
        fn quarantine(self) {
            Buffer::quarantine(self);
        }

        fn extent(&self) -> usize {
            self.capacity()
        }

        fn slot_in(&self, arena: &FixedArena) -> Option<u32> {
            let lease = self.lease()?;
            arena.handle().owns(lease).then(|| lease.index())
        }
    }

    impl Lent for ArenaBytes {
        fn quarantine(self) {
            ArenaBytes::quarantine(self);
        }
    }

    impl Lent for Bytes {
        fn quarantine(self) {
            // Keeps one owner of the slot for ever; the bytes do not say which arena could count
            // it.
            std::mem::forget(self);
        }
    }
}

/// A buffer, or frozen bytes, in a form that a runtime's own operations take.
///
/// Made by the `lend` function of the runtime's module; the operation gives it back with its
/// result, and [`take_back`](Loan::take_back) or [`freeze`](Loan::freeze) ends it. It is the buffer
/// that it derefs to.
///
/// Runtimes drop the buffers of abandoned operations when they shut down, before the kernel is done
/// with them. A plain buffer would give its slot to the next claim while the kernel still writes
/// there. A loan that is dropped while its runtime may be gone is quarantined instead: the slot is
/// lost, the metric says so ([`quarantined`](crate::FixedArenaMetrics::quarantined)), and nothing
/// is overwritten.
pub struct Loan<B: Lend> {
    /// Always there but during `take_back` and `drop`.
    item: Option<B>,
    /// An operation may have the address, and no result has been seen since.
    exposed: Cell<bool>,
    /// The session in which that operation began. Without one, nothing proves that it has ended.
    session: RefCell<Option<Rc<Session>>>,
}

impl<B: Lend> Loan<B> {
    pub(super) fn new(item: B) -> Loan<B> {
        Loan { item: Some(item), exposed: Cell::new(false), session: RefCell::new(None) }
    }

    /// The buffer or the bytes themselves, after the operation gave the loan back.
    pub fn take_back(mut self) -> B {
        self.note_completed();
        match self.item.take() {
            Some(item) => item,
            None => unreachable!("a loan has its item until it ends"),
        }
    }

    /// An operation gets the address now, in `session`.
    pub(super) fn expose(&self, session: Option<Rc<Session>>) {
        let mut bound = self.session.borrow_mut();
        if self.exposed.replace(true)
            && let Some(before) = bound.take()
        {
            before.note_back();
        }
        if let Some(session) = &session {
            session.note_lent();
        }
        *bound = session;
    }

    /// The operation is known to have ended.
    pub(super) fn note_completed(&self) {
        if self.exposed.replace(false)
            && let Some(session) = self.session.borrow_mut().take()
        {
            session.note_back();
        }
    }

    /// Whether nothing can be using the memory any more.
    fn is_back(&self) -> bool {
        !self.exposed.get()
            || self.session.borrow().as_ref().is_some_and(|session| session.is_alive())
    }
}

impl Loan<Buffer> {
    /// What was read, as [`Bytes`] that may leave the thread: [`Buffer::freeze`].
    pub fn freeze(self) -> Bytes {
        self.take_back().freeze()
    }
}

impl<B: Lend> Drop for Loan<B> {
    fn drop(&mut self) {
        let Some(item) = self.item.take() else { return };
        let is_back = self.is_back();
        self.note_completed();
        if !is_back {
            item.quarantine();
        }
    }
}

impl<B: Lend> Deref for Loan<B> {
    type Target = B;

    fn deref(&self) -> &B {
        self.item.as_ref().expect("a loan has its item until it ends")
    }
}

impl<B: Lend> DerefMut for Loan<B> {
    fn deref_mut(&mut self) -> &mut B {
        self.item.as_mut().expect("a loan has its item until it ends")
    }
}

impl<B: Lend> fmt::Debug for Loan<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan")
            .field("len", &self.as_ref().len())
            .field("exposed", &self.exposed.get())
            .finish_non_exhaustive()
    }
}
