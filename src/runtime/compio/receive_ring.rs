//! A buffer ring of ours on a compio runtime.
//!
//! # Safety
//!
//! Unsafe here: registering the ring, whose contract is kept beside this file: receives that name
//! its group are made by [`ReceiveStream`] only and submitted to the runtime that it is registered
//! with (checked); compio hands each of their completions in once.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::fmt;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::Waker;

use super::anchor::Anchor;
use super::{AttachError, ReceiveStream};
use crate::arena::FixedArena;
use crate::error::RingError;
use crate::uring::{BufferRing, BufferRingMetrics, BufferRingOptions};

/// The group of compio's own buffer ring.
const GROUP_OF_COMPIO: u16 = 1;

/// Where the search for a free group begins, far from numbers that people choose.
const GROUP_FIRST: u16 = 0x4000;

/// Groups that are tried.
const GROUPS_TRIED: u16 = 64;

/// A buffer ring on a compio runtime, fed from an arena: sockets receive into it, and what arrives
/// is [`Bytes`](bytes::Bytes).
///
/// Cloning it gives the same ring. When it is dropped with all of its streams inside the runtime,
/// its slots are free again; what is left when the runtime ends is quarantined.
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
pub(super) struct Shared {
    pub(super) ring: RefCell<BufferRing>,
    pub(super) anchor: Rc<Anchor>,
    /// Streams that wait for slots.
    pub(super) starved: RefCell<Vec<Waker>>,
    /// The runtime ended with receives in flight.
    pub(super) lost: Cell<bool>,
}

impl ReceiveRing {
    /// Makes a buffer ring on the runtime that this thread is in. Without a
    /// [`group`](BufferRingOptions::group) it takes a free one.
    ///
    /// compio does not show what incremental consumption needs, so each message has a slot of its
    /// own: [`incremental`](BufferRingOptions::incremental) is without effect.
    /// [`copy_below`](BufferRingOptions::copy_below) works.
    ///
    /// # Errors
    ///
    /// [`AttachError`]: no runtime here, one that is not on io_uring, group 1 (which is compio's),
    /// or what the kernel refuses.
    pub fn new(arena: &FixedArena, options: BufferRingOptions) -> Result<ReceiveRing, AttachError> {
        let anchor = Anchor::current()?;
        let options = options.incremental(false);
        let register = |group| {
            // SAFETY: see the head of this file.
            unsafe { BufferRing::register(&*anchor, arena, options.group(group)) }
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
            lost: Cell::new(false),
        };
        Ok(ReceiveRing { shared: Rc::new(shared) })
    }

    /// Receives from a connected socket until the peer finishes. Begins when it is first polled.
    ///
    /// With no slot free it waits for one; other streams of the ring go on with those that come
    /// back.
    pub fn receive<D: AsFd + Clone + Unpin + 'static>(&self, socket: &D) -> ReceiveStream<D> {
        ReceiveStream::new(Rc::clone(&self.shared), socket.clone())
    }

    /// A snapshot of the ring's counters.
    pub fn metrics(&self) -> BufferRingMetrics {
        self.shared.ring.borrow().metrics()
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
        f.debug_struct("ReceiveRing").field("ring", &self.shared.ring).finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Every receive that is in flight keeps this value: none is, unless the runtime dropped it
        // before its completion.
        if self.anchor.is_alive() && !self.lost.get() {
            // SAFETY: the ring that it was registered on, which lives; no receive is in flight.
            let answer = unsafe { self.ring.get_mut().unregister(&*self.anchor) };
            if let Err(error) = answer {
                tracing::error!(%error, "a buffer ring stays registered: its slots are quarantined");
            }
        }
    }
}
