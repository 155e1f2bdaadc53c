//! A slot lent to a runtime's own operations.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use bytes::Bytes;

use super::session::Session;
use crate::buffer::{Buffer, IoMemory};

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
pub struct Loan<B: IoMemory> {
    /// Always there but during `take_back` and `drop`.
    item: Option<B>,
    /// An operation may have the address, and no result has been seen since.
    exposed: Cell<bool>,
    /// The session in which that operation began. Without one, nothing proves that it has ended.
    session: RefCell<Option<Rc<Session>>>,
}

impl<B: IoMemory> Loan<B> {
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

impl<B: IoMemory> Drop for Loan<B> {
    fn drop(&mut self) {
        let Some(item) = self.item.take() else { return };
        let is_back = self.is_back();
        self.note_completed();
        if !is_back {
            item.quarantine();
        }
    }
}

impl<B: IoMemory> Deref for Loan<B> {
    type Target = B;

    fn deref(&self) -> &B {
        self.item.as_ref().expect("a loan has its item until it ends")
    }
}

impl<B: IoMemory> DerefMut for Loan<B> {
    fn deref_mut(&mut self) -> &mut B {
        self.item.as_mut().expect("a loan has its item until it ends")
    }
}

impl<B: IoMemory + AsRef<[u8]>> fmt::Debug for Loan<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan")
            .field("len", &self.as_ref().len())
            .field("exposed", &self.exposed.get())
            .finish_non_exhaustive()
    }
}
