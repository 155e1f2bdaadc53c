use std::num::NonZeroUsize;
use uring_arena::*;
fn nz(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}
fn next(r: &mut u64) -> usize {
    *r ^= *r << 13;
    *r ^= *r >> 7;
    *r ^= *r << 17;
    (*r >> 11) as usize
}
#[test]
fn timing() {
    let a = BuddyArena::builder(BuddyGeometry::exact(nz(64 << 20), nz(256)).unwrap()).build().unwrap();
    let mut random = 77u64;
    let mut held: Vec<_> = (0..512).map(|_| a.allocate(nz(256 + next(&mut random) % 65281)).ok()).collect();
    let steps: Vec<_> =
        (0..1 << 16).map(|_| (next(&mut random) % 512, 256 + next(&mut random) % 65281)).collect();
    let mut best = f64::MAX;
    for _ in 0..20 {
        for chunk in steps.chunks(2048) {
            let start = std::time::Instant::now();
            for &(victim, len) in chunk {
                held[victim] = None;
                held[victim] = a.allocate(nz(len)).ok();
            }
            best = best.min(start.elapsed().as_nanos() as f64 / chunk.len() as f64);
        }
    }
    println!("mix {best:.1} ns");
    let mut held: Vec<_> = (0..512).map(|_| bytes::BytesMut::with_capacity(256 + next(&mut random) % 65281)).collect();
    let mut best = f64::MAX;
    for _ in 0..20 {
        for chunk in steps.chunks(2048) {
            let start = std::time::Instant::now();
            for &(victim, len) in chunk {
                held[victim] = bytes::BytesMut::new();
                held[victim] = bytes::BytesMut::with_capacity(len);
            }
            best = best.min(start.elapsed().as_nanos() as f64 / chunk.len() as f64);
        }
    }
    println!("BytesMut {best:.1} ns");
}
