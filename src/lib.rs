//! Memory for network and disk I/O that the kernel and the program share.

pub mod error;
mod slots;
mod sync;

pub use error::{AllocError, BufferFullError, BuildError};
