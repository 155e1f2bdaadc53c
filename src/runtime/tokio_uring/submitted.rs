//! Reads and writes that keep their slots until their completion has been seen.
//!
//! # Safety
//!
//! Unsafe here: telling a buffer how many bytes the kernel has written. An entry has
//! the address and the length of the memory that travels with the operation. That memory is not
//! touched until the completion, and never freed without one.
#![allow(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use ::tokio_uring::{InFlightOneshot, OneshotOutputTransform, UnsubmittedOneshot};
use io_uring_06::{cqueue, opcode, squeue, types};

use super::guard::RuntimeGuard;
use crate::buffer::{Buffer, IoMemory};
use crate::runtime::liveness::{Guard, LoanCount};

/// A descriptor that tokio-uring reads from and writes to: its `File`, `TcpStream`, `UnixStream` or
/// `UdpSocket`. The trait is sealed.
///
/// ```
/// use uring_arena::tokio_uring::Descriptor;
///
/// fn can_be_read<D: Descriptor>() {}
/// can_be_read::<tokio_uring::fs::File>();
/// can_be_read::<tokio_uring::net::TcpStream>();
/// ```
pub trait Descriptor: sealed::Sealed + AsRawFd + 'static {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! descriptors {
    ($($kind:path),*) => {$(
        impl sealed::Sealed for $kind {}
        impl Descriptor for $kind {}
    )*};
}

descriptors!(
    ::tokio_uring::fs::File,
    ::tokio_uring::net::TcpStream,
    ::tokio_uring::net::UnixStream,
    ::tokio_uring::net::UdpSocket
);

/// Reads from a socket, or from a file at its own position, into the buffer. The buffer's length
/// becomes the number of bytes read.
///
/// # Panics
///
/// Outside a tokio-uring runtime.
///
/// ```
/// # use std::rc::Rc;
/// use bytes::BufMut;
/// use uring_arena::{FixedArena, tokio_uring as arena_io};
///
/// let arena = FixedArena::new(8, 4096)?;
/// tokio_uring::start(async {
///     let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
///     let stream = |end| Rc::new(tokio_uring::net::UnixStream::from_std(end));
///     let (ours, theirs) = (stream(ours), stream(theirs));
///     let mut hello = arena.allocate()?;
///     hello.put_slice(b"hello");
///     let (sent, hello) = arena_io::write(&ours, hello.freeze()).await;
///     let (read, buffer) = arena_io::read(&theirs, arena.allocate()?).await;
///     assert_eq!((sent?, read?), (5, 5));
///     assert_eq!(hello, buffer.freeze());
///     Ok::<(), Box<dyn std::error::Error>>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read<D: Descriptor>(from: &Rc<D>, buffer: Buffer) -> Submitted<Buffer> {
    Submitted::read(Target::unregistered(), from, buffer, OWN_POSITION)
}

/// Reads from a file at `offset` into the buffer. The buffer's length becomes the number of bytes
/// read. An offset that no file has gives `EINVAL`.
///
/// # Panics
///
/// Outside a tokio-uring runtime.
///
/// ```
/// # use std::rc::Rc;
/// use uring_arena::{FixedArena, tokio_uring as arena_io};
///
/// let arena = FixedArena::new(8, 4096)?;
/// tokio_uring::start(async {
///     let file = Rc::new(tokio_uring::fs::File::open("Cargo.toml").await?);
///     let (read, buffer) = arena_io::read_at(&file, arena.allocate()?, 0).await;
///     assert_eq!(read?, buffer.len());
///     Ok::<(), Box<dyn std::error::Error>>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_at(
    file: &Rc<::tokio_uring::fs::File>,
    buffer: Buffer,
    offset: u64,
) -> Submitted<Buffer> {
    Submitted::read(Target::unregistered(), file, buffer, file_offset(offset))
}

/// Writes a buffer's bytes, or frozen ones, to a socket, or to a file at its own position. Returns
/// their number, which may be less than there are. [`read`] has an example.
///
/// # Panics
///
/// Outside a tokio-uring runtime.
pub fn write<D: Descriptor, B: IoMemory + AsRef<[u8]>>(to: &Rc<D>, item: B) -> Submitted<B> {
    Submitted::write(Target::unregistered(), to, item, OWN_POSITION)
}

/// Writes a buffer's bytes, or frozen ones, to a file at `offset`. Returns their number, which may
/// be less than there are. An offset that no file has gives `EINVAL`.
///
/// # Panics
///
/// Outside a tokio-uring runtime.
///
/// ```
/// # use std::rc::Rc;
/// use bytes::BufMut;
/// use uring_arena::{FixedArena, tokio_uring as arena_io};
///
/// let arena = FixedArena::new(8, 4096)?;
/// let path = std::env::temp_dir().join(format!("uring-arena-write-{}", std::process::id()));
/// tokio_uring::start(async {
///     let file = Rc::new(tokio_uring::fs::File::create(&path).await?);
///     let mut buffer = arena.allocate()?;
///     buffer.put_slice(b"hello");
///     let (written, _) = arena_io::write_at(&file, buffer, 0).await;
///     assert_eq!(written?, 5);
///     Ok::<(), Box<dyn std::error::Error>>(())
/// })?;
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_at<B: IoMemory + AsRef<[u8]>>(
    file: &Rc<::tokio_uring::fs::File>,
    item: B,
    offset: u64,
) -> Submitted<B> {
    Submitted::write(Target::unregistered(), file, item, file_offset(offset))
}

/// The offset that means the file's own position. Sockets take no other.
pub(super) const OWN_POSITION: u64 = u64::MAX;

/// Returns the offset for an entry: one that the kernel refuses (`EINVAL`) if no file has it, as it
/// would mean the own position, or none.
pub(super) fn file_offset(offset: u64) -> u64 {
    const NO_OFFSET: u64 = 1 << 63;
    if offset > i64::MAX as u64 { NO_OFFSET } else { offset }
}

/// The runtime of an operation, and the registered memory that it uses.
///
/// Found before anything is in flight: outside a tokio-uring runtime that panics.
pub(super) struct Target {
    pub(super) guard: Rc<RuntimeGuard>,
    /// The entry of the ring's buffer table that holds the memory.
    pub(super) buffer_index: Option<u16>,
}

impl Target {
    fn unregistered() -> Target {
        Target { guard: RuntimeGuard::current(), buffer_index: None }
    }
}

/// A read or a write in flight: a future of its result and the memory.
///
/// The operation runs whether the future is polled or not. When the future is dropped, the slot
/// stays in use until the kernel has completed the operation. A read from a silent socket goes on
/// until [`drain`](super::drain) cancels it, and swallows the bytes that arrive first.
#[must_use = "the memory comes back with the result"]
pub struct Submitted<B: IoMemory> {
    in_flight: Option<InFlightOneshot<PendingBuffer<B>, Complete<B>>>,
    descriptor: RawFd,
    guard: Rc<RuntimeGuard>,
}

impl Submitted<Buffer> {
    pub(super) fn read<D: Descriptor>(
        target: Target,
        from: &Rc<D>,
        mut buffer: Buffer,
        offset: u64,
    ) -> Submitted<Buffer> {
        let descriptor = types::Fd(from.as_raw_fd());
        let (start, len) = (buffer.as_mut_ptr(), entry_len(buffer.capacity()));
        let entry = match target.buffer_index {
            Some(index) => {
                opcode::ReadFixed::new(descriptor, start, len, index).offset(offset).build()
            }
            None => opcode::Read::new(descriptor, start, len).offset(offset).build(),
        };
        let set_len = |buffer: &mut Buffer, read| {
            // SAFETY: the kernel wrote this many bytes from the start on, and no more than the
            // capacity that it was given.
            unsafe { buffer.set_len(read) };
        };
        Submitted::new(target.guard, from, buffer, entry, set_len)
    }
}

impl<B: IoMemory + AsRef<[u8]>> Submitted<B> {
    pub(super) fn write<D: Descriptor>(
        target: Target,
        to: &Rc<D>,
        memory: B,
        offset: u64,
    ) -> Submitted<B> {
        let descriptor = types::Fd(to.as_raw_fd());
        let (start, len) = (memory.as_ref().as_ptr(), entry_len(memory.as_ref().len()));
        // An empty range is in no registered buffer.
        let entry = match target.buffer_index.filter(|_| len > 0) {
            Some(index) => {
                opcode::WriteFixed::new(descriptor, start, len, index).offset(offset).build()
            }
            None => opcode::Write::new(descriptor, start, len).offset(offset).build(),
        };
        Submitted::new(target.guard, to, memory, entry, |_, _| {})
    }
}

impl<B: IoMemory> Submitted<B> {
    fn new<D: Descriptor>(
        guard: Rc<RuntimeGuard>,
        descriptor: &Rc<D>,
        memory: B,
        entry: squeue::Entry,
        on_success: fn(&mut B, usize),
    ) -> Submitted<B> {
        let pending = PendingBuffer {
            memory: Some(memory),
            _count: Rc::clone(guard.liveness()).begin_loan(),
            _descriptor: Rc::clone(descriptor) as Rc<dyn Any>,
        };
        let in_flight = UnsubmittedOneshot::new(pending, Complete { on_success }, entry).submit();
        Submitted { in_flight: Some(in_flight), descriptor: descriptor.as_raw_fd(), guard }
    }
}

/// Returns the length for an entry. The kernel moves no more than `u32::MAX` in one go anyway.
fn entry_len(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

impl<B: IoMemory> Future for Submitted<B> {
    type Output = (io::Result<usize>, B);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let in_flight = self.in_flight.as_mut().expect("polled after it was ready");
        let output = ready!(Pin::new(in_flight).poll(context));
        self.in_flight = None;
        Poll::Ready(output)
    }
}

impl<B: IoMemory> Drop for Submitted<B> {
    fn drop(&mut self) {
        let Some(in_flight) = self.in_flight.take() else { return };
        if self.guard.liveness().is_alive() {
            self.guard.adopt(Box::pin(async move { drop(in_flight.await) }), self.descriptor);
        }
        // Otherwise nothing will see the completion: the memory is quarantined.
    }
}

impl<B: IoMemory> fmt::Debug for Submitted<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitted").field("descriptor", &self.descriptor).finish_non_exhaustive()
    }
}

/// The memory that the kernel is using. Only its completion gives the memory back.
struct PendingBuffer<B: IoMemory> {
    /// Always there until the completion.
    memory: Option<B>,
    _count: LoanCount,
    /// Kept open, so that the number means the same until the end.
    _descriptor: Rc<dyn Any>,
}

impl<B: IoMemory> Drop for PendingBuffer<B> {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            memory.quarantine();
        }
    }
}

/// The result of a completion, and the change that it makes to the memory.
struct Complete<B> {
    on_success: fn(&mut B, usize),
}

impl<B: IoMemory> OneshotOutputTransform for Complete<B> {
    type Output = (io::Result<usize>, B);
    type StoredData = PendingBuffer<B>;

    fn transform_oneshot_output(
        self,
        mut pending: PendingBuffer<B>,
        cqe: cqueue::Entry,
    ) -> Self::Output {
        let mut memory = pending.memory.take().expect("there until the completion");
        match usize::try_from(cqe.result()) {
            Ok(transferred) => {
                (self.on_success)(&mut memory, transferred);
                (Ok(transferred), memory)
            }
            Err(_) => (Err(io::Error::from_raw_os_error(-cqe.result())), memory),
        }
    }
}
