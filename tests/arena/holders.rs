//! The holders of slots: places, labels, ages, bytes used, samples, reports and alarms.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::log::Log;
use crate::support::{TIMEOUT, assert_all_free, nz, watched, written};
use uring_arena::{
    BuddyArena, FixedArena, HolderAlarm, Holders, LocalArena, SlotState, TrackHolders,
};

fn fixed(slots: usize, track: TrackHolders) -> FixedArena {
    let builder = FixedArena::with_slot_capacity(nz(slots), nz(64)).auto_spill();
    builder.track_holders(track).build().unwrap()
}

fn all(slots: usize) -> FixedArena {
    fixed(slots, TrackHolders::All)
}

/// Returns the lines of the places of all holders.
fn lines(holders: &Holders) -> Vec<u32> {
    assert!(holders.iter().all(|holder| holder.place.file().ends_with("holders.rs")), "{holders}");
    let mut lines: Vec<u32> = holders.iter().map(|holder| holder.place.line()).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn every_way_in_has_the_place_of_its_caller() {
    let arena = all(40);
    let first = line!();
    let one = arena.allocate().unwrap();
    let two = arena.allocate_timeout(Duration::ZERO).unwrap();
    let mut many = Vec::new();
    arena.allocate_many(3, |buffer| many.push(buffer));
    let local = LocalArena::new(&arena, 2);
    let of_local = local.allocate().unwrap();
    let expected = [1, 2, 4, 4, 4, 5, 6].map(|below| first + below);
    assert_eq!(lines(&arena.holders()), expected);
    drop((one, two, many, of_local, local));
    assert!(arena.holders().is_empty());

    let buddy = BuddyArena::with_sizes(1 << 16, 256).track_holders(TrackHolders::All);
    let buddy = buddy.build().unwrap();
    let first = line!();
    let one = buddy.allocate(nz(300)).unwrap();
    let two = buddy.allocate_bytes(300).unwrap();
    let three = buddy.allocate_timeout(nz(300), Duration::ZERO).unwrap();
    let four = buddy.allocate_bytes_timeout(300, Duration::ZERO).unwrap();
    assert_eq!(lines(&buddy.holders()), [1, 2, 3, 4].map(|below| first + below));
    assert!(buddy.holders().iter().all(|holder| holder.capacity == 512));
    drop((one, two, three, four));
    assert_all_free(&buddy);
}

#[test]
fn a_claim_that_waited_has_the_place_where_it_waited() {
    let arena = all(1);
    let held = arena.allocate().unwrap();
    let waiting = arena.clone();
    let line = line!() + 1;
    let waits = move || waiting.allocate_timeout(TIMEOUT).unwrap();
    let thread = std::thread::spawn(waits);
    while arena.metrics().waiters == 0 {
        std::thread::yield_now();
    }
    drop(held);
    let granted = thread.join().unwrap();
    assert_eq!(lines(&arena.holders()), [line]);
    drop(granted);
}

#[cfg(feature = "async-alloc")]
#[test]
fn a_claim_that_is_awaited_has_the_place_of_the_call() {
    use futures::executor::block_on;

    let builder = FixedArena::with_slot_capacity(nz(1), nz(64)).track_holders(TrackHolders::All);
    let arena = builder.build_async().unwrap();
    let held = arena.allocate().unwrap();
    let line = line!() + 1;
    let waiting = arena.allocate_async();
    let dropper = std::thread::spawn(move || drop(held));
    let granted = block_on(waiting);
    dropper.join().unwrap();
    assert_eq!(lines(&arena.holders()), [line]);
    drop(granted);
    let builder = BuddyArena::with_sizes(4096, 256).track_holders(TrackHolders::All);
    let arena = builder.build_async().unwrap();
    let line = line!() + 1;
    let granted = block_on(arena.allocate_bytes_async(100)).unwrap();
    assert_eq!(lines(&arena.holders()), [line]);
    drop(granted);
}

#[test]
fn a_record_follows_its_claim_through_every_state() {
    let arena = all(4);
    let mut buffer = written(arena.allocate().unwrap(), b"hello");
    buffer.label("greeting");
    let of = |state, used| {
        let holders = arena.holders();
        let [holder] = &holders.iter().collect::<Vec<_>>()[..] else { panic!("{holders}") };
        assert_eq!((holder.state, holder.used), (state, used), "{holders}");
        assert_eq!((holder.label.as_deref(), holder.capacity), (Some("greeting"), 64));
    };
    of(SlotState::Held, None);
    let bytes = buffer.freeze_in_place();
    of(SlotState::Frozen, Some(5));
    let clone = bytes.clone();
    drop(bytes);
    of(SlotState::Frozen, Some(5));
    let buffer = clone.try_into_buffer().unwrap();
    of(SlotState::Held, Some(5));
    drop(buffer);
    assert!(arena.holders().is_empty());
    // The next owner has none of it.
    let mut next = arena.allocate().unwrap();
    let holders = arena.holders();
    assert_eq!(holders.iter().next().unwrap().label, None, "{holders}");
    // A spill frees the slot.
    next.try_put_slice(&[0; 60]).unwrap();
    bytes::BufMut::put_slice(&mut next, &[0; 60]);
    assert!(next.is_spilled() && arena.holders().is_empty());
    next.label("does nothing");
}

#[test]
fn off_records_nothing_and_a_sample_its_share() {
    let off = fixed(64, TrackHolders::Off);
    let held = off.allocate().unwrap();
    let holders = off.holders();
    assert_eq!((holders.len(), holders.untracked()), (0, 1));
    assert!(holders.summary().contains("track_holders"), "{holders}");
    assert!(off.allocate_many(63, std::mem::forget) == 63 && off.allocate().is_err());
    assert!(off.allocate().unwrap_err().report().is_none());
    drop(held);

    let sampled = fixed(64, TrackHolders::Sampled(16));
    let mut recorded = 0;
    for _ in 0..64 {
        let held: Vec<_> = (0..64).map(|_| sampled.allocate().unwrap()).collect();
        let holders = sampled.holders();
        assert_eq!(holders.len() + holders.untracked(), 64);
        recorded += holders.len();
        drop(held);
    }
    assert_eq!(recorded, 64 * 64 / 16, "one in sixteen, spread over slots and claims");
}

#[test]
fn groups_sum_up_and_the_table_begins_with_the_largest() {
    let arena = all(16);
    let few: Vec<_> = (0..2).map(|_| arena.allocate().unwrap()).collect();
    std::thread::sleep(Duration::from_millis(20));
    let line = line!() + 1;
    let many: Vec<_> = (0..5).map(|_| written(arena.allocate().unwrap(), &[1; 64])).collect();
    let many: Vec<_> = many.into_iter().map(|buffer| buffer.freeze()).collect();
    let holders = arena.holders();
    let groups = holders.by_place();
    let counts: Vec<_> = groups.iter().map(|group| (group.claims, group.capacity)).collect();
    assert_eq!(counts, [(5, 5 * 64), (2, 2 * 64)]);
    assert_eq!((groups[0].used, groups[0].waste, groups[0].place.line()), (5 * 64, 0, line));
    assert!((holders.largest_share() - 5.0 / 16.0).abs() < 1e-9);
    let ages: Vec<_> = holders.by_age().iter().map(|holder| holder.age).collect();
    assert!(ages[1] >= Duration::from_millis(19) && ages.is_sorted_by(|one, next| one >= next));
    let text = holders.to_string();
    assert!(text.starts_with(&holders.summary()), "{text}");
    assert!(text.lines().skip(1).all(|row| row.chars().count() <= 80), "{text}");
    assert!(text.contains(&format!("holders.rs:{line}")), "{text}");
    holders.dump();
    drop((few, many));
}

#[test]
fn backtraces_are_kept_if_asked_for() {
    let builder = FixedArena::with_sizes(2, 64).track_holders(TrackHolders::All);
    let arena = builder.holder_backtraces().build().unwrap();
    let held = arena.allocate().unwrap();
    let text = arena.holders().iter().next().unwrap().backtrace.as_ref().unwrap().to_string();
    assert!(text.contains("backtraces_are_kept"), "{text}");
    drop(held);
    let held = all(1).allocate().unwrap();
    drop(held);
}

#[test]
fn an_alarm_reports_once_in_a_while() {
    let arena = all(4);
    let reports = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reports);
    let alarm = HolderAlarm::new()
        .max_age(Duration::from_millis(10))
        .max_share(0.6)
        .every(Duration::from_millis(50))
        .on_report(move |holders| {
            assert!(!holders.is_empty());
            count.fetch_add(1, Ordering::Relaxed);
        });
    let held = arena.allocate().unwrap();
    assert!(!alarm.check(&arena.holders()), "young, and a quarter");
    std::thread::sleep(Duration::from_millis(15));
    assert!(alarm.check(&arena.holders()), "old");
    assert_eq!(reports.load(Ordering::Relaxed), 1);
    // Within the time there is no other one, however often it is asked.
    let others: Vec<_> = (0..3).map(|_| arena.allocate().unwrap()).collect();
    let (begin, mut again) = (std::time::Instant::now(), 0);
    while again == 0 {
        again += usize::from(alarm.check(&arena.holders()));
        assert!(begin.elapsed() < TIMEOUT, "no second report");
    }
    assert_eq!(reports.load(Ordering::Relaxed), 2);
    drop((held, others));
    assert!(!alarm.check(&arena.holders()));
}

#[test]
fn the_end_of_the_last_handle_tells_what_is_out() {
    let log = Log::default();
    let line = line!() + 3;
    let bytes = tracing::subscriber::with_default(log.clone(), || {
        let arena = all(4);
        let bytes = written(arena.allocate().unwrap(), b"out").freeze();
        drop(arena);
        bytes
    });
    let place = format!("holders.rs:{line}");
    let told = log.with("last handle");
    assert!(matches!(&told[..], [event] if event.contains(&place)), "{:?}", log.with(""));
    assert_eq!(bytes, "out");
}

/// Readers look at the table while owners claim, label, freeze and free: a record is that of one
/// claim as a whole.
#[test]
fn readers_find_whole_records_while_owners_write() {
    watched(|| {
        let arena = all(8);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for name in ["one", "two"] {
                let (arena, is_over) = (&arena, &is_over);
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        let Ok(mut buffer) = arena.allocate() else { continue };
                        buffer.label(name);
                        let bytes = written(buffer, name.as_bytes()).freeze();
                        std::hint::black_box(&bytes);
                    }
                });
            }
            let mut seen = 0;
            let begin = std::time::Instant::now();
            while seen < 2000 && begin.elapsed() < TIMEOUT {
                for holder in &arena.holders() {
                    let label = holder.label.as_deref();
                    assert!(matches!(label, None | Some("one" | "two")), "{holder:?}");
                    assert!(matches!(holder.used, None | Some(3)), "{holder:?}");
                    assert!(holder.place.file().ends_with("holders.rs"), "{holder:?}");
                    seen += 1;
                }
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert_all_free(&arena);
    });
}
