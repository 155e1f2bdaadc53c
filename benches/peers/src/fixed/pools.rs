//! Our arena, and the peers with their best documented settings.

use std::convert::Infallible;
use std::ptr::NonNull;

use bytes::{BufMut, Bytes, BytesMut};
use uring_arena::ArenaBytes;

use crate::report::OURS;

use super::pool::{Pool, Received, Setup, nz};

/// Writes into what is a `BufMut`.
macro_rules! put_by_buf_mut {
    () => {
        #[inline(always)]
        fn put(slot: &mut Self::Slot, payload: &[u8]) {
            slot.put_slice(payload);
        }

        #[inline(always)]
        fn put_number(slot: &mut Self::Slot, number: u32) {
            slot.put_u32(number);
        }
    };
}

/// The two arenas are built and used by the same words.
macro_rules! arena_pool {
    (
        $pool:ident, $crate_name:ident, $name:expr, $note:literal, $frozen:ty, $freeze:ident,
        $($more:item)*
    ) => {
        #[derive(Clone)]
        pub struct $pool($crate_name::FixedArena);

        impl Pool for $pool {
            type Slot = $crate_name::Buffer;
            type Frozen = $frozen;
            type Refused = $crate_name::AllocError;

            const NAME: &'static str = $name;
            const NOTE: &'static str = $note;

            fn new(setup: Setup) -> Self {
                use $crate_name::{FixedArena, InitPolicy, PageSize};
                let policy = if setup.zero { InitPolicy::Zero } else { InitPolicy::Uninit };
                let builder = FixedArena::with_slot_capacity(nz(setup.slots), nz(setup.slot_bytes))
                    .alignment(4096)
                    .page_size(PageSize::Auto)
                    .init_policy(policy);
                let built =
                    if setup.spill { builder.auto_spill().build() } else { builder.build() };
                Self(built.expect("the arena builds"))
            }

            #[inline(always)]
            fn claim(&self) -> Result<Self::Slot, Self::Refused> {
                self.0.allocate()
            }

            put_by_buf_mut!();

            #[inline(always)]
            fn freeze(slot: Self::Slot) -> $frozen {
                slot.$freeze()
            }

            $($more)*
        }
    };
}

arena_pool! {
    Ours, uring_arena, OURS, "", Bytes, freeze,
    const DRAINS: Option<Received> = Some(Received::AsBytes);
    #[inline(always)]
    fn claim_many(&self, count: usize, into: &mut Vec<Self::Slot>) {
        self.0.allocate_many(count, |slot| into.push(slot));
    }
}
arena_pool! {
    OursInArena, uring_arena, "uring-arena, ArenaBytes", "never leaves the arena: no heap",
    ArenaBytes, freeze_in_place,
    const DRAINS: Option<Received> = Some(Received::InPlace);
    #[inline(always)]
    fn claim_many(&self, count: usize, into: &mut Vec<Self::Slot>) {
        self.0.allocate_many(count, |slot| into.push(slot));
    }
}
arena_pool! { Alligator, arena_alligator, "arena-alligator 0.7", "", Bytes, freeze, }

/// The plain way: a fresh `BytesMut` from the process's allocator.
#[derive(Clone)]
pub struct Heap(Setup);

impl Pool for Heap {
    type Slot = BytesMut;
    type Frozen = Bytes;
    type Refused = Infallible;

    const NAME: &'static str = "BytesMut, glibc";
    const NOTE: &'static str = "no limit, no alignment, nothing the kernel could know";
    const BOUNDED: bool = false;

    fn new(setup: Setup) -> Self {
        Self(setup)
    }

    #[inline(always)]
    fn claim(&self) -> Result<BytesMut, Infallible> {
        if self.0.zero {
            let mut fresh = BytesMut::zeroed(self.0.slot_bytes);
            fresh.clear();
            return Ok(fresh);
        }
        Ok(BytesMut::with_capacity(self.0.slot_bytes))
    }

    put_by_buf_mut!();

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

impl Clone for Bare {
    /// Leaks a slot: a few kilobytes per case, and nothing to count or free in the measured path.
    fn clone(&self) -> Self {
        Self::new(Setup { slot_bytes: self.capacity as usize, ..Setup::USUAL })
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
    const SPILLS: bool = false;
    const ZEROES: bool = false;
    const HAS_SLOTS: bool = false;

    fn new(setup: Setup) -> Self {
        let slot = Box::leak(vec![0_u8; setup.slot_bytes].into_boxed_slice());
        Self { start: NonNull::from(slot).cast(), capacity: setup.slot_bytes as u32 }
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
