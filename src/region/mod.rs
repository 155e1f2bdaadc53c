//! 1 MEMORY: maps it, borrows it, faults it in, scrubs it, gives it back.
//!
//! The only code that maps and unmaps. Uses only `error`.

mod dealloc;
#[cfg(target_os = "linux")]
mod mapping;
mod options;
mod page;
mod region;
mod scrub;

pub use dealloc::{Dealloc, HeapDealloc, NoDealloc};
pub use options::Backing;
pub(crate) use options::Request;
pub use page::PageSize;
pub(crate) use region::Region;
pub(crate) use scrub::scrub;
