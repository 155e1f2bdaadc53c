//! The systems that read a cached file, one file each.

mod compio;
mod system;
mod tokio_uring;

use system::arena;
pub use system::{READ_BYTES, Reader, System};
