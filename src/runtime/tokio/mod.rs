//! An arena on ordinary [tokio](::tokio): sockets and files that read into slots, on any runtime.
//!
//! | | how |
//! |---|---|
//! | the bytes of a socket, in the slots where they arrived | [`Pool::recv_stream`] |
//! | the same, and writing to the socket | [`Pool::split`] |
//! | a zero-copy send | [`SendHalf::send`] |
//! | reads and writes of a file, `O_DIRECT` too | [`Pool::file`] |
//!
//! A [`Pool`] has an io_uring. A program makes one pool, or one for each runtime. Built inside a
//! runtime of one thread, the pool is a task of that runtime; built elsewhere, it has a thread of
//! its own. Idle connections hold no memory for receiving: a socket takes a slot when bytes arrive.
//! A stream that is not read is paused after some messages, so that it cannot take all slots.
//!
//! ```
//! use tokio::io::AsyncWriteExt;
//! use tokio::net::{TcpListener, TcpStream};
//! use uring_arena::{FixedArena, tokio::Pool};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = Pool::new(FixedArena::new(1024, 4096)?)?;
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
//! # }
//! ```
//!
//! [`RecvStream`] is a `Stream` of `io::Result<Bytes>`. `tokio_util::io::StreamReader` makes an
//! `AsyncRead` of it, and `tokio_util::codec` works on top.

mod engine;
mod file;
mod pool;
mod readiness;
mod recv_stream;
mod ring;
mod send_half;
mod send_queue;
mod socket;
mod stream;

pub use engine::{Engine, EngineChoice};
pub use file::File;
pub use pool::{Pool, PoolBuilder};
pub use recv_stream::RecvStream;
pub use ring::PoolError;
pub use send_half::{SendHalf, SendPermit};
pub use socket::{Socket, StreamError};
pub use stream::{ReuniteError, Stream};
