//! The buffer rings of a driver.
//!
//! # Safety
//!
//! Unsafe here: registering a ring. The driver keeps the contract: it owns the io_uring, its table
//! says which completion is a receive of which ring, and it unregisters a ring only when nothing is
//! in flight on it.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::submitter::Submitter;
use super::wakeup::Wakeup;
use super::{BufferRingId, DriverError, DriverMetrics};
use crate::arena::FixedArena;
use crate::lease::{Handle, WaitForSlot};
use crate::slab::{Key, Slab};
use crate::sync::contain;
use crate::uring::{BufferRing, BufferRingOptions, Feature, Probe, RingError};

/// The number of group ids.
const GROUPS: usize = 1 << 16;

/// A buffer ring, and the sockets that wait for its slots.
pub(super) struct Ring {
    pub(super) buffers: BufferRing,
    pub(super) starved: Starved,
    /// The number of sockets that receive into the ring.
    pub(super) sockets: usize,
    /// The ring's place in the arena's queue of waiters, while it has starved sockets and no slot.
    waiting: Option<WaitForSlot>,
}

impl Ring {
    /// Notes that a socket in the starved queues waits no more.
    pub(super) fn forget_starved(&mut self) {
        self.starved.forget_one();
        self.stop_waiting_if_idle();
    }

    /// Gives up the ring's place in the arena's queue if no socket waits for a slot.
    pub(super) fn stop_waiting_if_idle(&mut self) {
        if self.starved.count() == 0 {
            self.stop_waiting();
        }
    }

    /// Gives up the ring's place in the arena's queue. A slot that was granted to it goes to the
    /// next claim, whose waker may panic: that is no matter of the driver's.
    fn stop_waiting(&mut self) {
        let waiting = self.waiting.take();
        contain("the waker of a claim that waits", || drop(waiting));
    }

    /// Publishes the slots that came back. If none lies ready then, waits for one in the arena's
    /// queue, and `wakeup` is signalled when it is granted.
    ///
    /// Returns the number of slots that lie ready.
    pub(super) fn refill_or_wait(
        &mut self,
        wakeup: &mut Wakeup,
        submitter: &mut Submitter,
    ) -> Result<usize, DriverError> {
        if self.waiting.is_none() {
            let ready = self.buffers.refill();
            if ready > 0 {
                return Ok(ready);
            }
        }
        wakeup.poll(submitter)?;
        let arena = self.buffers.arena();
        let waiting = self.waiting.get_or_insert_with(|| WaitForSlot::join(arena, 0));
        let mut context = Context::from_waker(wakeup.waker());
        let granted = Pin::new(waiting).poll(&mut context);
        if let Poll::Ready(lease) = granted {
            self.waiting = None;
            self.buffers.add_slot(lease);
        }
        // The look after joining the queue: a slot that was freed before is in no wait.
        let ready = self.buffers.refill();
        if ready > 0 {
            self.stop_waiting();
        }
        Ok(ready)
    }

    fn add_counts_to(&self, metrics: &mut DriverMetrics) {
        let ring = self.buffers.metrics();
        metrics.starved += ring.starved;
        metrics.copied += ring.copied;
        metrics.unreported_slots += ring.unreported_slots;
    }
}

/// The buffer rings of one driver.
pub(super) struct Rings {
    driver: u32,
    table: Slab<Ring>,
    /// The counts of rings that were unregistered.
    past: DriverMetrics,
}

impl Rings {
    pub(super) fn new(driver: u32) -> Rings {
        Rings { driver, table: Slab::new(GROUPS), past: DriverMetrics::default() }
    }

    pub(super) fn register(
        &mut self,
        arena: &FixedArena,
        options: BufferRingOptions,
        supported: Probe,
        submitter: &Submitter,
    ) -> Result<BufferRingId, RingError> {
        if !supported.has(Feature::BufferRing) {
            return Err(RingError::Unsupported {
                what: "provided-buffer rings",
                since: Feature::BufferRing.since(),
            });
        }
        let options = match options.group_id() {
            Some(_) => options,
            None => options.group(self.free_group()?),
        };
        let uring = &submitter.uring;
        let can_bundle =
            supported.has(Feature::Bundles) && uring.params().is_feature_recvsend_bundle();
        let options = options
            .bundles(options.wants_bundles() && can_bundle)
            .incremental(options.wants_incremental() && supported.has(Feature::IncrementalBuffers));
        // SAFETY: the driver keeps the contract (see the head of this file).
        let buffers = unsafe { BufferRing::register(submitter, arena, options)? };
        let ring = Ring { buffers, starved: Starved::default(), sockets: 0, waiting: None };
        let key = self.table.insert(ring).ok().expect("each ring has a group of its own");
        Ok(BufferRingId::new(self.driver, key))
    }

    fn free_group(&self) -> Result<u16, RingError> {
        let mut used: Vec<u16> = self.iter().map(|ring| ring.buffers.group()).collect();
        used.sort_unstable();
        (0..=u16::MAX)
            .find(|group| used.binary_search(group).is_err())
            .ok_or(RingError::NoGroupLeft { limit: GROUPS })
    }

    /// Unregisters a ring that no socket receives into.
    pub(super) fn unregister(
        &mut self,
        id: BufferRingId,
        submitter: &Submitter,
    ) -> Result<(), DriverError> {
        match self.by_id(id)? {
            (key, Ring { sockets: 0, .. }) => Ok(self.take_down(key, submitter)?),
            (_, &Ring { sockets, .. }) => Err(DriverError::RingInUse { sockets }),
        }
    }

    /// Unregisters every ring. Nothing may be in flight.
    pub(super) fn unregister_all(&mut self, submitter: &Submitter) {
        for key in self.table.keys() {
            if let Err(error) = self.take_down(key, submitter) {
                tracing::error!(%error, "a buffer ring stays registered: its slots are quarantined");
            }
        }
    }

    fn take_down(&mut self, key: Key, submitter: &Submitter) -> Result<(), RingError> {
        let Some(mut ring) = self.table.remove(key) else { return Ok(()) };
        debug_assert_eq!(ring.sockets, 0);
        // SAFETY: registered on this ring, and no receive is in flight on it: each has a socket in
        // the table.
        let answer = unsafe { ring.buffers.unregister(submitter) };
        ring.add_counts_to(&mut self.past);
        answer
    }

    /// Finds the ring of an id, and its key.
    pub(super) fn by_id(&self, id: BufferRingId) -> Result<(Key, &Ring), DriverError> {
        let key = id.key_in(self.driver)?;
        self.table.get(key).map(|ring| (key, ring)).ok_or(DriverError::UnknownRing)
    }

    /// Finds the ring of a socket, which stays while it has sockets. A listener has none.
    #[inline]
    pub(super) fn of_mut(&mut self, ring: Option<Key>) -> Option<&mut Ring> {
        self.table.get_mut(ring?)
    }

    /// Finds the ring of a socket by the index alone.
    #[inline]
    pub(super) fn at_mut(&mut self, key: Key) -> Option<&mut Ring> {
        self.table.at_mut(key.index())
    }

    fn iter(&self) -> impl Iterator<Item = &Ring> {
        self.table.iter().map(|(_, ring)| ring)
    }

    #[inline]
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Ring> {
        self.table.iter_mut().map(|(_, ring)| ring)
    }

    /// Returns whether each ring with starved sockets waits in its arena's queue: nothing is to be
    /// done for it before it is woken.
    pub(super) fn are_settled(&self) -> bool {
        self.iter().all(|ring| ring.starved.count() == 0 || ring.waiting.is_some())
    }

    /// Iterates over the slots of an arena that the rings own.
    pub(super) fn owned_slots(&self, arena: &Handle) -> impl Iterator<Item = u32> {
        self.iter()
            .filter(|ring| ring.buffers.arena().is_same(arena))
            .flat_map(|ring| ring.buffers.owned_slots())
    }

    pub(super) fn add_counts_to(&self, metrics: &mut DriverMetrics) {
        metrics.starved += self.past.starved;
        metrics.copied += self.past.copied;
        metrics.unreported_slots += self.past.unreported_slots;
        for ring in self.iter() {
            ring.add_counts_to(metrics);
            metrics.published += ring.buffers.metrics().published;
            metrics.parked += ring.starved.count();
        }
    }
}

/// The sockets of one ring that wait for slots.
///
/// The queues are two, so that no socket is passed over for ever: a socket that was armed and got
/// nothing goes before one that was served. Keys of sockets that were closed meanwhile stay in the
/// queues until they are met; `count` is exact.
#[derive(Default)]
pub(crate) struct Starved {
    unserved: VecDeque<Key>,
    served: VecDeque<Key>,
    count: usize,
}

impl Starved {
    pub(crate) fn push(&mut self, socket: Key, was_served: bool) {
        if was_served { &mut self.served } else { &mut self.unserved }.push_back(socket);
        self.count += 1;
    }

    /// Notes that a socket in the queues waits no more.
    pub(crate) fn forget_one(&mut self) {
        self.count -= 1;
    }

    /// Puts a socket back that was taken out in vain.
    pub(crate) fn push_front(&mut self, socket: Key) {
        self.unserved.push_front(socket);
        self.count += 1;
    }

    /// Takes the next socket out that `is_starved` confirms.
    pub(crate) fn pop(&mut self, mut is_starved: impl FnMut(Key) -> bool) -> Option<Key> {
        while let Some(socket) = self.unserved.pop_front().or_else(|| self.served.pop_front()) {
            if is_starved(socket) {
                self.count -= 1;
                return Some(socket);
            }
        }
        debug_assert_eq!(self.count, 0);
        None
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }
}
