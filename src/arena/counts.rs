//! The counts that both kinds of arena have, and their names among the metrics.

use crate::lease::Handle;
use crate::metrics::MetricsPart;
use crate::slots::Allocator;
use crate::sync::Ordering;
use crate::wait::WaitCounts;

/// The counts of an arena, whatever its mode.
pub(super) struct ArenaCounts {
    pub(super) claims: u64,
    pub(super) refusals: u64,
    pub(super) frees: u64,
    pub(super) frozen: u64,
    pub(super) spills: u64,
    pub(super) bytes_reserved: usize,
    pub(super) bytes_live: usize,
    pub(super) bytes_live_max: usize,
    pub(super) quarantined: u64,
    pub(super) waits: WaitCounts,
}

/// The help texts of counts, which name what an arena consists of.
pub(super) struct CountTexts {
    pub(super) refusals: &'static str,
    pub(super) frees: &'static str,
    pub(super) freezes: &'static str,
    pub(super) reserved: &'static str,
    pub(super) live: &'static str,
}

impl ArenaCounts {
    /// Takes the counts of an arena. It walks over the whole allocator.
    pub(super) fn of(handle: &Handle) -> ArenaCounts {
        let live = handle.note_live();
        let live_claims = match &handle.allocator {
            Allocator::Slots(_) => live as u64,
            Allocator::Blocks(_) => handle.live_blocks(),
        };
        let waits = handle.waiters.counts();
        let claims = handle.claims();
        // Relaxed: counters.
        ArenaCounts {
            claims,
            refusals: handle.waiters.refusals(),
            frees: claims.saturating_sub(live_claims),
            frozen: handle.frozen(),
            spills: handle.counters.spills.load(Ordering::Relaxed),
            bytes_reserved: handle.region.len(),
            bytes_live: live * handle.slot_bytes,
            bytes_live_max: handle.live_max() * handle.slot_bytes,
            quarantined: handle.counters.quarantined.load(Ordering::Relaxed),
            waits,
        }
    }

    /// Adds what happened to claims.
    pub(super) fn add_claims(&self, part: MetricsPart, texts: &CountTexts) -> MetricsPart {
        part.counter("uring_arena_claims_total", "Claims that were served", self.claims)
            .counter("uring_arena_refusals_total", texts.refusals, self.refusals)
            .counter("uring_arena_frees_total", texts.frees, self.frees)
            .counter("uring_arena_freezes_total", texts.freezes, self.frozen)
            .counter("uring_arena_spills_total", "Buffers that moved to the heap", self.spills)
    }

    /// Adds the bytes.
    pub(super) fn add_bytes(&self, part: MetricsPart, texts: &CountTexts) -> MetricsPart {
        part.bytes("uring_arena_reserved_bytes", texts.reserved, self.bytes_reserved)
            .bytes("uring_arena_live_bytes", texts.live, self.bytes_live)
            .bytes(
                "uring_arena_live_max_bytes",
                "Most bytes known to be in use at one time",
                self.bytes_live_max,
            )
    }

    /// Adds the waits.
    pub(super) fn add_waits(&self, part: MetricsPart) -> MetricsPart {
        let WaitCounts { waiters, waiters_max, waits, longest_wait, .. } = self.waits;
        part.gauge("uring_arena_waiters", "Claimants that wait now", waiters)
            .gauge("uring_arena_waiters_max", "Most claimants that waited at one time", waiters_max)
            .counter("uring_arena_waits_total", "Waits that began", waits)
            .time("uring_arena_longest_wait_seconds", "Longest wait", longest_wait)
    }
}
