//! Looking at the whole map: for metrics and for tests. Exact while nobody claims or frees.

use super::BuddyAllocator;
use super::levels::{At, CHILDREN, first_unit, span_of};
use super::runs::{SPAN_MAX, count_runs, longest_span, run_mask};
use super::word::{Child, Word};

/// What can be said of a word and all below it.
#[derive(Debug, Clone, Copy)]
struct Part {
    empty: bool,
    largest: Option<u32>,
}

impl BuddyAllocator {
    /// Units that are claimed.
    pub(crate) fn live_units(&self) -> u64 {
        self.levels
            .iter()
            .map(|at| {
                let claimed = self.load(at).claimed(at.level) & !self.levels.pinned(at.level);
                u64::from(claimed.count_ones()) << (4 * at.level)
            })
            .sum()
    }

    /// Units that are claimed in the place of a block of `order`, by blocks that are smaller than
    /// it.
    pub(crate) fn live_min_blocks_in(&self, first: u32, order: u32) -> u64 {
        let (at, bit) = self.levels.place(first, order);
        let mask = self.levels.order(order).mask_at(bit);
        let own =
            u64::from((self.load(at).claimed(at.level) & mask).count_ones()) << (4 * at.level);
        let below = (0..at.level).flat_map(|level| {
            // Words of lower levels lie in the place as a whole.
            let word = At { level, index: 0 }.order();
            (first >> word..(first >> word) + (1 << (order - word)))
                .map(move |index| At { level, index })
        });
        own + below
            .map(|at| u64::from(self.load(at).claimed(at.level).count_ones()) << (4 * at.level))
            .sum::<u64>()
    }

    /// Hands each claimed block to `each`, with the units of it that are claimed; `order_at` knows
    /// the order of the block that starts at a unit.
    pub(crate) fn for_each_claimed(
        &self,
        order_at: impl Fn(u32) -> u32,
        mut each: impl FnMut(u32, u64),
    ) {
        for at in self.levels.iter() {
            self.for_each_claimed_in(at, &order_at, &mut each);
        }
    }

    fn for_each_claimed_in(
        &self,
        at: At,
        order_at: &impl Fn(u32) -> u32,
        each: &mut impl FnMut(u32, u64),
    ) {
        let mut claimed = self.load(at).claimed(at.level) & !self.levels.pinned(at.level);
        while claimed != 0 {
            let bit = claimed.trailing_zeros();
            let first = first_unit(at, bit);
            // While blocks come and go the order may be another's: keep to this word, and to what
            // is claimed.
            let span = order_at(first).saturating_sub(4 * at.level).min(SPAN_MAX);
            let run = claimed & (run_mask(span) << bit);
            claimed &= !run;
            each(first, u64::from(run.count_ones()) << (4 * at.level));
        }
    }

    /// The first unit of the claimed block that `unit` lies in.
    pub(crate) fn block_around(&self, unit: u32, order_at: impl Fn(u32) -> u32) -> Option<u32> {
        let mut around = None;
        for level in 0..=self.levels.root().level {
            let index = unit >> At { level, index: 0 }.order();
            self.for_each_claimed_in(At { level, index }, &order_at, &mut |first, units| {
                if u64::from(unit.wrapping_sub(first)) < units {
                    around = Some(first);
                }
            });
        }
        around
    }

    /// Order of the largest block that a claim could get, `None` if every unit is claimed.
    pub(crate) fn largest_free_order(&self) -> Option<u32> {
        self.part(self.levels.root()).largest
    }

    /// How many blocks of `order` could be claimed one after the other.
    pub(crate) fn free_runs(&self, order: u32) -> u64 {
        if order > self.levels.max_order() {
            return 0;
        }
        self.runs_in(self.levels.root(), order)
    }

    fn runs_in(&self, at: At, order: u32) -> u64 {
        let word = self.load(at);
        if word.is_sealed() {
            return 1 << (at.order() - order);
        }
        let level = self.levels.level_of(order);
        if at.level == level {
            let occupied = self.occupied_but_for_empties(at, word);
            return u64::from(count_runs(occupied, span_of(order, level)));
        }
        (0..CHILDREN as u32)
            .filter(|child| self.levels.pinned(at.level) & (0b11 << (2 * child)) == 0)
            .map(|child| match word.child(child) {
                Child::Free => 1 << (at.child(child).order() - order),
                Child::Open | Child::Closing => self.runs_in(at.child(child), order),
                Child::Taken => 0,
            })
            .sum()
    }

    fn part(&self, at: At) -> Part {
        let word = self.load(at);
        if word.is_sealed() {
            return Part { empty: true, largest: Some(at.order()) };
        }
        let below = if at.level == 0 { 0 } else { word.handed_down() };
        let largest_below = (0..CHILDREN as u32)
            .filter(|child| below & (1 << child) != 0)
            .filter_map(|child| self.part(at.child(child)).largest)
            .max();
        let occupied = self.occupied_but_for_empties(at, word);
        let own = longest_span(occupied).map(|span| 4 * at.level + span);
        Part {
            empty: occupied & !self.levels.pinned(at.level) == 0,
            largest: own.max(largest_below),
        }
    }

    /// Occupied bits, where children that are open and empty count as free.
    fn occupied_but_for_empties(&self, at: At, word: Word) -> u32 {
        let mut occupied = self.occupied(at, word);
        if at.level > 0 {
            let handed = word.handed_down();
            for child in (0..CHILDREN as u32).filter(|child| handed & (1 << child) != 0) {
                if self.part(at.child(child)).empty {
                    occupied &= !(0b11 << (2 * child));
                }
            }
        }
        occupied
    }

    /// Derives the invariants of `handover` again, and that `live_units` are claimed. For moments
    /// at which nobody claims or frees.
    #[cfg(test)]
    pub(super) fn debug_check(&self, live_units: u64) {
        assert_eq!(self.live_units(), live_units, "units claimed");
        let root = self.load(self.levels.root());
        assert!(!root.is_sealed(), "the root has no parent to belong to");
        for at in self.levels.iter() {
            let word = self.load(at);
            assert!(!word.is_sealed() || word.state() == 0, "{at:?} is sealed with claims in it");
            assert_eq!(word.state() & self.levels.pinned(at.level), 0, "{at:?}: beyond the end");
            if at.level == 0 {
                continue;
            }
            for child in 0..CHILDREN as u32 {
                if self.levels.pinned(at.level) & (0b11 << (2 * child)) != 0 {
                    continue;
                }
                let below = self.load(at.child(child));
                match word.child(child) {
                    Child::Free | Child::Taken => {
                        assert!(below.is_sealed(), "{at:?} owns child {child}, which is open");
                    }
                    Child::Open => {}
                    Child::Closing => panic!("{at:?} never finished with child {child}"),
                }
            }
        }
    }
}
