//! 1 MEMORY: maps it, borrows it, faults it in, scrubs it, gives it back.
//!
//! The only code that maps and unmaps. Uses only `error`.

mod backing;
mod dealloc;
#[cfg(target_os = "linux")]
mod mapping;
mod page;
mod scrub;

pub use backing::Backing;
pub(crate) use backing::Request;
pub use dealloc::{Dealloc, HeapDealloc, NoDealloc};
pub use page::PageSize;
pub(crate) use scrub::scrub;

mod memory;
pub(crate) use memory::Region;
