//! Our own fixed arena, with the same settings as the peer's.

use std::num::NonZeroUsize;

use bytes::{BufMut, Bytes};
use uring_arena::{AllocError, ArenaBytes, Buffer, FixedArena, InitPolicy, PageSize};

use crate::report::OURS;

use super::figures::OURS_IN_ARENA;
use super::pool::{Pool, Setup};

/// Frozen to `Bytes`.
#[derive(Clone)]
pub struct Ours(FixedArena);

/// Frozen without leaving the arena.
#[derive(Clone)]
pub struct OursInArena(FixedArena);

fn build(setup: Setup) -> FixedArena {
    let nz = |number| NonZeroUsize::new(number).expect("sizes here are above zero");
    let policy = if setup.zero { InitPolicy::Zero } else { InitPolicy::Uninit };
    let builder = FixedArena::with_slot_capacity(nz(setup.slots), nz(setup.slot_bytes))
        .alignment(4096)
        .page_size(PageSize::Auto)
        .init_policy(policy);
    let built = if setup.spill { builder.auto_spill().build() } else { builder.build() };
    built.expect("the arena builds")
}

macro_rules! our_pool {
    ($pool:ident, $name:expr, $note:literal, $frozen:ty, $freeze:ident) => {
        impl Pool for $pool {
            type Slot = Buffer;
            type Frozen = $frozen;
            type Refused = AllocError;

            const NAME: &'static str = $name;
            const NOTE: &'static str = $note;
            const SPILLS: bool = true;
            const ZEROES: bool = true;

            fn new(setup: Setup) -> Self {
                Self(build(setup))
            }

            #[inline(always)]
            fn claim(&self) -> Result<Buffer, AllocError> {
                self.0.allocate()
            }

            #[inline(always)]
            fn put(slot: &mut Buffer, payload: &[u8]) {
                slot.put_slice(payload);
            }

            #[inline(always)]
            fn put_number(slot: &mut Buffer, number: u32) {
                slot.put_u32(number);
            }

            #[inline(always)]
            fn freeze(slot: Buffer) -> $frozen {
                slot.$freeze()
            }

            #[inline(always)]
            fn claim_many(&self, count: usize, into: &mut Vec<Buffer>) {
                self.0.allocate_many(count, |slot| into.push(slot));
            }
        }
    };
}

our_pool!(Ours, OURS, "", Bytes, freeze);
our_pool!(
    OursInArena,
    OURS_IN_ARENA,
    "never leaves the arena: no heap",
    ArenaBytes,
    freeze_in_place
);
