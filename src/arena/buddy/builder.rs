//! The builder of a buddy arena.
//!
//! # Safety
//!
//! Unsafe here: `from_raw`, whose caller lends memory.
#![allow(unsafe_code)]

use std::num::NonZeroUsize;

use super::arena::BuddyArena;
use super::geometry::{BuddyGeometry, BuddyHint};
use crate::arena::builder::{BuilderOptions, CallerMemory, no_room, refused, shared_setters};
use crate::arena::unfaulted::Unfaulted;
use crate::region::{BuildError, Dealloc, NoDealloc};
use crate::slots::{Allocator, BLOCK_ORDER_MAX, BuddyAllocator};

/// The sizes of an arena, or the memory that it is cut from.
#[derive(Debug)]
enum Shape {
    Geometry(BuddyGeometry),
    Sizes { total: usize, min_block: usize },
    Caller { hint: BuddyHint, memory: CallerMemory },
}

/// A builder of a [`BuddyArena`].
///
/// ```
/// use uring_arena::{BuddyArena, InitPolicy};
///
/// let arena = BuddyArena::with_sizes(1_000_000, 4096)
///     .init_policy(InitPolicy::Zero)
///     .auto_spill()
///     .build()?;
/// assert_eq!(arena.allocate_bytes(5000)?.capacity(), 5000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a builder does nothing until `build`"]
#[derive(Debug)]
pub struct BuddyArenaBuilder {
    shape: Shape,
    alignment: Option<usize>,
    pub(super) options: BuilderOptions,
}

impl BuddyArena {
    /// Builds an arena of at least `total_size` bytes, with a smallest block of at least
    /// `min_block_size` bytes.
    ///
    /// Both are rounded up as by [`BuddyGeometry::nearest`], so the capacity of a buffer is the
    /// length that was asked for. [`with_sizes`](Self::with_sizes) begins an arena with more
    /// choices.
    ///
    /// # Errors
    ///
    /// [`BuildError`]: a size is zero, the sizes overflow, there are too many smallest blocks, or
    /// the system refuses the memory.
    ///
    /// ```
    /// use uring_arena::BuddyArena;
    ///
    /// let arena = BuddyArena::new(1 << 20, 256)?;
    /// assert_eq!(arena.allocate_bytes(5000)?.capacity(), 5000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(total_size: usize, min_block_size: usize) -> Result<BuddyArena, BuildError> {
        BuddyArena::with_sizes(total_size, min_block_size).build()
    }

    /// Begins an arena of at least `total_size` bytes, with a smallest block of at least
    /// `min_block_size` bytes.
    ///
    /// As [`builder`](Self::builder) with [`BuddyGeometry::nearest`], but building reports a size
    /// of zero.
    ///
    /// ```
    /// use uring_arena::BuddyArena;
    ///
    /// let arena = BuddyArena::with_sizes(1 << 20, 512).alignment(4096).build()?;
    /// assert_eq!(arena.min_block_size(), 4096);
    /// # Ok::<(), uring_arena::BuildError>(())
    /// ```
    pub fn with_sizes(total_size: usize, min_block_size: usize) -> BuddyArenaBuilder {
        BuddyArenaBuilder::new(Shape::Sizes { total: total_size, min_block: min_block_size })
    }

    /// Begins an arena of the shape `geometry`.
    ///
    /// ```
    /// use uring_arena::{BuddyArena, BuddyGeometry};
    ///
    /// let geometry = BuddyGeometry::exact(65536.try_into()?, 1024.try_into()?)?;
    /// let arena = BuddyArena::builder(geometry).build()?;
    /// assert_eq!(arena.allocate_bytes(1500)?.capacity(), 2048);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder(geometry: BuddyGeometry) -> BuddyArenaBuilder {
        BuddyArenaBuilder::new(Shape::Geometry(geometry))
    }

    /// Begins an arena over static memory. Building does not touch the memory.
    ///
    /// The example of [`BuddyHint`] shows it.
    pub fn from_static(memory: &'static mut [u8], hint: BuddyHint) -> BuddyArenaBuilder {
        // SAFETY: borrowed for ever, so nothing else uses it, and never given back.
        unsafe { BuddyArena::from_raw(memory.as_mut_ptr(), memory.len(), hint, NoDealloc) }
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
    /// use uring_arena::{BuddyArena, BuddyHint, HeapDealloc};
    ///
    /// let layout = Layout::from_size_align(65536, 4096)?;
    /// // SAFETY: the layout is not of size zero.
    /// let memory = unsafe { std::alloc::alloc(layout) };
    /// let (hint, dealloc) = (BuddyHint::MinAlloc(4096.try_into()?), HeapDealloc::new(layout));
    /// // SAFETY: freshly allocated with this layout, and used by nothing else.
    /// let arena = unsafe { BuddyArena::from_raw(memory, layout.size(), hint, dealloc) }
    ///     .alignment(4096)
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
        let memory = unsafe { CallerMemory::new(ptr, len, dealloc) };
        BuddyArenaBuilder::new(Shape::Caller { hint, memory })
    }
}

impl BuddyArenaBuilder {
    fn new(shape: Shape) -> BuddyArenaBuilder {
        BuddyArenaBuilder { shape, alignment: None, options: BuilderOptions::default() }
    }

    /// Aligns every block to `bytes`, a power of two, as [`BuddyGeometry::with_alignment`] does.
    ///
    /// Memory of the caller must start on a multiple of it, or building fails.
    ///
    /// ```
    /// use uring_arena::BuddyArena;
    ///
    /// let arena = BuddyArena::with_sizes(1 << 20, 512).alignment(4096).build()?;
    /// assert_eq!(arena.allocate_bytes(1)?.as_ptr().addr() % 4096, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alignment(mut self, bytes: usize) -> BuddyArenaBuilder {
        self.alignment = Some(bytes);
        self
    }

    /// Builds the arena with its pages present.
    ///
    /// [`PageSize::Unknown`](crate::PageSize::Unknown) leaves the pages alone, and memory of the
    /// caller is never touched.
    ///
    /// # Errors
    ///
    /// [`BuildError`]: the shape or the caller's memory does not have the alignment, or the memory
    /// has no block, or too many. Also if the system refuses the memory.
    ///
    /// ```
    /// use uring_arena::{BuddyArena, BuildError};
    ///
    /// let error = BuddyArena::with_sizes(4096, 0).build().unwrap_err();
    /// assert_eq!(error, BuildError::ZeroSize { name: "min_block_size" });
    /// ```
    pub fn build(self) -> Result<BuddyArena, BuildError> {
        Ok(self.build_unfaulted()?.fault_pages())
    }

    /// Builds the arena without touching its pages.
    ///
    /// # Errors
    ///
    /// As for [`build`](Self::build).
    ///
    /// ```
    /// use uring_arena::BuddyArena;
    ///
    /// let unfaulted = BuddyArena::with_sizes(1 << 20, 256).build_unfaulted()?;
    /// assert_eq!(unfaulted.fault_pages().total_size(), 1 << 20);
    /// # Ok::<(), uring_arena::BuildError>(())
    /// ```
    pub fn build_unfaulted(self) -> Result<Unfaulted<BuddyArena>, BuildError> {
        let geometry = self.measure().map_err(|error| refused(error, &self))?;
        let order = geometry.order();
        let buddy = BuddyAllocator::new(order).ok_or_else(|| no_room((1 << order) / 4))?;
        let memory = match self.shape {
            Shape::Caller { memory, .. } => Some(memory),
            Shape::Geometry(_) | Shape::Sizes { .. } => None,
        };
        let (bytes, min_block) = (geometry.total_size(), geometry.min_block_size());
        let (allocator, alignment) = (Allocator::Blocks(buddy), geometry.alignment());
        let built = self.options.build(allocator, min_block, bytes, alignment, memory)?;
        Ok(Unfaulted::new(built, |handle| BuddyArena::from_handle(handle, geometry)))
    }

    fn measure(&self) -> Result<BuddyGeometry, BuildError> {
        // The alignment of a builder is checked before its memory.
        let alignment = match self.alignment.map(NonZeroUsize::new) {
            None => NonZeroUsize::MIN,
            Some(Some(alignment)) if alignment.is_power_of_two() => alignment,
            Some(_) => return Err(BuildError::InvalidAlignment),
        };
        let size = |name, bytes| NonZeroUsize::new(bytes).ok_or(BuildError::ZeroSize { name });
        let geometry = match &self.shape {
            Shape::Geometry(geometry) => *geometry,
            Shape::Sizes { total, min_block } => BuddyGeometry::nearest(
                size("total_size", *total)?,
                size("min_block_size", *min_block)?,
            )?,
            Shape::Caller { hint, memory } => {
                memory.check(alignment.get())?;
                hint.cut(memory.len)?
            }
        };
        let geometry = match self.alignment {
            Some(_) => geometry.with_alignment(alignment)?,
            None => geometry,
        };
        if geometry.order() > BLOCK_ORDER_MAX {
            let (requested, limit) = (1 << geometry.order(), 1 << BLOCK_ORDER_MAX);
            return Err(BuildError::TooManySlots { requested, limit });
        }
        Ok(geometry)
    }
}

shared_setters!(BuddyArenaBuilder);
