//! The builder of a fixed arena.
//!
//! # Safety
//!
//! Unsafe here: `from_raw`, whose caller lends memory.
#![allow(unsafe_code)]

use std::num::NonZeroUsize;

use super::arena::FixedArena;
use crate::arena::builder::{BuilderOptions, CallerMemory, no_room, refused, shared_setters};
use crate::arena::unfaulted::Unfaulted;
use crate::region::{BuildError, Dealloc, NoDealloc};
use crate::slots::{Allocator, SLOTS_MAX, SlotBitmap};

/// A way to cut memory of the caller into slots.
///
/// ```
/// use uring_arena::{FixedArena, SlotSpec};
///
/// let memory = Box::leak(vec![0u8; 1000].into_boxed_slice());
/// let arena = FixedArena::from_static(memory, SlotSpec::Size(300.try_into()?)).build()?;
/// assert_eq!((arena.slot_count(), arena.slot_capacity()), (3, 300));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotSpec {
    /// This many slots, each as large as fits, rounded down to the alignment.
    Count(NonZeroUsize),
    /// As many slots of this many bytes as fit, rounded down to the alignment. The tail is unused.
    Size(NonZeroUsize),
}

impl SlotSpec {
    /// Returns the number of slots, and the bytes in each, that `len` bytes of memory give.
    fn cut(self, len: usize, alignment: usize) -> Result<(usize, usize), BuildError> {
        let align_down = |bytes: usize| bytes & !(alignment - 1);
        let (count, slot_bytes) = match self {
            SlotSpec::Count(count) => (count.get(), align_down(len / count)),
            SlotSpec::Size(size) => {
                let slot_bytes = align_down(size.get());
                if slot_bytes > len {
                    return Err(BuildError::SlotSizeExceedsBacking);
                }
                (len.checked_div(slot_bytes).unwrap_or(0), slot_bytes)
            }
        };
        if count == 0 || slot_bytes == 0 {
            return Err(BuildError::ZeroUsableSlots);
        }
        Ok((count, slot_bytes))
    }
}

/// The sizes of an arena, or the memory that it is cut from.
#[derive(Debug)]
enum Shape {
    Slots { count: usize, bytes: usize },
    Total { count: NonZeroUsize, bytes: NonZeroUsize },
    Caller { spec: SlotSpec, memory: CallerMemory },
}

/// A builder of a [`FixedArena`].
///
/// ```
/// use uring_arena::{Backing, FixedArena, InitPolicy};
///
/// let arena = FixedArena::with_sizes(64, 100_000)
///     .alignment(4096)
///     .backing(Backing::TransparentHuge)
///     .init_policy(InitPolicy::Zero)
///     .build()?;
/// assert_eq!(arena.slot_capacity(), 102_400);
/// # Ok::<(), uring_arena::BuildError>(())
/// ```
#[must_use = "a builder does nothing until `build`"]
#[derive(Debug)]
pub struct FixedArenaBuilder {
    shape: Shape,
    alignment: usize,
    pub(super) options: BuilderOptions,
}

impl FixedArena {
    /// Builds an arena of `slot_count` slots of `slot_capacity` bytes each.
    ///
    /// The memory is an anonymous mapping whose pages are present.
    /// [`with_sizes`](Self::with_sizes) begins an arena with more choices.
    ///
    /// # Errors
    ///
    /// [`BuildError`]: a size is zero, the sizes overflow, or the system refuses the memory.
    ///
    /// ```
    /// use uring_arena::FixedArena;
    ///
    /// let arena = FixedArena::new(1024, 4096)?;
    /// assert_eq!(arena.allocate()?.capacity(), 4096);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(slot_count: usize, slot_capacity: usize) -> Result<FixedArena, BuildError> {
        FixedArena::with_sizes(slot_count, slot_capacity).build()
    }

    /// Begins an arena of `slot_count` slots of `slot_capacity` bytes each.
    ///
    /// As [`with_slot_capacity`](Self::with_slot_capacity), but building reports a size of zero.
    ///
    /// ```
    /// use uring_arena::FixedArena;
    ///
    /// let arena = FixedArena::with_sizes(64, 5000).alignment(4096).build()?;
    /// assert_eq!((arena.slot_count(), arena.slot_capacity()), (64, 8192));
    /// # Ok::<(), uring_arena::BuildError>(())
    /// ```
    pub fn with_sizes(slot_count: usize, slot_capacity: usize) -> FixedArenaBuilder {
        FixedArenaBuilder::new(Shape::Slots { count: slot_count, bytes: slot_capacity })
    }

    /// Begins an arena of `slot_count` slots of `slot_capacity` bytes each, rounded up to the
    /// alignment.
    ///
    /// ```
    /// use std::num::NonZeroUsize;
    /// use uring_arena::FixedArena;
    ///
    /// let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(1000).unwrap());
    /// let arena = FixedArena::with_slot_capacity(count, bytes).alignment(64).build()?;
    /// assert_eq!(arena.slot_capacity(), 1024);
    /// # Ok::<(), uring_arena::BuildError>(())
    /// ```
    pub fn with_slot_capacity(
        slot_count: NonZeroUsize,
        slot_capacity: NonZeroUsize,
    ) -> FixedArenaBuilder {
        FixedArena::with_sizes(slot_count.get(), slot_capacity.get())
    }

    /// Begins an arena of `slot_count` slots that share `arena_capacity` bytes.
    ///
    /// Each slot holds its part, rounded up, then up to the alignment.
    ///
    /// ```
    /// use std::num::NonZeroUsize;
    /// use uring_arena::FixedArena;
    ///
    /// let (count, bytes) = (NonZeroUsize::new(3).unwrap(), NonZeroUsize::new(1000).unwrap());
    /// let arena = FixedArena::with_arena_capacity(count, bytes).alignment(64).build()?;
    /// assert_eq!(arena.slot_capacity(), 384);
    /// # Ok::<(), uring_arena::BuildError>(())
    /// ```
    pub fn with_arena_capacity(
        slot_count: NonZeroUsize,
        arena_capacity: NonZeroUsize,
    ) -> FixedArenaBuilder {
        FixedArenaBuilder::new(Shape::Total { count: slot_count, bytes: arena_capacity })
    }

    /// Begins an arena over static memory. Building does not touch the memory.
    ///
    /// The example of [`SlotSpec`] shows it.
    pub fn from_static(memory: &'static mut [u8], spec: SlotSpec) -> FixedArenaBuilder {
        // SAFETY: borrowed for ever, so nothing else uses it, and never given back.
        unsafe { FixedArena::from_raw(memory.as_mut_ptr(), memory.len(), spec, NoDealloc) }
    }

    /// Begins an arena over memory of the caller: shared memory, a device's, another allocator's.
    ///
    /// If building fails, the caller still owns the memory. Otherwise `dealloc` is called once,
    /// with `ptr` and `len`, after the last handle, buffer and byte is gone, on the thread where
    /// that happens. Building does not touch the memory.
    ///
    /// # Safety
    ///
    /// `ptr..ptr + len` is readable and writable, nothing else uses it, and it stays so until
    /// `dealloc` is called with it.
    ///
    /// ```
    /// use std::alloc::Layout;
    /// use uring_arena::{FixedArena, HeapDealloc, SlotSpec};
    ///
    /// let layout = Layout::from_size_align(65536, 4096)?;
    /// // SAFETY: the layout is not of size zero.
    /// let memory = unsafe { std::alloc::alloc(layout) };
    /// let (spec, dealloc) = (SlotSpec::Count(16.try_into()?), HeapDealloc::new(layout));
    /// // SAFETY: freshly allocated with this layout, and used by nothing else.
    /// let arena = unsafe { FixedArena::from_raw(memory, layout.size(), spec, dealloc) }
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
        let memory = unsafe { CallerMemory::new(ptr, len, dealloc) };
        FixedArenaBuilder::new(Shape::Caller { spec, memory })
    }
}

impl FixedArenaBuilder {
    fn new(shape: Shape) -> FixedArenaBuilder {
        FixedArenaBuilder { shape, alignment: 1, options: BuilderOptions::default() }
    }

    /// Aligns every slot to `bytes`, a power of two, and rounds the slot size up to it.
    ///
    /// For memory of the caller the slot size is rounded down instead, and the memory must start on
    /// a multiple. 4096 serves every `O_DIRECT` device. Default: 1.
    ///
    /// ```
    /// use uring_arena::FixedArena;
    ///
    /// let arena = FixedArena::with_sizes(4, 5000).alignment(4096).build()?;
    /// assert_eq!(arena.slot_capacity(), 8192);
    /// assert_eq!(arena.allocate()?.as_ptr().addr() % 4096, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alignment(mut self, bytes: usize) -> FixedArenaBuilder {
        self.alignment = bytes;
        self
    }

    /// Builds the arena with its pages present.
    ///
    /// [`PageSize::Unknown`](crate::PageSize::Unknown) leaves the pages alone, and memory of the
    /// caller is never touched.
    ///
    /// # Errors
    ///
    /// [`BuildError`]: a size is zero, the sizes overflow, the alignment is not a power of two, or
    /// the caller's memory does not have it. Also if the system refuses the memory.
    ///
    /// ```
    /// use uring_arena::{BuildError, FixedArena};
    ///
    /// let error = FixedArena::with_sizes(4, 4096).alignment(3).build().unwrap_err();
    /// assert_eq!(error, BuildError::InvalidAlignment);
    /// ```
    pub fn build(self) -> Result<FixedArena, BuildError> {
        Ok(self.build_unfaulted()?.fault_pages())
    }

    /// Builds the arena without touching its pages.
    ///
    /// The example of [`Unfaulted`] shows it.
    ///
    /// # Errors
    ///
    /// As for [`build`](Self::build).
    pub fn build_unfaulted(self) -> Result<Unfaulted<FixedArena>, BuildError> {
        let measured = self.measure();
        let (count, slot_bytes) = measured.map_err(|error| refused(error, &self))?;
        let bitmap = SlotBitmap::new(count).ok_or_else(|| no_room(count / 8))?;
        let memory = match self.shape {
            Shape::Caller { memory, .. } => Some(memory),
            Shape::Slots { .. } | Shape::Total { .. } => None,
        };
        let (allocator, bytes) = (Allocator::Slots(bitmap), count * slot_bytes);
        let built = self.options.build(allocator, slot_bytes, bytes, self.alignment, memory)?;
        Ok(Unfaulted::new(built, FixedArena::from_handle))
    }

    /// Returns the number of slots, and the bytes in each.
    fn measure(&self) -> Result<(usize, usize), BuildError> {
        if !self.alignment.is_power_of_two() {
            return Err(BuildError::InvalidAlignment);
        }
        let align_up = |bytes: usize| {
            bytes.checked_next_multiple_of(self.alignment).ok_or(BuildError::SizeOverflow)
        };
        let (count, slot_bytes) = match &self.shape {
            Shape::Slots { count: 0, .. } => {
                return Err(BuildError::ZeroSize { name: "slot_count" });
            }
            Shape::Slots { bytes: 0, .. } => {
                return Err(BuildError::ZeroSize { name: "slot_capacity" });
            }
            Shape::Slots { count, bytes } => (*count, align_up(*bytes)?),
            Shape::Total { count, bytes } => {
                (count.get(), align_up(bytes.get().div_ceil(count.get()))?)
            }
            Shape::Caller { spec, memory } => {
                memory.check(self.alignment)?;
                spec.cut(memory.len, self.alignment)?
            }
        };
        count.checked_mul(slot_bytes).ok_or(BuildError::SizeOverflow)?;
        if count > SLOTS_MAX {
            return Err(BuildError::TooManySlots { requested: count, limit: SLOTS_MAX });
        }
        Ok((count, slot_bytes))
    }
}

shared_setters!(FixedArenaBuilder);
