//! A snapshot of a program's memory, as one line of JSON.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use uring_arena::{
    BuddyArena, FixedArena, HasMetrics, HolderGroup, Holders, Metrics, MetricsPart, SlotMap,
    SlotStates,
};

/// The version of the format. A reader refuses another one.
pub const VERSION: u32 = 1;

/// The most cells of a map.
const CELLS_MAX: usize = 2048;

/// The most rows of each list of holders.
const ROWS_MAX: usize = 64;

/// The most sockets that are listed.
const SOCKETS_MAX: usize = 1024;

/// A snapshot of the arenas, drivers and pools of a program.
///
/// ```
/// use uring_arena::FixedArena;
/// use uring_arena_top::Snapshot;
///
/// let arena = FixedArena::new(8, 64)?;
/// let held = arena.allocate()?;
/// let snapshot = Snapshot::new().arena("frames", &arena);
/// let read = Snapshot::from_json(&snapshot.to_json())?;
/// assert_eq!(read.arenas[0].states.held, 1);
/// # drop(held);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Snapshot {
    /// The version of the format: [`VERSION`].
    pub version: u32,
    /// The name of the program.
    pub program: String,
    /// The id of the process.
    pub process: u32,
    /// The time, in milliseconds since the begin of 1970.
    pub time_ms: u64,
    /// The arenas.
    pub arenas: Vec<ArenaView>,
    /// The metrics of drivers, pools and whatever else was added.
    pub parts: Vec<PartView>,
    /// The sockets of drivers.
    pub sockets: Vec<SocketView>,
}

/// One arena: its slots, or smallest blocks, by state, and who holds them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ArenaView {
    /// The name that the program gave.
    pub name: String,
    /// The number of slots, or of smallest blocks.
    pub slots: usize,
    /// The bytes of each.
    pub slot_bytes: usize,
    /// The slots by state.
    pub states: StatesView,
    /// The map: a letter for each cell, as [`StatesView::letter`] has it.
    pub map: String,
    /// The slots of a cell. The last cell may have fewer.
    pub slots_per_cell: usize,
    /// The blocks of a buddy arena by size, the smallest first.
    pub blocks: Vec<BlocksView>,
    /// The values of the arena's metrics by name, as [`uring_arena::Metric::value`].
    pub metrics: BTreeMap<String, u64>,
    /// The holders, if the arena tracks them.
    pub holders: Option<HoldersView>,
}

/// The slots of an arena, or of a part of it, by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct StatesView {
    /// The slots without an owner.
    pub free: usize,
    /// The slots that the program may write.
    pub held: usize,
    /// The slots in buffer rings.
    pub ready: usize,
    /// The slots in operations.
    pub in_flight: usize,
    /// The slots that the program may only read.
    pub frozen: usize,
    /// The slots that are lost for good.
    pub quarantined: usize,
}

impl StatesView {
    /// The letters of the states, in the order of [`counts`](Self::counts).
    pub const LETTERS: [char; 6] = ['.', 'h', 'r', 'i', 'f', 'Q'];

    /// The names of the states, in the same order.
    pub const NAMES: [&str; 6] = ["free", "held", "ready", "in flight", "frozen", "quarantined"];

    /// Returns the counts, in the order of the letters.
    ///
    /// ```
    /// use uring_arena_top::StatesView;
    ///
    /// assert_eq!(StatesView::default().counts(), [0; 6]);
    /// ```
    pub fn counts(&self) -> [usize; 6] {
        [self.free, self.held, self.ready, self.in_flight, self.frozen, self.quarantined]
    }

    /// Returns the letter of the state that most slots have, of those that have an owner; `.` if
    /// none has one. A quarantined slot always shows.
    ///
    /// ```
    /// use uring_arena_top::StatesView;
    ///
    /// assert_eq!(StatesView::default().letter(), '.');
    /// ```
    pub fn letter(&self) -> char {
        if self.quarantined > 0 {
            return 'Q';
        }
        let owned = Self::LETTERS.into_iter().zip(self.counts()).skip(1);
        let most = owned.filter(|&(_, count)| count > 0).max_by_key(|&(_, count)| count);
        most.map_or('.', |(letter, _)| letter)
    }
}

impl From<SlotStates> for StatesView {
    fn from(states: SlotStates) -> StatesView {
        StatesView {
            free: states.free,
            held: states.held,
            ready: states.published,
            in_flight: states.in_flight,
            frozen: states.frozen,
            quarantined: states.quarantined,
        }
    }
}

/// The blocks of one size in a buddy arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct BlocksView {
    /// The bytes of a block.
    pub bytes: usize,
    /// The blocks that have an owner.
    pub claimed: usize,
    /// The free blocks that are not part of a larger free block.
    pub free: usize,
}

/// The holders of one arena.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct HoldersView {
    /// The line that says who holds most, and why.
    pub summary: String,
    /// The claims that are recorded.
    pub tracked: usize,
    /// The claims that are not.
    pub untracked: usize,
    /// The places that hold most.
    pub places: Vec<GroupView>,
    /// The connections that hold most.
    pub connections: Vec<GroupView>,
    /// The oldest claims.
    pub oldest: Vec<HolderView>,
}

/// The claims of one place, or of one connection, together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct GroupView {
    /// The place: file and line.
    pub place: String,
    /// The label of the oldest claim.
    pub label: Option<String>,
    /// The connection, if all claims are of one.
    pub connection: Option<u64>,
    /// The number of claims.
    pub claims: usize,
    /// The bytes that they hold.
    pub bytes: usize,
    /// The bytes that they are known to use.
    pub used_bytes: usize,
    /// The age of the oldest.
    pub oldest_ms: u64,
    /// The state that most have.
    pub state: String,
}

/// One claim.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct HolderView {
    /// The index of the slot, or of the first smallest block.
    pub slot: u32,
    /// The place: file and line.
    pub place: String,
    /// The label.
    pub label: Option<String>,
    /// The connection that the bytes came from.
    pub connection: Option<u64>,
    /// The age.
    pub age_ms: u64,
    /// The state.
    pub state: String,
    /// The bytes of the slot, or block.
    pub bytes: usize,
    /// The bytes used, if they are known.
    pub used_bytes: Option<usize>,
}

/// The metrics of a driver, a pool or another part.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PartView {
    /// The kind: `arena`, `ring`, `driver` or `pool`.
    pub kind: String,
    /// The name that the program gave.
    pub name: String,
    /// The labels, such as the engine of a pool.
    pub labels: BTreeMap<String, String>,
    /// The values by name, as [`uring_arena::Metric::value`].
    pub metrics: BTreeMap<String, u64>,
    /// The parts of the part.
    pub parts: Vec<PartView>,
}

/// One socket of a driver.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SocketView {
    /// The name of the driver.
    pub driver: String,
    /// The number by which holders name the connection.
    pub connection: u64,
    /// The group of the buffer ring that it receives into.
    pub group: Option<u16>,
    /// The state: `open`, `starved`, `paused` and so on.
    pub state: String,
    /// The sends that are under way or queued.
    pub sends: usize,
}

/// An arena of which a snapshot is taken.
///
/// The trait is sealed: [`FixedArena`] and [`BuddyArena`] are all its implementations.
pub trait Arena: HasMetrics + sealed::Sealed {}

impl Arena for FixedArena {}
impl Arena for BuddyArena {}

mod sealed {
    use uring_arena::{BuddyArena, FixedArena, Holders, SlotMap};

    pub trait Sealed {
        fn map(&self) -> SlotMap;
        fn all_holders(&self) -> Holders;
    }

    impl Sealed for FixedArena {
        fn map(&self) -> SlotMap {
            self.slot_map()
        }

        fn all_holders(&self) -> Holders {
            self.holders()
        }
    }

    impl Sealed for BuddyArena {
        fn map(&self) -> SlotMap {
            self.slot_map()
        }

        fn all_holders(&self) -> Holders {
            self.holders()
        }
    }
}

impl Snapshot {
    /// Makes a snapshot of nothing, of this process and this moment.
    ///
    /// The example of [`Snapshot`] shows it.
    pub fn new() -> Snapshot {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let path = std::env::current_exe().unwrap_or_default();
        Snapshot {
            version: VERSION,
            program: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            process: std::process::id(),
            time_ms: since.as_millis() as u64,
            ..Snapshot::default()
        }
    }

    /// Adds an arena. What rings and operations have counts as held, or frozen.
    ///
    /// The example of [`Snapshot`] shows it.
    #[must_use]
    pub fn arena(self, name: &str, arena: &impl Arena) -> Snapshot {
        let (map, holders) = (arena.map(), arena.all_holders());
        self.with_arena(name, arena, &map, &holders)
    }

    /// Adds an arena as a driver sees it: what its rings and operations have is told apart.
    ///
    /// The example of [`driver`](Self::driver) shows it.
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn arena_of(
        self,
        driver: &uring_arena::Driver,
        name: &str,
        arena: &(impl Arena + uring_arena::Registrable),
    ) -> Snapshot {
        let (map, holders) = (driver.slot_map(arena), driver.holders(arena));
        self.with_arena(name, arena, &map, &holders)
    }

    /// Adds the metrics and the sockets of a driver.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Ok(driver) = uring_arena::Driver::builder().build() else { return Ok(()) };
    /// use uring_arena_top::Snapshot;
    ///
    /// let arena = uring_arena::FixedArena::new(8, 64)?;
    /// let snapshot = Snapshot::new().arena_of(&driver, "frames", &arena).driver("io", &driver);
    /// assert_eq!(snapshot.parts[0].kind, "driver");
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn driver(mut self, name: &str, driver: &uring_arena::Driver) -> Snapshot {
        let sockets = driver.sockets();
        let views = sockets.iter().map(|socket| SocketView {
            driver: name.to_owned(),
            connection: socket.connection,
            group: socket.group,
            state: socket.state.to_string(),
            sends: socket.sends,
        });
        let room = SOCKETS_MAX.saturating_sub(self.sockets.len());
        self.sockets.extend(views.take(room));
        self.part(name, driver)
    }

    /// Adds the metrics of any other part, such as a pool.
    ///
    /// ```
    /// use uring_arena_top::Snapshot;
    ///
    /// let arena = uring_arena::FixedArena::new(8, 64)?;
    /// assert_eq!(Snapshot::new().part("frames", &arena).parts[0].name, "frames");
    /// # Ok::<(), uring_arena::BuildError>(())
    /// ```
    #[must_use]
    pub fn part(mut self, name: &str, source: &impl HasMetrics) -> Snapshot {
        self.parts.extend(Metrics::new().with(name, source).parts().iter().map(PartView::of));
        self
    }

    fn with_arena(
        mut self,
        name: &str,
        arena: &impl HasMetrics,
        map: &SlotMap,
        holders: &Holders,
    ) -> Snapshot {
        let cells = map.cells(CELLS_MAX);
        let metrics = Metrics::new().with(name, arena);
        let blocks = map.blocks().into_iter().map(|counts| BlocksView {
            bytes: counts.bytes,
            claimed: counts.claimed,
            free: counts.free,
        });
        self.arenas.push(ArenaView {
            name: name.to_owned(),
            slots: map.slots(),
            slot_bytes: map.slot_bytes(),
            states: map.states().into(),
            map: cells.iter().map(|&cell| StatesView::from(cell).letter()).collect(),
            slots_per_cell: map.slots().div_ceil(CELLS_MAX).max(1),
            blocks: blocks.collect(),
            metrics: metrics.parts().first().map(values_of).unwrap_or_default(),
            holders: HoldersView::of(holders),
        });
        self
    }

    /// Returns the snapshot as one line of JSON, without its end.
    ///
    /// The example of [`Snapshot`] shows it.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("names and numbers only")
    }

    /// Reads a line of JSON.
    ///
    /// The example of [`Snapshot`] shows it.
    ///
    /// # Errors
    ///
    /// [`ReadError::Json`] if it is none, and [`ReadError::Version`] if it is of another version.
    ///
    /// [`ReadError::Json`]: crate::ReadError::Json
    /// [`ReadError::Version`]: crate::ReadError::Version
    pub fn from_json(line: &str) -> Result<Snapshot, crate::ReadError> {
        let snapshot: Snapshot = serde_json::from_str(line)?;
        if snapshot.version != VERSION {
            return Err(crate::ReadError::Version { of: snapshot.version });
        }
        Ok(snapshot)
    }
}

impl HoldersView {
    /// Makes the view of holders, or none if the arena tracks none.
    fn of(holders: &Holders) -> Option<HoldersView> {
        if holders.is_empty() && holders.untracked() > 0 {
            return None;
        }
        let groups = |groups: Vec<HolderGroup>| {
            groups.iter().take(ROWS_MAX).map(GroupView::of).collect::<Vec<_>>()
        };
        let oldest = holders.by_age().into_iter().take(ROWS_MAX).map(|holder| HolderView {
            slot: holder.slot_index,
            place: holder.place.to_string(),
            label: holder.label.as_deref().map(str::to_owned),
            connection: holder.connection,
            age_ms: holder.age.as_millis() as u64,
            state: holder.state.to_string(),
            bytes: holder.capacity,
            used_bytes: holder.used,
        });
        let mut connections = holders.by_connection();
        connections.retain(|group| group.connection.is_some());
        Some(HoldersView {
            summary: holders.summary(),
            tracked: holders.len(),
            untracked: holders.untracked(),
            places: groups(holders.by_place()),
            connections: groups(connections),
            oldest: oldest.collect(),
        })
    }
}

impl GroupView {
    fn of(group: &HolderGroup) -> GroupView {
        GroupView {
            place: group.place.to_string(),
            label: group.label.as_deref().map(str::to_owned),
            connection: group.connection,
            claims: group.claims,
            bytes: group.capacity,
            used_bytes: group.used,
            oldest_ms: group.oldest.as_millis() as u64,
            state: group.state.to_string(),
        }
    }
}

impl PartView {
    fn of(part: &MetricsPart) -> PartView {
        let labels = part.labels().iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        PartView {
            kind: part.kind().to_owned(),
            name: part.name().to_owned(),
            labels: labels.collect(),
            metrics: values_of(part),
            parts: part.parts().iter().map(PartView::of).collect(),
        }
    }

    /// Returns the value of a metric, summed up over the part and its parts.
    ///
    /// ```
    /// use uring_arena_top::Snapshot;
    ///
    /// let arena = uring_arena::FixedArena::new(8, 64)?;
    /// let snapshot = Snapshot::new().part("frames", &arena);
    /// assert_eq!(snapshot.parts[0].sum("uring_arena_reserved_bytes"), 512);
    /// # Ok::<(), uring_arena::BuildError>(())
    /// ```
    pub fn sum(&self, name: &str) -> u64 {
        let own = self.metrics.get(name).copied().unwrap_or(0);
        self.parts.iter().fold(own, |sum, part| sum.saturating_add(part.sum(name)))
    }
}

fn values_of(part: &MetricsPart) -> BTreeMap<String, u64> {
    part.metrics().iter().map(|metric| (metric.name.to_owned(), metric.value)).collect()
}
