//! The bytes of an arena, whoever they come from.
//!
//! # Safety
//!
//! Unsafe here: giving the memory back, and touching its pages. A `Region` never makes a reference
//! to its bytes; who owns which of them is the business of `slots` and `lease`.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::ptr::NonNull;

use super::{Backing, Dealloc, Request};
use crate::error::BuildError;

/// One run of memory that lives as long as this value.
///
/// Invariants: 1. `start..start + len` is readable and writable until `drop`. 2. Nothing but the
/// arena uses it meanwhile.
/// 3. Where `known_zero` says so, every byte was zero when the region was made.
pub(crate) struct Region {
    start: NonNull<u8>,
    len: usize,
    known_zero: bool,
    source: Source,
}

enum Source {
    #[cfg(target_os = "linux")]
    Mapped {
        _mapping: super::mapping::Mapping,
    },
    Heap(Layout),
    Caller {
        give_back: Option<GiveBack>,
        len: usize,
    },
}

/// Calls the caller's `Dealloc`; boxed once, so that the region has no type parameter.
type GiveBack = Box<dyn FnOnce(*mut u8, usize) + Send + Sync>;

// SAFETY: the region is memory of the process that any thread may use or give back (`Dealloc` is
// Send + Sync), and the type gives out addresses only; who may use the bytes behind them is decided
// by the leases.
unsafe impl Send for Region {}
// SAFETY: as above: a shared reference gives only addresses and numbers.
unsafe impl Sync for Region {}

impl Region {
    /// Gets `len` bytes starting on a multiple of `alignment` (a power of two) from the system.
    pub(crate) fn new(
        len: usize,
        alignment: usize,
        request: &Request,
    ) -> Result<Region, BuildError> {
        debug_assert!(len > 0 && alignment.is_power_of_two());
        if request.backing == Backing::Heap {
            return Region::from_heap(len, alignment);
        }
        #[cfg(target_os = "linux")]
        {
            let mapping = super::mapping::Mapping::new(len, alignment, request)?;
            let start = mapping.start();
            Ok(Region {
                start,
                len,
                known_zero: true,
                source: Source::Mapped { _mapping: mapping },
            })
        }
        #[cfg(not(target_os = "linux"))]
        match request {
            Request {
                backing: Backing::Anonymous,
                numa_node: None,
                keep_from_children: false,
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

    /// Takes over memory of the caller's: `usable` bytes of the `len` at `start`.
    ///
    /// # Safety
    ///
    /// `start..start + len` is readable and writable and used by nobody else until `dealloc` is
    /// called with it, and `usable <= len`.
    pub(crate) unsafe fn from_caller(
        start: NonNull<u8>,
        usable: usize,
        len: usize,
        dealloc: impl Dealloc,
    ) -> Region {
        debug_assert!(usable <= len);
        let give_back: GiveBack = Box::new(move |start, len| {
            // SAFETY: called once, by `drop`, with what the caller gave, when no lease is left.
            unsafe { dealloc.dealloc(start, len) }
        });
        Region {
            start,
            len: usable,
            known_zero: false,
            source: Source::Caller { give_back: Some(give_back), len },
        }
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

    /// True if every byte was zero when the region was made.
    pub(crate) fn known_zero(&self) -> bool {
        self.known_zero
    }

    /// Makes every page present: by one kernel call where there is one, by touching otherwise.
    ///
    /// For a region that no lease exists of yet: touching writes to it, and keeps what it finds.
    pub(crate) fn fault_pages(&self, page_bytes: usize) {
        #[cfg(target_os = "linux")]
        if page_bytes <= super::page::system_page_bytes()
            && super::mapping::populate(self.start, self.len)
        {
            return;
        }
        let mut offset = 0;
        while offset < self.len {
            self.touch(offset);
            // To the next page boundary, so that the last page is reached wherever the region
            // starts.
            let address = self.start.addr().get() + offset;
            offset += page_bytes - address % page_bytes;
        }
    }

    fn touch(&self, offset: usize) {
        debug_assert!(offset < self.len);
        // SAFETY: `offset < len` (invariant 1).
        let byte = unsafe { self.start.add(offset) };
        // SAFETY: in the region, and nobody else uses it yet (the caller's promise).
        let value = unsafe { byte.read_volatile() };
        // SAFETY: as above; writes back what was there.
        unsafe { byte.write_volatile(value) };
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        match &mut self.source {
            #[cfg(target_os = "linux")]
            Source::Mapped { .. } => {}
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
