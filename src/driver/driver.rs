//! The driver: built, and what is registered with its ring.

use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, RawFd};

use super::arenas::Arenas;
use super::files::Files;
use super::rings::Rings;
use super::socket::Sockets;
use super::submitter::Submitter;
use super::timers::Timers;
use super::transfer::Transfers;
use super::wakeup::Wakeup;
use super::{ArenaId, BufferRingId, DriverBuilder, DriverError, DriverMetrics, SocketSnapshot};
use crate::arena::{FixedArena, SlotMap, SlotStates};
#[cfg(feature = "holders")]
use crate::lease::Holders;
use crate::lease::{ClaimedSlot, Handle, SlotState};
use crate::metrics::{MetricsPart, sealed::HasMetricsPart};
use crate::sync::{AtomicU32, Ordering};
use crate::uring::{
    BufferRingMetrics, BufferRingOptions, Probe, RegisterError, RegisterOptions, RegisteredArena,
    Registrable, RingError, handle_of,
};

/// An io_uring with everything under way on it; safe through and through.
///
/// A program gives it arenas to receive into ([`register_buffer_ring`](Self::register_buffer_ring))
/// and sockets ([`receive`](Self::receive)). Then it [waits](Self::wait) and takes
/// [events](crate::Event) until [`next`](Self::next) has none. The driver arms multishot receives
/// again when they end. It parks sockets that find no slot, and goes on with them when slots come
/// back. It keeps descriptors open until the kernel is done with them, and frees no memory that the
/// kernel may still write.
///
/// A driver stays on the thread that built it: it is neither `Send` nor `Sync`, because the kernel
/// runs its completions for that thread alone. The bytes that it hands out may go anywhere.
///
/// A forked child has a copy of the driver, and no part in its ring. There the methods that need
/// the ring return [`DriverError::OtherProcess`], no event comes, and a waker wakes nobody. The
/// copy can be dropped: that closes the child's descriptors, and touches nothing of the parent's. A
/// child builds a driver of its own.
///
/// Dropping it cancels what is under way and waits briefly; [`drain`](Self::drain) does so in good
/// order.
///
/// ```
/// use std::io::Write;
/// use std::num::NonZeroUsize;
/// use std::os::unix::net::UnixStream;
/// use uring_arena::{BufferRing, Driver, Event, FixedArena};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (count, bytes) = (NonZeroUsize::new(64).unwrap(), NonZeroUsize::new(4096).unwrap());
/// let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
/// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
/// # let _ = stringify! {
/// let mut driver = Driver::builder().build()?;
/// # };
/// let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(32))?;
/// let (mut sender, socket) = UnixStream::pair()?;
/// let id = driver.receive(ring, socket)?;
///
/// sender.write_all(b"hello")?;
/// drop(sender);
/// let mut text = Vec::new();
/// 'receiving: loop {
///     driver.wait()?;
///     while let Some(event) = driver.next() {
///         match event {
///             Event::Received { bytes, .. } => text.extend_from_slice(&bytes),
///             Event::Closed { id: closed, error: None, .. } if closed == id => break 'receiving,
///             other => panic!("{other:?}"),
///         }
///     }
/// }
/// assert_eq!(text, b"hello");
/// # Ok(())
/// # }
/// ```
//
// Invariant: every entry in the submission queue, or with the kernel, is of a socket or a transfer
// in the tables that is in flight, and that owns the descriptor and the memory which the entry
// names; or it refers to no memory (the wakeup's poll, requests to cancel). Buffer rings own
// theirs.
pub struct Driver {
    // Dropped before the ring: its end may close what an operation still names, and must find the
    // sockets set not to linger.
    pub(super) sockets: Sockets,
    pub(super) submitter: Submitter,
    pub(super) wakeup: Wakeup,
    pub(super) rings: Rings,
    pub(super) arenas: Arenas,
    pub(super) files: Files,
    pub(super) transfers: Transfers,
    pub(super) timers: Timers,
    pub(super) supported: Probe,
    /// The most operations under way, of both tables together.
    operations_max: usize,
    pub(super) completions: u64,
    pub(super) unknown_completions: u64,
    /// The payloads whose drop panicked.
    pub(super) contained_panics: u64,
    pub(super) number: u32,
    /// The kernel runs completions for one thread only.
    _on_one_thread: PhantomData<*mut ()>,
}

impl DriverBuilder {
    /// Builds the driver, on the thread that will use it.
    ///
    /// # Errors
    ///
    /// [`DriverError`]: io_uring is forbidden or missing, the kernel does not take the numbers of
    /// entries, or no memory or no descriptor is left.
    ///
    /// ```
    /// # use uring_arena::Driver;
    /// match Driver::builder().build() {
    ///     Ok(driver) => println!("{driver:?}"),
    ///     Err(error) => eprintln!("{error}"),
    /// }
    /// ```
    pub fn build(self) -> Result<Driver, DriverError> {
        /// The number of drivers so far. Only hands out numbers; publishes nothing.
        static DRIVERS: AtomicU32 = AtomicU32::new(0);

        let operations = self.checked_operations()?;
        let (uring, defers) = self.make_ring()?;
        let mut submitter = Submitter::new(uring, defers);
        self.set_waits(&mut submitter);
        let wakeup = Wakeup::new(self.checked_entries()?)?;
        let number = DRIVERS.fetch_add(1, Ordering::Relaxed);
        // Now, as descriptors may run out later. Looked at already if any driver was made before;
        // if it cannot be, it is tried again when an arena comes.
        let probe = self.probe.or_else(|| Probe::shared().ok());
        // Of sockets each form is tried, and gives way to an older one if the kernel refuses it.
        let supported = self.probe.unwrap_or(Probe::all());
        Ok(Driver {
            submitter,
            wakeup,
            rings: Rings::new(number),
            arenas: Arenas::new(number, probe),
            files: Files::new(number, self.file_events),
            sockets: Sockets::new(number, supported, self.multishot),
            transfers: Transfers::new(number),
            timers: Timers::new(number),
            supported,
            operations_max: operations,
            completions: 0,
            unknown_completions: 0,
            contained_panics: 0,
            number,
            _on_one_thread: PhantomData,
        })
    }
}

impl Driver {
    /// Begins to build a driver.
    ///
    /// ```
    /// # use uring_arena::Driver;
    /// let builder = Driver::builder().entries(1024).operations(100_000);
    /// # drop(builder.build());
    /// ```
    pub fn builder() -> DriverBuilder {
        DriverBuilder::default()
    }

    /// Registers an arena with the ring, so that reads, writes and zero-copy sends use its memory
    /// without pinning it again.
    ///
    /// Reads, writes and sends work without it, as ordinary ones. The best mode that works is
    /// taken; [`arena`](Self::arena) says which and why not better. Several arenas may be
    /// registered.
    ///
    /// # Errors
    ///
    /// [`RegisterError::Unavailable`] if the kernel cannot be asked what it can do. Otherwise none:
    /// the lowest mode always works.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::{Driver, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let id = driver.register(&arena)?;
    /// let registered = driver.arena(id)?;
    /// println!("{:?}", registered.mode());
    /// for (mode, error) in registered.refused() {
    ///     println!("not {mode:?}: {error}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn register(&mut self, arena: &impl Registrable) -> Result<ArenaId, RegisterError> {
        self.register_with(arena, RegisterOptions::new())
    }

    /// Registers an arena as [`register`](Self::register) does, with a mode demanded or a ring to
    /// clone from.
    ///
    /// The index in the ring's table is the driver's to choose: one asked for by
    /// [`RegisterOptions::at`] is not heeded.
    ///
    /// # Errors
    ///
    /// [`RegisterError`] if the mode that was demanded does not work.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::{Driver, FixedArena, RegisterOptions, RegistrationMode};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).alignment(4096).build()?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let options = RegisterOptions::new().mode(RegistrationMode::Regions);
    /// match driver.register_with(&arena, options) {
    ///     Ok(id) => assert_eq!(driver.arena(id)?.mode(), RegistrationMode::Regions),
    ///     Err(error) => eprintln!("{error}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn register_with(
        &mut self,
        arena: &impl Registrable,
        options: RegisterOptions<'_>,
    ) -> Result<ArenaId, RegisterError> {
        if let Some((of, to)) = self.submitter.process.other() {
            return Err(RegisterError::OtherProcess { of, to });
        }
        self.arenas.register(arena, options, &self.submitter)
    }

    /// Returns how an arena is registered.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownArena`] if the arena was unregistered; [`DriverError::OtherDriver`].
    pub fn arena(&self, id: ArenaId) -> Result<&RegisteredArena, DriverError> {
        self.arenas.by_id(id)
    }

    /// Unregisters an arena.
    ///
    /// Reads, writes and sends of its memory are ordinary ones from then on. Operations that are
    /// under way finish as they would have, also those that are to be submitted with the next turn:
    /// they are submitted first.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownArena`] if the arena was unregistered; [`DriverError::OtherDriver`];
    /// [`DriverError::System`] if the kernel refuses. If it takes no entries for now (`EBUSY`), the
    /// arena is registered still; otherwise the memory stays pinned until the driver ends.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::{Driver, DriverError, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (count, bytes) = (NonZeroUsize::new(4).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let id = driver.register(&arena)?;
    /// driver.unregister_arena(id)?;
    /// assert_eq!(driver.unregister_arena(id), Err(DriverError::UnknownArena));
    /// # Ok(())
    /// # }
    /// ```
    pub fn unregister_arena(&mut self, id: ArenaId) -> Result<(), DriverError> {
        self.submitter.check_process()?;
        self.arenas.unregister(id, &mut self.submitter)
    }

    /// Registers a buffer ring fed from `arena`, for [`receive`](Self::receive).
    ///
    /// Several rings may share an arena, in one driver and in several. A ring takes half of the
    /// free slots, or as many as its [entries](BufferRingOptions::entries) if these are asked for.
    /// If no slot is free, [`Event::BufferRingEmpty`](crate::Event::BufferRingEmpty) says so, and
    /// the ring gets slots as soon as some are free. A ring in which no bytes came for a
    /// millisecond gives its slots back, with the next turn of its driver, if others wait for a
    /// slot: rings, tasks, threads. It takes slots again when bytes come.
    ///
    /// # Errors
    ///
    /// [`RingError`]: a number of entries that the kernel does not take, an arena of more than
    /// 65,536 slots, a group id in use, a kernel older than 5.19, memory that is refused.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::{BufferRing, Driver, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (count, bytes) = (NonZeroUsize::new(64).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(32))?;
    /// assert_eq!(driver.ring_metrics(ring)?.published, 32);
    /// driver.unregister_buffer_ring(ring)?;
    /// assert!(driver.ring_metrics(ring).is_err());
    /// # Ok(())
    /// # }
    /// ```
    #[cfg_attr(feature = "holders", track_caller)]
    pub fn register_buffer_ring(
        &mut self,
        arena: &FixedArena,
        options: BufferRingOptions,
    ) -> Result<BufferRingId, RingError> {
        if let Some((of, to)) = self.submitter.process.other() {
            return Err(RingError::OtherProcess { of, to });
        }
        let Driver { rings, wakeup, submitter, supported, .. } = self;
        let id = rings.register(arena, options, *supported, wakeup, submitter)?;
        if rings.by_id(id).is_ok_and(|(_, ring)| ring.buffers.is_empty()) {
            self.sockets.tell_of_empty_ring(id);
        }
        Ok(id)
    }

    /// Takes a snapshot of the counters of one ring.
    ///
    /// # Errors
    ///
    /// [`DriverError::UnknownRing`] if the ring was unregistered; [`DriverError::OtherDriver`].
    pub fn ring_metrics(&self, id: BufferRingId) -> Result<BufferRingMetrics, DriverError> {
        self.rings.by_id(id).map(|(_, ring)| ring.buffers.metrics())
    }

    /// Returns whether the ring lets several messages share a slot: asked for, and the kernel can
    /// (6.12).
    ///
    /// # Errors
    ///
    /// As for [`ring_metrics`](Self::ring_metrics).
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::{BufferRing, Driver, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// # let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let ring = driver.register_buffer_ring(&arena, BufferRing::options().incremental(true))?;
    /// println!("messages share slots: {}", driver.ring_is_incremental(ring)?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn ring_is_incremental(&self, id: BufferRingId) -> Result<bool, DriverError> {
        self.rings.by_id(id).map(|(_, ring)| ring.buffers.is_incremental())
    }

    /// Unregisters a buffer ring whose sockets are all closed. Its slots are free again, and bytes
    /// that came through it stay valid.
    ///
    /// # Errors
    ///
    /// [`DriverError::RingInUse`] while sockets receive into the ring; [`DriverError::UnknownRing`]
    /// if the ring was unregistered; [`DriverError::OtherDriver`]; [`DriverError::Ring`] if the
    /// kernel does not give the ring back: then its slots are quarantined.
    pub fn unregister_buffer_ring(&mut self, id: BufferRingId) -> Result<(), DriverError> {
        self.submitter.check_process()?;
        self.rings.unregister(id, &self.submitter)
    }

    /// Takes a snapshot of the counters.
    pub fn metrics(&self) -> DriverMetrics {
        let mut metrics = DriverMetrics {
            enters: self.submitter.enters,
            completions: self.completions,
            unknown_completions: self.unknown_completions,
            contained_panics: self.contained_panics,
            armed: self.sockets.armed,
            retries: self.sockets.back_off.retries,
            wakeups: self.wakeup.wakes,
            transfers: self.transfers.pushed,
            resumed: self.transfers.resumed,
            zero_copy_sends: self.transfers.zero_copy_sends,
            zero_copy_sends_copied: self.transfers.zero_copy_sends_copied,
            in_flight: self.in_flight(),
            ..DriverMetrics::default()
        };
        self.rings.add_counts_to(&mut metrics);
        metrics
    }

    /// Looks at each socket, pipe and listener.
    ///
    /// It is for monitoring, not for hot paths. What each connection holds is told by
    /// [`Holders::by_connection`](crate::Holders::by_connection), under the same numbers.
    ///
    /// ```
    /// # use std::os::unix::net::UnixStream;
    /// # use uring_arena::{BufferRing, Driver, FixedArena, SocketState};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let arena = FixedArena::new(16, 4096)?;
    /// let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(8))?;
    /// let (_peer, socket) = UnixStream::pair()?;
    /// let id = driver.receive_with(ring, socket, 7)?;
    /// let sockets = driver.sockets();
    /// assert_eq!((sockets[0].id, sockets[0].connection), (id, 7));
    /// assert_eq!(sockets[0].state, SocketState::Open);
    /// # Ok(())
    /// # }
    /// ```
    pub fn sockets(&self) -> Vec<SocketSnapshot> {
        self.sockets.snapshots(&self.rings, &self.files)
    }

    /// Counts the slots of `arena` by state, or the smallest blocks of a buddy arena.
    ///
    /// The count walks over all of them: it is for monitoring, not for hot paths. What other
    /// drivers' rings and operations have counts as held, or frozen. [`SlotStates`] says how exact
    /// the numbers are.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use uring_arena::{BufferRing, Driver, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let (count, bytes) = (NonZeroUsize::new(16).unwrap(), NonZeroUsize::new(4096).unwrap());
    /// let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
    /// let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(8))?;
    /// let buffer = arena.allocate()?;
    /// let slots = driver.slot_states(&arena);
    /// assert_eq!((slots.free, slots.published, slots.held), (7, 8, 1));
    /// assert_eq!(slots.total(), 16);
    /// # drop(buffer);
    /// # let _ = ring;
    /// # Ok(())
    /// # }
    /// ```
    pub fn slot_states(&self, arena: &impl Registrable) -> SlotStates {
        let handle = handle_of(arena);
        SlotStates::of(handle, self.state_on_rings(handle, self.transfers.addresses_running()))
    }

    /// Takes a map of the claims of `arena`: as the arena's own
    /// [`slot_map`](crate::FixedArena::slot_map), with what this driver's rings and operations
    /// have.
    ///
    /// ```
    /// # use uring_arena::{BufferRing, Driver, FixedArena, SlotState};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let arena = FixedArena::new(16, 4096)?;
    /// let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(8))?;
    /// let map = driver.slot_map(&arena);
    /// assert_eq!(map.claims().len(), 8);
    /// assert!(map.claims().iter().all(|claim| claim.state == SlotState::Ready));
    /// # let _ = ring;
    /// # Ok(())
    /// # }
    /// ```
    pub fn slot_map(&self, arena: &impl Registrable) -> SlotMap {
        let handle = handle_of(arena);
        SlotMap::of(handle, self.state_on_rings(handle, self.transfers.addresses_running()))
    }

    /// Takes a snapshot of who holds the memory of `arena`: as the arena's own
    /// [`holders`](crate::FixedArena::holders), with what this driver's rings and operations have.
    ///
    /// ```
    /// # use uring_arena::{BufferRing, Driver, FixedArena, SlotState, TrackHolders};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(mut driver) = Driver::builder().build() else { return Ok(()) };
    /// let arena = FixedArena::with_sizes(16, 4096).track_holders(TrackHolders::All).build()?;
    /// let ring = driver.register_buffer_ring(&arena, BufferRing::options().entries(8))?;
    /// let holders = driver.holders(&arena);
    /// assert!(holders.iter().all(|holder| holder.state == SlotState::Ready));
    /// # let _ = ring;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "holders")]
    pub fn holders(&self, arena: &impl Registrable) -> Holders {
        let handle = handle_of(arena);
        Holders::of(handle, self.state_on_rings(handle, self.transfers.addresses_given()))
    }

    /// Returns a function that tells the state of the slots that rings and operations have.
    /// `addresses` are those of the operations' memory.
    fn state_on_rings(
        &self,
        handle: &Handle,
        addresses: impl Iterator<Item = usize>,
    ) -> impl FnMut(&ClaimedSlot) -> Option<SlotState> {
        let published = sorted(self.rings.owned_slots(handle));
        let in_flight = sorted(addresses.flat_map(|address| handle.indices_of_address(address)));
        move |owned| {
            if published.binary_search(&owned.first).is_ok() {
                return Some(SlotState::Ready);
            }
            // An operation may begin anywhere in its block.
            let next = in_flight.partition_point(|&unit| unit < owned.first);
            let is_in_flight = in_flight
                .get(next)
                .is_some_and(|&unit| u64::from(unit - owned.first) < owned.min_blocks);
            is_in_flight.then_some(SlotState::InFlight)
        }
    }

    /// Returns the number of operations that the kernel has.
    pub(super) fn in_flight(&self) -> usize {
        self.sockets.in_flight + self.transfers.in_flight
    }

    /// Returns an error if the driver has as many operations as it was built for, or is not this
    /// process's.
    pub(super) fn check_room(&self) -> Result<(), DriverError> {
        self.check_room_for(1)
    }

    /// Checks as [`check_room`](Self::check_room) does, for several operations.
    pub(super) fn check_room_for(&self, operations: usize) -> Result<(), DriverError> {
        self.submitter.check_process()?;
        let limit = self.operations_max;
        if self.sockets.len() + self.transfers.len() + operations <= limit {
            return Ok(());
        }
        Err(DriverError::TooManyOperations { limit })
    }
}

fn sorted(units: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut units: Vec<u32> = units.collect();
    units.sort_unstable();
    units
}

impl AsRawFd for Driver {
    /// Returns the ring's descriptor: for [`ring_info`](crate::ring_info), and to clone
    /// registrations from.
    ///
    /// It is never to be polled: the kernel does not wake a poller of it. Another loop polls an
    /// [event descriptor](Driver::register_eventfd).
    fn as_raw_fd(&self) -> RawFd {
        self.submitter.uring.as_raw_fd()
    }
}

impl HasMetricsPart for Driver {
    fn metrics_part(&self, name: &str) -> MetricsPart {
        let part = self.metrics().add_to(MetricsPart::new("driver", name)).gauge(
            "uring_arena_driver_slots_in_flight",
            "Slots in reads, writes and sends that the kernel has",
            self.transfers.slots_running(),
        );
        self.rings.metrics_parts().into_iter().fold(part, MetricsPart::part)
    }
}

/// Shows the operations, those in flight, the slots that lie ready in rings, and the sockets that
/// wait for some.
impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metrics = self.metrics();
        f.debug_struct("Driver")
            .field("number", &self.number)
            .field("fd", &self.as_raw_fd())
            .field("operations", &(self.sockets.len() + self.transfers.len()))
            .field("in_flight", &metrics.in_flight)
            .field("ready", &metrics.published)
            .field("parked", &metrics.parked)
            .field("rings", &self.rings.len())
            .field("empty_rings", &metrics.empty_rings)
            .finish_non_exhaustive()
    }
}
