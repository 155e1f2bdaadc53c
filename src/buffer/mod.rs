//! The buffer that is written, the bytes that are read, and the memory that the kernel may borrow.
//!
//! This folder uses `lease` and the folders below it.

mod arena_bytes;
mod buffer;
#[cfg(not(uring_arena_loom))]
mod io_memory;
mod storage;
mod write;

pub use arena_bytes::{ArenaBytes, BytesExt};
pub use buffer::{Buffer, BufferFullError};
#[cfg(not(uring_arena_loom))]
pub use io_memory::{IoMemory, Payload};
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub(crate) use io_memory::{Span, sealed::Borrowed};
