//! The metrics of the whole library as one tree, with names, units and help texts that stay.
//!
//! Each part lists its counts here. So a table, a difference, and every exporter are written once.

use std::fmt;

/// The way in which the value of a [`Metric`] changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MetricKind {
    /// A count of events since the part was made. It never falls.
    Counter,
    /// A state now, or the highest state so far.
    Gauge,
}

/// The unit of a [`Metric`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MetricUnit {
    /// A number of things.
    Count,
    /// Bytes.
    Bytes,
    /// Nanoseconds. The name of the metric says `seconds`: see [`Metric::in_base_unit`].
    Nanoseconds,
}

/// A number with its name, unit and meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// The name, such as `uring_arena_live_bytes`; that of a counter ends in `_total`.
    pub name: &'static str,
    /// A sentence that says what is counted.
    pub help: &'static str,
    /// The way in which the value changes.
    pub kind: MetricKind,
    /// The unit of the value.
    pub unit: MetricUnit,
    /// The value.
    pub value: u64,
}

impl Metric {
    /// Returns the value as exporters want it: times in seconds.
    ///
    /// ```
    /// use uring_arena::{FixedArena, MetricUnit, Metrics};
    ///
    /// let metrics = Metrics::new().with("frames", &FixedArena::new(8, 64)?);
    /// let part = &metrics.parts()[0];
    /// let wait = part.metrics().iter().find(|metric| metric.unit == MetricUnit::Nanoseconds);
    /// assert_eq!(wait.unwrap().in_base_unit(), 0.0);
    /// # Ok::<(), uring_arena::BuildError>(())
    /// ```
    pub fn in_base_unit(&self) -> f64 {
        match self.unit {
            MetricUnit::Nanoseconds => self.value as f64 / 1e9,
            MetricUnit::Count | MetricUnit::Bytes => self.value as f64,
        }
    }
}

/// A key with its value.
type Label = (&'static str, String);

/// The metrics of one arena, ring, driver or pool, and of the parts that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsPart {
    kind: &'static str,
    name: String,
    labels: Vec<Label>,
    metrics: Vec<Metric>,
    parts: Vec<MetricsPart>,
}

impl MetricsPart {
    /// Makes a part of a kind, such as `arena`, under the name that the program gave it.
    pub(crate) fn new(kind: &'static str, name: impl Into<String>) -> MetricsPart {
        let (name, labels, metrics) = (name.into(), Vec::new(), Vec::new());
        MetricsPart { kind, name, labels, metrics, parts: Vec::new() }
    }

    /// Adds a label, such as a registration mode.
    pub(crate) fn label(mut self, key: &'static str, value: impl ToString) -> MetricsPart {
        self.labels.push((key, value.to_string()));
        self
    }

    /// Adds a count of events.
    pub(crate) fn counter(self, name: &'static str, help: &'static str, value: u64) -> MetricsPart {
        self.metric(name, help, MetricKind::Counter, MetricUnit::Count, value)
    }

    /// Adds a number of things that are there now.
    pub(crate) fn gauge(self, name: &'static str, help: &'static str, value: usize) -> MetricsPart {
        self.metric(name, help, MetricKind::Gauge, MetricUnit::Count, value as u64)
    }

    /// Adds a number of bytes that are there now.
    pub(crate) fn bytes(self, name: &'static str, help: &'static str, value: usize) -> MetricsPart {
        self.metric(name, help, MetricKind::Gauge, MetricUnit::Bytes, value as u64)
    }

    /// Adds a time.
    pub(crate) fn time(
        self,
        name: &'static str,
        help: &'static str,
        value: std::time::Duration,
    ) -> MetricsPart {
        let nanoseconds = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        self.metric(name, help, MetricKind::Gauge, MetricUnit::Nanoseconds, nanoseconds)
    }

    fn metric(
        mut self,
        name: &'static str,
        help: &'static str,
        kind: MetricKind,
        unit: MetricUnit,
        value: u64,
    ) -> MetricsPart {
        self.metrics.push(Metric { name, help, kind, unit, value });
        self
    }

    /// Adds a part.
    #[cfg_attr(
        not(all(feature = "io-uring", target_os = "linux")),
        allow(dead_code, reason = "drivers and pools have parts")
    )]
    pub(crate) fn part(mut self, part: MetricsPart) -> MetricsPart {
        self.parts.push(part);
        self
    }

    /// Returns the kind: `arena`, `ring`, `driver` or `pool`.
    ///
    /// The example of [`Metrics`] shows it.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Returns the name that the program gave. A ring of a driver has the number of its group.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the labels, such as the mode of an arena or the engine of a pool, without the name.
    pub fn labels(&self) -> &[(&'static str, String)] {
        &self.labels
    }

    /// Returns the metrics of the part itself.
    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    /// Returns the parts of the part, such as the rings of a driver.
    pub fn parts(&self) -> &[MetricsPart] {
        &self.parts
    }

    /// Returns the value of the metric with this name.
    ///
    /// ```
    /// use uring_arena::{FixedArena, Metrics};
    ///
    /// let metrics = Metrics::new().with("frames", &FixedArena::new(8, 64)?);
    /// assert_eq!(metrics.parts()[0].value("uring_arena_reserved_bytes"), Some(512));
    /// # Ok::<(), uring_arena::BuildError>(())
    /// ```
    pub fn value(&self, name: &str) -> Option<u64> {
        self.metrics.iter().find(|metric| metric.name == name).map(|metric| metric.value)
    }

    fn since(&self, before: &[MetricsPart]) -> MetricsPart {
        let is_same = |part: &&MetricsPart| part.kind == self.kind && part.name == self.name;
        let before = before.iter().find(is_same);
        let counted = |metric: &Metric| {
            let past = match metric.kind {
                MetricKind::Counter => before.and_then(|before| before.value(metric.name)),
                MetricKind::Gauge => None,
            };
            Metric { value: metric.value.saturating_sub(past.unwrap_or(0)), ..*metric }
        };
        let past = before.map_or(&[][..], |before| &before.parts);
        MetricsPart {
            metrics: self.metrics.iter().map(counted).collect(),
            parts: self.parts.iter().map(|part| part.since(past)).collect(),
            ..self.clone()
        }
    }

    fn for_each(&self, labels: &mut Vec<Label>, each: &mut dyn FnMut(&[Label], &Metric)) {
        let outer = labels.len();
        labels.push((self.kind, self.name.clone()));
        labels.extend(self.labels.iter().cloned());
        self.metrics.iter().for_each(|metric| each(labels, metric));
        self.parts.iter().for_each(|part| part.for_each(labels, each));
        labels.truncate(outer);
    }
}

/// A value with metrics: an arena, a ring, a driver, a pool.
///
/// The trait is sealed.
pub trait HasMetrics: sealed::HasMetricsPart {}

impl<T: sealed::HasMetricsPart> HasMetrics for T {}

pub(crate) mod sealed {
    pub trait HasMetricsPart {
        /// Takes a snapshot, under the name that the program gave.
        #[doc(hidden)]
        fn metrics_part(&self, name: &str) -> super::MetricsPart;
    }
}

/// A snapshot of the metrics of arenas, rings, drivers and pools: a tree.
///
/// Names, units and help texts stay the same from version to version. [`for_each`](Self::for_each)
/// is for exporters; the feature `metrics` has one for the crate of that name. A snapshot walks
/// over all slots of its arenas: it is for monitoring, once in some seconds, not for hot paths.
///
/// ```
/// use uring_arena::{FixedArena, Metrics};
///
/// let arena = FixedArena::new(8, 64)?;
/// let before = Metrics::new().with("frames", &arena);
/// let held = arena.allocate()?;
/// let passed = Metrics::new().with("frames", &arena).since(&before);
/// let part = &passed.parts()[0];
/// assert_eq!((part.kind(), part.name()), ("arena", "frames"));
/// assert_eq!(part.value("uring_arena_claims_total"), Some(1));
/// println!("{passed}");
/// # drop(held);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metrics {
    parts: Vec<MetricsPart>,
}

impl Metrics {
    /// Makes an empty tree.
    pub fn new() -> Metrics {
        Metrics::default()
    }

    /// Adds a snapshot of an arena, ring, driver or pool, under a name of your own.
    ///
    /// The example of [`Metrics`] shows it.
    #[must_use]
    pub fn with(mut self, name: &str, source: &impl HasMetrics) -> Metrics {
        self.parts.push(source.metrics_part(name));
        self
    }

    /// Returns the parts.
    pub fn parts(&self) -> &[MetricsPart] {
        &self.parts
    }

    /// Returns the tree with each counter less its value in an earlier snapshot.
    ///
    /// Gauges stay: they are states, not sums. A part that the earlier snapshot lacks stays too.
    ///
    /// The example of [`Metrics`] shows it.
    #[must_use]
    pub fn since(&self, before: &Metrics) -> Metrics {
        Metrics { parts: self.parts.iter().map(|part| part.since(&before.parts)).collect() }
    }

    /// Hands each metric to `each`, with the labels of its part and of the parts around it.
    ///
    /// The first label of a part is its kind, with its name.
    ///
    /// ```
    /// use uring_arena::{FixedArena, Metrics};
    ///
    /// let metrics = Metrics::new().with("frames", &FixedArena::new(8, 64)?);
    /// metrics.for_each(|labels, metric| {
    ///     assert_eq!(labels[0], ("arena", "frames".to_owned()));
    ///     println!("{} {}", metric.name, metric.in_base_unit());
    /// });
    /// # Ok::<(), uring_arena::BuildError>(())
    /// ```
    pub fn for_each(&self, mut each: impl FnMut(&[(&'static str, String)], &Metric)) {
        let mut labels = Vec::new();
        self.parts.iter().for_each(|part| part.for_each(&mut labels, &mut each));
    }

    /// Sets the metrics of the recorder that the program installed (crate
    /// [`metrics`](https://docs.rs/metrics)), with their descriptions.
    ///
    /// Counters are set to their values, not increased: call it with whole snapshots.
    ///
    /// ```
    /// use uring_arena::{FixedArena, Metrics};
    ///
    /// let arena = FixedArena::new(8, 64)?;
    /// // Once in some seconds:
    /// Metrics::new().with("frames", &arena).record();
    /// # Ok::<(), uring_arena::BuildError>(())
    /// ```
    #[cfg(feature = "metrics")]
    pub fn record(&self) {
        self.for_each(record_one);
    }
}

#[cfg(feature = "metrics")]
fn record_one(labels: &[(&'static str, String)], metric: &Metric) {
    use ::metrics::Unit;

    let Metric { name, help, .. } = *metric;
    let unit = match metric.unit {
        MetricUnit::Count => Unit::Count,
        MetricUnit::Bytes => Unit::Bytes,
        MetricUnit::Nanoseconds => Unit::Seconds,
    };
    match metric.kind {
        MetricKind::Counter => {
            ::metrics::describe_counter!(name, unit, help);
            ::metrics::counter!(name, labels).absolute(metric.value);
        }
        MetricKind::Gauge => {
            ::metrics::describe_gauge!(name, unit, help);
            ::metrics::gauge!(name, labels).set(metric.in_base_unit());
        }
    }
}

/// Writes a line for each metric that is not zero, under the name of its part.
impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| part.write(f, 0))
    }
}

impl MetricsPart {
    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        let indent = 2 * depth;
        write!(f, "{:indent$}{} {}", "", self.kind, self.name)?;
        for (key, value) in &self.labels {
            write!(f, ", {key} {value}")?;
        }
        writeln!(f)?;
        for metric in self.metrics.iter().filter(|metric| metric.value > 0) {
            let name = metric.name.trim_start_matches("uring_arena_");
            let indent = indent + 2;
            writeln!(f, "{:indent$}{name:<32} {:>16}", "", metric.in_base_unit())?;
        }
        self.parts.iter().try_for_each(|part| part.write(f, depth + 1))
    }
}
