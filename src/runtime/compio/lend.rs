//! Loans of buffers in compio's own methods.
//!
//! # Safety
//!
//! Unsafe here: passing on how many bytes compio has initialised, and making a slice of memory that
//! may be uninitialised.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::future::{Future, pending};
use std::mem::MaybeUninit;
use std::rc::Rc;

use compio_buf::{IoBuf, IoBufMut, SetLen};
use compio_runtime::{JoinHandle, Runtime};

use super::guard::RuntimeGuard;
use crate::buffer::{Buffer, IoMemory};
use crate::runtime::liveness::{Guard, Life};
use crate::runtime::loan::{Exposure, Loan};

thread_local! {
    /// The innermost `block_on` of this thread.
    static CURRENT: RefCell<Option<BlockOn>> = const { RefCell::new(None) };
}

/// A call of our [`block_on`].
struct BlockOn {
    /// The address of the runtime, which the call borrows: to be compared only.
    runtime: *const Runtime,
    guard: Rc<RuntimeGuard>,
}

/// Lends a buffer, or frozen bytes, to compio's own methods.
///
/// A read overwrites the buffer from its start, and the buffer's length becomes the number of bytes
/// read.
///
/// If the operation is dropped, the slot is free with the kernel's completion, as long as the
/// runtime lives. Of operations that are still running when the runtime ends the slots are
/// quarantined ([`quarantined`](crate::FixedArenaMetrics::quarantined)): call
/// [`drain`](super::drain) before.
///
/// compio shows an operation no runtime. So outside our [`block_on`] each use of a loan costs a
/// task of the runtime, which ends with one of both.
///
/// ```
/// use compio::io::{AsyncReadAt, AsyncReadAtExt};
/// use uring_arena::{FixedArena, compio::{block_on, lend}};
///
/// let arena = FixedArena::new(8, 4096)?;
/// let runtime = compio::runtime::Runtime::new()?;
/// let bytes = block_on(&runtime, async {
///     let file = compio::fs::File::open("README.md").await?;
///     let (result, loan) = file.read_at(lend(arena.allocate()?), 0).await.into();
///     let _read: usize = result?;
///     Ok::<_, Box<dyn std::error::Error>>(loan.freeze())
/// })?;
/// assert!(bytes.starts_with(b"# uring-arena"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn lend<B: IoMemory + AsRef<[u8]>>(item: B) -> Loan<B> {
    let mut loan = Loan::new(item);
    loan.home = RuntimeGuard::current().ok().map(|guard| guard.liveness().clone());
    loan
}

/// Runs a future on a compio runtime. Loans are cheaper inside than in the runtime's own
/// `block_on`, and otherwise the same.
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
    /// A guard that ends the scope, however `block_on` is left.
    struct Scope(Option<BlockOn>);

    impl Drop for Scope {
        fn drop(&mut self) {
            let inner = CURRENT.replace(self.0.take());
            drop(inner);
        }
    }

    let guard = runtime.enter(RuntimeGuard::current).ok();
    let _scope = Scope(CURRENT.replace(guard.map(|guard| BlockOn { runtime, guard })));
    runtime.block_on(future)
}

/// A task that lives as long as its runtime.
struct Marker(JoinHandle<()>);

impl Life for Marker {
    fn lasts(&self) -> bool {
        !self.0.is_finished()
    }
}

/// Returns the life of the runtime that this thread is in.
///
/// The driver is busy while an operation begins, and does not tell its descriptor. The address of
/// the runtime proves something only while a `block_on` of ours borrows it. Otherwise a task tells,
/// as it goes to the runtime that runs here, whichever that is.
fn current_life() -> Option<Rc<dyn Life>> {
    let running: *const Runtime = Runtime::try_with_current(std::ptr::from_ref).ok()?;
    let guard = CURRENT.with_borrow(|current| {
        let current = current.as_ref()?;
        std::ptr::eq(current.runtime, running).then(|| Rc::clone(&current.guard))
    });
    Some(match guard {
        Some(guard) => guard,
        None => Rc::new(Marker(compio_runtime::spawn(pending()))),
    })
}

impl<B: IoMemory> Loan<B> {
    /// Returns the exposure to an operation that begins now.
    fn exposure(&self) -> Option<Exposure> {
        current_life().map(|life| Exposure::counted(life, self.home.clone()))
    }
}

impl<B: IoMemory + AsRef<[u8]>> IoBuf for Loan<B> {
    fn as_init(&self) -> &[u8] {
        self.begin(self.exposure());
        self.as_ref()
    }

    fn buf_len(&self) -> usize {
        self.as_ref().len()
    }
}

impl SetLen for Loan<Buffer> {
    unsafe fn set_len(&mut self, len: usize) {
        self.end();
        // SAFETY: the caller's promise: `len` bytes from the start are initialised.
        unsafe { Buffer::set_len(self, len) };
    }

    /// Sets the length, also to fewer bytes: those behind are of an earlier read.
    unsafe fn advance_to(&mut self, len: usize) {
        // SAFETY: the caller's promise, passed on.
        unsafe { SetLen::set_len(self, len) };
    }
}

impl IoBufMut for Loan<Buffer> {
    fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        self.begin(self.exposure());
        let (start, len) = (self.as_mut_ptr().cast(), self.capacity());
        // SAFETY: the buffer's own memory, all of it, borrowed with the loan.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    fn buf_capacity(&mut self) -> usize {
        self.capacity()
    }
}
