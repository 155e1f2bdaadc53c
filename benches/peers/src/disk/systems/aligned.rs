//! Blocks that `O_DIRECT` takes, for the bare loop and the runtimes that bring none: the same
//! memory for all.

use std::alloc::{Layout, alloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::disk::load::HUGE_PAGE;

/// A block, zeroed, touched, aligned to 4096, of fixed length; a part of a region that is leaked.
pub struct Aligned {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: nobody else refers to its part of the region.
unsafe impl Send for Aligned {}

impl Aligned {
    /// Makes so many blocks side by side, on huge pages where the kernel has them: the device then
    /// sees few long runs.
    pub fn row(count: usize, bytes: usize) -> Vec<Self> {
        let size = (count * bytes).next_multiple_of(HUGE_PAGE);
        let layout = Layout::from_size_align(size, HUGE_PAGE).expect("some megabytes");
        // Not zeroed by the allocator: what it touches before the advice lies on small pages for
        // ever. SAFETY: the size is above zero.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else {
            handle_alloc_error(layout)
        };
        // SAFETY: the range is ours; the advice changes no content.
        unsafe { libc::madvise(start.as_ptr().cast(), size, libc::MADV_HUGEPAGE) };
        // SAFETY: the range is ours, so long, and no reference to it exists yet.
        unsafe { start.write_bytes(0, size) };
        // SAFETY: each block lies inside the region.
        let block = |index| unsafe { start.add(index * bytes) };
        (0..count).map(|index| Self { start: block(index), bytes }).collect()
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the memory is ours, of this length, initialised, and borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }

    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub fn len(&self) -> usize {
        self.bytes
    }
}

// SAFETY: the memory stays where it is when `Aligned` moves, and all of it is initialised.
unsafe impl tokio_uring::buf::IoBuf for Aligned {
    fn stable_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }

    fn bytes_total(&self) -> usize {
        self.len()
    }
}

// SAFETY: as above.
unsafe impl tokio_uring::buf::IoBufMut for Aligned {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    unsafe fn set_init(&mut self, _: usize) {}
}

// SAFETY: the memory stays where it is when `Aligned` moves.
unsafe impl monoio::buf::IoBufMut for Aligned {
    fn write_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.len()
    }

    unsafe fn set_init(&mut self, _: usize) {}
}

impl compio::buf::IoBuf for Aligned {
    fn as_init(&self) -> &[u8] {
        // SAFETY: the memory is ours, of this length, and initialised.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl compio::buf::SetLen for Aligned {
    unsafe fn set_len(&mut self, _: usize) {}
}

impl compio::buf::IoBufMut for Aligned {
    fn as_uninit(&mut self) -> &mut [std::mem::MaybeUninit<u8>] {
        // SAFETY: initialised bytes are possibly initialised bytes; nothing is ever made
        // uninitialised through it.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.bytes) }
    }
}
