//! What turns the driver: a thread of its own, or a task of the runtime.
//!
//! On a runtime of one thread the engine is a task beside the others: no thread is woken for what
//! arrives, and the streams that it feeds are woken where they run. On one of many threads tasks
//! change threads, which a ring of one thread may not, and requests would end with the worker that
//! made them; there it has a thread.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;

use super::super::pool::PoolError;
use super::dispatcher::{Desk, Next};
use super::mailbox::Mailbox;
use super::thread::Fenced;
use crate::driver::{BufferRingId, Driver};
use crate::error::DriverError;
use crate::sync::Arc;
use crate::uring::EventFd;

/// Turns the driver on this thread until it is told to stop.
pub(crate) struct Turner {
    driver: Driver,
    desk: Desk,
}

impl Turner {
    pub(crate) fn new(mut driver: Driver, ring: BufferRingId) -> Result<Turner, PoolError> {
        let waker = driver.waker()?;
        let desk = Desk::new(ring);
        desk.mailbox.wait(&waker);
        Ok(Turner { driver, desk })
    }

    /// Where tasks put what they ask.
    pub(crate) fn mailbox(&self) -> Arc<Mailbox> {
        Arc::clone(&self.desk.mailbox)
    }

    pub(crate) fn run(mut self) {
        loop {
            if let Err(error) = self.driver.wait() {
                return give_up(&error);
            }
            if self.desk.turn(&mut self.driver) == Next::Stop {
                return;
            }
        }
    }
}

/// Turns the driver as a task of a runtime of one thread.
pub(crate) struct Task {
    desk: Desk,
    driver: Fenced<Driver>,
    /// Raised by the kernel when the driver should look. Never lowered: the runtime learns of each
    /// raising.
    event: AsyncFd<EventFd>,
}

impl Task {
    /// Panics outside a runtime with its I/O enabled.
    pub(crate) fn new(mut driver: Driver, ring: BufferRingId) -> Result<Task, PoolError> {
        let event = EventFd::new().map_err(PoolError::Event)?;
        driver.register_eventfd(&event)?;
        #[allow(
            deprecated,
            reason = "its successor is unsafe and new; the descriptor is our own, and stays the same"
        )]
        let event = AsyncFd::with_interest(event, Interest::READABLE).map_err(PoolError::Event)?;
        Ok(Task { desk: Desk::new(ring), driver: Fenced::new(driver), event })
    }

    /// Where tasks put what they ask.
    pub(crate) fn mailbox(&self) -> Arc<Mailbox> {
        Arc::clone(&self.desk.mailbox)
    }
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Task { desk, driver, event } = &mut *self;
        let Some(driver) = driver.get() else {
            tracing::error!(
                "a runtime of one thread went on on another: its pool ends; build it with `own_thread`"
            );
            return Poll::Ready(());
        };
        loop {
            // What a turn leaves to be submitted goes out before the next sleep.
            loop {
                if let Err(error) = driver.poll_now() {
                    give_up(&error);
                    return Poll::Ready(());
                }
                if desk.turn(driver) == Next::Stop {
                    return Poll::Ready(());
                }
                if driver.is_idle() && desk.mailbox.wait(context.waker()) {
                    break;
                }
            }
            // Cleared before the next look: what is raised from here on is seen by it, or wakes
            // this task again.
            match ready!(event.poll_read_ready(context)) {
                Ok(mut ready) => ready.clear_ready(),
                // The runtime is ending.
                Err(_) => return Poll::Ready(()),
            }
        }
    }
}

fn give_up(error: &DriverError) {
    tracing::error!(%error, "the pool's driver cannot go on: its streams end, its operations fail");
}
