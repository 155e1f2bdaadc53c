//! The driver: owner of a ring, of what is under way on it, and of when it is not.
//!
//! # Safety
//!
//! Unsafe here: pushing entries. What an entry refers to is held in the table until its final completion.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use io_uring::{IoUring, cqueue, squeue, types};

use super::arenas::Arenas;
use super::files::Files;
use super::key::{Key, Kind};
use super::operation_table::{Held, OperationTable};
use super::received::Unfolding;
use super::rings::Rings;
use super::starved::Alarm;
use super::transfers::Transfers;
use super::{DriverMetrics, Event, SocketId};
use crate::ArenaBytes;
use crate::error::DriverError;
use crate::sync::{AtomicU32, Ordering};
use crate::uring::{Delivered, Probe};

/// Owns an io_uring and everything under way on it; safe through and through.
///
/// Give it arenas to receive into ([`buffer_ring`](Self::buffer_ring)) and sockets ([`receive`](Self::receive)); then
/// [`wait`](Self::wait) and take [events](Event) until [`next`](Self::next) has none. It arms multishot receives again when they
/// end, parks sockets that find no slot and goes on with them when slots come back, keeps descriptors open until the
/// kernel is done with them, and takes care that no memory is freed that the kernel may still write.
///
/// A driver stays on the thread that built it: it is neither `Send` nor `Sync`, because the kernel runs its completions for that thread
/// alone. The bytes that it hands out may go anywhere.
///
/// Dropping it cancels what is under way and waits briefly; see [`drain`](Self::drain) for doing so in good order.
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
/// let ring = driver.buffer_ring(&arena, BufferRing::options().entries(32))?;
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
/// Invariants: 1. every entry in the submission queue, or with the kernel, has a place in `operations` that is in flight and that owns the
/// descriptor and the memory that the entry names; buffer rings own theirs. 2. A place leaves the table only when it is
/// not in flight.
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
    /// Sockets that are closed once this is told, and why. They keep their places until then: their numbers are not given out before.
    pub(super) closings: VecDeque<(Key, Option<i32>)>,
    pub(super) alarm: Option<Alarm>,
    /// Everything is being cancelled: nothing is armed again.
    pub(super) draining: bool,
    /// The forms of operations that are tried; those that the kernel then refuses give way to older ones.
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

        // Looked at already if any driver was made before; if it cannot be, operations are the ordinary ones.
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

    /// Submits what is pending and waits until something happened. Returns at once if there are events to take.
    ///
    /// May return without an event: take events until there are none, and wait again. While every slot is in use the sockets wait with it, and
    /// it goes on when a slot is freed: so do not wait while this thread itself holds all of them.
    ///
    /// # Errors
    ///
    /// [`DriverError::System`] if the kernel refuses to go on.
    pub fn wait(&mut self) -> Result<(), DriverError> {
        self.turn(None)
    }

    /// As [`wait`](Self::wait), but not longer than `patience` ([`Duration::ZERO`]: only looks). True if something happened.
    ///
    /// # Errors
    ///
    /// As for `wait`.
    pub fn wait_timeout(&mut self, patience: Duration) -> Result<bool, DriverError> {
        self.turn(Some(Instant::now() + patience))?;
        Ok(self.has_news())
    }

    /// As [`wait`](Self::wait), but never waits: for a loop that waits for something else, and learns from
    /// [`notify`](Self::notify) when to look.
    ///
    /// True if something happened, or more is to be done at once: then take the events, and look again.
    ///
    /// # Errors
    ///
    /// As for `wait`.
    pub fn look(&mut self) -> Result<bool, DriverError> {
        self.poll_shared_alarm()?;
        self.arm_ended()?;
        let feed = self.feed()?;
        self.enter(true, None)?;
        Ok(feed.is_unfinished || self.has_news())
    }

    /// Has the kernel raise an event descriptor ([eventfd(2)](https://man7.org/linux/man-pages/man2/eventfd.2.html)) whenever
    /// [`look`](Self::look) would find something: to be polled by another loop. One at a time.
    ///
    /// # Errors
    ///
    /// [`DriverError::System`] if it is not an event descriptor, or there is one already.
    pub fn notify(&mut self, event_fd: impl std::os::fd::AsFd) -> Result<(), DriverError> {
        let fd = event_fd.as_fd().as_raw_fd();
        self.uring.submitter().register_eventfd(fd).map_err(|error| DriverError::System {
            action: "registering an event descriptor",
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        })
    }

    /// Whether nothing is to be submitted and nothing to be told: then the next thing that happens [raises](Self::notify) the
    /// event descriptor. If not, look again.
    pub fn is_settled(&mut self) -> bool {
        self.ended.is_empty() && self.uring.submission().is_empty() && !self.has_news()
    }

    /// The next thing that happened, until there is nothing more; then [`wait`](Self::wait) again.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would borrow the driver while the program uses it"
    )]
    pub fn next(&mut self) -> Option<Event> {
        self.next_as()
    }

    /// As [`next`](Self::next), with bytes that allocate nothing on the heap.
    pub fn next_in_place(&mut self) -> Option<Event<ArenaBytes>> {
        self.next_as()
    }

    pub(super) fn next_as<B: Delivered>(&mut self) -> Option<Event<B>> {
        loop {
            if self.unfolding.is_some() {
                if let Some(event) = self.unfold() {
                    return Some(event);
                }
                continue;
            }
            let Some(completion) = self.uring.completion().next() else {
                return self.next_told().map(Event::delivered);
            };
            self.metrics.completions += 1;
            let is_final = !cqueue::more(completion.flags());
            let key = Key::of(completion.user_data());
            let Some(held) = self.operations.note_completed(key, is_final) else {
                self.complete_without_place(key);
                continue;
            };
            if !is_final
                && let Some(Held::Receive(receive)) = held
                && let Some(bytes) = receive.take_plain(&mut self.rings, &completion)
            {
                return Some(Event::Received { id: SocketId(key), bytes });
            }
            let Some(kind) = held.as_ref().map(Held::kind) else { continue };
            if let Some(event) = self.complete(key, kind, &completion) {
                return Some(event);
            }
        }
    }

    /// The next event that no completion brings.
    fn next_told(&mut self) -> Option<Event<ArenaBytes>> {
        if let Some(event) = self.told.pop_front() {
            return Some(event);
        }
        while let Some((key, errno)) = self.closings.pop_front() {
            let closed = self.closed(key, errno);
            if closed.is_some() {
                return closed;
            }
        }
        None
    }

    /// Acts on a completion that is not a message like most.
    #[inline(never)]
    fn complete<B: Delivered>(
        &mut self,
        key: Key,
        kind: Kind,
        completion: &cqueue::Entry,
    ) -> Option<Event<B>> {
        match kind {
            Kind::Receive => {
                self.received(key, completion);
                None
            }
            Kind::Accept => self.accepted(key, completion),
            Kind::Transfer => self.transferred(key, completion),
            Kind::Wake | Kind::Cancel => unreachable!("they have no place in the table"),
        }
    }

    #[cold]
    fn complete_without_place(&mut self, key: Key) {
        if key == Key::WAKE {
            self.woken();
        } else if !key.is_of_cancel() {
            self.metrics.unknown_completions += 1;
        }
    }

    /// Whether `next` would find something.
    pub(super) fn has_news(&mut self) -> bool {
        let is_told = !self.told.is_empty() || !self.closings.is_empty();
        is_told || self.unfolding.is_some() || !self.uring.completion().is_empty()
    }

    /// One turn: what ended is armed again, freed slots are published, starved sockets go on; then the kernel is entered.
    fn turn(&mut self, until: Option<Instant>) -> Result<(), DriverError> {
        self.poll_shared_alarm()?;
        loop {
            self.arm_ended()?;
            let feed = self.feed()?;
            // Sockets that could be armed and are not yet wait for no event: look, and go on arming.
            let only_look = feed.is_unfinished || self.has_news();
            self.enter(only_look, until)?;
            if !feed.is_unfinished || self.has_news() {
                return Ok(());
            }
        }
    }

    /// Submits, and unless told only to look, waits for a completion.
    pub(super) fn enter(&mut self, only_look: bool, until: Option<Instant>) -> Result<(), DriverError> {
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
            // A signal, the end of patience, or a completion queue that must be emptied first: the caller looks, and comes again.
            Err(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
            Err(errno) => Err(DriverError::System { action: "entering the kernel (io_uring_enter)", errno }),
        }
    }

    /// Takes a place in the table and pushes `entry`, whose `user_data` is filled in.
    ///
    /// If the operation cannot be taken it is given back with the reason.
    ///
    /// # Safety
    ///
    /// What the entry refers to is owned by `held`, or lives for ever: until the final completion.
    pub(super) unsafe fn start(
        &mut self,
        held: Held,
        entry: squeue::Entry,
    ) -> Result<Key, (Held, DriverError)> {
        let limit = self.operations.limit();
        let key = match self.operations.insert(held) {
            Ok(key) => key,
            Err(held) => return Err((held, DriverError::TooManyOperations { limit })),
        };
        // SAFETY: the table owns what the entry refers to (the caller's promise).
        match unsafe { self.push(key, entry) } {
            Ok(()) => Ok(key),
            Err(error) => Err((self.operations.remove(key).expect("just inserted"), error)),
        }
    }

    /// Pushes an entry for an operation in the table, which is in flight from here on.
    ///
    /// # Safety
    ///
    /// What the entry refers to is owned by the operation at `key`, or by the driver's rings, until the final completion.
    pub(super) unsafe fn push(&mut self, key: Key, entry: squeue::Entry) -> Result<(), DriverError> {
        if self.operations.get(key).is_none() {
            return Ok(());
        }
        let entry = entry.user_data(key.user_data());
        // SAFETY: the caller's promise.
        unsafe { self.push_entry(&entry) }?;
        self.operations.note_pushed(key);
        Ok(())
    }

    /// Pushes an entry, submitting what is in the way.
    ///
    /// # Safety
    ///
    /// What the entry refers to outlives the operation.
    pub(super) unsafe fn push_entry(&mut self, entry: &squeue::Entry) -> Result<(), DriverError> {
        // A queue that stays full after a submission is one that the kernel does not take from now.
        const TRIES: usize = 2;
        for _ in 0..TRIES {
            // SAFETY: the caller's promise.
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.enter(true, None)?;
        }
        Err(DriverError::System { action: "submitting (the queue stays full)", errno: libc::EBUSY })
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
