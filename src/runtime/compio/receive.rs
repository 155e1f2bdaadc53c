//! Multishot receives on a compio runtime, into a buffer ring of ours.
//!
//! # Safety
//!
//! Unsafe here: registering the ring, whose contract is kept by this file: receives that name its group are made here only and submitted to
//! the runtime that it is registered with (checked); compio hands each of their completions in once. And the contract of compio's `OpCode`.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use compio_buf::BufResult;
use compio_driver::{Extra, IourOpCode, OpEntry};
use compio_runtime::{Runtime, Submit};
use futures_core::Stream;
use io_uring::{squeue, types};

use super::AttachError;
use super::anchor::Anchor;
use super::operation::{raw_receive_flags, raw_result};
use crate::arena::FixedArena;
use crate::error::RingError;
use crate::uring::{BufferRing, BufferRingMetrics, BufferRingOptions, Status};

/// The group of compio's own buffer ring.
const GROUP_OF_COMPIO: u16 = 1;

/// Where the search for a free group begins, far from numbers that people choose.
const GROUP_FIRST: u16 = 0x4000;

/// Completions after which freed slots are published: in batches, and before the ring runs dry.
const REFILL_EVERY: u32 = 8;

/// Groups that are tried.
const GROUPS_TRIED: u16 = 64;

/// A buffer ring on a compio runtime, fed from an arena: sockets receive into it, and what arrives is [`Bytes`].
///
/// Cloning it gives the same ring. When it is dropped with all of its streams inside the runtime, its slots are free again; what is left
/// when the runtime ends is quarantined.
///
/// ```
/// use std::num::NonZeroUsize;
/// use compio::io::AsyncWriteExt;
/// use compio::net::{TcpListener, TcpStream};
/// use uring_arena::{BufferRing, FixedArena, compio::ReceiveRing};
///
/// let (count, bytes) = (NonZeroUsize::new(64).unwrap(), NonZeroUsize::new(4096).unwrap());
/// let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
/// compio::runtime::Runtime::new()?.block_on(async {
///     let ring = ReceiveRing::new(&arena, BufferRing::options().entries(32))?;
///     let listener = TcpListener::bind("127.0.0.1:0").await?;
///     let mut sender = TcpStream::connect(listener.local_addr()?).await?;
///     let (receiver, _) = listener.accept().await?;
///     let mut incoming = ring.receive(&receiver);
///     sender.write_all("hello").await.0?;
///     assert_eq!(incoming.try_next().await?.unwrap(), "hello");
///     drop(sender);
///     assert!(incoming.try_next().await?.is_none());
///     Ok::<_, Box<dyn std::error::Error>>(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ReceiveRing {
    shared: Rc<Shared>,
}

/// The ring, kept by its handles, its streams, and every receive that the kernel has.
struct Shared {
    ring: RefCell<BufferRing>,
    anchor: Rc<Anchor>,
    /// Streams that wait for slots.
    starved: RefCell<Vec<Waker>>,
    completions: Cell<u32>,
    /// The runtime ended with receives in flight.
    lost: Cell<bool>,
}

impl ReceiveRing {
    /// Makes a buffer ring on the runtime that this thread is in. Without a [`group`](BufferRingOptions::group) it takes a free one.
    ///
    /// compio does not show what incremental consumption needs, so each message has a slot of its own:
    /// [`incremental`](BufferRingOptions::incremental) is without effect. [`copy_below`](BufferRingOptions::copy_below) works.
    ///
    /// # Errors
    ///
    /// [`AttachError`]: no runtime here, one that is not on io_uring, group 1 (which is compio's), or what the kernel refuses.
    pub fn new(arena: &FixedArena, options: BufferRingOptions) -> Result<ReceiveRing, AttachError> {
        let anchor = Anchor::current()?;
        let options = options.incremental(false);
        let register = |group| {
            // SAFETY: see the head of this file.
            unsafe { BufferRing::register_on(&*anchor, arena, options.group(group)) }
        };
        let ring = match options.group_id() {
            Some(GROUP_OF_COMPIO) => Err(RingError::GroupTaken { group: GROUP_OF_COMPIO }),
            Some(group) => register(group),
            None => first_free(register),
        }?;
        let shared = Shared {
            ring: RefCell::new(ring),
            anchor,
            starved: RefCell::default(),
            completions: Cell::new(0),
            lost: Cell::new(false),
        };
        Ok(ReceiveRing { shared: Rc::new(shared) })
    }

    /// Receives from a connected socket until the peer finishes. Begins when it is first polled.
    ///
    /// With no slot free it waits for one; other streams of the ring go on with those that come back.
    pub fn receive<D: AsFd + Clone + Unpin + 'static>(&self, socket: &D) -> ReceiveStream<D> {
        ReceiveStream {
            shared: Rc::clone(&self.shared),
            socket: socket.clone(),
            arrived: Rc::default(),
            armed: None,
            waiting: None,
            finished: false,
        }
    }

    /// A snapshot of the ring's counters.
    pub fn metrics(&self) -> BufferRingMetrics {
        self.shared.ring.borrow().metrics()
    }
}

fn first_free(register: impl Fn(u16) -> Result<BufferRing, RingError>) -> Result<BufferRing, RingError> {
    for group in GROUP_FIRST..GROUP_FIRST + GROUPS_TRIED {
        match register(group) {
            Err(RingError::GroupTaken { .. }) => {}
            answer => return answer,
        }
    }
    Err(RingError::NoGroupLeft { limit: GROUPS_TRIED.into() })
}

impl fmt::Debug for ReceiveRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveRing").field("ring", &self.shared.ring).finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Every receive that is in flight keeps this value: none is, unless the runtime dropped it before its completion.
        if self.anchor.is_alive() && !self.lost.get() {
            // SAFETY: the ring that it was registered on, which lives; no receive is in flight.
            let answer = unsafe { self.ring.get_mut().unregister_on(&*self.anchor) };
            if let Err(error) = answer {
                tracing::error!(%error, "a buffer ring stays registered: its slots are quarantined");
            }
        }
    }
}

/// What a socket sends, as [`Bytes`] in the slots where it arrived: a [`Stream`] of `io::Result<Bytes>`.
///
/// Read it or drop it: what arrives meanwhile waits in its slots. Dropping it cancels the receive; bytes that had arrived are lost.
pub struct ReceiveStream<D: AsFd + Clone + Unpin + 'static> {
    shared: Rc<Shared>,
    socket: D,
    arrived: Rc<RefCell<VecDeque<Bytes>>>,
    armed: Option<Submit<Armed<D>>>,
    waiting: Option<Pin<Box<dyn Future<Output = ()>>>>,
    finished: bool,
}

impl<D: AsFd + Clone + Unpin + 'static> ReceiveStream<D> {
    /// The next bytes, or `None` when the peer has finished.
    ///
    /// # Errors
    ///
    /// What the socket answers; nothing comes after that.
    ///
    /// # Panics
    ///
    /// Outside the runtime that the ring was made in.
    pub async fn try_next(&mut self) -> io::Result<Option<Bytes>> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await.transpose()
    }

    fn arm(&mut self) {
        assert!(self.shared.anchor.is_here(), "not in the compio runtime that the ring was made in");
        let entry = self.shared.ring.borrow().receive_multi(types::Fd(self.socket.as_fd().as_raw_fd()));
        let armed = Armed {
            entry,
            shared: Rc::clone(&self.shared),
            arrived: Rc::clone(&self.arrived),
            status: None,
            submitted: false,
            _socket: self.socket.clone(),
        };
        self.armed = Some(Runtime::with_current(|runtime| runtime.submit(armed)));
    }

    /// Waits until a slot lies ready.
    fn poll_slots(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.shared.ring.borrow_mut().refill() > 0 {
                self.waiting = None;
                return Poll::Ready(());
            }
            let Some(waiting) = &mut self.waiting else {
                // The place in the queue comes before the next look, so a slot freed from here on wakes us.
                let place = self.shared.ring.borrow().arena().listen();
                self.waiting = Some(Box::pin(place));
                continue;
            };
            if waiting.as_mut().poll(context).is_pending() {
                self.shared.starved.borrow_mut().push(context.waker().clone());
                return Poll::Pending;
            }
            self.waiting = None;
        }
    }
}

impl<D: AsFd + Clone + Unpin + 'static> Stream for ReceiveStream<D> {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let next = self.arrived.borrow_mut().pop_front();
            if let Some(bytes) = next {
                return Poll::Ready(Some(Ok(bytes)));
            }
            if self.finished {
                return Poll::Ready(None);
            }
            let Some(armed) = &mut self.armed else {
                ready!(self.poll_slots(context));
                self.arm();
                continue;
            };
            let BufResult(answer, ended) = ready!(Pin::new(armed).poll(context));
            self.armed = None;
            match ended.status {
                Some(Status::Ended | Status::Starved) => {}
                Some(Status::Failed { errno }) => {
                    self.finished = true;
                    return Poll::Ready(Some(Err(io::Error::from_raw_os_error(errno))));
                }
                Some(_) => self.finished = true,
                None => {
                    // compio refused it before the kernel saw it.
                    self.finished = true;
                    return Poll::Ready(Some(Err(answer.err().unwrap_or(io::ErrorKind::Unsupported.into()))));
                }
            }
        }
    }
}

impl<D: AsFd + Clone + Unpin + 'static> fmt::Debug for ReceiveStream<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveStream")
            .field("arrived", &self.arrived.borrow().len())
            .field("armed", &self.armed.is_some())
            .field("finished", &self.finished)
            .finish_non_exhaustive()
    }
}

/// A receive as compio's driver carries it. It puts what arrives where its stream finds it; compio wakes the stream.
struct Armed<D> {
    entry: squeue::Entry,
    shared: Rc<Shared>,
    arrived: Rc<RefCell<VecDeque<Bytes>>>,
    /// Set by the last completion.
    status: Option<Status>,
    /// Whether the kernel may know of it; counted in the session then.
    submitted: bool,
    /// Kept open, so that the number means the same until the end.
    _socket: D,
}

impl<D> Armed<D> {
    fn complete(&mut self, result: i32, flags: u32) -> Status {
        let mut ring = self.shared.ring.borrow_mut();
        // SAFETY: a completion of a receive of this ring, from compio's driver, handed in once, and taken to its end below.
        let (mut cursor, status) = unsafe { ring.begin(result, flags) };
        while let Some(bytes) = ring.take::<Bytes>(&mut cursor) {
            self.arrived.borrow_mut().push_back(bytes);
        }
        let turn = self.shared.completions.get().wrapping_add(1);
        self.shared.completions.set(turn);
        let anybody_waits = !self.shared.starved.borrow().is_empty();
        let is_due = anybody_waits || ring.is_empty() || turn.is_multiple_of(REFILL_EVERY);
        let ready = if is_due { ring.refill() } else { 0 };
        if anybody_waits && ready > 0 {
            // Short messages were copied, say, and their slots lie ready again.
            self.shared.starved.take().into_iter().for_each(Waker::wake);
        }
        status
    }
}

impl<D> Drop for Armed<D> {
    fn drop(&mut self) {
        if self.submitted {
            self.shared.anchor.session.note_back();
            if self.status.is_none() {
                self.shared.lost.set(true);
            }
        }
    }
}

// SAFETY: the entry names the group of a ring that this value keeps registered, and a descriptor that it keeps open.
unsafe impl<D: 'static> IourOpCode for Armed<D> {
    type Control = ();

    fn create_entry(&mut self, (): &mut ()) -> OpEntry {
        if !std::mem::replace(&mut self.submitted, true) {
            self.shared.anchor.session.note_lent();
        }
        self.entry.clone().into()
    }

    fn call_blocking(&mut self, (): &mut ()) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    unsafe fn set_result(&mut self, (): &mut (), result: &io::Result<usize>, extra: &Extra) {
        let status = self.complete(raw_result(result), raw_receive_flags(extra, false));
        self.status = Some(status);
    }

    unsafe fn push_multishot(&mut self, (): &mut (), result: io::Result<usize>, extra: Extra) {
        self.complete(raw_result(&result), raw_receive_flags(&extra, true));
    }
}

/// An epoll runtime: nothing of ours gets this far, because nothing attaches to it.
#[cfg(feature = "compio-polling")]
// SAFETY: it never waits for a descriptor.
unsafe impl<D: 'static> compio_driver::PollOpCode for Armed<D> {
    type Control = ();

    fn pre_submit(&mut self, (): &mut ()) -> io::Result<compio_driver::Decision> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn operate(&mut self, (): &mut ()) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
