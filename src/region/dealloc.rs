//! Ways to give back memory that the caller brought.
//!
//! # Safety
//!
//! Unsafe here: the trait `Dealloc`, which callers implement, and two implementations. A region
//! calls `dealloc` exactly once, with the pointer and length that it was built from.
#![allow(unsafe_code)]

use std::alloc::Layout;

/// A way to give back the memory that [`from_raw`](crate::FixedArena::from_raw) was built over.
///
/// ```
/// use uring_arena::Dealloc;
///
/// /// Tells that the memory is free again, then leaks it.
/// struct Tell(std::sync::mpsc::Sender<usize>);
///
/// // SAFETY: leaking memory is always sound.
/// unsafe impl Dealloc for Tell {
///     unsafe fn dealloc(self, _: *mut u8, len: usize) {
///         let _ = self.0.send(len);
///     }
/// }
/// ```
///
/// # Safety
///
/// `dealloc` must be sound to call once, on any thread, when nothing uses the memory any more. It
/// is called with the pointer and length that were given to `from_raw`.
pub unsafe trait Dealloc: Send + Sync + 'static {
    /// Gives the memory back.
    ///
    /// # Safety
    ///
    /// `ptr` and `len` are those given to `from_raw`, nothing uses the memory, and this is the only
    /// call.
    unsafe fn dealloc(self, ptr: *mut u8, len: usize);
}

/// A [`Dealloc`] that gives memory back to the global allocator.
///
/// ```
/// use std::alloc::Layout;
/// use uring_arena::{FixedArena, HeapDealloc, SlotSpec};
///
/// let layout = Layout::from_size_align(65536, 4096)?;
/// // SAFETY: the layout is not of size zero.
/// let memory = unsafe { std::alloc::alloc(layout) };
/// let spec = SlotSpec::Count(16.try_into()?);
/// let dealloc = HeapDealloc::new(layout);
/// // SAFETY: freshly allocated with this layout, and used by nothing else.
/// let arena = unsafe { FixedArena::from_raw(memory, layout.size(), spec, dealloc) }.build()?;
/// assert_eq!(arena.slot_capacity(), 4096);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct HeapDealloc {
    layout: Layout,
}

impl HeapDealloc {
    /// Makes the `Dealloc` of memory that [`std::alloc::alloc`] gave for `layout`.
    ///
    /// The example of [`HeapDealloc`] shows it.
    pub fn new(layout: Layout) -> HeapDealloc {
        HeapDealloc { layout }
    }
}

// SAFETY: the caller of `from_raw` vouched that the memory came from the global allocator with this
// layout. Such memory may be given back on any thread.
unsafe impl Dealloc for HeapDealloc {
    unsafe fn dealloc(self, ptr: *mut u8, _len: usize) {
        // SAFETY: `ptr` came from the global allocator with this layout, and this is the only call.
        unsafe { std::alloc::dealloc(ptr, self.layout) }
    }
}

/// A [`Dealloc`] that leaves the memory alone: for static memory, or memory with another owner.
///
/// ```
/// use uring_arena::{FixedArena, NoDealloc, SlotSpec};
///
/// static mut MEMORY: [u8; 4096] = [0; 4096];
/// let spec = SlotSpec::Count(4.try_into()?);
/// // SAFETY: nothing else uses the static.
/// let arena = unsafe { FixedArena::from_raw((&raw mut MEMORY).cast(), 4096, spec, NoDealloc) };
/// assert_eq!(arena.build()?.slot_capacity(), 1024);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct NoDealloc;

// SAFETY: it does nothing.
unsafe impl Dealloc for NoDealloc {
    unsafe fn dealloc(self, _ptr: *mut u8, _len: usize) {}
}
