//! The state that all connections and files of one pool share; the streams that found no slot, and
//! the task that gives them slots in their order.
//!
//! A slot that comes back goes to one stream after the other: the first of the line is woken, and
//! if it does not come for the slot, the next ones are. So a stream that nothing polls any more
//! stops no other, and a slot that nobody comes for is free again.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU64;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use ::tokio::runtime::{Handle, Id as RuntimeId};
use ::tokio::task::yield_now;

use crate::arena::FixedArena;
use crate::buffer::Buffer;
use crate::lease::Place;
use crate::region::Process;
use crate::runtime::tokio::engine::{
    EngineEnd, LAST_MOMENT, Starvation, check_process, tell_end_of_starvation, tell_starvation,
};
use crate::sync::{Arc, Mutex, contain};
use crate::wait::{Panicked, WakeList};

/// The state of a pool's engine on tokio's reactor.
pub(crate) struct Shared {
    /// The process of the pool. A forked child has a copy of the locks, maybe taken.
    process: Process,
    arena: FixedArena,
    /// The streams that found no slot.
    line: Arc<Line>,
    /// The slots that streams hold with bytes that nobody has asked for yet: half of all at most.
    ahead: Mutex<usize>,
    /// Set when the pool is shut down.
    end: OnceLock<EngineEnd>,
    /// The tasks that are woken then. The socket of a connection is shut down, which wakes its
    /// tasks; a datagram socket is not.
    end_watches: Mutex<BTreeMap<u64, Waker>>,
    /// Each datagram socket has a clone.
    datagram_sockets: Arc<()>,
    /// The runtime that ends, and the moment by which its connections are done.
    last_moment: Mutex<Option<(RuntimeId, Instant)>>,
    /// Each read and write of a file that is under way has a clone, and each task that sends.
    operations: Arc<()>,
}

impl Shared {
    pub(super) fn new(arena: FixedArena) -> Shared {
        let process = Process::current();
        Shared {
            process,
            line: Arc::new(Line::new(arena.clone(), process)),
            arena,
            ahead: Mutex::new(0),
            end: OnceLock::new(),
            end_watches: Mutex::new(BTreeMap::new()),
            datagram_sockets: Arc::new(()),
            last_moment: Mutex::new(None),
            operations: Arc::new(()),
        }
    }

    pub(super) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// Returns the mark of one operation, which a shutdown waits for until it is dropped.
    pub(crate) fn operation(&self) -> Arc<()> {
        Arc::clone(&self.operations)
    }

    /// Returns the mark of one datagram socket, which counts until it is dropped.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    pub(super) fn datagram_socket(&self) -> Arc<()> {
        Arc::clone(&self.datagram_sockets)
    }

    /// Returns the number of datagram sockets.
    pub(super) fn datagram_sockets(&self) -> usize {
        // One is the pool's.
        Arc::strong_count(&self.datagram_sockets) - 1
    }

    pub(super) fn is_here(&self) -> bool {
        self.process.is_current()
    }

    /// Fails in a forked child of the pool's process.
    #[inline]
    pub(crate) fn here(&self) -> io::Result<()> {
        check_process(self.process)
    }

    /// Fails if the pool was shut down.
    #[inline]
    pub(crate) fn check_open(&self) -> io::Result<()> {
        self.here()?;
        self.end.get().map_or(Ok(()), |end| Err(end.error()))
    }

    /// Ends the pool. Returns `false` if that was done already.
    pub(super) fn end(&self) -> bool {
        let is_first = self.end.set(EngineEnd::ShutDown).is_ok();
        let watches = std::mem::take(&mut *self.end_watches.lock());
        for waker in watches.into_values() {
            contain("the waker of a datagram socket", || waker.wake());
        }
        is_first
    }

    /// Claims a slot for a caller that waits if there is none: `None` proves nothing.
    #[inline]
    pub(super) fn try_claim(&self) -> Option<Buffer> {
        self.arena.try_claim(Place::here())
    }

    /// Claims up to `wanted` slots besides the one that a receive needs in any case.
    ///
    /// Half of the arena is left for the receives of others, whatever streams hold that nobody
    /// reads.
    pub(super) fn claim_ahead(self: &Arc<Self>, wanted: usize, slots: &mut Vec<Buffer>) -> Ahead {
        let handle = self.arena.handle();
        let share = self.arena.slot_count() / 2;
        let granted = {
            let mut ahead = self.ahead.lock();
            let granted = wanted.min(share.saturating_sub(*ahead));
            *ahead += granted;
            granted
        };
        let claimed = handle.claim_slots(granted, Place::here(), |lease, start, _| {
            slots.push(Buffer::new(lease, start, handle.slot_bytes));
        });
        let mut held = Ahead { shared: Arc::clone(self), slots: granted };
        held.keep(claimed);
        held
    }

    /// Returns the moment by which the connections of a runtime that ends are done: one for all.
    pub(super) fn last_moment(&self, runtime: RuntimeId) -> Instant {
        let mut last = self.last_moment.lock();
        match *last {
            Some((known, until)) if known == runtime => until,
            _ => last.insert((runtime, Instant::now() + LAST_MOMENT)).1,
        }
    }
}

/// The wish of a task to be woken when the pool is shut down.
#[cfg(all(feature = "io-uring", target_os = "linux"))]
pub(super) struct EndWatch {
    shared: Arc<Shared>,
    /// The number of the wish, and the waker that is registered.
    known: Option<(u64, Waker)>,
}

#[cfg(all(feature = "io-uring", target_os = "linux"))]
impl EndWatch {
    pub(super) fn new(shared: &Arc<Shared>) -> EndWatch {
        EndWatch { shared: Arc::clone(shared), known: None }
    }

    /// Has the task woken when the pool is shut down. Fails if it was before.
    pub(super) fn register(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        self.shared.check_open()?;
        let known = self.known.as_ref();
        if !known.is_some_and(|(_, waker)| waker.will_wake(context.waker())) {
            // Outside of the lock: cloning and dropping a waker runs code of the user's.
            let (kept, waker) = (context.waker().clone(), context.waker().clone());
            let mut watches = self.shared.end_watches.lock();
            let next = || watches.last_key_value().map_or(0, |(last, _)| last + 1);
            let number = known.map_or_else(next, |(number, _)| *number);
            let replaced = watches.insert(number, waker);
            drop(watches);
            drop((replaced, self.known.replace((number, kept))));
        }
        self.shared.check_open()
    }
}

#[cfg(all(feature = "io-uring", target_os = "linux"))]
impl Drop for EndWatch {
    fn drop(&mut self) {
        if let Some((number, waker)) = self.known.take()
            && self.shared.is_here()
        {
            let removed = self.shared.end_watches.lock().remove(&number);
            drop((removed, waker));
        }
    }
}

/// The share of slots that one stream holds ahead of its reader.
pub(super) struct Ahead {
    shared: Arc<Shared>,
    slots: usize,
}

impl Ahead {
    /// Gives back all but `slots` of the share.
    pub(super) fn keep(&mut self, slots: usize) {
        let unneeded = self.slots.saturating_sub(slots);
        *self.shared.ahead.lock() -= unneeded;
        self.slots -= unneeded;
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if self.shared.is_here() {
            self.keep(0);
        }
    }
}

/// The turns that the streams which were woken have to come for a slot.
const TURNS: usize = 8;

/// The place of a stream in the line, kept until it has a slot.
pub(super) type Ticket = Option<NonZeroU64>;

/// The line of one pool.
pub(super) struct Line {
    arena: FixedArena,
    process: Process,
    state: Mutex<LineState>,
}

// Invariant: while `line` is not empty, a task serves it (`is_served`), or every stream in it was
// woken since its last poll.
struct LineState {
    /// The streams by ticket. `None` was woken since its last poll.
    line: BTreeMap<NonZeroU64, Option<Waker>>,
    /// A slot for one of those that were woken.
    slot: Option<Buffer>,
    last_ticket: NonZeroU64,
    is_served: bool,
    /// The number of times that a stream found no slot.
    count: u64,
    starvation: Starvation,
}

/// Calls wakers, which are foreign code, without a lock.
fn call(wakers: WakeList) {
    contain("the waker of a stream", || {
        let mut panicked = Panicked::default();
        wakers.run(&mut panicked);
        panicked.resume();
    });
}

impl Line {
    pub(super) fn new(arena: FixedArena, process: Process) -> Line {
        let state = Mutex::new(LineState {
            line: BTreeMap::new(),
            slot: None,
            last_ticket: NonZeroU64::MIN,
            is_served: false,
            count: 0,
            starvation: Starvation::default(),
        });
        Line { arena, process, state }
    }

    /// Returns the number of streams in line, and how often a stream has joined it.
    pub(super) fn counts(&self) -> (usize, u64) {
        let state = self.state.lock();
        (state.line.len(), state.count)
    }

    /// Takes the slot that lies ready, or joins the line.
    pub(super) fn poll_slot(
        self: &Arc<Self>,
        runtime: &Handle,
        ticket: &mut Ticket,
        context: &mut Context<'_>,
    ) -> Poll<Buffer> {
        // Outside of the lock: cloning and dropping a waker runs code of the user's.
        let waker = context.waker().clone();
        let mut wakers = WakeList::default();
        let mut state = self.state.lock();
        let is_woken = ticket.is_some_and(|ticket| matches!(state.line.get(&ticket), Some(None)));
        if is_woken && let Some(slot) = state.slot.take() {
            self.leave_locked(&mut state, ticket, &mut wakers);
            wakers.push_unneeded(Some(waker));
            drop(state);
            call(wakers);
            return Poll::Ready(slot);
        }
        let is_new = ticket.is_none();
        let place = *ticket.get_or_insert_with(|| {
            state.last_ticket = state.last_ticket.saturating_add(1);
            state.last_ticket
        });
        state.count += u64::from(is_new);
        wakers.push_unneeded(state.line.insert(place, Some(waker)).flatten());
        let must_serve = !std::mem::replace(&mut state.is_served, true);
        let must_tell = is_new && state.starvation.begin(|| true);
        drop(state);
        call(wakers);
        if must_serve {
            runtime.spawn(serve(Serving(Arc::clone(self))));
        }
        if must_tell {
            tell_starvation(self.arena.slot_count());
        }
        Poll::Pending
    }

    /// Gives up the place of a stream.
    pub(super) fn leave(&self, ticket: &mut Ticket) {
        if ticket.is_some() {
            let mut wakers = WakeList::default();
            self.leave_locked(&mut self.state.lock(), ticket, &mut wakers);
            call(wakers);
        }
    }

    fn leave_locked(&self, state: &mut LineState, ticket: &mut Ticket, wakers: &mut WakeList) {
        if let Some(ticket) = ticket.take() {
            wakers.push_unneeded(state.line.remove(&ticket).flatten());
        }
    }
}

impl LineState {
    /// Wakes up to `count` streams that were not, the oldest first. Returns their number.
    fn wake(&mut self, count: usize, wakers: &mut WakeList) -> usize {
        let waiting = self.line.values_mut().filter(|waker| waker.is_some());
        let woken = waiting.take(count).map(|waker| wakers.push_woken(waker.take()));
        woken.count()
    }
}

/// The task that serves the line. The line is served by another when this one is dropped.
struct Serving(Arc<Line>);

impl Serving {
    fn with<T>(&self, change: impl FnOnce(&mut LineState, &mut WakeList) -> T) -> T {
        let mut wakers = WakeList::default();
        let result = change(&mut self.0.state.lock(), &mut wakers);
        call(wakers);
        result
    }

    /// Ends the task if nobody is in line.
    fn is_over(&self) -> bool {
        let (is_over, lasted) = self.with(|state, _| {
            state.is_served = !state.line.is_empty();
            let is_over = !state.is_served;
            (is_over, if is_over { state.starvation.end() } else { None })
        });
        if let Some(lasted) = lasted {
            tell_end_of_starvation(self.0.arena.slot_count(), lasted);
        }
        is_over
    }

    /// Lays a slot ready, and wakes the first stream of the line.
    fn hand_over(&self, slot: Buffer) {
        self.with(|state, wakers| {
            state.slot = Some(slot);
            state.wake(1, wakers);
        });
    }

    fn is_taken(&self) -> bool {
        self.with(|state, _| state.slot.is_none())
    }

    /// Wakes further streams, and returns their number.
    fn wake(&self, count: usize) -> usize {
        self.with(|state, wakers| state.wake(count, wakers))
    }

    /// Frees the slot that none of those who were woken came for. They look again when they are
    /// polled.
    fn give_up(&self) {
        let slot = self.with(|state, _| {
            state.line.retain(|_, waker| waker.is_some());
            state.slot.take()
        });
        drop(slot);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if !self.0.process.is_current() {
            return;
        }
        // The runtime ends, if the line is not empty: streams of other runtimes begin anew.
        let slot = self.with(|state, wakers| {
            if !state.is_served {
                return None;
            }
            state.is_served = false;
            state.wake(usize::MAX, wakers);
            state.line.clear();
            state.slot.take()
        });
        drop(slot);
    }
}

async fn serve(serving: Serving) {
    let arena = serving.0.arena.clone();
    while !serving.is_over() {
        serving.hand_over(arena.claim_in_order(Place::here()).await);
        let (mut count, mut turns) = (1, 0);
        loop {
            yield_now().await;
            if serving.is_taken() {
                break;
            }
            if serving.wake(count) == 0 {
                turns += 1;
            }
            if turns == TURNS {
                serving.give_up();
                break;
            }
            count = count.saturating_mul(2);
        }
    }
}
