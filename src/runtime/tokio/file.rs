//! A file that is read and written through the pool: by the ring, or on the threads of tokio for
//! blocking work (`pread`, `pwrite`).
//!
//! # Safety
//!
//! Unsafe here: having the kernel read into a buffer's room, and counting the bytes as written.
#![allow(unsafe_code)]

use std::fmt;
use std::fs::File as StdFile;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use ::tokio::runtime::Handle;

use super::engine::EngineEnd;
use super::readiness::Shared;
use super::ring::RingFile;
use super::send_queue::drop_contained;
use crate::buffer::{Buffer, Payload};
use crate::sync::Arc;
#[cfg(target_os = "linux")]
use crate::system::DirectAlignment;

#[cfg(not(target_os = "linux"))]
use libc::pread;
#[cfg(target_os = "linux")]
use libc::pread64 as pread;

/// A file of a [`Pool`](super::Pool).
///
/// If the pool uses io_uring for files ([`Pool::engine`](super::Pool::engine)), reads and writes
/// use registered memory, and block no thread. Otherwise they block threads that tokio has for
/// that, and a descriptor without offsets (a socket, a pipe) is refused.
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

impl File {
    pub(super) fn on_ring(file: RingFile) -> File {
        File(Inner::Ring(file))
    }

    pub(super) fn blocking(file: OwnedFd, shared: Arc<Shared>) -> File {
        File(Inner::Blocking(BlockingFile::new(file, shared)))
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
            Inner::Ring(file) => file.read_at(buffer, offset).await,
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
            Inner::Ring(file) => file.write_at(payload, offset).await,
        }
    }

    /// Waits until the bytes of all writes that are over are on the disk, without metadata that is
    /// not needed to read them (`fdatasync`).
    ///
    /// If the future is dropped, the sync goes on. After a sync that failed, bytes before it may be
    /// lost, whatever a later one says.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use uring_arena::{FixedArena, tokio::Pool};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = Pool::new(FixedArena::new(16, 4096)?)?;
    /// let path = std::env::temp_dir().join(format!("uring-arena-sync-{}", std::process::id()));
    /// let log = pool.file(std::fs::File::create(&path)?)?;
    /// log.write_at(Bytes::from_static(b"a record"), 0).await?;
    /// log.sync_data().await?;
    /// # std::fs::remove_file(&path)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// That of fdatasync(2), of an earlier sync of the file through a ring, or
    /// [`BrokenPipe`](io::ErrorKind::BrokenPipe) if the pool was shut down.
    pub async fn sync_data(&self) -> io::Result<()> {
        match &self.0 {
            Inner::Blocking(file) => file.run(StdFile::sync_data).await,
            Inner::Ring(file) => file.sync_data().await,
        }
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").finish_non_exhaustive()
    }
}

/// A file whose reads and writes block threads that tokio has for that.
struct BlockingFile {
    file: Arc<StdFile>,
    shared: Arc<Shared>,
}

impl BlockingFile {
    fn new(file: OwnedFd, shared: Arc<Shared>) -> BlockingFile {
        BlockingFile { file: Arc::new(file.into()), shared }
    }

    /// Reads into the room behind the buffer's bytes, until it is full or the file ends.
    async fn read_at(&self, mut buffer: Buffer, offset: u64) -> io::Result<Buffer> {
        let room = buffer.capacity() - buffer.len();
        if room == 0 {
            let capacity = buffer.capacity();
            return Err(invalid(format!(
                "the buffer has no room left: its {capacity} bytes are all written; clear it, or give a new one"
            )));
        }
        let address = buffer.as_ptr().addr() + buffer.len();
        let is_direct = check(&self.file, offset, room, address)?;
        let read = move |file: &StdFile| {
            read_to_the_end(file, is_direct, &mut buffer, offset).map(|()| buffer)
        };
        self.run(read).await
    }

    /// Writes all of a payload.
    async fn write_at(&self, payload: Payload, offset: u64) -> io::Result<()> {
        let (len, address) = (payload.as_ref().len(), payload.as_ref().as_ptr().addr());
        if let Err(error) = check(&self.file, offset, len, address) {
            drop_contained(payload);
            return Err(error);
        }
        let write = move |file: &StdFile| {
            let result = file.write_all_at(payload.as_ref(), offset);
            drop_contained(payload);
            result
        };
        self.run(write).await
    }

    /// Runs a blocking call on the file. It goes on if the future is dropped.
    async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&StdFile) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.shared.check_open()?;
        let file = Arc::clone(&self.file);
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        let operation = self.shared.operation();
        let called = runtime.spawn_blocking(move || {
            let result = call(&file).map_err(explained);
            // The memory of the call is dropped before.
            drop(operation);
            result
        });
        match called.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(EngineEnd::Runtime.error()),
        }
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// Fails if no file has bytes at `offset`, or if the range is not aligned as `O_DIRECT` needs it.
///
/// Returns whether the file is open with `O_DIRECT`.
fn check(file: &StdFile, offset: u64, len: usize, address: usize) -> io::Result<bool> {
    let limit = i64::MAX as u64;
    if offset.checked_add(len as u64).is_none_or(|end| end > limit) {
        return Err(invalid(format!(
            "{len} bytes at offset {offset} reach beyond {limit}, the last offset of any file: give an offset in the file"
        )));
    }
    is_direct(file, offset, len, address)
}

#[cfg(target_os = "linux")]
fn is_direct(file: &StdFile, offset: u64, len: usize, address: usize) -> io::Result<bool> {
    match DirectAlignment::in_force(file)? {
        None => Ok(false),
        Some(alignment) => {
            alignment.check_range(offset, len, address)?;
            Ok(true)
        }
    }
}

/// Returns `false`: what `O_DIRECT` needs here, if there is such a flag, the error of a call says.
#[cfg(not(target_os = "linux"))]
fn is_direct(_: &StdFile, _: u64, _: usize, _: usize) -> io::Result<bool> {
    Ok(false)
}

/// Says what to do with what has no offsets.
fn explained(error: io::Error) -> io::Error {
    if error.raw_os_error() != Some(libc::ESPIPE) {
        return error;
    }
    let text = "a socket or a pipe has no offsets, which this engine reads and writes files by: use `Pool::stream` for a socket, or `Engine::Ring`";
    io::Error::new(io::ErrorKind::NotSeekable, text)
}

fn read_to_the_end(
    file: &StdFile,
    is_direct: bool,
    buffer: &mut Buffer,
    mut offset: u64,
) -> io::Result<()> {
    while buffer.len() < buffer.capacity() {
        let bytes = match read_once(file, buffer, offset) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        offset += bytes as u64;
        // A direct read that reached the end may have left the alignment of the next one.
        if bytes == 0 || is_direct && offset >= file.metadata()?.len() {
            break;
        }
    }
    Ok(())
}

/// Reads once, into the room behind the buffer's bytes.
fn read_once(file: &StdFile, buffer: &mut Buffer, offset: u64) -> io::Result<usize> {
    let room = buffer.spare_capacity_mut();
    let answer =
        // SAFETY: the room is this buffer's own, live during the call, and as long as said.
        unsafe { pread(file.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), offset as _) };
    let bytes = usize::try_from(answer).map_err(|_| io::Error::last_os_error())?;
    let len = buffer.len() + bytes;
    // SAFETY: the kernel wrote `bytes` bytes behind the written ones, within the capacity.
    unsafe { buffer.set_len(len) };
    Ok(bytes)
}
