//! The runtimes, each with the best settings that its documentation names, and tasks in them.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::num::NonZero;
use std::rc::Rc;
use std::task::{Poll, Waker};

use compio::driver::ProactorBuilder;
use tokio::task::LocalSet;

use crate::run::to_io_error;

/// A runtime of one thread.
pub trait Runtime: Sized + 'static {
    fn block_on<F: Future>(&mut self, future: F) -> F::Output;

    /// Spawns a task. Called inside `block_on` only.
    fn spawn(task: impl Future<Output = ()> + 'static);
}

/// The settings of a runtime.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Settings {
    /// The best settings that its documentation names, with so many entries of its ring.
    Best(u32),
    /// The runtime as it comes.
    Default,
}

pub struct Tokio(tokio::runtime::Runtime, LocalSet);

/// Builds tokio's current-thread runtime, with its epoll if the work needs one.
pub fn tokio(with_io: bool) -> io::Result<Tokio> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    if with_io {
        builder.enable_io();
    }
    Ok(Tokio(builder.build()?, LocalSet::new()))
}

impl Runtime for Tokio {
    fn block_on<F: Future>(&mut self, future: F) -> F::Output {
        self.1.block_on(&self.0, future)
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(task);
    }
}

pub fn tokio_uring(settings: Settings) -> io::Result<tokio_uring::Runtime> {
    let mut builder = tokio_uring::builder();
    if let Settings::Best(entries) = settings {
        let mut ring = tokio_uring::uring_builder();
        ring.setup_coop_taskrun().setup_cqsize(4096);
        builder.entries(entries).uring_builder(&ring);
    }
    tokio_uring::Runtime::new(&builder)
}

impl Runtime for tokio_uring::Runtime {
    fn block_on<F: Future>(&mut self, future: F) -> F::Output {
        tokio_uring::Runtime::block_on(self, future)
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        tokio_uring::spawn(task);
    }
}

/// Builds compio's runtime, with a pool of so many buffers of this length if it is to have one.
pub fn compio(
    settings: Settings,
    buffers: Option<(u16, usize)>,
) -> io::Result<compio::runtime::Runtime> {
    let mut proactor = ProactorBuilder::new();
    if let Settings::Best(entries) = settings {
        proactor.capacity(entries).cqsize(4096).single_issuer(true).defer_taskrun(true);
    }
    if let Some((count, length)) = buffers {
        let count = NonZero::new(count).ok_or(io::ErrorKind::InvalidInput)?;
        proactor.buffer_pool_size(count).buffer_pool_buffer_len(length);
    }
    compio::runtime::RuntimeBuilder::new().with_proactor(proactor).build()
}

impl Runtime for compio::runtime::Runtime {
    fn block_on<F: Future>(&mut self, future: F) -> F::Output {
        compio::runtime::Runtime::block_on(self, future)
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        compio::runtime::spawn(task).detach();
    }
}

type Monoio = monoio::Runtime<monoio::IoUringDriver>;

pub fn monoio(settings: Settings) -> io::Result<Monoio> {
    let mut builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new();
    if let Settings::Best(entries) = settings {
        // monoio takes a builder of the older io-uring crate, which tokio-uring hands out as well.
        let mut ring = tokio_uring::uring_builder();
        ring.setup_coop_taskrun().setup_cqsize(4096);
        builder = builder.with_entries(entries).uring_builder(ring);
    }
    builder.build()
}

impl Runtime for Monoio {
    fn block_on<F: Future>(&mut self, future: F) -> F::Output {
        monoio::Runtime::block_on(self, future)
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        monoio::spawn(task);
    }
}

pub fn glommio(settings: Settings) -> io::Result<glommio::LocalExecutor> {
    let mut builder = glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound);
    if let Settings::Best(entries) = settings {
        builder = builder.io_memory(64 << 20).ring_depth(entries as usize);
    }
    builder.make().map_err(to_io_error)
}

impl Runtime for glommio::LocalExecutor {
    fn block_on<F: Future>(&mut self, future: F) -> F::Output {
        self.run(future)
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        glommio::spawn_local(task).detach();
    }
}

/// A count that tasks work off; wakes the round when it is down to nothing. One thread only.
#[derive(Clone, Default)]
pub struct Goal(Rc<Inner>);

#[derive(Default)]
struct Inner {
    missing: Cell<isize>,
    starved: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

impl Goal {
    pub fn expect(&self, more: usize) {
        self.0.missing.set(self.0.missing.get() + more as isize);
    }

    /// Counts what a task has done.
    #[inline]
    pub fn arrived(&self, done: usize) {
        let missing = self.0.missing.get() - done as isize;
        self.0.missing.set(missing);
        if missing <= 0
            && let Some(waker) = self.0.waker.take()
        {
            waker.wake();
        }
    }

    pub async fn reached(&self) {
        poll_fn(|context| {
            if self.0.missing.get() <= 0 {
                return Poll::Ready(());
            }
            self.0.waker.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Counts a receive that ended because no buffer was free.
    pub fn starve(&self) {
        self.0.starved.set(self.0.starved.get() + 1);
    }

    pub fn starved(&self) -> u64 {
        self.0.starved.get()
    }
}
