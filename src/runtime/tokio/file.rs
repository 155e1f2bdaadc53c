//! A file that is read and written through the pool.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use super::ring::{Command, EngineHandle, FileKey};
use crate::buffer::{Buffer, Payload};
use crate::sync::Arc;

/// A file of a [`Pool`](super::Pool). Its reads and writes use registered memory, and block no
/// thread.
///
/// ```
/// use uring_arena::{FixedArena, tokio::Pool};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = Pool::new(FixedArena::new(16, 4096)?)?;
/// let file = pool.file(std::fs::File::open("Cargo.toml")?)?;
/// let head = file.read_at(pool.allocate()?, 0).await?.freeze();
/// assert!(head.starts_with(b"[workspace]"));
/// # Ok(())
/// # }
/// ```
pub struct File {
    key: FileKey,
    engine: Arc<EngineHandle>,
}

impl File {
    pub(super) fn new(engine: Arc<EngineHandle>, file: OwnedFd) -> File {
        File { key: engine.open(file), engine }
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
        self.engine.ask(|answer| Command::Read { key: self.key, buffer, offset, answer }).await
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
    /// let mut buffer = pool.allocate()?;
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
        self.engine.ask(|answer| Command::Write { key: self.key, payload, offset, answer }).await
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.engine.close(self.key);
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("key", &self.key).finish_non_exhaustive()
    }
}
