//! The heart of an arena: region, books, header table and counters in one place.
//!
//! ```text
//! ┌──────┬──────────┬──────────┬─ ─ ─┐
//! │ Core │ header 0 │ header 1 │     │   one allocation; a header finds its core by
//! └──────┴──────────┴──────────┴─ ─ ─┘   the distance that it carries
//! ```
//!
//! # Safety
//!
//! Unsafe here: allocating the core with its headers, and pointer arithmetic between them.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::ptr::NonNull;

use crossbeam_utils::CachePadded;

use super::allocator::Allocator;
use super::header::{self, Header, HeaderLine};
use super::waiters::{OnFree, Waiters};
use crate::error::BuildError;
use crate::region::Region;
use crate::sync::{AtomicU64, AtomicUsize};

/// What an arena is built from, but for its memory.
pub(crate) struct CoreOptions {
    pub(crate) allocator: Allocator,
    /// Bytes of one slot, or of one smallest block.
    pub(crate) slot_bytes: usize,
    pub(crate) zero: bool,
    pub(crate) spill: bool,
    /// Told of every free, when the arena is built with a wake policy of the user's.
    pub(crate) hook: Option<OnFree>,
}

/// All of an arena but its handles.
///
/// Lives until the last handle is dropped and every claim is freed: see `lifetime`.
pub(crate) struct Core {
    pub(crate) allocator: Allocator,
    pub(crate) region: Region,
    pub(crate) slot_bytes: usize,
    pub(super) flags: u32,
    headers_offset: usize,
    pub(super) waiters: Waiters,
    /// What is written off the fast path, on lines of its own: everything above is only read.
    pub(crate) counters: CachePadded<Counters>,
}

/// Counts that are not kept beside a slot.
pub(crate) struct Counters {
    /// Handles of the arena.
    pub(super) handles: AtomicUsize,
    /// Words that are not drained yet, and one for the closing itself.
    pub(super) pending: AtomicUsize,
    /// Claims refused.
    pub(crate) failed: AtomicU64,
    pub(crate) spills: AtomicU64,
    pub(crate) quarantined: AtomicU64,
    pub(super) claims_carried: AtomicU64,
    pub(super) frozen_carried: AtomicU64,
    /// Milliseconds of the process's clock at which a spill was last told of.
    pub(crate) spill_told_ms: AtomicU64,
}

impl Core {
    /// Makes a core with one handle, and free headers behind it.
    ///
    /// The region is asked for last: memory that a caller lends is taken over only if nothing else
    /// can fail.
    pub(super) fn create(
        plan: CoreOptions,
        region: impl FnOnce() -> Result<Region, BuildError>,
    ) -> Result<NonNull<Core>, BuildError> {
        let count = plan.allocator.header_count();
        let stride = plan.allocator.header_stride();
        let (layout, headers_offset) = layout(count, stride)?;
        if layout.size() > header::BACK_MAX {
            let limit = (header::BACK_MAX - headers_offset) / stride;
            return Err(BuildError::TooManySlots { requested: count, limit });
        }
        // SAFETY: a core is not of size zero.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) };
        let Some(core) = NonNull::new(memory.cast::<Core>()) else {
            return Err(BuildError::OutOfMemory {
                bytes: layout.size(),
                reason: "no room for the allocator".into(),
            });
        };
        let region = region().inspect_err(|_| {
            // SAFETY: allocated above with this layout, and nothing is in it yet.
            unsafe { std::alloc::dealloc(memory, layout) };
        })?;
        #[cfg(not(uring_arena_loom))]
        let (start, len) = (region.start().addr().get(), region.len());
        let waiters = Waiters::new(&plan.allocator, plan.hook);
        let flag = |set, flag| if set { flag } else { 0 };
        let flags = flag(plan.zero, header::ZERO)
            | flag(plan.spill, header::SPILL)
            | flag(plan.allocator.have_slots(), header::LINE);
        let value = Core {
            counters: CachePadded::new(Counters {
                handles: AtomicUsize::new(1),
                pending: AtomicUsize::new(plan.allocator.word_count() + 1),
                failed: AtomicU64::new(0),
                spills: AtomicU64::new(0),
                quarantined: AtomicU64::new(0),
                claims_carried: AtomicU64::new(0),
                frozen_carried: AtomicU64::new(0),
                spill_told_ms: AtomicU64::new(0),
            }),
            allocator: plan.allocator,
            region,
            slot_bytes: plan.slot_bytes,
            flags,
            headers_offset,
            waiters,
        };
        // SAFETY: freshly allocated with room and alignment for a core.
        unsafe { core.write(value) };
        #[cfg(not(uring_arena_loom))]
        super::registry::insert(super::registry::Entry { start, len, core: core.cast() });
        #[cfg(uring_arena_loom)]
        for index in 0..count {
            // SAFETY: `index` is below the number of headers that the layout has room for.
            let header = unsafe { Core::header_at(core, index as u32) };
            // SAFETY: written above.
            if unsafe { core.as_ref() }.allocator.have_slots() {
                // SAFETY: inside the allocation, aligned, and nothing was there: a slot's header
                // begins a line.
                unsafe { header.cast::<HeaderLine>().write(HeaderLine::new()) };
            } else {
                // SAFETY: inside the allocation, aligned, and nothing was there.
                unsafe { header.write(Header::new()) };
            }
        }
        Ok(core)
    }

    /// Drops the core and gives its memory and its region back.
    ///
    /// # Safety
    ///
    /// `core` came from [`create`](Self::create); no handle and no claim is left, and nobody else
    /// calls this.
    pub(super) unsafe fn destroy(core: NonNull<Core>) {
        // SAFETY: live until here (the caller's promise).
        let allocator = unsafe { &core.as_ref().allocator };
        let layout = layout(allocator.header_count(), allocator.header_stride());
        #[cfg(uring_arena_loom)]
        for index in 0..allocator.header_count() {
            // SAFETY: as in `create`.
            let header = unsafe { Core::header_at(core, index as u32) };
            // SAFETY: written by `create`, and nobody else is left.
            // The model checks the latter: every use of the bytes must have happened before.
            unsafe { header.as_ref() }.bytes.with_mut(|_| ());
            // SAFETY: written by `create`, dropped once.
            unsafe { header.drop_in_place() };
        }
        // SAFETY: initialised by `create`, moved out once.
        let value = unsafe { core.read() };
        #[cfg(not(uring_arena_loom))]
        super::registry::remove(value.region.start().addr().get());
        if let Ok((layout, _)) = layout {
            // SAFETY: allocated by `create` with this layout. Before the region is dropped: the
            // caller's `Dealloc` may panic.
            unsafe { std::alloc::dealloc(core.as_ptr().cast(), layout) };
        }
        drop(value);
    }

    /// The header of slot, or smallest block, `index`.
    ///
    /// # Safety
    ///
    /// `core` is live and `index` is below its number of headers.
    #[inline]
    pub(super) unsafe fn header_at(core: NonNull<Core>, index: u32) -> NonNull<Header> {
        // SAFETY: `core` is live.
        let distance = unsafe { core.as_ref() }.distance_to(index);
        // SAFETY: the distance is inside the allocation of `create`, and a multiple of the header's
        // alignment.
        unsafe { core.byte_add(distance) }.cast()
    }

    /// As [`header_at`](Self::header_at), where it is known that the arena has slots: without
    /// asking again.
    ///
    /// # Safety
    ///
    /// As for `header_at`, and the arena has slots.
    #[inline]
    pub(super) unsafe fn slot_header_at(core: NonNull<Core>, slot: u32) -> NonNull<Header> {
        // SAFETY: `core` is live.
        let offset = unsafe { core.as_ref() }.headers_offset;
        // SAFETY: as in `header_at`.
        unsafe { core.byte_add(offset + slot as usize * size_of::<HeaderLine>()) }.cast()
    }

    #[inline]
    fn distance_to(&self, index: u32) -> usize {
        let stride = match &self.allocator {
            Allocator::Slots(_) => size_of::<HeaderLine>(),
            Allocator::Blocks(_) => size_of::<Header>(),
        };
        self.headers_offset + index as usize * stride
    }

    /// What the header of `index` carries: the way back to the core, and the policies.
    #[inline]
    pub(super) fn back_and_flags(&self, index: u32) -> u32 {
        self.distance_to(index) as u32 | self.flags
    }

    /// The first byte of slot, or smallest block, `index`, which the books number.
    #[inline]
    pub(super) fn slot_start(&self, index: u32) -> NonNull<u8> {
        // SAFETY: the slots that the books number lie inside the region.
        unsafe { self.region.start().add(index as usize * self.slot_bytes) }
    }

    /// The index of the header that lies `distance` bytes behind the core.
    #[inline]
    pub(super) fn index_at(&self, distance: usize) -> u32 {
        let offset = distance - self.headers_offset;
        match &self.allocator {
            Allocator::Slots(_) => (offset / size_of::<HeaderLine>()) as u32,
            Allocator::Blocks(_) => (offset / size_of::<Header>()) as u32,
        }
    }
}

/// Room for a core and its headers, and where the headers begin.
fn layout(count: usize, stride: usize) -> Result<(Layout, usize), BuildError> {
    let bytes = count.checked_mul(stride).ok_or(BuildError::SizeOverflow)?;
    let headers = Layout::from_size_align(bytes, align_of::<HeaderLine>())
        .map_err(|_| BuildError::SizeOverflow)?;
    let (layout, offset) =
        Layout::new::<Core>().extend(headers).map_err(|_| BuildError::SizeOverflow)?;
    Ok((layout.pad_to_align(), offset))
}
