//! Registering a buffer ring with the kernel, taking it off again, and asking how far the kernel
//! came in it.
//!
//! A receive that a worker thread of the kernel runs (`IOSQE_ASYNC`, or a file that cannot be
//! polled) takes its slot when it begins. A completion of a receive that is cancelled on the way
//! should still name the slot. If it does not, the slot is missing from then on. So is its position
//! in the ring, because positions are posted to again in their order. The kernel's own count of the
//! entries that it took (`IORING_REGISTER_PBUF_STATUS`) shows the difference.
//!
//! # Safety
//!
//! Unsafe here: registering memory with the kernel, and taking back slots that the kernel had. The
//! caller promises that it is this ring's io_uring, and that no receive is in flight.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::types;

use super::entries::RingEntries;
use super::options::RingError;
use super::options::{BufferRingOptions, GROUP_FIRST};
use super::posted::PostedQueue;
use super::received::DatagramLayout;
use super::ring::{BufferRing, BufferRingMetrics, Detached, FastPathRange};
use crate::arena::FixedArena;
use crate::lease::Place;
use crate::region::Process;
use crate::uring::kernel::{Memlock, is_refusal, syscalls};

impl BufferRing {
    /// Registers a ring of buffers with `ring`, an io_uring or a runtime that gives its descriptor,
    /// and publishes the first slots of `arena`.
    ///
    /// The example of [`BufferRing`] shows it.
    ///
    /// # Errors
    ///
    /// [`RingError`]: a number of entries that the kernel does not take, or an arena of more than
    /// 65,536 slots; a group id in use; a kernel older than 5.19; too little lockable memory
    /// (`RLIMIT_MEMLOCK`).
    ///
    /// # Safety
    ///
    /// For as long as the result exists:
    /// 1. Every receive that names this group goes to `ring`.
    /// 2. Every completion of such a receive is handed to [`complete`](Self::complete) or
    ///    [`complete_datagram`](Self::complete_datagram) once, and no other completion is.
    #[cfg_attr(feature = "holders", track_caller)]
    pub unsafe fn register(
        ring: &impl AsRawFd,
        arena: &FixedArena,
        options: BufferRingOptions,
    ) -> Result<BufferRing, RingError> {
        let mut buffers = BufferRing::unregistered(arena, options)?;
        buffers.place = options.place().unwrap_or(Place::here());
        // SAFETY: the caller's promise.
        unsafe { buffers.register_entries(ring.as_raw_fd()) }?;
        if buffers.incremental != options.wants_incremental() {
            // Before 6.12: each message takes a slot of its own.
            let options = options.incremental(false);
            buffers.depth = options.depth(arena, buffers.slot_bytes);
            buffers.is_slow = is_slow(arena, &options);
            buffers.set_fast_path();
            buffers.set_limit(buffers.limit);
        }
        buffers.refill();
        if buffers.is_empty() && arena.handle().counters.empty_ring_events.is_due() {
            tracing::warn!(
                group = buffers.group,
                slots = arena.slot_count(),
                "no slot is free for a buffer ring, which is empty from the start: register it before slots are claimed, or build a larger arena"
            );
        }
        Ok(buffers)
    }

    /// Registers the array of entries. An incremental ring is an ordinary one if the kernel knows
    /// no other.
    ///
    /// # Safety
    ///
    /// As for [`register`](Self::register).
    unsafe fn register_entries(&mut self, ring: RawFd) -> Result<(), RingError> {
        let (address, count, group) = (self.address(), self.count(), self.group);
        let register = |flags| {
            // SAFETY: the array is page-aligned, has `count` entries, and stays until it is
            // unregistered, or for ever.
            unsafe { syscalls::register_buffer_ring(ring, address, count, group, flags) }
        };
        let mut answer =
            register(if self.incremental { types::IOU_PBUF_RING_INC as u16 } else { 0 });
        if self.incremental && is_errno(&answer, libc::EINVAL) {
            self.incremental = false;
            answer = register(0);
        }
        let bytes = usize::from(count) * size_of::<types::BufRingEntry>();
        answer.map_err(|error| register_error(&error, group, bytes))?;
        self.registered = true;
        self.check_begins_at_zero(ring).inspect_err(|_| {
            self.registered = syscalls::unregister_buffer_ring(ring, group).is_err();
        })
    }

    /// Returns an error unless the kernel takes the entries from the first one on.
    ///
    /// Before Linux 6.9 it keeps the head of a low group for the next ring of that group, and
    /// before 6.8 it does not tell it.
    fn check_begins_at_zero(&self, ring: RawFd) -> Result<(), RingError> {
        if self.group >= GROUP_FIRST {
            return Ok(());
        }
        match syscalls::buffer_ring_head(ring, self.group) {
            Ok(0) => Ok(()),
            Ok(_) => Err(RingError::GroupTaken { group: self.group }),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                Err(RingError::Unsupported {
                    what: "buffer groups below 64 that can be used twice (choose a higher one)",
                    since: "6.8",
                })
            }
            Err(error) => Err(refused(&error, "ask how far a buffer ring has come")),
        }
    }

    /// Takes the group off the kernel while receives that name it may be in flight. No receive
    /// selects a slot from here on, and one that is tried again ends with `ENOBUFS`.
    ///
    /// Slots that were selected before are filled, and their completions are handed in as usual.
    /// The ring owns every slot until [`finish_unregister`](Self::finish_unregister). A ring that
    /// is dropped before quarantines them.
    ///
    /// # Errors
    ///
    /// [`RingError::Refused`] with the kernel's error; the ring stays as it was.
    ///
    /// # Safety
    ///
    /// `ring` is the io_uring that this was registered on.
    pub(crate) unsafe fn begin_unregister(&mut self, ring: &impl AsRawFd) -> Result<(), RingError> {
        self.check_process()?;
        let ring = ring.as_raw_fd();
        // Linux 6.8. Only a count is missing without it.
        let head = syscalls::buffer_ring_head(ring, self.group).ok();
        syscalls::unregister_buffer_ring(ring, self.group)
            .map_err(|error| refused(&error, "unregister a buffer ring"))?;
        self.detach(head);
        Ok(())
    }

    /// Notes that the kernel does not know the group any more, and how far it had come.
    pub(super) fn detach(&mut self, head: Option<u16>) {
        self.registered = false;
        self.detached = self.entries.take().map(|entries| Detached { entries, head });
    }

    /// Frees the slots of a group that was unregistered, but for those that completions named.
    ///
    /// # Safety
    ///
    /// Each receive that was in flight when the group was unregistered has had its final
    /// completion, which was handed in and taken to its end.
    pub(crate) unsafe fn finish_unregister(&mut self) {
        let head = self.detached.as_ref().and_then(|detached| detached.head);
        // A receive may have selected a slot after the kernel was asked: then more were named.
        let used = head.map_or(0, |head| head.wrapping_sub(self.posted.head() as u16));
        if u32::from(used) <= self.posted.span() {
            self.take_used(used);
        }
        self.metrics.given_back += self.slot_count() as u64;
        self.release();
    }

    /// Registers a ring again whose unregistration is finished, and publishes its share of the free
    /// slots.
    ///
    /// # Errors
    ///
    /// As for [`register`](Self::register); the ring stays unregistered.
    ///
    /// # Safety
    ///
    /// As for [`register`](Self::register), and `ring` is the io_uring that this was registered on.
    pub(crate) unsafe fn register_again(&mut self, ring: &impl AsRawFd) -> Result<(), RingError> {
        self.check_process()?;
        self.attach()?;
        // SAFETY: the caller's promise.
        let answer = unsafe { self.register_entries(ring.as_raw_fd()) };
        match answer {
            Ok(()) => drop(self.refill()),
            // Its slots stay the ring's.
            Err(_) if self.registered => {}
            Err(_) => self.release(),
        }
        answer
    }

    /// Makes the array of a ring that has none, and counts from 0 as the kernel will.
    pub(super) fn attach(&mut self) -> Result<(), RingError> {
        debug_assert!(!self.registered && self.entries.is_none() && self.detached.is_none());
        self.entries = Some(new_entries(self.posted.capacity() as u16)?);
        self.posted.restart();
        self.depth.restart();
        self.set_limit(self.share());
        Ok(())
    }

    /// Returns whether the group was unregistered, and its slots are not free yet.
    pub(crate) fn is_detached(&self) -> bool {
        self.detached.is_some()
    }

    /// Returns whether the kernel knows the group.
    pub(crate) fn is_registered(&self) -> bool {
        self.registered
    }

    /// Creates a ring that the kernel does not know yet.
    pub(super) fn unregistered(
        arena: &FixedArena,
        options: BufferRingOptions,
    ) -> Result<BufferRing, RingError> {
        let count = options.entries_for(arena.slot_count())?;
        let bytes = arena.slot_capacity();
        let slot_bytes = i32::try_from(bytes)
            .map_err(|_| RingError::SlotTooLarge { bytes, limit: i32::MAX as usize })?
            as u32;
        let mut buffers = BufferRing {
            arena: arena.handle().clone(),
            posted: PostedQueue::new(count.into()),
            entries: Some(new_entries(count)?),
            detached: None,
            spare: Vec::new(),
            hint: 0,
            group: options.group_id().unwrap_or(GROUP_FIRST),
            incremental: options.wants_incremental(),
            bundles: options.wants_bundles(),
            datagrams: DatagramLayout::new(options.wants_datagram_details()),
            copy_below: options.copy_below_bytes(),
            slot_bytes,
            limit: 0,
            depth: options.depth(arena, slot_bytes),
            bulk: 0,
            pressure: options.pressure(arena.handle()),
            is_slow: is_slow(arena, &options),
            fast_path: FastPathRange::new(0, true, slot_bytes),
            place: Place::here(),
            #[cfg(feature = "holders")]
            connection: None,
            registered: false,
            process: Process::current(),
            metrics: BufferRingMetrics::default(),
        };
        let limit = if options.has_entries() { count.into() } else { buffers.share() };
        buffers.set_limit(limit);
        buffers.set_fast_path();
        Ok(buffers)
    }

    /// Takes the ring off the kernel: its slots are free again, and nothing can be received into it
    /// any more. Bytes that came through the ring stay valid.
    ///
    /// The example of [`BufferRing`] shows it. Slots that the kernel used up without naming them
    /// are counted, as by [`reconcile`](Self::reconcile).
    ///
    /// # Errors
    ///
    /// [`RingError::Refused`] with the kernel's error; [`RingError::OtherProcess`] in a forked
    /// child. The ring stays as it was.
    ///
    /// # Safety
    ///
    /// `ring` is the io_uring that this was registered on. No receive that names this group is in
    /// flight: the final completion of each was seen.
    pub unsafe fn unregister(&mut self, ring: &impl AsRawFd) -> Result<(), RingError> {
        self.check_process()?;
        if !self.registered {
            // SAFETY: the caller's promise.
            unsafe { self.finish_unregister() };
            return Ok(());
        }
        // SAFETY: the caller's promise.
        match unsafe { self.reconcile(ring) } {
            Ok(0) => {}
            Ok(slots) => {
                tracing::warn!(slots, "the kernel used slots up and named them in no completion")
            }
            // Only the count is missing then: everything is freed below.
            Err(error) => {
                tracing::debug!(%error, "a buffer ring is unregistered without asking how far it was used")
            }
        }
        syscalls::unregister_buffer_ring(ring.as_raw_fd(), self.group)
            .map_err(|error| refused(&error, "unregister a buffer ring"))?;
        self.registered = false;
        self.release();
        Ok(())
    }

    /// Takes back the slots that receives have used up without naming them. Returns their number.
    ///
    /// The slots are published again with the next [`refill`](Self::refill), and counted in
    /// [`BufferRingMetrics::unreported_slots`].
    ///
    /// The method asks the kernel how far it has come in the ring (`IORING_REGISTER_PBUF_STATUS`,
    /// Linux 6.8) and compares that with the completions seen. An older kernel cannot be asked:
    /// then nothing is taken back before [`unregister`](Self::unregister), which frees everything.
    /// Call this only if receives of this ring are cancelled that worker threads of the kernel run.
    ///
    /// # Errors
    ///
    /// [`RingError::Refused`] with the kernel's error; [`RingError::OtherProcess`] in a forked
    /// child.
    ///
    /// # Safety
    ///
    /// `ring` is the io_uring that this was registered on. No receive that names this group is in
    /// flight: the final completion of each was seen, and handed in.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use io_uring::IoUring;
    /// # use uring_arena::{BufferRing, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let uring = match IoUring::new(8) {
    /// #     Err(error) => { eprintln!("skipped: io_uring: {error}"); return Ok(()) }
    /// #     Ok(uring) => uring,
    /// # };
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(64).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
    /// # // SAFETY: nothing is received through this ring, and it is unregistered below.
    /// # let mut ring = unsafe { BufferRing::register(&uring, &arena, BufferRing::options())? };
    /// // SAFETY: of this ring, on which nothing is received.
    /// let taken_back = unsafe { ring.reconcile(&uring)? };
    /// assert_eq!(taken_back, 0);
    /// # // SAFETY: as above.
    /// # unsafe { ring.unregister(&uring)? };
    /// # Ok(())
    /// # }
    /// ```
    pub unsafe fn reconcile(&mut self, ring: &impl AsRawFd) -> Result<usize, RingError> {
        if !self.registered {
            return Ok(0);
        }
        self.check_process()?;
        match syscalls::buffer_ring_head(ring.as_raw_fd(), self.group) {
            Ok(head) => Ok(self.take_unreported(head)),
            // Before 6.8: no such request.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(0),
            Err(error) => Err(refused(&error, "ask how far a buffer ring was used")),
        }
    }

    /// Returns an error if the kernel knows the memory of another process, of which this one is a
    /// forked child.
    fn check_process(&self) -> Result<(), RingError> {
        match self.process.other() {
            None => Ok(()),
            Some((of, to)) => Err(RingError::OtherProcess { of, to }),
        }
    }

    /// Takes back the slots before the kernel's `head` that no completion named. Returns their
    /// number.
    pub(super) fn take_unreported(&mut self, head: u16) -> usize {
        let first = self.posted.head();
        // Both count modulo 2¹⁶, and a ring has fewer positions.
        let used = head.wrapping_sub(first as u16);
        if u32::from(used) > self.posted.span() {
            // The kernel is behind: completions named more slots than it took. They were not this
            // ring's, and there is nothing to take back.
            self.metrics.unmatched_completions += 1;
            return 0;
        }
        self.take_used(used)
    }

    /// Takes back those of the first `used` slots that no completion named. Returns their number.
    fn take_used(&mut self, used: u16) -> usize {
        let first = self.posted.head();
        let mut taken = 0;
        for step in 0..u32::from(used) {
            if let Some(run) = self.posted.take(first.wrapping_add(step)) {
                // A receive that failed on the way may have written any of it.
                run.record_written_whole(self.slot_bytes());
                taken += run.count() as usize;
                self.recycle(run);
            }
        }
        self.metrics.unreported_slots += taken as u64;
        taken
    }
}

fn new_entries(count: u16) -> Result<RingEntries, RingError> {
    let bytes = usize::from(count) * size_of::<types::BufRingEntry>();
    RingEntries::new(count).map_err(|_| RingError::OutOfMemory { bytes })
}

/// Returns whether each message has more work to do than the fast path does: messages share slots,
/// the kernel shortens entries, or the arena scrubs.
fn is_slow(arena: &FixedArena, options: &BufferRingOptions) -> bool {
    options.wants_incremental() || options.wants_bundles() || arena.handle().scrubs()
}

fn is_errno(answer: &io::Result<()>, errno: i32) -> bool {
    matches!(answer, Err(error) if error.raw_os_error() == Some(errno))
}

fn refused(error: &io::Error, action: &'static str) -> RingError {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    if is_refusal(errno) {
        RingError::Forbidden { action, errno }
    } else {
        RingError::Refused { action, errno }
    }
}

fn register_error(error: &io::Error, group: u16, bytes: usize) -> RingError {
    match error.raw_os_error() {
        Some(libc::EEXIST) => RingError::GroupTaken { group },
        // The arguments were checked, so the kernel does not know the request.
        Some(libc::EINVAL) => {
            RingError::Unsupported { what: "provided-buffer rings", since: "5.19" }
        }
        Some(libc::ENOMEM) => {
            let entries = bytes / size_of::<types::BufRingEntry>();
            let memlock = Memlock::for_buffer_ring(bytes);
            match memlock.is_in_force() {
                true => RingError::Memlock { entries, memlock },
                false => RingError::OutOfMemory { bytes },
            }
        }
        _ => refused(error, "register a buffer ring"),
    }
}
