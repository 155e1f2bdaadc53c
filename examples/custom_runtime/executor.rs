//! Tasks and timers on one thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::io::Write;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::ring::{Ring, SharedRing};
use uring_arena::FixedArena;

/// A future, or `None` once it has finished.
type Task = Option<Pin<Box<dyn Future<Output = io::Result<()>>>>>;

/// A handle to the runtime. Clones refer to the same runtime.
#[derive(Clone)]
pub struct Runtime {
    pub ring: SharedRing,
    /// The wakers of timers, by time and address of the future.
    timers: Rc<RefCell<BTreeMap<(Instant, usize), Waker>>>,
    spawned: Rc<RefCell<Vec<Task>>>,
}

/// A waker that sends the number of its task to the executor.
struct TaskWaker(usize, mpsc::Sender<usize>);

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let _ = self.1.send(self.0);
    }
}

impl Runtime {
    pub fn new(arena: &FixedArena) -> Result<Runtime, Box<dyn std::error::Error>> {
        let ring = SharedRing(Rc::new(RefCell::new(Ring::new(arena)?)));
        Ok(Runtime { ring, timers: Rc::default(), spawned: Rc::default() })
    }

    /// Adds a task, which runs concurrently with the others.
    pub fn spawn(&self, task: impl Future<Output = io::Result<()>> + 'static) {
        self.spawned.borrow_mut().push(Some(Box::pin(task)));
    }

    /// Runs until every task has finished and the kernel has completed every operation.
    pub fn run(&self) -> io::Result<()> {
        let (wake, ready) = mpsc::channel();
        let mut tasks: Vec<(Task, Waker)> = Vec::new();
        // The numbers of finished tasks. A late wake of one only polls its successor once more.
        let mut free: Vec<usize> = Vec::new();
        loop {
            for task in self.spawned.take() {
                let number = free.pop().unwrap_or(tasks.len());
                let waker = Waker::from(Arc::new(TaskWaker(number, wake.clone())));
                waker.wake_by_ref();
                match tasks.get_mut(number) {
                    Some(entry) => *entry = (task, waker),
                    None => tasks.push((task, waker)),
                }
            }
            if let Ok(number) = ready.try_recv() {
                let (task, waker) = &mut tasks[number];
                let Some(future) = task else { continue };
                if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(waker)) {
                    if let Err(error) = result {
                        // Nobody may read it.
                        let _ = writeln!(std::io::stderr(), "a task ended early: {error}");
                    }
                    *task = None;
                    free.push(number);
                }
            } else if free.len() == tasks.len() && self.ring.0.borrow().in_flight == 0 {
                return Ok(());
            } else {
                let timeout = self.fire_timers();
                self.ring.0.borrow_mut().turn(timeout)?;
            }
        }
    }

    /// Awaits `future` for at most `limit`.
    ///
    /// Returns `None`, and drops the future, if the time is up first.
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        // The address of the pinned future is unique while it waits: it tells timers of the same
        // instant apart.
        let timer = (Instant::now() + limit, (&raw const future).addr());
        let output = poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if Instant::now() >= timer.0 => Poll::Ready(None),
            Poll::Pending => {
                self.timers.borrow_mut().insert(timer, context.waker().clone());
                Poll::Pending
            }
        })
        .await;
        self.timers.borrow_mut().remove(&timer);
        output
    }

    /// Wakes the tasks whose timers are due.
    ///
    /// Returns the time that the ring may wait: zero if a task was woken, else the time until the
    /// next timer. Returns `None` if no timer is set.
    fn fire_timers(&self) -> Option<Duration> {
        let mut timers = self.timers.borrow_mut();
        let now = Instant::now();
        let later = timers.split_off(&(now, usize::MAX));
        let due = std::mem::replace(&mut *timers, later);
        if due.is_empty() {
            return timers.first_key_value().map(|((time, _), _)| *time - now);
        }
        due.into_values().for_each(Waker::wake);
        Some(Duration::ZERO)
    }
}
