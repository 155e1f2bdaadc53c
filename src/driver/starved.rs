//! Sockets that found no slot: parked, and armed again because slots came back. Never by a timer,
//! never by spinning.
//!
//! The only place that uses the arena's waiting hook.
//!
//! A multishot receive takes its slot first: on an empty ring it ends at once, with or without
//! data. So a starved socket is armed again only after its ring has slots. When there are none to
//! publish, the ring's owner takes a place in the arena's queue of waiters like anybody else; the
//! free that wakes it raises a descriptor that the kernel polls for it.
//!
//! # Safety
//!
//! Unsafe here: pushing the poll; the driver owns the descriptor for as long as it lives.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use io_uring::{opcode, types};

use super::Driver;
use super::key::Key;
use crate::error::DriverError;
use crate::lease::Bell;
use crate::sync::Arc;
use crate::uring::EventFd;

/// Those of one ring that wait for slots.
///
/// Two queues, so that nobody is passed over for ever: who was armed and got nothing goes before
/// who was fed. Keys of sockets that were closed meanwhile stay in the queues until they are met;
/// `count` is exact.
#[derive(Default)]
pub(super) struct Starved {
    hungry: VecDeque<Key>,
    fed: VecDeque<Key>,
    count: usize,
    listener: Option<Bell>,
}

impl Starved {
    pub(super) fn park(&mut self, key: Key, was_served: bool) {
        if was_served { &mut self.fed } else { &mut self.hungry }.push_back(key);
        self.count += 1;
    }

    /// Sockets that wait.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// One of those in the queues was closed.
    pub(super) fn forget_one(&mut self) {
        self.count -= 1;
    }

    fn pop(&mut self) -> Option<Key> {
        self.hungry.pop_front().or_else(|| self.fed.pop_front())
    }
}

/// What freed slots raise, and its waker.
pub(super) struct Alarm {
    event_fd: Arc<EventFd>,
    waker: Waker,
    polled: bool,
    /// Others have the waker too: it is polled always.
    shared: bool,
}

/// What [`Driver::feed`] left.
pub(super) struct Feed {
    /// Sockets wait although slots lie ready: more can be armed when these have been tried.
    pub(super) is_unfinished: bool,
}

impl Driver {
    /// Publishes what came back, and arms starved sockets on it.
    pub(super) fn feed(&mut self) -> Result<Feed, DriverError> {
        let mut feed = Feed { is_unfinished: false };
        for number in self.rings.numbers() {
            let Some(ring) = self.rings.get_mut(number) else { continue };
            if ring.starved.count() == 0 || self.draining {
                ring.buffers.refill_in_bulk();
                ring.starved.listener = None;
                continue;
            }
            let ready = ring.buffers.refill();
            let ready = if ready > 0 { ready } else { self.listen(number)? };
            feed.is_unfinished |= self.arm_starved(number, ready)?;
        }
        Ok(feed)
    }

    /// Arms as many starved sockets as slots lie ready. True if there are more of both.
    fn arm_starved(&mut self, number: u32, ready: usize) -> Result<bool, DriverError> {
        for _ in 0..ready {
            let Some(key) = self.next_starved(number) else { return Ok(false) };
            if let Err(error) = self.arm(key) {
                // Nothing was pushed: it keeps its place.
                self.park_again(number, key);
                return Err(error);
            }
        }
        let waiting = self.rings.get(number).map_or(0, |ring| ring.starved.count());
        Ok(ready > 0 && waiting > 0)
    }

    fn next_starved(&mut self, number: u32) -> Option<Key> {
        let starved = &mut self.rings.get_mut(number)?.starved;
        while let Some(key) = starved.pop() {
            if self.operations.receive_mut(key).is_some_and(|receive| receive.parked) {
                starved.count -= 1;
                return Some(key);
            }
        }
        debug_assert_eq!(starved.count, 0);
        None
    }

    fn park_again(&mut self, number: u32, key: Key) {
        if let Some(receive) = self.operations.receive_mut(key) {
            receive.parked = true;
        }
        if let Some(ring) = self.rings.get_mut(number) {
            ring.starved.hungry.push_front(key);
            ring.starved.count += 1;
        }
    }

    /// Nothing lies ready: waits in the arena's queue, and looks once more. Returns how many slots
    /// lie ready now.
    fn listen(&mut self, number: u32) -> Result<usize, DriverError> {
        self.poll_alarm()?;
        let Some(alarm) = &self.alarm else { return Ok(0) };
        let mut context = Context::from_waker(&alarm.waker);
        let Some(ring) = self.rings.get_mut(number) else { return Ok(0) };
        loop {
            let arena = ring.buffers.arena();
            let listener = ring.starved.listener.get_or_insert_with(|| arena.listen());
            // The place in the queue comes before the look, so a slot freed from here on wakes us.
            let woken = Pin::new(listener).poll(&mut context) == Poll::Ready(());
            let ready = ring.buffers.refill();
            if ready > 0 || woken {
                ring.starved.listener = None;
            }
            if ready > 0 || !woken {
                return Ok(ready);
            }
        }
    }

    /// Has the kernel poll the descriptor that freed slots raise.
    fn poll_alarm(&mut self) -> Result<(), DriverError> {
        let alarm = match &mut self.alarm {
            Some(alarm) => alarm,
            none => none.insert(Alarm::new()?),
        };
        if alarm.polled {
            return Ok(());
        }
        let fd = types::Fd(alarm.event_fd.raw());
        let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).build();
        // SAFETY: the driver owns the descriptor, and the entry refers to no memory.
        unsafe { self.push_entry(&entry.user_data(Key::WAKE.user_data())) }?;
        if let Some(alarm) = &mut self.alarm {
            alarm.polled = true;
        }
        Ok(())
    }

    /// A waker that makes [`wait`](Self::wait) return, from any thread.
    ///
    /// ```
    /// # use uring_arena::Driver;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut driver = match Driver::builder().build() {
    /// #     Err(error) => { eprintln!("skipped: {error}"); return Ok(()) }
    /// #     Ok(driver) => driver,
    /// # };
    /// let waker = driver.waker()?;
    /// std::thread::spawn(move || waker.wake());
    /// driver.wait()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`DriverError::System`] if there is no descriptor left to raise.
    pub fn waker(&mut self) -> Result<Waker, DriverError> {
        let alarm = match &mut self.alarm {
            Some(alarm) => alarm,
            none => none.insert(Alarm::new()?),
        };
        alarm.shared = true;
        Ok(alarm.waker.clone())
    }

    /// Has a waker that others have polled for.
    pub(super) fn poll_shared_alarm(&mut self) -> Result<(), DriverError> {
        match &self.alarm {
            Some(alarm) if alarm.shared => self.poll_alarm(),
            _ => Ok(()),
        }
    }

    /// The poll completed.
    pub(super) fn woken(&mut self) {
        self.metrics.woken += 1;
        if let Some(alarm) = &mut self.alarm {
            alarm.polled = false;
            alarm.event_fd.clear();
        }
    }
}

impl Alarm {
    fn new() -> Result<Alarm, DriverError> {
        let event_fd = EventFd::new().map_err(|error| DriverError::System {
            action: "making an event descriptor",
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        })?;
        let event_fd = Arc::new(event_fd);
        Ok(Alarm { waker: Waker::from(event_fd.clone()), event_fd, polled: false, shared: false })
    }
}
