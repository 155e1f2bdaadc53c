//! An arena on [compio](https://docs.rs/compio) 0.19.
//!
//! | | how |
//! |---|---|
//! | compio's own methods | [`lend`] a buffer: `stream.read(lend(buffer))` |
//! | `O_DIRECT` reads and writes, zero-copy sends on registered memory | [`Registered`] |
//! | a send that goes out whole | [`send_all`], [`Registered::send_all`] |
//! | multishot receives into the arena | [`ReceiveRing`] |
//! | before the runtime ends | [`drain`] |
//!
//! compio hands received buffers out on their own thread only. A buffer that was read here freezes
//! into [`Bytes`](bytes::Bytes), which may leave the thread. The runtime's own buffer ring, of its
//! own memory, is not used: a [`ReceiveRing`] stands beside it, and a runtime may have several.
//!
//! If the build fails because `PollOpCode` is not implemented, another crate has turned compio's
//! `polling` feature on: turn on `compio-polling` here too. Such a runtime may be driven by epoll,
//! where nothing can be registered: [`AttachError::NotOnUring`].

mod guard;
mod lend;
mod op_adapter;
mod receive_ring;
mod receive_stream;
mod registered;
mod ring_state;
mod submitted;

pub use guard::{AttachError, drain};
pub use lend::{block_on, lend};
pub use receive_ring::ReceiveRing;
pub use receive_stream::ReceiveStream;
pub use registered::Registered;
pub use submitted::{SendAll, Submitted, send_all};
