//! The structs, enums, traits and functions of the [root](crate), without its modules.
//!
//! The modules of the root are named after runtimes: behind `use uring_arena::*` the name `tokio`
//! means [`uring_arena::tokio`](crate::tokio). A glob import of the prelude hides no crate's name.
//!
//! ```
//! use uring_arena::prelude::*;
//!
//! let arena = FixedArena::new(8, 4096)?;
//! let buffer = arena.allocate()?;
//! # drop(buffer);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// Hidden, because the page of the root lists the items.
#[doc(hidden)]
pub use crate::items::*;
