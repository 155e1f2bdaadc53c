//! A claim that its preferred word did not serve.
//!
//! First by the hints, from the preferred word upwards, so that a thread stays in its own part of
//! the region; then through everything. Only the second search may refuse, and only after it
//! has seen the same versions twice: if a whole pass finds nothing, and the next pass finds the
//! same versions in the same words, then nothing was freed, handed down or taken back between
//! them, and at the instant between the passes no such block was free.

use super::BuddyAllocator;
use super::handover::Entered;
use super::hints::{Fields, field, field_whole, order_of};
use super::levels::{At, Order, first_unit, span_of};
use super::lines::Trail;
use super::pass::{Pass, bits};
use super::runs::{find_run, longest_span, run_mask};
use super::word::{Child, Word};
use crate::sync::Ordering;

impl BuddyAllocator {
    #[inline(never)]
    pub(super) fn claim_elsewhere(&self, trail: &Trail, order: u32) -> Option<u32> {
        let known = self.levels.order(order);
        let at = known.at(trail.served());
        let found = self.search_nearby(at, trail, known, order).or_else(|| self.search(order));
        if let Some(first) = found {
            trail.set_served(self.levels.place(first, order).0.index);
        }
        found
    }

    /// Keeps threads apart: a thread's first claim opens a word of its own, and rows are looked for
    /// beside the last one.
    fn search_nearby(&self, at: At, trail: &Trail, known: &Order, order: u32) -> Option<u32> {
        if trail.is_cold() {
            trail.set_served(at.index);
            return if self.open(at) { self.claim_in(at.index, known) } else { None };
        }
        if at.level > 0 || at.level == self.levels.top() {
            return None;
        }
        self.visit(at.parent(), &mut Pass::new(at.level, order, false))
    }

    /// Has a word and all above it handed down, if they are not claimed as a whole.
    fn open(&self, at: At) -> bool {
        if at.level == self.levels.top() || !self.load(at).is_sealed() {
            return true;
        }
        let (parent, child) = (at.parent(), at.child_number());
        if !self.open(parent) {
            return false;
        }
        let word = self.load(parent);
        if word.is_sealed()
            || (word.child(child) == Child::Free && !self.hand_down(parent, word, child))
        {
            return false;
        }
        self.enter(parent, child, 0) != Entered::Gone
    }

    fn hand_down(&self, at: At, word: Word, child: u32) -> bool {
        if !self.replace(at, word, word.with_child(child, Child::Open)) {
            return false;
        }
        // Relaxed: a counter.
        self.splits.fetch_add(1, Ordering::Relaxed);
        let below = at.child(child);
        self.hints.raise(&self.levels, below, below.order());
        true
    }

    /// From the root into whichever part promises the least that is enough, so that full parts fill
    /// up and empty ones stay whole for those who need them; then everywhere.
    pub(super) fn search(&self, order: u32) -> Option<u32> {
        let level = self.levels.level_of(order);
        let by_hints = || self.visit(self.levels.root(), &mut Pass::new(level, order, false));
        by_hints()
            .or_else(|| {
                // Threads keep their latest frees to themselves until somebody misses them.
                for (freed, index) in self.trails.all_freed() {
                    self.tell(self.levels.order(freed), index, 0);
                }
                by_hints()
            })
            .or_else(|| self.search_all(level, order))
    }

    pub(super) fn search_all(&self, level: u32, order: u32) -> Option<u32> {
        let mut last = None;
        loop {
            let mut pass = Pass::new(level, order, true);
            if let Some(first) = self.visit(self.levels.root(), &mut pass) {
                let (at, _) = self.levels.place(first, order);
                // The hints had missed it.
                if let Some(largest) = self.estimate(at) {
                    self.hints.raise(&self.levels, at, largest);
                }
                return Some(first);
            }
            let proof = (!pass.unsure).then_some(pass.digest);
            if proof.is_some() && proof == last {
                return None;
            }
            last = proof;
        }
    }

    fn visit(&self, at: At, pass: &mut Pass) -> Option<u32> {
        if at.level == pass.level {
            return self.visit_last(at, pass);
        }
        let word = self.load(at);
        pass.saw(at, word);
        if word.is_sealed() {
            pass.unsure = true;
            return None;
        }
        self.visit_handed_down(at, word, pass).or_else(|| self.visit_by_handing_down(at, pass))
    }

    /// Looks into the children that are open already, the fullest that may serve first.
    fn visit_handed_down(&self, at: At, word: Word, pass: &mut Pass) -> Option<u32> {
        let mut rest = word.handed_down();
        if pass.all {
            return bits(rest).find_map(|child| self.visit_child(at, child, pass));
        }
        if at.level == pass.level + 1 {
            let found = self.visit_tightest(at, rest, pass);
            // Rows have nothing below them to be taken back.
            if found.is_some() || pass.level == 0 {
                return found;
            }
        }
        let fields = self.hints.load(&self.levels, at);
        let enough = field(at.level - 1, pass.order);
        rest &= fields.at_least(enough);
        while let Some(child) = fields.tightest(rest, enough) {
            rest &= !(1 << child);
            let found = self.visit_child(at, child, pass);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Looks at the words below, which share two cache lines, and takes the one whose longest run
    /// is the shortest that serves.
    fn visit_tightest(&self, at: At, mut rest: u32, pass: &mut Pass) -> Option<u32> {
        let span = span_of(pass.order, pass.level);
        loop {
            let longest = |child| {
                let below = at.child(child);
                let word = self.load(below);
                // Sealed yet handed down: free as a whole, for who unseals it.
                let occupied = if word.is_sealed() { 0 } else { word.occupied(below.level) };
                longest_span(occupied)
                    .filter(|&longest| longest >= span)
                    .map(|longest| (longest, child))
            };
            let (_, child) = bits(rest).filter_map(longest).min()?;
            rest &= !(1 << child);
            let found = self.visit_child(at, child, pass);
            if found.is_some() {
                return found;
            }
        }
    }

    /// Hands down children that are free as a whole, until one serves.
    fn visit_by_handing_down(&self, at: At, pass: &mut Pass) -> Option<u32> {
        loop {
            let word = self.load(at);
            pass.saw(at, word);
            if word.is_sealed() {
                pass.unsure = true;
                return None;
            }
            // A child is two bits.
            let child = find_run(self.occupied(at, word), 1)? / 2;
            if self.hand_down(at, word, child) {
                let found = self.visit_child(at, child, pass);
                if found.is_some() {
                    return found;
                }
            }
            pass.unsure = true;
        }
    }

    fn visit_child(&self, at: At, child: u32, pass: &mut Pass) -> Option<u32> {
        let below = at.child(child);
        let claim =
            if below.level == pass.level { run_mask(span_of(pass.order, below.level)) } else { 0 };
        match self.enter(at, child, claim) {
            Entered::Unsealed if claim != 0 => return Some(first_unit(below, 0)),
            Entered::Unsealed | Entered::Open => {}
            Entered::Gone => {
                pass.unsure = true;
                return None;
            }
        }
        let fields = self.hints.load(&self.levels, at);
        let found = self.visit(below, pass);
        if found.is_none() {
            self.lower_hint(at, child, fields);
        }
        found
    }

    /// Tries the words in which blocks of this order are claimed.
    fn visit_last(&self, at: At, pass: &mut Pass) -> Option<u32> {
        let word = self.load(at);
        pass.saw(at, word);
        if word.is_sealed() {
            pass.unsure = true;
            return None;
        }
        if find_run(self.occupied(at, word), span_of(pass.order, at.level)).is_some() {
            let found = self.claim_in(at.index, self.levels.order(pass.order));
            if found.is_some() {
                return found;
            }
            pass.unsure = true;
        }
        if at.level == 0 { None } else { self.gather(at, word, pass) }
    }

    /// Claims a run whose children are free or open and empty, by taking the latter back.
    fn gather(&self, at: At, word: Word, pass: &mut Pass) -> Option<u32> {
        let span = span_of(pass.order, at.level);
        let blocked = word.claimed(at.level) | self.levels.pinned(at.level);
        for start in (0..32).step_by(1 << span) {
            let mask = run_mask(span) << start;
            if blocked & mask != 0 || !self.seems_empty(at, word, mask, pass) {
                continue;
            }
            let mut children = start / 2..(start + (1 << span)) / 2;
            if children.all(|child| self.take_back(at, child)) && self.claim_exactly(at, mask) {
                return Some(first_unit(at, start));
            }
            pass.unsure = true;
        }
        None
    }

    /// Whether all children of `at` under `mask` that are handed down look empty. Looking before
    /// taking back matters: two claims that took back what is in use would keep each other from
    /// ever being sure.
    fn seems_empty(&self, at: At, word: Word, mask: u32, pass: &mut Pass) -> bool {
        let fields = self.hints.load(&self.levels, at);
        let whole = field_whole(at.level - 1);
        bits(word.handed_down()).filter(|child| mask & (0b11 << (2 * child)) != 0).all(|child| {
            if !pass.all && fields.get(child) < whole {
                return false;
            }
            let empty = self.is_empty(at.child(child), pass);
            if !empty {
                self.lower_hint(at, child, fields);
            }
            empty
        })
    }

    fn is_empty(&self, at: At, pass: &mut Pass) -> bool {
        let word = self.load(at);
        pass.saw(at, word);
        if at.level == 0 {
            return word.state() == 0;
        }
        word.claimed(at.level) == 0
            && bits(word.handed_down()).all(|child| self.is_empty(at.child(child), pass))
    }

    /// Claims exactly these bits, if all of them are free.
    fn claim_exactly(&self, at: At, mask: u32) -> bool {
        let mut now = self.load(at);
        while !now.is_sealed() && self.occupied(at, now) & mask == 0 {
            // AcqRel: as in `claim_in`.
            match self.word(at).compare_exchange_weak(
                now.bits(),
                now.with_claim(mask).bits(),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return true,
                Err(other) => now = Word::from_bits(other),
            }
        }
        false
    }

    /// Makes the hint for a child what the child looks like now, and looks once more, because a
    /// free that saw the old hint did not raise it.
    fn lower_hint(&self, at: At, child: u32, seen: Fields) {
        let below = at.child(child);
        if below.level == 0 {
            return;
        }
        let estimate = self.estimate(below);
        let to = estimate.map_or(0, |order| field(below.level, order));
        if self.hints.lower(&self.levels, at, seen, child, to)
            && let Some(now) = self.estimate(below)
            && Some(now) > estimate
        {
            self.hints.raise(&self.levels, below, now);
        }
    }

    /// The largest order that may be free in a word, by its own state and its hints.
    fn estimate(&self, at: At) -> Option<u32> {
        let word = self.load(at);
        let own = |occupied| longest_span(occupied).map(|span| 4 * at.level + span);
        let occupied = self.occupied(at, word);
        if at.level == 0 || word.handed_down() == 0 {
            return own(occupied);
        }
        let handed = word.handed_down();
        let (whole, largest) = if at.level == 1 {
            let row = |child| self.load(at.child(child)).state();
            let empty = bits(handed)
                .filter(|&child| row(child) == 0)
                .fold(0, |whole, child| whole | (1 << child));
            (empty, bits(handed).filter_map(|child| longest_span(row(child))).max())
        } else {
            let fields = self.hints.load(&self.levels, at);
            (
                fields.at_least(field_whole(at.level - 1)),
                order_of(at.level - 1, fields.largest(handed)),
            )
        };
        let returnable =
            bits(handed & whole).fold(0, |returnable, child| returnable | (0b11 << (2 * child)));
        own(occupied & !returnable).max(largest)
    }
}
