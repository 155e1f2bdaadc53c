//! Lent buffers in compio's own methods.
//!
//! # Safety
//!
//! Unsafe here: passing on what compio says it has initialised, and making a slice of memory that
//! may not be.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::future::Future;
use std::mem::MaybeUninit;
use std::rc::Rc;

use compio_buf::{IoBuf, IoBufMut, SetLen};
use compio_runtime::Runtime;

use crate::buffer::{Buffer, IoMemory};
use crate::runtime::loan::Loan;
use crate::runtime::session::Session;

/// The session of a `block_on`, and the runtime that it borrows.
struct Current {
    session: Rc<Session>,
    runtime: *const Runtime,
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// A buffer, or frozen bytes, for compio's own methods.
///
/// What is read overwrites the buffer from its start, and its length becomes the number of bytes
/// read.
///
/// A loan that is dropped before its result was seen is free only if its runtime certainly lives,
/// which [`block_on`] makes sure of; otherwise it is quarantined
/// ([`quarantined`](crate::FixedArenaMetrics::quarantined)).
///
/// ```
/// # use std::num::NonZeroUsize;
/// use compio::io::{AsyncReadAt, AsyncReadAtExt};
/// use uring_arena::{FixedArena, compio::{block_on, lend}};
/// # let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(4096).unwrap());
///
/// let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
/// let runtime = compio::runtime::Runtime::new()?;
/// let bytes = block_on(&runtime, async {
///     let file = compio::fs::File::open("Cargo.toml").await?;
///     let (result, loan) = file.read_at(lend(arena.allocate()?), 0).await.into();
///     let _read: usize = result?;
///     Ok::<_, Box<dyn std::error::Error>>(loan.freeze())
/// })?;
/// assert!(bytes.starts_with(b"[workspace]"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn lend<B: IoMemory + AsRef<[u8]>>(item: B) -> Loan<B> {
    Loan::new(item)
}

/// Runs a future on a compio runtime, which certainly lives meanwhile: what comes back before it
/// returns is free.
///
/// Operations that are still running when it returns were abandoned; when the runtime drops their
/// buffers later, their slots are quarantined.
pub fn block_on<F: Future>(runtime: &Runtime, future: F) -> F::Output {
    /// Ends the session, however `block_on` is left.
    struct Scope {
        session: Rc<Session>,
        outer: Option<Current>,
    }

    impl Drop for Scope {
        fn drop(&mut self) {
            self.session.end();
            CURRENT.set(self.outer.take());
        }
    }

    // The borrow of `runtime` is what keeps it alive until the session ends.
    let session = Session::new();
    let outer = CURRENT.replace(Some(Current { session: Rc::clone(&session), runtime }));
    let _scope = Scope { session, outer };
    runtime.block_on(future)
}

/// The session of the runtime that this thread is in, if it runs by our `block_on`: inside that,
/// another may run.
fn current_session() -> Option<Rc<Session>> {
    let running = Runtime::try_with_current(std::ptr::from_ref).ok()?;
    CURRENT.with_borrow(|current| {
        let current = current.as_ref()?;
        std::ptr::eq(current.runtime, running).then(|| Rc::clone(&current.session))
    })
}

impl<B: IoMemory + AsRef<[u8]>> IoBuf for Loan<B> {
    fn as_init(&self) -> &[u8] {
        self.expose(current_session());
        self.as_ref()
    }
}

impl SetLen for Loan<Buffer> {
    unsafe fn set_len(&mut self, len: usize) {
        self.note_completed();
        // SAFETY: the caller's promise: `len` bytes from the start are initialised.
        unsafe { Buffer::set_len(self, len) };
    }
}

impl IoBufMut for Loan<Buffer> {
    fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        self.expose(current_session());
        let (start, len) = (self.as_mut_ptr().cast(), self.capacity());
        // SAFETY: the buffer's own memory, all of it, borrowed with the loan.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }
}
