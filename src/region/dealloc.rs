//! How memory that the caller brought is given back.
//!
//! # Safety
//!
//! Unsafe here: the `Dealloc` trait that callers implement, and the two ways that we offer.
//! A region calls `dealloc` exactly once, with the pointer and length it was built from.
#![allow(unsafe_code)]

use std::alloc::Layout;

/// Gives back memory that [`from_raw`](crate::FixedArena::from_raw) was built over.
///
/// ```
/// use uring_arena::Dealloc;
///
/// /// Tells that the memory came home, then leaks it.
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
/// `dealloc` must be sound to call once, on any thread, with the pointer and length that were given
/// to `from_raw`, when nothing uses the memory any more.
pub unsafe trait Dealloc: Send + Sync + 'static {
    /// Gives the memory back.
    ///
    /// # Safety
    ///
    /// `ptr` and `len` are those given to `from_raw`, nothing uses the memory, and this is the only
    /// call.
    unsafe fn dealloc(self, ptr: *mut u8, len: usize);
}

/// Gives memory back to the global allocator.
///
/// ```
/// use std::alloc::Layout;
/// use uring_arena::HeapDealloc;
///
/// let layout = Layout::from_size_align(65536, 4096)?;
/// let dealloc = HeapDealloc::new(layout);
/// # let _ = dealloc;
/// # Ok::<(), std::alloc::LayoutError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct HeapDealloc {
    layout: Layout,
}

impl HeapDealloc {
    /// For memory that [`std::alloc::alloc`] gave for this layout.
    pub fn new(layout: Layout) -> HeapDealloc {
        HeapDealloc { layout }
    }
}

// SAFETY: the caller of `from_raw` vouched that the memory came from the global allocator with this
// layout, which may be given back on any thread.
unsafe impl Dealloc for HeapDealloc {
    unsafe fn dealloc(self, ptr: *mut u8, _len: usize) {
        // SAFETY: `ptr` came from the global allocator with this layout and this is the only call.
        unsafe { std::alloc::dealloc(ptr, self.layout) }
    }
}

/// Leaves the memory alone: it is static, or somebody else gives it back.
///
/// ```
/// use uring_arena::{Dealloc, NoDealloc};
///
/// fn keeps(_: impl Dealloc) {}
/// keeps(NoDealloc);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct NoDealloc;

// SAFETY: does nothing.
unsafe impl Dealloc for NoDealloc {
    unsafe fn dealloc(self, _ptr: *mut u8, _len: usize) {}
}
