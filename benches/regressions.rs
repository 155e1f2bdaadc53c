//! The core paths under criterion: has a change of ours made one of them slower?
//!
//! `cargo bench -p uring-arena-instructions` takes half a minute. Verdicts beside the peers come
//! from `benches/peers`, exact counts from `scripts/instructions`.

use std::hint::black_box;
use std::io::Write;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::BufMut;
use criterion::Criterion;
use uring_arena::{
    BuddyArena, BuddyGeometry, Buffer, BufferRing, Driver, Event, FixedArena, PageSize,
};

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    fixed(&mut criterion);
    buddy(&mut criterion);
    receive(&mut criterion);
    criterion.final_summary();
}

fn nz(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("sizes here are above zero")
}

fn arena() -> FixedArena {
    let builder = FixedArena::with_slot_capacity(nz(1024), nz(4096)).alignment(4096);
    builder.build().expect("the arena builds")
}

fn fixed(criterion: &mut Criterion) {
    let arena = arena();
    criterion.bench_function("claim, drop", |bencher| bencher.iter(|| arena.allocate()));
    criterion.bench_function("claim, 64 B, freeze to Bytes, drop", |bencher| {
        bencher.iter(|| {
            let mut buffer = arena.allocate().expect("a free slot");
            buffer.put_slice(black_box(&[7; 64]));
            black_box(buffer.freeze().as_ref());
        });
    });
    criterion.bench_function("the same in two functions", |bencher| {
        bencher.iter(|| read(written(&arena)));
    });
    criterion.bench_function("claim, 64 B, ArenaBytes, drop", |bencher| {
        bencher.iter(|| {
            let mut buffer = arena.allocate().expect("a free slot");
            buffer.put_slice(black_box(&[7; 64]));
            black_box(buffer.freeze_in_place().as_ref());
        });
    });
    let mut batch = Vec::with_capacity(32);
    criterion.bench_function("claim 32, drop 32", |bencher| {
        bencher.iter(|| {
            arena.allocate_many(32, |buffer| batch.push(buffer));
            batch.clear();
        });
    });
    let held: Vec<_> = std::iter::from_fn(|| arena.allocate().ok()).collect();
    criterion.bench_function("claim refused", |bencher| {
        bencher.iter(|| arena.allocate().is_err() && held.len() == 1024);
    });
}

#[inline(never)]
fn written(arena: &FixedArena) -> Buffer {
    let mut buffer = arena.allocate().expect("a free slot");
    buffer.put_slice(black_box(&[7; 64]));
    buffer
}

#[inline(never)]
fn read(buffer: Buffer) {
    black_box(buffer.freeze().as_ref());
}

fn buddy(criterion: &mut Criterion) {
    let geometry = BuddyGeometry::exact(nz(64 << 20), nz(256)).expect("powers of two");
    let builder = BuddyArena::builder(geometry).page_size(PageSize::Unknown);
    let arena = builder.build().expect("the arena builds");
    criterion.bench_function("buddy: claim 4096 B, drop", |bencher| {
        bencher.iter(|| arena.allocate(black_box(nz(4096))));
    });
}

/// Passes a message through the driver, the sender's write included.
fn receive(criterion: &mut Criterion) {
    let (mut sender, receiver) = UnixStream::pair().expect("a pair of sockets");
    let armed = Driver::builder().build().ok().and_then(|mut driver| {
        let ring = driver.register_buffer_ring(&arena(), BufferRing::options().entries(64)).ok()?;
        driver.receive(ring, receiver).ok()?;
        Some(driver)
    });
    let Some(mut driver) = armed else {
        return eprintln!("left out: a message of 512 B through the driver: no io_uring here");
    };
    criterion.bench_function("a message of 512 B through the driver", |bencher| {
        bencher.iter(|| {
            sender.write_all(&[7; 512]).expect("room in the socket");
            loop {
                driver.wait().expect("the ring works");
                while let Some(event) = driver.next() {
                    if let Event::Received { bytes, .. } = event {
                        return bytes;
                    }
                }
            }
        });
    });
}
