//! How a fixed arena is built.
//!
//! # Safety
//!
//! Unsafe here: `from_raw`, whose caller lends us memory.
#![allow(unsafe_code)]

use std::fmt;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use super::super::builder::shared_setters;
use super::super::{SlotSpec, Unfaulted};
use super::FixedArena;
use crate::error::BuildError;
use crate::lease::{Allocator, CoreOptions, Handle, OnFree};
use crate::region::{Dealloc, NoDealloc, Region, Request};
use crate::slots::{SLOTS_MAX, SlotBitmap};

/// What the arena shall look like.
pub(in crate::arena) enum Shape {
    Slots { count: NonZeroUsize, bytes: NonZeroUsize },
    Total { count: NonZeroUsize, bytes: NonZeroUsize },
    Caller { spec: SlotSpec, memory: CallerMemory },
}

/// Memory that the caller lends, with the way to give it back once the arena is built.
pub(in crate::arena) struct CallerMemory {
    pub(in crate::arena) start: *mut u8,
    pub(in crate::arena) len: usize,
    /// Makes the region of the given usable length. Dropping it unused leaves the memory with the
    /// caller.
    take: TakeOver,
}

type TakeOver = Box<dyn FnOnce(NonNull<u8>, usize, usize) -> Region + Send + Sync>;

impl CallerMemory {
    /// # Safety
    ///
    /// As for [`FixedArena::from_raw`].
    pub(in crate::arena) unsafe fn lent(
        start: *mut u8,
        len: usize,
        dealloc: impl Dealloc,
    ) -> CallerMemory {
        let take = Box::new(move |start, usable, len| {
            // SAFETY: the caller of `from_raw` lends this memory until `dealloc` is called.
            unsafe { Region::from_caller(start, usable, len, dealloc) }
        });
        CallerMemory { start, len, take }
    }

    /// Takes the memory over, to use its first `usable` bytes.
    pub(in crate::arena) fn into_region(self, usable: usize) -> Result<Region, BuildError> {
        let start = NonNull::new(self.start).ok_or(BuildError::NullPointer)?;
        Ok((self.take)(start, usable, self.len))
    }
}

// SAFETY: the memory may be used and given back on any thread (`from_raw`'s contract); the pointer
// is only carried here.
unsafe impl Send for CallerMemory {}
// SAFETY: a shared reference gives nothing but the address.
unsafe impl Sync for CallerMemory {}

/// How a [`FixedArena`] shall be built.
///
/// ```
/// use std::num::NonZeroUsize;
/// use uring_arena::{Backing, FixedArena, InitPolicy};
///
/// let (count, bytes) = (NonZeroUsize::new(64).unwrap(), NonZeroUsize::new(100_000).unwrap());
/// let arena = FixedArena::with_slot_capacity(count, bytes)
///     .alignment(4096)
///     .backing(Backing::TransparentHuge)
///     .init_policy(InitPolicy::Zero)
///     .build()?;
/// assert_eq!(arena.slot_capacity(), 102_400);
/// # Ok::<(), uring_arena::BuildError>(())
/// ```
#[must_use = "a builder does nothing until `build`"]
pub struct FixedArenaBuilder {
    shape: Shape,
    alignment: usize,
    zero: bool,
    spill: bool,
    request: Request,
    hook: Option<OnFree>,
}

impl FixedArena {
    /// Begins an arena over static memory. Building does not touch it.
    pub fn from_static(memory: &'static mut [u8], spec: SlotSpec) -> FixedArenaBuilder {
        // SAFETY: borrowed for ever, so nobody else uses it, and never given back.
        unsafe { FixedArena::from_raw(memory.as_mut_ptr(), memory.len(), spec, NoDealloc) }
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
    /// use uring_arena::{FixedArena, HeapDealloc, SlotSpec};
    ///
    /// let layout = Layout::from_size_align(65536, 4096)?;
    /// // SAFETY: the layout is not of size zero.
    /// let memory = unsafe { std::alloc::alloc(layout) };
    /// let spec = SlotSpec::Count(NonZeroUsize::new(16).unwrap());
    /// // SAFETY: freshly allocated with this layout, and used by nobody else.
    /// let arena = unsafe { FixedArena::from_raw(memory, layout.size(), spec, HeapDealloc::new(layout)) }
    ///     .alignment(4096)
    ///     .build()?;
    /// assert_eq!(arena.slot_capacity(), 4096);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn from_raw(
        ptr: *mut u8,
        len: usize,
        spec: SlotSpec,
        dealloc: impl Dealloc,
    ) -> FixedArenaBuilder {
        // SAFETY: the caller's promise, passed on.
        let memory = unsafe { CallerMemory::lent(ptr, len, dealloc) };
        FixedArenaBuilder::new(Shape::Caller { spec, memory })
    }
}

impl FixedArenaBuilder {
    pub(in crate::arena) fn new(shape: Shape) -> FixedArenaBuilder {
        FixedArenaBuilder {
            shape,
            alignment: 1,
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

    /// Aligns the first slot and every other to `bytes`, a power of two, and rounds the slot size
    /// up to it (down for memory of the caller's). 4096 serves every `O_DIRECT` device. Default: 1.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::FixedArena;
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(5000).unwrap());
    /// let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
    /// assert_eq!(arena.slot_capacity(), 8192);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alignment(mut self, bytes: usize) -> FixedArenaBuilder {
        self.alignment = bytes;
        self
    }

    /// Builds the arena with its pages present (unless
    /// [`PageSize::Unknown`](crate::PageSize::Unknown), or memory of the caller's).
    ///
    /// # Errors
    ///
    /// [`BuildError`]: sizes that do not fit or overflow, an alignment that is not a power of two
    /// or that the caller's memory does not have, memory that the system refuses.
    pub fn build(self) -> Result<FixedArena, BuildError> {
        Ok(self.build_unfaulted()?.fault_pages())
    }

    /// Builds the arena without touching its pages.
    ///
    /// # Errors
    ///
    /// As for [`build`](Self::build).
    pub fn build_unfaulted(self) -> Result<Unfaulted<FixedArena>, BuildError> {
        if !self.alignment.is_power_of_two() {
            return Err(BuildError::InvalidAlignment);
        }
        let is_callers = matches!(self.shape, Shape::Caller { .. });
        let page_bytes = if is_callers { None } else { self.request.page_size.bytes() };
        let (count, slot_bytes) = self.measure()?;
        let region_bytes = count.checked_mul(slot_bytes).ok_or(BuildError::SizeOverflow)?;
        if count > SLOTS_MAX {
            return Err(BuildError::TooManySlots { requested: count, limit: SLOTS_MAX });
        }
        let no_room = || BuildError::OutOfMemory {
            bytes: count / 8,
            reason: "no room for the allocator".into(),
        };
        let map = SlotBitmap::new(count).ok_or_else(no_room)?;
        let plan = CoreOptions {
            allocator: Allocator::Slots(map),
            slot_bytes,
            zero: self.zero,
            spill: self.spill,
            hook: self.hook,
        };
        let handle = Handle::new(plan, || match self.shape {
            Shape::Caller { memory, .. } => memory.into_region(region_bytes),
            Shape::Slots { .. } | Shape::Total { .. } => {
                Region::new(region_bytes, self.alignment, &self.request)
            }
        })?;
        let arena = FixedArena::from_handle(handle);
        Ok(Unfaulted::new(arena, page_bytes, |arena, page_bytes| {
            arena.handle().region.fault_pages(page_bytes);
        }))
    }

    /// Slot count and slot bytes.
    fn measure(&self) -> Result<(usize, usize), BuildError> {
        let align_up = |bytes: usize| {
            bytes.checked_next_multiple_of(self.alignment).ok_or(BuildError::SizeOverflow)
        };
        match &self.shape {
            Shape::Slots { count, bytes } => Ok((count.get(), align_up(bytes.get())?)),
            Shape::Total { count, bytes } => {
                Ok((count.get(), align_up(bytes.get().div_ceil(count.get()))?))
            }
            Shape::Caller { spec, memory } => {
                if memory.start.is_null() {
                    return Err(BuildError::NullPointer);
                }
                if !memory.start.addr().is_multiple_of(self.alignment) {
                    return Err(BuildError::InvalidAlignment);
                }
                spec.cut(memory.len, self.alignment)
            }
        }
    }
}

shared_setters!(
    FixedArenaBuilder,
    "slot",
    "FixedArena::with_slot_capacity(NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap())",
    "arena.allocate()?"
);

impl fmt::Debug for FixedArenaBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FixedArenaBuilder")
            .field("alignment", &self.alignment)
            .field("zero", &self.zero)
            .field("spill", &self.spill)
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}
