//! How a buddy arena is built.
//!
//! # Safety
//!
//! Unsafe here: `from_raw`, whose caller lends us memory.
#![allow(unsafe_code)]

use std::fmt;
use std::num::NonZeroUsize;

use super::super::Unfaulted;
use super::super::builder::shared_setters;
use super::super::fixed::CallerMemory;
use super::{BuddyArena, BuddyGeometry, BuddyHint};
use crate::error::BuildError;
use crate::lease::{Allocator, CoreOptions, Handle, OnFree};
use crate::region::{Dealloc, NoDealloc, Region, Request};
use crate::slots::{BLOCK_ORDER_MAX, BuddyAllocator};

enum Shape {
    Geometry(BuddyGeometry),
    Caller { hint: BuddyHint, memory: CallerMemory },
}

/// How a [`BuddyArena`] shall be built.
///
/// ```
/// use std::num::NonZeroUsize;
/// use uring_arena::{BuddyArena, BuddyGeometry, InitPolicy};
///
/// let bytes = |n| NonZeroUsize::new(n).unwrap();
/// let arena = BuddyArena::builder(BuddyGeometry::nearest(bytes(1_000_000), bytes(4096))?)
///     .init_policy(InitPolicy::Zero)
///     .auto_spill()
///     .build()?;
/// assert_eq!(arena.allocate(bytes(5000))?.capacity(), 5000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a builder does nothing until `build`"]
pub struct BuddyArenaBuilder {
    shape: Shape,
    alignment: Option<NonZeroUsize>,
    zero: bool,
    spill: bool,
    request: Request,
    hook: Option<OnFree>,
}

impl BuddyArena {
    /// Begins an arena over static memory. Building does not touch it.
    pub fn from_static(memory: &'static mut [u8], hint: BuddyHint) -> BuddyArenaBuilder {
        // SAFETY: borrowed for ever, so nobody else uses it, and never given back.
        unsafe { BuddyArena::from_raw(memory.as_mut_ptr(), memory.len(), hint, NoDealloc) }
    }

    /// Begins an arena over memory of the caller's: shared memory, a device's, another allocator's.
    ///
    /// If building fails the caller still owns the memory. Otherwise `dealloc` is called once, with
    /// `ptr` and `len`, after the last handle, buffer and byte is gone, on whatever thread that
    /// happens. Building does not touch the memory.
    ///
    /// # Safety
    ///
    /// `ptr..ptr + len` is readable and writable, used by nobody else, and stays so until `dealloc`
    /// is called with it.
    ///
    /// ```
    /// use std::alloc::Layout;
    /// use std::num::NonZeroUsize;
    /// use uring_arena::{BuddyArena, BuddyHint, HeapDealloc};
    ///
    /// let layout = Layout::from_size_align(65536, 4096)?;
    /// // SAFETY: the layout is not of size zero.
    /// let memory = unsafe { std::alloc::alloc(layout) };
    /// let hint = BuddyHint::MinAlloc(NonZeroUsize::new(4096).unwrap());
    /// // SAFETY: freshly allocated with this layout, and used by nobody else.
    /// let arena = unsafe { BuddyArena::from_raw(memory, layout.size(), hint, HeapDealloc::new(layout)) }
    ///     .alignment(NonZeroUsize::new(4096).unwrap())
    ///     .build()?;
    /// assert_eq!(arena.max_order(), 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn from_raw(
        ptr: *mut u8,
        len: usize,
        hint: BuddyHint,
        dealloc: impl Dealloc,
    ) -> BuddyArenaBuilder {
        // SAFETY: the caller's promise, passed on.
        let memory = unsafe { CallerMemory::lent(ptr, len, dealloc) };
        BuddyArenaBuilder::new(Shape::Caller { hint, memory })
    }
}

impl BuddyArenaBuilder {
    pub(in crate::arena) fn of_geometry(geometry: BuddyGeometry) -> BuddyArenaBuilder {
        BuddyArenaBuilder::new(Shape::Geometry(geometry))
    }

    fn new(shape: Shape) -> BuddyArenaBuilder {
        BuddyArenaBuilder {
            shape,
            alignment: None,
            zero: false,
            spill: false,
            request: Request::default(),
            hook: None,
        }
    }

    /// Has `hook` told of every free.
    #[cfg(feature = "async-alloc")]
    pub(in crate::arena) fn set_hook(&mut self, hook: OnFree) {
        self.hook = Some(hook);
    }

    /// Aligns every block to `bytes`: as [`BuddyGeometry::with_alignment`]. Memory of the caller's
    /// must start on a multiple of it, or building fails.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::{BuddyArena, BuddyGeometry};
    /// # let bytes = |n| NonZeroUsize::new(n).unwrap();
    /// let geometry = BuddyGeometry::nearest(bytes(1 << 20), bytes(512))?;
    /// let arena = BuddyArena::builder(geometry).alignment(bytes(4096)).build()?;
    /// assert_eq!(arena.allocate(bytes(1))?.as_ptr().addr() % 4096, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alignment(mut self, bytes: NonZeroUsize) -> BuddyArenaBuilder {
        self.alignment = Some(bytes);
        self
    }

    /// Builds the arena with its pages present (unless
    /// [`PageSize::Unknown`](crate::PageSize::Unknown), or memory of the caller's).
    ///
    /// # Errors
    ///
    /// [`BuildError`]: an alignment that the shape or the caller's memory does not have, memory too
    /// small for one block, more smallest blocks than one arena can number, memory that the system
    /// refuses.
    pub fn build(self) -> Result<BuddyArena, BuildError> {
        Ok(self.build_unfaulted()?.fault_pages())
    }

    /// Builds the arena without touching its pages.
    ///
    /// # Errors
    ///
    /// As for [`build`](Self::build).
    pub fn build_unfaulted(self) -> Result<Unfaulted<BuddyArena>, BuildError> {
        let geometry = self.measure()?;
        let is_callers = matches!(self.shape, Shape::Caller { .. });
        let page_bytes = if is_callers { None } else { self.request.page_size.bytes() };
        if geometry.order() > BLOCK_ORDER_MAX {
            let (requested, limit) = (1 << geometry.order(), 1 << BLOCK_ORDER_MAX);
            return Err(BuildError::TooManySlots { requested, limit });
        }
        let map = BuddyAllocator::new(geometry.order()).ok_or_else(|| BuildError::OutOfMemory {
            bytes: (1 << geometry.order()) / 4,
            reason: "no room for the allocator".into(),
        })?;
        let plan = CoreOptions {
            allocator: Allocator::Blocks(map),
            slot_bytes: geometry.min_block_size(),
            zero: self.zero,
            spill: self.spill,
            hook: self.hook,
        };
        let total = geometry.total_size();
        let handle = Handle::new(plan, || match self.shape {
            Shape::Caller { memory, .. } => memory.into_region(total),
            Shape::Geometry(_) => Region::new(total, geometry.alignment(), &self.request),
        })?;
        Ok(Unfaulted::new(BuddyArena::new(handle, geometry), page_bytes, |arena, page_bytes| {
            arena.handle().region.fault_pages(page_bytes);
        }))
    }

    fn measure(&self) -> Result<BuddyGeometry, BuildError> {
        let geometry = match &self.shape {
            Shape::Geometry(geometry) => *geometry,
            Shape::Caller { memory, .. } if memory.start.is_null() => {
                return Err(BuildError::NullPointer);
            }
            Shape::Caller { hint, memory } => {
                let alignment = self.alignment.map_or(1, NonZeroUsize::get);
                if !alignment.is_power_of_two() || !memory.start.addr().is_multiple_of(alignment) {
                    return Err(BuildError::InvalidAlignment);
                }
                hint.cut(memory.len)?
            }
        };
        self.alignment.map_or(Ok(geometry), |alignment| geometry.with_alignment(alignment))
    }
}

shared_setters!(
    BuddyArenaBuilder,
    "block",
    "BuddyArena::builder(BuddyGeometry::nearest(NonZeroUsize::new(16384).unwrap(), NonZeroUsize::new(4096).unwrap())?)",
    "arena.allocate(NonZeroUsize::new(4096).unwrap())?"
);

impl fmt::Debug for BuddyArenaBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuddyArenaBuilder")
            .field("alignment", &self.alignment)
            .field("zero", &self.zero)
            .field("spill", &self.spill)
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}
