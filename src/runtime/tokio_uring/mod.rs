//! An arena on [tokio-uring](::tokio_uring) 0.5.
//!
//! | | how |
//! |---|---|
//! | tokio-uring's own methods | [`lend`] a buffer: `stream.read(lend(buffer)).await` |
//! | reads and writes that may be dropped | [`read`], [`write()`], [`read_at`], [`write_at`] |
//! | a send that goes out whole | [`send_all`] |
//! | the same on registered memory | [`Registered`] |
//! | before the runtime ends | [`drain`] |
//!
//! A buffer that was read freezes into [`Bytes`](bytes::Bytes), which may leave the thread;
//! tokio-uring's own fixed buffers may not. Multishot receives, buffer rings and zero-copy sends on
//! TCP are beyond what tokio-uring lets another crate submit.
//!
//! ```
//! use std::rc::Rc;
//! use uring_arena::{FixedArena, tokio_uring as arena_io};
//!
//! let arena = FixedArena::new(8, 4096)?;
//! tokio_uring::start(async {
//!     let registered = arena_io::Registered::new(&arena)?;
//!     let file = Rc::new(tokio_uring::fs::File::open("README.md").await?);
//!     let (result, buffer) = registered.read_at(&file, arena.allocate()?, 0).await;
//!     let head = buffer.freeze().slice(..result?.min(13));
//!     assert_eq!(std::thread::spawn(move || head.to_vec()).join().unwrap(), b"# uring-arena");
//!     arena_io::drain().await;
//!     Ok::<(), Box<dyn std::error::Error>>(())
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod guard;
mod lend;
mod registered;
mod submitted;

pub use guard::{AttachError, drain};
pub use lend::lend;
pub use registered::Registered;
pub use submitted::{Descriptor, SendAll, Submitted, read, read_at, send_all, write, write_at};
