//! A snapshot of who holds which slots: a table that answers first of all what a full arena is full
//! of.

use std::any::Any;
use std::backtrace::Backtrace;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;
use std::time::{Duration, Instant};

use super::handle::Handle;
use super::stats::{ClaimedSlot, SlotState};
use crate::sync::{Arc, Mutex, contain};

/// The choice of the claims of an arena that are recorded, with the place that made each.
///
/// ```
/// use uring_arena::{FixedArena, TrackHolders};
///
/// let arena = FixedArena::with_sizes(64, 4096).track_holders(TrackHolders::All).build()?;
/// let held = arena.allocate()?;
/// let holders = arena.holders();
/// assert!(holders.iter().next().unwrap().place.file().ends_with(".rs"));
/// println!("{holders}");
/// # drop(held);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum TrackHolders {
    /// No claim is recorded.
    #[default]
    Off,
    /// One of so many claims is recorded. The number is rounded up to a power of two; 0 is 1.
    Sampled(u32),
    /// Every claim is recorded.
    All,
}

impl TrackHolders {
    /// Returns the number of claims of which one is recorded, if any is.
    pub(crate) fn one_in(self) -> Option<u32> {
        match self {
            TrackHolders::Off => None,
            TrackHolders::Sampled(claims) => Some(claims.max(1)),
            TrackHolders::All => Some(1),
        }
    }
}

/// One claim that is recorded: a slot, or a block.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Holder {
    /// The index of the slot, or of the first smallest block.
    pub slot_index: u32,
    /// The place in the program that made the claim. A ring has that of its registration.
    pub place: &'static Location<'static>,
    /// The time since the claim, or since the slot's bytes were received, in steps of 1 ms.
    pub age: Duration,
    /// The state.
    pub state: SlotState,
    /// The bytes of the slot, or block.
    pub capacity: usize,
    /// The bytes used, once they are frozen or received. `None` for a buffer that is written to.
    pub used: Option<usize>,
    /// The [label](crate::Buffer::label), if there is one.
    pub label: Option<Arc<str>>,
    /// The connection that the bytes came from: the socket's token, or else a number of the
    /// driver's.
    pub connection: Option<u64>,
    /// The backtrace of the claim, if it was asked for.
    pub backtrace: Option<Arc<Backtrace>>,
}

impl Holder {
    /// Returns the bytes that are held and not used: 0 while the bytes used are not known.
    ///
    /// ```
    /// use bytes::BufMut;
    /// use uring_arena::{FixedArena, TrackHolders};
    ///
    /// let arena = FixedArena::with_sizes(4, 64).track_holders(TrackHolders::All).build()?;
    /// let mut buffer = arena.allocate()?;
    /// buffer.put_slice(b"twenty bytes of text");
    /// let frozen = buffer.freeze();
    /// assert_eq!(arena.holders().iter().next().unwrap().waste(), 44);
    /// # drop(frozen);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn waste(&self) -> usize {
        self.used.map_or(0, |used| self.capacity.saturating_sub(used))
    }
}

/// The holders of one place, or of one label, together.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HolderGroup {
    /// The place of the oldest of them.
    pub place: &'static Location<'static>,
    /// The label of the oldest of them.
    pub label: Option<Arc<str>>,
    /// The number of claims.
    pub claims: usize,
    /// The bytes that they hold.
    pub capacity: usize,
    /// The bytes that they use, as far as known.
    pub used: usize,
    /// The bytes that they are known not to use.
    pub waste: usize,
    /// The age of the oldest.
    pub oldest: Duration,
    /// The state that most of them have.
    pub state: SlotState,
    /// The connection of all of them, if it is the same.
    pub connection: Option<u64>,
}

impl HolderGroup {
    /// Sums up holders, of which there is one at least.
    fn of(holders: &[&Holder]) -> HolderGroup {
        let oldest = holders.iter().max_by_key(|holder| holder.age).expect("one at least");
        let sum = |of: fn(&Holder) -> usize| holders.iter().map(|holder| of(holder)).sum();
        let mut states = BTreeMap::new();
        holders.iter().for_each(|holder| *states.entry(holder.state).or_insert(0) += 1);
        let most = states.into_iter().max_by_key(|(_, count)| *count);
        let connection = oldest.connection;
        HolderGroup {
            place: oldest.place,
            label: oldest.label.clone(),
            claims: holders.len(),
            capacity: sum(|holder| holder.capacity),
            used: sum(|holder| holder.used.unwrap_or(0)),
            waste: sum(Holder::waste),
            oldest: oldest.age,
            state: most.map_or(SlotState::Held, |(state, _)| state),
            connection: connection.filter(|_| holders.iter().all(|it| it.connection == connection)),
        }
    }

    /// Returns the likely reason why the slots are held, and the remedy.
    fn reason(&self) -> &'static str {
        match (self.state, self.connection) {
            (SlotState::InFlight, _) => {
                "the kernel has not finished with them: a peer that does not read, or a device \
                 that does not answer; set a deadline, or cancel"
            }
            (SlotState::Quarantined, _) => "they are lost: operations that never ended",
            (SlotState::Ready, _) => "they lie ready in a ring: it wants fewer entries",
            _ if 8 * self.waste >= 7 * self.capacity => {
                "short bytes keep whole slots: copy them out, or use `copy_below` or smaller slots"
            }
            (_, Some(_)) => "one connection's bytes are not dropped: its consumer is slow",
            _ => "they are kept: look for a map or a queue that is never emptied",
        }
    }
}

/// A snapshot of the holders of one arena: see [`FixedArena::holders`](crate::FixedArena::holders).
///
/// The slots are looked at one after another, while others claim and free. A slot that was freed
/// and claimed again meanwhile counts as its last owner's, or not at all.
///
/// The text of its `Display` begins with a line that names the largest group, and the likely
/// reason. A table by place follows, then the oldest holders.
#[derive(Debug, Clone)]
pub struct Holders {
    holders: Vec<Holder>,
    /// The bytes of the arena, and those of them that are claimed.
    capacity: usize,
    claimed: usize,
    untracked: usize,
    one_in: Option<u32>,
}

impl Holders {
    /// Returns a snapshot for a claim that was refused just now, if holders are tracked. It may be
    /// one that another refusal took shortly before.
    pub(crate) fn at_refusal(handle: &Handle) -> Option<Arc<Holders>> {
        let kept = handle.holders.as_ref()?.kept(|| Arc::new(Holders::of(handle, |_| None)));
        kept.downcast().ok()
    }

    /// Tells the log which claims are out when the last handle, which is `handle`, is gone.
    pub(crate) fn at_end(handle: &dyn Any) {
        let Some(handle) = handle.downcast_ref::<Handle>() else { return };
        let holders = Holders::of(handle, |_| None);
        if !holders.is_empty() {
            contain("the log", || {
                tracing::info!("the last handle of an arena is gone before its claims: {holders}");
            });
        }
    }

    /// Takes a snapshot of the holders. `state_of` returns the state of a slot that a driver has.
    pub(crate) fn of(
        handle: &Handle,
        mut state_of: impl FnMut(&ClaimedSlot) -> Option<SlotState>,
    ) -> Holders {
        let table = handle.holders.as_ref();
        let mut holders = Vec::new();
        let (mut claimed_bytes, mut untracked) = (0, 0);
        handle.for_each_claimed(|claimed| {
            let capacity = claimed.min_blocks as usize * handle.slot_bytes;
            claimed_bytes += capacity;
            let table = table.filter(|_| claimed.tracked);
            let Some(record) = table.and_then(|table| table.read(claimed.first, claimed.claims))
            else {
                untracked += 1;
                return;
            };
            let state = claimed.state(&mut state_of);
            holders.push(Holder {
                slot_index: claimed.first,
                place: record.place,
                age: Duration::from_millis(record.age_ms),
                state,
                capacity,
                used: record.used,
                label: record.label,
                connection: record.connection,
                backtrace: record.backtrace,
            });
        });
        Holders {
            holders,
            capacity: handle.index_count() * handle.slot_bytes,
            claimed: claimed_bytes,
            untracked,
            one_in: table.map(|table| table.mask().wrapping_add(1)),
        }
    }

    /// Returns the holders, by the index of their slots.
    pub fn iter(&self) -> std::slice::Iter<'_, Holder> {
        self.holders.iter()
    }

    /// Returns the number of claims that are recorded.
    pub fn len(&self) -> usize {
        self.holders.len()
    }

    /// Returns true if no claim is recorded.
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// Returns the number of claims that are not recorded: made without tracking, or not sampled.
    pub fn untracked(&self) -> usize {
        self.untracked
    }

    /// Returns the bytes that are claimed, and the bytes of the arena.
    ///
    /// ```
    /// use uring_arena::{FixedArena, TrackHolders};
    ///
    /// let arena = FixedArena::with_sizes(4, 64).track_holders(TrackHolders::All).build()?;
    /// let held = arena.allocate()?;
    /// assert_eq!(arena.holders().bytes(), (64, 256));
    /// # drop(held);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn bytes(&self) -> (usize, usize) {
        (self.claimed, self.capacity)
    }

    /// Returns the holders, the oldest first.
    ///
    /// ```
    /// use uring_arena::{FixedArena, TrackHolders};
    ///
    /// let arena = FixedArena::with_sizes(4, 64).track_holders(TrackHolders::All).build()?;
    /// let held = [arena.allocate()?, arena.allocate()?];
    /// let holders = arena.holders();
    /// let ages: Vec<_> = holders.by_age().iter().map(|holder| holder.age).collect();
    /// assert!(ages.is_sorted_by(|one, next| one >= next));
    /// # drop(held);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn by_age(&self) -> Vec<&Holder> {
        let mut holders: Vec<&Holder> = self.holders.iter().collect();
        holders.sort_by_key(|holder| std::cmp::Reverse(holder.age));
        holders
    }

    /// Returns the holders, those that waste most first.
    pub fn by_waste(&self) -> Vec<&Holder> {
        let mut holders: Vec<&Holder> = self.holders.iter().collect();
        holders.sort_by_key(|holder| std::cmp::Reverse(holder.waste()));
        holders
    }

    /// Returns the holders by place, the place that holds most first.
    ///
    /// ```
    /// use uring_arena::{FixedArena, TrackHolders};
    ///
    /// let arena = FixedArena::with_sizes(4, 64).track_holders(TrackHolders::All).build()?;
    /// let held: Vec<_> = (0..3).map(|_| arena.allocate().unwrap()).collect();
    /// let holders = arena.holders();
    /// assert_eq!((holders.by_place().len(), holders.by_place()[0].claims), (1, 3));
    /// # drop(held);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn by_place(&self) -> Vec<HolderGroup> {
        self.grouped(|holder| {
            let place = holder.place;
            (place.file(), place.line(), place.column())
        })
    }

    /// Returns the holders by label, the label that holds most first.
    ///
    /// ```
    /// use uring_arena::{FixedArena, TrackHolders};
    ///
    /// let arena = FixedArena::with_sizes(4, 64).track_holders(TrackHolders::All).build()?;
    /// let mut held = arena.allocate()?;
    /// held.label("cache");
    /// assert_eq!(arena.holders().by_label()[0].label.as_deref(), Some("cache"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn by_label(&self) -> Vec<HolderGroup> {
        self.grouped(|holder| holder.label.clone())
    }

    /// Returns the holders by connection, the connection that holds most first.
    pub fn by_connection(&self) -> Vec<HolderGroup> {
        self.grouped(|holder| holder.connection)
    }

    fn grouped<K: Ord>(&self, key: impl Fn(&Holder) -> K) -> Vec<HolderGroup> {
        let mut groups: BTreeMap<K, Vec<&Holder>> = BTreeMap::new();
        for holder in &self.holders {
            groups.entry(key(holder)).or_default().push(holder);
        }
        let mut groups: Vec<HolderGroup> =
            groups.values().map(|holders| HolderGroup::of(holders)).collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.capacity));
        groups
    }

    /// Returns one line: which place holds most, for how long, in which state, and the likely
    /// reason.
    ///
    /// It is the first line of the table.
    pub fn summary(&self) -> String {
        let Some(group) = self.main_group() else {
            let tracked = match self.one_in {
                None => "holders are not tracked: build the arena with `track_holders`",
                Some(_) => "no claim is recorded",
            };
            return format!("{} of {} bytes are claimed; {tracked}", self.claimed, self.capacity);
        };
        let HolderGroup { place, claims, capacity, used, oldest, state, .. } = &group;
        let label = group.label.as_ref().map_or(String::new(), |label| format!(" \"{label}\""));
        let connection = group.connection.map_or(String::new(), |id| format!(", connection {id}"));
        format!(
            "{}:{}{label} has {claims} claims, {capacity} of {} bytes, {state} for up to \
             {:.1} s{connection}, {used} bytes used: {}",
            place.file(),
            place.line(),
            self.capacity,
            oldest.as_secs_f64(),
            group.reason()
        )
    }

    /// Returns the group that is most likely the reason why the arena is full: of the place that
    /// holds most those of one state, and of one connection if that has the most of them.
    fn main_group(&self) -> Option<HolderGroup> {
        let place = self.by_place().into_iter().next()?.place;
        let mut chosen: Vec<&Holder> = self.iter().filter(|it| it.place == place).collect();
        let count = chosen.len();
        let state = HolderGroup::of(&chosen).state;
        chosen.retain(|holder| holder.state == state);
        let mut connections: BTreeMap<u64, usize> = BTreeMap::new();
        chosen.iter().filter_map(|it| it.connection).for_each(|connection| {
            *connections.entry(connection).or_insert(0) += 1;
        });
        let most = connections.into_iter().max_by_key(|(_, count)| *count);
        if let Some((connection, _)) = most.filter(|(_, of)| 2 * of > count) {
            chosen.retain(|holder| holder.connection == Some(connection));
        }
        Some(HolderGroup::of(&chosen))
    }

    /// Returns the largest share of the arena that one place, or one label, holds: from 0 to 1.
    ///
    /// Labels count only if they are given.
    pub fn largest_share(&self) -> f64 {
        let labels = self.by_label().into_iter().filter(|group| group.label.is_some());
        let groups = self.by_place().into_iter().chain(labels);
        let most = groups.map(|group| group.capacity).max().unwrap_or(0);
        most as f64 / self.capacity.max(1) as f64
    }

    /// Writes the table to the log (`tracing`): one event for each place, at the level `info`.
    pub fn dump(&self) {
        tracing::info!(
            claimed_bytes = self.claimed,
            capacity_bytes = self.capacity,
            untracked = self.untracked,
            "holders: {}",
            self.summary()
        );
        for group in self.by_place() {
            tracing::info!(
                place = %group.place,
                label = group.label.as_deref(),
                claims = group.claims,
                capacity_bytes = group.capacity,
                used_bytes = group.used,
                oldest_ms = group.oldest.as_millis() as u64,
                state = %group.state,
                "holders of one place"
            );
        }
    }
}

/// A threshold on the holders of an arena, and the report when it is crossed.
///
/// A thread that samples, or a loop that turns a driver, hands it a snapshot now and then. A report
/// is a warning in the log (`tracing`), whose text is the table, and a call of the program's. It
/// comes once in a while only, however often the threshold is crossed.
///
/// ```
/// use std::time::Duration;
/// use uring_arena::{FixedArena, HolderAlarm, TrackHolders};
///
/// let arena = FixedArena::with_sizes(4, 64).track_holders(TrackHolders::All).build()?;
/// let alarm = HolderAlarm::new()
///     .max_share(0.5)
///     .max_age(Duration::from_secs(60))
///     .on_report(|holders| eprintln!("{}", holders.summary()));
/// let held: Vec<_> = (0..3).map(|_| arena.allocate().unwrap()).collect();
/// assert!(alarm.check(&arena.holders()), "three quarters are of one place");
/// assert!(!alarm.check(&arena.holders()), "and that was told");
/// # drop(held);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct HolderAlarm {
    max_age: Option<Duration>,
    max_share: Option<f64>,
    every: Duration,
    told: Mutex<Option<Instant>>,
    on_report: Option<OnReport>,
}

type OnReport = Box<dyn Fn(&Holders) + Send + Sync>;

impl HolderAlarm {
    /// Makes an alarm without a threshold, which reports once in ten seconds at most.
    ///
    /// The example of [`HolderAlarm`] shows it.
    pub fn new() -> HolderAlarm {
        HolderAlarm {
            max_age: None,
            max_share: None,
            every: Duration::from_secs(10),
            told: Mutex::new(None),
            on_report: None,
        }
    }

    /// Reports a claim that is older.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> HolderAlarm {
        self.max_age = Some(age);
        self
    }

    /// Reports a place, or a label, that holds a larger share of the arena: from 0 to 1.
    #[must_use]
    pub fn max_share(mut self, share: f64) -> HolderAlarm {
        self.max_share = Some(share);
        self
    }

    /// Sets the shortest time between two reports.
    #[must_use]
    pub fn every(mut self, time: Duration) -> HolderAlarm {
        self.every = time;
        self
    }

    /// Calls a function with each report.
    #[must_use]
    pub fn on_report(mut self, call: impl Fn(&Holders) + Send + Sync + 'static) -> HolderAlarm {
        self.on_report = Some(Box::new(call));
        self
    }

    /// Reports a snapshot if it crosses a threshold, and the last report is long enough ago.
    ///
    /// Returns `true` if it reported. The example of [`HolderAlarm`] shows it.
    pub fn check(&self, holders: &Holders) -> bool {
        let oldest = holders.iter().map(|holder| holder.age).max().unwrap_or_default();
        let is_old = self.max_age.is_some_and(|age| oldest > age);
        let is_large = || self.max_share.is_some_and(|share| holders.largest_share() > share);
        if !is_old && !is_large() {
            return false;
        }
        {
            let (now, mut told) = (Instant::now(), self.told.lock());
            if told.is_some_and(|told| now.duration_since(told) < self.every) {
                return false;
            }
            *told = Some(now);
        }
        tracing::warn!(
            oldest_ms = oldest.as_millis() as u64,
            share_percent = (100.0 * holders.largest_share()) as u64,
            "memory of an arena is held: {holders}"
        );
        if let Some(call) = &self.on_report {
            call(holders);
        }
        true
    }
}

impl Default for HolderAlarm {
    fn default() -> HolderAlarm {
        HolderAlarm::new()
    }
}

impl fmt::Debug for HolderAlarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HolderAlarm")
            .field("max_age", &self.max_age)
            .field("max_share", &self.max_share)
            .field("every", &self.every)
            .finish_non_exhaustive()
    }
}

impl<'a> IntoIterator for &'a Holders {
    type Item = &'a Holder;
    type IntoIter = std::slice::Iter<'a, Holder>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The rows of each part of a table.
const ROWS_MAX: usize = 10;

/// The columns of a place in a table.
const PLACE_COLUMNS: usize = 36;

impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.summary())?;
        if self.is_empty() {
            return Ok(());
        }
        let [claims, bytes, used, oldest, state] = ["claims", "bytes", "used", "oldest", "state"];
        writeln!(f, "{claims:>7} {bytes:>10} {used:>10} {oldest:>8} {state:<11} place")?;
        for group in self.by_place().iter().take(ROWS_MAX) {
            let HolderGroup { claims, capacity, used, state, .. } = group;
            let (oldest, place) = (group.oldest.as_secs_f64(), short(group.place));
            writeln!(
                f,
                "{claims:>7} {capacity:>10} {used:>10} {oldest:>6.1} s {state:<11} {place}"
            )?;
        }
        let [slot, age, label] = ["slot", "age", "label"];
        writeln!(f, "{slot:>7} {bytes:>10} {used:>10} {age:>8} {state:<11} {label}")?;
        for holder in self.by_age().iter().take(ROWS_MAX) {
            let Holder { slot_index, capacity, state, .. } = holder;
            let used = holder.used.map_or("-".into(), |used| used.to_string());
            let age = holder.age.as_secs_f64();
            write!(f, "{slot_index:>7} {capacity:>10} {used:>10} {age:>6.1} s {state:<11} ")?;
            match (&holder.label, holder.connection) {
                (Some(label), _) => writeln!(f, "{label}")?,
                (None, Some(connection)) => writeln!(f, "connection {connection}")?,
                (None, None) => writeln!(f, "{}", short(holder.place))?,
            }
        }
        if self.untracked > 0 {
            let of = self.one_in.unwrap_or(0);
            writeln!(f, "{} claims are not recorded (one in {of} is)", self.untracked)?;
        }
        Ok(())
    }
}

/// Returns a place as text that is not too long for a table: its end.
fn short(place: &Location<'_>) -> String {
    let text = format!("{}:{}", place.file(), place.line());
    let skipped = text.chars().count().saturating_sub(PLACE_COLUMNS);
    text.chars().skip(skipped).collect()
}
