//! An arena on [monoio](::monoio) 0.2: loans of buffers in its own methods.
//!
//! monoio's driver is closed: it shows neither its ring nor a way to submit another crate's
//! operation. So there is no registered memory, no buffer ring, no multishot and no zero-copy send
//! here. A read goes straight into a slot, and the slot freezes into [`Bytes`](bytes::Bytes) that
//! may leave the thread.
//!
//! At its end a monoio runtime frees buffers without waiting for the kernel, and gives no notice.
//! So run it by [`block_on`], which makes sure that the runtime lives while buffers are on loan. A
//! loan that is dropped elsewhere before its result was seen loses its slot
//! ([`quarantined`](crate::FixedArenaMetrics::quarantined)).
//!
//! ```
//! use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
//! use uring_arena::{FixedArena, monoio::{block_on, lend}};
//!
//! let arena = FixedArena::new(8, 4096)?;
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
//! # Safety
//!
//! Unsafe here: promising monoio that the memory of a loan stays where it is. The memory lies in a
//! slot (or, after a spill, on the heap), and moving the loan moves only the pointer to it. The
//! bytes are the loan's alone, or shared by readers only.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use ::monoio::buf::{IoBuf, IoBufMut};
use ::monoio::{Driver, FusionRuntime, Runtime};

use super::liveness::{self, CurrentBlockOn, RuntimeLiveness};
use super::loan::Loan;
use crate::buffer::{Buffer, IoMemory};

thread_local! {
    static CURRENT: CurrentBlockOn = const { RefCell::new(None) };
}

/// Lends a buffer, or frozen bytes, to monoio's own methods.
///
/// A read overwrites the buffer from its start, and the buffer's length becomes the number of bytes
/// read. To stop a read and keep the slot, use monoio's cancelable methods, which give the loan
/// back, instead of dropping the future.
///
/// ```
/// use monoio::io::AsyncWriteRent;
/// use uring_arena::{FixedArena, monoio::{block_on, lend}};
///
/// let arena = FixedArena::new(8, 4096)?;
/// let mut runtime = monoio::RuntimeBuilder::<monoio::FusionDriver>::new().build()?;
/// block_on(&mut runtime, async {
///     let (mut ours, _theirs) = monoio::net::UnixStream::pair()?;
///     let (result, loan) = ours.write(lend(bytes::Bytes::from_static(b"hello"))).await;
///     assert_eq!((result?, loan.take_back()), (5, bytes::Bytes::from_static(b"hello")));
///     Ok::<_, Box<dyn std::error::Error>>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn lend<B: IoMemory + AsRef<[u8]>>(item: B) -> Loan<B> {
    Loan::new(item)
}

/// Runs a future on a monoio runtime, which certainly lives meanwhile: a loan that comes back
/// before the function returns is free.
///
/// Operations that are still running then are abandoned. The runtime drops their buffers later, and
/// the slots are quarantined: let the operations finish first, or cancel them.
///
/// # Panics
///
/// If this thread is in a monoio runtime already.
///
/// ```
/// use monoio::io::AsyncWriteRent;
/// use bytes::BufMut;
/// use uring_arena::{FixedArena, monoio::{block_on, lend}};
///
/// let arena = FixedArena::new(8, 4096)?;
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
    liveness::block_on(&CURRENT, std::ptr::from_mut(runtime).cast(), || runtime.block_on(future))
}

/// A runtime of monoio: [`Runtime`] or [`FusionRuntime`]. The trait is sealed.
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

fn current_liveness() -> Option<Rc<RuntimeLiveness>> {
    CURRENT.with_borrow(|current| current.as_ref().map(|scope| Rc::clone(&scope.liveness)))
}

// SAFETY: the address does not move with the loan (see the head of this file), and the first
// `bytes_init` bytes are initialised.
unsafe impl<B: IoMemory + AsRef<[u8]>> IoBuf for Loan<B> {
    fn read_ptr(&self) -> *const u8 {
        self.begin(current_liveness());
        self.as_ref().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.as_ref().len()
    }
}

// SAFETY: as above; a buffer's whole capacity is its own to write.
unsafe impl IoBufMut for Loan<Buffer> {
    fn write_ptr(&mut self) -> *mut u8 {
        self.begin(current_liveness());
        self.as_mut_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.capacity()
    }

    unsafe fn set_init(&mut self, pos: usize) {
        self.end();
        // SAFETY: the caller's promise: `pos` bytes from the start are initialised.
        unsafe { self.set_len(pos) };
    }
}
