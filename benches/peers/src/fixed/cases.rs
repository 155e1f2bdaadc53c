//! The list of cases: what each is called, who can do it, and which file does it.

use crate::harness::{Effort, Work};

use super::peers::Bare;
use super::pool::Pool;
use super::{batch, claim_drop, fill, full, hand_over, puts, round_trip, spill, threads, zero};

/// One question to the contenders.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Case {
    ClaimDrop,
    RoundTrip { bytes: usize },
    Puts,
    Held { slots: usize },
    Threads { count: usize },
    HandOver { droppers: usize },
    Full,
    Batch,
    Spill,
    Zero { bytes: usize },
}

/// All that `effort` has time for. The cases of one group are interleaved with each other as well,
/// because they are compared with each other: one thread with two, an empty arena with a full one.
pub fn groups(effort: Effort) -> Vec<Vec<Case>> {
    let held: &[usize] = effort.choose(&[0, 768, 1000], &[0, 256, 512, 768, 922, 1000, 1023]);
    let droppers: &[usize] = effort.choose(&[1, 2], &[1, 2, 3, 4]);
    let mut groups = vec![vec![Case::ClaimDrop]];
    groups.extend([64, 256, 1024, 4096].map(|bytes| vec![Case::RoundTrip { bytes }]));
    groups.push(vec![Case::Puts]);
    groups.push(held.iter().map(|&slots| Case::Held { slots }).collect());
    groups.push([1, 2, 4, 8].map(|count| Case::Threads { count }).to_vec());
    groups.extend(droppers.iter().map(|&droppers| vec![Case::HandOver { droppers }]));
    groups.extend([Case::Full, Case::Batch, Case::Spill].map(|case| vec![case]));
    groups.extend([64, 4096].map(|bytes| vec![Case::Zero { bytes }]));
    groups
}

impl Case {
    /// Short and stable: the child is told by it, figures and plots find their rows by it.
    pub fn key(self) -> String {
        match self {
            Self::ClaimDrop => "claim-drop".into(),
            Self::RoundTrip { bytes } => format!("round-trip-{bytes}"),
            Self::Puts => "puts".into(),
            Self::Held { slots } => format!("held-{slots}"),
            Self::Threads { count } => format!("threads-{count}"),
            Self::HandOver { droppers } => format!("hand-over-{droppers}"),
            Self::Full => "full".into(),
            Self::Batch => "batch".into(),
            Self::Spill => "spill".into(),
            Self::Zero { bytes } => format!("zero-{bytes}"),
        }
    }

    pub fn parse(key: &str) -> Option<Self> {
        // Any number of threads, for the sweep of a host with many cores.
        if let Some(count) = key.strip_prefix("threads-") {
            return Some(Self::Threads { count: count.parse().ok()? });
        }
        groups(Effort::full()).into_iter().flatten().find(|case| case.key() == key)
    }

    pub fn title(self) -> String {
        match self {
            Self::ClaimDrop => "Claim and drop".into(),
            Self::RoundTrip { bytes } => format!("Claim, write {bytes} B, freeze, drop"),
            Self::Puts => "Claim, 64 × `put_u32`, freeze, drop".into(),
            Self::Held { slots } => {
                format!("Claim, write 64 B, freeze, drop with {slots} of 1024 slots held")
            }
            Self::Threads { count: 1 } => "Claim, write 64 B, freeze, drop on 1 thread".into(),
            Self::Threads { count } => {
                format!(
                    "Claim, write 64 B, freeze, drop on {count} threads (core time per operation)"
                )
            }
            Self::HandOver { droppers } => {
                format!("Claimed and frozen here, dropped on another thread (1 → {droppers})")
            }
            Self::Full => "Claim refused: every slot is held".into(),
            Self::Batch => "Claim 32, drop 32 (per slot)".into(),
            Self::Spill => "Write 5000 B into a slot of 4096 B, freeze, drop".into(),
            Self::Zero { bytes } => {
                format!("Nothing of an earlier owner visible: claim, write {bytes} B, drop")
            }
        }
    }

    /// Whether the contender can do this at all.
    pub fn suits<P: Pool>(self) -> bool {
        match self {
            Self::Full => P::BOUNDED,
            Self::Spill => P::SPILLS,
            Self::Zero { .. } => P::ZEROES,
            // Without slots of its own there is nothing to hold, and one slot cannot be in two
            // places.
            Self::Held { .. } | Self::HandOver { .. } | Self::Batch => P::NAME != Bare::NAME,
            _ => true,
        }
    }

    pub fn prepare<P: Pool>(self) -> Work<'static> {
        match self {
            Self::ClaimDrop => claim_drop::prepare::<P>(),
            Self::RoundTrip { bytes } => round_trip::prepare::<P>(bytes),
            Self::Puts => puts::prepare::<P>(),
            Self::Held { slots } => fill::prepare::<P>(slots),
            Self::Threads { count } => threads::prepare::<P>(count),
            Self::HandOver { droppers } => hand_over::prepare::<P>(droppers),
            Self::Full => full::prepare::<P>(),
            Self::Batch => batch::prepare::<P>(),
            Self::Spill => spill::prepare::<P>(),
            Self::Zero { bytes } => zero::prepare::<P>(bytes),
        }
    }
}
