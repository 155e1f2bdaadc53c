//! Random histories of one thread against what a fair queue promises.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Poll, Wake, Waker};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::WaiterId;
use super::reservation::BYPASS_MAX;
use super::waiters::pool::Pool;
use crate::slots::{Allocator, take_passes};

#[derive(Debug, Clone)]
enum Step {
    /// Claims, and joins the queue if nothing is free.
    Claim(u32),
    Free(prop::sample::Index),
    Poll(prop::sample::Index),
    Leave(prop::sample::Index),
}

fn steps(orders: std::ops::RangeInclusive<u32>) -> impl Strategy<Value = Vec<Step>> {
    let index = any::<prop::sample::Index>;
    let step = prop_oneof![
        4 => orders.prop_map(Step::Claim),
        3 => index().prop_map(Step::Free),
        2 => index().prop_map(Step::Poll),
        1 => index().prop_map(Step::Leave),
    ];
    prop::collection::vec(step, 1..if cfg!(miri) { 20 } else { 300 })
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

struct Waiting {
    id: WaiterId,
    woken: Arc<Woken>,
}

impl Waiting {
    fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::SeqCst) > 0
    }
}

/// Plays `steps`, and asserts after each: nobody waits for what is free; a waiter is woken once,
/// exactly when it is served; of one order those that came first are served first.
fn check_history(pool: &Pool, steps: &[Step]) {
    play(pool, steps, |waiting| check(pool, waiting));
}

/// Plays `steps`, and calls `check` after each.
fn play(pool: &Pool, steps: &[Step], check: impl Fn(&[Waiting])) {
    let mut held = Vec::new();
    let mut waiting: Vec<Waiting> = Vec::new();
    for step in steps {
        match step {
            Step::Claim(order) => match pool.claim(*order) {
                Some(first) => held.push((first, *order)),
                None => {
                    let (id, woken) = (pool.join(*order), Arc::<Woken>::default());
                    assert!(pool.poll(id, &Waker::from(woken.clone())).is_pending());
                    waiting.push(Waiting { id, woken });
                }
            },
            Step::Free(index) if !held.is_empty() => {
                let (first, order) = held.swap_remove(index.index(held.len()));
                pool.free(first, order);
            }
            Step::Poll(index) if !waiting.is_empty() => {
                let index = index.index(waiting.len());
                let Waiting { id, woken } = &waiting[index];
                let polled = pool.poll(*id, &Waker::from(woken.clone()));
                assert_eq!(polled.is_ready(), waiting[index].is_woken());
                if let Poll::Ready(first) = polled {
                    held.push((first, waiting.remove(index).id.order));
                }
            }
            Step::Leave(index) if !waiting.is_empty() => {
                pool.leave(waiting.remove(index.index(waiting.len())).id);
            }
            _ => {}
        }
        check(&waiting);
    }
    waiting.into_iter().for_each(|waiting| pool.leave(waiting.id));
    held.into_iter().for_each(|(first, order)| _ = pool.free(first, order));
}

fn check(pool: &Pool, waiting: &[Waiting]) {
    for (index, one) in waiting.iter().enumerate() {
        assert!(one.woken.0.load(Ordering::SeqCst) <= 1, "woken for nothing");
        if one.is_woken() {
            continue;
        }
        let is_overtaken =
            waiting[index..].iter().any(|later| later.id.order == one.id.order && later.is_woken());
        assert!(!is_overtaken, "order {}", one.id.order);
        match &pool.allocator {
            Allocator::Slots(bitmap) => assert_eq!(bitmap.live(), bitmap.slot_count()),
            Allocator::Blocks(buddy) => assert_eq!(buddy.free_runs(one.id.order), 0),
        }
    }
}

/// Returns how many histories are played: under Miri each takes a second.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 96 },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn slots_are_served_in_order_of_arrival(slots in 1usize..4, steps in steps(0..=0)) {
        let pool = Pool::of_slots(slots);
        check_history(&pool, &steps);
        prop_assert_eq!(pool.allocator.slots().live(), 0, "a slot is lost");
    }

    #[test]
    fn blocks_are_served_whenever_one_is_free(max_order in 0u32..=6, steps in steps(0..=6)) {
        let pool = Pool::of_blocks(max_order);
        let of_this_size = |step: &Step| !matches!(step, Step::Claim(order) if *order > max_order);
        let steps: Vec<_> = steps.into_iter().filter(of_this_size).collect();
        check_history(&pool, &steps);
        prop_assert_eq!(pool.claim(max_order), Some(0), "a block is lost");
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_callback_hears_of_all_memory_that_is_left(
        max_order in 0u32..=6,
        steps in steps(0..=6),
    ) {
        let heard = Arc::new(AtomicUsize::new(0));
        let sum = heard.clone();
        let pool = Pool::of_blocks(max_order).with_callback(move |order| {
            sum.fetch_add(1 << order, Ordering::SeqCst);
        });
        let free = || (1 << max_order) - pool.allocator.blocks().live_min_blocks() as usize;
        let of_this_size = |step: &Step| !matches!(step, Step::Claim(order) if *order > max_order);
        let steps: Vec<_> = steps.into_iter().filter(of_this_size).collect();
        let before = std::cell::Cell::new(free());
        play(&pool, &steps, |_| {
            let (heard, now) = (heard.swap(0, Ordering::SeqCst), free());
            let became_free = now.saturating_sub(before.replace(now));
            assert!(heard >= became_free, "{became_free} became free, heard of {heard}");
            assert!(heard == 0 || became_free > 0, "heard of {heard} that others have");
        });
    }
}

/// A small tree on which every order of frees is played.
const UNITS: u32 = 8;

/// Sets up eight blocks that are held, and a waiter for four of them together, for which the half
/// around block `around` is reserved.
fn pool_with_a_reservation(around: u32) -> (Pool, WaiterId) {
    let pool = Pool::of_blocks(3);
    (0..UNITS).for_each(|_| _ = pool.claim(0).unwrap());
    let large = pool.join(2);
    for _ in 0..=BYPASS_MAX {
        pool.free(around, 0);
        assert_eq!(pool.claim(0), Some(around), "not yet reserved");
    }
    (pool, large)
}

/// Frees all blocks but those of `stay`, in every order. Calls `check` after each free, with the
/// number of frees so far.
fn for_every_order_of_frees(
    stay: u32,
    set_up: impl Fn() -> (Pool, Vec<Waiting>),
    check: impl Fn(&Pool, &[Waiting], usize),
) {
    let frees = UNITS - stay.count_ones();
    let orders: u64 = (1..=u64::from(frees)).product();
    for number in (0..orders).step_by(if cfg!(miri) { 1009 } else { 1 }) {
        // The factorial digits of the number choose the next block among those that are left.
        let mut digits = number;
        let mut left: Vec<u32> = (0..UNITS).filter(|unit| stay & 1 << unit == 0).collect();
        let (pool, waiting) = set_up();
        for free in 0..frees as usize {
            let block = left.remove((digits % left.len() as u64) as usize);
            digits /= left.len() as u64 + 1;
            pool.free(block, 0);
            check(&pool, &waiting, free + 1);
        }
    }
}

fn wait_for(pool: &Pool, order: u32) -> Waiting {
    let (id, woken) = (pool.join(order), Arc::<Woken>::default());
    assert!(pool.poll(id, &Waker::from(woken.clone())).is_pending());
    Waiting { id, woken }
}

/// The waiter for four blocks cannot be served: one block in each half stays.
#[test]
fn a_large_waiter_does_not_starve_small_ones_in_any_order_of_frees() {
    for (around, stay) in [(0, 0b1000_1000), (0, 0b0001_0001), (5, 0b0001_0010)] {
        for small in 1..=3 {
            for_every_order_of_frees(
                stay,
                || {
                    let (pool, large) = pool_with_a_reservation(around);
                    let mut waiting: Vec<_> = (0..small).map(|_| wait_for(&pool, 0)).collect();
                    waiting.push(Waiting { id: large, woken: Arc::default() });
                    (pool, waiting)
                },
                |_, waiting, frees| {
                    let served = waiting.iter().filter(|waiter| waiter.is_woken()).count();
                    assert!(served >= (frees / 2).min(small), "{served} after {frees} frees");
                },
            );
        }
    }
}

/// All blocks come back at last: the large waiter is served too, and nobody waits for longer than
/// told.
#[test]
fn everybody_is_served_in_any_order_of_frees() {
    // One block in the range comes back last of all.
    let last = 1;
    for small in 0..=3 {
        for_every_order_of_frees(
            1 << last,
            || {
                let (pool, large) = pool_with_a_reservation(2);
                let mut waiting: Vec<_> = (0..small).map(|_| wait_for(&pool, 0)).collect();
                let woken = Arc::<Woken>::default();
                assert!(pool.poll(large, &Waker::from(woken.clone())).is_pending());
                waiting.push(Waiting { id: large, woken });
                (pool, waiting)
            },
            |pool, waiting, frees| {
                let (large, others) = waiting.split_last().unwrap();
                let served = others.iter().filter(|waiter| waiter.is_woken()).count();
                assert!(served >= (frees / 2).min(small), "{served} after {frees} frees");
                if frees == UNITS as usize - 1 {
                    assert_eq!(served, small, "somebody starves");
                    pool.free(last, 0);
                    others.iter().for_each(|waiter| pool.leave(waiter.id));
                    assert!(large.is_woken(), "the large one starves");
                }
            },
        );
    }
}

/// Two large waiters: the older one cannot be served, and small blocks come and go. Memory is
/// reserved for the younger one in its turn.
#[test]
fn a_reservation_that_fails_is_passed_on() {
    let pool = Pool::of_blocks(4);
    let mut held: VecDeque<u32> = std::iter::from_fn(|| pool.claim(0)).collect();
    // One block in each half stays.
    held.retain(|block| ![3, 12].contains(block));
    let (half, pair) = (wait_for(&pool, 3), wait_for(&pool, 1));
    let mut frees = 0;
    while !pair.is_woken() {
        let block = held.pop_front().expect("newcomers get what is not reserved");
        pool.free(block, 0);
        frees += 1;
        // A newcomer is faster than the neighbour of the block.
        held.extend(pool.claim(0));
        assert!(frees <= 2 * (17 + 16) + 4 * 16, "starves");
    }
    assert!(!half.is_woken());
}

/// More tasks than blocks, so that somebody always waits for a small one: a large waiter is served
/// all the same.
#[test]
fn small_waiters_without_end_do_not_starve_a_large_one() {
    let pool = Pool::of_blocks(if cfg!(miri) { 3 } else { 6 });
    let (max_order, waiters) = if cfg!(miri) { (3, 5) } else { (6, 40) };
    let mut random = 88_172_645_463_325_252u64;
    for large_order in 1..max_order {
        let mut held: Vec<u32> = std::iter::from_fn(|| pool.claim(0)).collect();
        let large = wait_for(&pool, large_order);
        let mut small: VecDeque<Waiting> = (0..waiters).map(|_| wait_for(&pool, 0)).collect();
        let mut frees = 0;
        while !large.is_woken() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            pool.free(held.swap_remove(random as usize % held.len()), 0);
            frees += 1;
            while small.front().is_some_and(Waiting::is_woken) {
                let Poll::Ready(block) = pool.poll(small[0].id, Waker::noop()) else {
                    panic!("woken for nothing")
                };
                small.pop_front();
                held.push(block);
                small.push_back(wait_for(&pool, 0));
            }
            assert!(frees < 4000, "{} blocks starve", 1 << large_order);
        }
        small.into_iter().for_each(|waiting| pool.leave(waiting.id));
        pool.leave(large.id);
        held.into_iter().for_each(|block| _ = pool.free(block, 0));
        assert_eq!(pool.claim(max_order), Some(0), "a block is lost");
        pool.free(0, max_order);
    }
}

/// The flags cost every free a visit to the queue: they are cleared once nobody waits any more.
#[test]
fn frees_take_the_fast_path_again_when_nobody_waits() {
    for slots in [1, 64, if cfg!(miri) { 96 } else { 1024 }] {
        let pool = Pool::of_slots(slots);
        let held: Vec<_> = std::iter::from_fn(|| pool.claim(0)).collect();
        let id = pool.join(0);
        pool.leave(id);
        let words = slots.div_ceil(32);
        let visits = held.into_iter().filter(|&slot| pool.free(slot, 0)).count();
        assert_eq!(visits, words.div_ceil(4), "{slots} slots");
    }
}

/// Runs `refuse` over and over while another thread runs `churn`, and returns the most passes of
/// one call.
fn most_passes(churn: impl Fn() + Sync, refuse: impl Fn()) -> usize {
    let stop = AtomicBool::new(false);
    let deadline = Instant::now() + Duration::from_secs(20);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) && Instant::now() < deadline {
                churn();
            }
        });
        let calls = if cfg!(miri) { 5 } else { 3000 };
        let passes = (0..calls).map(|_| {
            take_passes();
            refuse();
            take_passes()
        });
        let most = passes.max().unwrap();
        stop.store(true, Ordering::Relaxed);
        most
    })
}

/// One slot is freed and claimed without end, and may be found: a refusal is as short all the same.
#[test]
fn a_refusal_of_a_slot_takes_three_passes_whatever_others_do() {
    let pool = Pool::of_slots(if cfg!(miri) { 65 } else { 2048 });
    let held: Vec<_> = std::iter::from_fn(|| pool.claim(0)).collect();
    let moving = std::sync::Mutex::new(held[held.len() / 2]);
    let most = most_passes(
        || {
            let mut slot = moving.lock().unwrap();
            pool.free(*slot, 0);
            *slot = loop {
                if let Some(slot) = pool.claim(0) {
                    break slot;
                }
            };
        },
        || {
            if let Some(slot) = pool.claim(0) {
                pool.free(slot, 0);
            }
        },
    );
    assert!(most <= 3, "{most} passes");
}

/// One small block stays in each row, so that a whole row is never free, and another small block
/// comes and goes.
#[test]
fn a_refusal_of_a_block_takes_three_passes_whatever_others_do() {
    let pool = Pool::of_blocks(if cfg!(miri) { 7 } else { 12 });
    let mut held: Vec<_> = std::iter::from_fn(|| pool.claim(0)).collect();
    held.retain(|first| first % 32 != 7);
    held.into_iter().for_each(|first| _ = pool.free(first, 0));
    let most = most_passes(
        || {
            let first = pool.claim(0).expect("there are many");
            pool.free(first, 0);
        },
        || assert_eq!(pool.claim(5), None),
    );
    assert!(most <= 3, "{most} passes");
}

/// As many threads as there are slots, and then as blocks: none is ever refused, though memory is
/// freed behind a search and claimed before it.
#[test]
fn nobody_is_refused_what_fits_at_every_instant() {
    let rounds = if cfg!(miri) { 20 } else { 20_000 };
    let (slots, blocks) = (Pool::of_slots(65), Pool::of_blocks(9));
    let kept_slots: Vec<_> = (0..62).map(|_| slots.claim(0).unwrap()).collect();
    let kept_blocks: Vec<_> = (0..29).map(|_| blocks.claim(4).unwrap()).collect();
    std::thread::scope(|scope| {
        for (pool, order) in [(&slots, 0), (&blocks, 4)].repeat(3) {
            scope.spawn(move || {
                for _ in 0..rounds {
                    let first = pool.claim(order).expect("one for each thread");
                    pool.free(first, order);
                }
            });
        }
    });
    kept_slots.into_iter().for_each(|slot| _ = slots.free(slot, 0));
    kept_blocks.into_iter().for_each(|first| _ = blocks.free(first, 4));
    assert_eq!(slots.allocator.slots().live(), 0);
    assert_eq!(blocks.claim(9), Some(0));
}

/// Claims and frees a slot of an arena. Returns `true` if the free took the fast path.
#[cfg(feature = "async-alloc")]
fn is_freed_fast(arena: &crate::FixedArena) -> bool {
    let (bitmap, handle) = (arena.handle().allocator.slots(), arena.handle());
    let slot = bitmap.claim().unwrap();
    let (word, free) = bitmap.prepare_free(slot);
    let is_fast = free.try_free_fast(word);
    if !is_fast {
        handle.waiters.release(&handle.allocator, slot, 0, &|_, _| {});
    }
    is_fast
}

#[cfg(feature = "async-alloc")]
#[test]
fn the_built_in_wake_policy_leaves_frees_on_the_fast_path() {
    use crate::{FixedArena, NotifyWaiters, WaitRegistration, Waiter};

    assert!(is_freed_fast(&FixedArena::with_sizes(8, 64).build_async().unwrap()));
    let policy = NotifyWaiters::new(1);
    let arena = FixedArena::with_sizes(8, 64).build_async_with(policy.clone()).unwrap();
    assert!(is_freed_fast(&arena));
    // A wait in the arena's own queue ends, and a few frees clear the flags again.
    drop(crate::lease::WaitForSlot::join(arena.handle(), 0, crate::lease::Place::here()));
    assert!(!is_freed_fast(&arena) && is_freed_fast(&arena));
    // A waiter that registers directly must hear of every free.
    let mut registration = Box::pin(Waiter::register(&policy));
    assert!(is_freed_fast(&arena));
    registration.as_mut().prepare();
    assert!(!is_freed_fast(&arena) && !is_freed_fast(&arena));
}
