//! A buffer ring of ours on a compio runtime.
//!
//! # Safety
//!
//! Unsafe here: registering the ring. [`ReceiveStream`] alone makes receives that name its group.
//! [`RingState`] checks that they are submitted to the runtime that the ring is registered with.
//! compio hands each of their completions in once.
#![allow(unsafe_code)]

use std::fmt;
use std::os::fd::AsFd;
use std::rc::Rc;

use super::guard::{AttachError, RuntimeGuard};
use super::receive_stream::ReceiveStream;
use super::ring_state::RingState;
use crate::arena::FixedArena;
use crate::uring::{BufferRing, BufferRingMetrics, BufferRingOptions, RingError};

/// The group of compio's own buffer ring.
const COMPIO_GROUP: u16 = 1;

/// The group at which the search for a free one begins, far from numbers that people choose.
const GROUP_FIRST: u16 = 0x4000;

/// The number of groups that are tried.
const GROUPS_TRIED: u16 = 64;

/// A buffer ring on a compio runtime, filled with the slots of an arena: sockets receive into it,
/// as [`Bytes`](bytes::Bytes).
///
/// A clone is the same ring. When the ring and all of its streams are dropped inside the runtime,
/// its slots are free again. The slots that the ring still has when the runtime ends are
/// quarantined.
///
/// ```
/// use compio::io::AsyncWriteExt;
/// use compio::net::{TcpListener, TcpStream};
/// use uring_arena::{BufferRing, FixedArena, compio::ReceiveRing};
///
/// let arena = FixedArena::new(64, 4096)?;
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
    state: Rc<RingState>,
}

impl ReceiveRing {
    /// Makes a buffer ring on the runtime that this thread is in. Without a
    /// [`group`](BufferRingOptions::group) it takes a free one.
    ///
    /// compio does not show whether a buffer is used up, so each message has a slot of its own:
    /// [`incremental`](BufferRingOptions::incremental) is without effect.
    /// [`copy_below`](BufferRingOptions::copy_below) works.
    ///
    /// # Errors
    ///
    /// [`AttachError`]: no runtime here, a runtime that is not on io_uring, group 1 (which is
    /// compio's), or a refusal of the kernel.
    pub fn new(arena: &FixedArena, options: BufferRingOptions) -> Result<ReceiveRing, AttachError> {
        let guard = RuntimeGuard::current()?;
        let options = options.incremental(false);
        let register = |group| {
            // SAFETY: see the head of this file.
            unsafe { BufferRing::register(&*guard, arena, options.group(group)) }
        };
        let ring = match options.group_id() {
            Some(COMPIO_GROUP) => Err(RingError::GroupTaken { group: COMPIO_GROUP }),
            Some(group) => register(group),
            None => first_free(register),
        }?;
        Ok(ReceiveRing { state: RingState::new(ring, guard) })
    }

    /// Receives from a connected stream socket until the peer finishes. The stream begins when it
    /// is first polled. A socket of messages is refused: the stream's only item is the error then.
    ///
    /// While no slot is free, the ring waits in the arena's queue. Its starved streams go on in the
    /// order in which they came, as slots come back.
    ///
    /// ```
    /// use std::io::Write;
    /// use uring_arena::{BufferRing, FixedArena, compio::ReceiveRing};
    ///
    /// let arena = FixedArena::new(64, 4096)?;
    /// compio::runtime::Runtime::new()?.block_on(async {
    ///     let ring = ReceiveRing::new(&arena, BufferRing::options().entries(32))?;
    ///     let (near, mut far) = std::os::unix::net::UnixStream::pair()?;
    ///     let mut incoming = ring.receive(&compio::net::UnixStream::from_std(near)?);
    ///     far.write_all(b"hello")?;
    ///     assert_eq!(incoming.try_next().await?.unwrap(), "hello");
    ///     Ok::<_, Box<dyn std::error::Error>>(())
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn receive<D: AsFd + Clone + Unpin + 'static>(&self, socket: &D) -> ReceiveStream<D> {
        ReceiveStream::new(Rc::clone(&self.state), socket.clone())
    }

    /// Returns a snapshot of the ring's counters.
    ///
    /// ```
    /// use uring_arena::{BufferRing, FixedArena, compio::ReceiveRing};
    ///
    /// let arena = FixedArena::new(64, 4096)?;
    /// compio::runtime::Runtime::new()?.block_on(async {
    ///     let ring = ReceiveRing::new(&arena, BufferRing::options().entries(32))?;
    ///     assert_eq!(ring.metrics().published, 32);
    ///     Ok::<_, Box<dyn std::error::Error>>(())
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn metrics(&self) -> BufferRingMetrics {
        self.state.ring.borrow().metrics()
    }
}

fn first_free(
    register: impl Fn(u16) -> Result<BufferRing, RingError>,
) -> Result<BufferRing, RingError> {
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
        f.debug_struct("ReceiveRing").field("ring", &self.state.ring).finish_non_exhaustive()
    }
}
