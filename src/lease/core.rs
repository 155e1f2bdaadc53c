//! The core of an arena: allocator, region, headers, waiters and counters in one place.
//!
//! ```text
//! ┌──────┬──────────┬──────────┬─ ─ ─┐
//! │ Core │ header 0 │ header 1 │     │   one allocation: a header finds its core by the
//! └──────┴──────────┴──────────┴─ ─ ─┘   offset that it carries
//! ```
//!
//! # Safety
//!
//! Unsafe here: allocating the core with its headers, and pointer arithmetic between them.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::ptr::NonNull;

use crossbeam_utils::CachePadded;

use super::counts::CopiedBytes;
#[cfg(feature = "holders")]
use super::header::RARE;
use super::header::{self, Header, HeaderLine};
#[cfg(feature = "holders")]
use super::holder_table::{HolderOptions, HolderTable};
#[cfg(not(uring_arena_loom))]
use super::registry::{self, Entry};
use crate::region::BuildError;
use crate::region::Region;
use crate::slots::Allocator;
#[cfg(not(uring_arena_loom))]
use crate::slots::{BLOCK_ORDER_MAX, SLOTS_MAX};
use crate::sync::{Arc, AtomicU8, AtomicU64, AtomicUsize, EventLimit, Mutex, Ordering, contain};
use crate::wait::{OnFree, Waiters};

/// The parts of an arena, but for its memory.
pub(crate) struct CoreOptions {
    pub(crate) allocator: Allocator,
    /// The bytes of one slot, or of one smallest block.
    pub(crate) slot_bytes: usize,
    pub(crate) zero: bool,
    pub(crate) spill: bool,
    /// The wake policy of a user.
    pub(crate) on_free: Option<OnFree>,
    #[cfg(feature = "holders")]
    pub(crate) holders: HolderOptions,
}

/// An arena without its handles.
///
/// A core lives until the last handle is dropped and every claim is freed: see `handle`.
pub(crate) struct Core {
    pub(crate) allocator: Allocator,
    pub(crate) region: Region,
    pub(crate) slot_bytes: usize,
    pub(super) flags: u32,
    pub(crate) waiters: Waiters,
    /// The bytes of messages that were copied out. Copies outlive the arena.
    pub(crate) copied: Arc<CopiedBytes>,
    /// The bits of a count of claims that are zero at claims that want more than the count.
    #[cfg(feature = "holders")]
    pub(super) rare_claims: u32,
    /// The records of claims, if they are tracked.
    #[cfg(feature = "holders")]
    pub(super) holders: Option<Box<HolderTable>>,
    /// The registrations of the memory with the kernel.
    pub(super) pins: Mutex<usize>,
    /// The fields written off the fast path, on lines of their own: the others are only read.
    pub(crate) counters: CachePadded<Counters>,
}

/// The counts that are not kept in a header.
pub(crate) struct Counters {
    /// The number of handles of the arena.
    pub(super) handles: AtomicUsize,
    /// The number of words that are not drained yet, and one for the closing itself.
    pub(super) pending: AtomicUsize,
    pub(crate) spills: AtomicU64,
    pub(crate) quarantined: AtomicU64,
    pub(super) claims_carried: AtomicU64,
    pub(super) frozen_carried: AtomicU64,
    /// The most slots, or smallest blocks, that were seen claimed at one time.
    pub(super) live_max: AtomicUsize,
    /// The limits of warnings about spills and empty rings, of events about waits, and about lost
    /// slots.
    pub(crate) spill_events: EventLimit,
    pub(crate) empty_ring_events: EventLimit,
    pub(super) wait_events: EventLimit,
    pub(super) quarantine_events: EventLimit,
    /// An event told that claims wait, and none that they do not any more.
    pub(super) is_wait_told: AtomicU8,
}

impl Core {
    /// Makes a core with one handle, and headers never used behind it.
    ///
    /// `region` is called last: the caller's memory is taken over only if nothing else can fail.
    pub(super) fn create(
        options: CoreOptions,
        region: impl FnOnce() -> Result<Region, BuildError>,
    ) -> Result<NonNull<Core>, BuildError> {
        let layout = layout(&options.allocator)?;
        debug_assert!(layout.size() <= header::CORE_OFFSET_MAX, "the builder keeps the limits");
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
        let waiters = Waiters::new(&options.allocator, options.on_free);
        #[cfg(feature = "holders")]
        let holders = HolderTable::new(options.allocator.index_count(), options.holders);
        let flag = |set, flag| if set { flag } else { 0 };
        let flags = flag(options.zero, header::ZERO)
            | flag(options.spill, header::SPILL)
            | flag(options.allocator.has_slots(), header::LINE);
        let value = Core {
            counters: CachePadded::new(Counters {
                handles: AtomicUsize::new(1),
                pending: AtomicUsize::new(options.allocator.word_count() + 1),
                spills: AtomicU64::new(0),
                quarantined: AtomicU64::new(0),
                claims_carried: AtomicU64::new(0),
                frozen_carried: AtomicU64::new(0),
                live_max: AtomicUsize::new(0),
                spill_events: EventLimit::new(),
                empty_ring_events: EventLimit::new(),
                wait_events: EventLimit::new(),
                quarantine_events: EventLimit::new(),
                is_wait_told: AtomicU8::new(0),
            }),
            allocator: options.allocator,
            region,
            slot_bytes: options.slot_bytes,
            flags,
            waiters,
            copied: Arc::default(),
            pins: Mutex::new(0),
            #[cfg(feature = "holders")]
            rare_claims: holders.as_ref().map_or(RARE, |table| table.due_bits() & RARE),
            #[cfg(feature = "holders")]
            holders,
        };
        // SAFETY: freshly allocated with room and alignment for a core.
        unsafe { core.write(value) };
        #[cfg(not(uring_arena_loom))]
        registry::insert(start, Entry { len, core: core.cast() });
        #[cfg(uring_arena_loom)]
        // SAFETY: written above.
        for index in 0..unsafe { core.as_ref() }.allocator.index_count() {
            // SAFETY: `index` is below the number of headers that the layout has room for.
            let header = unsafe { Core::header_at(core, index as u32) };
            // SAFETY: written above.
            if unsafe { core.as_ref() }.allocator.has_slots() {
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

    /// Drops the core, and frees its memory and its region.
    ///
    /// # Safety
    ///
    /// `core` came from [`create`](Self::create). No handle and no claim is left, and nobody else
    /// calls this.
    pub(super) unsafe fn destroy(core: NonNull<Core>) {
        // SAFETY: live until here (the caller's promise).
        let allocator = unsafe { &core.as_ref().allocator };
        let layout = layout(allocator);
        #[cfg(uring_arena_loom)]
        for index in 0..allocator.index_count() {
            // SAFETY: as in `create`.
            let header = unsafe { Core::header_at(core, index as u32) };
            // SAFETY: written by `create`, and nobody else is left. The model checks the latter:
            // every use of the bytes must have happened before.
            unsafe { header.as_ref() }.bytes.with_mut(|_| ());
            // SAFETY: written by `create`, dropped once.
            unsafe { header.drop_in_place() };
        }
        // SAFETY: initialised by `create`, moved out once.
        let value = unsafe { core.read() };
        #[cfg(not(uring_arena_loom))]
        registry::remove(value.region.start().addr().get());
        if let Ok(layout) = layout {
            // SAFETY: allocated by `create` with this layout. Before the region is dropped: the
            // caller's `Dealloc` may panic.
            unsafe { std::alloc::dealloc(core.as_ptr().cast(), layout) };
        }
        drop(value);
    }

    /// Returns the header of slot, or smallest block, `index`.
    ///
    /// # Safety
    ///
    /// `core` is live and `index` is below its number of headers.
    #[inline]
    pub(super) unsafe fn header_at(core: NonNull<Core>, index: u32) -> NonNull<Header> {
        // SAFETY: `core` is live.
        let offset = unsafe { core.as_ref() }.offset_of(index);
        // SAFETY: the offset is inside the allocation of `create`, and a multiple of the header's
        // alignment.
        unsafe { core.byte_add(offset) }.cast()
    }

    /// Returns the header of slot `slot`, without asking whether the arena has slots.
    ///
    /// # Safety
    ///
    /// As for [`header_at`](Self::header_at), and the arena has slots.
    #[inline]
    pub(super) unsafe fn slot_header_at(core: NonNull<Core>, slot: u32) -> NonNull<Header> {
        let offset = HEADERS_OFFSET + slot as usize * size_of::<HeaderLine>();
        // SAFETY: as in `header_at`.
        unsafe { core.byte_add(offset) }.cast()
    }

    /// Returns the header of smallest block `index`, without asking whether the arena has blocks.
    ///
    /// # Safety
    ///
    /// As for [`header_at`](Self::header_at), and the arena has blocks.
    #[inline]
    unsafe fn block_header_at(core: NonNull<Core>, index: u32) -> NonNull<Header> {
        let offset = HEADERS_OFFSET + index as usize * size_of::<Header>();
        // SAFETY: as in `header_at`.
        unsafe { core.byte_add(offset) }.cast()
    }

    /// Writes the order of a block into its header, and returns the header.
    ///
    /// # Safety
    ///
    /// `core` is live and has blocks, and the block at `first` is claimed by the caller.
    #[inline]
    pub(super) unsafe fn record_order(
        core: NonNull<Core>,
        first: u32,
        order: u32,
    ) -> NonNull<Header> {
        // SAFETY: live, and a claimed block has a header.
        let header = unsafe { Core::block_header_at(core, first) };
        // SAFETY: headers live as long as the core, and this one is the claim's.
        unsafe { header.as_ref() }.set_order(order as u8);
        header
    }

    /// Returns the offset of the header of `index` from the core, in bytes.
    #[inline]
    fn offset_of(&self, index: u32) -> usize {
        HEADERS_OFFSET + index as usize * header_stride(&self.allocator)
    }

    /// Returns the value that the header of `index` carries: its offset from the core, and the
    /// policies.
    #[inline]
    pub(super) fn core_offset_and_flags(&self, index: u32) -> u32 {
        self.offset_of(index) as u32 | self.flags
    }

    /// Counts a slot that is lost for good, and tells the log, once a second at most.
    pub(super) fn count_quarantined(&self, slot: u32) {
        // Relaxed: a counter.
        let before = self.counters.quarantined.fetch_add(1, Ordering::Relaxed);
        if !cfg!(uring_arena_loom) && self.counters.quarantine_events.is_due() {
            contain("the log", || {
                tracing::error!(
                    slot,
                    quarantined = before + 1,
                    slot_bytes = self.slot_bytes,
                    "a slot is lost, because the kernel may still write to it: wait for operations, or drain, before they are dropped"
                );
            });
        }
    }

    /// Returns the number of claims by which the count of slot, or smallest block, `index` is ahead
    /// once the slot was claimed.
    ///
    /// A sample is taken by the counts: they must not be the same in all slots.
    pub(super) fn claims_ahead(&self, index: u32) -> u32 {
        #[cfg(feature = "holders")]
        return self.holders.as_ref().map_or(0, |table| table.claims_ahead(index));
        #[cfg(not(feature = "holders"))]
        {
            let _ = index;
            0
        }
    }

    /// Returns the first byte of slot, or smallest block, `index`, which the allocator has.
    #[inline]
    pub(super) fn slot_start(&self, index: u32) -> NonNull<u8> {
        // SAFETY: the slots that the allocator has lie inside the region.
        unsafe { self.region.start().add(index as usize * self.slot_bytes) }
    }

    /// Returns the index of the header that lies `core_offset` bytes behind the core.
    #[inline]
    pub(super) fn index_at(&self, core_offset: usize) -> u32 {
        let offset = core_offset - HEADERS_OFFSET;
        // Two divisions by constants, not one by a variable.
        match &self.allocator {
            Allocator::Slots(_) => (offset / size_of::<HeaderLine>()) as u32,
            Allocator::Blocks(_) => (offset / size_of::<Header>()) as u32,
        }
    }
}

/// The distance from a core to its first header.
const HEADERS_OFFSET: usize = size_of::<Core>().next_multiple_of(align_of::<HeaderLine>());

// A header carries its distance from the core: with the most slots, or smallest blocks, that the
// builders allow, the last header is near enough.
#[cfg(not(uring_arena_loom))]
const _: () = {
    let lines = HEADERS_OFFSET + SLOTS_MAX * size_of::<HeaderLine>();
    let blocks = HEADERS_OFFSET + (1 << BLOCK_ORDER_MAX) * size_of::<Header>();
    assert!(lines <= header::CORE_OFFSET_MAX && blocks <= header::CORE_OFFSET_MAX);
};

/// Returns the distance between two headers: slots have a line each, smallest blocks do not.
#[inline]
fn header_stride(allocator: &Allocator) -> usize {
    match allocator {
        Allocator::Slots(_) => size_of::<HeaderLine>(),
        Allocator::Blocks(_) => size_of::<Header>(),
    }
}

/// Computes the layout of a core with its headers.
fn layout(allocator: &Allocator) -> Result<Layout, BuildError> {
    let stride = header_stride(allocator);
    let bytes = allocator.index_count().checked_mul(stride).ok_or(BuildError::SizeOverflow)?;
    let headers = Layout::from_size_align(bytes, align_of::<HeaderLine>())
        .map_err(|_| BuildError::SizeOverflow)?;
    let (layout, offset) =
        Layout::new::<Core>().extend(headers).map_err(|_| BuildError::SizeOverflow)?;
    debug_assert_eq!(offset, HEADERS_OFFSET);
    Ok(layout.pad_to_align())
}
