//! A file that is read and written through the pool's ring.

use std::fmt;
use std::io;

use ::tokio::sync::oneshot;

use super::mailbox::{Command, FileKey, is_shut_down};
use super::pool::Shared;
use crate::buffer::{Buffer, Payload};
use crate::sync::Arc;

/// A file of a [`Pool`](super::Pool): reads into its buffers and writes from its bytes, with the
/// memory registered, no threads blocked.
///
/// ```
/// # use std::num::NonZeroUsize;
/// use uring_arena::{FixedArena, tokio::Pool};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// # let (count, bytes) = (NonZeroUsize::new(16).unwrap(), NonZeroUsize::new(4096).unwrap());
/// let pool = Pool::new(FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?)?;
/// let file = pool.file(std::fs::File::open("Cargo.toml")?)?;
/// let head = file.read_at(pool.allocate()?, 0).await?.freeze();
/// assert!(head.starts_with(b"[workspace]"));
/// # Ok(())
/// # })
/// # }
/// ```
pub struct File {
    key: FileKey,
    shared: Arc<Shared>,
}

impl File {
    pub(super) fn new(shared: Arc<Shared>, file: std::os::fd::OwnedFd) -> File {
        let key = shared.mailbox.new_key();
        shared.mailbox.post(Command::Open { key, file });
        File { key, shared }
    }

    /// Reads from `offset` into the room behind what the buffer holds, until it is full or the file
    /// ends.
    ///
    /// If the future is dropped, the read goes on, and its slot is free when it is over.
    ///
    /// # Errors
    ///
    /// What the file answers; an `O_DIRECT` file that is not asked as it wants; a buffer without
    /// room; [`BrokenPipe`](io::ErrorKind::BrokenPipe) if the pool was shut down. The buffer's slot
    /// is free then.
    pub async fn read_at(&self, buffer: Buffer, offset: u64) -> io::Result<Buffer> {
        let (answer, answered) = oneshot::channel();
        self.shared.mailbox.post(Command::Read { key: self.key, buffer, offset, answer });
        answered.await.unwrap_or_else(|_| Err(is_shut_down()))
    }

    /// Writes a buffer, [`ArenaBytes`](crate::ArenaBytes) or [`Bytes`](bytes::Bytes) to `offset`,
    /// all of it. If the future is dropped, the write goes on.
    ///
    /// # Errors
    ///
    /// As for [`read_at`](Self::read_at).
    pub async fn write_at(&self, memory: impl Into<Payload>, offset: u64) -> io::Result<()> {
        let (answer, answered) = oneshot::channel();
        let payload = memory.into();
        self.shared.mailbox.post(Command::Write { key: self.key, payload, offset, answer });
        answered.await.unwrap_or_else(|_| Err(is_shut_down()))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.shared.mailbox.post(Command::CloseFile { key: self.key });
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("key", &self.key).finish_non_exhaustive()
    }
}
