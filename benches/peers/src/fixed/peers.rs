//! The peers of the fixed arena, each with its best documented settings.

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use bytes::{BufMut, Bytes, BytesMut};

use super::pool::{Pool, Setup};

fn nz(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("sizes here are above zero")
}

/// arena-alligator 0.7.
#[derive(Clone)]
pub struct Alligator(arena_alligator::FixedArena);

impl Pool for Alligator {
    type Slot = arena_alligator::Buffer;
    type Frozen = Bytes;
    type Refused = arena_alligator::AllocError;

    const NAME: &'static str = "arena-alligator 0.7";
    const SPILLS: bool = true;
    const ZEROES: bool = true;

    fn new(setup: Setup) -> Self {
        use arena_alligator::{FixedArena, InitPolicy, PageSize};
        let policy = if setup.zero { InitPolicy::Zero } else { InitPolicy::Uninit };
        let builder = FixedArena::with_slot_capacity(nz(setup.slots), nz(setup.slot_bytes))
            .alignment(4096)
            .page_size(PageSize::Auto)
            .init_policy(policy);
        let built = if setup.spill { builder.auto_spill().build() } else { builder.build() };
        Self(built.expect("the peer's arena builds"))
    }

    #[inline(always)]
    fn claim(&self) -> Result<Self::Slot, Self::Refused> {
        self.0.allocate()
    }

    #[inline(always)]
    fn put(slot: &mut Self::Slot, payload: &[u8]) {
        slot.put_slice(payload);
    }

    #[inline(always)]
    fn put_number(slot: &mut Self::Slot, number: u32) {
        slot.put_u32(number);
    }

    #[inline(always)]
    fn freeze(slot: Self::Slot) -> Bytes {
        slot.freeze()
    }
}

/// The plain way: a fresh `BytesMut` from the process's allocator.
#[derive(Clone)]
pub struct Heap {
    slot_bytes: usize,
    zero: bool,
}

impl Pool for Heap {
    type Slot = BytesMut;
    type Frozen = Bytes;
    type Refused = Infallible;

    const NAME: &'static str = "BytesMut, glibc";
    const NOTE: &'static str = "no limit, no alignment, nothing the kernel could know";
    const BOUNDED: bool = false;
    const SPILLS: bool = true;
    const ZEROES: bool = true;

    fn new(setup: Setup) -> Self {
        Self { slot_bytes: setup.slot_bytes, zero: setup.zero }
    }

    #[inline(always)]
    fn claim(&self) -> Result<BytesMut, Infallible> {
        if self.zero {
            let mut fresh = BytesMut::zeroed(self.slot_bytes);
            fresh.clear();
            return Ok(fresh);
        }
        Ok(BytesMut::with_capacity(self.slot_bytes))
    }

    #[inline(always)]
    fn put(slot: &mut BytesMut, payload: &[u8]) {
        slot.put_slice(payload);
    }

    #[inline(always)]
    fn put_number(slot: &mut BytesMut, number: u32) {
        slot.put_u32(number);
    }

    #[inline(always)]
    fn freeze(slot: BytesMut) -> Bytes {
        slot.freeze()
    }
}

/// No pool at all: one slot per handle, always the same. The floor under everything that makes
/// `Bytes`.
pub struct Bare {
    start: NonNull<u8>,
    capacity: u32,
}

// SAFETY: a handle is used by one thread at a time; the cases that share slots between threads
// leave `Bare` out.
unsafe impl Send for Bare {}
// SAFETY: as above.
unsafe impl Sync for Bare {}

impl Bare {
    /// The slot is leaked: a few kilobytes per case, and nothing to count or free in the measured
    /// path.
    fn with_slot(capacity: usize) -> Self {
        let slot = Box::leak(vec![0_u8; capacity].into_boxed_slice());
        Self { start: NonNull::from(slot).cast(), capacity: capacity as u32 }
    }
}

impl Clone for Bare {
    fn clone(&self) -> Self {
        Self::with_slot(self.capacity as usize)
    }
}

/// The slot of `Bare`, by address.
pub struct BareSlot {
    start: NonNull<u8>,
    written: u32,
    capacity: u32,
}

// SAFETY: used by one thread at a time; the cases that share memory between threads leave `Bare`
// out.
unsafe impl Send for BareSlot {}

impl AsRef<[u8]> for BareSlot {
    #[inline(always)]
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `written` bytes are initialised, and the slot is never freed.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.written as usize) }
    }
}

impl Pool for Bare {
    type Slot = BareSlot;
    type Frozen = Bytes;
    type Refused = Infallible;

    const NAME: &'static str = "bare from_owner";
    const NOTE: &'static str = "no pool behind it: the floor of making a `Bytes`";
    const BOUNDED: bool = false;

    fn new(setup: Setup) -> Self {
        Self::with_slot(setup.slot_bytes)
    }

    #[inline(always)]
    fn claim(&self) -> Result<BareSlot, Infallible> {
        Ok(BareSlot { start: self.start, written: 0, capacity: self.capacity })
    }

    #[inline(always)]
    fn put(slot: &mut BareSlot, payload: &[u8]) {
        let end = slot.written + payload.len() as u32;
        assert!(end <= slot.capacity, "the slot is full");
        // SAFETY: the range lies inside the one slot.
        unsafe {
            let target = slot.start.add(slot.written as usize).as_ptr();
            target.copy_from_nonoverlapping(payload.as_ptr(), payload.len());
        }
        slot.written = end;
    }

    #[inline(always)]
    fn put_number(slot: &mut BareSlot, number: u32) {
        Self::put(slot, &number.to_be_bytes());
    }

    #[inline(always)]
    fn freeze(slot: BareSlot) -> Bytes {
        Bytes::from_owner(slot)
    }
}
