//! Loans of buffers in compio's own methods.
//!
//! # Safety
//!
//! Unsafe here: passing on how many bytes compio has initialised, and making a slice of memory that
//! may be uninitialised.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::future::Future;
use std::mem::MaybeUninit;
use std::rc::Rc;

use compio_buf::{IoBuf, IoBufMut, SetLen};
use compio_runtime::Runtime;

use crate::buffer::{Buffer, IoMemory};
use crate::runtime::liveness::{self, CurrentBlockOn, RuntimeLiveness};
use crate::runtime::loan::Loan;

thread_local! {
    static CURRENT: CurrentBlockOn = const { RefCell::new(None) };
}

/// Lends a buffer, or frozen bytes, to compio's own methods.
///
/// A read overwrites the buffer from its start, and the buffer's length becomes the number of bytes
/// read.
///
/// A loan that is dropped before its result was seen is free only if its runtime certainly lives,
/// which [`block_on`] makes sure of. Otherwise the loan is quarantined
/// ([`quarantined`](crate::FixedArenaMetrics::quarantined)).
///
/// ```
/// use compio::io::{AsyncReadAt, AsyncReadAtExt};
/// use uring_arena::{FixedArena, compio::{block_on, lend}};
///
/// let arena = FixedArena::new(8, 4096)?;
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

/// Runs a future on a compio runtime, which certainly lives meanwhile: a loan that comes back
/// before the function returns is free.
///
/// Operations that are still running then are abandoned. The runtime drops their buffers later, and
/// the slots are quarantined.
///
/// ```
/// use std::time::Duration;
/// use compio::io::AsyncRead;
/// use compio::runtime::time::{sleep, timeout};
/// use uring_arena::{FixedArena, compio::{block_on, lend}};
///
/// let arena = FixedArena::new(1, 4096)?;
/// let runtime = compio::runtime::Runtime::new()?;
/// block_on(&runtime, async {
///     let (near, _far) = std::os::unix::net::UnixStream::pair()?;
///     let mut near = compio::net::UnixStream::from_std(near)?;
///     let read = near.read(lend(arena.allocate()?)); // nothing will ever arrive
///     assert!(timeout(Duration::from_millis(5), read).await.is_err());
///     while arena.allocate().is_err() {
///         sleep(Duration::from_millis(1)).await; // the kernel cancels the read
///     }
///     Ok::<_, Box<dyn std::error::Error>>(())
/// })?;
/// assert_eq!(arena.metrics().quarantined, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn block_on<F: Future>(runtime: &Runtime, future: F) -> F::Output {
    let address = std::ptr::from_ref(runtime).cast();
    liveness::block_on(&CURRENT, address, || runtime.block_on(future))
}

/// Returns the liveness of the runtime that this thread is in. Returns `None` if that runtime was
/// entered without our [`block_on`], which may be inside one that was.
fn current_liveness() -> Option<Rc<RuntimeLiveness>> {
    let running: *const Runtime = Runtime::try_with_current(std::ptr::from_ref).ok()?;
    CURRENT.with_borrow(|current| {
        let current = current.as_ref()?;
        std::ptr::eq(current.runtime, running.cast()).then(|| Rc::clone(&current.liveness))
    })
}

impl<B: IoMemory + AsRef<[u8]>> IoBuf for Loan<B> {
    fn as_init(&self) -> &[u8] {
        self.begin(current_liveness());
        self.as_ref()
    }
}

impl SetLen for Loan<Buffer> {
    unsafe fn set_len(&mut self, len: usize) {
        self.end();
        // SAFETY: the caller's promise: `len` bytes from the start are initialised.
        unsafe { Buffer::set_len(self, len) };
    }
}

impl IoBufMut for Loan<Buffer> {
    fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        self.begin(current_liveness());
        let (start, len) = (self.as_mut_ptr().cast(), self.capacity());
        // SAFETY: the buffer's own memory, all of it, borrowed with the loan.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }
}
