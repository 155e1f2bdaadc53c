//! The two engines that turn a driver: a thread of its own, or a task of the runtime.
//!
//! On a runtime of one thread the engine is a task beside the others. A message wakes no thread,
//! and the streams are woken where they run.
//!
//! On a runtime of many threads a task may change its thread, which a ring of one thread may not.
//! The kernel also cancels the requests of a thread that ends. The engine has a thread of its own
//! there.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, ready};

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;
use ::tokio::runtime::Handle;

use super::dispatcher::Dispatcher;
use super::mailbox::{EngineEnd, EngineHandle};
use super::thread::{ThreadBound, run_as_batch};
use crate::arena::FixedArena;
use crate::driver::{Driver, DriverBuilder, DriverError};
use crate::sync::Arc;
use crate::uring::{BufferRingOptions, EventFd, RegisterError, RingError};

/// An error of [`PoolBuilder::build`](crate::tokio::PoolBuilder::build).
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The system gave no io_uring.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The kernel did not take the arena for receiving.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The kernel did not register the arena.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// The system gave no descriptor, or tokio did not watch the descriptor.
    #[error(
        "no event descriptor for the pool ({0}): raise the limit of descriptors (`ulimit -n`), or build the pool with `own_thread`"
    )]
    Event(io::Error),
    /// The system did not start the pool's thread.
    #[error(
        "the pool's thread did not start ({0}): raise the limit of threads (`ulimit -u`), or build the pool inside a one-thread runtime"
    )]
    Thread(io::Error),
}

debug_is_display!(PoolError);
into_io_error!(PoolError);

impl PoolError {
    fn kind(&self) -> io::ErrorKind {
        match self {
            PoolError::Driver(error) => error.kind(),
            PoolError::Ring(error) => error.kind(),
            PoolError::Register(error) => error.kind(),
            PoolError::Event(error) | PoolError::Thread(error) => error.kind(),
        }
    }
}

/// The arena and the options that an engine makes its driver of.
pub(crate) struct EngineOptions {
    pub(crate) arena: FixedArena,
    pub(crate) ring: BufferRingOptions,
    pub(crate) driver: DriverBuilder,
}

impl EngineOptions {
    /// Makes the driver, on the thread that will turn it.
    fn build(self) -> Result<(Driver, Dispatcher), PoolError> {
        let mut driver = self.driver.build()?;
        let ring = driver.register_buffer_ring(&self.arena, self.ring)?;
        driver.register(&self.arena)?;
        Ok((driver, Dispatcher::new(ring)))
    }
}

/// A driver that a thread of its own turns.
pub(crate) struct ThreadEngine {
    driver: Driver,
    dispatcher: Dispatcher,
}

impl ThreadEngine {
    /// Starts the thread, and waits until its driver is there.
    pub(crate) fn start(
        options: EngineOptions,
        batch_scheduling: bool,
    ) -> Result<EngineHandle, PoolError> {
        let (started, answer) = mpsc::sync_channel(1);
        let body = move || {
            if batch_scheduling && let Err(error) = run_as_batch() {
                tracing::warn!(%error, "the pool's thread is scheduled like any other");
            }
            match ThreadEngine::new(options) {
                Ok(engine) => {
                    let handle = EngineHandle::new(Arc::clone(&engine.dispatcher.mailbox));
                    if started.send(Ok(handle)).is_ok() {
                        engine.run();
                    }
                }
                Err(error) => drop(started.send(Err(error))),
            }
        };
        let thread = std::thread::Builder::new().name("uring-arena".into());
        thread.spawn(body).map_err(PoolError::Thread)?;
        let ended = |_| PoolError::Thread(io::Error::other("it ended before it began"));
        answer.recv().map_err(ended)?
    }

    fn new(options: EngineOptions) -> Result<ThreadEngine, PoolError> {
        let (mut driver, dispatcher) = options.build()?;
        dispatcher.mailbox.wait(&driver.waker()?);
        Ok(ThreadEngine { driver, dispatcher })
    }

    fn run(mut self) {
        // Stays so if a turn panics.
        self.dispatcher.end = EngineEnd::Panicked;
        self.dispatcher.end = loop {
            if let Err(error) = self.driver.wait() {
                break failed(error);
            }
            if self.dispatcher.turn(&mut self.driver).is_break() {
                break EngineEnd::ShutDown;
            }
        };
    }
}

/// A driver that a task of a one-thread runtime turns.
pub(crate) struct TaskEngine {
    dispatcher: Dispatcher,
    driver: ThreadBound<Driver>,
    /// Signalled by the kernel when completions wait. Never cleared: the runtime learns of each
    /// signal.
    event: AsyncFd<EventFd>,
}

impl TaskEngine {
    /// Makes the driver on this thread, and starts the task.
    ///
    /// Panics if the I/O of the runtime is not enabled.
    pub(crate) fn start(
        options: EngineOptions,
        runtime: &Handle,
    ) -> Result<EngineHandle, PoolError> {
        let (mut driver, dispatcher) = options.build()?;
        let event = EventFd::new().map_err(PoolError::Event)?;
        driver.register_eventfd(&event)?;
        #[allow(
            deprecated,
            reason = "its successor is unsafe and new; the descriptor is our own, and stays the same"
        )]
        let event = AsyncFd::with_interest(event, Interest::READABLE).map_err(PoolError::Event)?;
        let handle = EngineHandle::new(Arc::clone(&dispatcher.mailbox));
        runtime.spawn(TaskEngine { dispatcher, driver: ThreadBound::new(driver), event });
        Ok(handle)
    }
}

impl Future for TaskEngine {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // Stays so if a turn panics.
        self.dispatcher.end = EngineEnd::Panicked;
        let polled = self.poll_turns(context);
        self.dispatcher.end = match polled {
            Poll::Ready(end) => end,
            // If the runtime drops the task.
            Poll::Pending => EngineEnd::ShutDown,
        };
        polled.map(drop)
    }
}

impl TaskEngine {
    /// Turns the driver until there is nothing to do, or the engine ends.
    fn poll_turns(&mut self, context: &mut Context<'_>) -> Poll<EngineEnd> {
        let TaskEngine { dispatcher, driver, event } = self;
        let Some(driver) = driver.get() else {
            tracing::error!(
                "a runtime of one thread went on on another: its pool ends; build it with `own_thread`"
            );
            return Poll::Ready(EngineEnd::Moved);
        };
        loop {
            // The entries that a turn leaves to be submitted go out before the task sleeps.
            loop {
                if let Err(error) = driver.poll_now() {
                    return Poll::Ready(failed(error));
                }
                if dispatcher.turn(driver).is_break() {
                    return Poll::Ready(EngineEnd::ShutDown);
                }
                if driver.is_idle() && dispatcher.mailbox.wait(context.waker()) {
                    break;
                }
            }
            // Cleared before the next turn: a signal from here on is seen by that turn, or wakes
            // this task again.
            match ready!(event.poll_read_ready(context)) {
                Ok(mut ready) => ready.clear_ready(),
                // The runtime is ending.
                Err(_) => return Poll::Ready(EngineEnd::ShutDown),
            }
        }
    }
}

fn failed(error: DriverError) -> EngineEnd {
    tracing::error!(%error, "the pool's driver cannot go on: its streams end, its operations fail");
    EngineEnd::Failed(error)
}
