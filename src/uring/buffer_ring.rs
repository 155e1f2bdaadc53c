//! A provided-buffer ring fed from an arena.
//!
//! ```text
//!  arena ──claim──▶ post ──one tail store──▶ kernel ──completion──▶ ArenaBytes / Bytes ──drop──▶ arena
//!                    ▲                          │ copied, or nothing received
//!                    └────────── spare ◀────────┘
//! ```
//!
//! # Safety
//!
//! Unsafe here: registering memory with the kernel, and interpreting completions on the caller's word.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use io_uring::{Submitter, types};

use super::BufferRingOptions;
use super::ring_entries::RingEntries;
use super::shadow::Shadow;
use super::syscall;
use crate::FixedArena;
use crate::error::RingError;
use crate::lease::{Handle, Lease, ZERO};
use crate::slots::SLOTS_PER_WORD;

/// A provided-buffer ring whose buffers are the slots of a [`FixedArena`]: a slot's index is its buffer id.
///
/// Receives that name its group take a slot each; a completion becomes [`ArenaBytes`](crate::ArenaBytes) or
/// [`Bytes`](bytes::Bytes) of exactly the received length, and the slot is free when they are dropped, on whatever thread.
/// [`refill`](Self::refill) publishes free slots in batches, with one store. The ring holds at most its number of entries; what
/// users hold does not count.
///
/// This is the piece for a ring of your own; [`Driver`](crate::Driver) does the same without `unsafe`.
/// Linux 5.19 ([io_uring_register_buf_ring(3)](https://man7.org/linux/man-pages/man3/io_uring_register_buf_ring.3.html)).
///
/// Dropping it without [`unregister`](Self::unregister) quarantines every slot that the kernel has: they, the arena's memory and
/// the ring's own are leaked, because the kernel may still write to them.
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
/// Invariants: 1. the entries before the shadow's tail tell of the slots in `shadow`, whose leases the ring owns: the kernel may write
/// there until the completion that names them. 2. `spare` are leases that the kernel does not have. 3. While `registered`,
/// the kernel reads `entries`.
pub struct BufferRing {
    arena: Handle,
    entries: Option<RingEntries>,
    pub(super) shadow: Shadow,
    spare: Vec<Lease>,
    group: u16,
    pub(super) incremental: bool,
    pub(super) bundles: bool,
    pub(super) copy_below: usize,
    pub(super) slot_bytes: u32,
    /// Empty places from which a refill is worth its cost.
    bulk: u32,
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
    pub foreign: u64,
    /// Slots that the kernel used up and told of in no completion; they were [taken back](BufferRing::reconcile).
    pub unreported: u64,
}

impl BufferRing {
    /// Options to begin with.
    pub fn options() -> BufferRingOptions {
        BufferRingOptions::default()
    }

    /// Registers a ring fed from `arena`, and publishes the first slots.
    ///
    /// # Errors
    ///
    /// [`RingError`]: a number of entries that the kernel does not take, an arena of more than 65,536 slots, a group id in use,
    /// a kernel older than 5.19, memory that is refused (`RLIMIT_MEMLOCK`).
    ///
    /// # Safety
    ///
    /// For as long as the result exists: every receive that names this group goes to the ring of `submitter`, every completion of one is
    /// handed to [`complete`](Self::complete) once, and no other completion is.
    pub unsafe fn register(
        submitter: &Submitter<'_>,
        arena: &FixedArena,
        options: BufferRingOptions,
    ) -> Result<BufferRing, RingError> {
        let register = |address, count, group, flags| {
            // SAFETY: the array is page-aligned, has `count` entries, and stays until `unregister` has succeeded, or for ever.
            unsafe { submitter.register_buf_ring_with_flags(address, count, group, flags) }
        };
        BufferRing::register_with(register, arena, options)
    }

    /// As [`register`](Self::register), for a ring of which only the descriptor is known: a runtime's.
    ///
    /// # Errors
    ///
    /// As for `register`.
    ///
    /// # Safety
    ///
    /// As for `register`, where `ring` stands for the submitter's ring.
    pub unsafe fn register_on(
        ring: &impl AsRawFd,
        arena: &FixedArena,
        options: BufferRingOptions,
    ) -> Result<BufferRing, RingError> {
        let ring = ring.as_raw_fd();
        let register = |address, count, group, flags| {
            // SAFETY: the array is page-aligned, has `count` entries, and stays until it is unregistered, or for ever.
            unsafe { syscall::register_buffer_ring(ring, address, count, group, flags) }
        };
        BufferRing::register_with(register, arena, options)
    }

    fn register_with(
        register: impl Fn(u64, u16, u16, u16) -> io::Result<()>,
        arena: &FixedArena,
        options: BufferRingOptions,
    ) -> Result<BufferRing, RingError> {
        let mut ring = BufferRing::unregistered(arena, options)?;
        let (address, count, group) = (ring.address(), ring.count(), ring.group);
        let register = |flags| register(address, count, group, flags);
        let mut answer = register(if ring.incremental { types::IOU_PBUF_RING_INC as u16 } else { 0 });
        if ring.incremental && is_errno(&answer, libc::EINVAL) {
            // Before 6.12: the older form.
            ring.incremental = false;
            ring.plain = PlainLengths::new(&options.incremental(false), arena, ring.slot_bytes);
            answer = register(0);
        }
        if let Err(error) = answer {
            let bytes = usize::from(count) * size_of::<types::BufRingEntry>();
            return Err(register_error(&error, group, bytes));
        }
        ring.registered = true;
        ring.refill();
        Ok(ring)
    }

    /// All of a ring but the kernel's knowledge of it.
    pub(super) fn unregistered(
        arena: &FixedArena,
        options: BufferRingOptions,
    ) -> Result<BufferRing, RingError> {
        let count = options.entries_for(arena.slot_count())?;
        let bytes = arena.slot_capacity();
        let slot_bytes = i32::try_from(bytes)
            .map_err(|_| RingError::SlotTooLarge { bytes, limit: i32::MAX as usize })?
            as u32;
        let entries = RingEntries::new(count)
            .map_err(|_| RingError::Refused { action: "map a buffer ring", errno: libc::ENOMEM })?;
        Ok(BufferRing {
            arena: arena.handle().clone(),
            shadow: Shadow::new(count.into()),
            entries: Some(entries),
            spare: Vec::new(),
            group: options.group_id().unwrap_or(0),
            incremental: options.wants_incremental(),
            bundles: options.wants_bundles(),
            copy_below: options.copy_below_bytes(),
            slot_bytes,
            bulk: (u32::from(count) / 8).clamp(1, SLOTS_PER_WORD as u32),
            plain: PlainLengths::new(&options, arena, slot_bytes),
            registered: false,
            metrics: BufferRingMetrics::default(),
        })
    }

    /// Publishes as many free slots as there is room for; returns how many lie ready for the kernel now.
    ///
    /// Slots that other threads freed come home through the arena, so call this once a turn, before entering the kernel. One
    /// store however many there are; nothing at all if the ring is full.
    #[inline]
    pub fn refill(&mut self) -> usize {
        let room = self.shadow.room();
        if room > 0 {
            self.post_up_to(room);
        }
        self.shadow.posted() as usize
    }

    /// As [`refill`](Self::refill), but only when enough places are empty to be worth it: an eighth of the ring, and at most as many as
    /// one claim can fill. A message at a time, a refill would cost as much as the rest of the turn.
    #[inline]
    pub(crate) fn refill_in_bulk(&mut self) {
        let room = self.shadow.room();
        if room >= self.bulk {
            self.post_up_to(room);
        }
    }

    fn post_up_to(&mut self, room: u32) {
        let BufferRing { arena, entries, shadow, spare, slot_bytes, .. } = self;
        let Some(entries) = entries else { return };
        let (before, slot_bytes) = (shadow.tail(), *slot_bytes);
        let mut post = |lease: Lease, start: NonNull<u8>, slot: u32| {
            let id = slot as u16;
            let position = shadow.post(lease, start, id);
            entries.write(position, start, slot_bytes, id);
        };
        let mut wanted = room as usize;
        while wanted > 0
            && let Some(lease) = spare.pop()
        {
            let (start, slot) = (lease.slot_start(), lease.index());
            post(lease, start, slot);
            wanted -= 1;
        }
        arena.claim_slots(wanted, post);
        let tail = shadow.tail();
        if tail != before {
            entries.publish(tail);
        }
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

    /// Gives a slot that nothing was handed out of back to the kernel, with the next [`refill`](Self::refill).
    pub(super) fn recycle(&mut self, lease: Lease) {
        if !lease.header().is_sole() {
            // Earlier messages in the same slot are still held.
            lease.give_up_share();
        } else if lease.header().has(ZERO) {
            // What came in must not be seen by the next owner of the slot: only a free scrubs.
            drop(lease);
        } else {
            self.spare.push(lease);
        }
    }

    /// Takes the ring down: the slots in it are free again, and nothing can be received into it any more. Bytes that came
    /// through it stay valid. Does not ask for what was [not told of](Self::reconcile): a submitter does not say its ring's descriptor.
    ///
    /// # Errors
    ///
    /// [`RingError::Refused`] with what the kernel answered; the ring stays as it was.
    ///
    /// # Safety
    ///
    /// `submitter` is of the io_uring that this was registered on, and no receive that names this group is in flight: the final
    /// completion of each was seen.
    pub unsafe fn unregister(&mut self, submitter: &Submitter<'_>) -> Result<(), RingError> {
        self.note_unregistered(submitter.unregister_buf_ring(self.group))
    }

    /// As [`unregister`](Self::unregister), for a ring of which only the descriptor is known; counts the slots that the kernel used up
    /// without saying so ([`reconcile`](Self::reconcile)).
    ///
    /// # Errors
    ///
    /// As for `unregister`.
    ///
    /// # Safety
    ///
    /// As for `unregister`, where `ring` stands for the submitter's ring.
    pub unsafe fn unregister_on(&mut self, ring: &impl AsRawFd) -> Result<(), RingError> {
        // SAFETY: the caller's promise.
        match unsafe { self.reconcile(ring) } {
            Ok(0) => {}
            Ok(slots) => tracing::warn!(slots, "the kernel used slots up and told of them in no completion"),
            // Only the count is missing then: everything is freed below.
            Err(error) => {
                tracing::debug!(%error, "a buffer ring is taken down without asking how far it was used")
            }
        }
        self.note_unregistered(syscall::unregister_buffer_ring(ring.as_raw_fd(), self.group))
    }

    fn note_unregistered(&mut self, answer: io::Result<()>) -> Result<(), RingError> {
        if let Err(error) = answer {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            return Err(RingError::Refused { action: "unregister a buffer ring", errno });
        }
        self.registered = false;
        self.let_go();
        Ok(())
    }

    /// Frees what the kernel has no hand on (any more).
    fn let_go(&mut self) {
        debug_assert!(!self.registered);
        self.shadow.drain(Lease::give_up_share);
        self.spare.clear();
        if let Some(entries) = self.entries.take() {
            entries.free();
        }
    }

    #[cfg(test)]
    /// Slots that the ring owns: those that the kernel has, and those that go to it with the next refill.
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
            // Closing a ring proves nothing. The slots, and the array (see `RingEntries`), stay where the kernel may look.
            self.shadow.drain(Lease::quarantine);
        } else {
            self.let_go();
        }
    }
}

/// A range of lengths that one comparison tells from all others, errors among them.
pub(super) struct PlainLengths {
    least: u32,
    count: u32,
}

impl PlainLengths {
    /// From the threshold of copies to the whole slot. None of a ring whose messages share slots, or of an arena that scrubs what
    /// was written: there each has more to be done.
    fn new(options: &BufferRingOptions, arena: &FixedArena, slot_bytes: u32) -> PlainLengths {
        let least = u32::try_from(options.copy_below_bytes()).unwrap_or(u32::MAX).max(1);
        let scrubs = arena.handle().scrubs();
        let most = if options.wants_incremental() || scrubs { 0 } else { slot_bytes };
        PlainLengths { least, count: (most + 1).saturating_sub(least) }
    }

    /// Whether a completion with this result is of such a length.
    #[inline]
    pub(super) fn contain(&self, result: i32) -> bool {
        (result as u32).wrapping_sub(self.least) < self.count
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

fn is_errno(answer: &io::Result<()>, errno: i32) -> bool {
    matches!(answer, Err(error) if error.raw_os_error() == Some(errno))
}

fn register_error(error: &io::Error, group: u16, bytes: usize) -> RingError {
    match error.raw_os_error() {
        Some(libc::EEXIST) => RingError::GroupTaken { group },
        // The arguments were checked: what is left is that the kernel does not know the request.
        Some(libc::EINVAL) => RingError::Unsupported { what: "provided-buffer rings", since: "5.19" },
        Some(libc::ENOMEM) => RingError::Memory { bytes, soft: memlock_soft() },
        errno => RingError::Refused { action: "register a buffer ring", errno: errno.unwrap_or(libc::EIO) },
    }
}

/// What this user may lock, in bytes.
fn memlock_soft() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes one `rlimit`, which is ours.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    limit.rlim_cur
}
