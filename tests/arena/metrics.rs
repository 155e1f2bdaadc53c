//! Metrics: high-water marks, waits, the tree of all parts and its differences; and `Debug`, which
//! shows what is asked first.

use std::time::Duration;

use crate::support::nz;
use uring_arena::{BuddyArena, FixedArena, Metric, MetricKind, MetricUnit, Metrics};

fn fixed(slots: usize) -> FixedArena {
    FixedArena::with_slot_capacity(nz(slots), nz(64)).build().unwrap()
}

#[test]
fn the_high_water_mark_is_that_of_snapshots_and_exact_after_a_refusal() {
    let arena = fixed(8);
    let held: Vec<_> = (0..5).map(|_| arena.allocate().unwrap()).collect();
    assert_eq!(arena.metrics().bytes_live_max, 5 * 64);
    drop(held);
    assert_eq!((arena.metrics().bytes_live, arena.metrics().bytes_live_max), (0, 5 * 64));
    let held: Vec<_> = std::iter::from_fn(|| arena.allocate().ok()).collect();
    drop(held);
    let metrics = arena.metrics();
    assert_eq!((metrics.allocations_failed, metrics.bytes_live_max), (1, 8 * 64));
}

#[test]
fn a_wait_marks_a_full_arena_and_is_counted_also_when_it_is_given_up() {
    let arena = fixed(3);
    let held: Vec<_> = (0..3).map(|_| arena.allocate().unwrap()).collect();
    let timeout = Duration::from_millis(30);
    // On the real clock: the wait is that long at least.
    assert!(arena.allocate_timeout(timeout).is_err());
    drop(held);
    let metrics = arena.metrics();
    assert_eq!((metrics.waits, metrics.waiters, metrics.waiters_max), (1, 0, 1));
    assert_eq!(metrics.bytes_live_max, 3 * 64);
    assert!(metrics.longest_wait >= timeout, "{:?}", metrics.longest_wait);
    assert!(metrics.longest_wait < Duration::from_secs(20), "{:?}", metrics.longest_wait);
}

#[test]
fn a_wait_that_lasts_is_the_longest_already() {
    let arena = fixed(1);
    let held = arena.allocate().unwrap();
    let (waiting, other) = (arena.clone(), std::time::Instant::now());
    let thread = std::thread::spawn(move || waiting.allocate_timeout(Duration::MAX).map(drop));
    while arena.metrics().waiters == 0 {
        assert!(other.elapsed() < crate::support::TIMEOUT, "nobody waits");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(20));
    let during = arena.metrics();
    assert!(during.longest_wait >= Duration::from_millis(20), "{during:?}");
    assert!(format!("{arena:?}").contains("waiters: 1"), "{arena:?}");
    drop(held);
    thread.join().unwrap().unwrap();
    let after = arena.metrics();
    assert!(after.longest_wait >= during.longest_wait, "{after:?}");
    assert_eq!((after.waiters, after.waiters_max, after.waits), (0, 1, 1));
}

#[test]
fn a_buddy_arena_has_marks_too() {
    let arena = BuddyArena::new(4096, 256).unwrap();
    let held = arena.allocate_bytes(2048).unwrap();
    // This refusal is looked at, as the first one is.
    assert!(arena.allocate_bytes(4096).is_err());
    drop(held);
    let metrics = arena.metrics();
    assert_eq!((metrics.bytes_live, metrics.bytes_live_max), (0, 2048));
    let whole = arena.allocate_bytes(4096).unwrap();
    assert!(arena.allocate_bytes_timeout(1, Duration::from_millis(5)).is_err());
    drop(whole);
    let metrics = arena.metrics();
    assert_eq!((metrics.bytes_live_max, metrics.waits, metrics.waiters_max), (4096, 1, 1));
    assert!(metrics.longest_wait >= Duration::from_millis(5), "{metrics:?}");
}

/// Returns every metric with its labels, as exporters get them.
fn list(metrics: &Metrics) -> Vec<(String, Metric)> {
    let mut list = Vec::new();
    metrics.for_each(|labels, metric| {
        let labels: Vec<String> =
            labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        list.push((labels.join(","), *metric));
    });
    list
}

#[test]
fn the_tree_agrees_with_the_metrics_and_its_names_are_those_of_exporters() {
    let (fixed, buddy) = (fixed(8), BuddyArena::new(4096, 256).unwrap());
    let held = (fixed.allocate().unwrap(), buddy.allocate_bytes(300).unwrap());
    let metrics = Metrics::new().with("frames", &fixed).with("blocks", &buddy);
    let list = list(&metrics);
    for (labels, metric) in &list {
        let name = metric.name;
        assert!(name.starts_with("uring_arena_"), "{name}");
        assert!(name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_'), "{name}");
        assert_eq!(name.ends_with("_total"), metric.kind == MetricKind::Counter, "{name}");
        assert_eq!(name.ends_with("_bytes"), metric.unit == MetricUnit::Bytes, "{name}");
        assert_eq!(name.ends_with("_seconds"), metric.unit == MetricUnit::Nanoseconds, "{name}");
        assert!(!metric.help.is_empty());
        assert!(["arena=frames,mode=slots", "arena=blocks,mode=blocks"].contains(&&**labels));
    }
    // No name comes twice in a part.
    let mut names: Vec<_> = list.iter().map(|(labels, metric)| (labels, metric.name)).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), list.len());
    let [frames, blocks] = metrics.parts() else { panic!("{metrics:?}") };
    assert_eq!(frames.value("uring_arena_live_bytes"), Some(fixed.metrics().bytes_live as u64));
    assert_eq!(frames.value("uring_arena_slots_free"), Some(7));
    assert_eq!(blocks.value("uring_arena_live_bytes"), Some(512));
    assert_eq!(blocks.value("uring_arena_slots_held"), Some(2));
    assert_eq!(blocks.value("uring_arena_nothing"), None);
    // An arena does not know its rings: it tells no number that would always be zero.
    assert_eq!(frames.value("uring_arena_slots_in_flight"), None);
    drop(held);
}

#[test]
fn a_difference_has_what_happened_in_between_and_states_as_they_are() {
    let arena = fixed(8);
    drop(arena.allocate().unwrap());
    let before = Metrics::new().with("a", &arena);
    let held: Vec<_> = (0..3).map(|_| arena.allocate().unwrap()).collect();
    let passed = Metrics::new().with("a", &arena).with("new", &arena).since(&before);
    let [part, new] = passed.parts() else { panic!("{passed:?}") };
    assert_eq!(part.value("uring_arena_claims_total"), Some(3));
    assert_eq!(part.value("uring_arena_frees_total"), Some(0));
    assert_eq!(part.value("uring_arena_live_bytes"), Some(3 * 64));
    assert_eq!(new.value("uring_arena_claims_total"), Some(4), "was not there before");
    let text = passed.to_string();
    assert!(text.contains("arena a, mode slots\n") && text.contains("claims_total"), "{text}");
    drop(held);
}

#[test]
fn debug_of_an_arena_shows_its_slots_by_state() {
    let arena = fixed(8);
    let held = (arena.allocate().unwrap(), arena.allocate().unwrap().freeze_in_place());
    drop(held.1.clone());
    let text = format!("{arena:?}");
    assert!(text.contains("slot_count: 8, slot_capacity: 64"), "{text}");
    assert!(text.contains("slots: 6 free, 1 held, 1 frozen, waiters: 0"), "{text}");
    let buddy = BuddyArena::new(4096, 256).unwrap();
    let block = buddy.allocate_bytes(512).unwrap();
    let text = format!("{buddy:?}");
    assert!(text.contains("min_blocks: 14 free, 2 held, waiters: 0"), "{text}");
    drop((held, block));
}

#[cfg(feature = "metrics")]
mod exporter {
    //! A recorder of the crate `metrics`, which keeps what it was given.

    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};

    use metrics::{
        Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };
    use uring_arena::Metrics;

    #[derive(Default)]
    struct Kept {
        values: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
        units: Mutex<BTreeMap<String, Option<Unit>>>,
    }

    impl Kept {
        fn value(&self, key: &Key) -> Arc<AtomicU64> {
            let labels: Vec<_> =
                key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            let name = format!("{} {}", key.name(), labels.join(","));
            Arc::clone(self.values.lock().unwrap().entry(name).or_default())
        }

        fn describe(&self, name: &KeyName, unit: Option<Unit>) {
            self.units.lock().unwrap().insert(name.as_str().to_owned(), unit);
        }
    }

    impl Recorder for Kept {
        fn describe_counter(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
            self.describe(&name, unit);
        }

        fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, _: SharedString) {
            self.describe(&name, unit);
        }

        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.value(key))
        }

        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.value(key))
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn a_recorder_gets_every_metric_with_unit_and_labels_and_the_same_value_twice() {
        let arena = super::fixed(8);
        let held = arena.allocate().unwrap();
        let snapshot = Metrics::new().with("frames", &arena);
        let kept = Kept::default();
        for _ in 0..2 {
            metrics::with_local_recorder(&kept, || snapshot.record());
        }
        let values = kept.values.lock().unwrap();
        let at =
            |name: &str| values[&format!("{name} arena=frames,mode=slots")].load(Ordering::Relaxed);
        assert_eq!(at("uring_arena_claims_total"), 1);
        assert_eq!(f64::from_bits(at("uring_arena_live_bytes")), 64.0);
        let units = kept.units.lock().unwrap();
        assert_eq!(units["uring_arena_live_bytes"], Some(Unit::Bytes));
        assert_eq!(units["uring_arena_longest_wait_seconds"], Some(Unit::Seconds));
        assert_eq!((values.len(), units.len()), (super::list(&snapshot).len(), values.len()));
        drop(held);
    }
}
