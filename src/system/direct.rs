//! The alignment that an `O_DIRECT` file needs, and the meaning of a short read from one.
//!
//! # Safety
//!
//! Unsafe here: `statx(2)`, which the standard library does not offer.
#![allow(unsafe_code)]

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::buffer::Buffer;

/// Bytes that the kernel moves in one operation at most (`MAX_RW_COUNT`): a page less than 2 GiB.
pub(crate) const TRANSFER_BYTES_MAX: usize = 0x7fff_f000;

/// The flag `STATX_DIOALIGN` (Linux 6.1).
const STATX_DIOALIGN: u32 = 0x2000;

/// The offsets of the fields in `struct statx`, in bytes.
const DIO_MEM_ALIGN_AT: usize = 152;
const DIO_OFFSET_ALIGN_AT: usize = 156;
const STATX_MASK_AT: usize = 0;
const STATX_BYTES: usize = 256;

/// The alignment that every device accepts: a page. It holds if the kernel reports none.
const SAFE_ALIGNMENT: u32 = 4096;

/// The alignment that a file needs for `O_DIRECT` operations, in bytes.
///
/// The numbers come from `STATX_DIOALIGN` of
/// [statx(2)](https://man7.org/linux/man-pages/man2/statx.2.html), Linux 6.1. Before that, and if
/// the file system reports none, they are 4096.
///
/// ```
/// let file = std::fs::File::open("/proc/self/exe")?;
/// if let Some(alignment) = uring_arena::DirectAlignment::of(&file)? {
///     println!("{alignment}"); // for example: memory 4, offset 512
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectAlignment {
    /// The number of bytes on a multiple of which memory must begin.
    pub memory: u32,
    /// The number of bytes of which offset and length must be multiples.
    pub offset: u32,
}

/// Writes both numbers, in bytes.
impl fmt::Display for DirectAlignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory {}, offset {}", self.memory, self.offset)
    }
}

impl DirectAlignment {
    /// Asks the file system for the alignment of a file. Returns `None` if the file does not
    /// support `O_DIRECT`.
    ///
    /// The example of [`check_range`](Self::check_range) shows it.
    ///
    /// # Errors
    ///
    /// The error of statx(2). A kernel without statx(2) is no error.
    pub fn of(file: &impl AsFd) -> io::Result<Option<DirectAlignment>> {
        #[repr(C, align(8))]
        struct Statx([u8; STATX_BYTES]);

        let mut statx = Statx([0; STATX_BYTES]);
        // SAFETY: an empty path with AT_EMPTY_PATH means the open descriptor; the struct is live
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

    /// Returns the alignment of a file, or `None` if the file is open without `O_DIRECT`.
    pub(crate) fn in_force(file: &impl AsFd) -> io::Result<Option<DirectAlignment>> {
        // SAFETY: reads flags only; the descriptor is open while it is borrowed.
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

    /// Checks one operation on `len` bytes of memory at `address`, to or from `offset` in the file.
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
    /// [`DirectError`], which names the number and the alignment.
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
    /// ```
    /// # use std::num::NonZeroUsize;
    /// use uring_arena::{DirectAlignment, FixedArena};
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    ///
    /// let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
    /// # let file = std::fs::File::open("/proc/self/exe")?;
    /// if let Some(alignment) = DirectAlignment::of(&file)? {
    ///     alignment.check_read(&arena.allocate()?, 0)?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # use uring_arena::{DirectAlignment, DirectError};
    /// # let file = std::fs::File::open("/proc/self/exe")?;
    /// if let Some(alignment) = DirectAlignment::of(&file)? {
    ///     assert!(alignment.check_write(&[0; 3], 0).is_err());
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`check_range`](Self::check_range).
    pub fn check_write(&self, bytes: &[u8], offset: u64) -> Result<(), DirectError> {
        self.check_range(offset, bytes.len(), bytes.as_ptr().addr())
    }

    /// Returns the most bytes of one operation after which another may go on: as many as the kernel
    /// moves at once, in whole units of the alignment.
    #[cfg(feature = "io-uring")]
    pub(crate) fn len_max(&self) -> usize {
        let unit = self.offset.max(self.memory).max(1) as usize;
        TRANSFER_BYTES_MAX / unit * unit
    }

    /// Returns whether more bytes can follow a read that brought `read` bytes, fewer than asked
    /// for.
    ///
    /// If so, go on at the offset and the address that lie `read` bytes further: both are still
    /// aligned. If not, the file ended there, because an unaligned length is the file's end.
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

/// A file open with `O_DIRECT`, and the alignment that it needs.
///
/// ```
/// use uring_arena::DirectFile;
///
/// match DirectFile::open("/proc/self/exe") {
///     Ok(file) => println!("{}", file.alignment()),
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
    /// The [`io::Error`] of opening. If the file system refuses `O_DIRECT`, the error holds a
    /// [`DirectError::Unsupported`].
    ///
    /// The example of [`DirectFile`] shows it.
    pub fn open(path: impl AsRef<Path>) -> io::Result<DirectFile> {
        DirectFile::open_with(OpenOptions::new().read(true), path)
    }

    /// Opens a file with these options and with `O_DIRECT`.
    ///
    /// ```no_run
    /// use uring_arena::DirectFile;
    ///
    /// let options = std::fs::OpenOptions::new().read(true).write(true).clone();
    /// let file = DirectFile::open_with(&options, "data")?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn open_with(options: &OpenOptions, path: impl AsRef<Path>) -> io::Result<DirectFile> {
        let path = path.as_ref();
        let unsupported = |reason: String| {
            let path = path.display().to_string();
            io::Error::from(DirectError::Unsupported { path, reason })
        };
        let opened = options.clone().custom_flags(libc::O_DIRECT).open(path);
        let file = opened.map_err(|error| match error.raw_os_error() {
            // The error of open(2) with O_DIRECT on a file system that has no direct I/O.
            Some(libc::EINVAL) => unsupported("the file system refuses it".into()),
            _ => error,
        })?;
        match DirectAlignment::of(&file)? {
            Some(alignment) => Ok(DirectFile { file, alignment }),
            None => Err(unsupported("the file says that it does not support it".into())),
        }
    }

    /// Returns the alignment that the file needs.
    pub fn alignment(&self) -> DirectAlignment {
        self.alignment
    }

    /// Returns the file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Returns the file by value.
    ///
    /// ```no_run
    /// use std::os::fd::OwnedFd;
    /// use uring_arena::DirectFile;
    ///
    /// let file = DirectFile::open("data")?.into_file();
    /// let descriptor: OwnedFd = DirectFile::open("data")?.into(); // for `Driver::add_file`
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn into_file(self) -> File {
        self.file
    }
}

impl AsFd for DirectFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// An operation on an `O_DIRECT` file whose offset, length or memory is not aligned.
///
/// ```
/// use uring_arena::DirectError;
///
/// let error = DirectError::Offset { offset: 100, required: 512 };
/// assert!(error.to_string().contains("multiples of 512 bytes: 100 is not"));
/// ```
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
        /// The reason in words.
        reason: String,
    },
    /// The offset is not a multiple of the file's alignment.
    #[error(
        "O_DIRECT on this file needs offsets that are multiples of {required} bytes: {offset} is not; round it down and skip the first bytes"
    )]
    Offset {
        /// The offset asked for, in bytes.
        offset: u64,
        /// The alignment in bytes.
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
        /// The alignment in bytes.
        required: u32,
    },
    /// The memory does not begin on a multiple of the file's alignment.
    #[error(
        "O_DIRECT on this file needs memory that begins on a multiple of {required} bytes: {address:#x} does not; \
         build the arena with alignment({required}) and start at the slot's first byte"
    )]
    Address {
        /// The address of the memory.
        address: usize,
        /// The alignment in bytes.
        required: u32,
    },
}

debug_is_display!(DirectError);
into_io_error!(DirectError);

impl DirectError {
    /// Returns the kind of the error as an `io::Error`.
    pub(crate) fn kind(&self) -> io::ErrorKind {
        match self {
            DirectError::Unsupported { .. } => io::ErrorKind::Unsupported,
            _ => io::ErrorKind::InvalidInput,
        }
    }
}

/// For [`Driver::add_file`](crate::Driver::add_file).
impl From<DirectFile> for OwnedFd {
    fn from(file: DirectFile) -> OwnedFd {
        file.file.into()
    }
}

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
