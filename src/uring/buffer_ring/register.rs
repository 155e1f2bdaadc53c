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
use std::os::fd::AsRawFd;

use io_uring::types;

use super::entries::RingEntries;
use super::options::BufferRingOptions;
use super::options::RingError;
use super::posted::PostedQueue;
use super::ring::{BufferRing, BufferRingMetrics, FastPathRange};
use crate::arena::FixedArena;
use crate::slots::SLOTS_PER_WORD;
use crate::uring::kernel::{Memlock, syscalls};

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
    pub unsafe fn register(
        ring: &impl AsRawFd,
        arena: &FixedArena,
        options: BufferRingOptions,
    ) -> Result<BufferRing, RingError> {
        let ring = ring.as_raw_fd();
        let mut buffers = BufferRing::unregistered(arena, options)?;
        let (address, count, group) = (buffers.address(), buffers.count(), buffers.group);
        let register = |flags| {
            // SAFETY: the array is page-aligned, has `count` entries, and stays until it is
            // unregistered, or for ever.
            unsafe { syscalls::register_buffer_ring(ring, address, count, group, flags) }
        };
        let mut answer =
            register(if buffers.incremental { types::IOU_PBUF_RING_INC as u16 } else { 0 });
        if buffers.incremental && is_errno(&answer, libc::EINVAL) {
            // Before 6.12: each message takes a slot of its own.
            buffers.incremental = false;
            buffers.fast_path = fast_path(arena, &options.incremental(false), buffers.slot_bytes);
            answer = register(0);
        }
        if let Err(error) = answer {
            let bytes = usize::from(count) * size_of::<types::BufRingEntry>();
            return Err(register_error(&error, group, bytes));
        }
        buffers.registered = true;
        buffers.refill();
        Ok(buffers)
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
        let entries = RingEntries::new(count).map_err(|_| RingError::OutOfMemory {
            bytes: usize::from(count) * size_of::<types::BufRingEntry>(),
        })?;
        Ok(BufferRing {
            arena: arena.handle().clone(),
            posted: PostedQueue::new(count.into()),
            entries: Some(entries),
            spare: Vec::new(),
            group: options.group_id().unwrap_or(0),
            incremental: options.wants_incremental(),
            bundles: options.wants_bundles(),
            copy_below: options.copy_below_bytes(),
            slot_bytes,
            bulk: (u32::from(count) / 8).clamp(1, SLOTS_PER_WORD as u32),
            fast_path: fast_path(arena, &options, slot_bytes),
            registered: false,
            metrics: BufferRingMetrics::default(),
        })
    }

    /// Takes the ring off the kernel: its slots are free again, and nothing can be received into it
    /// any more. Bytes that came through the ring stay valid.
    ///
    /// The example of [`BufferRing`] shows it. Slots that the kernel used up without naming them
    /// are counted, as by [`reconcile`](Self::reconcile).
    ///
    /// # Errors
    ///
    /// [`RingError::Refused`] with the kernel's error; the ring stays as it was.
    ///
    /// # Safety
    ///
    /// `ring` is the io_uring that this was registered on. No receive that names this group is in
    /// flight: the final completion of each was seen.
    pub unsafe fn unregister(&mut self, ring: &impl AsRawFd) -> Result<(), RingError> {
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
    /// [`RingError::Refused`] with the kernel's error.
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
        match syscalls::buffer_ring_head(ring.as_raw_fd(), self.group) {
            Ok(head) => Ok(self.take_unreported(head)),
            // Before 6.8: no such request.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(0),
            Err(error) => Err(refused(&error, "ask how far a buffer ring was used")),
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
        let mut taken = 0;
        for step in 0..u32::from(used) {
            if let Some(lease) = self.posted.take(first.wrapping_add(step)) {
                // A receive that failed on the way may have written any of it.
                lease.record_written(self.slot_bytes());
                self.recycle(lease);
                taken += 1;
            }
        }
        self.metrics.unreported_slots += taken as u64;
        taken
    }
}

fn fast_path(arena: &FixedArena, options: &BufferRingOptions, slot_bytes: u32) -> FastPathRange {
    let shares_or_scrubs = options.wants_incremental() || arena.handle().scrubs();
    FastPathRange::new(options.copy_below_bytes(), shares_or_scrubs, slot_bytes)
}

fn is_errno(answer: &io::Result<()>, errno: i32) -> bool {
    matches!(answer, Err(error) if error.raw_os_error() == Some(errno))
}

fn refused(error: &io::Error, action: &'static str) -> RingError {
    RingError::Refused { action, errno: error.raw_os_error().unwrap_or(libc::EIO) }
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
