//! How a buffer ring comes to the kernel's notice, and how the kernel lets go of it.
//!
//! # Safety
//!
//! Unsafe here: registering memory with the kernel, on the caller's word that it is this ring's
//! io_uring.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{Submitter, types};

use super::plain_lengths::PlainLengths;
use super::ring_entries::RingEntries;
use super::shadow::Shadow;
use super::{BufferRing, BufferRingMetrics, BufferRingOptions, syscall};
use crate::FixedArena;
use crate::error::RingError;
use crate::lease::Lease;
use crate::slots::SLOTS_PER_WORD;

impl BufferRing {
    /// Registers a ring fed from `arena`, and publishes the first slots.
    ///
    /// # Errors
    ///
    /// [`RingError`]: a number of entries that the kernel does not take, an arena of more than
    /// 65,536 slots, a group id in use, a kernel older than 5.19, memory that is refused
    /// (`RLIMIT_MEMLOCK`).
    ///
    /// # Safety
    ///
    /// For as long as the result exists: every receive that names this group goes to the ring of
    /// `submitter`, every completion of one is handed to [`complete`](Self::complete) once, and no
    /// other completion is.
    pub unsafe fn register(
        submitter: &Submitter<'_>,
        arena: &FixedArena,
        options: BufferRingOptions,
    ) -> Result<BufferRing, RingError> {
        let register = |address, count, group, flags| {
            // SAFETY: the array is page-aligned, has `count` entries, and stays until `unregister`
            // has succeeded, or for ever.
            unsafe { submitter.register_buf_ring_with_flags(address, count, group, flags) }
        };
        BufferRing::register_with(register, arena, options)
    }

    /// As [`register`](Self::register), for a ring of which only the descriptor is known: a
    /// runtime's.
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
            // SAFETY: the array is page-aligned, has `count` entries, and stays until it is
            // unregistered, or for ever.
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
        let mut answer =
            register(if ring.incremental { types::IOU_PBUF_RING_INC as u16 } else { 0 });
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

    /// Takes the ring down: the slots in it are free again, and nothing can be received into it any
    /// more. Bytes that came through it stay valid. Does not ask for what was [not told
    /// of](Self::reconcile): a submitter does not say its ring's descriptor.
    ///
    /// # Errors
    ///
    /// [`RingError::Refused`] with what the kernel answered; the ring stays as it was.
    ///
    /// # Safety
    ///
    /// `submitter` is of the io_uring that this was registered on, and no receive that names this
    /// group is in flight: the final completion of each was seen.
    pub unsafe fn unregister(&mut self, submitter: &Submitter<'_>) -> Result<(), RingError> {
        self.note_unregistered(submitter.unregister_buf_ring(self.group))
    }

    /// As [`unregister`](Self::unregister), for a ring of which only the descriptor is known;
    /// counts the slots that the kernel used up without saying so ([`reconcile`](Self::reconcile)).
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
            Ok(slots) => {
                tracing::warn!(slots, "the kernel used slots up and told of them in no completion")
            }
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
    pub(super) fn let_go(&mut self) {
        debug_assert!(!self.registered);
        self.shadow.drain(Lease::dec_ref);
        self.spare.clear();
        if let Some(entries) = self.entries.take() {
            entries.free();
        }
    }
}

fn is_errno(answer: &io::Result<()>, errno: i32) -> bool {
    matches!(answer, Err(error) if error.raw_os_error() == Some(errno))
}

fn register_error(error: &io::Error, group: u16, bytes: usize) -> RingError {
    match error.raw_os_error() {
        Some(libc::EEXIST) => RingError::GroupTaken { group },
        // The arguments were checked: what is left is that the kernel does not know the request.
        Some(libc::EINVAL) => {
            RingError::Unsupported { what: "provided-buffer rings", since: "5.19" }
        }
        Some(libc::ENOMEM) => RingError::Memory { bytes, soft: memlock_soft() },
        errno => RingError::Refused {
            action: "register a buffer ring",
            errno: errno.unwrap_or(libc::EIO),
        },
    }
}

/// What this user may lock, in bytes.
fn memlock_soft() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes one `rlimit`, which is ours.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    limit.rlim_cur
}
