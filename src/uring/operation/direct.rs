//! What an `O_DIRECT` file asks of offset, length and memory, and what a short read of it means.
//!
//! # Safety
//!
//! Unsafe here: `statx(2)`, which the standard library does not offer.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::buffer::Buffer;

/// `STATX_DIOALIGN`: Linux 6.1.
const STATX_DIOALIGN: u32 = 0x2000;

/// Where in `struct statx` the two numbers stand.
const DIO_MEM_ALIGN_AT: usize = 152;
const DIO_OFFSET_ALIGN_AT: usize = 156;
const STATX_MASK_AT: usize = 0;
const STATX_BYTES: usize = 256;

/// What every device is content with, where the kernel does not say: a page.
const SAFE_ALIGNMENT: u32 = 4096;

/// What a file asks of `O_DIRECT` operations, in bytes.
///
/// From `STATX_DIOALIGN` of [statx(2)](https://man7.org/linux/man-pages/man2/statx.2.html), Linux
/// 6.1; before that, and where the file system does not say, 4096.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectAlignment {
    /// Memory must begin on a multiple of this.
    pub memory: u32,
    /// Offset and length must be multiples of this.
    pub offset: u32,
}

impl DirectAlignment {
    /// Asks the file. `None` if it says that it does not support `O_DIRECT`.
    ///
    /// # Errors
    ///
    /// What statx(2) answers, but for a kernel that does not know the question.
    pub fn of(file: &impl AsFd) -> io::Result<Option<DirectAlignment>> {
        #[repr(C, align(8))]
        struct Statx([u8; STATX_BYTES]);

        let mut statx = Statx([0; STATX_BYTES]);
        // SAFETY: an empty path with AT_EMPTY_PATH asks of the open descriptor; the struct is live
        // and as large as the kernel's.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_statx,
                file.as_fd().as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH,
                STATX_DIOALIGN,
                &raw mut statx.0,
            )
        };
        let safe = DirectAlignment { memory: SAFE_ALIGNMENT, offset: SAFE_ALIGNMENT };
        if answer != 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ENOSYS) {
                Ok(Some(safe))
            } else {
                Err(error)
            };
        }
        let number = |at: usize| {
            let bytes = [statx.0[at], statx.0[at + 1], statx.0[at + 2], statx.0[at + 3]];
            u32::from_ne_bytes(bytes)
        };
        if number(STATX_MASK_AT) & STATX_DIOALIGN == 0 {
            return Ok(Some(safe));
        }
        let (memory, offset) = (number(DIO_MEM_ALIGN_AT), number(DIO_OFFSET_ALIGN_AT));
        Ok((memory > 0 && offset > 0).then_some(DirectAlignment { memory, offset }))
    }

    /// What is asked of a file that may be open without `O_DIRECT`: then nothing, `None`.
    pub(crate) fn in_force(file: &impl AsFd) -> io::Result<Option<DirectAlignment>> {
        // SAFETY: asks for flags; the descriptor is open while it is borrowed.
        let flags = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_GETFL) };
        if flags < 0 {
            return Err(io::Error::last_os_error());
        }
        if flags & libc::O_DIRECT == 0 {
            return Ok(None);
        }
        let safe = DirectAlignment { memory: SAFE_ALIGNMENT, offset: SAFE_ALIGNMENT };
        Ok(Some(DirectAlignment::of(file)?.unwrap_or(safe)))
    }

    /// Checks one operation: `len` bytes of memory at `address`, to or from `offset` in the file.
    ///
    /// ```
    /// # use uring_arena::{DirectAlignment, DirectError};
    /// let file = std::fs::File::open("/proc/self/exe")?;
    /// if let Some(alignment) = DirectAlignment::of(&file)? {
    ///     assert!(alignment.check_range(0, 8192, 1 << 20).is_ok());
    ///     let error = alignment.check_range(0, 8192 + 1, 1 << 20).unwrap_err();
    ///     assert!(matches!(error, DirectError::Length { len: 8193, .. }));
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`DirectError`], which names the number and what it must be a multiple of.
    pub fn check_range(&self, offset: u64, len: usize, address: usize) -> Result<(), DirectError> {
        if !offset.is_multiple_of(self.offset.into()) {
            return Err(DirectError::Offset { offset, required: self.offset });
        }
        if !len.is_multiple_of(self.offset as usize) {
            return Err(DirectError::Length { len, required: self.offset });
        }
        if !address.is_multiple_of(self.memory as usize) {
            return Err(DirectError::Address { address, required: self.memory });
        }
        Ok(())
    }

    /// Checks a read into the room of `buffer`.
    ///
    /// # Errors
    ///
    /// As for [`check_range`](Self::check_range).
    pub fn check_read(&self, buffer: &Buffer, offset: u64) -> Result<(), DirectError> {
        let address = buffer.as_ptr().addr() + buffer.len();
        self.check_range(offset, buffer.capacity() - buffer.len(), address)
    }

    /// Checks a write of `bytes`.
    ///
    /// # Errors
    ///
    /// As for [`check_range`](Self::check_range).
    pub fn check_write(&self, bytes: &[u8], offset: u64) -> Result<(), DirectError> {
        self.check_range(offset, bytes.len(), bytes.as_ptr().addr())
    }

    /// Whether a read that brought `read` bytes, fewer than asked for, can have more behind it.
    ///
    /// If it can, go on at the offset and the address that lie `read` bytes further: both are
    /// aligned still. If it cannot, the file ended there: an unaligned length is the file's own,
    /// and nothing could go on from it.
    ///
    /// ```
    /// # use uring_arena::DirectAlignment;
    /// # let file = std::fs::File::open("/proc/self/exe")?;
    /// # if let Some(alignment) = DirectAlignment::of(&file)? {
    /// assert!(alignment.may_go_on(4096));
    /// assert!(!alignment.may_go_on(4095));
    /// assert!(!alignment.may_go_on(0));
    /// # }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn may_go_on(&self, read: usize) -> bool {
        read > 0
            && read.is_multiple_of(self.offset as usize)
            && read.is_multiple_of(self.memory as usize)
    }
}

/// A file open with `O_DIRECT`, and what it asks of operations.
///
/// ```
/// use uring_arena::{DirectError, DirectFile};
///
/// match DirectFile::open("/proc/self/exe") {
///     Ok(file) => println!("{:?}", file.alignment()),
///     Err(error) => println!("{error}"),
/// }
/// ```
#[derive(Debug)]
pub struct DirectFile {
    file: File,
    alignment: DirectAlignment,
}

impl DirectFile {
    /// Opens a file for reading.
    ///
    /// # Errors
    ///
    /// An [`io::Error`] of opening; one that holds a [`DirectError::Unsupported`] if it is the file
    /// system that refuses `O_DIRECT`.
    pub fn open(path: impl AsRef<Path>) -> io::Result<DirectFile> {
        DirectFile::open_with(OpenOptions::new().read(true), path)
    }

    /// Opens a file as `options` say, and with `O_DIRECT`.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn open_with(options: &OpenOptions, path: impl AsRef<Path>) -> io::Result<DirectFile> {
        let path = path.as_ref();
        let unsupported = |reason: String| {
            let path = path.display().to_string();
            io::Error::new(io::ErrorKind::Unsupported, DirectError::Unsupported { path, reason })
        };
        let opened = options.clone().custom_flags(libc::O_DIRECT).open(path);
        let file = opened.map_err(|error| match error.raw_os_error() {
            // What open(2) says for O_DIRECT on a file system without it; the same without the flag
            // tells whether it was that.
            Some(libc::EINVAL) => unsupported("the file system refuses it".into()),
            _ => error,
        })?;
        match DirectAlignment::of(&file)? {
            Some(alignment) => Ok(DirectFile { file, alignment }),
            None => Err(unsupported("the file says that it does not support it".into())),
        }
    }

    /// What the file asks of operations.
    pub fn alignment(&self) -> DirectAlignment {
        self.alignment
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The file by value.
    pub fn into_file(self) -> File {
        self.file
    }
}

impl AsFd for DirectFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// An operation whose file is open with `O_DIRECT` and whose place or memory it does not allow.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectError {
    /// The file does not support direct I/O.
    #[error(
        "{path} cannot be read or written with O_DIRECT ({reason}): open it without, for buffered I/O"
    )]
    Unsupported {
        /// The file.
        path: String,
        /// What the system answered.
        reason: String,
    },
    /// The offset is not a multiple of the file's alignment.
    #[error(
        "O_DIRECT on this file needs offsets that are multiples of {required} bytes: {offset} is not"
    )]
    Offset {
        /// The offset asked for, in bytes.
        offset: u64,
        /// What it must be a multiple of, in bytes.
        required: u32,
    },
    /// The length is not a multiple of the file's alignment.
    #[error(
        "O_DIRECT on this file needs lengths that are multiples of {required} bytes: {len} is not; \
         read the last part of a file with an aligned length that reaches past its end"
    )]
    Length {
        /// The length asked for, in bytes.
        len: usize,
        /// What it must be a multiple of, in bytes.
        required: u32,
    },
    /// The memory does not begin on a multiple of the file's alignment.
    #[error(
        "O_DIRECT on this file needs memory that begins on a multiple of {required} bytes: {address:#x} does not; \
         build the arena with alignment({required}) and start at the slot's first byte"
    )]
    Address {
        /// Where the memory begins.
        address: usize,
        /// What it must be a multiple of, in bytes.
        required: u32,
    },
}

debug_is_display!(DirectError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_stand_where_the_kernel_puts_them() {
        assert_eq!(size_of::<libc::statx>(), STATX_BYTES);
        assert_eq!(std::mem::offset_of!(libc::statx, stx_mask), STATX_MASK_AT);
        assert_eq!(std::mem::offset_of!(libc::statx, stx_mnt_id), 144);
    }

    #[test]
    fn each_number_is_checked_by_name() {
        let alignment = DirectAlignment { memory: 4, offset: 512 };
        assert!(matches!(
            alignment.check_range(100, 512, 0),
            Err(DirectError::Offset { required: 512, .. })
        ));
        assert!(matches!(
            alignment.check_range(512, 100, 0),
            Err(DirectError::Length { required: 512, .. })
        ));
        assert!(matches!(
            alignment.check_range(512, 512, 2),
            Err(DirectError::Address { required: 4, .. })
        ));
        assert!(alignment.check_range(512, 1024, 4).is_ok());
    }
}
