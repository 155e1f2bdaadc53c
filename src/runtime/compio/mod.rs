//! At home in [compio](https://docs.rs/compio) 0.19.
//!
//! | | how |
//! |---|---|
//! | its own methods | [`lend`] a buffer, inside [`block_on`]: `stream.read(lend(buffer)).await` |
//!
//! compio gives received buffers out only on their own thread; what is read here freezes into [`Bytes`](bytes::Bytes), which may
//! leave it.

mod buf;

pub use buf::{block_on, lend};
