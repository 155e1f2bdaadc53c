//! Reads, writes and sends that keep their slots until their completion has been seen.
//!
//! # Safety
//!
//! Unsafe here: telling a buffer how many bytes the kernel has written. An entry has
//! the address and the length of the memory that travels with the operation. That memory is not
//! touched until the completion, and never freed without one.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use ::tokio_uring::{InFlightOneshot, OneshotOutputTransform, UnsubmittedOneshot};
use io_uring_06::{cqueue, opcode, squeue, types};

use super::guard::{AttachError, RuntimeGuard, in_runtime};
use crate::buffer::{Buffer, IoMemory};
use crate::runtime::liveness::{Guard, Life, LoanCount};
use crate::runtime::transfer::{Attempt, SendOn, WholeSend, check_offset, check_room};

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

/// Reads from a socket, or from a file at its own position, into the room behind the buffer's
/// bytes. Returns the number of bytes read, by which the buffer is longer.
///
/// # Errors
///
/// The result is an error of kind [`InvalidInput`](io::ErrorKind::InvalidInput) if the buffer is
/// full, and [`AttachError::NotInRuntime`] outside a tokio-uring runtime. The buffer comes back.
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
    Submitted::read(Target::unregistered(), from, buffer, None)
}

/// Reads from a file at `offset` into the room behind the buffer's bytes. Returns the number of
/// bytes read, by which the buffer is longer.
///
/// # Errors
///
/// As for [`read`]; also [`InvalidInput`](io::ErrorKind::InvalidInput) if offset and room together
/// are larger than `i64::MAX`.
///
/// ```
/// # use std::rc::Rc;
/// use uring_arena::{FixedArena, tokio_uring as arena_io};
///
/// let arena = FixedArena::new(8, 4096)?;
/// tokio_uring::start(async {
///     let file = Rc::new(tokio_uring::fs::File::open("README.md").await?);
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
    Submitted::read(Target::unregistered(), file, buffer, Some(offset))
}

/// Writes a buffer's bytes, or frozen ones, to a socket, or to a file at its own position. Returns
/// their number, which may be less than there are. [`read`] has an example.
///
/// # Errors
///
/// The result is [`AttachError::NotInRuntime`] outside a tokio-uring runtime. The item comes back.
pub fn write<D: Descriptor, B: IoMemory + AsRef<[u8]>>(to: &Rc<D>, item: B) -> Submitted<B> {
    Submitted::write(Target::unregistered(), to, item, None)
}

/// Writes a buffer's bytes, or frozen ones, to a file at `offset`. Returns their number, which may
/// be less than there are.
///
/// # Errors
///
/// As for [`write()`]; also [`InvalidInput`](io::ErrorKind::InvalidInput) if offset and length
/// together are larger than `i64::MAX`.
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
    Submitted::write(Target::unregistered(), file, item, Some(offset))
}

/// Sends a buffer's bytes, or frozen ones, on a connected socket, all of them. Returns their
/// number.
///
/// [`SendAll`] says what happens if the future is dropped.
///
/// # Errors
///
/// The result is [`AttachError::NotInRuntime`] outside a tokio-uring runtime. The error of the
/// socket; if a part was sent, the connection is reset.
///
/// ```
/// # use std::rc::Rc;
/// use bytes::BufMut;
/// use uring_arena::{FixedArena, tokio_uring as arena_io};
///
/// let arena = FixedArena::new(8, 4096)?;
/// tokio_uring::start(async {
///     let (near, mut far) = std::os::unix::net::UnixStream::pair()?;
///     let near = Rc::new(tokio_uring::net::UnixStream::from_std(near));
///     let mut buffer = arena.allocate()?;
///     buffer.put_slice(b"hello");
///     let (sent, _) = arena_io::send_all(&near, buffer.freeze()).await;
///     assert_eq!(sent?, 5);
///     std::io::Read::read_exact(&mut far, &mut [0; 5])?;
///     Ok::<(), Box<dyn std::error::Error>>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn send_all<D: Descriptor, B: IoMemory + AsRef<[u8]>>(socket: &Rc<D>, item: B) -> SendAll<B> {
    let guard = match RuntimeGuard::current() {
        Ok(guard) => guard,
        Err(error) => return SendAll { send: WholeSend::refused(error.into(), item) },
    };
    let (len, descriptor) = (item.as_ref().len(), socket.as_raw_fd());
    let (liveness, queues) = (guard.liveness().clone(), guard.sends.clone());
    let socket = OnSocket { guard, socket: Rc::clone(socket) };
    SendAll { send: WholeSend::new(&liveness, &queues, descriptor, (item, len), socket) }
}

/// A socket on a runtime.
struct OnSocket<D> {
    guard: Rc<RuntimeGuard>,
    socket: Rc<D>,
}

impl<D: Descriptor, B: IoMemory + AsRef<[u8]>> SendOn<B> for OnSocket<D> {
    fn send(
        &self,
        item: B,
        skip: usize,
        attempt: Attempt,
    ) -> impl Future<Output = (io::Result<usize>, B)> {
        let target = Target { guard: Ok(Rc::clone(&self.guard)), buffer_index: None };
        Submitted::send(target, &self.socket, item, skip, attempt)
    }

    async fn writable(&self) -> io::Result<()> {
        if !self.guard.liveness().lasts() {
            return Err(not_in_runtime());
        }
        let descriptor = types::Fd(self.socket.as_raw_fd());
        let entry = opcode::PollAdd::new(descriptor, libc::POLLOUT as u32).build();
        let count = self.guard.liveness().clone().begin_loan();
        let kept: Rc<dyn Any> = self.socket.clone();
        let poll = UnsubmittedOneshot::new((count, kept), Writable, entry);
        in_runtime(|| poll.submit())?.await
    }
}

/// The result of a poll.
struct Writable;

impl OneshotOutputTransform for Writable {
    type Output = io::Result<()>;
    type StoredData = (LoanCount, Rc<dyn Any>);

    fn transform_oneshot_output(self, _: Self::StoredData, cqe: cqueue::Entry) -> io::Result<()> {
        if cqe.result() < 0 { Err(io::Error::from_raw_os_error(-cqe.result())) } else { Ok(()) }
    }
}

/// A send that goes out whole: a future of its result and the memory.
///
/// It begins when it is first polled. Sends of one descriptor go out one after the other, in the
/// order in which they began.
///
/// A send that is dropped before its turn sends nothing. Later it goes on without its future, and
/// the next send waits for it. If the runtime ends meanwhile, or [`drain`](super::drain) cancels
/// it, the connection is reset: no peer takes the part for the whole. A Unix socket has no reset;
/// its peer sees the end of the stream.
#[must_use = "futures do nothing unless polled"]
pub struct SendAll<B: IoMemory> {
    send: WholeSend<B>,
}

impl<B: IoMemory> Future for SendAll<B> {
    type Output = (io::Result<usize>, B);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.send).poll(context)
    }
}

impl<B: IoMemory> fmt::Debug for SendAll<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendAll").finish_non_exhaustive()
    }
}

/// The offset that means the file's own position. Sockets take no other.
const OWN_POSITION: u64 = u64::MAX;

/// The runtime of an operation, and the registered memory that it uses.
pub(super) struct Target {
    pub(super) guard: Result<Rc<RuntimeGuard>, AttachError>,
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
    state: State<B>,
}

/// The state of an operation.
enum State<B: IoMemory> {
    /// The kernel was not asked.
    Refused(io::Error, B),
    InFlight {
        operation: InFlightOneshot<Rc<Pending<B>>, Complete<B>>,
        descriptor: RawFd,
        guard: Rc<RuntimeGuard>,
    },
    /// The result was handed out.
    Done,
}

impl Submitted<Buffer> {
    pub(super) fn read<D: Descriptor>(
        target: Target,
        from: &Rc<D>,
        mut buffer: Buffer,
        offset: Option<u64>,
    ) -> Submitted<Buffer> {
        let descriptor = types::Fd(from.as_raw_fd());
        let room = buffer.spare_capacity_mut();
        let (start, len) = (room.as_mut_ptr().cast(), entry_len(room.len()));
        let checked = check_room(&buffer).and_then(|()| check(offset, len));
        let offset = offset.unwrap_or(OWN_POSITION);
        let entry = match target.buffer_index {
            Some(index) => {
                opcode::ReadFixed::new(descriptor, start, len, index).offset(offset).build()
            }
            None => opcode::Read::new(descriptor, start, len).offset(offset).build(),
        };
        let append = |buffer: &mut Buffer, read| {
            let len = buffer.len() + read;
            // SAFETY: the kernel wrote so many bytes behind the written ones, and no more than the
            // room that it was given.
            unsafe { buffer.set_len(len) };
        };
        Submitted::new(target.guard, from, (buffer, checked), entry, append)
    }
}

impl<B: IoMemory + AsRef<[u8]>> Submitted<B> {
    pub(super) fn write<D: Descriptor>(
        target: Target,
        to: &Rc<D>,
        memory: B,
        offset: Option<u64>,
    ) -> Submitted<B> {
        let descriptor = types::Fd(to.as_raw_fd());
        let (start, len) = (memory.as_ref().as_ptr(), entry_len(memory.as_ref().len()));
        let checked = check(offset, len);
        let offset = offset.unwrap_or(OWN_POSITION);
        let entry = match target.buffer_index {
            Some(index) => {
                opcode::WriteFixed::new(descriptor, start, len, index).offset(offset).build()
            }
            None => opcode::Write::new(descriptor, start, len).offset(offset).build(),
        };
        Submitted::new(target.guard, to, (memory, checked), entry, |_, _| {})
    }

    /// Sends what is behind the first `skip` bytes.
    fn send<D: Descriptor>(
        target: Target,
        to: &Rc<D>,
        memory: B,
        skip: usize,
        attempt: Attempt,
    ) -> Submitted<B> {
        let bytes = &memory.as_ref()[skip..];
        let len = bytes.len().min(SEND_BYTES_MAX) as u32;
        let whole = if attempt == Attempt::InParts { 0 } else { libc::MSG_WAITALL };
        let entry = opcode::Send::new(types::Fd(to.as_raw_fd()), bytes.as_ptr(), len)
            .flags(libc::MSG_NOSIGNAL | whole)
            .build();
        Submitted::new(target.guard, to, (memory, Ok(())), entry, |_, _| {})
    }
}

impl<B: IoMemory> Submitted<B> {
    fn new<D: Descriptor>(
        guard: Result<Rc<RuntimeGuard>, AttachError>,
        descriptor: &Rc<D>,
        (memory, checked): (B, io::Result<()>),
        entry: squeue::Entry,
        on_success: fn(&mut B, usize),
    ) -> Submitted<B> {
        let guard = match (guard, checked) {
            (Ok(guard), Ok(())) if guard.liveness().lasts() => guard,
            (_, Err(error)) => return Submitted { state: State::Refused(error, memory) },
            (Err(error), _) => return Submitted { state: State::Refused(error.into(), memory) },
            _ => return Submitted { state: State::Refused(not_in_runtime(), memory) },
        };
        let pending = Rc::new(Pending {
            memory: Cell::new(Some(memory)),
            is_submitted: Cell::new(false),
            _count: guard.liveness().clone().begin_loan(),
            _descriptor: Rc::clone(descriptor) as Rc<dyn Any>,
        });
        let operation = UnsubmittedOneshot::new(pending.clone(), Complete { on_success }, entry);
        let state = match in_runtime(|| operation.submit()) {
            Ok(operation) => {
                pending.is_submitted.set(true);
                State::InFlight { operation, descriptor: descriptor.as_raw_fd(), guard }
            }
            Err(error) => {
                let memory = pending.memory.take().expect("nothing was submitted");
                State::Refused(error.into(), memory)
            }
        };
        Submitted { state }
    }
}

/// The most bytes that one operation sends: the kernel's `int` results have room for them.
const SEND_BYTES_MAX: usize = 1 << 30;

fn not_in_runtime() -> io::Error {
    AttachError::NotInRuntime.into()
}

/// Returns the length for an entry. The kernel moves no more than `u32::MAX` in one go anyway.
fn entry_len(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Checks the offset of an operation that has one.
fn check(offset: Option<u64>, len: u32) -> io::Result<()> {
    offset.map_or(Ok(()), |offset| check_offset(offset, len as usize))
}

impl<B: IoMemory> Future for Submitted<B> {
    type Output = (io::Result<usize>, B);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::InFlight { operation, guard, .. } = &mut self.state {
            let polled = if guard.liveness().lasts() {
                Pin::new(operation).poll(context)
            } else {
                poll_at_the_end(operation, context)
            };
            let output = ready!(polled);
            self.state = State::Done;
            return Poll::Ready(output);
        }
        match std::mem::replace(&mut self.state, State::Done) {
            State::Refused(error, memory) => Poll::Ready((Err(error), memory)),
            _ => panic!("polled after it was ready"),
        }
    }
}

/// Polls an operation of a runtime that ends, or that has ended.
#[cold]
fn poll_at_the_end<B: IoMemory>(
    operation: &mut InFlightOneshot<Rc<Pending<B>>, Complete<B>>,
    context: &mut Context<'_>,
) -> Poll<(io::Result<usize>, B)> {
    let poll = AssertUnwindSafe(|| Pin::new(operation).poll(context));
    catch_unwind(poll).unwrap_or_else(|_| {
        panic!("polled after its tokio-uring runtime had ended: nothing tells what the kernel did")
    })
}

impl<B: IoMemory> Drop for Submitted<B> {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Done);
        if let State::InFlight { operation, descriptor, guard } = state
            && guard.liveness().lasts()
        {
            guard.liveness().adopt(Box::pin(async move { drop(operation.await) }), descriptor);
        }
        // Otherwise nothing will see the completion: the memory is quarantined.
    }
}

impl<B: IoMemory> fmt::Debug for Submitted<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let descriptor = match &self.state {
            State::InFlight { descriptor, .. } => Some(descriptor),
            _ => None,
        };
        f.debug_struct("Submitted").field("descriptor", &descriptor).finish_non_exhaustive()
    }
}

/// The memory that the kernel is using. Only its completion gives the memory back.
struct Pending<B: IoMemory> {
    /// Always there until the completion.
    memory: Cell<Option<B>>,
    /// The kernel may have the memory.
    is_submitted: Cell<bool>,
    _count: LoanCount,
    /// Kept open, so that the number means the same until the end.
    _descriptor: Rc<dyn Any>,
}

impl<B: IoMemory> Drop for Pending<B> {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take()
            && self.is_submitted.get()
        {
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
    type StoredData = Rc<Pending<B>>;

    fn transform_oneshot_output(self, pending: Rc<Pending<B>>, cqe: cqueue::Entry) -> Self::Output {
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
