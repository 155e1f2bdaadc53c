//! The driver: owner of a ring, of what is under way on it, and of when it is not. Here its turns:
//! from what is to be done into the kernel and back.

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use io_uring::{IoUring, types};

use super::arenas::Arenas;
use super::files::Files;
use super::key::Key;
use super::operation_table::OperationTable;
use super::received::Unfolding;
use super::rings::Rings;
use super::starved::Alarm;
use super::transfers::Transfers;
use super::{DriverMetrics, Event};
use crate::ArenaBytes;
use crate::error::DriverError;
use crate::sync::{AtomicU32, Ordering};
use crate::uring::Probe;

/// Owns an io_uring and everything under way on it; safe through and through.
///
/// Give it arenas to receive into ([`register_buffer_ring`](Self::register_buffer_ring)) and
/// sockets ([`receive`](Self::receive)); then [`wait`](Self::wait) and take [events](Event) until
/// [`next`](Self::next) has none. It arms multishot receives again when they end, parks sockets
/// that find no slot and goes on with them when slots come back, keeps descriptors open until the
/// kernel is done with them, and takes care that no memory is freed that the kernel may still
/// write.
///
/// A driver stays on the thread that built it: it is neither `Send` nor `Sync`, because the kernel
/// runs its completions for that thread alone. The bytes that it hands out may go anywhere.
///
/// Dropping it cancels what is under way and waits briefly; see [`drain`](Self::drain) for doing so
/// in good order.
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
/// # let mut driver = match Driver::builder().build() {
/// #     Err(error) => { eprintln!("skipped: {error}"); return Ok(()) }
/// #     Ok(driver) => driver,
/// # };
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
///             Event::Closed { id: closed, error: None } if closed == id => break 'receiving,
///             other => panic!("{other:?}"),
///         }
///     }
/// }
/// assert_eq!(text, b"hello");
/// # Ok(())
/// # }
/// ```
///
/// Invariants: 1. every entry in the submission queue, or with the kernel, has a place in
/// `operations` that is in flight and that owns the descriptor and the memory that the entry names;
/// buffer rings own theirs. 2. A place leaves the table only when it is not in flight.
pub struct Driver {
    pub(super) uring: IoUring,
    pub(super) operations: OperationTable,
    pub(super) rings: Rings,
    pub(super) arenas: Arenas,
    pub(super) files: Files,
    pub(super) transfers: Transfers,
    /// Bytes of one completion that are still to be handed out.
    pub(super) unfolding: Option<Unfolding>,
    /// Receives that ended and are armed again on the next turn.
    pub(super) ended: VecDeque<Key>,
    /// Events that no completion brings.
    pub(super) told: VecDeque<Event<ArenaBytes>>,
    /// Sockets that are closed once this is told, and why. They keep their places until then: their
    /// numbers are not given out before.
    pub(super) closings: VecDeque<(Key, Option<i32>)>,
    pub(super) alarm: Option<Alarm>,
    /// Everything is being cancelled: nothing is armed again.
    pub(super) draining: bool,
    /// The forms of operations that are tried; those that the kernel then refuses give way to older
    /// ones.
    pub(super) forms: Probe,
    /// One receive brings many completions, where the kernel can.
    pub(super) multishot: bool,
    pub(super) number: u32,
    pub(super) metrics: DriverMetrics,
    /// The kernel runs completions for one thread only.
    _on_one_thread: PhantomData<*mut ()>,
}

/// What a builder makes.
pub(super) struct Parts {
    pub(super) uring: IoUring,
    pub(super) operations: usize,
    pub(super) multishot: bool,
    /// What to believe of the kernel, instead of looking.
    pub(super) probe: Option<Probe>,
}

impl Driver {
    pub(super) fn new(parts: Parts) -> Result<Driver, DriverError> {
        /// Drivers so far: tells the ids of one from those of another. Only hands out numbers.
        static DRIVERS: AtomicU32 = AtomicU32::new(0);

        // Looked at already if any driver was made before; if it cannot be, operations are the
        // ordinary ones.
        let probe = parts.probe.unwrap_or_else(|| Probe::shared().unwrap_or(Probe::none()));
        Ok(Driver {
            uring: parts.uring,
            operations: OperationTable::new(parts.operations),
            rings: Rings::default(),
            arenas: Arenas::new(probe),
            files: Files::default(),
            transfers: Transfers::default(),
            unfolding: None,
            ended: VecDeque::new(),
            told: VecDeque::new(),
            closings: VecDeque::new(),
            alarm: None,
            draining: false,
            forms: parts.probe.unwrap_or(Probe::all()),
            multishot: parts.multishot,
            number: DRIVERS.fetch_add(1, Ordering::Relaxed),
            metrics: DriverMetrics::default(),
            _on_one_thread: PhantomData,
        })
    }

    /// Submits what is pending and waits until something happened. Returns at once if there are
    /// events to take.
    ///
    /// May return without an event: take events until there are none, and wait again. While every
    /// slot is in use the sockets wait with it, and it goes on when a slot is freed: so do not wait
    /// while this thread itself holds all of them.
    ///
    /// # Errors
    ///
    /// [`DriverError::System`] if the kernel refuses to go on.
    pub fn wait(&mut self) -> Result<(), DriverError> {
        self.turn(None)
    }

    /// As [`wait`](Self::wait), but not longer than `patience` ([`Duration::ZERO`]: only looks).
    /// True if something happened.
    ///
    /// # Errors
    ///
    /// As for `wait`.
    pub fn wait_timeout(&mut self, patience: Duration) -> Result<bool, DriverError> {
        self.turn(Some(Instant::now() + patience))?;
        Ok(self.has_news())
    }

    /// As [`wait`](Self::wait), but never waits: for a loop that waits for something else, and
    /// learns from [`register_eventfd`](Self::register_eventfd) when to look.
    ///
    /// True if something happened, or more is to be done at once: then take the events, and look
    /// again.
    ///
    /// # Errors
    ///
    /// As for `wait`.
    pub fn poll_now(&mut self) -> Result<bool, DriverError> {
        self.poll_shared_alarm()?;
        self.arm_ended()?;
        let feed = self.feed()?;
        self.enter(true, None)?;
        Ok(feed.is_unfinished || self.has_news())
    }

    /// Has the kernel raise an event descriptor
    /// ([eventfd(2)](https://man7.org/linux/man-pages/man2/eventfd.2.html)) whenever
    /// [`poll_now`](Self::poll_now) would find something: to be polled by another loop. One at a
    /// time.
    ///
    /// # Errors
    ///
    /// [`DriverError::System`] if it is not an event descriptor, or there is one already.
    pub fn register_eventfd(
        &mut self,
        event_fd: impl std::os::fd::AsFd,
    ) -> Result<(), DriverError> {
        let fd = event_fd.as_fd().as_raw_fd();
        self.uring.submitter().register_eventfd(fd).map_err(|error| DriverError::System {
            action: "registering an event descriptor",
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        })
    }

    /// Whether nothing is to be submitted and nothing to be told: then the next thing that happens
    /// [raises](Self::register_eventfd) the event descriptor. If not, look again.
    pub fn is_idle(&mut self) -> bool {
        self.ended.is_empty() && self.uring.submission().is_empty() && !self.has_news()
    }

    /// Whether `next` would find something.
    pub(super) fn has_news(&mut self) -> bool {
        let is_told = !self.told.is_empty() || !self.closings.is_empty();
        is_told || self.unfolding.is_some() || !self.uring.completion().is_empty()
    }

    /// One turn: what ended is armed again, freed slots are published, starved sockets go on; then
    /// the kernel is entered.
    fn turn(&mut self, until: Option<Instant>) -> Result<(), DriverError> {
        self.poll_shared_alarm()?;
        loop {
            self.arm_ended()?;
            let feed = self.feed()?;
            // Sockets that could be armed and are not yet wait for no event: look, and go on
            // arming.
            let only_look = feed.is_unfinished || self.has_news();
            self.enter(only_look, until)?;
            if !feed.is_unfinished || self.has_news() {
                return Ok(());
            }
        }
    }

    /// Submits, and unless told only to look, waits for a completion.
    pub(super) fn enter(
        &mut self,
        only_look: bool,
        until: Option<Instant>,
    ) -> Result<(), DriverError> {
        let submitter = self.uring.submitter();
        let want = usize::from(!only_look);
        self.metrics.enters += 1;
        let answer = match until {
            Some(until) if !only_look => {
                let left = types::Timespec::from(until.saturating_duration_since(Instant::now()));
                submitter.submit_with_args(want, &types::SubmitArgs::new().timespec(&left))
            }
            _ => submitter.submit_and_wait(want),
        };
        match answer.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO)) {
            Ok(_) => Ok(()),
            // A signal, the end of patience, or a completion queue that must be emptied first: the
            // caller looks, and comes again.
            Err(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
            Err(errno) => {
                Err(DriverError::System { action: "entering the kernel (io_uring_enter)", errno })
            }
        }
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("fd", &self.uring.as_raw_fd())
            .field("operations", &self.operations.count())
            .field("in_flight", &self.operations.in_flight())
            .finish_non_exhaustive()
    }
}
