//! Claims of many sizes that wait for blocks: their order, and that none starves.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::support::{Random, Wakes, assert_all_free, nz};
use uring_arena::{AllocError, AsyncBuddyArena, BuddyArena, BuddyGeometry, Buffer};

/// Builds an arena of `units` smallest blocks of 64 bytes.
fn arena(units: usize) -> AsyncBuddyArena {
    let geometry = BuddyGeometry::exact(nz(64 * units), nz(64)).unwrap();
    BuddyArena::builder(geometry).build_async().unwrap()
}

fn fill(arena: &BuddyArena, len: usize) -> Vec<Buffer> {
    std::iter::from_fn(|| arena.allocate(nz(len)).ok()).collect()
}

type Waiting<'a> = Pin<Box<dyn Future<Output = Result<Buffer, AllocError>> + 'a>>;

/// Polls a claim once, and counts the wakes of its task.
fn wait(arena: &AsyncBuddyArena, len: usize) -> (Waiting<'_>, Arc<Wakes>) {
    let (mut future, count): (Waiting, _) =
        (Box::pin(arena.allocate_async(nz(len))), Arc::<Wakes>::default());
    assert!(
        future.as_mut().poll(&mut Context::from_waker(&Waker::from(count.clone()))).is_pending()
    );
    (future, count)
}

fn poll(future: &mut Waiting) -> Option<Buffer> {
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(buffer) => Some(buffer.unwrap()),
        Poll::Pending => None,
    }
}

#[test]
fn what_can_never_fit_fails_at_once() {
    let arena = arena(16);
    let held = fill(&arena, 64);
    let mut future = pin!(arena.allocate_async(nz(64 * 17)));
    let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Ready(Err(AllocError::RequestTooLarge))));
    let day = Duration::from_secs(86_400);
    assert_eq!(arena.allocate_timeout(nz(64 * 17), day).unwrap_err(), AllocError::RequestTooLarge);
    drop(held);
}

/// One free serves eight waiters, where arena-alligator wakes one.
#[test]
fn a_block_that_serves_eight_wakes_eight() {
    let arena = arena(8);
    let whole = arena.allocate(nz(512)).unwrap();
    let mut waiting: Vec<_> = (0..10).map(|_| wait(&arena, 64)).collect();
    drop(whole);
    let wakes: Vec<_> = waiting.iter().map(|(_, count)| count.count()).collect();
    assert_eq!(wakes, [1, 1, 1, 1, 1, 1, 1, 1, 0, 0]);
    let served: Vec<_> = waiting.iter_mut().filter_map(|(future, _)| poll(future)).collect();
    assert_eq!(served.len(), 8);
    drop((served, waiting));
    assert_all_free(&arena);
}

#[test]
fn many_small_frees_serve_a_large_one() {
    let arena = arena(8);
    let small = fill(&arena, 64);
    let (mut large, count) = wait(&arena, 512);
    for buffer in small {
        assert_eq!(count.count(), 0, "nobody is woken in vain");
        drop(buffer);
    }
    assert_eq!(count.count(), 1);
    assert_eq!(poll(&mut large).unwrap().capacity(), 512);
}

#[test]
fn a_large_one_that_cannot_be_served_does_not_stop_small_ones() {
    let arena = arena(64);
    let mut held = fill(&arena, 64);
    let for_ever = held.pop();
    let (mut large, _) = wait(&arena, 64 * 64);
    for _ in 0..1000 {
        let (mut small, _) = wait(&arena, 64);
        drop(held.pop());
        held.push(poll(&mut small).expect("served by the free"));
    }
    drop(held);
    assert!(poll(&mut large).is_none());
    drop(for_ever);
    assert!(poll(&mut large).is_some());
}

/// One block stays in each range that could serve the large claim. In whatever order the others
/// come back, a small claim is served by the second free at the latest.
#[test]
fn a_large_one_that_cannot_be_served_withholds_one_free_in_a_row_from_small_ones() {
    let mut random = Random::new(5);
    for large_units in [2, 4, 8, 16, 32] {
        let arena = arena(64);
        let (stay, mut held): (Vec<_>, Vec<_>) = fill(&arena, 64)
            .into_iter()
            .partition(|block| block.slot_index().unwrap() % large_units == large_units / 2);
        let (mut large, _) = wait(&arena, 64 * large_units as usize);
        for round in 0..1000 {
            // Newcomers take what is not withheld.
            held.extend(fill(&arena, 64));
            let (mut small, _) = wait(&arena, 64);
            let served = (1..=2).find_map(|_| {
                // Also without chance: from the first place on, and from the last.
                let place = match round % 3 {
                    0 => random.below(held.len() as u64) as usize,
                    1 => 0,
                    _ => held.len() - 1,
                };
                drop(held.swap_remove(place));
                poll(&mut small)
            });
            held.push(served.expect("served by one of two frees"));
        }
        assert!(poll(&mut large).is_none());
        drop((held, stay));
        assert_eq!(poll(&mut large).unwrap().capacity(), 64 * large_units as usize);
        drop(large);
        assert_all_free(&arena);
    }
}

/// The oldest of the large claims cannot be served. The one behind it gets its turn: small blocks
/// come and go, and its range is never empty by itself.
#[test]
fn a_large_one_that_cannot_be_served_does_not_starve_a_smaller_one_behind_it() {
    let arena = arena(64);
    let mut held: std::collections::VecDeque<_> = fill(&arena, 64).into();
    let stay: Vec<_> = [7, 40].iter().map(|&place| held.remove(place).unwrap()).collect();
    let (mut large, _) = wait(&arena, 64 * 32);
    let (mut smaller, _) = wait(&arena, 64 * 2);
    let mut frees = 0;
    let served = loop {
        drop(held.pop_front());
        frees += 1;
        if let Some(buffer) = poll(&mut smaller) {
            break buffer;
        }
        // A newcomer takes the free block before its neighbour comes back.
        held.extend(arena.allocate(nz(64)));
        assert!(frees < 2000, "starves");
    };
    assert!(poll(&mut large).is_none());
    drop((served, held, stay, smaller, large));
    assert_all_free(&arena);
}

/// Small blocks come and go without end, and the room of a large one is never empty at once. The
/// large claim is served all the same: within the frees that may bypass it, and one for each of its
/// smallest blocks.
#[test]
fn small_ones_do_not_starve_a_large_one() {
    for large_units in [2, 8, 16, 32] {
        let arena = arena(64);
        let mut held: std::collections::VecDeque<_> = fill(&arena, 64).into();
        let (mut large, _) = wait(&arena, 64 * large_units);
        let mut frees = 0;
        let served = loop {
            drop(held.pop_front());
            frees += 1;
            if let Some(buffer) = poll(&mut large) {
                break buffer;
            }
            // A newcomer takes the free block before the next one comes back.
            held.extend(arena.allocate(nz(64)));
            assert!(frees < 1000, "{large_units} units starve");
        };
        assert!(frees <= 17 + 2 * 64, "{large_units} units were served after {frees} frees");
        drop((served, held));
        assert_all_free(&arena);
    }
}

/// One small block in the range that is reserved first never comes back: another range is found.
#[test]
fn a_large_one_is_served_beside_a_block_that_stays() {
    let arena = arena(64);
    let mut held: std::collections::VecDeque<_> = fill(&arena, 64).into();
    // Block 17 stays claimed. The range is reserved around the block that comes back as the
    // seventeenth, while small blocks come and go.
    let stays = held.remove(17);
    let (mut large, _) = wait(&arena, 64 * 16);
    let mut frees = 0;
    let served = loop {
        drop(held.pop_front());
        frees += 1;
        if let Some(buffer) = poll(&mut large) {
            break buffer;
        }
        held.extend(arena.allocate(nz(64)));
        assert!(frees < 2000, "starves");
    };
    drop((served, held, stays));
    assert_all_free(&arena);
}

#[test]
fn what_was_held_for_a_large_one_that_leaves_serves_others() {
    let arena = arena(64);
    let mut held = fill(&arena, 64);
    let (large, _) = wait(&arena, 64 * 16);
    for _ in 0..18 {
        drop(held.remove(0));
        held.extend(arena.allocate(nz(64)));
    }
    assert!(arena.allocate(nz(64)).is_err(), "one unit is held");
    let (mut small, count) = wait(&arena, 64);
    drop(large);
    assert_eq!(count.count(), 1);
    drop((poll(&mut small).unwrap(), held));
    assert_all_free(&arena);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_all_sizes_with_random_cancellation() {
    let arena = arena(64);
    let tasks: Vec<_> = (0..32u64)
        .map(|number| {
            let arena = arena.clone();
            tokio::spawn(async move {
                let mut random = number * 7919 + 1;
                for _ in 0..300 {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let units = 1 << ((random >> 60) % 6);
                    let limit = Duration::from_micros((random >> 40) % 200);
                    let claim = arena.allocate_async(nz(64 * units));
                    let buffer = match (random >> 33) % 4 {
                        0 => tokio::time::timeout(limit, claim).await.ok().transpose().unwrap(),
                        _ => Some(claim.await.unwrap()),
                    };
                    tokio::task::yield_now().await;
                    drop(buffer);
                }
            })
        })
        .collect();
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(60), task).await.expect("nobody starves").unwrap();
    }
    assert_all_free(&arena);
}
