//! 4 USERS: the buffer that is written, the bytes that are read, and the way from one to the other.
//!
//! Uses `lease` and below.

mod arena_bytes;
mod buffer;
mod compare;
mod ext;
mod freeze;
mod headroom;
#[cfg(not(uring_arena_loom))]
mod io_memory;
mod spill;
mod storage;
mod write;

pub use arena_bytes::ArenaBytes;
pub use buffer::Buffer;
pub use ext::BytesExt;
#[cfg(not(uring_arena_loom))]
pub use io_memory::{IoMemory, Payload};
#[cfg(all(feature = "io-uring", target_os = "linux", not(uring_arena_loom)))]
pub(crate) use io_memory::{Span, sealed::Borrowed};
