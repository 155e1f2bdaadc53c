use std::num::NonZeroUsize;
use uring_arena::*;
fn nz(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}
#[test]
fn timing() {
    let best = |name: &str, f: &mut dyn FnMut()| {
        let mut best = f64::MAX;
        for _ in 0..300 {
            let start = std::time::Instant::now();
            for _ in 0..2000 {
                f();
            }
            best = best.min(start.elapsed().as_nanos() as f64 / 2000.0);
        }
        println!("{name}: {best:.1} ns");
    };
    let a = BuddyArena::builder(BuddyGeometry::exact(nz(64 << 20), nz(256)).unwrap()).build().unwrap();
    best("buddy 4096", &mut || drop(std::hint::black_box(a.allocate(std::hint::black_box(nz(4096))))));
    let b = FixedArena::with_slot_capacity(nz(1024), nz(4096)).build().unwrap();
    best("fixed 4096", &mut || drop(std::hint::black_box(b.allocate())));
}
