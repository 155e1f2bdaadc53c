//! Reads and writes of our own, whose slots are free only when their completion has been seen.
//!
//! # Safety
//!
//! Unsafe here: saying how many bytes of a buffer the kernel has written. The entry's address and
//! length are those of the item that travels with the operation, which is not touched until its
//! completion and never freed without one.
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

use super::reaper::Reaper;
use crate::buffer::{Buffer, IoMemory};
use crate::runtime::session::Session;

/// What tokio-uring reads from and writes to: its `File`, `TcpStream`, `UnixStream` and
/// `UdpSocket`.
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

/// Reads from a socket, or from a file at its own position, into the buffer; its length becomes the
/// number of bytes read.
///
/// # Panics
///
/// Outside a tokio-uring runtime.
///
/// ```
/// # use std::num::NonZeroUsize;
/// # use std::rc::Rc;
/// use bytes::BufMut;
/// use uring_arena::{FixedArena, tokio_uring as arena_io};
/// # let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(4096).unwrap());
///
/// let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
/// tokio_uring::start(async {
///     let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
///     let [ours, theirs] = [ours, theirs].map(|end| Rc::new(tokio_uring::net::UnixStream::from_std(end)));
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
pub fn read<D: Descriptor>(from: &Rc<D>, buffer: Buffer) -> Operation<Buffer> {
    Operation::read(Place::unregistered(), from, buffer, OWN_POSITION)
}

/// Reads from a file at `offset` into the buffer; its length becomes the number of bytes read.
///
/// # Panics
///
/// Outside a tokio-uring runtime.
pub fn read_at(
    file: &Rc<::tokio_uring::fs::File>,
    buffer: Buffer,
    offset: u64,
) -> Operation<Buffer> {
    Operation::read(Place::unregistered(), file, buffer, offset)
}

/// Writes a buffer's bytes, or frozen ones, to a socket, or to a file at its own position; maybe
/// not all of them.
///
/// # Panics
///
/// Outside a tokio-uring runtime.
pub fn write<D: Descriptor, B: IoMemory + AsRef<[u8]>>(to: &Rc<D>, item: B) -> Operation<B> {
    Operation::write(Place::unregistered(), to, item, OWN_POSITION)
}

/// Writes a buffer's bytes, or frozen ones, to a file at `offset`; maybe not all of them.
///
/// # Panics
///
/// Outside a tokio-uring runtime.
pub fn write_at<B: IoMemory + AsRef<[u8]>>(
    file: &Rc<::tokio_uring::fs::File>,
    item: B,
    offset: u64,
) -> Operation<B> {
    Operation::write(Place::unregistered(), file, item, offset)
}

/// The offset that means: where the file stands. Sockets take no other.
pub(super) const OWN_POSITION: u64 = u64::MAX;

/// Where an operation runs, found out before anything is in flight: finding it panics outside a
/// tokio-uring runtime.
pub(super) struct Place {
    pub(super) reaper: Rc<Reaper>,
    /// The entry of the ring's table that holds the memory.
    pub(super) index: Option<u16>,
}

impl Place {
    fn unregistered() -> Place {
        Place { reaper: Reaper::current(), index: None }
    }
}

/// A read or a write under way; gives its result and the memory back.
///
/// It runs whether it is polled or not. When it is dropped, its slot stays in use until the kernel
/// has completed the operation: a read from a silent socket goes on until [`drain`](super::drain)
/// cancels it, and takes what arrives with it.
#[must_use = "the memory comes back with the result"]
pub struct Operation<B: IoMemory + AsRef<[u8]>> {
    in_flight: Option<InFlightOneshot<Held<B>, Finish<B>>>,
    descriptor: RawFd,
    reaper: Rc<Reaper>,
}

impl Operation<Buffer> {
    pub(super) fn read<D: Descriptor>(
        place: Place,
        from: &Rc<D>,
        mut buffer: Buffer,
        offset: u64,
    ) -> Operation<Buffer> {
        let descriptor = types::Fd(from.as_raw_fd());
        let (start, len) = (buffer.as_mut_ptr(), entry_len(buffer.capacity()));
        let entry = match place.index {
            Some(index) => {
                opcode::ReadFixed::new(descriptor, start, len, index).offset(offset).build()
            }
            None => opcode::Read::new(descriptor, start, len).offset(offset).build(),
        };
        let settle = |buffer: &mut Buffer, read| {
            // SAFETY: the kernel wrote this many bytes from the start on, and no more than the
            // capacity that it was given.
            unsafe { buffer.set_len(read) };
        };
        Operation::submit(place.reaper, from, buffer, entry, settle)
    }
}

impl<B: IoMemory + AsRef<[u8]>> Operation<B> {
    pub(super) fn write<D: Descriptor>(
        place: Place,
        to: &Rc<D>,
        item: B,
        offset: u64,
    ) -> Operation<B> {
        let descriptor = types::Fd(to.as_raw_fd());
        let (start, len) = (item.as_ref().as_ptr(), entry_len(item.as_ref().len()));
        let entry = match place.index {
            Some(index) => {
                opcode::WriteFixed::new(descriptor, start, len, index).offset(offset).build()
            }
            None => opcode::Write::new(descriptor, start, len).offset(offset).build(),
        };
        Operation::submit(place.reaper, to, item, entry, |_, _| {})
    }

    fn submit<D: Descriptor>(
        reaper: Rc<Reaper>,
        descriptor: &Rc<D>,
        item: B,
        entry: squeue::Entry,
        settle: fn(&mut B, usize),
    ) -> Operation<B> {
        reaper.session.note_lent();
        let held = Held {
            item: Some(item),
            session: Rc::clone(&reaper.session),
            _descriptor: Rc::clone(descriptor) as Rc<dyn Any>,
        };
        let in_flight = UnsubmittedOneshot::new(held, Finish { settle }, entry).submit();
        Operation { in_flight: Some(in_flight), descriptor: descriptor.as_raw_fd(), reaper }
    }
}

/// The length field of an entry; the kernel moves no more than this in one go anyway.
fn entry_len(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

impl<B: IoMemory + AsRef<[u8]>> Future for Operation<B> {
    type Output = (io::Result<usize>, B);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let in_flight = self.in_flight.as_mut().expect("polled after it was ready");
        let output = ready!(Pin::new(in_flight).poll(context));
        self.in_flight = None;
        Poll::Ready(output)
    }
}

impl<B: IoMemory + AsRef<[u8]>> Drop for Operation<B> {
    fn drop(&mut self) {
        let Some(in_flight) = self.in_flight.take() else { return };
        if self.reaper.session.is_alive() {
            self.reaper.adopt(Box::pin(async move { drop(in_flight.await) }), self.descriptor);
        }
        // Otherwise nobody will see the completion: what it holds is quarantined.
    }
}

impl<B: IoMemory + AsRef<[u8]>> fmt::Debug for Operation<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation").field("descriptor", &self.descriptor).finish_non_exhaustive()
    }
}

/// What the kernel is using. Only its completion gives it back.
struct Held<B: IoMemory + AsRef<[u8]>> {
    /// Always there until the completion.
    item: Option<B>,
    session: Rc<Session>,
    /// Kept open, so that the number means the same until the end.
    _descriptor: Rc<dyn Any>,
}

impl<B: IoMemory + AsRef<[u8]>> Drop for Held<B> {
    fn drop(&mut self) {
        self.session.note_back();
        if let Some(item) = self.item.take() {
            item.quarantine();
        }
    }
}

struct Finish<B> {
    settle: fn(&mut B, usize),
}

impl<B: IoMemory + AsRef<[u8]>> OneshotOutputTransform for Finish<B> {
    type Output = (io::Result<usize>, B);
    type StoredData = Held<B>;

    fn transform_oneshot_output(self, mut held: Held<B>, cqe: cqueue::Entry) -> Self::Output {
        let mut item = held.item.take().expect("there until the completion");
        match usize::try_from(cqe.result()) {
            Ok(transferred) => {
                (self.settle)(&mut item, transferred);
                (Ok(transferred), item)
            }
            Err(_) => (Err(io::Error::from_raw_os_error(-cqe.result())), item),
        }
    }
}
