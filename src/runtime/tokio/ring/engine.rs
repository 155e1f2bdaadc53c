//! The two engines that turn a driver: a thread of its own, or a task of the runtime.
//!
//! On a runtime of one thread the engine is a task beside the others. A message wakes no thread,
//! and the streams are woken where they run.
//!
//! On a runtime of many threads a task may change its thread, which a ring of one thread may not.
//! The kernel also cancels the requests of a thread that ends. The engine has a thread of its own
//! there.
//!
//! # Safety
//!
//! Unsafe here: promising that a driver is used on its own thread only, and asking the C library
//! for a scheduling policy. [`ThreadBound`] reaches its driver on the thread that made it only. On
//! another it drops it, which is sound: the driver's parts may move, and it is `!Send` because the
//! kernel refuses the calls of other threads.
#![allow(unsafe_code)]

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{OnceLock, mpsc};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;
use ::tokio::runtime::{Handle, RuntimeFlavor};

use super::datagrams::SendMemory;
use super::dispatcher::Dispatcher;
use super::mailbox::EngineHandle;
use super::stream_queue::Share;
use crate::arena::{BuddyArena, FixedArena};
use crate::driver::{DrainReport, Driver, DriverBuilder, DriverError};
use crate::lease::Place;
use crate::region::Process;
use crate::runtime::tokio::engine::{EngineEnd, PoolError};
use crate::sync::Arc;
use crate::uring::{BufferRing, BufferRingOptions, EventFd, check_calls};

/// The build has the ring.
pub(crate) const IS_BUILT: bool = true;

/// Checks that the system allows the calls of io_uring. Returns what forbids them, and the remedy.
pub(crate) fn check() -> Result<(), String> {
    check_calls().map_err(|error| error.to_string())
}

/// The shares of a driver's operations, each as large as the user asked: one is for streams, reads
/// and writes; one for a send of each connection; one for sends ahead of these.
const OPERATION_SHARES: usize = 3;

/// The time that the kernel is given at a time to let go of what was cancelled, on a runtime's own
/// thread.
const DRAIN_STEP: Duration = Duration::from_millis(1);

/// The arena and the options that an engine makes its driver of.
#[derive(Debug, Clone)]
pub(crate) struct EngineOptions {
    pub(crate) arena: FixedArena,
    pub(crate) ring: BufferRingOptions,
    pub(crate) driver: DriverBuilder,
    /// Further arenas that sends and writes use registered.
    pub(crate) send_arenas: Vec<BuddyArena>,
    /// The place of the pool, which its slots are recorded with.
    place: Place,
}

impl EngineOptions {
    fn share(&self) -> Share {
        Share::new(self.arena.slot_count(), self.arena.slot_capacity())
    }

    fn send_memory(&self) -> SendMemory {
        SendMemory { blocks: self.send_arenas.clone(), slots: self.arena.clone() }
    }

    /// Makes the driver, on the thread that will turn it. Says also whether it takes datagrams.
    fn build(self) -> Result<(Driver, Dispatcher, Result<(), DriverError>), PoolError> {
        let (builder, operations) = self.driver.with_operations_times(OPERATION_SHARES);
        let mut driver = builder.build()?;
        // Streams do not use the room for details.
        let ring = driver.register_buffer_ring(
            &self.arena,
            self.ring.datagram_details(true).at_place(self.place),
        )?;
        driver.register(&self.arena)?;
        for arena in &self.send_arenas {
            driver.register(arena)?;
        }
        let takes_datagrams = driver.check_datagrams(ring);
        Ok((driver, Dispatcher::new(ring, operations, self.arena), takes_datagrams))
    }
}

/// The options that only a ring has.
#[derive(Debug, Clone)]
pub(crate) struct RingOptions {
    pub(crate) engine: EngineOptions,
    pub(crate) own_thread: bool,
    pub(crate) batch_scheduling: bool,
}

impl RingOptions {
    #[cfg_attr(feature = "holders", track_caller)]
    pub(crate) fn new(arena: FixedArena) -> RingOptions {
        // Half of the slots: the others are for files, sends, and bytes that streams hold.
        let (ring, driver) = (BufferRing::options(), Driver::builder());
        let engine =
            EngineOptions { arena, ring, driver, send_arenas: Vec::new(), place: Place::here() };
        RingOptions { engine, own_thread: false, batch_scheduling: false }
    }

    /// Adds an arena that sends and writes use registered.
    pub(crate) fn add_send_arena(&mut self, arena: BuddyArena) {
        self.engine.send_arenas.push(arena);
    }

    /// Starts the engine: on the one-thread runtime that this thread turns, or else with a thread
    /// of its own.
    pub(crate) fn start(self) -> Result<EngineHandle, PoolError> {
        let is_one_thread =
            |runtime: &Handle| runtime.runtime_flavor() == RuntimeFlavor::CurrentThread;
        match Handle::try_current() {
            Ok(runtime) if is_one_thread(&runtime) && !self.own_thread => {
                TaskEngine::start(self.engine, &runtime)
            }
            _ => ThreadEngine::start(self.engine, self.batch_scheduling),
        }
    }

    /// Starts the engine for an operation that may come from any thread.
    pub(crate) fn start_anywhere(self) -> Result<EngineHandle, PoolError> {
        match self.clone().start() {
            Err(PoolError::OtherThread) => RingOptions { own_thread: true, ..self }.start(),
            started => started,
        }
    }
}

/// A driver that a thread of its own turns.
pub(crate) struct ThreadEngine {
    dispatcher: Dispatcher,
    driver: Driver,
}

impl ThreadEngine {
    /// Starts the thread, and waits until its driver is there.
    pub(crate) fn start(
        options: EngineOptions,
        batch_scheduling: bool,
    ) -> Result<EngineHandle, PoolError> {
        let (started, answer) = mpsc::sync_channel(1);
        let (share, memory) = (options.share(), options.send_memory());
        let body = move || {
            if batch_scheduling && let Err(error) = run_as_batch() {
                tracing::warn!(%error, "the pool's thread is scheduled like any other");
            }
            match ThreadEngine::new(options) {
                Ok((engine, takes_datagrams)) => {
                    let mailbox = Arc::clone(&engine.dispatcher.mailbox);
                    let handle = EngineHandle::new(mailbox, share, takes_datagrams, memory);
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

    fn new(options: EngineOptions) -> Result<(ThreadEngine, Result<(), DriverError>), PoolError> {
        let (mut driver, dispatcher, takes_datagrams) = options.build()?;
        dispatcher.mailbox.wait(&driver.waker()?);
        Ok((ThreadEngine { driver, dispatcher }, takes_datagrams))
    }

    fn run(mut self) {
        // Stays so if a turn panics.
        self.dispatcher.end = EngineEnd::Panicked;
        let ended = self.turn_to_the_end().and_then(|()| {
            self.dispatcher.begin_drain(&mut self.driver);
            self.turn_to_the_end()
        });
        self.dispatcher.end = match ended {
            Ok(()) => EngineEnd::ShutDown,
            Err(error) => return self.dispatcher.end = failed(error),
        };
        let left = self.dispatcher.deadline().map_or(Duration::ZERO, until);
        let report = self.driver.drain(left);
        self.dispatcher.finish(report);
    }

    /// Turns the driver until a stage of the pool's end is over.
    fn turn_to_the_end(&mut self) -> Result<(), DriverError> {
        while !self.dispatcher.turn(&mut self.driver) {
            match self.dispatcher.deadline() {
                Some(deadline) => self.driver.wait_timeout(until(deadline)).map(drop),
                None => self.driver.wait(),
            }?;
        }
        Ok(())
    }
}

fn failed(error: DriverError) -> EngineEnd {
    tracing::error!(%error, "the pool's driver cannot go on: its streams end, its operations fail");
    EngineEnd::Failed(error)
}

fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// A driver that a task of a one-thread runtime turns.
pub(crate) struct TaskEngine {
    dispatcher: Dispatcher,
    driver: ThreadBound,
    /// Signalled by the kernel when completions wait. Never cleared: the runtime learns of each
    /// signal. `None` once the task is dropped.
    event: Option<AsyncFd<EventFd>>,
    process: Process,
    stage: Stage,
    /// The report so far, while the driver is drained.
    report: DrainReport,
    alarm: Option<Alarm>,
}

/// A stage in the life of a task engine.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// Serves, and lets go out what is left behind.
    Serving,
    /// Everything is cancelled: operations come back.
    Ending,
    /// The kernel is to let go of the rest.
    Draining,
}

impl TaskEngine {
    /// Makes the driver on this thread, and starts the task.
    ///
    /// Panics if the I/O of the runtime is not enabled.
    pub(crate) fn start(
        options: EngineOptions,
        runtime: &Handle,
    ) -> Result<EngineHandle, PoolError> {
        if !turns(runtime) && can_tell_who_turns() {
            return Err(PoolError::OtherThread);
        }
        let (share, memory) = (options.share(), options.send_memory());
        let (mut driver, dispatcher, takes_datagrams) = options.build()?;
        let event = EventFd::new().map_err(PoolError::Event)?;
        driver.register_eventfd(&event)?;
        #[allow(
            deprecated,
            reason = "its successor is unsafe and new; the descriptor is our own, and stays the same"
        )]
        let event = AsyncFd::with_interest(event, Interest::READABLE).map_err(PoolError::Event)?;
        let handle =
            EngineHandle::new(Arc::clone(&dispatcher.mailbox), share, takes_datagrams, memory);
        dispatcher.mailbox.engine_is_of(runtime);
        let driver = ThreadBound::new(driver);
        let (stage, report) = (Stage::Serving, DrainReport::default());
        let (event, process) = (Some(event), Process::current());
        let alarm = None;
        runtime.spawn(TaskEngine { dispatcher, driver, event, process, stage, report, alarm });
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
            Poll::Pending => EngineEnd::Runtime,
        };
        polled.map(drop)
    }
}

impl TaskEngine {
    /// Turns the driver until there is nothing to do, or the engine ends.
    fn poll_turns(&mut self, context: &mut Context<'_>) -> Poll<EngineEnd> {
        let TaskEngine { dispatcher, driver, event, stage, report, alarm, .. } = self;
        let event = event.as_ref().expect("there until the drop");
        let Some(driver) = driver.get() else {
            tracing::error!(
                "a runtime of one thread went on on another: its pool ends; build it with `own_thread`"
            );
            return Poll::Ready(EngineEnd::Moved);
        };
        loop {
            if stage != &Stage::Draining {
                match turn_until_idle(dispatcher, driver, context.waker()) {
                    Ok(Turned::Idle) => {}
                    Ok(Turned::Over) if stage == &Stage::Serving => {
                        dispatcher.begin_drain(driver);
                        *stage = Stage::Ending;
                        continue;
                    }
                    Ok(Turned::Over) => *stage = Stage::Draining,
                    Ok(Turned::Enough) => {
                        // Other tasks of the thread run first.
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Err(error) => return Poll::Ready(failed(error)),
                }
            }
            if stage == &Stage::Draining
                && let Some(result) = drain_further(driver, report, dispatcher.deadline())
            {
                dispatcher.finish(result);
                return Poll::Ready(EngineEnd::ShutDown);
            }
            if let Some(deadline) = dispatcher.deadline()
                && alarm.as_ref().is_none_or(|alarm| alarm.at != deadline)
            {
                *alarm = Alarm::set(deadline, context.waker().clone()).ok();
                if alarm.is_none() {
                    // Nothing would wake the task in time.
                    dispatcher.stop_waiting();
                    continue;
                }
            }
            // Cleared before the next turn: a signal from here on is seen by that turn, or wakes
            // this task again.
            match ready!(event.poll_read_ready(context)) {
                Ok(mut ready) => ready.clear_ready(),
                // The runtime is ending.
                Err(_) => return Poll::Ready(EngineEnd::Runtime),
            }
        }
    }
}

impl Drop for TaskEngine {
    fn drop(&mut self) {
        if !self.process.is_current() {
            // tokio's watch is the parent's.
            std::mem::forget(self.event.take());
        } else if let Some(driver) = self.driver.get() {
            self.dispatcher.send_last(driver);
        }
    }
}

/// The turns of the driver that a task takes before others of its thread run. Peers and other
/// threads may give it work without end.
const TURNS_MAX: usize = 16;

/// The end of the turns that a task takes at a time.
enum Turned {
    /// Nothing is left to do for now.
    Idle,
    /// There may be more to do.
    Enough,
    /// This stage of the pool's end is over.
    Over,
}

/// Turns the driver until nothing is left to do for now, as long as that is fair.
fn turn_until_idle(
    dispatcher: &mut Dispatcher,
    driver: &mut Driver,
    waker: &Waker,
) -> Result<Turned, DriverError> {
    // The entries that a turn leaves to be submitted go out before the task sleeps.
    for _ in 0..TURNS_MAX {
        driver.poll_now()?;
        if dispatcher.turn(driver) {
            return Ok(Turned::Over);
        }
        if driver.is_idle() && dispatcher.mailbox.wait(waker) {
            return Ok(Turned::Idle);
        }
    }
    Ok(Turned::Enough)
}

/// Cancels what the driver has under way. Returns the whole report once nothing is left, or the
/// time is over.
fn drain_further(
    driver: &mut Driver,
    report: &mut DrainReport,
    deadline: Option<Instant>,
) -> Option<Result<DrainReport, DriverError>> {
    let further = match driver.drain(DRAIN_STEP) {
        Ok(further) => further,
        Err(error) => return Some(Err(error)),
    };
    report.closed += further.closed;
    report.discarded_bytes += further.discarded_bytes;
    report.unreported_slots += further.unreported_slots;
    report.in_flight = further.in_flight;
    report.quarantined = further.quarantined;
    let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
    (report.in_flight == 0 || is_late).then_some(Ok(report.clone()))
}

/// A thread that wakes a task at a moment, unless it is dropped before: a runtime need not have a
/// clock.
struct Alarm {
    at: Instant,
    /// Closing it ends the thread.
    _set: mpsc::Sender<()>,
}

impl Alarm {
    fn set(at: Instant, waker: Waker) -> io::Result<Alarm> {
        let (set, is_set) = mpsc::channel::<()>();
        let body = move || {
            if is_set.recv_timeout(until(at)) == Err(mpsc::RecvTimeoutError::Timeout) {
                waker.wake();
            }
        };
        thread::Builder::new().name("uring-arena-alarm".into()).spawn(body)?;
        Ok(Alarm { at, _set: set })
    }
}

/// Returns whether this thread is turning a one-thread runtime: it is inside its `block_on`, or in
/// one of its tasks.
fn turns(runtime: &Handle) -> bool {
    keeps_wakers() && keeps_tasks(runtime)
}

/// Returns whether this thread is turning some runtime. tokio then keeps the waker of a task that
/// yields until it has run others; on a thread that runs none it wakes it at once.
fn keeps_wakers() -> bool {
    struct Woken(OnceLock<()>);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.get_or_init(|| ());
        }
    }

    let woken = Arc::new(Woken(OnceLock::new()));
    let waker = Waker::from(Arc::clone(&woken));
    let yielding = pin!(::tokio::task::yield_now());
    let polled = yielding.poll(&mut Context::from_waker(&waker));
    polled.is_pending() && woken.0.get().is_none()
}

/// Returns whether tasks that this thread spawns stay with it. Those that come from a thread which
/// turns another runtime, or none, go through a queue whose length tokio tells.
fn keeps_tasks(runtime: &Handle) -> bool {
    // Other threads may put tasks in, and the one that turns the runtime may take some out: a few
    // tries are told from these.
    const KEPT: usize = 16;
    const TRIES: usize = 1000;

    let polled = Arc::new(OnceLock::new());
    let metrics = runtime.metrics();
    let mut kept = 0;
    for _ in 0..TRIES {
        let before = metrics.global_queue_depth();
        let poll = Arc::clone(&polled);
        drop(runtime.spawn(async move { *poll.get_or_init(|| ()) }));
        kept += usize::from(metrics.global_queue_depth() <= before);
        // Polled meanwhile: by another thread.
        if polled.get().is_some() {
            return false;
        }
        if kept == KEPT {
            return true;
        }
    }
    false
}

/// Returns whether [`turns`] is right about a thread that does: what it looks at are habits of
/// tokio's, not promises.
fn can_tell_who_turns() -> bool {
    let turning = || {
        let runtime = ::tokio::runtime::Builder::new_current_thread().build().ok()?;
        Some(runtime.block_on(async { turns(&Handle::current()) }))
    };
    // On a thread of its own: no runtime may begin inside another.
    thread::spawn(turning).join().ok().flatten() == Some(true)
}

/// A driver that is reached on one thread only, inside a task that may move and be dropped
/// anywhere.
struct ThreadBound {
    driver: Driver,
    thread: ThreadId,
}

// SAFETY: the driver is reached on its own thread alone, whose id is never given to another, but
// for its drop. That one touches memory which moved with it. The kernel refuses the system calls of
// another thread, or serves them; in either case the driver frees only what no completion is due
// for, and quarantines the rest.
unsafe impl Send for ThreadBound {}

impl ThreadBound {
    fn new(driver: Driver) -> ThreadBound {
        ThreadBound { driver, thread: thread::current().id() }
    }

    /// Returns the driver. Returns `None` on any thread but its own.
    fn get(&mut self) -> Option<&mut Driver> {
        (thread::current().id() == self.thread).then_some(&mut self.driver)
    }
}

impl Drop for ThreadBound {
    fn drop(&mut self) {
        if thread::current().id() != self.thread {
            tracing::error!(
                "the pool's driver is dropped on a thread that is not its own: slots that the kernel may still use are quarantined"
            );
        }
    }
}

/// Makes this thread a batch job, which interrupts no other thread when it wakes up
/// ([sched(7)](https://man7.org/linux/man-pages/man7/sched.7.html)). Needs no privilege.
///
/// On a core that others keep busy, an ordinary thread interrupts what runs there for each message:
/// two context switches a message. A batch job runs when the other thread sleeps, and takes the
/// messages together.
fn run_as_batch() -> io::Result<()> {
    const THIS_THREAD: libc::pid_t = 0;
    // The kernel's `struct sched_param`; musl's differs, and its function is a stub.
    let priority: libc::c_int = 0;
    // SAFETY: reads `priority`, which is ours.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            THIS_THREAD,
            libc::SCHED_BATCH,
            &raw const priority,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::run_as_batch;

    #[test]
    fn the_thread_that_asks_is_a_batch_job_and_no_other() {
        // SAFETY: asks only.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        let before = policy();
        let batch = std::thread::spawn(move || run_as_batch().map(|()| policy())).join().unwrap();
        assert_eq!(batch.unwrap(), libc::SCHED_BATCH);
        assert_eq!(policy(), before);
    }
}
