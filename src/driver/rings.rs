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
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::submitter::Submitter;
use super::wakeup::Wakeup;
use super::{BufferRingId, DriverError, DriverMetrics};
use crate::arena::FixedArena;
use crate::lease::{Handle, WaitForSlot, Watch};
use crate::metrics::{MetricsPart, sealed::HasMetricsPart};
use crate::slab::{Key, Slab};
use crate::sync::{EventLimit, contain};
use crate::uring::{BufferRing, BufferRingOptions, Feature, Probe, RingError};

/// The number of group ids.
const GROUPS: usize = 1 << 16;

/// A buffer ring, and the sockets that wait for its slots.
pub(super) struct Ring {
    pub(super) buffers: BufferRing,
    pub(super) starved: Starved,
    /// The number of sockets that receive into the ring.
    pub(super) sockets: usize,
    /// The receives that are armed for one message each, because sockets want more than lies ready.
    turns_left: u32,
    /// The ring's place in the arena's queue of waiters, while it has starved sockets and no slot.
    waiting: Option<WaitForSlot>,
    /// Tells when somebody waits for a slot of the arena. Renewed while the ring is not starved.
    watch: Watch,
    watch_waker: Waker,
    /// The activity of the ring, and the time at which it was seen first.
    seen: (u64, Instant),
    /// The refused claims that were seen, and the last time at which there were more.
    refusals: u64,
    refused_at: Option<Instant>,
    /// The receives without a final completion since the group was unregistered.
    receives_left: usize,
    /// The limit of events that tell of starvation, and whether its end is to be told.
    events: EventLimit,
    is_starvation_told: bool,
    /// The kernel did not take the group again just now: it is tried again later.
    pub(super) is_delayed: bool,
}

/// The time without a message after which a ring is idle.
pub(super) const IDLE_AFTER: Duration = Duration::from_millis(1);

/// The time between two looks that refused claims cause: those who are refused do not wait.
pub(super) const REFUSALS_APART: Duration = Duration::from_millis(100);

/// The receives for one message each after which a ring that nobody starved on tries the other ones
/// again.
const TURNS: u32 = 64;

/// The consequence of a look at a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Nobody wants its slots: its watch tells when somebody does.
    Calm,
    /// It is to be looked at again, soon or later.
    Soon,
    Later,
    /// Its slots are wanted, and it does not use them.
    Idle,
}

impl Ring {
    fn new(buffers: BufferRing, watch_waker: Waker) -> Ring {
        let watch = Watch::new(buffers.arena());
        let refusals = watch.renew(&watch_waker, true).refusals;
        Ring {
            buffers,
            starved: Starved::default(),
            sockets: 0,
            turns_left: 0,
            waiting: None,
            watch,
            watch_waker,
            seen: (0, Instant::now()),
            refusals,
            refused_at: None,
            receives_left: 0,
            events: EventLimit::new(),
            is_starvation_told: false,
            is_delayed: false,
        }
    }

    /// Looks whether somebody wants slots of the ring, and whether it uses them. `renews` the watch
    /// too, which a wake has used up.
    pub(super) fn look(&mut self, renews: bool) -> Look {
        // A starved ring waits itself, and one that is not registered has nothing.
        if self.starved.count() > 0 || !self.buffers.is_registered() {
            return Look::Calm;
        }
        let now = Instant::now();
        let activity = self.buffers.activity();
        if activity != self.seen.0 {
            self.seen = (activity, now);
        }
        let hears = self.refused_at.is_none_or(|at| now.duration_since(at) >= REFUSALS_APART);
        let pressure = match renews {
            true => self.watch.renew(&self.watch_waker, hears),
            false => self.watch.pressure(),
        };
        let is_refused = hears && pressure.refusals != self.refusals;
        if is_refused {
            self.refused_at = Some(now);
        }
        if hears {
            self.refusals = pressure.refusals;
        }
        let is_wanted = pressure.is_waited_for || is_refused;
        match is_wanted && !self.buffers.is_empty() {
            true if now.duration_since(self.seen.1) >= IDLE_AFTER => Look::Idle,
            true => Look::Soon,
            false if !renews => Look::Soon,
            false if !hears => Look::Later,
            false => Look::Calm,
        }
    }

    /// Takes the group of an idle ring off the kernel. The slots are free when `receives`, which
    /// are in flight, have had their final completions.
    ///
    /// Returns `false` if the kernel refuses: then the ring stays as it is.
    pub(super) fn begin_to_give_back(&mut self, receives: usize, submitter: &Submitter) -> bool {
        self.watch.stop();
        // SAFETY: registered on this ring. The table counts the receives in flight.
        let answer = unsafe { self.buffers.begin_unregister(submitter) };
        if let Err(error) = answer {
            tracing::warn!(%error, "an idle buffer ring keeps its slots, for which others wait");
            return false;
        }
        self.receives_left = receives;
        self.free_if_unused();
        true
    }

    /// Notes the final completion of a receive, whose bytes were handed out.
    #[inline]
    pub(super) fn end_receive(&mut self) {
        if self.buffers.is_detached() {
            self.receives_left -= 1;
            self.free_if_unused();
        }
    }

    fn free_if_unused(&mut self) {
        if self.receives_left == 0 {
            // SAFETY: each receive that was in flight when the group was unregistered has had its
            // final completion, and its bytes were handed out (see `Sockets::give_back`).
            unsafe { self.buffers.finish_unregister() };
        }
    }

    /// Notes that sockets want more entries than lie ready: from now on each gets one at a time.
    pub(super) fn take_turns(&mut self) {
        self.turns_left = TURNS;
    }

    /// Returns whether a receive that is armed now is for one message. Otherwise it takes all that
    /// lies ready, if its socket has so much.
    pub(super) fn takes_turns(&self) -> bool {
        self.turns_left > 0 && self.sockets > 1
    }

    /// Notes a receive that is armed while no socket is starved.
    pub(super) fn count_turn(&mut self) {
        self.turns_left = self.turns_left.saturating_sub(1);
    }

    /// Returns whether the next thing that is done for its starved sockets waits for an event.
    fn is_settled(&self) -> bool {
        self.starved.count() == 0
            || self.waiting.is_some()
            || self.is_delayed
            || self.buffers.is_detached()
    }

    /// Registers the group of a ring that had given its slots back. Returns `false` if that is not
    /// possible now: its slots are not free yet, or the kernel refuses.
    fn register_again(&mut self, submitter: &Submitter) -> bool {
        if self.buffers.is_detached() || self.is_delayed {
            return false;
        }
        // SAFETY: the io_uring of the driver, as before; the contract is kept as before.
        match unsafe { self.buffers.register_again(submitter) } {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "an idle buffer ring cannot be registered again yet");
                self.is_delayed = true;
                false
            }
        }
    }

    /// Notes that a socket in the starved queues waits no more.
    pub(super) fn forget_starved(&mut self) {
        self.starved.forget_one();
        if self.stop_waiting_if_idle() != Look::Calm {
            // The next turn looks again.
            self.watch_waker.wake_by_ref();
        }
    }

    /// Gives up the ring's place in the arena's queue if no socket waits for a slot. Returns when
    /// to look at the ring.
    pub(super) fn stop_waiting_if_idle(&mut self) -> Look {
        if self.starved.count() > 0 {
            return Look::Calm;
        }
        self.tell_of_end_of_starvation();
        self.stop_waiting();
        // What it has got is for the sockets that waited.
        self.seen = (self.buffers.activity(), Instant::now());
        self.look(true)
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
    /// Returns the number of receives that find slots ready.
    pub(super) fn refill_or_wait(
        &mut self,
        wakeup: &mut Wakeup,
        submitter: &mut Submitter,
    ) -> Result<usize, DriverError> {
        if !self.buffers.is_registered() && !self.register_again(submitter) {
            return Ok(0);
        }
        if self.waiting.is_none() {
            if self.buffers.refill() > 0 {
                return Ok(self.buffers.entries_ready());
            }
            // The ring is not to hear of itself.
            self.watch.stop();
            self.tell_of_starvation();
        }
        wakeup.poll(submitter)?;
        let (arena, place) = (self.buffers.arena(), self.buffers.place());
        let waiting = self.waiting.get_or_insert_with(|| WaitForSlot::join(arena, 0, place));
        let mut context = Context::from_waker(wakeup.grant_waker());
        let granted = Pin::new(waiting).poll(&mut context);
        if let Poll::Ready(lease) = granted {
            self.waiting = None;
            self.buffers.add_slot(lease);
        }
        // The look after joining the queue: a slot that was freed before is in no wait.
        if self.buffers.refill() > 0 {
            self.stop_waiting();
        }
        Ok(self.buffers.entries_ready())
    }

    /// Tells the log that sockets wait for slots, once a second at most.
    #[cold]
    fn tell_of_starvation(&mut self) {
        if self.events.is_due() {
            self.is_starvation_told = true;
            tracing::info!(
                group = self.buffers.group(),
                sockets = self.starved.count(),
                starved = self.buffers.metrics().starved,
                "a buffer ring has no slot: drop received bytes sooner, copy short ones (`copy_below`), or build a larger arena"
            );
        }
    }

    /// Tells the log that no socket waits for slots any more, if it was told that some do.
    fn tell_of_end_of_starvation(&mut self) {
        if std::mem::take(&mut self.is_starvation_told) {
            let (group, ready) = (self.buffers.group(), self.buffers.metrics().published);
            tracing::info!(group, ready, "a buffer ring has slots again");
        }
    }

    fn add_counts_to(&self, metrics: &mut DriverMetrics) {
        let ring = self.buffers.metrics();
        metrics.starved += ring.starved;
        metrics.copied += ring.copied;
        metrics.unreported_slots += ring.unreported_slots;
        metrics.given_back += ring.given_back;
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

    #[cfg_attr(feature = "holders", track_caller)]
    pub(super) fn register(
        &mut self,
        arena: &FixedArena,
        options: BufferRingOptions,
        supported: Probe,
        wakeup: &mut Wakeup,
        submitter: &Submitter,
    ) -> Result<BufferRingId, RingError> {
        if !supported.has(Feature::BufferRing) {
            return Err(RingError::Unsupported {
                what: "provided-buffer rings",
                since: Feature::BufferRing.since(),
            });
        }
        let options = match options.group_id() {
            // The kernel does not know the group of a ring that gave its slots back.
            Some(group) if self.iter().any(|ring| ring.buffers.group() == group) => {
                return Err(RingError::GroupTaken { group });
            }
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
        let ring = Ring::new(buffers, wakeup.share_with_watch().clone());
        let key = self.table.insert(ring).ok().expect("each ring has a group of its own");
        Ok(BufferRingId::new(self.driver, key))
    }

    /// Returns a snapshot of each ring, under the number of its group.
    pub(super) fn metrics_parts(&self) -> Vec<MetricsPart> {
        let part = |ring: &Ring| {
            ring.buffers.metrics_part(&ring.buffers.group().to_string()).gauge(
                "uring_arena_ring_sockets",
                "Sockets that receive into the ring",
                ring.sockets,
            )
        };
        self.iter().map(part).collect()
    }

    fn free_group(&self) -> Result<u16, RingError> {
        let mut used: Vec<u16> = self.iter().map(|ring| ring.buffers.group()).collect();
        used.sort_unstable();
        (0..=u16::MAX)
            .find(|group| used.binary_search(group).is_err())
            .ok_or(RingError::NoGroupLeft { limit: GROUPS })
    }

    /// Returns whether a group is one of the driver's.
    pub(super) fn has_group(&self, group: u16) -> bool {
        self.iter().any(|ring| ring.buffers.group() == group)
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

    /// Unregisters every ring. One whose sockets are all in flight stays in the table: a receive
    /// that has not ended may write to the slot that it selected. The last of them frees the slots.
    pub(super) fn unregister_all(&mut self, submitter: &Submitter) {
        for key in self.table.keys() {
            if let Some(ring) = self.table.get_mut(key)
                && ring.sockets > 0
            {
                if ring.buffers.is_registered() {
                    ring.begin_to_give_back(ring.sockets, submitter);
                }
            } else if let Err(error) = self.take_down(key, submitter) {
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

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Finds the ring of an id, and its key.
    pub(super) fn by_id(&self, id: BufferRingId) -> Result<(Key, &Ring), DriverError> {
        let key = id.key_in(self.driver)?;
        self.table.get(key).map(|ring| (key, ring)).ok_or(DriverError::UnknownRing)
    }

    /// Finds the ring of a socket, which stays while it has sockets. A listener has none.
    pub(super) fn of(&self, ring: Option<Key>) -> Option<&Ring> {
        ring.and_then(|ring| self.table.get(ring))
    }

    /// Returns the ring of a socket, to be changed.
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

    pub(super) fn keys(&self) -> Vec<Key> {
        self.table.keys()
    }

    #[inline]
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Ring> {
        self.table.iter_mut().map(|(_, ring)| ring)
    }

    /// Returns whether each ring with starved sockets waits in its arena's queue: nothing is to be
    /// done for it before it is woken.
    pub(super) fn are_settled(&self) -> bool {
        self.iter().all(Ring::is_settled)
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
        metrics.given_back += self.past.given_back;
        for ring in self.iter() {
            ring.add_counts_to(metrics);
            metrics.published += ring.buffers.metrics().published;
            metrics.empty_rings += usize::from(ring.buffers.is_empty());
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
