//! At home in [tokio-uring](::tokio_uring) 0.5.
//!
//! | | how |
//! |---|---|
//! | its own methods | [`lend`] a buffer: `stream.read(lend(buffer)).await` |
//! | reads and writes that may be dropped | [`read`], [`write()`], [`read_at`], [`write_at`] |
//! | the same on registered memory | [`Registered`] |
//! | before the runtime ends | [`drain`] |
//!
//! What is read freezes into [`Bytes`](bytes::Bytes), which may leave the thread; tokio-uring's own
//! fixed buffers may not. Multishot receives, buffer rings and zero-copy sends on TCP are beyond
//! what tokio-uring lets another crate submit.
//!
//! ```
//! use std::num::NonZeroUsize;
//! use std::rc::Rc;
//! use uring_arena::{FixedArena, tokio_uring as arena_io};
//!
//! let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(4096).unwrap());
//! let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
//! tokio_uring::start(async {
//!     let registered = arena_io::Registered::new(&arena)?;
//!     let file = Rc::new(tokio_uring::fs::File::open("Cargo.toml").await?);
//!     let (result, buffer) = registered.read_at(&file, arena.allocate()?, 0).await;
//!     let head = buffer.freeze().slice(..result?.min(9));
//!     assert_eq!(std::thread::spawn(move || head.to_vec()).join().unwrap(), b"[workspac");
//!     arena_io::drain().await;
//!     Ok::<(), Box<dyn std::error::Error>>(())
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod guard;
mod lend;
mod registered;
mod submitted;

pub use guard::drain;
pub use lend::lend;
pub use registered::{AttachError, Registered};
pub use submitted::{Descriptor, Submitted, read, read_at, write, write_at};
