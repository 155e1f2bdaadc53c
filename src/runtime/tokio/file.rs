//! A file that is read and written through the pool.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use super::readiness::BlockingFile;
use super::ring::{Command, EngineHandle, FileKey};
use crate::buffer::{Buffer, Payload};
use crate::sync::Arc;

/// A file of a [`Pool`](super::Pool).
///
/// Where the pool uses io_uring for files ([`Pool::engine`](super::Pool::engine)), reads and writes
/// use registered memory, and block no thread. Elsewhere they block threads that tokio has for
/// that, and what has no offsets (a socket, a pipe) is refused.
///
/// ```
/// use uring_arena::{FixedArena, tokio::Pool};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::new(FixedArena::new(16, 4096)?)?;
/// let file = pool.file(std::fs::File::open("Cargo.toml")?)?;
/// let head = file.read_at(pool.try_allocate()?, 0).await?.freeze();
/// assert!(head.starts_with(b"[workspace]"));
/// # Ok(())
/// # }
/// ```
pub struct File(Inner);

enum Inner {
    Ring(RingFile),
    Blocking(BlockingFile),
}

/// A file that a driver has.
struct RingFile {
    key: FileKey,
    engine: Arc<EngineHandle>,
}

impl File {
    pub(super) fn on_ring(engine: Arc<EngineHandle>, file: OwnedFd) -> File {
        File(Inner::Ring(RingFile { key: engine.open(file), engine }))
    }

    pub(super) fn blocking(file: BlockingFile) -> File {
        File(Inner::Blocking(file))
    }

    /// Reads from `offset` into the room behind the buffer's bytes, until the buffer is full or the
    /// file ends.
    ///
    /// If the future is dropped, the read goes on, and its slot is free when it is over.
    ///
    /// # Errors
    ///
    /// The error of the file. A refusal of the driver: a buffer without room, an unaligned read of
    /// an `O_DIRECT` file. [`BrokenPipe`](io::ErrorKind::BrokenPipe) if the pool was shut down. The
    /// buffer is dropped then.
    pub async fn read_at(&self, buffer: Buffer, offset: u64) -> io::Result<Buffer> {
        match &self.0 {
            Inner::Blocking(file) => file.read_at(buffer, offset).await,
            Inner::Ring(RingFile { key, engine }) => {
                engine.ask(|answer| Command::Read { key: *key, buffer, offset, answer }).await
            }
        }
    }

    /// Reads as [`read_at`](Self::read_at) does. An end of the file before the buffer is full is an
    /// error.
    ///
    /// ```
    /// use std::io::ErrorKind;
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(16, 64)?)?;
    /// let file = pool.file(std::fs::File::open("Cargo.toml")?)?;
    /// assert_eq!(file.read_exact_at(pool.try_allocate()?, 0).await?.len(), 64);
    /// let error = file.read_exact_at(pool.try_allocate()?, 1 << 30).await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for `read_at`; [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if the file ends before.
    pub async fn read_exact_at(&self, buffer: Buffer, offset: u64) -> io::Result<Buffer> {
        let buffer = self.read_at(buffer, offset).await?;
        let (len, wanted) = (buffer.len(), buffer.capacity());
        if len < wanted {
            let text = format!("the file ends after {len} of {wanted} bytes");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        Ok(buffer)
    }

    /// Writes a buffer, [`ArenaBytes`](crate::ArenaBytes) or [`Bytes`](bytes::Bytes) to `offset`,
    /// all of it.
    ///
    /// If the future is dropped, the write goes on.
    ///
    /// ```
    /// use bytes::BufMut;
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(16, 4096)?)?;
    /// let path = std::env::temp_dir().join(format!("uring-arena-pool-{}", std::process::id()));
    /// let file = pool.file(std::fs::File::create(&path)?)?;
    /// let mut buffer = pool.try_allocate()?;
    /// buffer.put_slice(b"hello");
    /// file.write_at(buffer, 0).await?;
    /// assert_eq!(std::fs::read(&path)?, b"hello");
    /// # std::fs::remove_file(&path)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`read_at`](Self::read_at).
    pub async fn write_at(&self, memory: impl Into<Payload>, offset: u64) -> io::Result<()> {
        let payload = memory.into();
        match &self.0 {
            Inner::Blocking(file) => file.write_at(payload, offset).await,
            Inner::Ring(RingFile { key, engine }) => {
                engine.ask(|answer| Command::Write { key: *key, payload, offset, answer }).await
            }
        }
    }
}

impl Drop for RingFile {
    fn drop(&mut self) {
        self.engine.close(self.key);
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut file = f.debug_struct("File");
        if let Inner::Ring(ring) = &self.0 {
            file.field("key", &ring.key);
        }
        file.finish_non_exhaustive()
    }
}
