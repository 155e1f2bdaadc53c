//! What does one round trip through an arena cost, beside the peer and the allocator? (criterion:
//! history and plots of one's own)
//!
//! Verdicts come from the interleaved ratios of `cargo run --release -p uring-arena-peers`; this
//! one is for watching a change: `cargo bench -p uring-arena-peers --bench round_trip`.

use std::hint::black_box;
use std::num::NonZeroUsize;

use bytes::{BufMut, Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const SLOTS: usize = 1024;
const SLOT_BYTES: usize = 4096;

fn nz(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

fn round_trips(criterion: &mut Criterion) {
    let ours = uring_arena::FixedArena::with_slot_capacity(nz(SLOTS), nz(SLOT_BYTES))
        .alignment(SLOT_BYTES)
        .build()
        .unwrap();
    let peer = arena_alligator::FixedArena::with_slot_capacity(nz(SLOTS), nz(SLOT_BYTES))
        .alignment(SLOT_BYTES)
        .build()
        .unwrap();
    let mut group = criterion.benchmark_group("claim, write, freeze, drop");
    for len in [64, 1024, SLOT_BYTES] {
        let data = vec![7u8; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("uring-arena, Bytes, {len} B"), |bencher| {
            bencher.iter(|| {
                let mut buffer = ours.allocate().unwrap();
                buffer.put_slice(black_box(&data));
                black_box(&buffer.freeze());
            });
        });
        group.bench_function(format!("uring-arena, ArenaBytes, {len} B"), |bencher| {
            bencher.iter(|| {
                let mut buffer = ours.allocate().unwrap();
                buffer.put_slice(black_box(&data));
                black_box(&buffer.freeze_in_place());
            });
        });
        group.bench_function(format!("arena-alligator, Bytes, {len} B"), |bencher| {
            bencher.iter(|| {
                let mut buffer = peer.allocate().unwrap();
                buffer.put_slice(black_box(&data));
                black_box(&buffer.freeze());
            });
        });
        group.bench_function(format!("BytesMut, {len} B"), |bencher| {
            bencher.iter(|| {
                let mut buffer = BytesMut::with_capacity(SLOT_BYTES);
                buffer.put_slice(black_box(&data));
                black_box(&buffer.freeze());
            });
        });
    }
    group.finish();
    criterion.bench_function("bare Bytes::from_owner, drop", |bencher| {
        bencher.iter(|| black_box(&Bytes::from_owner([0u8; 24])).len());
    });
}

criterion_group!(benches, round_trips);
criterion_main!(benches);
