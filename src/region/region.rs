//! A region: the bytes of an arena, from the system or from the caller.
//!
//! # Safety
//!
//! Unsafe here: giving the memory back, touching its pages, and zeroing bytes for their owner. A
//! `Region` never makes a reference to its bytes; the folders `slots` and `lease` decide about the
//! ownership of each byte.
//! Unsafe here: the trait `Dealloc`, which callers implement, and two implementations. A region
//! calls `dealloc` exactly once, with the pointer and length that it was built from.
#![allow(unsafe_code)]

#[cfg(not(target_os = "linux"))]
use super::building::InChildren;
use super::building::{Backing, BuildError, PageSize, RegionOptions, system_page_bytes};
#[cfg(target_os = "linux")]
use super::mapping::{Mapping, populate};
use std::alloc::Layout;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::NonNull;

/// A run of memory that lives as long as this value.
// Invariants:
// 1. `start..start + len` is readable and writable until `drop`, where it `is_here`.
// 2. Nothing but the arena uses that memory meanwhile.
// 3. If `known_zero` is set, every byte was zero when the region was made.
pub(crate) struct Region {
    start: NonNull<u8>,
    len: usize,
    known_zero: bool,
    source: Source,
}

/// The origin of a region's memory, with the means to give it back.
enum Source {
    #[cfg(target_os = "linux")]
    Mapped(Mapping),
    Heap(Layout),
    Caller {
        give_back: Option<GiveBack>,
        len: usize,
    },
}

/// A call of the caller's `Dealloc`; boxed once, so that the region has no type parameter.
type GiveBack = Box<dyn FnOnce(*mut u8, usize) + Send + Sync>;

// SAFETY: the region is memory of the process that any thread may use or give back (`Dealloc` is
// Send + Sync). The type gives out addresses only; the leases decide about the bytes behind them.
unsafe impl Send for Region {}
// SAFETY: as above: a shared reference gives only addresses and numbers.
unsafe impl Sync for Region {}

// The `Dealloc` of the caller is called once, when the region is dropped.
impl UnwindSafe for Region {}
impl RefUnwindSafe for Region {}

impl Region {
    /// Gets `len` bytes from the system, starting on a multiple of `alignment`, a power of two.
    pub(crate) fn new(
        len: usize,
        alignment: usize,
        options: &RegionOptions,
    ) -> Result<Region, BuildError> {
        debug_assert!(len > 0 && alignment.is_power_of_two());
        // Miri knows no `madvise`: it gets the heap, and runs everything above this.
        if options.backing == Backing::Heap || cfg!(miri) {
            return Region::from_heap(len, alignment);
        }
        #[cfg(target_os = "linux")]
        {
            let mapping = Mapping::new(len, alignment, options)?;
            let start = mapping.start();
            Ok(Region { start, len, known_zero: true, source: Source::Mapped(mapping) })
        }
        #[cfg(not(target_os = "linux"))]
        match options {
            RegionOptions {
                backing: Backing::Anonymous,
                numa_node: None,
                in_children: InChildren::Copied,
                ..
            } => Region::from_heap(len, alignment),
            _ => Err(BuildError::BackingUnsupported { needs: "Linux" }),
        }
    }

    fn from_heap(len: usize, alignment: usize) -> Result<Region, BuildError> {
        let layout =
            Layout::from_size_align(len, alignment).map_err(|_| BuildError::SizeOverflow)?;
        // SAFETY: the layout is not of size zero.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        let start = NonNull::new(start).ok_or(BuildError::OutOfMemory {
            bytes: len,
            reason: "the global allocator has no room".into(),
        })?;
        Ok(Region { start, len, known_zero: true, source: Source::Heap(layout) })
    }

    /// Takes over memory of the caller: the first `usable` bytes of the `len` at `start`.
    ///
    /// # Safety
    ///
    /// `start..start + len` is readable and writable, and nothing else uses it, until `dealloc` is
    /// called with it. `usable` is at most `len`.
    pub(crate) unsafe fn from_caller(
        start: NonNull<u8>,
        usable: usize,
        len: usize,
        dealloc: impl Dealloc,
    ) -> Region {
        debug_assert!(usable <= len);
        let give_back: GiveBack = Box::new(move |start, len| {
            // SAFETY: called once, by `drop`, with the caller's own values, when no lease is left.
            unsafe { dealloc.dealloc(start, len) }
        });
        let source = Source::Caller { give_back: Some(give_back), len };
        Region { start, len: usable, known_zero: false, source }
    }

    #[inline]
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns true if `address` lies in the region.
    #[inline]
    pub(crate) fn covers(&self, address: usize) -> bool {
        address.wrapping_sub(self.start.addr().get()) < self.len
    }

    /// Returns true if this process has the memory: it is not a forked child that it was kept from.
    pub(crate) fn is_here(&self) -> bool {
        match &self.source {
            #[cfg(target_os = "linux")]
            Source::Mapped(mapping) => mapping.is_here(),
            Source::Heap(_) | Source::Caller { .. } => true,
        }
    }

    /// Returns true if pages can be given back to the system one by one: they are of a private
    /// mapping that this process has.
    pub(crate) fn can_discard(&self) -> bool {
        match &self.source {
            #[cfg(target_os = "linux")]
            Source::Mapped(mapping) => mapping.is_here(),
            // A model discards nothing, and goes through the steps.
            Source::Heap(_) | Source::Caller { .. } => cfg!(uring_arena_loom),
        }
    }

    /// Returns the bytes of a page.
    pub(crate) fn page_bytes(&self) -> usize {
        match &self.source {
            #[cfg(target_os = "linux")]
            Source::Mapped(mapping) => mapping.page_bytes(),
            Source::Heap(_) | Source::Caller { .. } => 1,
        }
    }

    /// Gives the whole pages in a range back to the system. Their bytes are zero, and unwritten,
    /// from then on. Returns the bytes of these pages.
    ///
    /// # Safety
    ///
    /// Nobody else uses the range, and the kernel has pinned no page of it.
    pub(crate) unsafe fn discard(&self, offset: usize, len: usize) -> std::io::Result<usize> {
        debug_assert!(offset + len <= self.len);
        match &self.source {
            #[cfg(target_os = "linux")]
            // SAFETY: the caller's promise.
            Source::Mapped(mapping) => unsafe { mapping.discard(offset, len) },
            Source::Heap(_) | Source::Caller { .. } => Ok(0),
        }
    }

    /// Returns true if every byte was zero when the region was made.
    pub(crate) fn known_zero(&self) -> bool {
        self.known_zero
    }

    /// Makes every page present: by one kernel call where there is one, by touching otherwise.
    ///
    /// Only for a region without any lease yet: touching writes back the value that it reads.
    pub(crate) fn fault_pages(&self, page_size: PageSize) {
        let system_bytes = system_page_bytes();
        let page_bytes = match page_size {
            PageSize::Unknown => return,
            PageSize::Auto => system_bytes,
            PageSize::Size(bytes) => bytes.get(),
        };
        #[cfg(target_os = "linux")]
        if page_bytes <= system_bytes && !cfg!(miri) && populate(self.start, self.len) {
            return;
        }
        let mut offset = 0;
        while offset < self.len {
            self.touch(offset);
            // To the next page boundary: so the last page is reached even if the region does not
            // start on a page.
            let address = self.start.addr().get() + offset;
            offset += page_bytes - address % page_bytes;
        }
    }

    fn touch(&self, offset: usize) {
        debug_assert!(offset < self.len);
        // SAFETY: `offset < len` (invariant 1).
        let byte = unsafe { self.start.add(offset) };
        // SAFETY: in the region, and nothing else uses it yet (the caller's promise).
        let value = unsafe { byte.read_volatile() };
        // SAFETY: as above; the value is the one that was there.
        unsafe { byte.write_volatile(value) };
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        match &mut self.source {
            #[cfg(target_os = "linux")]
            Source::Mapped(_) => {}
            // SAFETY: allocated with this layout, and given back only here.
            Source::Heap(layout) => unsafe { std::alloc::dealloc(self.start.as_ptr(), *layout) },
            Source::Caller { give_back, len } => {
                if let Some(give_back) = give_back.take() {
                    give_back(self.start.as_ptr(), *len);
                }
            }
        }
    }
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region")
            .field("start", &self.start)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// Zeroes `len` bytes from `start`, in a way that the optimiser cannot leave out.
///
/// # Safety
///
/// The bytes lie in one live allocation, and the caller alone owns them.
pub(crate) unsafe fn scrub(start: NonNull<u8>, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { start.as_ptr().write_bytes(0, len) };
    keep_writes(start);
}

/// Makes all writes before it observable: the compiler must assume that the block reads the memory.
#[cfg(all(
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"),
    not(miri)
))]
fn keep_writes(start: NonNull<u8>) {
    // SAFETY: the block is empty; without `nomem` it counts as a read of all memory.
    unsafe {
        std::arch::asm!("/* {0} */", in(reg) start.as_ptr(), options(nostack, preserves_flags));
    }
}

/// Makes all writes before it observable, by the hint of the standard library: for other
/// processors, and for Miri, which runs no assembly.
#[cfg(any(
    not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")),
    miri
))]
fn keep_writes(start: NonNull<u8>) {
    std::hint::black_box(start);
}

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
