//! On ordinary [tokio](::tokio): sockets and files that read into an arena, on any of its runtimes.
//!
//! | | how |
//! |---|---|
//! | bytes of a socket, in the slots where they arrived | [`Pool::recv_stream`] |
//! | the same, and writing to it | [`Pool::split`] |
//! | a zero-copy send | [`SendHalf::send`] |
//! | reads and writes of a file, `O_DIRECT` too | [`Pool::file`] |
//!
//! Behind a [`Pool`] is an io_uring: once per process, or once per runtime. Made inside a runtime
//! of one thread, it is turned by a task of that runtime; otherwise by a thread of its own. Idle
//! connections hold no memory for receiving: slots are shared, and taken when something arrives. A
//! stream that nobody reads stops receiving after some messages, so it cannot take all of them.
//!
//! ```
//! use std::num::NonZeroUsize;
//! use tokio::io::AsyncWriteExt;
//! use tokio::net::{TcpListener, TcpStream};
//! use uring_arena::{FixedArena, tokio::Pool};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let (count, bytes) = (NonZeroUsize::new(1024).unwrap(), NonZeroUsize::new(4096).unwrap());
//! let pool = Pool::new(FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?)?;
//!
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let mut client = TcpStream::connect(listener.local_addr()?).await?;
//! client.write_all(b"hello").await?;
//! drop(client);
//!
//! let (stream, _) = listener.accept().await?;
//! let mut incoming = pool.recv_stream(stream)?;
//! while let Some(bytes) = incoming.try_next().await? {
//!     assert_eq!(bytes, "hello"); // `Bytes`, straight from the slot
//! }
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! [`RecvStream`] is a `Stream` of `io::Result<Bytes>`, so `tokio_util::io::StreamReader` makes an
//! `AsyncRead` of it and `tokio_util::codec` works on top.

mod error;
mod file;
mod pool;
mod recv_stream;
mod ring;
mod send_half;
mod socket;

pub use error::PoolError;
pub use file::File;
pub use pool::{Pool, PoolBuilder};
pub use recv_stream::RecvStream;
pub use send_half::SendHalf;
pub use socket::Socket;
