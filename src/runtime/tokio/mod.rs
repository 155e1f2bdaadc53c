//! An arena on ordinary [tokio](::tokio): sockets and files that read into slots, on any runtime.
//!
//! | | how |
//! |---|---|
//! | a connection, in place of tokio's `TcpStream` or `UnixStream` | [`Pool::stream`] |
//! | the bytes of a socket, in the slots where they arrived | [`Stream::try_next`] |
//! | sends of memory from where it lies | [`SendHalf::send`] |
//! | datagrams, on Linux with feature `io-uring` | `Pool::datagrams` |
//! | reads and writes of a file, `O_DIRECT` too | [`Pool::file`] |
//! | slots to write to | [`Pool::allocate`] |
//!
//! A [`Pool`] works on each of tokio's runtimes, and where io_uring is forbidden. By default
//! tokio's own reactor watches the connections, which costs least in whole servers, and files use
//! io_uring where that is allowed. [`Pool::engine`] says what is used and why, and
//! [`PoolBuilder::engine`] asks for one [`Engine`]. Idle connections hold no memory for receiving:
//! a socket takes a slot when bytes arrive.
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
//! let (socket, _) = listener.accept().await?;
//! let mut stream = pool.stream(socket)?; // hyper, rustls and codecs take it as it is
//! while let Some(bytes) = stream.try_next().await? {
//!     assert_eq!(bytes, "hello"); // `Bytes`, straight from the slot
//! }
//! # Ok(())
//! # }
//! ```

#[cfg(all(feature = "io-uring", target_os = "linux"))]
mod datagrams;
mod engine;
mod file;
#[cfg(not(all(feature = "io-uring", target_os = "linux")))]
mod no_ring;
mod pool;
mod readiness;
mod recv_stream;
#[cfg(all(feature = "io-uring", target_os = "linux"))]
mod ring;
mod send_half;
mod send_queue;
mod socket;
mod stream;

#[cfg(not(all(feature = "io-uring", target_os = "linux")))]
use no_ring as ring;

#[cfg(all(feature = "io-uring", target_os = "linux"))]
pub use datagrams::{DatagramSender, Datagrams};
pub use engine::{Engine, EngineChoice, PoolError, PoolMetrics, ShutdownReport};
pub use file::File;
pub use pool::{Pool, PoolBuilder};
pub use recv_stream::RecvStream;
pub use send_half::{SendHalf, SendPermit};
#[cfg(all(feature = "io-uring", target_os = "linux"))]
pub use socket::datagram::DatagramSocket;
pub use socket::{Socket, StreamError};
pub use stream::{ReuniteError, Stream};
