//! Loans of buffers in tokio-uring's own methods.
//!
//! # Safety
//!
//! Unsafe here: promising tokio-uring that the memory of a loan stays where it is. The memory lies
//! in a slot (or, after a spill, on the heap), and moving the loan moves only the pointer to it.
//! The bytes are the loan's alone, or shared by readers only.
#![allow(unsafe_code)]

use ::tokio_uring::buf::{IoBuf, IoBufMut};

use super::guard::RuntimeGuard;
use crate::buffer::{Buffer, IoMemory};
use crate::runtime::liveness::Guard;
use crate::runtime::loan::{Exposure, Loan};

/// Lends a buffer, or frozen bytes, to tokio-uring's own methods.
///
/// A read overwrites the buffer from its start, and the buffer's length becomes the number of bytes
/// read.
///
/// A loan in an abandoned operation that still runs when the runtime ends is quarantined: call
/// [`drain`](super::drain) first. So is a loan that was made outside the runtime, if it is dropped
/// before its result was seen.
///
/// ```
/// use uring_arena::{FixedArena, tokio_uring::lend};
///
/// let arena = FixedArena::new(8, 4096)?;
/// let bytes = tokio_uring::start(async {
///     let file = tokio_uring::fs::File::open("README.md").await?;
///     let (result, loan) = file.read_at(lend(arena.allocate()?), 0).await;
///     result?;
///     Ok::<_, Box<dyn std::error::Error>>(loan.freeze())
/// })?;
/// assert!(bytes.starts_with(b"# uring-arena"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn lend<B: IoMemory + AsRef<[u8]>>(item: B) -> Loan<B> {
    // The guard must exist before the operation begins: later, the driver is busy. Outside a
    // runtime there is none, and the method that takes the loan says so.
    let _ = RuntimeGuard::current();
    Loan::new(item)
}

/// Returns the exposure on the runtime that this thread is in, if the runtime has a guard.
fn exposure() -> Option<Exposure> {
    let liveness = RuntimeGuard::known()?.liveness().clone();
    Some(Exposure::counted(liveness.clone(), Some(liveness)))
}

// SAFETY: the address does not move with the loan (see the head of this file), and the first
// `bytes_init` bytes are initialised.
unsafe impl<B: IoMemory + AsRef<[u8]>> IoBuf for Loan<B> {
    fn stable_ptr(&self) -> *const u8 {
        self.begin(exposure());
        self.as_ref().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.as_ref().len()
    }

    fn bytes_total(&self) -> usize {
        self.extent()
    }
}

// SAFETY: a buffer's whole capacity is its own to write.
unsafe impl IoBufMut for Loan<Buffer> {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.begin(exposure());
        self.as_mut_ptr()
    }

    unsafe fn set_init(&mut self, pos: usize) {
        self.end();
        // SAFETY: the caller's promise: `pos` bytes from the start are initialised.
        unsafe { self.set_len(pos) };
    }
}
