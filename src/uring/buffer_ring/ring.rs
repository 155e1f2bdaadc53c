//! A provided-buffer ring that an arena feeds.
//!
//! ```text
//!  arena ──claim──▶ post ──tail store──▶ kernel ──completion──▶ ArenaBytes, Bytes ──drop──▶ arena
//!                    ▲                      │ copied, or nothing received
//!                    └──────── spare ◀──────┘
//! ```

use std::fmt;
use std::ptr::{self, NonNull};

use io_uring::{opcode, squeue, types};

use super::depth::Depth;
use super::entries::RingEntries;
use super::options::BufferRingOptions;
use super::posted::PostedQueue;
use super::pressure::{Owned, Pressure};
use super::received::DatagramLayout;
use crate::lease::{Handle, Lease, Place, Run};
use crate::metrics::{MetricsPart, sealed::HasMetricsPart};
use crate::region::Process;
use crate::slots::SLOTS_PER_WORD;
use crate::sync::contain;

/// A provided-buffer ring whose buffers are the slots of a [`FixedArena`](crate::FixedArena): a
/// slot's index is its buffer id.
///
/// Each receive that names the ring's group takes a slot. Its completion becomes
/// [`ArenaBytes`](crate::ArenaBytes) or [`Bytes`](bytes::Bytes) of exactly the received length; the
/// slot is free when the bytes are dropped, on any thread. [`refill`](Self::refill) publishes free
/// slots in batches, with one store. The ring holds at most its number of entries, and slots that
/// users hold do not count.
///
/// This is the piece for a ring of your own; [`Driver`](crate::Driver) does the same without
/// `unsafe`. Linux 5.19
/// ([io_uring_register_buf_ring(3)](https://man7.org/linux/man-pages/man3/io_uring_register_buf_ring.3.html)).
///
/// Dropping the ring without [`unregister`](Self::unregister) quarantines every slot that the
/// kernel has. These slots, the arena's memory and the ring's own are leaked, because the kernel
/// may still write to them.
///
/// ```
/// use std::io::Write;
/// use std::num::NonZeroUsize;
/// use std::os::fd::AsRawFd;
/// use io_uring::{IoUring, types::Fd};
/// use uring_arena::{ArenaBytes, BufferRing, FixedArena, Status};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let mut uring = match IoUring::new(8) {
/// #     Err(error) => { eprintln!("skipped: io_uring: {error}"); return Ok(()) }
/// #     Ok(uring) => uring,
/// # };
/// let (count, bytes) = (NonZeroUsize::new(16).unwrap(), NonZeroUsize::new(4096).unwrap());
/// let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
/// let options = BufferRing::options().entries(8);
/// // SAFETY: entries of this ring go to `uring` only, and each completion comes back once.
/// let mut ring = unsafe { BufferRing::register(&uring, &arena, options)? };
///
/// let (mut sender, receiver) = std::os::unix::net::UnixStream::pair()?;
/// sender.write_all(b"hello")?;
/// drop(sender);
/// let entry = ring.receive_multi(Fd(receiver.as_raw_fd()));
/// // SAFETY: the socket outlives the receive, and the ring's slots are the ring's.
/// unsafe { uring.submission().push(&entry)? };
/// let mut text = Vec::new();
/// loop {
///     uring.submit_and_wait(1)?;
///     let Some(completion) = uring.completion().next() else { continue };
///     // SAFETY: a completion of a receive of this ring, handed in once.
///     let mut received = unsafe { ring.complete::<ArenaBytes>(&completion) };
///     for bytes in &mut received {
///         text.extend_from_slice(&bytes);
///     }
///     match received.status() {
///         Status::Armed => ring.refill(),
///         Status::Finished => break,
///         other => panic!("{other}"),
///     };
/// }
/// assert_eq!(text, b"hello");
/// // SAFETY: the only receive has ended.
/// unsafe { ring.unregister(&uring)? };
/// assert_eq!(arena.metrics().bytes_live, 0);
/// # Ok(())
/// # }
/// ```
//
// Invariants: 1. The entries before the queue's tail are those of the slots in `posted`, whose
// leases the ring owns. The kernel may write to a slot until the completion that names it. 2. The
// kernel does not have the leases in `spare`. 3. While `registered`, the kernel reads `entries`.
// 4. At most one of `entries` and `detached` is there. While neither is, `posted` is empty.
// 5. `posted` spans at most `limit` positions, which is at most its capacity.
pub struct BufferRing {
    pub(super) arena: Handle,
    pub(super) entries: Option<RingEntries>,
    /// The array of a group that the kernel does not know any more, while receives that named it
    /// may still fill slots.
    pub(super) detached: Option<Detached>,
    pub(super) posted: PostedQueue,
    pub(super) spare: Vec<Run>,
    /// The word of the arena in which the last refill claimed its first run.
    pub(super) hint: usize,
    pub(super) group: u16,
    pub(super) incremental: bool,
    pub(super) bundles: bool,
    pub(super) datagrams: DatagramLayout,
    pub(super) copy_below: usize,
    pub(super) slot_bytes: u32,
    /// The number of slots that lie ready for the kernel at most.
    pub(super) limit: u32,
    /// The number of slots that are to lie ready now, and of those in one entry.
    pub(super) depth: Depth,
    /// The number of missing slots from which a bulk refill is worth its cost.
    pub(super) bulk: u32,
    pub(super) pressure: Pressure,
    /// No message takes the fast path.
    pub(super) is_slow: bool,
    pub(super) fast_path: FastPathRange,
    /// The place where the ring was registered, and the connection whose bytes come next.
    pub(super) place: Place,
    #[cfg(feature = "holders")]
    pub(crate) connection: Option<u64>,
    pub(super) registered: bool,
    /// The process whose memory the kernel knows.
    pub(super) process: Process,
    pub(super) metrics: BufferRingMetrics,
}

/// The array of a group that was unregistered while receives were in flight.
pub(super) struct Detached {
    pub(super) entries: RingEntries,
    /// The number of entries that the kernel had used up by then, modulo 2¹⁶, if it says so.
    pub(super) head: Option<u16>,
}

/// The lengths of messages that are handed out in a slot of their own. One comparison separates the
/// range from all other lengths and from errors.
pub(super) struct FastPathRange {
    least: u32,
    count: u32,
}

impl FastPathRange {
    /// Creates the range from the copy threshold to the whole slot.
    ///
    /// The range is empty if `is_slow`.
    pub(super) fn new(copy_below: usize, is_slow: bool, slot_bytes: u32) -> FastPathRange {
        let least = u32::try_from(copy_below).unwrap_or(u32::MAX).max(1);
        let most = if is_slow { 0 } else { slot_bytes };
        FastPathRange { least, count: (most + 1).saturating_sub(least) }
    }

    /// Returns whether a completion's result is a length in the range.
    #[inline]
    pub(super) fn contains(&self, result: i32) -> bool {
        (result as u32).wrapping_sub(self.least) < self.count
    }
}

/// The counters of one [`BufferRing`].
///
/// ```
/// let metrics = uring_arena::BufferRingMetrics::default();
/// assert!(metrics.to_string().starts_with("0 published, 0 received"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BufferRingMetrics {
    /// Slots that lie ready for the kernel, with those that it is filling.
    pub published: usize,
    /// Messages handed out in their slot.
    pub received: u64,
    /// Messages copied to the heap because they were short.
    pub copied: u64,
    /// The bytes of copies that live now, of all rings of the arena.
    pub copied_bytes: usize,
    /// Completions that found the ring empty (`ENOBUFS`).
    pub starved: u64,
    /// Completions that named no slot of this ring, or more bytes than were posted.
    pub unmatched_completions: u64,
    /// Slots that the kernel used up and named in no completion; they were [taken
    /// back](BufferRing::reconcile).
    pub unreported_slots: u64,
    /// Slots that the ring of a driver gave back while it was idle, because others waited for them.
    pub given_back: u64,
}

/// Writes the counters in one line.
impl fmt::Display for BufferRingMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BufferRingMetrics { published, received, copied, starved, .. } = self;
        write!(
            f,
            "{published} published, {received} received, {copied} copied, {starved} starved, \
             {} unmatched completions, {} unreported slots",
            self.unmatched_completions, self.unreported_slots
        )
    }
}

impl BufferRing {
    /// Returns the default options of a ring.
    ///
    /// ```
    /// use uring_arena::BufferRing;
    ///
    /// let options = BufferRing::options().entries(256).copy_below(128);
    /// # let _ = options;
    /// ```
    pub fn options() -> BufferRingOptions {
        BufferRingOptions::default()
    }

    /// Returns the group id by which receives name this ring.
    pub fn group(&self) -> u16 {
        self.group
    }

    /// Returns the bytes in each slot.
    pub fn slot_bytes(&self) -> usize {
        self.slot_bytes as usize
    }

    /// Returns the bytes of a slot that are not a datagram's.
    pub(crate) fn datagram_header_bytes(&self) -> usize {
        self.datagrams.bytes()
    }

    /// Returns whether one slot takes several messages. That is so if it was asked for and the
    /// kernel has the feature.
    pub fn is_incremental(&self) -> bool {
        self.incremental
    }

    /// Returns whether one completion may fill several slots.
    pub fn is_bundling(&self) -> bool {
        self.bundles
    }

    /// Returns the number of receives that find a slot ready.
    #[inline]
    pub(crate) fn entries_ready(&self) -> usize {
        self.posted.span() as usize
    }

    /// Returns the most slots of one piece.
    pub(crate) fn piece_slots(&self) -> u32 {
        self.depth.run_max()
    }

    /// Takes only entries of one slot from now on: for messages that must not be longer.
    pub(crate) fn forbid_runs(&mut self) {
        self.depth.forbid_runs();
    }

    /// Returns whether no slot lies ready for the kernel.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.posted.span() == 0
    }

    /// Returns a snapshot of the counters.
    pub fn metrics(&self) -> BufferRingMetrics {
        let copied_bytes = self.arena.copied.live();
        BufferRingMetrics { published: self.posted.len(), copied_bytes, ..self.metrics }
    }

    /// Builds an entry for a multishot receive into this ring (Linux 6.0).
    ///
    /// Add your `user_data`, push the entry, and arm the receive again when a completion's
    /// [`Status`](crate::Status) asks for it. With [`bundles`](BufferRingOptions::bundles) a
    /// completion may fill several slots.
    ///
    /// The example of [`BufferRing`] shows it.
    pub fn receive_multi(&self, fd: types::Fd) -> squeue::Entry {
        if self.bundles {
            opcode::RecvMultiBundle::new(fd, self.group).build()
        } else {
            opcode::RecvMulti::new(fd, self.group).build()
        }
    }

    /// Builds an entry for a receive of one message into this ring.
    ///
    /// ```no_run
    /// # use std::os::fd::AsRawFd;
    /// # use uring_arena::BufferRing;
    /// # fn arm(ring: &BufferRing, socket: &std::net::TcpStream) -> io_uring::squeue::Entry {
    /// ring.receive_once(io_uring::types::Fd(socket.as_raw_fd())).user_data(7)
    /// # }
    /// ```
    pub fn receive_once(&self, fd: types::Fd) -> squeue::Entry {
        opcode::Recv::new(fd, ptr::null_mut(), 0)
            .buf_group(self.group)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT)
    }

    /// Builds an entry for a multishot receive of datagrams into this ring, which must not be
    /// incremental (Linux 6.0). A slot holds a header and the datagram. The header takes 44 bytes,
    /// or 304 in a ring with room for [details](BufferRingOptions::datagram_details).
    ///
    /// [`complete_datagram`](Self::complete_datagram) interprets its completions. The example of
    /// [`Datagram`](crate::Datagram) shows it. Descriptors that a Unix peer sends along are closed.
    pub fn receive_datagrams(&self, fd: types::Fd) -> squeue::Entry {
        opcode::RecvMsgMulti::new(fd, self.datagrams.header(fd.0), self.group).build()
    }

    /// Builds an entry for a multishot read of a pipe, or of another file that can be polled, into
    /// this ring (Linux 6.7).
    ///
    /// ```no_run
    /// # use std::os::fd::AsRawFd;
    /// # use uring_arena::BufferRing;
    /// # fn arm(ring: &BufferRing, pipe: &std::io::PipeReader) -> io_uring::squeue::Entry {
    /// ring.read_multi(io_uring::types::Fd(pipe.as_raw_fd())).user_data(7)
    /// # }
    /// ```
    pub fn read_multi(&self, fd: types::Fd) -> squeue::Entry {
        // This offset means the file's own position.
        opcode::ReadMulti::new(fd, 0, self.group).offset(u64::MAX).build()
    }

    /// Builds an entry for one read of a pipe, or of another file that can be polled, into this
    /// ring.
    ///
    /// ```no_run
    /// # use std::os::fd::AsRawFd;
    /// # use uring_arena::BufferRing;
    /// # fn arm(ring: &BufferRing, pipe: &std::io::PipeReader) -> io_uring::squeue::Entry {
    /// ring.read_once(io_uring::types::Fd(pipe.as_raw_fd())).user_data(7)
    /// # }
    /// ```
    pub fn read_once(&self, fd: types::Fd) -> squeue::Entry {
        opcode::Read::new(fd, ptr::null_mut(), self.slot_bytes)
            .offset(u64::MAX)
            .buf_group(self.group)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT)
    }

    /// Publishes as many free slots as there is room for. Returns the number of slots that lie
    /// ready for the kernel now.
    ///
    /// Slots that other threads free return to the arena, so call this once a turn, before entering
    /// the kernel. A call costs one store for any number of slots, and none if the ring is full.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// use uring_arena::{BufferRing, FixedArena};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(uring) = io_uring::IoUring::new(8) else { return Ok(()) };
    /// # let (count, bytes) = (NonZeroUsize::new(8).unwrap(), NonZeroUsize::new(64).unwrap());
    /// let arena = FixedArena::with_slot_capacity(count, bytes).build()?;
    /// let held = arena.allocate()?;
    /// let options = BufferRing::options().entries(8);
    /// // SAFETY: nothing is received through this ring.
    /// let mut ring = unsafe { BufferRing::register(&uring, &arena, options)? };
    /// assert_eq!(ring.refill(), 7);
    /// drop(held);
    /// assert_eq!(ring.refill(), 8);
    /// # // SAFETY: as above.
    /// # unsafe { ring.unregister(&uring)? };
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn refill(&mut self) -> usize {
        self.refill_now();
        self.posted.taken() as usize
    }

    /// Publishes slots as [`refill`](Self::refill) does. Out of line, so that a turn which needs no
    /// slots stays short.
    #[inline(never)]
    fn refill_now(&mut self) {
        if self.is_empty() {
            self.raise_limit();
        }
        self.adapt();
        self.free_remnants();
        let room = self.room();
        if room > 0 {
            self.post_up_to(room);
        }
        if self.room() == 0 || self.posted.room() == 0 {
            self.spare.drain(..).for_each(free_share);
        }
    }

    /// Returns the number of slots that are to be posted now.
    #[inline]
    fn room(&self) -> u32 {
        self.depth.slots.saturating_sub(self.posted.taken())
    }

    /// Adapts the depth to the messages that came.
    fn adapt(&mut self) {
        let posted = (self.posted.head(), self.posted.tail());
        self.depth.adapt(posted, self.slot_bytes, self.limit);
        let most = SLOTS_PER_WORD as u32;
        self.bulk = (self.depth.slots / 8).max(self.depth.run()).clamp(1, most);
    }

    /// Raises the limit of a ring that ran dry to its share of what is free now.
    #[cold]
    fn raise_limit(&mut self) {
        if self.limit < self.posted.capacity() {
            self.set_limit(self.limit.max(self.share()));
        }
    }

    /// Returns the number of slots that a ring may take without being told to: half of those that
    /// are free, and one at least.
    pub(super) fn share(&self) -> u32 {
        let slots = self.arena.allocator.slots();
        let free = slots.slot_count() - slots.live();
        u32::try_from(free / 2).unwrap_or(u32::MAX).clamp(1, self.posted.capacity())
    }

    /// Sets the number of slots that lie ready for the kernel at most.
    pub(super) fn set_limit(&mut self, limit: u32) {
        debug_assert!(self.posted.taken() <= limit && limit <= self.posted.capacity());
        self.limit = limit;
        self.adapt();
    }

    /// Publishes free slots only if enough are missing: an eighth of the ring, and at most as many
    /// as one claim can fill. Refilling after each message would cost as much as the rest of the
    /// turn.
    #[inline]
    pub(crate) fn refill_in_bulk(&mut self) {
        // That is: there is room for as many. This takes fewer instructions.
        if self.posted.taken() + self.bulk <= self.depth.slots {
            self.refill_now();
        }
    }

    /// Takes in a slot that the arena granted to the ring: the next [`refill`](Self::refill) posts
    /// it.
    pub(crate) fn add_slot(&mut self, lease: Lease) {
        self.spare.push(Run::from_lease(lease));
    }

    /// Posts up to `room` slots: spare ones, then free ones of the arena.
    fn post_up_to(&mut self, room: u32) {
        let Some(entries) = &mut self.entries else { return };
        let before = self.posted.tail();
        let mut poster = Poster { posted: &mut self.posted, entries, slot_bytes: self.slot_bytes };
        let mut wanted = room;
        while poster.has_room(wanted)
            && let Some(mut run) = self.spare.pop()
        {
            if run.count() > wanted {
                self.spare.push(run.split_off(wanted));
            }
            wanted -= run.count();
            let (start, slot) = (run.start(), run.index());
            poster.post(run, start, slot);
        }
        let (mut claimed, mut is_short) = (0, false);
        if self.depth.run() > 1 {
            claimed = poster.claim_runs(
                &self.arena,
                &mut self.hint,
                (self.depth.run(), wanted),
                self.place,
            );
        }
        // A ring of long entries takes single slots only if it would have nothing else.
        if self.depth.run() == 1 || poster.posted.span() == 0 {
            let wanted = wanted.min(poster.posted.room());
            claimed = self.arena.claim_slots(wanted as usize, self.place, |lease, start, slot| {
                poster.post_one(lease, start, slot);
            }) as u32;
            is_short = claimed < wanted;
        }
        let tail = self.posted.tail();
        if tail != before {
            entries.publish(tail);
        }
        self.look_for_pressure(claimed, is_short);
    }

    /// Looks whether the arena is short of slots: then short messages are copied.
    fn look_for_pressure(&mut self, claimed: u32, is_short: bool) {
        if self.pressure.is_due(claimed, is_short) {
            let owned = Owned { posted: self.posted.len(), spare: self.spare_count() };
            if self.pressure.look(&self.arena, owned) {
                self.set_fast_path();
            }
        }
    }

    /// Sets which messages take the fast path: those that are not copied.
    pub(super) fn set_fast_path(&mut self) {
        let copy_below = self.copy_below.max(self.pressure.copy_below_at_most());
        self.fast_path = FastPathRange::new(copy_below, self.is_slow, self.slot_bytes);
    }

    /// Returns the bytes below which messages are copied now.
    #[inline]
    pub(super) fn copy_below(&self) -> usize {
        self.copy_below.max(self.pressure.copy_below(self.posted.len()))
    }

    /// Frees what short messages left of long entries, unless the ring has nothing else: whole
    /// entries are claimed in its place.
    fn free_remnants(&mut self) {
        let run = self.depth.run();
        if run > 1 && !self.is_empty() {
            self.spare.extract_if(.., |spare| 2 * spare.count() <= run).for_each(free_share);
        }
    }

    /// Gives slots of which nothing was handed out back to the kernel, with the next
    /// [`refill`](Self::refill).
    pub(super) fn recycle(&mut self, run: Run) {
        if run.count() == 1 && !run.lease(0).header().is_unique() {
            // Users still hold earlier messages in the same slot, or have just dropped the last.
            free_share(run);
        } else {
            // The next owner of the slots must not see the bytes in them. No free: a free may wake
            // a waiter, which runs code of others while the ring handles a completion.
            self.spare.push(run.into_scrubbed());
        }
    }

    /// Frees the slots and the array of a ring that the kernel does not have (any more).
    pub(super) fn release(&mut self) {
        debug_assert!(!self.registered);
        let slot_bytes = self.slot_bytes as usize;
        self.posted.drain(|run| {
            // The kernel may have received into it, though no completion was interpreted.
            run.record_written_whole(slot_bytes);
            free_share(run);
        });
        self.spare.drain(..).for_each(free_share);
        let detached = self.detached.take().map(|detached| detached.entries);
        if let Some(entries) = self.entries.take().or(detached) {
            entries.free();
        }
    }

    /// Returns a number that changes whenever bytes come.
    pub(crate) fn activity(&self) -> u64 {
        self.metrics.received + self.metrics.copied
    }

    /// Returns the place where the ring was registered.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// Notes the connection whose bytes come next, if holders are tracked.
    #[inline]
    pub(crate) fn set_connection(&mut self, connection: u64) {
        #[cfg(feature = "holders")]
        {
            self.connection = Some(connection);
        }
        #[cfg(not(feature = "holders"))]
        let _ = connection;
    }

    pub(crate) fn arena(&self) -> &Handle {
        &self.arena
    }

    /// Returns the number of slots that the ring owns, posted and spare.
    pub(crate) fn slot_count(&self) -> usize {
        self.posted.len() + self.spare_count()
    }

    pub(super) fn spare_count(&self) -> usize {
        self.spare.iter().map(|run| run.count() as usize).sum()
    }

    /// Returns the numbers of the slots that the ring owns, posted and spare.
    pub(crate) fn owned_slots(&self) -> impl Iterator<Item = u32> {
        let spare = self.spare.iter().flat_map(|run| run.index()..run.index() + run.count());
        self.posted.ids().map(u32::from).chain(spare)
    }

    pub(super) fn address(&self) -> u64 {
        self.entries.as_ref().map_or(0, RingEntries::address)
    }

    /// Returns the number of entries, or 0 once the ring is unregistered.
    pub(super) fn count(&self) -> u16 {
        self.entries.as_ref().map_or(0, RingEntries::count)
    }
}

/// Gives up the ring's share of slots. The waker of a claim that gets one may panic, which is no
/// matter of the ring's.
fn free_share(run: Run) {
    contain("the waker of a claim that waits", || match run.into_lease() {
        Ok(lease) => lease.dec_ref(),
        Err(run) => drop(run),
    });
}

/// The entries of a ring that is being refilled.
struct Poster<'a> {
    posted: &'a mut PostedQueue,
    entries: &'a mut RingEntries,
    slot_bytes: u32,
}

impl Poster<'_> {
    fn has_room(&self, wanted: u32) -> bool {
        wanted > 0 && self.posted.room() > 0
    }

    #[inline]
    fn post_one(&mut self, lease: Lease, start: NonNull<u8>, slot: u32) {
        let id = slot as u16;
        let position = self.posted.post(lease, start, id);
        self.entries.write(position, start, self.slot_bytes, id);
    }

    fn post(&mut self, run: Run, start: NonNull<u8>, slot: u32) {
        let (id, bytes) = (slot as u16, self.slot_bytes * run.count());
        let position = self.posted.post_run(run, start, id);
        self.entries.write(position, start, bytes, id);
    }

    /// Claims and posts entries of `run` slots, up to `wanted` slots in all. The last one may have
    /// fewer if nothing else is posted. Returns the number of slots.
    ///
    /// Each refill begins in the same word, so that a ring goes round few slots.
    fn claim_runs(
        &mut self,
        arena: &Handle,
        hint: &mut usize,
        (run, wanted): (u32, u32),
        place: Place,
    ) -> u32 {
        let (mut left, mut word) = (wanted, *hint);
        while self.has_room(left) && (left >= run || self.posted.span() == 0) {
            let Some((run, start, slot)) = Run::claim(arena, &mut word, run.min(left), place)
            else {
                break;
            };
            if left == wanted {
                *hint = word;
            }
            left -= run.count();
            self.post(run, start, slot);
        }
        if left == wanted {
            *hint = word;
        }
        wanted - left
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        if self.registered || self.detached.is_some() {
            // The kernel may still use the slots and the array (see `RingEntries`): closing a ring
            // proves nothing.
            self.posted.drain(Run::quarantine);
        } else {
            self.release();
        }
    }
}

impl BufferRing {
    /// Returns the kind of ring in one word.
    fn mode(&self) -> &'static str {
        match (self.incremental, self.bundles) {
            (true, _) => "incremental",
            (_, true) => "bundles",
            _ => "single",
        }
    }
}

impl HasMetricsPart for BufferRing {
    fn metrics_part(&self, name: &str) -> MetricsPart {
        let metrics = self.metrics();
        MetricsPart::new("ring", name)
            .label("mode", self.mode())
            .gauge("uring_arena_ring_slots_ready", "Slots that lie ready", metrics.published)
            .gauge("uring_arena_ring_slots_spare", "Slots kept to be published", self.spare_count())
            .counter("uring_arena_ring_messages_total", "Messages in a slot", metrics.received)
            .counter(
                "uring_arena_ring_copied_total",
                "Messages copied to the heap because they were short",
                metrics.copied,
            )
            .counter(
                "uring_arena_ring_starved_total",
                "Receives that found no slot ready",
                metrics.starved,
            )
            .counter(
                "uring_arena_ring_unmatched_total",
                "Completions that named no slot of the ring",
                metrics.unmatched_completions,
            )
            .counter(
                "uring_arena_ring_unreported_total",
                "Slots that the kernel used up and reported in no completion",
                metrics.unreported_slots,
            )
            .counter(
                "uring_arena_ring_given_back_total",
                "Slots that the idle ring gave back to others",
                metrics.given_back,
            )
    }
}

/// Shows the group, the mode, the slots that lie ready or spare, and the arena's free slots.
impl fmt::Debug for BufferRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slots = self.arena.allocator.slots();
        f.debug_struct("BufferRing")
            .field("group", &self.group)
            .field("mode", &self.mode())
            .field("entries", &self.count())
            .field("ready", &self.posted.len())
            .field("spare", &self.spare_count())
            .field("arena_free", &(slots.slot_count() - slots.live()))
            .field("waiters", &self.arena.waiters.counts().waiters)
            .field("metrics", &self.metrics())
            .finish_non_exhaustive()
    }
}
