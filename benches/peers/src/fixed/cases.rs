//! The cases, each with the loop that measures it.

use std::hint::black_box;
use std::io;
use std::marker::PhantomData;
use std::path::Path;

use crate::measure::{
    Age, Allocator, Padded, Random, Team, aged, hand_over, heap_allocations, wait_for,
};
use crate::report::OURS;
use crate::run::{
    Amount, Case, Contender, Effort, Method, Metric, NANOS, Sample, Work, metric, repeat,
};

use super::drain::{MESSAGES, drains};
use super::pool::{Pool, Received, Setup};
use super::pools::Heap;

/// One question to the contenders.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fixed {
    /// The cost of a slot when nothing is done with it.
    ClaimDrop,
    /// The cost of a message from claim to the last drop.
    RoundTrip(usize),
    /// The same, with the slot handed from one function to another.
    Handed,
    /// Small writes, which are inlined, or pay for a call and a check each.
    Puts,
    /// A claim when most slots are held.
    Held(usize),
    /// The cost to a thread of what the others do: processor time of all ÷ operations of all.
    /// Sleep for a lock is not in it, which favours the mutex.
    Threads(usize),
    HandOver(usize),
    /// Claim and drop on so many threads, in an arena with a history.
    Aged(Age, usize),
    /// The speed of "no".
    Full,
    /// The cost of a slot when a ring is refilled with many at once.
    Batch,
    /// A message that turns out longer than its slot.
    Spill,
    /// No byte of an earlier owner is ever visible.
    Zero(usize),
    /// Our part of a received message, when so many lie ready.
    Drain,
    /// An exact count of a message's heap allocations.
    Heap,
}

impl Case for Fixed {
    fn label(&self) -> String {
        let round = "Claim, write 64 B, freeze, drop";
        match self {
            Self::ClaimDrop => "claim-drop: Claim and drop".into(),
            Self::RoundTrip(bytes) => {
                format!("round-trip-{bytes}: Claim, write {bytes} B, freeze, drop")
            }
            Self::Handed => format!("handed-64: {round}, in two functions"),
            Self::Puts => "puts: Claim, 64 × `put_u32`, freeze, drop".into(),
            Self::Held(slots) => {
                format!("held-{slots}: {round} with {slots} of 1024 slots held")
            }
            Self::Threads(1) => format!("threads-1: {round} on 1 thread"),
            Self::Threads(count) => {
                format!("threads-{count}: {round} on {count} threads (core time per operation)")
            }
            Self::HandOver(droppers) => format!(
                "hand-over-{droppers}: Claimed and frozen here, dropped on another thread (1 → \
                 {droppers})"
            ),
            Self::Aged(age, count) => {
                let key = age.key();
                format!("aged-{key}-{count}: Claim and drop on {count} threads, arena {key}")
            }
            Self::Full => "full: Claim refused: every slot is held".into(),
            Self::Batch => "batch: Claim 32, drop 32 (per slot)".into(),
            Self::Spill => "spill: Write 5000 B into a slot of 4096 B, freeze, drop".into(),
            Self::Zero(bytes) => format!(
                "zero-{bytes}: Nothing of an earlier owner visible: claim, write {bytes} B, drop"
            ),
            Self::Drain => format!(
                "drain-{MESSAGES}: A received message of 512 B, of {MESSAGES} that lie ready: from \
                 the event to the drop"
            ),
            Self::Heap => format!("heap: {round}: heap allocations"),
        }
    }

    fn metrics(&self) -> &'static [Metric] {
        const HEAP: &[Metric] = &[metric("heap", "", "number", 1.0)];
        if *self == Self::Heap { HEAP } else { NANOS }
    }

    fn method(&self, effort: Effort) -> Method {
        match self {
            Self::Heap => Method { allocator: Allocator::Counting, ..Method::once(10_000) },
            // Most of the time goes by outside of what is timed: the kernel receives the messages.
            Self::Drain => {
                let amount = Amount::Times(effort.choose(200, 40_000));
                Method { amount, ..Method::micro(effort) }
            }
            _ => Method::micro(effort),
        }
    }
}

impl<P: Pool> Contender<Fixed> for PhantomData<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn note(&self) -> &'static str {
        P::NOTE
    }

    fn suits(&self, case: &Fixed, _: Effort) -> bool {
        match case {
            Fixed::Full => P::BOUNDED,
            Fixed::Aged(..) => P::NAME == OURS,
            Fixed::Drain => P::DRAINS.is_some(),
            Fixed::Spill => P::SPILLS,
            Fixed::Zero(..) => P::ZEROES,
            Fixed::Held(..) | Fixed::HandOver(..) | Fixed::Batch => P::HAS_SLOTS,
            _ => true,
        }
    }

    fn start(&self, case: &Fixed, _: &Path) -> io::Result<Work> {
        start::<P>(*case)
    }
}

/// The `BytesMut` line on another allocator.
pub struct OnMimalloc;

impl Contender<Fixed> for OnMimalloc {
    fn name(&self) -> &'static str {
        "BytesMut, mimalloc"
    }

    fn suits(&self, case: &Fixed, effort: Effort) -> bool {
        *case != Fixed::Heap && PhantomData::<Heap>.suits(case, effort)
    }

    fn allocator(&self) -> Option<Allocator> {
        Some(Allocator::Mimalloc)
    }

    fn start(&self, case: &Fixed, _: &Path) -> io::Result<Work> {
        start::<Heap>(*case)
    }
}

fn start<P: Pool>(case: Fixed) -> io::Result<Work> {
    if case == Fixed::Drain {
        return drains(P::DRAINS == Some(Received::InPlace));
    }
    let setup = match case {
        Fixed::Spill => Setup { spill: true, ..Setup::USUAL },
        Fixed::Zero(..) => Setup { zero: true, ..Setup::USUAL },
        _ => Setup::USUAL,
    };
    let pool = P::new(setup);
    match case {
        Fixed::ClaimDrop => repeat(1, move || {
            let slot = pool.claim();
            black_box(&slot);
            drop(slot);
        }),
        Fixed::RoundTrip(bytes) => {
            let payload = vec![7; bytes];
            repeat(1, move || round_trip(&pool, &payload))
        }
        Fixed::Handed => repeat(1, move || read::<P>(written(&pool))),
        Fixed::Puts => repeat(1, move || {
            let mut slot = pool.claim().expect("a free slot");
            for number in 0..64 {
                P::put_number(&mut slot, black_box(number));
            }
            black_box(P::freeze(slot).as_ref());
        }),
        Fixed::Held(slots) => {
            let mut held = all_slots(&pool);
            // The free ones lie anywhere, as after hours of service, and not in one run at the end.
            Random::new(41).thin_out(&mut held, slots);
            repeat(1, move || {
                black_box(&held);
                round_trip(&pool, &[7; 64]);
            })
        }
        Fixed::Threads(count) => threads(pool, count),
        Fixed::HandOver(droppers) => {
            let team = Team::on_cores(droppers, 1);
            let mut make = move || {
                let mut slot = wait_for(|| pool.claim().ok());
                P::put(&mut slot, &[7; 64]);
                P::freeze(slot)
            };
            Ok(Box::new(move |times| {
                Ok(Sample::default().with("ns", hand_over(&team, times, &mut make)))
            }))
        }
        Fixed::Aged(age, count) => aged(age, count, move || pool.claim().ok()),
        Fixed::Full => {
            let held = all_slots(&pool);
            repeat(1, move || {
                let refused = pool.claim();
                black_box(&refused);
                assert!(refused.is_err() && held.len() == 1024);
            })
        }
        Fixed::Batch => {
            let mut batch = Vec::with_capacity(32);
            repeat(32, move || {
                pool.claim_many(32, &mut batch);
                assert_eq!(batch.len(), 32);
                batch.clear();
            })
        }
        Fixed::Spill => repeat(1, move || {
            let mut slot = pool.claim().expect("a free slot");
            for _ in 0..5 {
                P::put(&mut slot, black_box(&[7; 1000]));
            }
            assert_eq!(P::freeze(slot).as_ref().len(), 5000);
        }),
        Fixed::Zero(bytes) => {
            let payload = vec![7; bytes];
            repeat(1, move || {
                let mut slot = pool.claim().expect("a free slot");
                P::put(&mut slot, black_box(&payload));
                black_box(&slot);
            })
        }
        Fixed::Drain => unreachable!("has no pool"),
        Fixed::Heap => Ok(Box::new(move |times| {
            (0..1000).for_each(|_| round_trip(&pool, &[7; 64]));
            let before = heap_allocations();
            (0..times).for_each(|_| round_trip(&pool, &[7; 64]));
            let each = (heap_allocations() - before) as f64 / times as f64;
            Ok(Sample::default().with("heap", each))
        })),
    }
}

/// Claims, writes, freezes, drops; shared by the cases that surround it with something.
#[inline(always)]
fn round_trip<P: Pool>(pool: &P, payload: &[u8]) {
    let mut slot = pool.claim().expect("a free slot");
    P::put(&mut slot, black_box(payload));
    let frozen = P::freeze(slot);
    black_box(frozen.as_ref());
    drop(frozen);
}

#[inline(never)]
fn written<P: Pool>(pool: &P) -> P::Slot {
    let mut slot = pool.claim().expect("a free slot");
    P::put(&mut slot, black_box(&[7; 64]));
    slot
}

#[inline(never)]
fn read<P: Pool>(slot: P::Slot) {
    black_box(P::freeze(slot).as_ref());
}

fn all_slots<P: Pool>(pool: &P) -> Vec<P::Slot> {
    let held: Vec<_> = (0..1024).map_while(|_| pool.claim().ok()).collect();
    assert_eq!(held.len(), 1024, "every slot can be claimed");
    held
}

fn threads<P: Pool>(pool: P, count: usize) -> io::Result<Work> {
    let team = Team::new(count);
    Ok(Box::new(move |times| {
        let each = times.div_ceil(count as u64);
        let handles: Vec<Padded<P>> = (0..count).map(|_| Padded(pool.clone())).collect();
        let spent = team.run(move |thread| {
            let Padded(pool) = &handles[thread];
            (0..each).for_each(|_| round_trip(pool, &[7; 64]));
        });
        Ok(Sample::nanos(spent.processor, each * count as u64))
    }))
}
