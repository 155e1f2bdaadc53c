//! An arena on [monoio](::monoio) 0.2: loans of buffers in its own methods.
//!
//! monoio's driver is closed: it shows neither its ring nor a way to submit another crate's
//! operation. So there is no registered memory, no buffer ring, no multishot and no zero-copy send
//! here. A read goes straight into a slot, and the slot freezes into [`Bytes`](bytes::Bytes) that
//! may leave the thread.
//!
//! At its end a monoio runtime frees buffers without waiting for the kernel, and gives no notice.
//! So run it by [`block_on`], which makes sure that the runtime lives while buffers are on loan. A
//! loan that is dropped elsewhere before its result was seen, by a timeout say, loses its slot for
//! good ([`quarantined`](crate::FixedArenaMetrics::quarantined)). The first such loss is a warning
//! in the log.
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

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use ::monoio::buf::{IoBuf, IoBufMut};
use ::monoio::io::{AsyncWriteRent, AsyncWriteRentExt};
use ::monoio::{Driver, FusionRuntime, Runtime};

use super::liveness::Life;
use super::loan::{Exposure, Loan};
use crate::buffer::{Buffer, IoMemory};

thread_local! {
    /// The call of our `block_on` that runs on this thread: monoio allows one at a time.
    static CURRENT: RefCell<Option<Rc<RuntimeLife>>> = const { RefCell::new(None) };
}

/// The life of a monoio runtime, from a call of our `block_on` on.
///
/// A call borrows its runtime, so the runtime exists until the call ends. Then the call leaves a
/// [`Keeper`] in the runtime's queue of tasks.
#[derive(Default)]
struct RuntimeLife {
    is_over: Cell<bool>,
    /// The lives of earlier calls on the same runtime that loans still ask for. They last as long
    /// as this one.
    earlier: RefCell<Vec<Rc<RuntimeLife>>>,
}

impl RuntimeLife {
    fn inherit(&self, life: Rc<RuntimeLife>) {
        let mut earlier = self.earlier.borrow_mut();
        earlier.append(&mut life.earlier.borrow_mut());
        earlier.push(life);
        earlier.retain(|life| Rc::strong_count(life) > 1);
    }

    fn end(&self) {
        self.is_over.set(true);
        self.earlier.borrow().iter().for_each(|life| life.is_over.set(true));
    }
}

impl Life for RuntimeLife {
    fn lasts(&self) -> bool {
        !self.is_over.get()
    }
}

/// A task that tells what becomes of a runtime after a call of our `block_on`.
///
/// | the runtime | the task | the life |
/// |---|---|---|
/// | ends the call | stays in the queue | lasts |
/// | is dropped | is dropped with the queue, before the driver and its buffers | is over |
/// | runs again, by our `block_on` | is polled | lasts as long as that call's |
/// | runs again, otherwise | is polled | is over: no call tells when the runtime ends |
struct Keeper(Option<Rc<RuntimeLife>>);

impl Future for Keeper {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(current) = CURRENT.with_borrow(Option::clone) else { return Poll::Ready(()) };
        if self.0.as_ref().is_some_and(|life| Rc::ptr_eq(life, &current)) {
            // The call is about to return. Back into the queue.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(life) = self.0.take() {
            current.inherit(life);
        }
        Poll::Ready(())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(life) = self.0.take() {
            life.end();
        }
    }
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

/// Runs a future on a monoio runtime, which certainly lives meanwhile: a loan that comes back is
/// free.
///
/// Operations that are still running when the function returns go on in the next call for the same
/// runtime. Of those that are running when the runtime ends the slots are quarantined: let the
/// operations finish first, or cancel them. The same holds once the runtime's own `block_on` has
/// run in between, or the future has panicked.
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
    /// A guard that ends the call, however `block_on` is left.
    struct Scope {
        outer: Option<Rc<RuntimeLife>>,
        keeper: Keeper,
    }

    impl Drop for Scope {
        fn drop(&mut self) {
            CURRENT.replace(self.outer.take());
        }
    }

    let life = Rc::new(RuntimeLife::default());
    let outer = CURRENT.replace(Some(Rc::clone(&life)));
    let mut scope = Scope { outer, keeper: Keeper(Some(life)) };
    runtime.block_on(async {
        let output = future.await;
        // In the queue, and not polled: nothing runs any more.
        let keeper = Keeper(scope.keeper.0.take());
        drop(::monoio::spawn(keeper));
        output
    })
}

/// Sends a buffer's bytes, or frozen ones, all of them. Returns their number.
///
/// It is monoio's `write_all` of a [loan](lend). If the future is dropped, monoio cancels it, and a
/// part may have been sent: close the connection then.
///
/// # Errors
///
/// The error of the stream; a part may have been sent. The item comes back.
///
/// # Panics
///
/// Outside a monoio runtime, by monoio's own check.
///
/// ```
/// use bytes::BufMut;
/// use monoio::io::AsyncReadRentExt;
/// use uring_arena::{FixedArena, monoio::{block_on, send_all}};
///
/// let arena = FixedArena::new(8, 4096)?;
/// let mut runtime = monoio::RuntimeBuilder::<monoio::FusionDriver>::new().build()?;
/// block_on(&mut runtime, async {
///     let (mut ours, mut theirs) = monoio::net::UnixStream::pair()?;
///     let mut buffer = arena.allocate()?;
///     buffer.put_slice(b"hello");
///     let (sent, _) = send_all(&mut ours, buffer.freeze()).await;
///     assert_eq!(sent?, 5);
///     let (result, bytes) = theirs.read_exact(vec![0; 5]).await;
///     result?;
///     assert_eq!(bytes, b"hello");
///     Ok::<_, Box<dyn std::error::Error>>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn send_all<W: AsyncWriteRent, B: IoMemory + AsRef<[u8]>>(
    stream: &mut W,
    item: B,
) -> (io::Result<usize>, B) {
    let (result, loan) = stream.write_all(lend(item)).await;
    (result, loan.take_back())
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

fn exposure() -> Option<Exposure> {
    CURRENT.with_borrow(Option::clone).map(|life| Exposure::new(life))
}

// SAFETY: the address does not move with the loan (see the head of this file), and the first
// `bytes_init` bytes are initialised.
unsafe impl<B: IoMemory + AsRef<[u8]>> IoBuf for Loan<B> {
    fn read_ptr(&self) -> *const u8 {
        self.begin(exposure());
        self.as_ref().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.as_ref().len()
    }
}

// SAFETY: as above; a buffer's whole capacity is its own to write.
unsafe impl IoBufMut for Loan<Buffer> {
    fn write_ptr(&mut self) -> *mut u8 {
        self.begin(exposure());
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
