//! The cases, each with the loop that measures it.

use std::hint::black_box;
use std::io;
use std::iter::from_fn;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::measure::{Age, Random, Team, aged, hand_over};
use crate::report::OURS;
use crate::run::{Case, Contender, Effort, Method, Metric, NANOS, Sample, Work, metric, repeat};

use super::memory::Memory;

const MIB: usize = 1 << 20;
const TOTAL: usize = 64 * MIB;
const SMALLEST: usize = 256;

/// One question to the contenders.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Buddy {
    /// One block at a time.
    Alone(usize),
    /// A number of live blocks; each operation drops one of them and claims another.
    Lengths,
    Sizes,
    Threads(usize),
    Region(usize),
    RegionLengths(usize),
    /// An arena filled with blocks of one length; each operation moves one of the holes.
    Filled(usize),
    /// A batch of 16 blocks, where so much of the arena is held for ever, with holes anywhere.
    Beside(usize, usize),
    /// Blocks of 4096 B on so many threads, in an arena with a history.
    Aged(Age, usize),
    /// Two threads that hold 256 blocks each and replace them at random. Every 1024 operations each
    /// leaves its own to the other, so most drops meet blocks of the other thread.
    Larson,
    Passed,
    /// A growth to 256 blocks, then a shrinking to none in another order.
    Burst,
    /// An exact count of what is left after random churn at so much full.
    Churned(usize),
}

impl Case for Buddy {
    fn label(&self) -> String {
        match self {
            Self::Alone(bytes) => format!("alone-{bytes}: {bytes} B alone"),
            Self::Lengths => {
                "lengths: Random lengths 256 B – 64 KiB, 512 live, one replaced".into()
            }
            Self::Sizes => {
                "sizes: Random powers of two 256 B – 64 KiB, 512 live, one replaced".into()
            }
            Self::Threads(1) => "threads-1: 4096 B on 1 thread".into(),
            Self::Threads(count) => {
                format!("threads-{count}: 4096 B on {count} threads (core time per operation)")
            }
            Self::Region(mib) => format!("region-{mib}: 4096 B from an arena of {mib} MiB"),
            Self::RegionLengths(mib) => format!(
                "region-lengths-{mib}: Random lengths 256 B – 16 KiB, 512 live, one replaced, from \
                 an arena of {mib} MiB"
            ),
            Self::Filled(percent) => {
                format!("filled-{percent}: 4096 B replaced at random, arena {percent} % full")
            }
            Self::Beside(bytes, percent) => format!(
                "beside-{bytes}-{percent}: 16 × {bytes} B claimed and dropped, {percent} % of the \
                 arena held in such blocks"
            ),
            Self::Aged(age, count) => {
                let key = age.key();
                format!("aged-{key}-{count}: 4096 B on {count} threads, arena {key}")
            }
            Self::Larson => {
                "larson: Two threads replace at random and exchange what they hold (larson)".into()
            }
            Self::Passed => "passed: Claimed on one thread, dropped on another, random powers of \
                             two (xmalloc)"
                .into(),
            Self::Burst => "burst: 256 claimed, then dropped in another order, random powers of \
                            two (mstress)"
                .into(),
            Self::Churned(percent) => {
                format!("churned-{percent}: After random churn at {percent} % full")
            }
        }
    }

    fn metrics(&self) -> &'static [Metric] {
        const LEFT: &[Metric] = &[
            metric("largest", "largest free block", "KiB", 1.0),
            metric("runs", "blocks of 64 KiB that still fit", "number", 1.0),
        ];
        if matches!(self, Self::Churned(..)) { LEFT } else { NANOS }
    }

    fn method(&self, effort: Effort) -> Method {
        match self {
            Self::Churned(..) => Method::once(effort.choose(100_000, 1_000_000)),
            _ => Method::micro(effort),
        }
    }
}

impl<M: Memory> Contender<Buddy> for PhantomData<M> {
    fn name(&self) -> &'static str {
        M::NAME
    }

    fn note(&self) -> &'static str {
        M::NOTE
    }

    fn suits(&self, case: &Buddy, _: Effort) -> bool {
        use Buddy::{Beside, Churned, Filled, Region, RegionLengths};
        let needs_an_end =
            matches!(case, Region(..) | RegionLengths(..) | Filled(..) | Beside(..) | Churned(..));
        let ages = matches!(case, Buddy::Aged(..));
        (M::BOUNDED || !needs_an_end) && (M::NAME == OURS || !ages)
    }

    fn start(&self, case: &Buddy, _: &Path) -> io::Result<Work> {
        let total = match case {
            Buddy::Region(mib) | Buddy::RegionLengths(mib) => mib * MIB,
            _ => TOTAL,
        };
        start(M::new(total, SMALLEST), *case)
    }
}

fn start<M: Memory>(memory: M, case: Buddy) -> io::Result<Work> {
    match case {
        Buddy::Alone(bytes) => repeat(1, move || claim_and_drop(&memory, bytes)),
        Buddy::Region(..) => repeat(1, move || claim_and_drop(&memory, 4096)),
        Buddy::Lengths => replaced(memory, |random| 256 + random.below(65536 - 255)),
        Buddy::Sizes => replaced(memory, size),
        Buddy::RegionLengths(..) => replaced(memory, |random| 256 + random.below(16384 - 255)),
        Buddy::Filled(percent) => {
            let mut random = Random::new(13);
            let mut held = fill(&memory, percent, 4096, &mut random);
            repeat(1, move || {
                let victim = random.below(held.len());
                held[victim] = None;
                held[victim] = Some(memory.claim(4096).expect("the block just dropped fits again"));
            })
        }
        Buddy::Beside(bytes, percent) => {
            let held = fill(&memory, percent, bytes, &mut Random::new(37));
            let mut few = Vec::with_capacity(16);
            repeat(16, move || {
                black_box(&held);
                let claim = |_| memory.claim(black_box(bytes)).expect("a tenth of it is free");
                few.extend((0..16).map(claim));
                few.clear();
            })
        }
        Buddy::Burst => {
            let mut random = Random::new(17);
            let mut held = Vec::with_capacity(256);
            repeat(256, move || {
                held.extend((0..256).map(|_| memory.claim(size(&mut random))));
                random.thin_out(&mut held, 0);
            })
        }
        Buddy::Threads(count) => {
            let team = Team::new(count);
            Ok(Box::new(move |times| {
                let (memory, each) = (memory.clone(), times.div_ceil(count as u64));
                let spent =
                    team.run(move |_| (0..each).for_each(|_| claim_and_drop(&memory, 4096)));
                Ok(Sample::nanos(spent.processor, each * count as u64))
            }))
        }
        Buddy::Aged(age, count) => aged(age, count, move || memory.claim(4096)),
        Buddy::Larson => larson(memory),
        Buddy::Passed => {
            let (team, mut random) = (Team::on_cores(1, 1), Random::new(29));
            let mut make = move || memory.claim(size(&mut random));
            Ok(Box::new(move |times| {
                Ok(Sample::default().with("ns", hand_over(&team, times, &mut make)))
            }))
        }
        Buddy::Churned(percent) => Ok(Box::new(move |times| Ok(churned(&memory, percent, times)))),
    }
}

/// Draws a power of two from 256 B to 64 KiB, each as often: most are small.
#[inline]
fn size(random: &mut Random) -> usize {
    256 << random.below(9)
}

#[inline(always)]
fn claim_and_drop<M: Memory>(memory: &M, bytes: usize) {
    let block = claim_at_last(memory, black_box(bytes));
    black_box(&block);
    drop(block);
}

/// Claims where there is always room: a contender that refuses because another thread splits at
/// that moment is asked again.
#[inline]
fn claim_at_last<M: Memory>(memory: &M, bytes: usize) -> M::Block {
    loop {
        if let Some(block) = memory.claim(bytes) {
            return block;
        }
    }
}

/// The victims and lengths, drawn beforehand: drawing costs as much as a claim.
struct Steps {
    list: Vec<(u32, u32)>,
    next: usize,
}

impl Steps {
    const COUNT: usize = 1 << 14;

    fn draw(random: &mut Random, live: usize, length: fn(&mut Random) -> usize) -> Self {
        let draw = |_| (random.below(live) as u32, length(random) as u32);
        Self { list: (0..Self::COUNT).map(draw).collect(), next: 0 }
    }

    /// Replaces one of the blocks.
    #[inline(always)]
    fn replace<M: Memory>(&mut self, memory: &M, held: &mut [Option<M::Block>]) {
        let (victim, bytes) = self.list[self.next % Self::COUNT];
        self.next += 1;
        held[victim as usize] = None;
        held[victim as usize] = Some(claim_at_last(memory, bytes as usize));
    }
}

fn replaced<M: Memory>(memory: M, length: fn(&mut Random) -> usize) -> io::Result<Work> {
    let mut random = Random::new(11);
    let mut held: Vec<_> = (0..512).map(|_| memory.claim(length(&mut random))).collect();
    let mut steps = Steps::draw(&mut random, 512, length);
    repeat(1, move || steps.replace(&memory, &mut held))
}

fn larson<M: Memory>(memory: M) -> io::Result<Work> {
    let team = Team::new(2);
    let mut random = Random::new(19);
    let mut set = || (0..256).map(|_| memory.claim(size(&mut random))).collect::<Vec<_>>();
    let sets = Arc::new([Mutex::new(set()), Mutex::new(set())]);
    Ok(Box::new(move |times| {
        let turns = times.div_ceil(2 * 1024).max(1);
        let (memory, sets) = (memory.clone(), sets.clone());
        let spent = team.run(move |thread| {
            let mut steps = Steps::draw(&mut Random::new(23 + thread as u64), 256, size);
            for turn in 0..turns as usize {
                let mut set = sets[(thread + turn) % 2].lock().expect("not poisoned");
                (0..1024).for_each(|_| steps.replace(&memory, &mut set));
            }
        });
        Ok(Sample::nanos(spent.processor, turns * 2 * 1024))
    }))
}

/// Holds so much of the arena in blocks of one length.
fn fill<M: Memory>(
    memory: &M,
    percent: usize,
    bytes: usize,
    random: &mut Random,
) -> Vec<Option<M::Block>> {
    let mut held: Vec<_> = from_fn(|| memory.claim(bytes)).map(Some).collect();
    let left = held.len() * percent / 100;
    random.thin_out(&mut held, left);
    held
}

/// Claims and drops powers of two at random, never more than so much full, and looks what is left.
fn churned<M: Memory>(memory: &M, percent: usize, times: u64) -> Sample {
    let (mut held, mut live) = (Vec::new(), 0);
    let mut random = Random::new(31);
    for _ in 0..times {
        let bytes = size(&mut random);
        if live + bytes <= TOTAL / 100 * percent
            && let Some(block) = memory.claim(bytes)
        {
            live += bytes;
            held.push((block, bytes));
        } else if !held.is_empty() {
            live -= held.swap_remove(random.below(held.len())).1;
        }
    }
    // Powers of two are what is asked for.
    let mut sizes = (0..).map(|order| TOTAL >> order).take_while(|&bytes| bytes >= SMALLEST);
    let largest = sizes.find(|&bytes| memory.claim(bytes).is_some()).unwrap_or(0);
    let runs = from_fn(|| memory.claim(65536)).collect::<Vec<_>>().len();
    Sample::default().with("largest", largest as f64 / 1024.0).with("runs", runs as f64)
}
