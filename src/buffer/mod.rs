//! 4 USERS: the buffer that is written, the bytes that are read, and the way from one to the other.
//!
//! Uses `lease` and below.

mod arena_bytes;
mod buffer;
mod compare;
mod ext;
mod freeze;
mod headroom;
mod put;
mod spill;
mod storage;

pub use arena_bytes::ArenaBytes;
pub use buffer::Buffer;
pub use ext::BytesExt;
