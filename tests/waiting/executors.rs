//! Waiting on other executors: smol's, and the runtimes of other rings.
//!
//! A wait asks nothing of its executor but to be woken.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::support::{assert_all_free, nz};
use async_executor::Executor;
use futures::channel::oneshot;
use futures::executor::block_on;
use futures::future::join_all;
use uring_arena::{AsyncFixedArena, FixedArena};

const SLOTS: usize = 2;
const TASKS: usize = 20;
const CLAIMS: usize = 30;

fn arena() -> AsyncFixedArena {
    FixedArena::with_slot_capacity(nz(SLOTS), nz(64)).build_async().unwrap()
}

/// Yields to the other tasks once.
fn pause() -> impl Future<Output = ()> {
    struct Pause(bool);

    impl Future for Pause {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            if std::mem::replace(&mut self.0, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }
    }

    Pause(false)
}

/// Claims again and again, and gives up every third claim that is not served at once.
async fn claim_many(arena: AsyncFixedArena) {
    for turn in 0..CLAIMS {
        let mut claim = Box::pin(arena.allocate_async());
        if turn % 3 == 0 {
            let first = futures_util::future::poll_immediate(claim.as_mut()).await;
            pause().await;
            drop((first, claim));
            continue;
        }
        let buffer = claim.await;
        pause().await;
        drop(buffer.freeze());
    }
}

#[test]
fn on_threads_of_an_executor_of_smol() {
    let (arena, executor) = (arena(), Executor::new());
    let tasks: Vec<_> = (0..TASKS).map(|_| executor.spawn(claim_many(arena.clone()))).collect();
    std::thread::scope(|scope| {
        let (done, mut stops) = (join_all(tasks), Vec::new());
        for _ in 0..3 {
            let (stop, stopped) = oneshot::channel::<()>();
            stops.push(stop);
            scope.spawn(|| block_on(executor.run(async move { stopped.await.unwrap_or(()) })));
        }
        block_on(done);
        drop(stops);
    });
    assert_all_free(&arena);
}

#[test]
fn without_an_executor() {
    let arena = arena();
    block_on(join_all((0..TASKS).map(|_| claim_many(arena.clone()))));
    assert_all_free(&arena);
}

#[cfg(feature = "compio")]
#[test]
fn on_compio() {
    let arena = arena();
    compio::runtime::Runtime::new().unwrap().block_on(async {
        let tasks = (0..TASKS).map(|_| compio::runtime::spawn(claim_many(arena.clone())));
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
    assert_all_free(&arena);
}

#[cfg(feature = "tokio-uring")]
#[test]
fn on_tokio_uring() {
    let arena = arena();
    tokio_uring::start(async {
        let tasks = (0..TASKS).map(|_| tokio_uring::spawn(claim_many(arena.clone())));
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
    assert_all_free(&arena);
}

#[cfg(feature = "monoio")]
#[test]
fn on_monoio() {
    let arena = arena();
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().build().unwrap();
    runtime.block_on(async {
        let tasks = (0..TASKS).map(|_| monoio::spawn(claim_many(arena.clone())));
        join_all(tasks.collect::<Vec<_>>()).await;
    });
    assert_all_free(&arena);
}
