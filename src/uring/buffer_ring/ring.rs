//! A provided-buffer ring fed from an arena.
//!
//! ```text
//!  arena ──claim──▶ post ──one tail store──▶ kernel ──completion──▶ ArenaBytes / Bytes ──drop──▶ arena
//!                    ▲                          │ copied, or nothing received
//!                    └────────── spare ◀────────┘
//! ```

use std::fmt;

use super::BufferRingOptions;
use super::entries::RingEntries;
use super::plain_lengths::PlainLengths;
use super::posted::Shadow;
use crate::lease::{Handle, Lease};

/// A provided-buffer ring whose buffers are the slots of a [`FixedArena`](crate::FixedArena): a
/// slot's index is its buffer id.
///
/// Receives that name its group take a slot each; a completion becomes
/// [`ArenaBytes`](crate::ArenaBytes) or [`Bytes`](bytes::Bytes) of exactly the received length, and
/// the slot is free when they are dropped, on whatever thread. [`refill`](Self::refill) publishes
/// free slots in batches, with one store. The ring holds at most its number of entries; what users
/// hold does not count.
///
/// This is the piece for a ring of your own; [`Driver`](crate::Driver) does the same without
/// `unsafe`. Linux 5.19
/// ([io_uring_register_buf_ring(3)](https://man7.org/linux/man-pages/man3/io_uring_register_buf_ring.3.html)).
///
/// Dropping it without [`unregister`](Self::unregister) quarantines every slot that the kernel has:
/// they, the arena's memory and the ring's own are leaked, because the kernel may still write to
/// them.
///
/// ```
/// use std::io::Write;
/// use std::num::NonZeroUsize;
/// use std::os::fd::AsRawFd;
/// use io_uring::{IoUring, types::Fd};
/// use uring_arena::{BufferRing, FixedArena, Status};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let mut uring = match IoUring::new(8) {
/// #     Err(error) => { eprintln!("skipped: io_uring: {error}"); return Ok(()) }
/// #     Ok(uring) => uring,
/// # };
/// let (count, bytes) = (NonZeroUsize::new(16).unwrap(), NonZeroUsize::new(4096).unwrap());
/// let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
/// // SAFETY: entries of this ring go to `uring` only, each completion comes back once, and it is unregistered below.
/// let mut ring = unsafe { BufferRing::register(&uring.submitter(), &arena, BufferRing::options().entries(8))? };
///
/// let (mut sender, receiver) = std::os::unix::net::UnixStream::pair()?;
/// sender.write_all(b"hello")?;
/// drop(sender);
/// let entry = ring.receive_multi(Fd(receiver.as_raw_fd()));
/// // SAFETY: the socket outlives the receive, and the ring's slots are the ring's.
/// unsafe { uring.submission().push(&entry)? };
/// let mut text = Vec::new();
/// loop {
///     uring.submit_and_wait(1)?;
///     let Some(completion) = uring.completion().next() else { continue };
///     // SAFETY: a completion of a receive of this ring, handed in once.
///     let mut received = unsafe { ring.complete(&completion) };
///     for bytes in &mut received {
///         text.extend_from_slice(&bytes);
///     }
///     match received.status() {
///         Status::Armed => {}
///         Status::Finished => break,
///         other => panic!("{other:?}"),
///     }
/// }
/// assert_eq!(text, b"hello");
/// // SAFETY: the only receive has ended.
/// unsafe { ring.unregister(&uring.submitter())? };
/// assert_eq!(arena.metrics().bytes_live, 0);
/// # Ok(())
/// # }
/// ```
///
/// Invariants: 1. the entries before the shadow's tail tell of the slots in `shadow`, whose leases
/// the ring owns: the kernel may write there until the completion that names them. 2. `spare` are
/// leases that the kernel does not have. 3. While `registered`, the kernel reads `entries`.
pub struct BufferRing {
    pub(super) arena: Handle,
    pub(super) entries: Option<RingEntries>,
    pub(super) shadow: Shadow,
    pub(super) spare: Vec<Lease>,
    pub(super) group: u16,
    pub(super) incremental: bool,
    pub(super) bundles: bool,
    pub(super) copy_below: usize,
    pub(super) slot_bytes: u32,
    /// Empty places from which a refill is worth its cost.
    pub(super) bulk: u32,
    /// Which lengths are handed out as they are, in a slot of their own.
    pub(super) plain: PlainLengths,
    pub(super) registered: bool,
    pub(super) metrics: BufferRingMetrics,
}

/// Plain numbers of one [`BufferRing`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BufferRingMetrics {
    /// Slots that lie ready for the kernel now, those included that it is filling.
    pub published: usize,
    /// Messages handed out in their slot.
    pub received: u64,
    /// Messages copied to the heap because they were short.
    pub copied: u64,
    /// Completions that found the ring empty (`ENOBUFS`).
    pub starved: u64,
    /// Completions that named no slot of this ring, or more bytes than were posted.
    pub unmatched_completions: u64,
    /// Slots that the kernel used up and told of in no completion; they were [taken
    /// back](BufferRing::reconcile).
    pub unreported_slots: u64,
}

impl BufferRing {
    /// Options to begin with.
    pub fn options() -> BufferRingOptions {
        BufferRingOptions::default()
    }

    /// The group id that receives name this ring by.
    pub fn group(&self) -> u16 {
        self.group
    }

    /// Bytes in each slot.
    pub fn slot_bytes(&self) -> usize {
        self.slot_bytes as usize
    }

    /// Whether one slot takes several messages: asked for, and the kernel can.
    pub fn is_incremental(&self) -> bool {
        self.incremental
    }

    /// Whether one completion may fill several slots.
    pub fn is_bundling(&self) -> bool {
        self.bundles
    }

    /// Whether slots lie ready for the kernel.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.shadow.posted() == 0
    }

    /// A snapshot of the counters.
    pub fn metrics(&self) -> BufferRingMetrics {
        BufferRingMetrics { published: self.shadow.count(), ..self.metrics }
    }

    pub(crate) fn arena(&self) -> &Handle {
        &self.arena
    }

    #[cfg(test)]
    /// Slots that the ring owns: those that the kernel has, and those that go to it with the next
    /// refill.
    pub(crate) fn slot_count(&self) -> usize {
        self.shadow.count() + self.spare.len()
    }

    /// Their numbers.
    pub(crate) fn owned_slots(&self) -> impl Iterator<Item = u32> {
        self.shadow.ids().map(u32::from).chain(self.spare.iter().map(Lease::index))
    }

    pub(super) fn address(&self) -> u64 {
        self.entries.as_ref().map_or(0, RingEntries::address)
    }

    /// Entries of the ring: 0 once it is taken down.
    pub(super) fn count(&self) -> u16 {
        self.entries.as_ref().map_or(0, RingEntries::count)
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        if self.registered {
            // Closing a ring proves nothing. The slots, and the array (see `RingEntries`), stay
            // where the kernel may look.
            self.shadow.drain(Lease::quarantine);
        } else {
            self.let_go();
        }
    }
}

impl fmt::Debug for BufferRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferRing")
            .field("group", &self.group)
            .field("entries", &self.count())
            .field("metrics", &self.metrics())
            .finish_non_exhaustive()
    }
}
