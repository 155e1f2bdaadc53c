//! The pair of traits: a case asks, a contender answers.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::measure::Allocator;

use super::sample::Work;

/// The length of a run: enough for a steady median, or enough to see that everything works.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// The run was asked for with `--quick`: all parts within two minutes.
    pub quick: bool,
}

impl Effort {
    /// Returns the quick value or the full one.
    pub fn choose<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// A value of a sample that makes a table of its own.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    /// The words behind the title of the case.
    pub title: &'static str,
    pub unit: &'static str,
    /// The factor between the sample's value and the unit.
    pub scale: f64,
}

pub const fn metric(
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    scale: f64,
) -> Metric {
    Metric { name, title, unit, scale }
}

/// The metric of loops: nanoseconds for each operation.
pub const NANOS: &[Metric] = &[metric("ns", "", "ns", 1.0)];

/// The amount of work that a contender does in one round.
#[derive(Clone, Copy, Debug)]
pub enum Amount {
    Times(u64),
    /// Work that fills this much time by the wall clock.
    Wall(Duration),
    /// Work that takes the process this much processor time.
    Processor(Duration),
}

/// The way in which a case is measured.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// The number of processes of a contender, one after the other. The place of a process's memory
    /// is worth some per cent, and would otherwise be in every round.
    pub starts: usize,
    /// The number of rounds of each process. With one round in all, contenders run one by one.
    pub rounds: usize,
    pub amount: Amount,
    /// The work runs on one core. Other work pins its own threads.
    pub pinned: bool,
    pub allocator: Allocator,
    /// The work is a loop without system calls: every profile measures it, and criterion.
    pub micro: bool,
    /// The processor time and the system calls of the process are observed from outside.
    pub observed: bool,
    /// Instructions are counted inside the functions of this name, and nothing is timed.
    pub callgrind: Option<&'static str>,
}

impl Method {
    /// Interleaves processes that are started so many times for so many rounds.
    pub fn rounds(starts: usize, rounds: usize, amount: Amount) -> Self {
        Self {
            starts,
            rounds,
            amount,
            pinned: true,
            allocator: Allocator::Glibc,
            micro: false,
            observed: false,
            callgrind: None,
        }
    }

    /// Measures a loop of some nanoseconds.
    pub fn micro(effort: Effort) -> Self {
        let share = Duration::from_millis(effort.choose(2, 8));
        let rounds = Self::rounds(1, effort.choose(9, 41), Amount::Wall(share));
        Self { micro: true, ..rounds }
    }

    /// Measures a whole program: a run takes it five seconds of processor time.
    pub fn program(effort: Effort) -> Self {
        let time = Duration::from_millis(effort.choose(50, 5000));
        let (starts, rounds) = effort.choose((1, 3), (2, 3));
        let method = Self::rounds(starts, rounds, Amount::Processor(time));
        Self { pinned: false, observed: true, ..method }
    }

    /// Counts something exact once, one contender after the other.
    pub fn once(times: u64) -> Self {
        Self::rounds(1, 1, Amount::Times(times))
    }

    pub fn is_once(&self) -> bool {
        self.starts * self.rounds == 1
    }
}

/// One question to the contenders.
pub trait Case: Clone + 'static {
    /// Returns `key: title`. Processes and records find the case by its key, which is short and
    /// stable; the title is that of its tables.
    fn label(&self) -> String;

    fn metrics(&self) -> &'static [Metric] {
        NANOS
    }

    fn method(&self, effort: Effort) -> Method {
        Method::micro(effort)
    }
}

/// One line of the tables: a library, or a way of using it, that does the work of a case.
pub trait Contender<C: Case>: Sync {
    fn name(&self) -> &'static str;

    fn note(&self) -> &'static str {
        ""
    }

    /// Reports if the contender can do the case, and there is time for it.
    fn suits(&self, _: &C, _: Effort) -> bool {
        true
    }

    /// Returns the allocator, if the contender needs another one than the case.
    fn allocator(&self) -> Option<Allocator> {
        None
    }

    /// Builds everything, in the process that will do the work. `scratch` is the run's folder.
    fn start(&self, case: &C, scratch: &Path) -> io::Result<Work>;
}

/// A case that is given by words alone, and has answers of its own.
#[derive(Clone)]
pub struct Question {
    pub label: &'static str,
    pub metrics: &'static [Metric],
    pub method: fn(Effort) -> Method,
}

impl Case for Question {
    fn label(&self) -> String {
        self.label.into()
    }

    fn metrics(&self) -> &'static [Metric] {
        self.metrics
    }

    fn method(&self, effort: Effort) -> Method {
        (self.method)(effort)
    }
}

/// A contender that is a function.
pub struct Answer<C> {
    pub name: &'static str,
    pub note: &'static str,
    pub suits: fn(&C, Effort) -> bool,
    pub start: fn(&C, &Path) -> io::Result<Work>,
}

impl<C> Answer<C> {
    pub const fn new(
        name: &'static str,
        note: &'static str,
        start: fn(&C, &Path) -> io::Result<Work>,
    ) -> Self {
        Self { name, note, suits: |_, _| true, start }
    }
}

impl<C: Case> Contender<C> for Answer<C> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn note(&self) -> &'static str {
        self.note
    }

    fn suits(&self, case: &C, effort: Effort) -> bool {
        (self.suits)(case, effort)
    }

    fn start(&self, case: &C, scratch: &Path) -> io::Result<Work> {
        (self.start)(case, scratch)
    }
}

type Start = dyn Fn(&Path) -> io::Result<Work>;

/// A contender bound to a case.
pub struct Pair {
    pub contender: &'static str,
    pub note: &'static str,
    pub allocator: Allocator,
    start: Box<Start>,
}

impl Pair {
    pub fn start(&self, scratch: &Path) -> io::Result<Work> {
        (self.start)(scratch)
    }
}

/// A case with all that answer it. The first one is ours, which the others are compared with.
pub struct Comparison {
    pub key: String,
    pub title: String,
    pub metrics: &'static [Metric],
    pub method: Method,
    pub pairs: Vec<Pair>,
}

/// Binds a case to each contender that it suits.
pub fn bind<C: Case, K: Contender<C> + ?Sized + 'static>(
    case: C,
    contenders: impl IntoIterator<Item = &'static K>,
    effort: Effort,
) -> Comparison {
    let label = case.label();
    let (key, title) = label.split_once(": ").unwrap_or((&label, &label));
    let (metrics, method) = (case.metrics(), case.method(effort));
    let suiting = contenders.into_iter().filter(|contender| contender.suits(&case, effort));
    let pairs = suiting.map(|contender| {
        let case = case.clone();
        Pair {
            contender: contender.name(),
            note: contender.note(),
            allocator: contender.allocator().unwrap_or(method.allocator),
            start: Box::new(move |scratch| contender.start(&case, scratch)),
        }
    });
    let pairs = pairs.collect();
    Comparison { key: key.into(), title: title.into(), metrics, method, pairs }
}
