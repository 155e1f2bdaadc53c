//! Files on the threads of tokio for blocking work: `pread` and `pwrite`.
//!
//! # Safety
//!
//! Unsafe here: having the kernel read into a buffer's room, and counting the bytes as written.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use ::tokio::runtime::Handle;

use super::shared::Shared;
use crate::buffer::{Buffer, Payload};
use crate::driver::TransferError;
use crate::runtime::tokio::engine::EngineEnd;
use crate::runtime::tokio::send_queue::drop_contained;
use crate::sync::Arc;
use crate::uring::DirectAlignment;

/// A file whose reads and writes block threads that tokio has for that.
pub(crate) struct BlockingFile {
    file: Arc<File>,
    shared: Arc<Shared>,
}

impl BlockingFile {
    pub(crate) fn new(file: OwnedFd, shared: Arc<Shared>) -> BlockingFile {
        BlockingFile { file: Arc::new(file.into()), shared }
    }

    /// Reads into the room behind the buffer's bytes, until it is full or the file ends.
    pub(crate) async fn read_at(&self, mut buffer: Buffer, offset: u64) -> io::Result<Buffer> {
        let room = buffer.capacity() - buffer.len();
        if room == 0 {
            return Err(TransferError::NoRoom { capacity: buffer.capacity() }.into());
        }
        let address = buffer.as_ptr().addr() + buffer.len();
        let read = move |file: &File, is_direct| {
            read_to_the_end(file, is_direct, &mut buffer, offset).map(|()| buffer)
        };
        self.run(offset, room, address, read).await
    }

    /// Writes all of a payload.
    pub(crate) async fn write_at(&self, payload: Payload, offset: u64) -> io::Result<()> {
        let (len, address) = (payload.as_ref().len(), payload.as_ref().as_ptr().addr());
        if let Err(error) = check(&self.file, offset, len, address) {
            drop_contained(payload);
            return Err(error);
        }
        let write = move |file: &File, _| {
            let result = file.write_all_at(payload.as_ref(), offset);
            drop_contained(payload);
            result
        };
        self.run(offset, len, address, write).await
    }

    /// Runs a blocking call on the file. It goes on if the future is dropped.
    async fn run<T: Send + 'static>(
        &self,
        offset: u64,
        len: usize,
        address: usize,
        call: impl FnOnce(&File, bool) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.shared.check_open()?;
        let file = Arc::clone(&self.file);
        let is_direct = check(&file, offset, len, address)?;
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        let operation = self.shared.operation();
        let called = runtime.spawn_blocking(move || {
            let result = call(&file, is_direct).map_err(explained);
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

/// Fails if no file has bytes at `offset`, or if the range is not aligned as `O_DIRECT` needs it.
///
/// Returns whether the file is open with `O_DIRECT`.
fn check(file: &File, offset: u64, len: usize, address: usize) -> io::Result<bool> {
    let limit = i64::MAX as u64;
    if offset.checked_add(len as u64).is_none_or(|end| end > limit) {
        return Err(TransferError::Offset { offset, len, limit }.into());
    }
    match DirectAlignment::in_force(file)? {
        None => Ok(false),
        Some(alignment) => {
            alignment.check_range(offset, len, address)?;
            Ok(true)
        }
    }
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
    file: &File,
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
fn read_once(file: &File, buffer: &mut Buffer, offset: u64) -> io::Result<usize> {
    let room = buffer.spare_capacity_mut();
    // SAFETY: the room is this buffer's own, live during the call, and as long as said.
    let answer = unsafe {
        libc::pread64(file.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), offset as i64)
    };
    let bytes = usize::try_from(answer).map_err(|_| io::Error::last_os_error())?;
    let len = buffer.len() + bytes;
    // SAFETY: the kernel wrote `bytes` bytes behind the written ones, within the capacity.
    unsafe { buffer.set_len(len) };
    Ok(bytes)
}
