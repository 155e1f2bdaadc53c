//! The buddy mode beside its peers, in one run: medians of ratios over interleaved rounds.
//!
//! `cargo bench -p uring-arena-peers --bench buddy`; a word on the command line picks the cases whose name has it.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::time::Duration;

use bytes::BytesMut;

const MIB: usize = 1 << 20;
const ROUNDS: usize = 41;
const ROUND_TIME: Duration = Duration::from_millis(4);

type Ours = uring_arena::BuddyArena;
type Peer = arena_alligator::BuddyArena;

fn nz(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

fn ours(total: usize, min_block: usize) -> Ours {
    Ours::builder(uring_arena::BuddyGeometry::exact(nz(total), nz(min_block)).unwrap()).build().unwrap()
}

fn peer(total: usize, min_block: usize) -> Peer {
    let geometry = arena_alligator::BuddyGeometry::exact(nz(total), nz(min_block)).unwrap();
    Peer::builder(geometry).build().unwrap()
}

/// Something that hands out memory by length.
trait Memory: Sync {
    type Block: Send;
    fn claim(&self, len: usize) -> Option<Self::Block>;
}

impl Memory for Ours {
    type Block = uring_arena::Buffer;
    #[inline]
    fn claim(&self, len: usize) -> Option<Self::Block> {
        self.allocate(nz(len)).ok()
    }
}

impl Memory for Peer {
    type Block = arena_alligator::Buffer;
    #[inline]
    fn claim(&self, len: usize) -> Option<Self::Block> {
        self.allocate(nz(len)).ok()
    }
}

struct Heap;

impl Memory for Heap {
    type Block = BytesMut;
    #[inline]
    fn claim(&self, len: usize) -> Option<BytesMut> {
        Some(BytesMut::with_capacity(black_box(len)))
    }
}

/// An offset allocator behind a mutex, in units of 256 bytes.
struct Offsets(Mutex<offset_allocator::Allocator<u32>>);

struct OffsetBlock<'a>(&'a Offsets, offset_allocator::Allocation<u32>);

impl Offsets {
    fn new(total: usize) -> Offsets {
        Offsets(Mutex::new(offset_allocator::Allocator::with_max_allocs((total / 256) as u32, 1 << 18)))
    }

    fn claim(&self, len: usize) -> Option<OffsetBlock<'_>> {
        let block = self.0.lock().unwrap().allocate(len.div_ceil(256) as u32)?;
        Some(OffsetBlock(self, block))
    }
}

impl Drop for OffsetBlock<'_> {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().free(self.1);
    }
}

struct Random(u64);

impl Random {
    #[inline]
    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize
    }
}

/// Time that this thread has had a processor. The machine is shared: what others take of it is not ours to count.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the structure that it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Nanoseconds per operation of `run(operations)`.
fn time(operations: usize, run: &mut dyn FnMut(usize) -> Duration) -> f64 {
    run(operations).as_nanos() as f64 / operations as f64
}

/// How long `run` takes on this thread.
fn timed(run: impl FnOnce()) -> Duration {
    let start = thread_time();
    run();
    thread_time() - start
}

/// Runs both in turn; gives the median of each and of their ratio.
fn compare(
    name: &str,
    limit: f64,
    mut ours: impl FnMut(usize) -> Duration,
    mut other: impl FnMut(usize) -> Duration,
) {
    let batch = |run: &mut dyn FnMut(usize) -> Duration| {
        // Enough that starting a thread is nothing beside it.
        run(1 << 13);
        let once = time(1 << 13, run);
        ((ROUND_TIME.as_nanos() as f64 / once) as usize).clamp(1 << 8, 1 << 20)
    };
    let (ours_batch, other_batch) = (batch(&mut ours), batch(&mut other));
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let (a, b) = if round % 2 == 0 {
            let a = time(ours_batch, &mut ours);
            (a, time(other_batch, &mut other))
        } else {
            let b = time(other_batch, &mut other);
            (time(ours_batch, &mut ours), b)
        };
        rounds.push((a, b, a / b));
    }
    let median = |of: fn(&(f64, f64, f64)) -> f64| {
        let mut values: Vec<_> = rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let ratio = median(|r| r.2);
    let verdict = if ratio <= limit { "ok" } else { "OVER" };
    println!(
        "{name:<52} {:9.1} ns {:9.1} ns   ratio {ratio:6.4}   at most {limit:5.3}   {verdict}",
        median(|r| r.0),
        median(|r| r.1)
    );
}

fn claim_and_drop<M: Memory>(memory: &M, len: usize) -> impl FnMut(usize) -> Duration + use<'_, M> {
    move |operations| {
        timed(|| {
            for _ in 0..operations {
                drop(black_box(memory.claim(black_box(len))));
            }
        })
    }
}

/// Any length from 256 to `LARGEST`: mostly large blocks.
fn any_length<const LARGEST: usize>(random: &mut Random) -> usize {
    256 + random.next() % (LARGEST - 255)
}

/// A length from 256 B to 64 KiB, every doubling equally likely.
fn any_scale(random: &mut Random) -> usize {
    let scale = 256 << (random.next() % 8);
    scale + random.next() % (scale + 1)
}

/// Drops a random one of `live` blocks and claims another of random length.
///
/// Victims and lengths are drawn beforehand: drawing costs as much as a claim.
fn random_mix<M: Memory>(
    memory: &M,
    live: usize,
    len: fn(&mut Random) -> usize,
) -> impl FnMut(usize) -> Duration + use<'_, M> {
    let mut random = Random(0x1234_5678_9ABC_DEF1);
    let mut held: Vec<_> = (0..live).map(|_| memory.claim(len(&mut random))).collect();
    let steps: Vec<_> =
        (0..1 << 16).map(|_| ((random.next() % live) as u32, len(&mut random) as u32)).collect();
    let mut next = 0;
    move |operations| {
        timed(|| {
            for _ in 0..operations {
                let (victim, len) = steps[next % steps.len()];
                next += 1;
                held[victim as usize] = None;
                held[victim as usize] = memory.claim(len as usize);
            }
        })
    }
}

/// The same work on two threads at once; nanoseconds are those of the slower, per operation of its own.
fn on_two_threads<M: Memory>(memory: &M, len: usize) -> impl FnMut(usize) -> Duration + use<'_, M> {
    let barrier = std::sync::Barrier::new(2);
    move |operations| {
        let work = || {
            barrier.wait();
            claim_and_drop(memory, len)(operations)
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(work);
            let mine = work();
            mine.max(other.join().unwrap())
        })
    }
}

/// An arena `percent` full of blocks of `len` with holes all over, and the claims that keep it so.
fn filled(memory: &Ours, percent: usize, len: usize) -> Vec<uring_arena::Buffer> {
    let mut held: Vec<_> = std::iter::from_fn(|| memory.claim(len)).collect();
    let mut random = Random(99);
    let keep = held.len() * percent / 100;
    while held.len() > keep {
        held.swap_remove(random.next() % held.len());
    }
    held
}

/// Claims 16 blocks and drops them again, where `percent` of the arena is held for ever.
fn beside_held(memory: &Ours, percent: usize, len: usize) -> impl FnMut(usize) -> Duration + use<'_> {
    let held = filled(memory, percent, len);
    let mut few = Vec::with_capacity(16);
    move |operations| {
        black_box(&held);
        timed(|| {
            for _ in 0..operations.div_ceil(16) {
                few.extend((0..16).map(|_| memory.claim(len).unwrap()));
                few.clear();
            }
        })
    }
}

/// Random churn to 75 % full; then the largest free block and the 64 KiB blocks that can still be claimed.
fn fragmentation<B>(name: &str, total: usize, claim: impl Fn(usize) -> Option<B>) {
    let mut random = Random(0xF00D_F00D);
    let (mut held, mut live) = (Vec::new(), 0);
    for _ in 0..400_000 {
        let bytes = any_scale(&mut random);
        if live + bytes <= total / 4 * 3
            && let Some(block) = claim(bytes)
        {
            live += bytes.next_power_of_two();
            held.push((block, bytes));
            continue;
        }
        if !held.is_empty() {
            let (block, bytes) = held.swap_remove(random.next() % held.len());
            drop(block);
            live -= bytes.next_power_of_two();
        }
    }
    let largest =
        (0..).map(|order| total >> order).take_while(|&bytes| bytes >= 256).find(|&b| claim(b).is_some());
    let runs: Vec<_> = std::iter::from_fn(|| claim(64 << 10)).collect();
    println!(
        "{name:<52} live {:5.1} %   largest free block {:6} KiB   free 64 KiB blocks {:4} of {}",
        live as f64 * 100.0 / total as f64,
        largest.unwrap_or(0) >> 10,
        runs.len(),
        (total - live) / (64 << 10)
    );
}

fn main() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let wanted = |name: &str| name.contains(&filter);
    const TOTAL: usize = 64 * MIB;

    for (name, len, limit) in [
        ("256 B alone / peer", 256, 0.01),
        ("4096 B alone / peer", 4096, 0.10),
        ("16384 B alone / peer", 16384, 0.15),
    ] {
        if wanted(name) {
            let (ours, peer) = (ours(TOTAL, 256), peer(TOTAL, 256));
            compare(name, limit, claim_and_drop(&ours, len), claim_and_drop(&peer, len));
        }
    }

    if wanted("random mix") {
        let (ours, peer) = (ours(TOTAL, 256), peer(TOTAL, 256));
        let name = "random mix 256 B - 64 KiB, 512 live / peer";
        compare(
            name,
            0.25,
            random_mix(&ours, 512, any_length::<65536>),
            random_mix(&peer, 512, any_length::<65536>),
        );
        let name = "random mix 256 B - 64 KiB, 512 live / BytesMut";
        compare(
            name,
            0.20,
            random_mix(&ours, 512, any_length::<65536>),
            random_mix(&Heap, 512, any_length::<65536>),
        );
        let name = "random mix of scales 256 B - 64 KiB, 512 live / peer";
        compare(name, 0.25, random_mix(&ours, 512, any_scale), random_mix(&peer, 512, any_scale));
        let name = "random mix of scales 256 B - 64 KiB, 512 live / BytesMut";
        compare(name, 0.20, random_mix(&ours, 512, any_scale), random_mix(&Heap, 512, any_scale));
    }

    if wanted("two threads") {
        let (ours, peer) = (ours(TOTAL, 256), peer(TOTAL, 256));
        compare("two threads 4096 B / peer", 0.05, on_two_threads(&ours, 4096), on_two_threads(&peer, 4096));
        let alone = claim_and_drop(&ours, 4096);
        compare("two threads 4096 B / one thread", 1.5, on_two_threads(&ours, 4096), alone);
    }

    if wanted("arena size") {
        let (large, small) = (ours(1024 * MIB, 256), ours(16 * MIB, 256));
        let name = "arena size: 4096 B, two threads, 1 GiB / 16 MiB";
        compare(name, 1.2, on_two_threads(&large, 4096), on_two_threads(&small, 4096));
        let name = "arena size: 4096 B alone, 1 GiB / 16 MiB";
        compare(name, 1.2, claim_and_drop(&large, 4096), claim_and_drop(&small, 4096));
        let name = "arena size: mix to 16 KiB, 512 live, 1 GiB / 16 MiB";
        compare(
            name,
            1.2,
            random_mix(&large, 512, any_length::<16384>),
            random_mix(&small, 512, any_length::<16384>),
        );
    }

    if wanted("fill") {
        for len in [256, 4096, 65536] {
            let (full, half) = (ours(TOTAL, 256), ours(TOTAL, 256));
            let name = format!("fill: {len} B, 90 % / 10 % full");
            compare(&name, 1.2, beside_held(&full, 90, len), beside_held(&half, 10, len));
        }
    }

    if wanted("fragmentation") {
        let (ours, peer, offsets) = (ours(TOTAL, 256), peer(TOTAL, 256), Offsets::new(TOTAL));
        fragmentation("fragmentation: ours", TOTAL, |len| ours.claim(len));
        fragmentation("fragmentation: peer", TOTAL, |len| peer.claim(len));
        fragmentation("fragmentation: offset-allocator", TOTAL, |len| offsets.claim(len));
    }
}
