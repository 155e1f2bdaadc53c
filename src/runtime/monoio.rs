//! At home in [monoio](::monoio) 0.2: lent buffers in its own methods.
//!
//! monoio's driver is closed: it shows neither its ring nor a way to submit another crate's
//! operation. So there is no registered memory, no buffer ring, no multishot and no zero-copy send
//! here; what there is: it reads straight into a slot, and the slot freezes into
//! [`Bytes`](bytes::Bytes) that may leave the thread.
//!
//! It also frees buffers at its end without waiting for the kernel, and tells nobody. So run it by
//! [`block_on`], which makes sure that it lives while buffers are lent; without, a loan that is
//! dropped before its result was seen loses its slot
//! ([`quarantined`](crate::FixedArenaMetrics::quarantined)).
//!
//! ```
//! use std::num::NonZeroUsize;
//! use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
//! use uring_arena::{FixedArena, monoio::{block_on, lend}};
//!
//! let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(4096).unwrap());
//! let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
//! let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().build()?;
//! let bytes = block_on(&mut runtime, async {
//!     let (mut ours, mut theirs) = monoio::net::UnixStream::pair()?;
//!     ours.write_all("hello").await.0?;
//!     let (result, loan) = theirs.read(lend(arena.allocate()?)).await;
//!     assert_eq!(result?, 5);
//!     Ok::<_, Box<dyn std::error::Error>>(loan.freeze())
//! })?;
//! assert_eq!(std::thread::spawn(move || bytes.to_vec()).join().unwrap(), b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Safety
//!
//! Unsafe here: promising monoio that a lent buffer's memory stays where it is. It lies in a slot
//! (or, after a spill, on the heap), and moving the loan moves only the pointer to it. The bytes
//! are the loan's alone, or shared by readers only.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use ::monoio::buf::{IoBuf, IoBufMut};
use ::monoio::{Driver, FusionRuntime, Runtime};

use super::loan::Loan;
use super::session::Session;
use crate::buffer::{Buffer, IoMemory};

thread_local! {
    /// The session of the `block_on` that this thread is in.
    static CURRENT: RefCell<Option<Rc<Session>>> = const { RefCell::new(None) };
}

/// A buffer, or frozen bytes, for monoio's own methods.
///
/// What is read overwrites the buffer from its start, and its length becomes the number of bytes
/// read. To stop a read and keep the slot, use monoio's cancelable methods, which give the loan
/// back, rather than dropping the future.
pub fn lend<B: IoMemory + AsRef<[u8]>>(item: B) -> Loan<B> {
    Loan::new(item)
}

/// Runs a future on a monoio runtime, which certainly lives meanwhile: what comes back before it
/// returns is free.
///
/// Operations that are still running when it returns were abandoned; when the runtime drops their
/// buffers later, their slots are quarantined. Let them finish first, or cancel them.
///
/// # Panics
///
/// If this thread is in a monoio runtime already.
///
/// ```
/// # use std::num::NonZeroUsize;
/// use monoio::io::AsyncWriteRent;
/// use bytes::BufMut;
/// use uring_arena::{FixedArena, monoio::{block_on, lend}};
/// # let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(4096).unwrap());
///
/// let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
/// let mut runtime = monoio::RuntimeBuilder::<monoio::FusionDriver>::new().build()?;
/// block_on(&mut runtime, async {
///     let (mut ours, _theirs) = monoio::net::UnixStream::pair()?;
///     let mut buffer = arena.allocate()?;
///     buffer.put_slice(b"hello");
///     let (result, _loan) = ours.write(lend(buffer)).await;
///     assert_eq!(result?, 5);
///     Ok::<_, Box<dyn std::error::Error>>(())
/// })?;
/// assert_eq!(arena.metrics().bytes_live, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn block_on<R: BlockOn, F: Future>(runtime: &mut R, future: F) -> F::Output {
    /// Ends the session, however `block_on` is left.
    struct Scope {
        session: Rc<Session>,
        outer: Option<Rc<Session>>,
    }

    impl Drop for Scope {
        fn drop(&mut self) {
            self.session.end();
            CURRENT.set(self.outer.take());
        }
    }

    // The borrow of `runtime` is what keeps it alive until the session ends.
    let session = Session::new();
    let outer = CURRENT.replace(Some(Rc::clone(&session)));
    let _scope = Scope { session, outer };
    runtime.block_on(future)
}

/// monoio's runtimes: [`Runtime`] and [`FusionRuntime`]. Nobody else implements it.
pub trait BlockOn: sealed::Sealed {
    #[doc(hidden)]
    fn block_on<F: Future>(&mut self, future: F) -> F::Output;
}

mod sealed {
    pub trait Sealed {}
}

impl<D> sealed::Sealed for Runtime<D> {}

impl<D: Driver> BlockOn for Runtime<D> {
    fn block_on<F: Future>(&mut self, future: F) -> F::Output {
        Runtime::block_on(self, future)
    }
}

impl<L, R> sealed::Sealed for FusionRuntime<L, R> {}

impl<L: Driver, R: Driver> BlockOn for FusionRuntime<L, R> {
    fn block_on<F: Future>(&mut self, future: F) -> F::Output {
        FusionRuntime::block_on(self, future)
    }
}

fn current_session() -> Option<Rc<Session>> {
    CURRENT.with_borrow(Option::clone)
}

// SAFETY: the address does not move with the loan (see above), and the first `bytes_init` bytes are
// initialised.
unsafe impl<B: IoMemory + AsRef<[u8]>> IoBuf for Loan<B> {
    fn read_ptr(&self) -> *const u8 {
        self.expose(current_session());
        self.as_ref().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.as_ref().len()
    }
}

// SAFETY: as above; a buffer's whole capacity is its own to write.
unsafe impl IoBufMut for Loan<Buffer> {
    fn write_ptr(&mut self) -> *mut u8 {
        self.expose(current_session());
        self.as_mut_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.capacity()
    }

    unsafe fn set_init(&mut self, pos: usize) {
        self.note_completed();
        // SAFETY: the caller's promise: `pos` bytes from the start are initialised.
        unsafe { self.set_len(pos) };
    }
}
