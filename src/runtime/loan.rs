//! A slot in the hands of a runtime's own operations.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Once;

use bytes::Bytes;

use super::liveness::Life;
#[cfg(any(feature = "tokio-uring", feature = "compio"))]
use super::liveness::{LoanCount, RuntimeLiveness};
use crate::buffer::{Buffer, IoMemory};
use crate::sync::contain;

/// A buffer, or frozen bytes, in the form that a runtime's own operations take.
///
/// The `lend` function of the runtime's module makes a loan. The operation gives the loan back with
/// its result, and [`take_back`](Loan::take_back) or [`freeze`](Loan::freeze) ends it. A loan
/// derefs to its buffer.
///
/// Runtimes drop the buffers of abandoned operations when they shut down, before the kernel is done
/// with them. A plain buffer would give its slot to the next claim while the kernel still writes
/// there. A loan that is dropped while its runtime may be gone is quarantined instead. Its slot is
/// lost and counted ([`quarantined`](crate::FixedArenaMetrics::quarantined)), and nothing is
/// overwritten. The first loss of a process is a warning in its log (`tracing`).
pub struct Loan<B: IoMemory> {
    /// The buffer. `None` during `take_back` and `drop` only.
    item: Option<B>,
    /// Set while an operation may have the address, and no result has been seen.
    exposed: Cell<bool>,
    /// The runtime of that operation, if its life is known. Without it nothing proves that the
    /// operation has ended.
    exposure: RefCell<Option<Exposure>>,
    /// The runtime that the loan was made in: a loan on compio cannot ask while an operation
    /// begins.
    #[cfg(feature = "compio")]
    pub(super) home: Option<Rc<RuntimeLiveness>>,
}

/// The use of a loan by an operation of a runtime whose life is known.
pub(super) struct Exposure {
    life: Rc<dyn Life>,
    #[cfg(any(feature = "tokio-uring", feature = "compio"))]
    _count: Option<LoanCount>,
}

impl Exposure {
    #[cfg(feature = "monoio")]
    pub(super) fn new(life: Rc<dyn Life>) -> Exposure {
        Exposure {
            life,
            #[cfg(any(feature = "tokio-uring", feature = "compio"))]
            _count: None,
        }
    }

    /// Makes an exposure that a runtime counts.
    #[cfg(any(feature = "tokio-uring", feature = "compio"))]
    pub(super) fn counted(life: Rc<dyn Life>, by: Option<Rc<RuntimeLiveness>>) -> Exposure {
        Exposure { life, _count: by.map(RuntimeLiveness::begin_lent) }
    }
}

impl<B: IoMemory> Loan<B> {
    pub(super) fn new(item: B) -> Loan<B> {
        Loan {
            item: Some(item),
            exposed: Cell::new(false),
            exposure: RefCell::new(None),
            #[cfg(feature = "compio")]
            home: None,
        }
    }

    /// Returns the buffer or the bytes themselves, after the operation gave the loan back.
    ///
    /// ```no_run
    /// # #[cfg(feature = "monoio")]
    /// # fn read() -> Result<(), Box<dyn std::error::Error>> {
    /// use monoio::io::AsyncReadRent;
    /// use uring_arena::{FixedArena, monoio::{block_on, lend}};
    ///
    /// let arena = FixedArena::new(8, 4096)?;
    /// let mut runtime = monoio::RuntimeBuilder::<monoio::FusionDriver>::new().build()?;
    /// block_on(&mut runtime, async {
    ///     let mut stream = monoio::net::TcpStream::connect("127.0.0.1:7").await?;
    ///     let (result, loan) = stream.read(lend(arena.allocate()?)).await;
    ///     let buffer = loan.take_back();
    ///     assert_eq!(buffer.len(), result?);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub fn take_back(mut self) -> B {
        self.end();
        match self.item.take() {
            Some(item) => item,
            None => unreachable!("a loan has its item until it ends"),
        }
    }

    /// Records that an operation gets the address. Without an `exposure` the life of its runtime is
    /// not known.
    pub(super) fn begin(&self, exposure: Option<Exposure>) {
        self.exposed.set(true);
        let before = self.exposure.replace(exposure);
        // Dropped here, with no cell borrowed: the end of the last loan wakes tasks.
        drop(before);
    }

    /// Records that the operation has ended.
    pub(super) fn end(&self) {
        self.exposed.set(false);
        let ended = self.exposure.take();
        drop(ended);
    }

    /// Returns `true` if nothing can be using the memory any more.
    fn is_back(&self) -> bool {
        let is_proven = |exposure: &Exposure| exposure.life.lasts();
        !self.exposed.get() || self.exposure.borrow().as_ref().is_some_and(is_proven)
    }
}

impl Loan<Buffer> {
    /// Freezes the bytes that were read, as [`Buffer::freeze`] does. [`Bytes`] may leave the
    /// thread.
    ///
    /// ```no_run
    /// # #[cfg(feature = "monoio")]
    /// # fn read() -> Result<(), Box<dyn std::error::Error>> {
    /// use monoio::io::AsyncReadRent;
    /// use uring_arena::{FixedArena, monoio::{block_on, lend}};
    ///
    /// let arena = FixedArena::new(8, 4096)?;
    /// let mut runtime = monoio::RuntimeBuilder::<monoio::FusionDriver>::new().build()?;
    /// block_on(&mut runtime, async {
    ///     let mut stream = monoio::net::TcpStream::connect("127.0.0.1:7").await?;
    ///     let (result, loan) = stream.read(lend(arena.allocate()?)).await;
    ///     let bytes = loan.freeze();
    ///     std::thread::spawn(move || println!("{bytes:?}"));
    ///     result?;
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub fn freeze(self) -> Bytes {
        self.take_back().freeze()
    }
}

impl<B: IoMemory> Drop for Loan<B> {
    fn drop(&mut self) {
        let Some(item) = self.item.take() else { return };
        // The loan ends with its fields, after this.
        if !self.is_back() {
            warn_of_loss(self.exposure.borrow().is_some());
            item.quarantine();
        } else if self.exposed.get() {
            // By the runtime, among operations of others.
            contain("the drop of a lent payload", || drop(item));
        }
    }
}

/// Warns of the first slot that is lost for each of the two causes. A program that goes on like
/// this loses one slot after the other.
fn warn_of_loss(is_runtime_known: bool) {
    static RUNTIME_OVER: Once = Once::new();
    static RUNTIME_UNKNOWN: Once = Once::new();
    if is_runtime_known {
        RUNTIME_OVER.call_once(|| {
            tracing::warn!(
                "a runtime ended while the kernel might use a slot that was lent to it: the slot is lost; call `drain` before the end, or let the operations finish"
            );
        });
    } else {
        RUNTIME_UNKNOWN.call_once(|| {
            tracing::warn!(
                "a loan was dropped before its result was seen, in a runtime whose life is not known: its slot is lost, and so is that of each further timeout; run monoio by `uring_arena::monoio::block_on`, and call `lend` inside the runtime"
            );
        });
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
