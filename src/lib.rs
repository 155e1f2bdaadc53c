//! Memory for network and disk I/O that the kernel and the program share.

pub mod error;
#[cfg_attr(not(test), expect(dead_code))]
mod slots;
mod sync;

pub use error::{AllocError, BufferFullError, BuildError};
