//! The list of cases: what each is called, who can do it, and which file does it.

use crate::harness::{Effort, Work};

use super::churn;
use super::memory::Memory;
use super::random::Random;
use super::teams;

pub const MIB: usize = 1 << 20;
pub const TOTAL: usize = 64 * MIB;
pub const SMALLEST: usize = 256;

/// Blocks that are claimed where most of the arena is held, or nearly nothing.
pub const BESIDE_BYTES: [usize; 3] = [256, 4096, 65536];

/// One question to the contenders.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Case {
    Alone { bytes: usize },
    Lengths,
    Sizes,
    Threads { count: usize },
    Region { mib: usize },
    RegionLengths { mib: usize },
    Filled { percent: usize },
    Beside { bytes: usize, percent: usize },
    Larson,
    Passed,
    Burst,
}

pub fn groups(effort: Effort) -> Vec<Vec<Case>> {
    let mut groups: Vec<Vec<Case>> =
        [256, 1024, 4096, 16384].map(|bytes| vec![Case::Alone { bytes }]).to_vec();
    groups.push(vec![Case::Lengths]);
    groups.push(vec![Case::Sizes]);
    groups.push([1, 2, 4].map(|count| Case::Threads { count }).to_vec());
    groups.push([16, 1024].map(|mib| Case::Region { mib }).to_vec());
    groups.push([16, 1024].map(|mib| Case::RegionLengths { mib }).to_vec());
    let percents: &[usize] = effort.choose(&[10, 90], &[10, 50, 75, 90]);
    groups.push(percents.iter().map(|&percent| Case::Filled { percent }).collect());
    let beside = |bytes| [10, 90].map(|percent| Case::Beside { bytes, percent }).to_vec();
    groups.extend(BESIDE_BYTES.map(beside));
    groups.extend([Case::Larson, Case::Passed, Case::Burst].map(|case| vec![case]));
    groups
}

impl Case {
    pub fn key(self) -> String {
        match self {
            Self::Alone { bytes } => format!("alone-{bytes}"),
            Self::Threads { count } => format!("threads-{count}"),
            Self::Region { mib } => format!("region-{mib}"),
            Self::RegionLengths { mib } => format!("region-lengths-{mib}"),
            Self::Filled { percent } => format!("filled-{percent}"),
            Self::Beside { bytes, percent } => format!("beside-{bytes}-{percent}"),
            other => format!("{other:?}").to_lowercase(),
        }
    }

    pub fn title(self) -> String {
        match self {
            Self::Alone { bytes } => format!("{bytes} B alone"),
            Self::Lengths => "Random lengths 256 B – 64 KiB, 512 live, one replaced".into(),
            Self::Sizes => "Random powers of two 256 B – 64 KiB, 512 live, one replaced".into(),
            Self::Threads { count: 1 } => "4096 B on 1 thread".into(),
            Self::Threads { count } => {
                format!("4096 B on {count} threads (core time per operation)")
            }
            Self::Region { mib } => format!("4096 B from an arena of {mib} MiB"),
            Self::RegionLengths { mib } => {
                format!(
                    "Random lengths 256 B – 16 KiB, 512 live, one replaced, from an arena of {mib} MiB"
                )
            }
            Self::Beside { bytes, percent } => {
                format!(
                    "16 × {bytes} B claimed and dropped, {percent} % of the arena held in such blocks"
                )
            }
            Self::Filled { percent } => {
                format!("4096 B replaced at random, arena {percent} % full")
            }
            Self::Larson => {
                "Two threads replace at random and exchange what they hold (larson)".into()
            }
            Self::Passed => {
                "Claimed on one thread, dropped on another, random powers of two (xmalloc)".into()
            }
            Self::Burst => {
                "256 claimed, then dropped in another order, random powers of two (mstress)".into()
            }
        }
    }

    /// What needs an end does not suit the heap.
    pub fn suits<M: Memory>(self) -> bool {
        M::BOUNDED
            || !matches!(
                self,
                Self::Region { .. }
                    | Self::RegionLengths { .. }
                    | Self::Filled { .. }
                    | Self::Beside { .. }
            )
    }

    pub fn prepare<M: Memory>(self) -> Work<'static> {
        let memory = |total| M::new(total, SMALLEST);
        match self {
            Self::Alone { bytes } => churn::alone(memory(TOTAL), bytes),
            Self::Lengths => churn::replaced(memory(TOTAL), 512, Random::length),
            Self::Sizes => churn::replaced(memory(TOTAL), 512, Random::size),
            Self::Threads { count } => teams::alone(memory(TOTAL), 4096, count),
            Self::Region { mib } => churn::alone(memory(mib * MIB), 4096),
            Self::RegionLengths { mib } => churn::replaced(memory(mib * MIB), 512, Random::short),
            Self::Beside { bytes, percent } => churn::beside(memory(TOTAL), percent, bytes),
            Self::Filled { percent } => churn::filled(memory(TOTAL), percent, 4096),
            Self::Larson => teams::larson(memory(TOTAL)),
            Self::Passed => teams::passed(memory(TOTAL)),
            Self::Burst => churn::burst(memory(TOTAL)),
        }
    }
}
