//! Times that end something: timers of the program's, deadlines of operations, silence of sockets.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::ids::Tag;
use super::submitter::{LONGEST_WAIT, Submitter, Timer};
use super::{DriverError, TimerId};
use crate::slab::{Key, Slab};

/// The looks at a socket within its idle timeout: so silence is told after the time, and at most
/// this part of it later.
const LOOKS: u32 = 4;

/// The shortest idle timeout.
const LEAST_TIMEOUT: Duration = Duration::from_millis(1);

/// The entries from which on those are looked for that are of nothing any more.
const CLEAN_FROM: usize = 64;

/// The thing that a time is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Timer(Key),
    Operation(Key),
    /// A socket that is to be connected by then.
    Connection(Key),
    /// A look whether bytes came.
    Silence(Key),
}

/// The silence of a socket.
struct Silence {
    timeout: Duration,
    /// The looks, one after the other, before which nothing came.
    looks: u32,
    next: Instant,
}

/// The times of one driver.
//
// Invariants: 1. While anything is due, and the driver is not told to act, the ring's timer ends no
// later than the first. 2. An entry of `due` whose owner does not know its time any more is of
// nothing.
pub(super) struct Timers {
    driver: u32,
    /// The tokens of the program's timers. `None`: the time is over, and the event is to be taken.
    table: Slab<Option<u64>>,
    /// The things that are due, by time. The number separates those of one time.
    due: BTreeMap<(Instant, u64), Due>,
    numbers: u64,
    /// The number of entries at which those of nothing are removed.
    clean_at: usize,
    silences: HashMap<Key, Silence>,
    timer: Timer,
    /// The time when the ring's timer ends.
    ends_at: Option<Instant>,
}

impl Timers {
    pub(super) fn new(driver: u32) -> Timers {
        Timers {
            driver,
            table: Slab::new(Tag::INDICES),
            due: BTreeMap::new(),
            numbers: 0,
            clean_at: CLEAN_FROM,
            silences: HashMap::new(),
            timer: Timer::new(Tag::DEADLINES),
            ends_at: None,
        }
    }

    /// Makes a timer of the program's. Returns `None` if there are too many.
    pub(super) fn add(&mut self, at: Instant, token: u64) -> Option<TimerId> {
        let key = self.table.insert(Some(token)).ok()?;
        self.push(at, Due::Timer(key));
        Some(TimerId::new(self.driver, key))
    }

    /// Removes a timer of the program's.
    pub(super) fn remove(&mut self, id: TimerId) -> Result<(), DriverError> {
        let key = id.key_in(self.driver)?;
        match self.table.get(key) {
            Some(Some(_)) => drop(self.table.remove(key)),
            _ => return Err(DriverError::UnknownTimer),
        }
        Ok(())
    }

    /// Removes a timer whose event was taken. Its index may be given out again.
    pub(super) fn forget(&mut self, id: TimerId) {
        if let Ok(key) = id.key_in(self.driver) {
            self.table.remove(key);
        }
    }

    /// Has something done at a time.
    pub(super) fn push(&mut self, at: Instant, due: Due) {
        self.due.insert((at, self.numbers), due);
        self.numbers += 1;
    }

    /// Removes entries of nothing if there may be many. `is_alive` knows those of others.
    pub(super) fn clean(&mut self, is_alive: impl Fn(Due, Instant) -> bool) {
        if self.due.len() < self.clean_at {
            return;
        }
        let Timers { due, table, silences, .. } = self;
        due.retain(|&(at, _), due| match *due {
            Due::Timer(key) => table.get(key).is_some(),
            Due::Silence(key) => silences.get(&key).is_some_and(|silence| silence.next == at),
            due => is_alive(due, at),
        });
        self.clean_at = CLEAN_FROM.max(2 * self.due.len());
    }

    /// Sets or ends the idle timeout of a socket.
    pub(super) fn watch(&mut self, socket: Key, timeout: Option<Duration>) {
        match timeout {
            Some(timeout) => self.look_later(socket, timeout.max(LEAST_TIMEOUT), 0),
            None => drop(self.silences.remove(&socket)),
        }
    }

    /// Has a socket looked at again. A time that the clock does not reach is no timeout.
    fn look_later(&mut self, socket: Key, timeout: Duration, looks: u32) {
        let Some(next) = Instant::now().checked_add(timeout / LOOKS) else { return };
        self.silences.insert(socket, Silence { timeout, looks, next });
        self.push(next, Due::Silence(socket));
    }

    /// Notes a look at a socket: whether anything came, or could not come, since the last one.
    /// Returns `true` if its idle timeout is over.
    pub(super) fn looked(&mut self, socket: Key, at: Instant, is_active: bool) -> bool {
        let Some(silence) = self.silences.get(&socket) else { return false };
        if silence.next != at {
            return false;
        }
        let (timeout, looks) = (silence.timeout, if is_active { 0 } else { silence.looks + 1 });
        let is_over = looks >= LOOKS;
        self.look_later(socket, timeout, if is_over { 0 } else { looks });
        is_over
    }

    /// Takes the next thing whose time is over, with its time.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<(Instant, Due)> {
        let first = self.due.first_entry().filter(|first| first.key().0 <= now)?;
        let ((at, _), due) = first.remove_entry();
        Some((at, due))
    }

    /// Takes a timer whose time is over. Returns its id and token, if it was not removed.
    pub(super) fn take(&mut self, key: Key) -> Option<(TimerId, u64)> {
        let token = self.table.get_mut(key)?.take()?;
        Some((TimerId::new(self.driver, key), token))
    }

    /// Forgets everything that is due.
    pub(super) fn clear(&mut self) {
        self.due.clear();
        self.silences.clear();
        for key in self.table.keys() {
            self.table.remove(key);
        }
    }

    /// Starts the ring's timer for what is due first.
    pub(super) fn start(&mut self, submitter: &mut Submitter) -> Result<(), DriverError> {
        let Some((&(first, _), _)) = self.due.first_key_value() else { return Ok(()) };
        if self.ends_at.is_some_and(|ends_at| ends_at <= first) {
            return Ok(());
        }
        let now = Instant::now();
        let after = first.saturating_duration_since(now).min(LONGEST_WAIT);
        self.timer.start_or_hasten(after, submitter)?;
        self.ends_at = Some(first.min(now + after));
        Ok(())
    }

    /// Notes that the ring's timer has ended.
    pub(super) fn on_completion(&mut self) {
        self.timer.on_completion();
        self.ends_at = None;
    }
}
